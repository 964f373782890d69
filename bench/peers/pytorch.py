#!/usr/bin/env python3
"""PyTorch's and diffusers' side of the turns: speaks as engine_bench does.

    pytorch.py make   --network cifar10 --out DIR [--seed 0]
    pytorch.py train  --model DIR --device cuda [--batch 64] [--format bf16] [settings]
    pytorch.py sample --model DIR --device cuda [--batch 64] [--steps 4] [settings]
    pytorch.py device [--device cpu|cuda]

A line with a number: runs so often, and answers with the seconds of each optimizer or DDIM step.
"info": the device, the versions, the time of creation, the most memory so far. "check DIR": how far
it is from the samples of four steps that engine_bench left in DIR, or loss and gradient norm on
its batch; and the seconds of that.
"make" writes a network whose weights are all at work, as a directory of diffusers.
"""
import argparse
import json
import os
import pathlib
import resource
import sys
import time

BEGUN = time.perf_counter()
try:
    import diffusers
    import numpy as np
    import torch
    from diffusers import DDIMScheduler, DDPMScheduler, UNet2DModel
except ImportError as missing:
    sys.exit(f"pytorch.py: {missing}: python3 -m pip install numpy torch diffusers")

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[2] / "tests/golden"))
import philox  # noqa: E402

DTYPES = {"fp32": torch.float32, "tf32": torch.float32, "bf16": torch.bfloat16,
          "fp16": torch.float16}
LAYOUTS = {"contiguous": torch.contiguous_format, "channels_last": torch.channels_last}
CHECK_STEPS = 4
SMALL = dict(block_out_channels=(32, 64, 64), norm_num_groups=8, num_class_embeds=11,
             down_block_types=("DownBlock2D", "DownBlock2D", "AttnDownBlock2D"),
             up_block_types=("AttnUpBlock2D", "UpBlock2D", "UpBlock2D"),
             attention_head_dim=None, sample_size=28, in_channels=1, out_channels=1)
DDPM = dict(attention_head_dim=None, downsample_padding=0, flip_sin_to_cos=False, freq_shift=1,
            norm_eps=1e-6)
