#!/usr/bin/env python3
"""Compares a training step and a DDIM step on the CPU with PyTorch and diffusers.

    python3 bench/peers/cpu.py [--build build] [--threads 1 2] [--compile] [--write]

Both run the network of the preset `mnist` with the weights that `tweedie train` wrote, in float32
and with the same number of threads. First the results are compared: four DDIM steps from the same
noise, and loss and gradient norm of one training step on the same batch, time steps and noise.
Then the two take turns: a step here, a step there. PyTorch runs the quickest of its eager settings,
found before. --write leaves the numbers in bench/results/cpu-peers.json and cpu-peers.md.
"""
import argparse
import json
import os
import pathlib
import statistics
import subprocess
import sys
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parents[2]
DIGITS = ROOT / "host/examples/digits/t10k-images-idx3-ubyte.gz"
RESULTS = ROOT / "bench/results"
DDIM_STEPS = 4
SAMPLE_BOUND = 1e-4  # of |x| <= 1 after four steps in float32
LOSS_BOUND, NORM_BOUND = 1e-6, 1e-5  # relative

try:
    import diffusers
    import numpy as np
    import torch
    from diffusers import DDIMScheduler, DDPMScheduler, UNet2DModel
except ImportError as missing:
    sys.exit(f"cpu.py: {missing}: python3 -m pip install numpy torch diffusers")

sys.path.insert(0, str(ROOT / "tests/golden"))
import philox  # noqa: E402


def make_model(build, where):
    """A directory written by tweedie, a few steps away from the initial weights."""
    subprocess.run([build / "host/tweedie", "train", "--preset", "mnist", "--data", DIGITS,
                    "--out", where, "--steps", "5", "--limit", "640", "--lr", "1e-2",
                    "--lr-warmup", "0", "--ema", "0", "--holdout", "0", "--validate-every", "0",
                    "--preview-every", "0"], check=True, stdout=subprocess.DEVNULL)
    return where


class Ours:
    """A engine_bench that runs a step when told to."""

    def __init__(self, build, mode, model, batch, threads, dump=None, steps=DDIM_STEPS):
        command = [build / "bench/engine_bench", mode, "--model", model, "--batch", str(batch),
                   "--threads", str(threads), "--steps", str(steps)]
        command += ["--data", DIGITS] if mode == "train" else []
        command += ["--dump", dump] if dump else []
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                        text=True)

    def run(self):
        self.process.stdin.write("1\n")
        self.process.stdin.flush()
        line = self.process.stdout.readline()
        if not line:
            sys.exit("cpu.py: engine_bench ended")
        return json.loads(line)

    def close(self):
        self.process.stdin.close()
        if self.process.wait() != 0:
            sys.exit("cpu.py: engine_bench failed")


def noise(seed, purpose, step, batch, shape):
    """The library's own noise: samples counted from 0, elements in N,H,W,C order."""
    count = shape[0] * shape[1] * shape[2]
    values = np.stack([philox.normals(seed, n, purpose, step, count) for n in range(batch)])
    return torch.from_numpy(values.reshape(batch, *shape)).permute(0, 3, 1, 2).contiguous()


def load(model, layout):
    return UNet2DModel.from_pretrained(model, subfolder="unet",
                                       low_cpu_mem_usage=False).to(memory_format=layout)


class Training:
    """One optimizer step as the trainer does it: noising, loss, gradient, clipping, AdamW, EMA."""

    def __init__(self, model, batch, layout, optimizer, compiled=False):
        self.net = load(model, layout).train()
        self.run_net = torch.compile(self.net) if compiled else self.net
        self.parameters = list(self.net.parameters())
        self.average = [p.detach().clone() for p in self.parameters]
        self.adam = torch.optim.AdamW(self.parameters, lr=1e-5, weight_decay=0.0,
                                      **{optimizer: True})
        scheduler = DDPMScheduler.from_pretrained(model, subfolder="scheduler")
        self.alphas = scheduler.alphas_cumprod
        self.batch, self.layout = batch, layout
        self.x0 = torch.randn(batch, 1, 28, 28).clamp(-1, 1)
        self.labels = torch.arange(batch) % 10

    def loss(self, x0, t, e, labels):
        a = self.alphas[t].view(-1, 1, 1, 1)
        x = (a.sqrt() * x0 + (1 - a).sqrt() * e).to(memory_format=self.layout)
        return torch.nn.functional.mse_loss(self.run_net(x, t, labels).sample, e)

    def step(self):
        t = torch.randint(0, 1000, (self.batch,))
        loss = self.loss(self.x0, t, torch.randn_like(self.x0), self.labels)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.parameters, 1.0, foreach=True)
        self.adam.step()
        self.adam.zero_grad(set_to_none=True)
        with torch.no_grad():
            torch._foreach_lerp_(self.average, self.parameters, 1e-3)
        return loss.item()


