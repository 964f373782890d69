"""ops.json: single operations, forward and every gradient, in float64.

Every input is a Philox stream of its own: sample = FNV-1a-32 of the case's name, step = the input's role, element = flat
index in the input's layout (N,H,W,C for images, PyTorch order otherwise), value = float32(shift + scale * z).
The cotangent of the output (dy) is the last input. Gradients are those of sum(y * dy), in their input's layout.
"""
import torch
import torch.nn.functional as F

import golden_common as g
import golden_models
import philox

IMAGE, FLAT = "NHWC", "flat"
CASES = []


def case(op, name, inputs, function, **attributes):
    """inputs: (name, shape in PyTorch order, layout[, scale[, shift]])"""
    CASES.append((op, name, inputs, function, attributes))


def conv(name, n, ci, h, w, co, k, stride=1, pad=(1, 1, 1, 1)):
    """pad: left, right, top, bottom"""
    case("conv2d", name, [("x", (n, ci, h, w), IMAGE), ("w", (co, ci, k, k), FLAT, (ci * k * k) ** -0.5), ("b", (co,), FLAT, 0.1)],
         lambda x, w, b: F.conv2d(F.pad(x, pad), w, b, stride=stride),
         kernel=k, stride=stride, pad_left=pad[0], pad_right=pad[1], pad_top=pad[2], pad_bottom=pad[3])


conv("conv3", 2, 5, 6, 7, 4, 3)
conv("conv3_rgb", 1, 3, 8, 8, 16, 3)
conv("conv3_one_pixel", 2, 4, 1, 1, 3, 3)
conv("conv1", 2, 6, 5, 3, 8, 1, pad=(0, 0, 0, 0))
conv("conv3_stride2", 2, 4, 8, 6, 6, 3, stride=2)
conv("conv3_stride2_odd", 1, 4, 7, 5, 3, 3, stride=2)
conv("conv3_stride2_asymmetric", 2, 4, 8, 6, 6, 3, stride=2, pad=(0, 1, 0, 1))
conv("conv3_stride2_asymmetric_odd", 1, 3, 7, 9, 5, 3, stride=2, pad=(0, 1, 0, 1))


def norm(name, n, c, h, w, groups, eps, act, scale=1.0, shift=0.0, film=False):
    inputs = [("x", (n, c, h, w), IMAGE, scale, shift), ("gamma", (c,), FLAT, 0.1, 1.0), ("beta", (c,), FLAT, 0.1)]
    if film:
        inputs += [("s", (n, c), FLAT, 0.5), ("t", (n, c), FLAT, 0.5)]

    def function(x, gamma, beta, s=None, t=None):
        y = F.group_norm(x, groups, gamma, beta, eps)
        if film:
            y = y * (1 + s[:, :, None, None]) + t[:, :, None, None]
        return F.silu(y) if act else y

    case("group_norm", name, inputs, function, groups=groups, eps=eps, act="silu" if act else "none", scale_shift=film)


norm("group_norm", 2, 8, 4, 3, 2, 1e-5, False)
norm("group_norm_silu", 2, 12, 5, 4, 4, 1e-6, True)
norm("group_norm_silu_one_group", 1, 6, 3, 3, 1, 1e-5, True)
norm("group_norm_silu_channel_groups", 2, 6, 3, 5, 6, 1e-5, True)
norm("group_norm_large_mean", 1, 8, 6, 6, 2, 1e-5, False, 1.0, 50.0)
norm("group_norm_small_variance", 1, 8, 4, 4, 4, 1e-3, True, 0.01)
norm("group_norm_scale_shift_silu", 2, 8, 4, 4, 4, 1e-5, True, film=True)

for act_name, act in (("silu", F.silu), ("gelu", F.gelu), ("relu", F.relu), ("mish", F.mish)):
    # diffusers' act_fn "gelu" is torch.nn.GELU(): the exact form, x/2 (1 + erf(x/sqrt(2))).
    case(act_name, act_name, [("x", (64,), FLAT, 3.0)], act)
    case(act_name, act_name + "_far", [("x", (32,), FLAT, 30.0)], act)


def attention(name, n, tokens, heads, dim):
    def function(q, k, v):
        q, k, v = (z.reshape(n, tokens, heads, dim).transpose(1, 2) for z in (q, k, v))
        p = torch.softmax(q @ k.transpose(-1, -2) / dim**0.5, dim=-1)
        return (p @ v).transpose(1, 2).reshape(n, tokens, heads * dim)

    shape = (n, tokens, heads * dim)
    case("attention", name, [("q", shape, FLAT, 1.5), ("k", shape, FLAT, 1.5), ("v", shape, FLAT)], function, heads=heads)