NETWORKS = {
    "tiny": dict(SMALL, block_out_channels=(8, 8, 16), sample_size=8, layers_per_block=1),
    "mnist": SMALL,  # the preset's
    "cifar10": dict(  # of Ho et al. 2020, without dropout, whose masks would differ
        DDPM, sample_size=32, block_out_channels=(128, 256, 256, 256),
        down_block_types=("DownBlock2D", "AttnDownBlock2D", "DownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "UpBlock2D", "AttnUpBlock2D", "UpBlock2D")),
    "256px": dict(
        DDPM, sample_size=256, block_out_channels=(128, 128, 256, 256, 512, 512),
        down_block_types=("DownBlock2D",) * 4 + ("AttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "AttnUpBlock2D") + ("UpBlock2D",) * 4),
}


def make(args):
    torch.manual_seed(args.seed)
    net = UNet2DModel(**NETWORKS[args.network])
    with torch.no_grad():
        for p in net.parameters():  # norms would be ones and zeros
            if p.ndim == 1:
                p.add_(0.05 * torch.randn_like(p))
    scheduler = DDPMScheduler(variance_type="fixed_large")
    net.save_pretrained(f"{args.out}/unet")
    scheduler.save_pretrained(f"{args.out}/scheduler")
    index = {"_class_name": "DDPMPipeline", "_diffusers_version": diffusers.__version__,
             "scheduler": ["diffusers", "DDPMScheduler"], "unet": ["diffusers", "UNet2DModel"]}
    pathlib.Path(args.out, "model_index.json").write_text(json.dumps(index, indent=1) + "\n")


def noise(purpose, batch, shape):
    """The library's own noise: samples counted from 0, elements in N,H,W,C order."""
    channels, height, width = shape
    count = channels * height * width
    values = np.stack([philox.normals(0, n, purpose, 0, count) for n in range(batch)])
    return nchw(values.reshape(batch, height, width, channels))


def nchw(array):
    return torch.from_numpy(np.ascontiguousarray(array.transpose(0, 3, 1, 2))).float()


class Work:
    """What training and sampling share: the network, and where and how it computes."""

    def __init__(self, args):
        self.args, self.device = args, torch.device(args.device)
        self.layout, self.dtype = LAYOUTS[args.layout], DTYPES[args.format]
        net = UNet2DModel.from_pretrained(args.model, subfolder="unet", low_cpu_mem_usage=False)
        self.net = net.to(self.device, memory_format=self.layout)
        self.shape = (net.config.in_channels, net.config.sample_size, net.config.sample_size)
        self.classes = net.config.num_class_embeds
        self.run_net = torch.compile(self.net, mode=args.compile) if args.compile else self.net

    def labels(self, batch):
        return torch.arange(batch, device=self.device) % self.classes if self.classes else None

    def call(self, x, t, labels):
        if self.args.compile == "max-autotune":
            torch.compiler.cudagraph_mark_step_begin()
        return self.run_net(x, t, labels).sample

    def images(self, values):
        return values.to(self.device).to(memory_format=self.layout)

    def synchronize(self):
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)


class Training(Work):
    """One optimizer step as the trainer does it: noising, loss, gradient, clipping, AdamW, EMA.
    In bf16 by autocast, or with --weights low in bf16 altogether, with fp32 masters. The batch
    lies on the device: nothing is loaded."""

    def __init__(self, args):
        super().__init__(args)
        self.net.train()
        self.low = args.weights == "low"
        self.masters = [p.detach().clone() for p in self.net.parameters()]
        if self.low:
            self.net.to(self.dtype)
        else:
            self.masters = list(self.net.parameters())
        self.parameters = list(self.net.parameters())
        self.average = [p.detach().clone() for p in self.masters]
        self.adam = torch.optim.AdamW(self.masters, lr=1e-5, weight_decay=0.0,
                                      **{args.optimizer: True})
        scheduler = DDPMScheduler.from_pretrained(args.model, subfolder="scheduler")
        self.alphas = scheduler.alphas_cumprod.to(self.device)
        self.batch = args.batch
        self.x0 = self.images(torch.randn(args.batch, *self.shape))
        self.batch_labels = self.labels(args.batch)

    def loss(self, x0, t, e, labels):
        a = self.alphas[t].view(-1, 1, 1, 1)
        x = a.sqrt() * x0 + (1 - a).sqrt() * e
        half = self.dtype != torch.float32
        with torch.autocast(self.device.type, self.dtype, enabled=half and not self.low):
            out = self.call(x.to(self.dtype) if self.low else x, t, labels)
        return torch.nn.functional.mse_loss(out.float(), e)

    def gradients(self, *batch):
        """Loss and gradient norm; the gradient stands at the masters, clipped."""
        loss = self.loss(*batch)
        loss.backward()
        if self.low:
            for master in self.masters:
                master.grad = torch.empty_like(master) if master.grad is None else master.grad
            torch._foreach_copy_([m.grad for m in self.masters], [p.grad for p in self.parameters])
            self.net.zero_grad(set_to_none=True)
        return loss, torch.nn.utils.clip_grad_norm_(self.masters, 1.0, foreach=True)

    def check(self, folder):
        x0 = self.images(nchw(np.load(f"{folder}/x0.npy")))
        labels = None
        if self.classes:
            labels = torch.from_numpy(np.load(f"{folder}/labels.npy")).long().to(self.device)
        t = [int(philox.words(0, n, philox.TRAIN_T, 0, 1)[0]) * len(self.alphas) >> 32
             for n in range(self.batch)]
        e = self.images(noise(philox.TRAIN_NOISE, self.batch, self.shape))
        t = torch.tensor(t, device=self.device)
        begun = time.perf_counter()
        loss, norm = self.gradients(x0, t, e, labels)
        found = {"loss": loss.item(), "grad_norm": norm.item()}
        self.adam.zero_grad(set_to_none=True)
        return {**found, "seconds": time.perf_counter() - begun}

    def step(self):
        t = torch.randint(0, len(self.alphas), (self.batch,), device=self.device)
        loss, _ = self.gradients(self.x0, t, torch.randn_like(self.x0), self.batch_labels)
        self.adam.step()
        self.adam.zero_grad(set_to_none=True)
        with torch.no_grad():
            if self.low:
                torch._foreach_copy_(self.parameters, self.masters)
            torch._foreach_lerp_(self.average, self.masters, 1e-3)
        return loss.detach()

    def run(self, times):
        for _ in range(times):
            loss = self.step()
        return {"loss": loss.item()}

    steps = 1


class Sampling(Work):
    """DDIM steps of a batch, to images on the host: diffusers' loop, or a bare one over fp32 state
    with its coefficients on the device, which on a GPU is replayed as a CUDA graph."""

    def __init__(self, args):
        super().__init__(args)
        self.net.eval().to(self.dtype)
        self.scheduler = DDIMScheduler.from_pretrained(args.model, subfolder="scheduler")
        self.steps, self.graph = args.steps, None
        self.start = self.images(noise(philox.INITIAL, args.batch, self.shape))
        self.batch_labels = self.labels(args.batch)
        most = max(args.steps, CHECK_STEPS)
        self.table = torch.empty(4, most, device=self.device)
        self.times = torch.empty(most, dtype=torch.long, device=self.device)
        self.index = torch.zeros(1, dtype=torch.long, device=self.device)
        self.x = self.start.clone()
        self.schedule(args.steps)
        if args.loop == "graph":
            with torch.inference_mode():
                self.capture()

    def schedule(self, steps):
        s = self.scheduler
        s.set_timesteps(steps)
        self.steps, now = steps, s.alphas_cumprod[s.timesteps]
        then = torch.cat([now[1:], s.final_alpha_cumprod.reshape(1)])
        self.table[:, :steps] = torch.stack([now.rsqrt(), (1 / now - 1).sqrt(), then.sqrt(),
                                             (1 - then).sqrt()])
        self.times[:steps] = s.timesteps

    def bare_step(self):
        """Of self.x in place, at the step that the counter names."""
        e = self.call(self.x.to(self.dtype), self.times[self.index], self.batch_labels).float()
        a, b, c, d = self.table[:, self.index]
        x0 = (a * self.x - b * e).clamp_(-1, 1)
        self.x.copy_(c * x0 + d * e)
        self.index += 1

    def capture(self):
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):  # libraries choose and allocate here
            for _ in range(3):
                self.index.zero_()
                self.bare_step()
        torch.cuda.current_stream().wait_stream(stream)
        self.index.zero_()
        self.graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self.graph):
            self.bare_step()

    def bare(self):
        self.x.copy_(self.start)
        self.index.zero_()
        for _ in range(self.steps):
            if self.graph:
                self.graph.replay()
            else:
                self.bare_step()
        return self.x

    def pipeline(self):
        x = self.start.to(self.dtype)
        for t in self.scheduler.timesteps:
            e = self.call(x, t, self.batch_labels)
            x = self.scheduler.step(e, t, x, eta=0.0).prev_sample
        return x

    @torch.inference_mode()
    def images_of_a_run(self):
        return (self.pipeline() if self.args.loop == "diffusers" else self.bare()).float().cpu()

    def check(self, folder):
        ours = nchw(np.load(f"{folder}/x.npy"))
        self.schedule(CHECK_STEPS)  # rounding grows with the steps, a mistake does not wait for it
        begun = time.perf_counter()
        x = self.images_of_a_run()
        took = time.perf_counter() - begun
        self.schedule(self.args.steps)
        return {"samples_off": ((x - ours).norm() / x.norm()).item(), "seconds": took}

    def run(self, times):
        for _ in range(times):
            self.images_of_a_run()
        return {}


def used(device):
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    return None


def info(args, created=0.0):
    device = torch.device(args.device)
    gpu = device.type == "cuda"
    return {"device": args.device, "torch": torch.__version__, "diffusers": diffusers.__version__,
            "name": torch.cuda.get_device_name(device) if gpu else "CPU",
            "cuda": torch.version.cuda, "cudnn": torch.backends.cudnn.version() if gpu else None, "create_seconds": created,
            "memory": used(device),
            "process_memory": 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss}


def measure(work, times):
    work.synchronize()
    wall, cpu = time.perf_counter(), time.process_time()
    answer = work.run(times)
    work.synchronize()
    steps = times * work.steps
    return {"seconds": (time.perf_counter() - wall) / steps,
            "processor_seconds": (time.process_time() - cpu) / steps, **answer}


def serve(args, answers):
    def answer(what):
        answers.write(json.dumps(what) + "\n")
        answers.flush()
    work = Training(args) if args.mode == "train" else Sampling(args)
    work.synchronize()
    created = time.perf_counter() - BEGUN
    for line in sys.stdin:
        word, _, rest = line.strip().partition(" ")
        if word == "info":
            answer(info(args, created))
        elif word == "check":
            answer(work.check(rest))
        else:
            answer(measure(work, int(word)))


def configure(args):
    torch.manual_seed(0)
    torch.set_num_threads(args.threads)
    if args.device == "cuda" and not torch.cuda.is_available():
        raise RuntimeError("PyTorch finds no CUDA device")
    torch.backends.cuda.matmul.allow_tf32 = args.format == "tf32"
    torch.backends.cudnn.allow_tf32 = args.format == "tf32"
    torch.backends.cudnn.benchmark = True


def options():
    o = argparse.ArgumentParser(description=__doc__,
                                formatter_class=argparse.RawDescriptionHelpFormatter)
    o.add_argument("mode", choices=["make", "train", "sample", "device"])
    o.add_argument("--network", choices=NETWORKS)
    o.add_argument("--out")
    o.add_argument("--seed", type=int, default=0)
    o.add_argument("--model")
    o.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    o.add_argument("--format", choices=DTYPES, default="fp32")
    o.add_argument("--batch", type=int, default=64)
    o.add_argument("--steps", type=int, default=4)
    o.add_argument("--threads", type=int, default=1)
    o.add_argument("--layout", choices=LAYOUTS, default="contiguous")
    o.add_argument("--compile", help="a mode of torch.compile, such as max-autotune")
    o.add_argument("--optimizer", choices=["fused", "foreach"], default="fused")
    o.add_argument("--weights", choices=["fp32", "low"], default="fp32")
    o.add_argument("--loop", choices=["diffusers", "bare", "graph"], default="diffusers")
    return o


def main():
    args = options().parse_args()
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what libraries print is no answer
    try:
        if args.mode == "make":
            make(args)
            return
        configure(args)
        if args.mode == "device":
            answers.write(json.dumps(info(args)) + "\n")
            answers.close()
        else:
            serve(args, answers)
    except Exception as failure:
        said = str(failure).strip() or "no reason given"
        sys.exit(f"pytorch.py: {type(failure).__name__}: {said.splitlines()[0]}")


if __name__ == "__main__":
    main()
