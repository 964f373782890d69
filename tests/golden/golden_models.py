"""UNet goldens: forward, loss, every gradient, and ten DDIM steps for some of them, all in float64."""
import json
import math

import torch
from diffusers import UNet2DModel
from diffusers.models import embeddings

import golden_common as g
import philox

DOWN, ATTN_DOWN, UP, ATTN_UP = "DownBlock2D", "AttnDownBlock2D", "UpBlock2D", "AttnUpBlock2D"
RES_DOWN, RES_UP = "ResnetDownsampleBlock2D", "ResnetUpsampleBlock2D"

# google/ddpm-cifar10-32's scheduler, as far as DDIM has its options.
DDPM_CIFAR = dict(num_train_timesteps=1000, beta_start=1e-4, beta_end=0.02, beta_schedule="linear", clip_sample=True)


def _config(down, up, channels, **more):
    return dict(down_block_types=down, up_block_types=up, block_out_channels=channels, **more)


# name -> config (keys that are missing here are also missing in the golden's config if "absent" is set), and how it is run
MODELS = {
    # The exact keys of google/ddpm-cifar10-32's config.json.
    "ddpm_cifar10_32": dict(absent=True, size=(32, 32), t=[421], parameters=35746307, tensors=328, config=dict(
        act_fn="silu", attention_head_dim=None, block_out_channels=[128, 256, 256, 256], center_input_sample=False,
        down_block_types=[DOWN, ATTN_DOWN, DOWN, DOWN], downsample_padding=0, flip_sin_to_cos=False, freq_shift=1,
        in_channels=3, layers_per_block=2, mid_block_scale_factor=1, norm_eps=1e-6, norm_num_groups=32, out_channels=3,
        sample_size=32, time_embedding_type="positional", up_block_types=[UP, UP, ATTN_UP, UP])),
    # attn_norm_num_groups null: the middle attention has no group norm.
    "scale_shift": dict(size=(8, 8), t=[3, 871], config=_config(
        [DOWN, ATTN_DOWN], [ATTN_UP, UP], [16, 32], sample_size=8, norm_num_groups=4, attention_head_dim=8,
        resnet_time_scale_shift="scale_shift"),
        ddim=[dict(steps=10, scheduler=dict(DDPM_CIFAR, clip_sample=False, prediction_type="sample", thresholding=True,
                                            dynamic_thresholding_ratio=0.9, sample_max_value=1.5))]),
    "scale_shift_groups": dict(size=(8, 8), t=[0, 999], config=_config(
        [RES_DOWN, ATTN_DOWN], [ATTN_UP, RES_UP], [16, 24], sample_size=8, norm_num_groups=8, attention_head_dim=8,
        attn_norm_num_groups=4, resnet_time_scale_shift="scale_shift", mid_block_scale_factor=math.sqrt(2),
        layers_per_block=1, downsample_type="resnet", upsample_type="resnet")),
    "class_cond": dict(size=(8, 8), t=[12, 640], labels=[4, 0], config=_config(
        [ATTN_DOWN, DOWN], [UP, ATTN_UP], [16, 16], sample_size=8, norm_num_groups=8, attention_head_dim=4,
        num_class_embeds=5, layers_per_block=1)),
    "class_timestep": dict(size=(8, 8), t=[77, 500], labels=[3.0, 250.5], config=_config(
        [DOWN, DOWN], [UP, UP], [8, 16], sample_size=8, norm_num_groups=4, attention_head_dim=None,
        class_embed_type="timestep", layers_per_block=1, flip_sin_to_cos=False, freq_shift=1)),
    "class_identity": dict(size=(4, 4), t=[77, 500], labels="vectors", config=_config(
        [DOWN], [UP], [8], sample_size=4, norm_num_groups=4, class_embed_type="identity", layers_per_block=1)),
    # Almost every key is missing: four default blocks, eight channels a head, 32 groups.
    "defaults": dict(absent=True, size=(16, 16), t=[999, 1], config=dict(
        sample_size=16, block_out_channels=[32, 32, 64, 64], layers_per_block=1),
        ddim=[dict(steps=10, eta=0.7, scheduler=dict(DDPM_CIFAR))]),
    "resample": dict(size=(16, 16), t=[250, 750], config=_config(
        [ATTN_DOWN, RES_DOWN, DOWN], [UP, RES_UP, ATTN_UP], [16, 16, 32], sample_size=16, norm_num_groups=4,
        attention_head_dim=8, downsample_type="resnet", upsample_type="resnet", layers_per_block=1),
        ddim=[dict(steps=10, scheduler=dict(DDPM_CIFAR, clip_sample=False, prediction_type="v_prediction",
                                            timestep_spacing="trailing", rescale_betas_zero_snr=True)),
              dict(steps=10, scheduler=dict(DDPM_CIFAR, clip_sample=False, prediction_type="v_prediction",
                                            beta_schedule="scaled_linear", steps_offset=1, set_alpha_to_one=False))]),
    # The MNIST model that train_reference.py trains.
    "digits": dict(size=(28, 28), t=[100, 900], labels=[7, 10], config=_config(
        [DOWN, DOWN, ATTN_DOWN], [ATTN_UP, UP, UP], [32, 64, 64], sample_size=28, in_channels=1, out_channels=1,
        layers_per_block=2, attention_head_dim=None, norm_num_groups=8, num_class_embeds=11),
        ddim=[dict(steps=10, scheduler=dict(DDPM_CIFAR)),
              dict(steps=10, eta=1.0, use_clipped_model_output=True, scheduler=dict(DDPM_CIFAR))]),
    "one_level": dict(size=(7, 5), t=[0.25, 499.75], config=_config(
        [DOWN], [UP], [8], sample_size=[7, 5], in_channels=2, out_channels=4, norm_num_groups=2, layers_per_block=3,
        attention_head_dim=None, flip_sin_to_cos=False, freq_shift=1)),
    "four_levels": dict(size=(16, 16), t=[5, 333], config=_config(
        ["UNetRes" + DOWN, "UNetRes" + ATTN_DOWN, DOWN, ATTN_DOWN], [ATTN_UP, UP, "UNetRes" + ATTN_UP, UP], [8, 16, 16, 32],
        sample_size=16, norm_num_groups=4, attention_head_dim=None, mid_block_scale_factor=1.7, act_fn="gelu",
        center_input_sample=True, downsample_padding=0, norm_eps=1e-3, layers_per_block=1)),
    "fourier": dict(size=(8, 8), t=[0.05, 12.5], config=_config(
        [DOWN, ATTN_DOWN], [ATTN_UP, UP], [8, 16], sample_size=8, norm_num_groups=4, attention_head_dim=8,
        time_embedding_type="fourier", flip_sin_to_cos=True, freq_shift=0, act_fn="relu", layers_per_block=1)),
    # Not square, no attention in the middle, attn_norm_num_groups set all the same.
    "no_attention": dict(size=(20, 12), t=[42, 958], config=_config(
        [DOWN, ATTN_DOWN, DOWN], [UP, ATTN_UP, UP], [12, 16, 8], sample_size=[20, 12], norm_num_groups=4,
        attention_head_dim=8, attn_norm_num_groups=2, add_attention=False, layers_per_block=1, time_embedding_dim=24,
        act_fn="relu", freq_shift=1)),
    "learned_time": dict(size=(8, 8), t=[0, 49], config=_config(
        [DOWN, ATTN_DOWN], [ATTN_UP, UP], [8, 16], sample_size=8, norm_num_groups=4, attention_head_dim=16,
        time_embedding_type="learned", num_train_timesteps=50, mid_block_type=None, layers_per_block=1,
        time_embedding_dim=20)),
    # attn_norm_num_groups differs from norm_num_groups: it holds for the middle's attention only.
    "attn_groups": dict(size=(8, 8), t=[9, 90], config=_config(
        [ATTN_DOWN, DOWN], [UP, ATTN_UP], [8, 16], sample_size=8, norm_num_groups=4, attention_head_dim=None,
        attn_norm_num_groups=2, layers_per_block=3, flip_sin_to_cos=False, freq_shift=0, act_fn="swish")),
    # An odd number of embedding channels ends in a zero; groups that are no power of two.
    "odd_channels": dict(size=(6, 10), t=[150, 851], config=_config(
        [DOWN, ATTN_DOWN], [ATTN_UP, UP], [9, 15], sample_size=[6, 10], norm_num_groups=3, attention_head_dim=None,
        layers_per_block=1, freq_shift=1)),
    # 20 channels in heads of 8 make two heads: to_q is [16,20] and to_out.0 is [20,16].
    "head_remainder": dict(size=(4, 4), t=[60, 600], config=_config(
        [ATTN_DOWN], [ATTN_UP], [20], sample_size=4, norm_num_groups=5, attention_head_dim=8, layers_per_block=1)),
}


