"""Trains the golden model `digits` on MNIST with PyTorch and records the loss curve in digits_loss.json.

Usage: python train_reference.py IMAGES.gz LABELS.gz [--steps 600] [--threads 1] [--save DIR]

IMAGES and LABELS are MNIST's IDX files (plain or .gz) with 10,000 images; the first 9000 are trained on and the rest is
held out. float32 on the CPU. The curve is a yardstick for a trainer with the same settings, not something to meet to the
bit: the random numbers are PyTorch's.
"""
import argparse
import gzip
import json
import os
import time

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import numpy as np  # noqa: E402
import torch  # noqa: E402
from diffusers import UNet2DModel  # noqa: E402

import golden_common as g  # noqa: E402
import golden_models  # noqa: E402

TRAIN, BATCH, WARMUP, LR, CLIP, DROP, NULL = 9000, 64, 100, 1e-3, 1.0, 0.1, 10
T, BETA_START, BETA_END = 1000, 1e-4, 0.02


def read_idx(path):
    with open(path, "rb") as f:
        data = f.read()
    if data[:2] == b"\x1f\x8b":
        data = gzip.decompress(data)
    if data[:3] != b"\0\0\x08":
        raise SystemExit(f"{path}: not an IDX file of bytes")
    dims = [int.from_bytes(data[4 + 4 * i:8 + 4 * i], "big") for i in range(data[3])]
    return np.frombuffer(data, np.uint8, offset=4 + 4 * len(dims)).reshape(dims)


def zero_last_layers(model):
    """As in DDPM's reference: blocks start as the identity and the output as zero."""
    with torch.no_grad():
        for name, p in model.named_parameters():
            if name.startswith("conv_out.") or ".conv2." in name or ".to_out.0." in name:
                p.zero_()


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("images")
    parser.add_argument("labels")
    parser.add_argument("--steps", type=int, default=600)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--save", help="write the trained model here (a diffusers UNet directory)")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    torch.manual_seed(args.seed)

    images = torch.from_numpy(read_idx(args.images).astype(np.float32) / 127.5 - 1.0)[:, None]
    labels = torch.from_numpy(read_idx(args.labels).astype(np.int64))
    bar = torch.from_numpy(np.cumprod(1.0 - np.linspace(BETA_START, BETA_END, T))).float()[:, None, None, None]
    model = UNet2DModel(**golden_models.MODELS["digits"]["config"])
    zero_last_layers(model)
    adam = torch.optim.AdamW(model.parameters(), lr=LR, betas=(0.9, 0.999), eps=1e-8, weight_decay=0.0)

    def loss_of(x0, y, generator=None):
        t = torch.randint(0, T, (len(x0),), generator=generator)
        noise = torch.randn(x0.shape, generator=generator)
        a = bar[t]
        return torch.nn.functional.mse_loss(model(a.sqrt() * x0 + (1.0 - a).sqrt() * noise, t, class_labels=y).sample, noise)

    def held_out():
        generator, total = torch.Generator().manual_seed(1), 0.0
        with torch.no_grad():
            for i in range(TRAIN, len(images), 100):
                total += loss_of(images[i:i + 100], labels[i:i + 100], generator).item() * len(images[i:i + 100])
        return total / (len(images) - TRAIN)

    curve, window, norms, order, used = [], [], [], torch.randperm(TRAIN), 0
    start, seconds = time.time(), 0.0
    for step in range(1, args.steps + 1):
        if used + BATCH > TRAIN:
            order, used = torch.randperm(TRAIN), 0
        index, used = order[used:used + BATCH], used + BATCH
        y = torch.where(torch.rand(BATCH) < DROP, NULL, labels[index])
        for group in adam.param_groups:
            group["lr"] = LR * min(1.0, step / WARMUP)
        loss = loss_of(images[index], y)
        adam.zero_grad()
        loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(model.parameters(), CLIP)
        adam.step()
        window.append(loss.item())
        norms.append(norm.item())
        if step % 25 == 0:
            curve.append({"step": step, "loss": round(float(np.mean(window)), 6), "grad_norm": round(float(np.mean(norms)), 6)})
            print(f"{step:5d}  loss {curve[-1]['loss']:.4f}  grad norm {curve[-1]['grad_norm']:.3f}  "
                  f"{time.time() - start:.0f} s", flush=True)
            window, norms = [], []
    seconds = time.time() - start
    last = held_out()
    g.write_json("digits_loss.json", {
        "versions": g.versions(),
        "settings": {"model": "model_digits.json", "images": TRAIN, "batch": BATCH, "steps": args.steps, "lr": LR, "warmup": WARMUP,
                     "betas": [0.9, 0.999], "eps": 1e-8, "weight_decay": 0.0, "clip": CLIP, "label_dropout": DROP,
                     "null_class": NULL, "schedule": "linear", "beta_start": BETA_START, "beta_end": BETA_END, "T": T,
                     "prediction": "epsilon", "t": "uniform", "seed": args.seed, "precision": "float32",
                     "zero_init": ["conv2", "to_out.0", "conv_out"]},
        "curve": curve, "held_out_loss": round(last, 6),
        "wall_seconds": round(seconds, 1), "seconds_per_step": round(seconds / args.steps, 4), "threads": args.threads}, depth=3)
    if args.save:
        model.save_pretrained(args.save)


if __name__ == "__main__":
    main()
