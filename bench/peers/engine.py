#!/usr/bin/env python3
"""Compares training steps and DDIM runs with PyTorch and diffusers, on a GPU or the CPU.

    python3 bench/peers/engine.py [--build build] [--device auto|cpu|cuda] [--write]

Both sides load the same weights and start from the same noise, and each setting of PyTorch must
give what tweedie gives (the bounds are below) before it is timed. Then the two take turns. On a GPU
every setting gets a row, at the sizes of the plan below; on the CPU, with a small network, the
quickest setting. A row that cannot be measured says why. Every row is a line of JSON as soon as it
is there; --write leaves lines and page in bench/results.
"""
import argparse
import json
import math
import os
import pathlib
import subprocess
import sys
import tempfile

import nvml
import pages
import turns
from turns import Refused, Side

ROOT = pathlib.Path(__file__).resolve().parents[2]
RESULTS = ROOT / "bench/results"
PEER = pathlib.Path(__file__).resolve().parent / "pytorch.py"

# The most by which a result may be off, relative to PyTorch's: the samples of CHECK_STEPS steps by
# their root mean square, loss and gradient norm of a training step. Several times what the format's
# rounding does to these networks.
BOUNDS = {"fp32": {"samples": 1e-4, "loss": 1e-6, "grad_norm": 1e-5},
          "tf32": {"samples": 2e-2, "loss": 1e-3, "grad_norm": 3e-3},
          "fp16": {"samples": 2e-2},
          "bf16": {"samples": 1e-1, "loss": 2e-3, "grad_norm": 1e-2}}
CHECK_STEPS = 4  # pytorch.py's

# (mode, network, batch, DDIM steps, ratio aimed at). "start" is a process from its start to its
# first images on the host.
PLANS = {
    "cuda": [("train", "cifar10", 128, 1, 1.4), ("train", "cifar10", 512, 1, 1.4),
             ("train", "256px", 8, 1, 1.4), ("train", "256px", 32, 1, 1.4),
             ("sample", "cifar10", 512, 50, 1.4), ("sample", "cifar10", 64, 50, 1.5),
             ("sample", "cifar10", 1, 50, 4), ("start", "cifar10", 1, 20, 20)],
    "cpu": [("train", "mnist", 64, 1, None), ("sample", "mnist", 1, 4, None),
            ("sample", "mnist", 16, 4, None), ("sample", "mnist", 64, 4, None)],
    "tiny": [("train", "tiny", 4, 1, None), ("sample", "tiny", 2, 2, None)],
}
WHAT = {"train": "training step", "sample": "DDIM step", "start": "start to first image"}
TURN = 0.1   # seconds of a GPU's turn at least
STARTS = 5   # of a process
PROBES = 2   # calls by which the quickest setting is found

AUTOTUNE, INSIDE_GRAPH = "max-autotune", "max-autotune-no-cudagraphs"


def settings(mode, device, form, compiled):
    """PyTorch's settings, as pytorch.py takes them."""
    if device == "cpu":
        optimizers = ["fused", "foreach"] if mode == "train" else [None]
        return [{"layout": layout, "compile": how, "optimizer": o}
                for layout in ("contiguous", "channels_last")
                for how in ([None, "default"] if compiled else [None]) for o in optimizers]
    out = [{"layout": "contiguous"}, {"layout": "channels_last"}]
    if compiled:
        out.append({"layout": "channels_last", "compile": AUTOTUNE})
    if mode == "train":
        out = [{**s, "optimizer": "fused"} for s in out]
        if form == "bf16":
            out += [{**s, "weights": "low"} for s in out[1:]]
    elif mode == "sample":
        out.append({"layout": "channels_last", "loop": "graph"})
        if compiled:
            out.append({"layout": "channels_last", "compile": INSIDE_GRAPH, "loop": "graph"})
    return out


def words(setting):
    """A setting by name."""
    parts = [setting["layout"]]
    parts.append(f"compiled {setting['compile']}" if setting.get("compile") else "eager")
    if setting.get("weights"):
        parts.append("low-precision weights with fp32 masters")
    if setting.get("loop"):
        parts.append("bare loop as a CUDA graph")
    if setting.get("optimizer"):
        parts.append(f"AdamW {setting['optimizer']}")
    return ", ".join(parts)


