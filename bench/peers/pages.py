"""The pages in bench/results that show what engine.py measured, from its lines of JSON."""
import json

NETWORKS = {"tiny": "a tiny UNet",
            "mnist": "the UNet of preset `mnist` (32/64/64, 1.6 M parameters, 28x28)",
            "cifar10": "the UNet of DDPM on CIFAR-10 (35.7 M parameters, 32x32)",
            "256px": "the UNet of DDPM at 256x256 (113.7 M parameters)"}


def read(path):
    """The header, the rows, and where the run went to its end a last line."""
    return [json.loads(line) for line in path.read_text().splitlines() if line.strip()]


def rows(document):
    return [line for line in document if "what" in line]


def title(row):
    steps = f", {row['steps']} steps" if row["mode"] != "train" else ""
    return f"{row['what']}, {row['network']}, batch {row['batch']}{steps}, {row['format']}"


# --- Cells ---


def number(value, form="{:.1f}", scale=1.0):
    return "-" if value is None else form.format(scale * value)


def milliseconds(side, steps=1, key="seconds", ends=True):
    ms = {k: 1e3 * steps * v for k, v in side[key].items()}
    return ("{median:.1f} ({p10:.1f} to {p90:.1f})" if ends else "{median:.1f}").format(**ms)


def both(row, key, form, scale=1.0):
    return " / ".join(number(row[who].get(key), form, scale) for who in ("tweedie", "pytorch"))


def table(heads, lines):
    return ["| " + " | ".join(heads) + " |", "|---" * len(heads) + "|"] + [
        "| " + " | ".join(line) + " |" for line in lines]


# --- Parts that both pages have ---


def checked(document):
    """The most by which each result was off, by format."""
    worst = {}
    for row in rows(document):
        for name, c in row.get("checks", {}).items():
            key = (row["format"], name.replace("_", " "))
            if key not in worst or c["off_by"] > worst[key]["off_by"]:
                worst[key] = c
    if not worst:
        return []
    several = len({form for form, _ in worst}) > 1
    said = [f"{form + ' ' if several else ''}{name} within {c['off_by']:.1e} (bound {c['bound']:.0e})"
            for (form, name), c in worst.items()]
    return ["", "Checked before: " + ", ".join(said) + "."]


def failures(document):
    lines = [f"- {title(r)}, {r.get('settings', 'all settings')}: {r['failed']}"
             for r in rows(document) if "failed" in r]
    return ["", "Not measured:", ""] + lines if lines else []


def broken_off(document):
    return [] if "end" in document[-1] else ["", "The run was broken off; rows are missing."]


def load(document):
    after = document[-1].get("load") if "end" in document[-1] else None
    return f"load {document[0]['load']:.1f} before" + (
        f" and {after:.1f} after" if after is not None else "")


# --- The CPU's page ---


def cpu_page(document):
    head = document[0]
    networks = list(dict.fromkeys(r["network"] for r in rows(document)))
    formats = list(dict.fromkeys(r["format"] for r in rows(document)))
    lines = ["# The CPU beside PyTorch", "",
             "Written by `bench/peers/engine.py --device cpu --write`:",
             "; ".join(NETWORKS[n] for n in networks) + ",",
             f"in {', '.join(formats)}, the same weights and number of threads, the two programs in turn. Medians in",
             "milliseconds, by the clock (p10 to p90 in brackets) and of processor time, which other programs",
             "on the machine disturb less. A ratio says how many times quicker tweedie is.", "",
             f"Commit {head['commit']}, {head['cpu']}, {head['processors']} processors, "
             f"{load(document)}.",
             f"PyTorch {head['torch']}, diffusers {head['diffusers']}.", ""]
    cells = []
    for r in rows(document):
        if "failed" in r:
            continue
        what = r["what"] if len(formats) == 1 else f"{r['what']}, {r['format']}"
        line = [what, str(r["batch"]), str(r["threads"])]
        for key, name, ends in (("seconds", "ratio", True),
                                ("processor_seconds", "ratio_processor", False)):
            line += [milliseconds(r[who], key=key, ends=ends) for who in ("tweedie", "pytorch")]
            line.append(f"{r[name]:.2f}")
        cells.append(line + [r["settings"]])
    lines += table(["", "batch", "threads", "tweedie", "PyTorch", "ratio", "tweedie, processor",
                    "PyTorch, processor", "ratio", "PyTorch's settings"], cells)
    return lines


