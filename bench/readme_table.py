#!/usr/bin/env python3
"""Writes the README's table of CPU speed from bench/results/cpu-peers.jsonl.

    readme_table.py [--check]

The table stands between the two comments that name this script. --check fails when the README says
something else.
"""
import json
import pathlib
import re
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent
README = ROOT / "README.md"
RESULTS = ROOT / "bench" / "results" / "cpu-peers.jsonl"
BEGIN, END = "<!-- bench/readme_table.py -->", "<!-- end of bench/readme_table.py -->"


def milliseconds(side):
    ms = 1000 * side["seconds"]["median"]
    return f"{ms:.0f} ms" if ms >= 100 else f"{ms:.1f} ms"


def table(lines_of_json):
    result, *rows = map(json.loads, lines_of_json.splitlines())
    lines = ["| | threads | tweedie | PyTorch + diffusers | times quicker |", "|---|---|---|---|---|"]
    for row in rows:
        if "ratio" not in row:
            continue
        samples = "1 sample" if row["batch"] == 1 else f"{row['batch']} samples"
        lines.append(f"| {row['what']}, {samples} | {row['threads']} | {milliseconds(row['tweedie'])} "
                     f"| {milliseconds(row['pytorch'])} | {row['ratio']:.2f} |")
    lines.append("")
    torch = result["torch"].split("+")[0]
    lines.append(f"{result['cpu']}, {result['processors']} processors; PyTorch {torch} with its "
                 f"quickest settings; commit {result['commit']}.")
    return "\n".join(lines)


def main():
    text = README.read_text()
    new = re.sub(re.escape(BEGIN) + ".*?" + re.escape(END),
                 lambda _: f"{BEGIN}\n{table(RESULTS.read_text())}\n{END}", text,
                 flags=re.DOTALL)
    if BEGIN not in text:
        sys.exit(f"{README}: the comment {BEGIN} is missing")
    if "--check" in sys.argv[1:]:
        if new != text:
            sys.exit(f"{README}: the table differs from {RESULTS}; run bench/readme_table.py")
    else:
        README.write_text(new)


if __name__ == "__main__":
    main()