class Run:
    """The programs, the folder that they share, and how the rows are measured."""

    def __init__(self, args, device, folder, gpu):
        self.args, self.device, self.folder, self.gpu = args, device, folder, gpu
        self.models, self.logs = {}, 0

    def log(self):
        self.logs += 1
        return f"{self.folder}/{self.logs}.txt"

    def model(self, network):
        if network not in self.models:
            where = self.args.model or f"{self.folder}/{network}"
            if not self.args.model:
                with open(self.log(), "w+") as said:
                    made = subprocess.run([self.args.python, str(PEER), "make", "--network",
                                           network, "--out", where], stderr=said)
                    said.seek(0)
                    if made.returncode != 0:
                        raise Refused((said.read().strip().splitlines() or ["no model"])[-1])
            self.models[network] = where
        return self.models[network]

    def side(self, program, row, extra):
        mode = "train" if row["mode"] == "train" else "sample"
        command = program + [mode, "--model", self.model(row["network"]), "--device", self.device,
                             "--format", row["format"], "--batch", row["batch"], "--steps",
                             row["steps"], "--threads", row["threads"]] + extra
        return Side(command, self.log(), self.args.patience)

    def ours(self, row, extra=()):
        return self.side([self.args.build / "bench/engine_bench"], row, list(extra))

    def expected(self, row):
        """What PyTorch is held against: leaves arrays in the folder, returns the answer."""
        with self.ours(dict(row, steps=CHECK_STEPS), ["--dump", self.folder]) as side:
            answer = side.run()
            side.ask("info")  # answered when the arrays are there
            return answer

    def peer(self, row, setting):
        extra = [word for key, value in setting.items() if value for word in (f"--{key}", value)]
        return self.side([self.args.python, PEER], row, extra)


def relative(expected, found):
    """How far the sides' results are apart. The samples come compared."""
    if "loss" not in found:
        return {"samples": found["samples_off"]}
    return {name: abs(expected[name] / found[name] - 1) if found[name] else math.inf
            for name in ("loss", "grad_norm")}


class Disagreement(Refused):
    pass


def open_peer(run, row, expected, setting):
    """PyTorch with this setting, once it has agreed, and what was found."""
    peer = run.peer(row, setting)
    try:
        found = peer.ask(f"check {run.folder}")
        off = relative(expected, found)
        bounds = BOUNDS[row["format"]]
        wrong = turns.disagreements(off, bounds)
        if wrong:
            raise Disagreement("not timed, for the sides disagree: " + "; ".join(wrong))
    except Refused:
        peer.close()
        raise
    checks = {name: {"off_by": value, "bound": bounds[name]} for name, value in off.items()}
    return peer, {"checks": checks, "check_seconds": found["seconds"]}


def open_quickest(run, row, expected, choices):
    """The setting that takes least processor time in a few calls."""
    best, refused = None, None
    for setting in choices:
        try:
            peer, found = open_peer(run, row, expected, setting)
        except Disagreement:
            if best:
                best[1].close()
            raise
        except Refused as why:
            refused = why
            continue
        try:
            peer.run()
            took = min(peer.run()["processor_seconds"] for _ in range(PROBES))
        except Refused as why:
            refused, took = why, math.inf
        if took < (best[0] if best else math.inf):
            best, peer = (took, peer, found, setting), best[1] if best else None
        if peer:
            peer.close()
    if best is None:
        raise refused
    return best[1:]


def calls_of_a_turn(run, row, ours, peer):
    if run.device == "cpu":
        return 1
    quicker = min(side.run()["seconds"] * row["steps"] for side in (ours, peer))
    return max(1, min(1000, math.ceil(TURN / quicker)))


def figures(run, row, side, answers, first, calls):
    said = side.ask("info")
    out = {key: turns.spread([a[key] for a in answers]) for key in ("seconds", "processor_seconds")}
    out["images_per_s"] = row["batch"] / (out["seconds"]["median"] * row["steps"])
    out["memory"] = said["memory"] if run.device == "cuda" else said["process_memory"]
    out["create_seconds"], out["first_seconds"] = said["create_seconds"], first
    out["joules_per_image"] = turns.joules(run.gpu, side, calls, row["batch"],
                                           run.args.energy_seconds)
    return out


def ratios(row):
    a, b = row["tweedie"], row["pytorch"]
    for name, key in (("ratio", "seconds"), ("ratio_processor", "processor_seconds")):
        if key in a:
            row[name] = turns.ratio(a[key]["median"], b[key]["median"])
    for name, key in (("ratio_memory", "memory"), ("ratio_joules", "joules_per_image")):
        row[name] = turns.ratio(a.get(key), b.get(key))
    return row


