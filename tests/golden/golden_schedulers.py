"""schedulers.json: tables, timestep lists, and sampler runs of diffusers' schedulers with a closed-form model.

A run happens twice: with the stock scheduler in float32 ("float32": what diffusers' own tests see) and with the same code
in double (the other entries; golden_common.double_module).
"""
import importlib
import json

import numpy as np
import torch

import golden_common as g
import philox

SAMPLED_T = [0, 1, 2, 10, 99, 250, 500, 750, 900, 997, 998, 999]
STEP_COUNTS = [1, 2, 3, 10, 50, 61, 62, 100, 250, 600, 1000]
LINEAR = dict(num_train_timesteps=1000, beta_start=1e-4, beta_end=0.02, beta_schedule="linear")
CLASSES = {"ddim": "DDIMScheduler", "ddpm": "DDPMScheduler", "pndm": "PNDMScheduler",
           "dpmsolver_multistep": "DPMSolverMultistepScheduler", "dpmsolver_singlestep": "DPMSolverSinglestepScheduler",
           "euler_discrete": "EulerDiscreteScheduler", "euler_ancestral_discrete": "EulerAncestralDiscreteScheduler",
           "heun_discrete": "HeunDiscreteScheduler", "unipc_multistep": "UniPCMultistepScheduler",
           "deis_multistep": "DEISMultistepScheduler"}


def make(kind, double, noise=None, **config):
    name = "scheduling_" + kind
    module = g.double_module(name) if double else importlib.import_module("diffusers.schedulers." + name)
    if double and noise is not None:
        module.randn_tensor = noise
    with g.default_dtype(torch.float64 if double else torch.float32):
        return getattr(module, CLASSES[kind])(**config)


def written_config(scheduler):
    """What save_config writes, but null for the -Infinity (no JSON) of lambda_min_clipped."""
    return {k: None if v == float("-inf") else v for k, v in json.loads(scheduler.to_json_string()).items()}


# ---- tables ----------------------------------------------------------------------------------------------------------
def betas64(schedule, start, end, count=1000, zero_snr=False):
    """The schedules' formulas in float64, written without diffusers."""
    u = np.arange(count) / (count - 1.0)
    if schedule == "linear":
        betas = start + (end - start) * u
    elif schedule == "scaled_linear":
        betas = (np.sqrt(start) + (np.sqrt(end) - np.sqrt(start)) * u) ** 2
    elif schedule == "sigmoid":
        betas = (end - start) / (1.0 + np.exp(-(-6.0 + 12.0 * u))) + start
    elif schedule == "squaredcos_cap_v2":
        f = np.cos((np.arange(count + 1) / count + 0.008) / 1.008 * np.pi / 2) ** 2
        betas = np.minimum(1.0 - f[1:] / f[:-1], 0.999)
    if zero_snr:
        root = np.sqrt(np.cumprod(1.0 - betas))
        root = (root - root[-1]) * (root[0] / (root[0] - root[-1]))
        bar = root**2
        betas = 1.0 - np.concatenate([bar[:1], bar[1:] / bar[:-1]])
    return betas


