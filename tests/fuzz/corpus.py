#!/usr/bin/env python3
"""Writes the seed corpus of the fuzz targets: corpus/TARGET/NAME, small files that reach the readers'
branches. Findings are added beside them by hand, under names that begin with "found"; the JPEG files of
corpus/image came from libjpeg-turbo's tjCompress2()."""
import gzip
import io
import json
import os
import struct
import tarfile
import zlib

HERE = os.path.dirname(os.path.abspath(__file__))


def put(target, name, data):
    if isinstance(data, str):
        data = data.encode()
    folder = os.path.join(HERE, "corpus", target)
    os.makedirs(folder, exist_ok=True)
    with open(os.path.join(folder, name), "wb") as f:
        f.write(data)


def disk(*files):
    """The files of a disk in memory, see fuzz_disk_fill()."""
    parts = []
    for name, data in files:
        parts.append(b"=== " + name.encode() + b"\n" + (data.encode() if isinstance(data, str) else data))
    return b"\n".join(parts)


# --- safetensors ---

def safetensors(tensors, metadata=None, header=None, length=None, pad=0):
    entries, data = {}, b""
    if metadata is not None:
        entries["__metadata__"] = metadata
    for name, dtype, shape, values in tensors:
        entries[name] = {"dtype": dtype, "shape": shape, "data_offsets": [len(data), len(data) + len(values)]}
        data += values
    text = (json.dumps(entries, separators=(",", ":")) if header is None else header).encode() + b" " * pad
    return struct.pack("<Q", len(text) if length is None else length) + text + data


def floats(*values):
    return struct.pack("<%df" % len(values), *values)


MLP = {"_class_name": "TweedieMLP", "in_features": 1, "hidden": 2, "layers": 1}
MLP_WEIGHTS = [("layers.0.weight", "F32", [2, 1], floats(1, 2)), ("layers.0.bias", "F32", [2], floats(3, 4)),
               ("time_embedding.0.weight", "F32", [2, 2], floats(1, 2, 3, 4)),
               ("time_embedding.0.bias", "F32", [2], floats(5, 6)),
               ("output.weight", "F32", [1, 2], floats(7, 8)), ("output.bias", "F32", [1], floats(9))]


def seeds_safetensors():
    put("safetensors", "model", safetensors(MLP_WEIGHTS, {"format": "pt"}))
    halfs = [(n, "BF16", s, v[2::4] * 0 + b"".join(v[i + 2:i + 4] for i in range(0, len(v), 4)))
             for n, _, s, v in MLP_WEIGHTS]
    put("safetensors", "halfs", safetensors(halfs))
    put("safetensors", "dtypes", safetensors(
        [("a", "F16", [1], b"\0\x3c"), ("b", "F64", [1], struct.pack("<d", 1.5)), ("c", "I64", [1], b"\1" * 8),
         ("d", "I32", [1], b"\2" * 4), ("e", "U8", [], b"\3"), ("f", "BOOL", [1], b"\1"),
         ("g", "F8_E4M3", [1], b"\1"), ("h", "U16", [1], b"\1\1")]))
    put("safetensors", "empty", safetensors([("x", "F32", [0, 3], b""), ("y", "U8", [2], b"ab")], pad=6))
    put("safetensors", "none", safetensors([]))
    entry = '"%s":{"dtype":"U8","shape":[%s],"data_offsets":[%s]}'
    for name, header in [
            ("duplicate", "{" + entry % ("x", "1", "0,1") + "," + entry % ("x", "1", "1,2") + "}"),
            ("overlap", "{" + entry % ("x", "2", "0,2") + "," + entry % ("y", "2", "1,3") + "}"),
            ("hole", "{" + entry % ("x", "1", "1,2") + "}"),
            ("huge", "{" + entry % ("x", "1152921504606846976", "0,1152921504606846976") + "}"),
            ("product", "{" + entry % ("x", "4294967296,4294967296", "0,0") + "}"),
            ("deep", '{"x":' + "[" * 40 + "]" * 40 + "}"),
            ("escape", "{" + entry % ("\\u0000\\ud834\\udd1e", "1", "0,1") + "}")]:
        put("safetensors", name, safetensors([("", "", [], b"abc")], header=header))
    put("safetensors", "length", safetensors([], length=1 << 60))


# --- configurations ---

