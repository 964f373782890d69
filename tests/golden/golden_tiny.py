"""Tiny model directories as diffusers' save_pretrained writes them, each with the forward output to expect (<dir>.json).

The weights are diffusers' random initialisation under a fixed seed; the files are the truth.
"""
import glob
import json
import os
import shutil

import safetensors.torch
import torch
from diffusers import (DDIMScheduler, DDPMPipeline, DDPMScheduler, DPMSolverMultistepScheduler, EulerDiscreteScheduler,
                       PNDMScheduler, UNet2DModel)
from diffusers.training_utils import EMAModel

import golden_common as g
import golden_models
from golden_models import ATTN_DOWN, ATTN_UP, DOWN, UP

SMALL = dict(sample_size=8, block_out_channels=(8, 16), layers_per_block=1, norm_num_groups=4)
DDPM_LIKE = dict(SMALL, down_block_types=(DOWN, ATTN_DOWN), up_block_types=(ATTN_UP, UP), attention_head_dim=None,
                 downsample_padding=0, flip_sin_to_cos=False, freq_shift=1, norm_eps=1e-6)
CIFAR_SCHEDULER = dict(num_train_timesteps=1000, beta_start=1e-4, beta_end=0.02, beta_schedule="linear",
                       variance_type="fixed_large", clip_sample=True)


def new_model(seed, **config):
    torch.manual_seed(seed)
    return UNet2DModel(**config).eval()


def fresh(name):
    path = os.path.join(g.HERE, name)
    shutil.rmtree(path, ignore_errors=True)
    return path


def expected(model, tag, labels=None):
    """Forward in double with the weights as stored."""
    golden_models.use_double_embedding()
    model = model.double()
    x, t = g.images(2, model.config.in_channels, 8, 8), [100, 901]
    with torch.no_grad():
        out = model(x, torch.tensor(t, dtype=torch.float64), class_labels=None if labels is None else torch.tensor(labels)).sample
    return {"timesteps": t, "class_labels": labels, "output": g.summary(g.channels_last(out), 64, tag)}


def reload_(path, **options):
    model, info = UNet2DModel.from_pretrained(path, output_loading_info=True, **options)
    assert not info["missing_keys"] and not info["unexpected_keys"], info
    return model.eval()


def finish(name, entries):
    path = os.path.join(g.HERE, name)
    files = sorted(os.path.relpath(f, path) for f in glob.glob(path + "/**", recursive=True) if os.path.isfile(f))
    for f in files:
        os.chmod(os.path.join(path, f), 0o644)
    size = sum(os.path.getsize(os.path.join(path, f)) for f in files)
    assert size < 400_000, (name, size)
    for f in files:
        text = open(os.path.join(path, f), "rb").read()
        assert g.HERE.encode() not in text and b"_name_or_path" not in text, f
    g.write_json(name + ".json", {"directory": name, "versions": g.versions(), "files": files,
                                  "input": {"batch": 2, "height": 8, "width": 8, "channels": 3}, **entries}, depth=2)


def tiny_ddpm():
    """A DDPMPipeline: unet/, scheduler/, and the fp16 variant beside the fp32 weights."""
    path, model = fresh("tiny_ddpm"), new_model(1, **DDPM_LIKE)
    pipe = DDPMPipeline(unet=model, scheduler=DDPMScheduler(**CIFAR_SCHEDULER))
    pipe.save_pretrained(path)
    unet = os.path.join(path, "unet")
    half = new_model(1, **DDPM_LIKE).half()
    half.save_pretrained(unet, variant="fp16")
    finish("tiny_ddpm", {"expected": expected(reload_(unet), "tiny"),
                         "expected_fp16": expected(reload_(unet, variant="fp16", torch_dtype=torch.float16), "tiny")})


def tiny_flat():
    """Everything in the root, as google/ddpm-cifar10-32 has it."""
    path, model = fresh("tiny_flat"), new_model(2, **DDPM_LIKE)
    model.save_pretrained(path)
    DDPMScheduler(**CIFAR_SCHEDULER).save_pretrained(path)
    with open(os.path.join(path, "model_index.json"), "w", encoding="utf-8") as f:
        json.dump({"_class_name": "DDPMPipeline", "_diffusers_version": "0.1.1", "scheduler": ["diffusers", "DDPMScheduler"],
                   "unet": ["diffusers", "UNet2DModel"]}, f, indent=2)
        f.write("\n")
    finish("tiny_flat", {"expected": expected(reload_(path), "tiny")})


def tiny_bf16():
    """bf16 weights under the plain name; the scheduler's config holds -Infinity, which is no JSON."""
    path, model = fresh("tiny_bf16"), new_model(3, **dict(SMALL, down_block_types=(ATTN_DOWN, DOWN), up_block_types=(UP, ATTN_UP)))
    pipe = DDPMPipeline(unet=model.bfloat16(), scheduler=DPMSolverMultistepScheduler())
    pipe.save_pretrained(path)
    unet = os.path.join(path, "unet")
    finish("tiny_bf16", {"expected": expected(reload_(unet, torch_dtype=torch.bfloat16), "tiny")})


def tiny_sharded():
    """Shards and their index; class-conditional with scale_shift. scheduler_v is another scheduler config to read."""
    path = fresh("tiny_sharded")
    model = new_model(4, **dict(DDPM_LIKE, num_class_embeds=5, resnet_time_scale_shift="scale_shift"))
    model.save_pretrained(os.path.join(path, "unet"), max_shard_size="80KB")
    EulerDiscreteScheduler().save_pretrained(os.path.join(path, "scheduler"))
    DDIMScheduler(prediction_type="v_prediction", rescale_betas_zero_snr=True,
                  timestep_spacing="trailing").save_pretrained(os.path.join(path, "scheduler_v"))
    finish("tiny_sharded", {"expected": expected(reload_(os.path.join(path, "unet")), "tiny", labels=[4, 2])})


def tiny_legacy():
    """Flat, saved by diffusers' EMAModel (which adds keys to config.json), the attention's tensors under their old names."""
    path, model = fresh("tiny_legacy"), new_model(5, **DDPM_LIKE)
    EMAModel(model.parameters(), model_cls=UNet2DModel, model_config=model.config, use_ema_warmup=True).save_pretrained(path)
    PNDMScheduler().save_pretrained(path)
    file = os.path.join(path, "diffusion_pytorch_model.safetensors")
    tensors = safetensors.torch.load_file(file)
    renamed = {}
    for name, value in tensors.items():
        for new, old in (("to_q", "query"), ("to_k", "key"), ("to_v", "value"), ("to_out.0", "proj_attn")):
            name = name.replace(f".{new}.", f".{old}.")
        renamed[name] = value
    assert set(renamed) != set(tensors)
    safetensors.torch.save_file(renamed, file, metadata={"format": "pt"})
    finish("tiny_legacy", {"expected": expected(reload_(path), "tiny")})


def generate():
    tiny_ddpm()
    tiny_flat()
    tiny_bf16()
    tiny_sharded()
    tiny_legacy()