attention("attention_one_head", 2, 9, 1, 8)
attention("attention_two_heads", 1, 16, 2, 8)
attention("attention_three_heads_odd", 2, 7, 3, 5)
attention("attention_one_token", 1, 1, 2, 4)

case("upsample_nearest", "upsample_nearest", [("x", (2, 3, 3, 4), IMAGE)], lambda x: F.interpolate(x, scale_factor=2.0, mode="nearest"))
case("avg_pool", "avg_pool", [("x", (2, 3, 6, 4), IMAGE)], lambda x: F.avg_pool2d(x, 2, 2))
case("avg_pool", "avg_pool_odd", [("x", (1, 2, 5, 7), IMAGE)], lambda x: F.avg_pool2d(x, 2, 2))
case("linear", "linear", [("x", (5, 12), FLAT), ("w", (7, 12), FLAT, 12**-0.5), ("b", (7,), FLAT, 0.1)], F.linear)
case("linear", "linear_no_bias", [("x", (3, 9), FLAT), ("w", (4, 9), FLAT, 9**-0.5)], F.linear)
case("softmax", "softmax", [("x", (4, 11), FLAT, 5.0)], lambda x: torch.softmax(x, dim=-1))
case("mse", "mse", [("x", (2, 3, 4, 4), IMAGE), ("target", (2, 3, 4, 4), IMAGE)], lambda x, t: ((x - t) ** 2).mean().reshape(1))


def make(name, role, shape, layout, scale=1.0, shift=0.0):
    count = int(torch.Size(shape).numel())
    z = philox.normals(g.SEED, philox.fnv1a32(name), philox.GOLDEN, role, count).astype("float64")
    v = torch.from_numpy((shift + scale * z).astype("float32")).double()
    if layout == IMAGE:
        n, c, h, w = shape
        return v.reshape(n, h, w, c).permute(0, 3, 1, 2).contiguous()
    return v.reshape(shape)


def lay(t, layout):
    return g.channels_last(t) if layout == IMAGE else t


def run(op, name, inputs, function, attributes):
    tensors = [make(name, role, *spec[1:]).requires_grad_(True) for role, spec in enumerate(inputs)]
    y = function(*tensors)
    layout = IMAGE if y.ndim == 4 else FLAT
    dy = make(name, len(inputs), tuple(y.shape), layout)
    (y * dy).sum().backward()
    rows = []
    for role, (spec, t) in enumerate(zip(inputs, tensors)):
        full = tuple(spec) + (1.0, 0.0)[len(spec) - 3:]
        rows.append({"name": full[0], "role": role, "shape": list(full[1]), "layout": full[2], "scale": full[3], "shift": full[4],
                     "grad": g.summary(lay(t.grad, full[2]), 32, f"{name}:{full[0]}")})
    return {"op": op, "name": name, **attributes, "inputs": rows, "dy_role": len(inputs),
            "output": {"shape": list(y.shape), "layout": layout, **g.summary(lay(y, layout), 48, name + ":y")}}


def time_embeddings():
    rows, t = [], torch.tensor([0.0, 1.0, 17.0, 500.5, 999.0])
    golden_models.use_double_embedding()
    for dim, flip, shift in ((8, False, 1), (8, True, 0), (8, False, 0), (9, True, 1), (2, True, 0), (32, False, 1)):
        e = golden_models.timestep_embedding64(t, dim, flip, shift)
        rows.append({"dim": dim, "flip_sin_to_cos": flip, "freq_shift": shift, "t": t.tolist(),
                     "values": [r.tolist() if dim < 16 else r[::5].tolist() for r in e], "stride": 1 if dim < 16 else 5})
    return rows


def generate():
    names = [c[1] for c in CASES]
    assert len(set(names)) == len(names)
    g.write_json("ops.json", {
        "versions": g.versions(),
        "rule": "value = float32(shift + scale z), z = normal(seed 20261122, sample FNV-1a-32(case name), purpose GOLDEN, "
                "step role, element flat index in the layout); dy has role dy_role, scale 1, shift 0; shapes are in "
                "PyTorch order, NHWC says in which order elements are counted",
        "cases": [run(*c) for c in CASES], "time_embedding": time_embeddings()}, depth=3)