def timestep_embedding64(timesteps, embedding_dim, flip_sin_to_cos=False, downscale_freq_shift=1, scale=1, max_period=10000):
    """diffusers' function in double: there it computes in float32 whatever the model's type, which costs 3e-5 at t ~ 1000."""
    half = embedding_dim // 2
    freq = torch.exp(-math.log(max_period) * torch.arange(half, dtype=torch.float64) / (half - downscale_freq_shift))
    arg = scale * timesteps[:, None].double() * freq[None, :]
    parts = [torch.cos(arg), torch.sin(arg)] if flip_sin_to_cos else [torch.sin(arg), torch.cos(arg)]
    return torch.nn.functional.pad(torch.cat(parts, dim=-1), (0, embedding_dim % 2))


def use_double_embedding():
    stock = embeddings.get_timestep_embedding
    if stock is timestep_embedding64:
        return
    t = torch.tensor([0.0, 0.5, 37.0, 999.0])
    for dim in (8, 9, 128):
        for flip in (False, True):
            for shift in (0, 1):
                d = (stock(t, dim, flip, shift).double() - timestep_embedding64(t, dim, flip, shift)).abs().max()
                assert d < 2e-4, (dim, flip, shift, d)
    embeddings.get_timestep_embedding = timestep_embedding64