class Sampling:
    """DDIM steps of a batch."""

    def __init__(self, model, batch, layout, compiled=False):
        self.net = load(model, layout).eval()
        self.run_net = torch.compile(self.net) if compiled else self.net
        self.scheduler = DDIMScheduler.from_pretrained(model, subfolder="scheduler")
        self.scheduler.set_timesteps(DDIM_STEPS)
        self.layout = layout
        self.x = noise(0, philox.INITIAL, 0, batch, (28, 28, 1)).to(memory_format=layout)
        self.labels = torch.arange(batch) % 11

    @torch.inference_mode()
    def step(self):
        x = self.x
        for t in self.scheduler.timesteps:
            x = self.scheduler.step(self.run_net(x, t, self.labels).sample, t, x, eta=0.0).prev_sample
        return x


def check(build, model):
    """Exits unless both compute the same numbers; returns how close they came."""
    batch = 64
    with tempfile.TemporaryDirectory() as folder:
        ours = Ours(build, "sample", model, 8, 1, folder)
        ours.run()
        ours.close()
        x = torch.from_numpy(np.load(f"{folder}/x.npy")).permute(0, 3, 1, 2)
        off = (Sampling(model, 8, torch.contiguous_format).step() - x).abs().max().item()

        ours = Ours(build, "train", model, batch, 1, folder)
        first = ours.run()
        ours.close()
        x0 = torch.from_numpy(np.load(f"{folder}/x0.npy")).permute(0, 3, 1, 2).contiguous()
        labels = torch.from_numpy(np.load(f"{folder}/labels.npy")).long()
    t = [int(philox.words(0, n, philox.TRAIN_T, 0, 1)[0]) * 1000 >> 32 for n in range(batch)]
    training = Training(model, batch, torch.contiguous_format, "foreach")
    loss = training.loss(x0, torch.tensor(t), noise(0, philox.TRAIN_NOISE, 0, batch, (28, 28, 1)),
                         labels)
    loss.backward()
    norm = torch.nn.utils.clip_grad_norm_(training.parameters, 1.0).item()
    found = {"samples": off, "loss": abs(first["loss"] / loss.item() - 1),
             "grad_norm": abs(first["grad_norm"] / norm - 1)}
    bounds = {"samples": SAMPLE_BOUND, "loss": LOSS_BOUND, "grad_norm": NORM_BOUND}
    for name, value in found.items():
        if not value <= bounds[name]:
            sys.exit(f"cpu.py: {name}: off by {value:.2e}, expected at most {bounds[name]:.0e}")
    return {name: {"off_by": value, "bound": bounds[name]} for name, value in found.items()}


def seconds(run, steps):
    wall, cpu = time.perf_counter(), time.process_time()
    run()
    return {"seconds": (time.perf_counter() - wall) / steps,
            "processor_seconds": (time.process_time() - cpu) / steps}


def variants(mode, model, batch, compiled):
    """PyTorch's settings by name."""
    for layout_name, layout in (("contiguous", torch.contiguous_format),
                                ("channels_last", torch.channels_last)):
        for compile_it in ([False, True] if compiled else [False]):
            name = layout_name + (", compiled" if compile_it else ", eager")
            if mode == "sample":
                yield name, lambda: Sampling(model, batch, layout, compile_it)
                continue
            for optimizer in ("fused", "foreach"):
                yield f"{name}, AdamW {optimizer}", lambda: Training(model, batch, layout,
                                                                     optimizer, compile_it)


def quickest(mode, model, batch, compiled):
    best = None
    for name, make in variants(mode, model, batch, compiled):
        job = make()
        job.step()
        tries = [seconds(job.step, 1)["processor_seconds"] for _ in range(2)]
        if best is None or min(tries) < best[0]:
            best = (min(tries), name, job)
    return best[1], best[2]


def spread(list_of_runs):
    out = {}
    for key in ("seconds", "processor_seconds"):
        values = sorted(r[key] for r in list_of_runs)
        tenths = statistics.quantiles(values, n=10, method="inclusive")
        out[key] = {"median": statistics.median(values), "p10": tenths[0], "p90": tenths[-1]}
    return out


