#!/usr/bin/env python3
"""Trains the judge of the shipped digit model: a small convolutional classifier.

It sees the digits 8000 to 9499 of MNIST's t10k set, which the diffusion model (digits 0 to 7999) did
not see; 9500 to 9999 are held out to measure it. Writes classifier.safetensors and classifier.json
beside this file. Needs torch, numpy and safetensors; takes some minutes.

    python3 train_classifier.py
"""
import gzip
import json
import math
import pathlib

import numpy as np
import torch
import torch.nn as nn
import torch.nn.functional as F
from safetensors.torch import save_file

HERE = pathlib.Path(__file__).resolve().parent
DATA = HERE.parent.parent / "host" / "examples" / "digits"
TRAIN, HELD_OUT = slice(8000, 9500), slice(9500, 10000)
EPOCHS, BATCH, LR, SEED = 150, 50, 2e-3, 1


def read(name, header):
    with gzip.open(DATA / name) as f:
        return np.frombuffer(f.read(), np.uint8)[header:]


class Classifier(nn.Module):
    """Input N,1,28,28 in [-1, 1]; test_digits_recognised.cc computes the same."""

    def __init__(self):
        super().__init__()
        self.conv1 = nn.Conv2d(1, 16, 3, padding=1)
        self.conv2 = nn.Conv2d(16, 32, 3, stride=2, padding=1)
        self.conv3 = nn.Conv2d(32, 64, 3, stride=2, padding=1)
        self.fc = nn.Linear(64 * 7 * 7, 10)

    def forward(self, x):
        x = F.relu(self.conv1(x))
        x = F.relu(self.conv2(x))
        x = F.relu(self.conv3(x))
        return self.fc(F.dropout(x.flatten(1), 0.4, self.training))


def distort(x, rng):
    """Random rotation, scale, shear and shift, then a smooth displacement field."""
    n = len(x)
    angle = (rng.random(n) - 0.5) * math.radians(30)
    sx, sy = 1 + 0.25 * (rng.random(n) - 0.5), 1 + 0.25 * (rng.random(n) - 0.5)
    shear = 0.4 * (rng.random(n) - 0.5)
    shift = 0.25 * (rng.random((n, 2)) - 0.5)
    c, s = np.cos(angle), np.sin(angle)
    theta = np.stack([np.stack([c * sx, -s * sy + shear, shift[:, 0]], 1),
                      np.stack([s * sx, c * sy, shift[:, 1]], 1)], 1)
    grid = F.affine_grid(torch.tensor(theta, dtype=torch.float32), x.shape, align_corners=False)
    coarse = torch.tensor(rng.standard_normal((n, 2, 5, 5)) * 0.05, dtype=torch.float32)
    field = F.interpolate(coarse, size=x.shape[2:], mode="bicubic", align_corners=True)
    grid = grid + field.permute(0, 2, 3, 1)
    return F.grid_sample(x + 1, grid, align_corners=False) - 1


def main():
    torch.manual_seed(SEED)
    rng = np.random.default_rng(SEED)
    images = torch.tensor(read("t10k-images-idx3-ubyte.gz", 16).reshape(-1, 1, 28, 28) / 127.5 - 1,
                          dtype=torch.float32)
    labels = torch.tensor(read("t10k-labels-idx1-ubyte.gz", 8).astype(np.int64))
    net = Classifier()
    steps = EPOCHS * (1500 // BATCH)
    optimizer = torch.optim.AdamW(net.parameters(), lr=LR, weight_decay=1e-2)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    for epoch in range(EPOCHS):
        order = rng.permutation(1500)
        net.train()
        for first in range(0, 1500, BATCH):
            pick = TRAIN.start + order[first:first + BATCH]
            loss = F.cross_entropy(net(distort(images[pick], rng)), labels[pick])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
        net.eval()
        with torch.no_grad():
            right = (net(images[HELD_OUT]).argmax(1) == labels[HELD_OUT]).sum().item()
        if epoch % 10 == 9:
            print(f"epoch {epoch + 1}: loss {loss.item():.4f}, held out {right}/500", flush=True)
    save_file({k: v.contiguous() for k, v in net.state_dict().items()},
              str(HERE / "classifier.safetensors"))
    with torch.no_grad():
        first = net(images[HELD_OUT][:8]).tolist()
    with open(HERE / "classifier.json", "w") as f:
        json.dump({"held_out_right": right, "held_out": 500, "logits_of_first": first}, f, indent=1)
        f.write("\n")


if __name__ == "__main__":
    main()