UNET = {"_class_name": "UNet2DModel", "sample_size": 4, "in_channels": 1, "out_channels": 1,
        "block_out_channels": [4, 8], "layers_per_block": 1, "norm_num_groups": 2,
        "down_block_types": ["DownBlock2D", "AttnDownBlock2D"], "up_block_types": ["AttnUpBlock2D", "UpBlock2D"],
        "attention_head_dim": 4, "num_class_embeds": 3}


def seeds_model_config():
    put("model_config", "mlp", json.dumps(dict(MLP, act_fn="silu", num_class_embeds=3, out_features=None)))
    put("model_config", "unet", json.dumps(UNET))
    put("model_config", "one", json.dumps(dict(
        UNET, sample_size=[2, 4], block_out_channels=[4], down_block_types=["DownBlock2D"],
        up_block_types=["UpBlock2D"], mid_block_type=None, add_attention=False, class_embed_type="timestep",
        dropout=0.1, act_fn="gelu")))
    put("model_config", "resnet", json.dumps(dict(
        UNET, down_block_types=["ResnetDownsampleBlock2D", "DownBlock2D"],
        up_block_types=["UpBlock2D", "ResnetUpsampleBlock2D"], time_embedding_type="fourier",
        resnet_time_scale_shift="scale_shift", downsample_type="resnet", upsample_type="resnet",
        class_embed_type="identity", downsample_padding=0)))
    put("model_config", "learned", json.dumps(dict(
        UNET, time_embedding_type="learned", num_train_timesteps=10, center_input_sample=True,
        freq_shift=1, flip_sin_to_cos=False, attn_norm_num_groups=4, mid_block_scale_factor=2.0, norm_eps=1e-6)))
    put("model_config", "wrong", '{"_class_name": "UNet2DModel", "sample_size": NaN, "layers_per_block": 1e99}')
    put("model_config", "other", '{"_class_name": "UNet2DConditionModel"}')


SCHEDULER = {"_class_name": "DDPMScheduler", "num_train_timesteps": 10, "beta_schedule": "linear",
             "beta_start": 0.001, "beta_end": 0.2, "clip_sample": True}


def seeds_scheduler_config():
    put("scheduler_config", "ddpm", json.dumps(SCHEDULER))
    put("scheduler_config", "ddim", json.dumps(dict(
        SCHEDULER, _class_name="DDIMScheduler", beta_schedule="squaredcos_cap_v2", set_alpha_to_one=False,
        steps_offset=1, timestep_spacing="trailing", rescale_betas_zero_snr=True, prediction_type="v_prediction")))
    put("scheduler_config", "betas", json.dumps({"trained_betas": [0.1, 0.2, 0.3], "clip_sample_range": 2}))
    put("scheduler_config", "dynamic", json.dumps(dict(
        SCHEDULER, thresholding=True, dynamic_thresholding_ratio=0.9, sample_max_value=1.5,
        variance_type="fixed_large", beta_schedule="scaled_linear")))
    put("scheduler_config", "sigmoid", json.dumps(dict(
        SCHEDULER, _class_name="EulerDiscreteScheduler", beta_schedule="sigmoid", prediction_type="sample",
        variance_type="learned_range")))
    put("scheduler_config", "wrong", '{"num_train_timesteps": 1e3, "beta_start": Infinity, "beta_end": "0.02"}')


def seeds_model_directory():
    config, scheduler = json.dumps(MLP), json.dumps(SCHEDULER)
    whole = safetensors(MLP_WEIGHTS)
    put("model_directory", "diffusers", disk(
        ("m/unet/config.json", config), ("m/scheduler/scheduler_config.json", scheduler),
        ("m/unet/diffusion_pytorch_model.safetensors", whole)))
    put("model_directory", "flat", disk(
        ("m/config.json", config), ("m/diffusion_pytorch_model.safetensors", whole)))
    put("model_directory", "variant", disk(
        ("v", ""), ("m/config.json", config), ("m/diffusion_pytorch_model.fp16.safetensors", whole)))
    index = {"metadata": {}, "weight_map": {w[0]: "a" if i < 3 else "b" for i, w in enumerate(MLP_WEIGHTS)}}
    put("model_directory", "shards", disk(
        ("m/config.json", config), ("m/diffusion_pytorch_model.safetensors.index.json", json.dumps(index)),
        ("m/a", safetensors(MLP_WEIGHTS[:3])), ("m/b", safetensors(MLP_WEIGHTS[3:]))))
    put("model_directory", "climbing", disk(
        ("m/config.json", config),
        ("m/diffusion_pytorch_model.safetensors.index.json", '{"weight_map": {"x": "../a"}}')))