# --- The GPU's page ---


def quickest(document):
    """Of each piece of work the row with PyTorch's quickest setting."""
    best = {}
    for row in rows(document):
        if "failed" in row:
            continue
        key = title(row)
        if key not in best or row["ratio"] < best[key]["ratio"]:
            best[key] = row
    return list(best.values())


def machine(head):
    m = head.get("machine") or {}
    said = [m.get("gpu") or "a GPU", "driver " + (m.get("driver") or "unknown")]
    said += [f"{number(m.get('watts'), '{:.0f}')} W at most",
             f"{number(m.get('sm_mhz'), '{:.0f}')} of {number(m.get('sm_mhz_most'), '{:.0f}')} MHz",
             f"memory at {number(m.get('memory_mhz'), '{:.0f}')} MHz"] if m else []
    return ", ".join(said)


def gpu_page(document):
    head = document[0]
    lines = ["# The GPU beside PyTorch", "",
             "Written by `bench/peers/engine.py --device cuda --write`. The same weights and noise, the",
             "two programs in turn; both compute in the format named. A ratio says how many times quicker",
             "tweedie is. Networks: " + "; ".join(f"{name}, {text}" for name, text in NETWORKS.items()
                                                if any(r["network"] == name for r in rows(document)))
             + ".", "",
             f"Commit {head['commit']}, {machine(head)}.",
             f"PyTorch {head['torch']}, CUDA {head['cuda']}, cuDNN {head['cudnn']}, diffusers "
             f"{head['diffusers']}; {head['cpu']}, {head['processors']} processors, {load(document)}.",
             "", "## Against PyTorch's quickest setting", ""]
    lines += table(["", "ratio", "aim", "memory, ratio", "joules, ratio", "PyTorch's settings"],
                   [[title(r), f"{r['ratio']:.2f}", number(r["aim"], "{:g}"),
                     number(r.get("ratio_memory"), "{:.2f}"),
                     number(r.get("ratio_joules"), "{:.2f}"), r["settings"]]
                    for r in quickest(document)])
    lines += ["", "## All settings", "",
              "Milliseconds of a step, of a whole DDIM run, or from a process's start to its first image:",
              "medians, p10 to p90 in brackets, over n turns of so many calls. Where two figures stand in a",
              "cell, the first is tweedie's. Memory is what tensors take on the device (PyTorch: the most that",
              "its allocator had given out). The first call includes compiling,",
              "and PyTorch's the check before.", ""]
    cells = []
    for r in rows(document):
        if "failed" in r:
            continue
        steps = r["steps"] if r["mode"] == "sample" else 1
        cells.append([title(r), r["settings"], milliseconds(r["tweedie"], steps),
                      milliseconds(r["pytorch"], steps), f"{r['ratio']:.2f}",
                      both(r, "images_per_s", "{:.0f}"), both(r, "memory", "{:.2f}", 2.0**-30),
                      both(r, "joules_per_image", "{:.3g}"), both(r, "first_seconds", "{:.1f}"),
                      f"{r['runs']} x {r['calls']}"])
    lines += table(["", "PyTorch's settings", "tweedie", "PyTorch", "ratio", "images/s",
                    "memory, GiB", "joules an image", "first call, s", "n"], cells)
    return lines


def page(document):
    make = gpu_page if document[0]["device"] == "cuda" else cpu_page
    return "\n".join(make(document) + checked(document) + failures(document)
                     + broken_off(document)) + "\n"