def timed(run, row, peer, found):
    """The row, filled."""
    with run.ours(row) as ours:
        first = [side.run()["seconds"] * row["steps"] for side in (ours, peer)]
        calls = calls_of_a_turn(run, row, ours, peer)
        a, b = turns.take_turns(ours, peer, calls, run.args.seconds)
        row.update(runs=len(a), calls=calls, checks=found["checks"])
        row["tweedie"] = figures(run, row, ours, a, first[0], calls)
        row["pytorch"] = figures(run, row, peer, b, first[1] + found["check_seconds"], calls)
    return ratios(row)


def started(run, row, setting, found):
    """From the start of a process to its first images, one side after the other; the first pair,
    which finds cold files, does not count."""
    times = {"tweedie": [], "pytorch": []}
    for _ in range(1 + STARTS):
        for who, make in (("tweedie", lambda: run.ours(row)),
                          ("pytorch", lambda: run.peer(row, setting))):
            with make() as side:
                side.run()
                times[who].append(side.age())
    row.update(runs=STARTS, calls=1, checks=found["checks"])
    for who, values in times.items():
        row[who] = {"seconds": turns.spread(values[1:])}
    return ratios(row)


def measured(run, row, expected, group):
    """A row for these settings: for the quickest of them where there are several."""
    row = dict(row, settings=words(group[0]))
    try:
        if len(group) > 1:
            peer, found, setting = open_quickest(run, row, expected, group)
            row["settings"] = words(setting)
        else:
            setting = group[0]
            peer, found = open_peer(run, row, expected, setting)
        with peer:
            if row["mode"] != "start":
                return timed(run, row, peer, found)
        return started(run, row, setting, found)
    except Disagreement as why:
        return {**row, "failed": str(why), "disagrees": True}
    except Refused as why:
        return {**row, "failed": str(why)}


def compare(run, row):
    """Yields the rows of one piece of work."""
    compiled = run.args.compile if run.device == "cpu" else not run.args.no_compile
    choices = settings(row["mode"], run.device, row["format"], compiled)
    try:
        expected = run.expected(row)
    except Refused as why:
        yield {**row, "failed": str(why)}
        return
    for group in [choices] if run.device == "cpu" else [[c] for c in choices]:
        yield measured(run, row, expected, group)


# --- The run ---


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
    return (head or "unknown") + (" with changes" if changed else "")


def find_device(args, folder):
    """What both sides run on, in their words; ends where one of them cannot."""
    engine = args.build / "bench/engine_bench"
    ours = turns.one_answer([engine, "device", "--device", args.device], folder + "/0.txt", 60)
    theirs = turns.one_answer([args.python, PEER, "device", "--device", ours["device"]],
                              folder + "/0.txt", args.patience)
    if ours["device"] == "cpu" and args.device == "auto":
        print("engine.py: no GPU here: small networks on the CPU", file=sys.stderr)
    return ours, theirs


def header(ours, theirs, gpu, plan):
    return {"peers": 1, "commit": commit(), "device": ours["device"], "plan": plan,
            "cpu": cpu_name(), "processors": len(os.sched_getaffinity(0)),
            "torch": theirs["torch"], "diffusers": theirs["diffusers"],
            "cuda": theirs.get("cuda"), "cudnn": theirs.get("cudnn"),
            "machine": gpu.describe() if gpu else None, "load": os.getloadavg()[0]}


def planned(args, device):
    """The pieces of work, as rows that nothing is known of yet."""
    plan = "tiny" if args.tiny else device
    for threads in args.threads:
        for form in args.format or (["bf16"] if device == "cuda" else ["fp32"]):
            for mode, network, batch, steps, aim in PLANS[plan]:
                row = {"what": WHAT[mode], "mode": mode, "network": network, "batch": batch,
                       "steps": steps, "format": form, "threads": threads, "aim": aim}
                if args.only in pages.title(row) and (mode != "train" or form != "fp16"):
                    yield row


def say(row):
    said = row.get("failed") or f"ratio {row['ratio']:.2f}"
    if row.get("ratio_processor") and row["threads"]:
        said += f", of processor time {row['ratio_processor']:.2f}"
    where = f"{pages.title(row)}, {row['threads']} threads, {row.get('settings', 'all settings')}"
    print(f"{where}: {said}", file=sys.stderr)