def build(config):
    use_double_embedding()
    model = UNet2DModel(**config).double().eval()
    with torch.no_grad():
        for name, kind in g.parameter_kinds(model).items():
            p = model.get_parameter(name)
            p.copy_(torch.from_numpy(g.parameter_value(name, tuple(p.shape), kind)))
    return model


def written_config(model):
    """What save_config writes."""
    return json.loads(model.to_json_string())


def run_ddim(name, model, spec, labels, run):
    """Ten steps of diffusers' DDIMScheduler in double from Philox noise."""
    channels, (height, width) = model.config.in_channels, spec["size"]
    eta, clipped = run.get("eta", 0.0), run.get("use_clipped_model_output", False)

    def sample(start):
        with g.default_dtype(torch.float64), torch.no_grad():
            scheduler = g.double_module("scheduling_ddim").DDIMScheduler(**run["scheduler"])
            scheduler.set_timesteps(run["steps"])
            assert scheduler.alphas_cumprod.dtype == torch.float64
            x, norms = start.clone(), []
            for i, t in enumerate(scheduler.timesteps):
                m = model(x, t.double().expand(len(x)), class_labels=labels).sample
                noise = g.images(*x.shape, step=i, seed=g.RUN_SEED, purpose=philox.SAMPLER)
                x = scheduler.step(m, t, x, eta=eta, use_clipped_model_output=clipped, variance_noise=noise).prev_sample
                norms.append(float(x.norm()))
        return scheduler, x, norms

    start = g.images(len(spec["t"]), channels, height, width, 0, g.RUN_SEED, philox.INITIAL)
    scheduler, x, norms = sample(start)
    nudge = 1e-7 * g.images(*start.shape, step=0, seed=1, purpose=philox.INITIAL)
    moved = sample(start + nudge)[1]
    # How much a relative error of x_T grows until the end: a guide to the tolerance of a float32 run.
    growth = float((moved - x).norm() / x.norm() / (nudge.norm() / start.norm()))
    return {"scheduler": json.loads(scheduler.to_json_string()), "steps": run["steps"], "eta": eta,
            "use_clipped_model_output": clipped, "seed": g.RUN_SEED,
            "timesteps": [int(t) for t in scheduler.timesteps], "error_growth": float(f"{growth:.2g}"), "step_norms": norms,
            "x": g.summary(g.channels_last(x), 64, name + ":ddim")}


def model_golden(name):
    spec = MODELS[name]
    model = build(spec["config"])
    batch, (height, width) = len(spec["t"]), spec["size"]
    x = g.images(batch, model.config.in_channels, height, width).requires_grad_(True)
    target = g.images(batch, model.config.out_channels, height, width, g.STEP_TARGET)
    learned = model.config.time_embedding_type == "learned"
    t = torch.tensor(spec["t"], dtype=torch.int64 if learned else torch.float64)
    labels = spec.get("labels")
    if labels == "vectors":
        dim = model.time_embedding.linear_2.out_features
        labels = torch.stack([torch.from_numpy(philox.normals(g.SEED, n, philox.GOLDEN, g.STEP_LABEL, dim)).double()
                              for n in range(batch)])
    elif labels is not None:
        labels = torch.tensor(labels, dtype=torch.float64 if isinstance(labels[0], float) else torch.int64)
    out = model(x, t, class_labels=labels).sample
    loss = ((out - target) ** 2).mean()
    loss.backward()

    kinds, rows, total = g.parameter_kinds(model), [], 0.0
    for pname, p in model.named_parameters():
        row = {"name": pname, "shape": list(p.shape), "kind": kinds[pname]}
        if p.requires_grad and p.grad is not None:
            row.update(g.summary(p.grad, 8, f"{name}:{pname}"))
            total += row["norm"] ** 2
        else:
            row["trainable"] = False
        rows.append(row)
    assert set(model.state_dict()) == {r["name"] for r in rows}
    count = sum(p.numel() for p in model.parameters())
    for key, got in (("parameters", count), ("tensors", len(rows))):
        assert spec.get(key, got) == got, (name, key, got)

    config = written_config(model)
    if spec.get("absent"):
        config = dict({"_class_name": "UNet2DModel"}, **spec["config"])
    golden = {"name": name, "versions": g.versions(), "config": config, "parameters": count, "tensors": len(rows),
              "input": {"batch": batch, "height": height, "width": width, "channels": model.config.in_channels},
              "timesteps": spec["t"], "class_labels": spec.get("labels"),
              "output": g.summary(g.channels_last(out), 64, name + ":out"), "loss": loss.item(),
              "grad_input": g.summary(g.channels_last(x.grad), 64, name + ":dx"),
              "grad_norm": math.sqrt(total), "gradients": rows,
              "ddim": [run_ddim(name, model, spec, labels, run) for run in spec.get("ddim", [])]}
    g.write_json(f"model_{name}.json", golden)


def generate(only=None):
    for name in MODELS:
        if only is None or name in only:
            model_golden(name)