# --- data ---

def idx(shape, data):
    return struct.pack(">BBBB", 0, 0, 8, len(shape)) + b"".join(struct.pack(">I", n) for n in shape) + data


def packed(data):
    return gzip.compress(data, mtime=0)


def npy(descr, shape, data, version=1, order="False"):
    header = "{'descr': '%s', 'fortran_order': %s, 'shape': %s, }\n" % (descr, order, shape)
    return b"\x93NUMPY" + bytes([version, 0]) + struct.pack("<H" if version == 1 else "<I", len(header)) + \
        header.encode() + data


def seeds_arrays():
    images, labels = idx([3, 2, 2], bytes(range(0, 240, 20))), idx([3], b"\0\2\1")
    for target, wrap in [("idx", lambda name, data: data)]:
        put(target, "images", images)
        put(target, "images_gz", packed(images))
        put(target, "labels", labels)
        put(target, "labels_gz", packed(labels))
        put(target, "short", images[:-1])
        put(target, "huge", idx([0xffffffff] * 3, b"abc"))
        put(target, "huge_gz", packed(idx([0xffffffff] * 3, b"abc")))
        put(target, "long_gz", packed(images + b"x"))
        put(target, "floats", images[:2] + b"\x0d" + images[3:])
    put("npy", "points", npy("<f4", "(2, 2)", floats(1, -1, 0.5, 0)))
    put("npy", "doubles", npy("<f8", "(1, 1)", struct.pack("<d", 0.25), version=2))
    put("npy", "images", npy("|u1", "(1, 2, 2, 3)", bytes(range(12)), version=3))
    put("npy", "labels", npy("<i8", "(2,)", struct.pack("<qq", 3, -1)))
    put("npy", "ints", npy("<i4", "()", b"\1\0\0\0"))
    put("npy", "empty", npy("<f4", "(0, 3)", b""))
    put("npy", "fortran", npy("<f4", "(1, 1)", floats(1), order="True"))
    put("npy", "big", npy(">f4", "(1, 1)", floats(1)))
    put("npy", "object", npy("|O", "(1,)", b"x"))
    put("npy", "huge", npy("<f4", "(1152921504606846976, 16)", b""))
    put("npy", "nan", npy("<f4", "(1, 1)", floats(float("nan"))))
    put("dataset", "idx", disk(("a-images-idx3-ubyte", images), ("a-labels-idx1-ubyte", labels)))
    put("dataset", "gz", disk(("a-images-idx3-ubyte", packed(images)), ("a-labels-idx1-ubyte.gz", packed(labels))))
    put("dataset", "npy", disk(("x.npy", npy("<f4", "(2, 2)", floats(1, -1, 0.5, 0)))))
    put("dataset", "labels", disk(("x.npy", npy("|u1", "(2, 1, 1, 3)", bytes(range(6)))),
                                  ("labels", npy("<i4", "(2,)", struct.pack("<ii", 1, 0)))))
    put("dataset", "unknown", disk(("x", "hello")))


# --- pictures ---

def chunk(kind, data):
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(width, height, depth, colour, rows, extra=b"", interlace=0):
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, interlace)) + \
        extra + chunk(b"IDAT", zlib.compress(rows, 9)) + chunk(b"IEND", b"")


def seeds_png():
    put("png", "grey", png(2, 2, 8, 0, b"\0ab\1cd"))
    put("png", "colour", png(1, 2, 8, 2, b"\2abc\3abc"))
    put("png", "palette", png(3, 1, 2, 3, b"\0\x1b", chunk(b"PLTE", b"abcdefghijkl") + chunk(b"tRNS", b"\0\x80")))
    put("png", "deep", png(1, 1, 16, 6, b"\4abcdefgh"))
    put("png", "bits", png(9, 2, 1, 0, b"\0\xaa\x80\0\x55\0"))
    put("png", "alpha", png(2, 1, 8, 4, b"\0abcd"))
    put("png", "interlaced", png(2, 2, 8, 0, b"\0a\0b\0cd", interlace=1))
    put("png", "text", png(1, 1, 8, 0, b"\0a", chunk(b"tEXt", b"Title\0x") + chunk(b"gAMA", b"\0\1\x86\xa0")))
    put("png", "huge", png(1 << 20, 1 << 20, 16, 2, b"\0"))