def run_rows(args, folder, lines):
    """Writes the lines; returns what they say."""
    ours, theirs = find_device(args, folder)
    device = ours["device"]
    gpu = nvml.Gpu.open() if device == "cuda" else None
    head = header(ours, theirs, gpu, "tiny" if args.tiny else device)
    document = [head]

    def keep(line):
        lines.write(json.dumps(line) + "\n")
        lines.flush()

    keep(head)
    run = Run(args, device, folder, gpu)
    for work in planned(args, device):
        for row in compare(run, work):
            say(row)
            keep(row)
            document.append(row)
    document.append({"end": True, "load": os.getloadavg()[0]})
    keep(document[-1])
    return document


def options():
    o = argparse.ArgumentParser(description=__doc__,
                                formatter_class=argparse.RawDescriptionHelpFormatter)
    o.add_argument("--build", type=pathlib.Path, default=ROOT / "build")
    o.add_argument("--python", default=sys.executable, help="the one that has PyTorch")
    o.add_argument("--device", choices=["auto", "cpu", "cuda"], default="auto")
    o.add_argument("--format", nargs="+", choices=list(BOUNDS),
                   help="formats to compute in [CPU fp32, GPU bf16]")
    o.add_argument("--threads", type=int, nargs="+", default=[1])
    o.add_argument("--model", help="a directory of diffusers in place of the plan's networks")
    o.add_argument("--only", default="", metavar="TEXT", help="work whose title holds this")
    o.add_argument("--seconds", type=float, default=20.0, help="of each comparison")
    o.add_argument("--energy-seconds", type=float, default=5.0,
                   help="of each side alone, where a GPU counts its joules")
    o.add_argument("--patience", type=float, default=1200.0, help="seconds for one answer")
    o.add_argument("--compile", action="store_true", help="CPU: try torch.compile too (minutes)")
    o.add_argument("--no-compile", action="store_true", help="GPU: leave torch.compile out")
    o.add_argument("--tiny", action="store_true", help="the smallest networks, to try the way")
    o.add_argument("--list", action="store_true", help="print the work, and end")
    o.add_argument("--json", type=pathlib.Path, metavar="FILE", help="where the lines go")
    o.add_argument("--write", action="store_true", help="leave lines and page in bench/results")
    o.add_argument("--page", type=pathlib.Path, metavar="FILE", help="print the page of such lines")
    o.add_argument("--check", action="store_true", help="fail when a page in bench/results is old")
    return o


def check_pages():
    for lines in sorted(RESULTS.glob("*-peers.jsonl")):
        if lines.with_suffix(".md").read_text() != pages.page(pages.read(lines)):
            sys.exit(f"engine.py: {lines.with_suffix('.md')} is out of date: engine.py --page")


def print_list(args):
    for device in ["cpu", "cuda"] if args.device == "auto" else [args.device]:
        for row in planned(args, device):
            compiled = args.compile if device == "cpu" else not args.no_compile
            print(f"{device}: {pages.title(row)}, {row['threads']} threads")
            for setting in settings(row["mode"], device, row["format"], compiled):
                print("    " + words(setting))


def measure(args):
    with tempfile.TemporaryDirectory() as folder:
        lines = open(args.json, "w") if args.json else open(folder + "/lines.jsonl", "w")
        with lines:
            document = run_rows(args, folder, lines)
    rows = pages.rows(document)
    text = pages.page(document)
    if args.write:
        where = RESULTS / f"{document[0]['device']}-peers.jsonl"
        where.write_text("".join(json.dumps(line) + "\n" for line in document))
        where.with_suffix(".md").write_text(text)
    print(text)
    wrong = any(row.get("disagrees") for row in rows)
    return 1 if wrong or all("failed" in row for row in rows) else 0


def main(argv=None):
    o = options()
    args = o.parse_args(argv)
    if any(t < 1 for t in args.threads) or args.seconds < 0 or args.patience <= 0:
        o.error("--threads, --seconds and --patience: expected numbers above 0")
    if args.write and (args.tiny or args.only or args.model):
        o.error("--write: belongs to the whole plan, not to a part of it")
    if args.page:
        print(pages.page(pages.read(args.page)), end="")
    elif args.check:
        check_pages()
    elif args.list:
        print_list(args)
    else:
        try:
            return measure(args)
        except Refused as why:
            sys.exit(f"engine.py: {why}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
