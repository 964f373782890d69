"""The library from Python draws the command's samples, to the bit, and says what is wrong:
library_test.py LIBRARY TWEEDIE MODELS"""
import ctypes
import os
import pathlib
import subprocess
import sys
import tempfile
import unittest

sys.path.insert(0, str(pathlib.Path(__file__).parents[2] / "host" / "examples"))
import sample  # noqa: E402

LIBRARY, TWEEDIE, MODELS = sys.argv[1:4]


class Library(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = pathlib.Path(folder.name)

    def command(self, model, *words):
        """The numbers of the samples that the command draws, as bytes."""
        path = self.folder / "samples.npy"
        subprocess.run([TWEEDIE, "sample", "--model", model, "--device", "auto", "--out", path,
                        *words], check=True, stdout=subprocess.DEVNULL)
        data = path.read_bytes()
        return data[10 + int.from_bytes(data[8:10], "little"):]

    def test_draws_the_commands_samples(self):
        model = f"{MODELS}/golden/tiny_ddpm"
        sampler = sample.Sampler(LIBRARY, model, steps=5, eta=0.5)
        drawn = bytes(sampler.draw(3))
        self.assertEqual(drawn, bytes(sampler.draw(3)))
        sampler.close()
        self.assertEqual(drawn, self.command(model, "--n", "3", "--steps", "5", "--eta", "0.5"))
        self.assertNotEqual(drawn, self.command(model, "--n", "3", "--steps", "5"))

    def test_labels(self):
        model = f"{MODELS}/../host/examples/digits/model"
        sampler = sample.Sampler(LIBRARY, model, steps=2)
        drawn = bytes(sampler.draw(2, labels=[4, 5]))
        sampler.close()
        self.assertEqual(drawn, self.command(model, "--n", "2", "--steps", "2", "--class", "4-5"))

    def test_failures_have_a_text(self):
        with self.assertRaisesRegex(RuntimeError, "absent: no such directory"):
            sample.Sampler(LIBRARY, "absent", steps=5)
        with self.assertRaisesRegex(RuntimeError, "eta"):
            sample.Sampler(LIBRARY, f"{MODELS}/golden/tiny_ddpm", steps=5, eta=-1.0)

    def test_nulls_crash_nothing(self):
        names = (pathlib.Path(MODELS) / "install" / "exports.txt").read_text().split()
        library = ctypes.CDLL(LIBRARY)
        for name in names:
            child = os.fork()
            if child == 0:
                getattr(library, name)(*[ctypes.c_void_p(0)] * 12)
                os._exit(0)
            self.assertEqual(os.waitpid(child, 0)[1], 0, name)
        self.assertGreater(len(names), 100)

    def test_the_program(self):
        out = self.folder / "a.ppm"
        program = pathlib.Path(sample.__file__)
        subprocess.run([sys.executable, program, LIBRARY, f"{MODELS}/golden/tiny_ddpm", out],
                       check=True)
        head, size, depth, pixels = out.read_bytes().split(b"\n", 3)
        width, height = map(int, size.split())
        self.assertEqual((head, depth, len(pixels)), (b"P6", b"255", 3 * width * height))
        self.assertGreater(len(set(pixels)), 50)


unittest.main(argv=sys.argv[:1])
