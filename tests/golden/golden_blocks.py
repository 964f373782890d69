"""blocks.h: a residual block and an attention block of diffusers, forward and every gradient, in float64.

A header and not JSON: the kernels' tests are built on machines that have no JSON library. Parameters follow the rule of
the model goldens with the block's name before the parameter's ("res.conv1.weight"). Images are N,H,W,C: step 1 the
input, step 2 the gradient of the output; the time embedding is one vector a sample of step 3.
"""
import os

import torch
from diffusers.models.attention_processor import Attention
from diffusers.models.resnet import ResnetBlock2D

import golden_common as g
import philox

BATCH, HEIGHT, WIDTH, TIME = 3, 8, 6, 48
SAMPLES = 16


def fill(block, prefix):
    with torch.no_grad():
        for name, kind in g.parameter_kinds(block).items():
            p = block.get_parameter(name)
            p.copy_(torch.from_numpy(g.parameter_value(f"{prefix}.{name}", tuple(p.shape), kind)))


def rows(prefix, tensors):
    """One line a tensor: its norm and sampled entries."""
    lines = []
    for name, t in tensors:
        s = g.summary(t, SAMPLES, f"{prefix}:{name}")
        pairs = ", ".join(f"{{{i}, {v!r}}}" for i, v in s["samples"])
        lines.append(f'    {{"{prefix}.{name}", {s["norm"]!r}, {len(s["samples"])}, {{{pairs}}}}},')
    return lines


def gradients(prefix, block, x, y, dy, more=()):
    (y * dy).sum().backward()
    out = [("y", g.channels_last(y)), ("dx", g.channels_last(x.grad))] + [(n, t.grad) for n, t in more]
    return rows(prefix, out + [("d." + n, p.grad) for n, p in block.named_parameters()])


def residual():
    block = ResnetBlock2D(in_channels=32, out_channels=64, temb_channels=TIME, groups=8, eps=1e-5).double()
    fill(block, "res")
    x = g.images(BATCH, 32, HEIGHT, WIDTH).requires_grad_(True)
    t = torch.stack([torch.from_numpy(philox.normals(g.SEED, n, philox.GOLDEN, g.STEP_LABEL, TIME)).double()
                     for n in range(BATCH)]).requires_grad_(True)
    y = block(x, t)
    return gradients("res", block, x, y, g.images(BATCH, 64, HEIGHT, WIDTH, g.STEP_TARGET), [("dtime", t)])


def attention(prefix, heads):
    block = Attention(query_dim=64, heads=heads, dim_head=64 // heads, norm_num_groups=8, eps=1e-5, bias=True,
                      residual_connection=True, _from_deprecated_attn_block=True).double()
    fill(block, prefix)
    x = g.images(BATCH, 64, HEIGHT, WIDTH).requires_grad_(True)
    return gradients(prefix, block, x, block(x), g.images(BATCH, 64, HEIGHT, WIDTH, g.STEP_TARGET))


def generate():
    v = g.versions()
    lines = residual() + attention("one", 1) + attention("two", 2)
    text = "\n".join([
        f"// Written by golden_blocks.py with diffusers {v['diffusers']}, PyTorch {v['torch']}.",
        "#pragma once", "", "#include <cstdint>", "", "namespace golden {", "",
        "struct Sample {", "    int64_t at;", "    double value;", "};", "",
        "struct Summary {", "    const char *name;", "    double norm;", "    int count;",
        f"    Sample sample[{SAMPLES}];", "};", "",
        f"constexpr int64_t batch = {BATCH}, height = {HEIGHT}, width = {WIDTH}, time_width = {TIME};",
        f"constexpr uint64_t seed = {g.SEED};", "",
        "// Images in N,H,W,C order, parameters in PyTorch's.", "// clang-format off",
        "constexpr Summary blocks[] = {", *lines, "};", "// clang-format on", "", "} // namespace golden", ""])
    with open(os.path.join(g.HERE, "blocks.h"), "w", encoding="utf-8") as f:
        f.write(text)
    print(f"blocks.h: {len(text)} bytes", flush=True)