def compare(build, model, mode, batch, threads, budget, compiled):
    torch.set_num_threads(threads)
    name, job = quickest(mode, model, batch, compiled)
    ours = Ours(build, mode, model, batch, threads)
    ours.run()
    steps = 1 if mode == "train" else DDIM_STEPS
    a, b, end = [], [], time.monotonic() + budget
    while len(a) < 5 or (time.monotonic() < end and len(a) < 200):
        a.append(ours.run())
        b.append(seconds(job.step, steps))
    ours.close()
    ratio = [statistics.median(y["seconds"] for y in b) / statistics.median(x["seconds"] for x in a)]
    ratio += [statistics.median(y["processor_seconds"] for y in b) /
              statistics.median(x["processor_seconds"] for x in a)]
    return {"what": "training step" if mode == "train" else "DDIM step", "batch": batch,
            "threads": threads, "runs": len(a), "tweedie": spread(a), "pytorch": spread(b),
            "pytorch_settings": name, "ratio": ratio[0], "ratio_processor": ratio[1]}


def cpu_name():
    for line in open("/proc/cpuinfo"):
        if line.startswith("model name"):
            return line.split(":")[1].strip()
    return "unknown"


def commit():
    head = subprocess.run(["git", "-C", ROOT, "rev-parse", "--short=10", "HEAD"],
                          capture_output=True, text=True).stdout.strip()
    changed = subprocess.run(["git", "-C", ROOT, "status", "--porcelain", "-uno"],
                             capture_output=True, text=True).stdout.strip()
    return head + (" with changes" if changed else "")


def page(result):
    lines = ["# The CPU beside PyTorch", "",
             "Written by `bench/peers/cpu.py --write`. Preset `mnist` (UNet 32/64/64, 1.6 M parameters,",
             "28x28), float32, the same weights and number of threads, the two programs in turn. Medians in",
             "milliseconds, by the clock (p10 to p90 in brackets) and of processor time, which other programs",
             "on the machine disturb less. A ratio says how many times quicker tweedie is.", "",
             f"Commit {result['commit']}, {result['cpu']}, {result['processors']} processors, load "
             f"{result['load'][0]:.1f} before and {result['load'][1]:.1f} after.",
             f"PyTorch {result['torch']}, diffusers {result['diffusers']}.", "",
             "| | batch | threads | tweedie | PyTorch | ratio | tweedie, processor | PyTorch, processor "
             "| ratio | PyTorch's settings |", "|---" * 10 + "|"]
    for r in result["rows"]:
        cells = [r["what"], str(r["batch"]), str(r["threads"])]
        for key, ratio in (("seconds", "ratio"), ("processor_seconds", "ratio_processor")):
            for who in ("tweedie", "pytorch"):
                ms = {k: 1e3 * v for k, v in r[who][key].items()}
                cells.append("{median:.1f} ({p10:.1f} to {p90:.1f})".format(**ms) if key == "seconds"
                             else "{median:.1f}".format(**ms))
            cells.append(f"{r[ratio]:.2f}")
        lines.append("| " + " | ".join(cells + [r["pytorch_settings"]]) + " |")
    lines += ["", "Checked before: " + ", ".join(
        f"{name.replace('_', ' ')} within {c['off_by']:.1e} (bound {c['bound']:.0e})"
        for name, c in result["checks"].items()) + "."]
    return "\n".join(lines) + "\n"


def main():
    options = argparse.ArgumentParser(description=__doc__,
                                      formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--build", type=pathlib.Path, default=ROOT / "build")
    options.add_argument("--model", help="a directory written by tweedie, of the preset mnist")
    options.add_argument("--threads", type=int, nargs="+", default=[1])
    options.add_argument("--seconds", type=float, default=20.0, help="of each comparison")
    options.add_argument("--compile", action="store_true", help="try torch.compile too (minutes)")
    options.add_argument("--write", action="store_true", help="leave the numbers in bench/results")
    args = options.parse_args()
    torch.manual_seed(0)
    load_before = os.getloadavg()[0]
    with tempfile.TemporaryDirectory() as folder:
        model = args.model or make_model(args.build, folder + "/run")
        result = {"commit": commit(), "cpu": cpu_name(), "processors": len(os.sched_getaffinity(0)),
                  "torch": torch.__version__, "diffusers": diffusers.__version__,
                  "checks": check(args.build, model), "rows": []}
        for threads in args.threads:
            for mode, batch in (("train", 64), ("sample", 1), ("sample", 16), ("sample", 64)):
                row = compare(args.build, model, mode, batch, threads, args.seconds, args.compile)
                result["rows"].append(row)
                print(f"{row['what']}, batch {batch}, {threads} threads: ratio {row['ratio']:.2f}, "
                      f"of processor time {row['ratio_processor']:.2f}", file=sys.stderr)
    result["load"] = [load_before, os.getloadavg()[0]]
    if args.write:
        (RESULTS / "cpu-peers.json").write_text(json.dumps(result, indent=1) + "\n")
        (RESULTS / "cpu-peers.md").write_text(page(result))
    print(page(result))


if __name__ == "__main__":
    main()
