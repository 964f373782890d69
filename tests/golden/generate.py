"""Writes the golden files of this directory. Usage: python generate.py [part ...] [model name ...]

Parts: philox models schedulers optim ops blocks tiny (default: all).
"""
import argparse
import os
import sys

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "")

import torch  # noqa: E402

PARTS = ("philox", "models", "schedulers", "optim", "ops", "blocks", "tiny")


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", nargs="*", help="parts, or names of models")
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    torch.use_deterministic_algorithms(True)

    import golden_models
    unknown = [w for w in args.what if w not in PARTS and w not in golden_models.MODELS]
    if unknown:
        parser.error(f"unknown part or model: {', '.join(unknown)}")
    parts = [w for w in args.what if w in PARTS]
    names = [w for w in args.what if w in golden_models.MODELS]
    if not args.what:
        parts = list(PARTS)

    if "philox" in parts:
        import golden_philox
        golden_philox.generate()
    if "models" in parts or names:
        golden_models.generate(None if "models" in parts else names)
    for part in ("schedulers", "optim", "ops", "blocks", "tiny"):
        if part in parts:
            __import__("golden_" + part).generate()


if __name__ == "__main__":
    sys.exit(main())
