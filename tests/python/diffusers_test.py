"""What tweedie writes, diffusers reads: diffusers_test.py TWEEDIE DIGITS

Models that tweedie trained are read by diffusers, which draws the same samples from the same noise:
the digits' weights, and a run of two steps without classes. Skipped where diffusers or PyTorch is
missing."""
import pathlib
import subprocess
import sys
import tempfile

try:
    import numpy
    import torch
    from diffusers import DDIMPipeline, DDIMScheduler, UNet2DModel
except ImportError as missing:
    print(f"skipped: {missing}")
    sys.exit(77)

TWEEDIE, DIGITS = sys.argv[1:3]
STEPS, N = 4, 3
BOUND = 1e-3  # of the largest number


def tweedie(*words):
    subprocess.run([TWEEDIE, *map(str, words)], check=True, stdout=subprocess.DEVNULL)


def read(model):
    return (UNet2DModel.from_pretrained(model, subfolder="unet").eval(),
            DDIMScheduler.from_pretrained(model, subfolder="scheduler"))


def by_diffusers(model, noise, labels):
    """DDIM without noise, as DDIMPipeline does it, whose images have no class."""
    unet, scheduler = read(model)
    scheduler.set_timesteps(STEPS)
    x = torch.from_numpy(noise).permute(0, 3, 1, 2)
    with torch.no_grad():
        for t in scheduler.timesteps:
            x = scheduler.step(unet(x, t, class_labels=labels).sample, t, x).prev_sample
    return x.permute(0, 2, 3, 1).numpy()


def compare(name, model, folder, labels, words):
    noise = numpy.random.default_rng(5).standard_normal((N, 28, 28, 1), dtype=numpy.float32)
    numpy.save(folder / "noise.npy", noise)
    tweedie("sample", "--model", model, "--noise", folder / "noise.npy", "--steps", STEPS,
            "--out", folder / "samples.npy", *words)
    ours = numpy.load(folder / "samples.npy")
    theirs = by_diffusers(model, noise, labels)
    apart, largest = numpy.abs(ours - theirs).max(), numpy.abs(theirs).max()
    print(f"{name}: {apart:.2e} apart at most, numbers up to {largest:.3g}")
    assert ours.shape == theirs.shape and apart < BOUND * largest, name


with tempfile.TemporaryDirectory() as temporary:
    folder = pathlib.Path(temporary)
    compare("the digits", DIGITS + "/model", folder, torch.arange(N), ["--class", f"0-{N - 1}"])
    pictures = numpy.random.default_rng(6).integers(0, 256, (8, 28, 28, 1), dtype=numpy.uint8)
    numpy.save(folder / "pictures.npy", pictures)
    run = folder / "run"
    tweedie("train", "--preset", "mnist", "--data", folder / "pictures.npy", "--batch-size", 4,
            "--steps", 2, "--preview-every", 0, "--validate-every", 0, "--holdout", 0, "--out", run)
    compare("a run", run, folder, None, [])
    images = DDIMPipeline(*read(run))(batch_size=2, num_inference_steps=2).images
    assert [image.size for image in images] == [(28, 28)] * 2