def tables():
    rows = []
    for schedule, start, end, zero in [("linear", 1e-4, 0.02, False), ("scaled_linear", 1e-4, 0.02, False),
                                       ("scaled_linear", 0.00085, 0.012, False), ("squaredcos_cap_v2", 1e-4, 0.02, False),
                                       ("sigmoid", 1e-4, 0.02, False), ("sigmoid", 1e-5, 5e-3, False),
                                       ("linear", 1e-4, 0.02, True), ("scaled_linear", 0.00085, 0.012, True),
                                       ("squaredcos_cap_v2", 1e-4, 0.02, True)]:
        config = dict(num_train_timesteps=1000, beta_start=start, beta_end=end, beta_schedule=schedule,
                      rescale_betas_zero_snr=zero)
        stock, double = make("ddpm", False, **config), make("ddpm", True, **config)
        betas = betas64(schedule, start, end, zero_snr=zero)
        bar = np.cumprod(1.0 - betas)
        assert double.betas.dtype == torch.float64
        assert np.max(np.abs(double.betas.numpy() - betas)) < 1e-12, schedule
        assert np.max(np.abs(double.alphas_cumprod.numpy() - bar)) < 1e-12, schedule
        rows.append({"beta_schedule": schedule, "beta_start": start, "beta_end": end, "num_train_timesteps": 1000,
                     "rescale_betas_zero_snr": zero, "t": SAMPLED_T,
                     "betas": [float(betas[t]) for t in SAMPLED_T],
                     "alphas_cumprod": [float(bar[t]) for t in SAMPLED_T],
                     "sum_betas": float(betas.sum()), "sum_alphas_cumprod": float(bar.sum()),
                     "float32": {"betas": [float(stock.betas[t]) for t in SAMPLED_T],
                                 "alphas_cumprod": [float(stock.alphas_cumprod[t]) for t in SAMPLED_T],
                                 "max_error_of_alphas_cumprod":
                                     float(f"{np.max(np.abs(stock.alphas_cumprod.double().numpy() - bar)):.2g}")}})
    return rows


