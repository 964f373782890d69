#!/usr/bin/env python3
"""Writes bench/results/kernels.md: per kernel and format, and for whole models, the last commit whose
device tests passed on a GPU, or "not yet".

    results_page.py [--check] [--add FILE]

verified.jsonl beside the page holds one line a device check: commit, gpu, date, and the families
that passed. --add appends such a line (device_check.sh writes it); --check fails when the page is
not what would be written.
"""
import json
import pathlib
import sys

RESULTS = pathlib.Path(__file__).resolve().parent / "results"
PAGE = RESULTS / "kernels.md"
LOG = RESULTS / "verified.jsonl"

# family of the tests -> its kernels; each test runs fp32, bf16 and fp16.
KERNELS = {
    "wrappers": ["building blocks (shuffles, votes, copies, barriers, clusters, conversions)"],
    "mma": ["matrix building blocks (ldmatrix, mma, wgmma, small copies, swizzle)"],
    "tma": ["TMA (boxes, multicast), wgmma of 256 columns, setmaxnreg, mbarriers of a cluster"],
    "noise": ["noise fill", "step counter"],
    "draw": ["time steps, dropped labels, mirrored images", "scaled samples, constants"],
    "sampler": ["fused DDIM update", "dynamic threshold"],
    "update": ["general sampler update", "forward noising"],
    "group_norm": ["GroupNorm forward", "GroupNorm backward"],
    "small": ["SiLU, ReLU, GELU", "add", "add vector", "dropout", "concat and split",
              "pool and nearest up", "layout and format", "uint8 image to tensor", "embedding",
              "time embedding", "weighted MSE", "bias and vector gradients"],
    "conv": ["convolution forward (fp32 also as tf32, 16 bits also by wgmma)"],
    "conv_gradient": ["convolution input gradient (fp32 also as tf32, 16 bits also by wgmma)"],
    "conv_box": ["convolution forward and input gradient by TMA and wgmma (16 bits)"],
    "conv_weight": ["convolution weight gradient (fp32 also as tf32, 16 bits also by wgmma)"],
    "gemm": ["batched matrix products (fp32 also as tf32, 16 bits also by wgmma)"],
    "attention": ["attention forward (fp32 also as tf32)",
                  "attention backward (fp32 also as tf32)"],
    "block": ["a residual block and attention blocks of launchers, forward and backward"],
    "optimizer": ["multi-tensor AdamW with EMA", "norm over many tensors"],
}
FORMATS = ["fp32", "bf16", "fp16"]


def checks():
    if not LOG.exists():
        return []
    return [json.loads(line) for line in LOG.read_text().splitlines() if line.strip()]


def last(family):
    found = [c for c in checks() if family in c["passed"]]
    return "{commit} ({gpu}, {date})".format(**found[-1]) if found else "not yet"


def page():
    lines = ["# Kernels verified on a GPU", "",
             "Written by `bench/results_page.py` from `verified.jsonl`, which `make device-check`",
             "extends. A cell names the last commit whose device tests passed; before that every",
             "kernel has been executed on the host only, under the emulator.", "",
             "| kernel | " + " | ".join(FORMATS) + " |", "|---" * (len(FORMATS) + 1) + "|"]
    for family, names in KERNELS.items():
        for name in names:
            lines.append("| {} | {} |".format(name, " | ".join([last(family)] * len(FORMATS))))
    lines += ["", "Whole models (training, sampling and PyTorch's gradients in fp32, tf32 and bf16; runs that",
              "another device takes up): " + last("engine") + "."]
    return "\n".join(lines) + "\n"


def main(argv):
    if "--add" in argv:
        line = pathlib.Path(argv[argv.index("--add") + 1]).read_text().strip()
        check = json.loads(line)
        missing = {"commit", "gpu", "date", "passed"} - set(check)
        if missing:
            sys.exit("results_page.py: --add: the line lacks " + ", ".join(sorted(missing)))
        with LOG.open("a") as log:
            log.write(json.dumps(check) + "\n")
    if "--check" in argv:
        if not PAGE.exists() or PAGE.read_text() != page():
            sys.exit("results_page.py: bench/results/kernels.md is out of date: run it again")
        return
    PAGE.write_text(page())


if __name__ == "__main__":
    main(sys.argv[1:])
