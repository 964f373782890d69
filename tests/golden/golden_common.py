"""What every golden shares: numbers from Philox, sampled entries, and the JSON writer."""
import contextlib
import importlib
import inspect
import json
import os
import sys
import types

import numpy as np
import torch

import philox

HERE = os.path.dirname(os.path.abspath(__file__))
SEED = 20261122
RUN_SEED = 7  # sampling runs
STEP_X, STEP_TARGET, STEP_LABEL, STEP_PICK = 1, 2, 3, 9


# ---- numbers ---------------------------------------------------------------------------------------------------------
def parameter_value(name, shape, kind):
    """The float32 value of a parameter; kind: weight, embedding, norm, bias or plain."""
    z = philox.normals(SEED, philox.fnv1a32(name), philox.GOLDEN, 0, int(np.prod(shape))).astype(np.float64)
    if kind == "weight":
        z = z * (1.0 / np.sqrt(float(np.prod(shape[1:]))))
    elif kind == "embedding":
        z = 0.5 * z
    elif kind == "norm":
        z = 1.0 + 0.1 * z
    elif kind == "bias":
        z = 0.1 * z
    elif kind != "plain":
        raise ValueError(kind)
    return z.astype(np.float32).reshape(shape)


def parameter_kinds(module):
    """name -> kind, for every parameter of a torch module."""
    embeddings = {f"{n}.weight" for n, m in module.named_modules() if isinstance(m, torch.nn.Embedding)}
    kinds = {}
    for name, p in module.named_parameters():
        if name in embeddings:
            kinds[name] = "embedding"
        elif name == "time_proj.weight":  # the frequencies of a Fourier embedding
            kinds[name] = "plain"
        elif p.ndim >= 2:
            kinds[name] = "weight"
        else:
            kinds[name] = "norm" if name.endswith(".weight") else "bias"
    return kinds


def images(batch, channels, height, width, step=STEP_X, seed=SEED, purpose=philox.GOLDEN):
    """float64 [N,C,H,W] of float32-rounded normals; sample n's elements are counted in H,W,C order."""
    out = np.empty((batch, height, width, channels))
    for n in range(batch):
        out[n] = philox.normals(seed, n, purpose, step, height * width * channels).reshape(height, width, channels)
    return torch.from_numpy(out).permute(0, 3, 1, 2).contiguous()


# ---- what is recorded ------------------------------------------------------------------------------------------------
def picks(size, count, tag):
    """Sorted indices: all of them if few, else the first, the last and pseudo-random ones."""
    if size <= count:
        return list(range(size))
    words = philox.words(SEED, philox.fnv1a32(tag), philox.GOLDEN, STEP_PICK, 4 * count).astype(np.uint64)
    chosen = [0, size - 1]
    for w in words:
        i = int(w % np.uint64(size))
        if len(chosen) < count and i not in chosen:
            chosen.append(i)
    return sorted(chosen)


def channels_last(t):
    """[N,C,...] -> the values in N,...,C order."""
    return t.movedim(1, -1)


def summary(t, count, tag):
    """L2 norm and sampled entries of a tensor, in the order in which it is given."""
    flat = np.asarray(t.detach().numpy() if torch.is_tensor(t) else t, dtype=np.float64).reshape(-1)
    return {"norm": float(np.sqrt(np.sum(flat * flat))), "samples": [[i, float(flat[i])] for i in picks(flat.size, count, tag)]}


# ---- JSON ------------------------------------------------------------------------------------------------------------
def _plain(x):
    return json.dumps(x, allow_nan=False)


def _format(x, depth, indent):
    pad = " " * (indent + 1)
    if depth > 0 and isinstance(x, dict) and x:
        items = [f"{pad}{json.dumps(k)}: {_format(v, depth - 1, indent + 1)}" for k, v in x.items()]
        return "{\n" + ",\n".join(items) + "\n" + " " * indent + "}"
    if depth > 0 and isinstance(x, list) and x and isinstance(x[0], dict):
        return "[\n" + ",\n".join(pad + _format(v, depth - 2, indent + 1) for v in x) + "\n" + " " * indent + "]"
    return _plain(x)


def write_json(path, obj, depth=2):
    """Readable where it is shallow, one line an entry where it is deep."""
    text = _format(obj, depth, 0) + "\n"
    json.loads(text)
    with open(os.path.join(HERE, path), "w", encoding="utf-8") as f:
        f.write(text)
    print(f"{path}: {len(text)} bytes", flush=True)


# ---- diffusers in double ---------------------------------------------------------------------------------------------
@contextlib.contextmanager
def default_dtype(dtype):
    old = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(old)


def double_module(name):
    """A second copy of a diffusers scheduler module in which every float32 is a float64.

    diffusers keeps its tables (betas, alphas_cumprod, sigmas) in float32. A golden should be the formula's value, so
    the same code runs once more in double; nothing else differs. Build and use its classes under
    default_dtype(torch.float64).
    """
    alias = "diffusers.schedulers.double_" + name
    if alias in sys.modules:
        return sys.modules[alias]
    original = importlib.import_module("diffusers.schedulers." + name)
    source = inspect.getsource(original).replace("float32", "float64")
    module = types.ModuleType(alias)
    module.__package__, module.__file__ = "diffusers.schedulers", original.__file__
    sys.modules[alias] = module
    exec(compile(source, original.__file__, "exec"), module.__dict__)
    return module


class PhiloxNoise:
    """Stands in for a scheduler module's randn_tensor: sampler noise in our key layout. Set .step before each step."""

    def __init__(self, seed=RUN_SEED):
        self.seed, self.step = seed, 0

    def __call__(self, shape, generator=None, device=None, dtype=None, layout=None):
        n, c, h, w = shape
        return images(n, c, h, w, self.step, self.seed, philox.SAMPLER).to(dtype)


def versions():
    import diffusers
    return {"diffusers": diffusers.__version__, "torch": torch.__version__.split("+")[0], "numpy": np.__version__}
