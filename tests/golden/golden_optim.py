"""optim.json: AdamW with clipping by the global norm and an EMA with warm-up, ten steps of a small regression in float64."""
import torch

import golden_common as g
import philox

STEPS = 10
CASES = [
    dict(name="plain", lr=0.05, betas=[0.9, 0.999], eps=1e-8, weight_decay=0.0, max_norm=0.0, ema_decay=0.9999),
    dict(name="decay_clip", lr=0.1, betas=[0.9, 0.99], eps=1e-6, weight_decay=0.1, max_norm=0.5, ema_decay=0.25),
]


def values(name, step, count):
    return torch.from_numpy(philox.normals(g.SEED, philox.fnv1a32(name), philox.GOLDEN, step, count)).double()


def run(case):
    x, y = values("optim.x", g.STEP_X, 24).reshape(8, 3), values("optim.y", g.STEP_TARGET, 32).reshape(8, 4)
    w = torch.nn.Parameter(torch.from_numpy(g.parameter_value("optim.w", (4, 3), "weight")).double())
    b = torch.nn.Parameter(torch.from_numpy(g.parameter_value("optim.b", (4,), "bias")).double())
    adam = torch.optim.AdamW([w, b], lr=case["lr"], betas=tuple(case["betas"]), eps=case["eps"], weight_decay=case["weight_decay"])
    ema = [p.detach().clone() for p in (w, b)]
    rows = []
    for step in range(STEPS):
        adam.zero_grad()
        loss = ((x @ w.T + b - y) ** 2).mean()
        loss.backward()
        grads = [p.grad.detach().clone() for p in (w, b)]
        norm = torch.sqrt(sum((q * q).sum() for q in grads))
        if case["max_norm"] > 0:
            torch.nn.utils.clip_grad_norm_([w, b], case["max_norm"])
        adam.step()
        decay = min(case["ema_decay"], (1.0 + step) / (10.0 + step))
        for e, p in zip(ema, (w, b)):
            e.mul_(decay).add_(p.detach(), alpha=1.0 - decay)
        state = [adam.state[p] for p in (w, b)]
        rows.append({"loss": loss.item(), "grad_norm": norm.item(), "ema_decay": decay,
                     "grad": [q.flatten().tolist() for q in grads],
                     "param": [p.detach().flatten().tolist() for p in (w, b)],
                     "m": [s["exp_avg"].flatten().tolist() for s in state],
                     "v": [s["exp_avg_sq"].flatten().tolist() for s in state],
                     "ema": [e.flatten().tolist() for e in ema]})
    return dict(case, steps=rows)


def generate():
    g.write_json("optim.json", {
        "versions": g.versions(),
        "problem": "loss = mean((X W^T + b - Y)^2); X [8,3] = values('optim.x', 1), Y [8,4] = values('optim.y', 2), "
                   "W [4,3] and b [4] are parameters 'optim.w' and 'optim.b'; grad is the gradient before clipping, in "
                   "the order W, b; max_norm 0 means no clipping",
        "clip": "gradients times min(1, max_norm / (norm + 1e-6))",
        "ema": "decay_t = min(ema_decay, (1 + t) / (10 + t)), t = number of updates so far (0 at the first); "
               "ema = decay_t ema + (1 - decay_t) param after the step",
        "cases": [run(c) for c in CASES]}, depth=5)