def tar(*entries, kind="ustar"):
    out = io.BytesIO()
    formats = {"ustar": tarfile.USTAR_FORMAT, "gnu": tarfile.GNU_FORMAT, "pax": tarfile.PAX_FORMAT}
    with tarfile.open(fileobj=out, mode="w", format=formats[kind]) as archive:
        for name, data in entries:
            entry = tarfile.TarInfo(name)
            if data is None:
                entry.type = tarfile.DIRTYPE
            elif isinstance(data, str):
                entry.type, entry.linkname = tarfile.LNKTYPE, data
            else:
                entry.size = len(data)
            archive.addfile(entry, io.BytesIO(data) if isinstance(data, bytes) else None)
    blocks = out.getvalue()
    return blocks[:len(blocks.rstrip(b"\0")) // 512 * 512 + 1536]  # two empty ones at the end do


def seeds_archive():
    grey, colour = png(2, 2, 8, 0, b"\0ab\1cd"), png(1, 2, 8, 2, b"\2abc\3abc")
    put("archive", "flat", tar(("a.png", grey)))
    put("archive", "classes", tar(("x", None), ("x/a.png", grey), ("./y/b.PNG", colour)))
    put("archive", "gz", packed(tar(("x/a.png", grey), ("y/b.png", colour))))
    put("archive", "links", tar(("a.png", grey), ("b.png", "a.png"), ("../../c.png", colour), (".d.png", grey)))
    put("archive", "pax", tar(("\u00e9/a.png", grey), kind="pax"))
    put("archive", "gnu", tar(("n" * 120 + ".png", grey), kind="gnu"))
    put("archive", "broken", tar(("a.png", grey[:-20]), ("b.jpg", b"\xff\xd8\xff"), ("c.txt", b"hello")))
    record = b"\3" + bytes(3072)
    put("dataset", "cifar", disk(("x.bin", record)))
    put("dataset", "cifar_folder", disk(("cifar/data_batch_2.bin", record)))
    put("dataset", "tar", disk(("x.tar", tar(("a.png", grey)))))


# --- the command ---

def seeds_command():
    put("command_line", "train", b"\1" + b"\n".join([b"--steps", b"10", b"--lr=1e-3", b"--resume", b"--ema", b"0.5"]))
    put("command_line", "sample", b"\2--out\nx.png\n--n\n4\n--sampler\nddim\n--eta\n0.5\n--steps=+07")
    put("command_line", "close", b"\1--step\n5")
    put("command_line", "help", b"\0--help")
    put("command_line", "numbers", b"\1-9223372036854775808\n9223372036854775807\n1e308\n+.5e-3\n--lr\n1e999")
    options = {"data": "scurve", "steps": 10, "lr": 1e-3, "antithetic": True, "lr-schedule": "cosine"}
    run = {"tweedie": "0.1.0", "preset": "scurve", "device": "CPU", "providers": ["cpu-reference"],
           "model": MLP, "scheduler": SCHEDULER, "options": options}
    lines = ['{"step": %d, "loss": %s, "grad_norm": 0.5, "lr": 0.001, "skipped": 0, "samples_per_s": 1e3, "time": 0.1}'
             % (i + 1, "null" if i == 2 else 1.0 / (i + 1)) for i in range(4)]
    held = '{"step": 4, "validation_loss": 0.25, "validation_loss_average": 0.3}'
    put("metrics", "run", "\n".join(lines + [held, ""]))
    put("metrics", "broken_off", "\n".join(lines)[:-20])
    put("metrics", "twice", "\n".join(lines[:1] * 2 + [""]))
    put("run", "resume", disk(("r/run.json", json.dumps(run))))
    put("run", "fresh", disk(("c.json", json.dumps({"model": MLP, "options": {"steps": 5, "threads": "1"}}))))
    put("run", "wrong", disk(("c.json", json.dumps({"model": MLP, "options": {"steps": 0.5, "out": "x", "no": 1}}))))
    put("run", "unknown", disk(("c.json", '{"model": {}, "scheduler": null, "more": 1}')))


if __name__ == "__main__":
    for seeds in [seeds_safetensors, seeds_model_config, seeds_scheduler_config, seeds_model_directory,
                  seeds_arrays, seeds_png, seeds_archive, seeds_command]:
        seeds()