# ---- timesteps -------------------------------------------------------------------------------------------------------
def our_timesteps(kind, spacing, steps, offset, train=1000):
    """This project's rule for the same name; where it differs from diffusers, that is one of the documented corner cases."""
    if spacing == "trailing":
        return [float(np.rint(train - i * train / steps) - 1) for i in range(steps)]
    if kind == "dpmsolver_multistep":
        if spacing == "linspace":
            return list(np.rint(np.linspace(0, train - 1, steps + 1))[::-1][:-1])
        return list((np.arange(steps + 1) * (train // (steps + 1)))[::-1][:-1] + offset)
    if spacing == "linspace":
        t = np.linspace(0, train - 1, steps)[::-1]
        return list(t if kind in ("euler_discrete", "heun_discrete") else np.rint(t))
    return list((np.arange(steps) * (train // steps))[::-1] + offset)


def timestep_lists():
    rows = []
    for kind in ("ddim", "ddpm", "pndm", "dpmsolver_multistep", "euler_discrete", "heun_discrete"):
        for spacing in ("leading", "trailing", "linspace"):
            for offset in (0, 1):
                if offset and spacing != "leading":
                    continue  # steps_offset is read by leading only in diffusers' sources
                for steps in STEP_COUNTS:
                    config = dict(LINEAR, timestep_spacing=spacing, steps_offset=offset)
                    if kind == "pndm":
                        config["skip_prk_steps"] = True
                    row = {"scheduler": kind, "spacing": spacing, "offset": offset, "steps": steps}
                    try:
                        s = make(kind, True, **config)
                        s.set_timesteps(steps)
                    except Exception as error:  # diffusers refuses, or fails
                        rows.append(dict(row, error=type(error).__name__))
                        continue
                    t = [float(v) for v in (s._timesteps[::-1] if kind == "pndm" else s.timesteps)]
                    if kind == "heun_discrete":
                        t = t[:1] + t[1::2]  # each entry but the first comes twice
                    ours = our_timesteps(kind, spacing, steps, offset)
                    row.update(count=len(t), first=t[:5], last=t[-5:], sum=float(np.sum(t)),
                               same_as_ours=len(t) == len(ours) and bool(np.max(np.abs(np.array(t) - ours)) < 1e-9))
                    notes = []
                    if len(t) != steps:
                        notes.append(f"{len(t)} entries")
                    if max(t) > 999:
                        notes.append("beyond the last training step")
                    if steps >= 50 and max(t) < 850:
                        notes.append(f"starts at {int(t[0])}")
                    if len(set(t)) != len(t):
                        notes.append("repeated entries")
                    if kind == "ddim" and any(a - b != 1000 // steps for a, b in zip(t, t[1:])):
                        notes.append("step() takes t - 1000//S, which is not the next entry")
                    rows.append(dict(row, notes=notes) if notes else row)
    return rows


def trailing_wrong_counts():
    """All S for which diffusers' trailing list has not S entries."""
    out = []
    for steps in range(1, 1001):
        s = np.round(np.arange(1000, 0, -1000 / steps))
        if len(s) != steps:
            out.append(steps)
    return out


# ---- runs with a closed-form model -----------------------------------------------------------------------------------
def test_sample():
    """The deterministic sample of diffusers' own scheduler tests."""
    count = 4 * 3 * 8 * 8
    return (torch.arange(count, dtype=torch.float64).reshape(3, 8, 8, 4) / count).permute(3, 0, 1, 2).contiguous()


def test_model(x, t):
    t = torch.as_tensor(t).to(x.dtype)
    return x * t / (t + 1)


def run_loop(kind, double, config, steps, eta=0.0, feedback=True, prk=False, set_steps=True):
    """feedback: diffusers' Euler/Heun tests hand the scaled sample back to step(); the pipelines do not."""
    dtype = torch.float64 if double else torch.float32
    noise = g.PhiloxNoise()
    s = make(kind, double, noise, **config)
    module = importlib.import_module(type(s).__module__)
    stock_noise = module.__dict__.get("randn_tensor")
    if not double and stock_noise is not None:
        module.randn_tensor = noise
    try:
        with g.default_dtype(dtype), torch.no_grad():
            if set_steps:
                s.set_timesteps(steps)
            timesteps = s.timesteps if set_steps else list(range(len(s)))[::-1]
            x = test_sample().to(dtype) * s.init_noise_sigma
            for i, t in enumerate(timesteps):
                noise.step = i
                scaled = s.scale_model_input(x, t)
                m = test_model(scaled, t)
                if feedback:
                    x = scaled
                more = {"eta": eta} if kind == "ddim" else {}
                x = s.step(m, t, x, **more).prev_sample
    finally:
        if not double and stock_noise is not None:
            module.randn_tensor = stock_noise
    return s, [float(t) for t in timesteps], x.double()


V, NOCLIP = dict(prediction_type="v_prediction"), dict(clip_sample=False)
DPM = dict(LINEAR, solver_order=2, algorithm_type="dpmsolver++", solver_type="midpoint", lower_order_final=False,
           final_sigmas_type="sigma_min")
T1100 = dict(LINEAR, num_train_timesteps=1100)
KARRAS = dict(use_karras_sigmas=True)
RUNS = [  # name, scheduler, config, steps, options, expected by diffusers' tests (kind, value)
    ("ddim", "ddim", dict(LINEAR, clip_sample=True), 10, {}, ("sum", 172.0067)),
    ("ddim_alpha_one", "ddim", dict(LINEAR, clip_sample=True, set_alpha_to_one=True, beta_start=0.01), 10, {}, ("sum", 149.8295)),
    ("ddim_alpha_first", "ddim", dict(LINEAR, clip_sample=True, set_alpha_to_one=False, beta_start=0.01), 10, {}, ("sum", 149.0784)),
    ("ddim_v", "ddim", dict(LINEAR, clip_sample=True, **V), 10, {}, ("sum", 52.5302)),
    ("ddim_eta", "ddim", dict(LINEAR, clip_sample=True), 10, dict(eta=0.5), None),
    ("ddim_no_clip", "ddim", dict(LINEAR, **NOCLIP), 10, {}, None),
    ("ddim_cosine", "ddim", dict(LINEAR, clip_sample=True, beta_schedule="squaredcos_cap_v2"), 10, {}, None),
    ("ddpm_full", "ddpm", dict(LINEAR, clip_sample=True, variance_type="fixed_small"), None, dict(set_steps=False), None),
    ("ddpm_full_v", "ddpm", dict(LINEAR, clip_sample=True, variance_type="fixed_small", **V), None, dict(set_steps=False), None),
    ("ddpm_50_large", "ddpm", dict(LINEAR, clip_sample=True, variance_type="fixed_large"), 50, {}, None),
    ("pndm", "pndm", dict(LINEAR), 10, {}, ("sum", 198.1318)),
    ("pndm_v", "pndm", dict(LINEAR, **V), 10, {}, ("sum", 67.3986)),
    ("pndm_alpha_one", "pndm", dict(LINEAR, set_alpha_to_one=True), 10, {}, None),
    ("pndm_plms", "pndm", dict(LINEAR, skip_prk_steps=True), 10, {}, None),
    ("dpmpp_2m", "dpmsolver_multistep", DPM, 10, {}, ("mean", 0.3301)),
    ("dpmpp_2m_v", "dpmsolver_multistep", dict(DPM, **V), 10, {}, ("mean", 0.2251)),
    ("dpmpp_2m_lower_final", "dpmsolver_multistep", dict(DPM, lower_order_final=True), 10, {}, None),
    ("dpmpp_2m_leading", "dpmsolver_multistep", dict(DPM, timestep_spacing="leading"), 10, {}, None),
    ("dpmpp_2m_trailing", "dpmsolver_multistep", dict(DPM, timestep_spacing="trailing"), 10, {}, None),
    ("dpmpp_2m_defaults", "dpmsolver_multistep", dict(LINEAR), 20, {}, None),
    ("dpmpp_2m_first_order", "dpmsolver_multistep", dict(DPM, solver_order=1), 10, {}, None),
    ("dpmpp_2s", "dpmsolver_singlestep", dict(LINEAR, solver_order=2, lower_order_final=False, final_sigmas_type="sigma_min"),
     10, {}, ("mean", 0.2791)),
    ("euler", "euler_discrete", T1100, 10, {}, ("sum", 10.0807)),
    ("euler_v", "euler_discrete", dict(T1100, **V), 10, {}, ("sum", 0.0002)),
    ("euler_karras", "euler_discrete", dict(T1100, **KARRAS), 10, {}, ("sum", 124.5229)),
    ("euler_pipeline", "euler_discrete", dict(LINEAR), 10, dict(feedback=False), None),
    ("euler_pipeline_leading", "euler_discrete", dict(LINEAR, timestep_spacing="leading", steps_offset=1), 10, dict(feedback=False), None),
    ("euler_pipeline_karras", "euler_discrete", dict(LINEAR, **KARRAS), 10, dict(feedback=False), None),
    ("euler_pipeline_exponential", "euler_discrete", dict(LINEAR, use_exponential_sigmas=True), 10, dict(feedback=False), None),
    ("euler_ancestral_pipeline", "euler_ancestral_discrete", dict(LINEAR), 10, dict(feedback=False), None),
    ("heun", "heun_discrete", T1100, 10, {}, ("sum", 0.1233)),
    ("heun_pipeline", "heun_discrete", dict(LINEAR), 10, dict(feedback=False), None),
    ("heun_pipeline_karras", "heun_discrete", dict(LINEAR, **KARRAS), 10, dict(feedback=False), None),
    ("unipc", "unipc_multistep", dict(LINEAR, solver_order=2, solver_type="bh2", final_sigmas_type="sigma_min"), 10, {}, ("mean", 0.2464)),
    ("deis", "deis_multistep", dict(LINEAR, solver_order=2), 10, {}, ("mean", 0.23916)),
]


def loops():
    rows = []
    for name, kind, config, steps, options, expected in RUNS:
        s, timesteps, x = run_loop(kind, True, config, steps, **options)
        stock = run_loop(kind, False, config, steps, **options)[2]
        total = x.abs().sum().item()
        row = {"name": name, "scheduler": kind, "config": written_config(s),
               "steps": len(timesteps) if steps is None else steps, "eta": options.get("eta", 0.0),
               "feedback": options.get("feedback", True), "seed": g.RUN_SEED}
        if steps is not None:
            row["timesteps"] = timesteps
            if hasattr(s, "sigmas"):
                row["sigmas"] = [float(v) for v in s.sigmas]
        if hasattr(s, "init_noise_sigma"):
            row["init_noise_sigma"] = float(s.init_noise_sigma)
        row.update(sum_abs=total, mean_abs=total / x.numel(), x=g.summary(g.channels_last(x), 24, "run:" + name),
                   float32={"sum_abs": stock.abs().sum().item(), "mean_abs": stock.abs().mean().item()})
        if expected:
            row["diffusers_test"] = {expected[0] + "_abs": expected[1]}
            got = row["float32"][expected[0] + "_abs"]
            row["meets_it"] = bool(abs(got - expected[1]) < (1e-2 if expected[0] == "sum" else 1e-3))
            if not row["meets_it"]:
                print(f"  {name}: {got} where diffusers' test has {expected[1]}")
        rows.append(row)
    return rows


def ddpm_with_torch_noise():
    """diffusers' own test of DDPM's full loop (torch's generator: not reproducible elsewhere, kept as a fact)."""
    rows = []
    for prediction, value in (("epsilon", 258.9606), ("v_prediction", 202.0296)):
        s = make("ddpm", False, **dict(LINEAR, clip_sample=True, variance_type="fixed_small", prediction_type=prediction))
        x, generator = test_sample().float(), torch.manual_seed(0)
        for t in reversed(range(len(s))):
            x = s.step(test_model(x, t), t, x, generator=generator).prev_sample
        rows.append({"prediction_type": prediction, "sum_abs": x.abs().sum().item(), "diffusers_test": value})
    return rows


# ---- single steps ----------------------------------------------------------------------------------------------------
def ancestral_steps():
    """One DDPM step from Philox tensors: x is step 1, the output step 2, the noise SAMPLER with the index of the step."""
    rows = []
    for steps in (1000, 10):
        for index in (0, steps // 2, steps - 2, steps - 1):
            for variance in ("fixed_small", "fixed_small_log", "fixed_large", "learned_range"):
                for prediction, clip in (("epsilon", True), ("v_prediction", False)):
                    if prediction == "v_prediction" and (variance != "fixed_small" or index != steps // 2):
                        continue
                    noise = g.PhiloxNoise()
                    s = make("ddpm", True, noise, **dict(LINEAR, variance_type=variance, prediction_type=prediction, clip_sample=clip))
                    s.set_timesteps(steps)
                    noise.step = index
                    channels = 6 if variance == "learned_range" else 3
                    x, m = g.images(2, 3, 4, 4), g.images(2, channels, 4, 4, g.STEP_TARGET)
                    if channels == 6:
                        m[:, 3:] = torch.tanh(m[:, 3:])  # a network's output need not stay in [-1, 1]; here it does
                    t = int(s.timesteps[index])
                    out = s.step(m, t, x)
                    rows.append({"steps": steps, "index": index, "t": t, "variance_type": variance, "prediction_type": prediction,
                                 "clip_sample": clip,
                                 "prev": g.summary(g.channels_last(out.prev_sample), 16, "ddpm"),
                                 "x0": g.summary(g.channels_last(out.pred_original_sample), 6, "ddpm")})
    return rows


def thresholding():
    rows = []
    x = 2.0 * g.images(3, 3, 4, 4)
    x[2] *= 0.1
    for ratio, limit in ((0.995, 1.0), (0.995, 1.5), (0.9, 10.0), (0.5, 10.0), (1.0, 100.0)):
        s = make("ddim", True, thresholding=True, dynamic_thresholding_ratio=ratio, sample_max_value=limit)
        y = s._threshold_sample(x.clone())
        raw = [float(np.quantile(np.abs(x[n].numpy()), ratio)) for n in range(3)]
        rows.append({"dynamic_thresholding_ratio": ratio, "sample_max_value": limit, "quantile": raw,
                     "s": [min(max(q, 1.0), limit) for q in raw], "y": g.summary(g.channels_last(y), 24, "threshold")})
    return {"input": "x[n] = 2 z[n], the third sample 0.2 z[n]; z = images(3, 3, 4, 4) of step 1", "cases": rows}


def generate():
    g.write_json("schedulers.json", {
        "versions": g.versions(), "tables": tables(), "timesteps": timestep_lists(),
        "trailing_wrong_counts": trailing_wrong_counts(), "runs": loops(), "ddpm_torch_noise": ddpm_with_torch_noise(),
        "ddpm_steps": ancestral_steps(), "thresholding": thresholding()}, depth=3)
