"""bench/peers without PyTorch and without a GPU: both sides are stand-ins that answer as told by
what stands in their folder.
    peers_test.py path/to/bench/peers
"""
import contextlib
import io
import json
import pathlib
import sys
import tempfile
import unittest

sys.path.insert(0, sys.argv.pop(1))
import engine  # noqa: E402
import nvml  # noqa: E402
import pages  # noqa: E402
import turns  # noqa: E402

# Answers as engine_bench and pytorch.py do. wishes.json beside it changes what it says: for ours
# under "ours", for PyTorch's under "peer", and there under a word of its arguments.
STAND_IN = """#!%s
import json, pathlib, sys, time
here = pathlib.Path(sys.argv[0]).resolve().parent
ours = sys.argv[0].endswith("engine_bench")
wishes = json.loads((here / "wishes.json").read_text())
wish = dict(wishes.get("ours" if ours else "peer", {}))
for word in sys.argv[1:]:
    wish.update(wishes.get(word, {}) if not ours else {})
if wish.get("fails"):
    sys.exit(wish["fails"])
def say(**what):
    print(json.dumps(what), flush=True)
def info():
    say(device=wish.get("device", "cpu"), name="stand-in", torch="9.9", diffusers="8.8", cuda="7.7",
        cudnn=66, create_seconds=0.5, memory=wish.get("memory", 2 << 30), process_memory=1 << 20)
mode = sys.argv[1]
if mode == "make":
    sys.exit(0)
if mode == "device":
    if "cuda" in sys.argv and wish.get("device", "cpu") == "cpu":
        sys.exit("engine_bench: context: no device cuda")
    info()
    sys.exit(0)
answered = 0
for line in sys.stdin:
    word = line.split()[0]
    if word == "info":
        info()
    elif word == "check" and mode == "train":
        say(loss=wish.get("loss", 0.5), grad_norm=2.0, seconds=3.0)
    elif word == "check":
        say(samples_off=wish.get("off", 1e-6), seconds=3.0)
    else:
        answered += 1
        if answered > wish.get("dies_after", 1000):
            sys.exit(wish["last_words"])
        time.sleep(wish.get("sleeps", 0))
        say(seconds=wish.get("seconds", 0.2), processor_seconds=wish.get("seconds", 0.2), loss=0.5,
            grad_norm=2.0)
""" % sys.executable


class StandIns(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = pathlib.Path(folder.name)
        bench = self.folder / "bench"
        bench.mkdir()
        for name in ("engine_bench", "pytorch.py"):
            (bench / name).write_text(STAND_IN)
            (bench / name).chmod(0o755)
        self.bench = bench
        self.addCleanup(setattr, engine, "PEER", engine.PEER)
        self.addCleanup(setattr, nvml.Gpu, "open", nvml.Gpu.open)
        engine.PEER = bench / "pytorch.py"
        nvml.Gpu.open = staticmethod(lambda: None)

    def run_engine(self, *arguments, **wishes):
        """Exit status; the rows, the page and what was said stand in self."""
        (self.bench / "wishes.json").write_text(json.dumps(wishes))
        lines = self.folder / "lines.jsonl"
        lines.unlink(missing_ok=True)
        out, err = io.StringIO(), io.StringIO()
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            try:
                status = engine.main(["--build", str(self.folder), "--seconds", "0", "--json",
                                      str(lines), *arguments])
            except SystemExit as end:
                status = end.code
        self.document = pages.read(lines) if lines.exists() else []
        self.rows, self.page, self.said = pages.rows(self.document), out.getvalue(), err.getvalue()
        return status

    def row(self, setting):
        return next(r for r in self.rows if r["settings"] == setting)


GPU = {"ours": {"device": "cuda", "seconds": 0.1, "memory": 1 << 30}, "peer": {"device": "cuda"}}


class Cpu(StandIns):
    def test_says_that_there_is_no_gpu_and_measures_the_small_network(self):
        self.assertEqual(self.run_engine(ours={"seconds": 0.1}), 0)
        self.assertIn("no GPU here: small networks on the CPU", self.said)
        self.assertEqual([(r["mode"], r["batch"]) for r in self.rows],
                         [("train", 64), ("sample", 1), ("sample", 16), ("sample", 64)])
        for row in self.rows:
            self.assertAlmostEqual(row["ratio"], 2)
            self.assertEqual((row["runs"], row["calls"]), (5, 1))
        self.assertTrue(self.document[-1]["end"])
        self.assertIn("# The CPU beside PyTorch", self.page)
        self.assertIn("| 100.0 (100.0 to 100.0) | 200.0 (200.0 to 200.0) | 2.00 |", self.page)

    def test_takes_the_quickest_setting(self):
        self.run_engine("--only", "training", peer={"seconds": 0.3}, foreach={"seconds": 0.2})
        self.assertEqual(self.rows[0]["settings"], "contiguous, eager, AdamW foreach")
        self.run_engine("--only", "batch 16", channels_last={"seconds": 0.1})
        self.assertEqual(self.rows[0]["settings"], "channels_last, eager")

    def test_leaves_out_a_setting_that_fails(self):
        self.assertEqual(self.run_engine("--only", "training", fused={"fails": "pytorch.py: none"}), 0)
        self.assertEqual(self.rows[0]["settings"], "contiguous, eager, AdamW foreach")

    def test_all_settings_end_while_they_are_tried(self):
        self.assertEqual(self.run_engine("--only", "batch 16", peer={"dies_after": 2,
                                                                    "last_words": "gone"}), 1)
        self.assertEqual(self.rows[0]["failed"], "gone")

    def test_a_row_for_each_number_of_threads(self):
        self.run_engine("--only", "batch 16", "--threads", "1", "2")
        self.assertEqual([r["threads"] for r in self.rows], [1, 2])


class Refusals(StandIns):
    def test_what_disagrees_is_not_timed(self):
        self.assertEqual(self.run_engine("--only", "batch 16", peer={"off": 1e-3}), 1)
        self.assertIn("samples off by 1.00e-03, expected at most 1e-04", self.rows[0]["failed"])
        self.assertNotIn("tweedie", self.rows[0])
        self.assertIn("Not measured:", self.page)

    def test_nan_disagrees(self):
        self.assertEqual(self.run_engine("--only", "training", peer={"loss": float("nan")}), 1)
        self.assertTrue(self.rows[0]["disagrees"])

    def test_one_setting_that_disagrees_is_not_hidden_by_the_others(self):
        self.assertEqual(self.run_engine("--only", "batch 16", channels_last={"off": 1e-3}), 1)

    def test_the_bound_is_that_of_the_format(self):
        self.assertEqual(self.run_engine("--only", "batch 16", "--format", "bf16", "fp32",
                                         peer={"off": 1e-2}), 1)
        self.assertEqual(["failed" in r for r in self.rows], [False, True])

    def test_ours_that_cannot_is_a_row(self):
        why = "engine_bench: --format bf16: not yet"
        self.assertEqual(self.run_engine("--only", "batch 16", ours={"dies_after": 0,
                                                                    "last_words": why}), 1)
        self.assertEqual(self.rows[0]["failed"], why)

    def test_no_answer_in_time(self):
        self.assertEqual(self.run_engine("--only", "batch 16", "--patience", "1.5",
                                         peer={"sleeps": 30}), 1)
        self.assertEqual(self.rows[0]["failed"], "pytorch.py: no answer within 1.5 s")

    def test_a_program_that_is_missing(self):
        (self.bench / "engine_bench").unlink()
        self.assertIn("No such file", self.run_engine())

    def test_cuda_where_there_is_none(self):
        self.assertEqual(self.run_engine("--device", "cuda"),
                         "engine.py: engine_bench: context: no device cuda")
        self.assertEqual(self.document, [])

    def test_arguments(self):
        for wrong in (["--threads", "0"], ["--seconds", "-1"], ["--device", "tpu"],
                      ["--write", "--tiny"], ["--format", "int8"]):
            self.assertEqual(self.run_engine(*wrong), 2, wrong)


class Gpu(StandIns):
    def test_every_setting_has_a_row(self):
        self.assertEqual(self.run_engine(**GPU), 0)
        train, sample = 5, 5
        self.assertEqual(len(self.rows), 4 * train + 3 * sample + 3)
        self.assertEqual({r["format"] for r in self.rows}, {"bf16"})
        self.assertIn("# The GPU beside PyTorch", self.page)
        self.assertIn("PyTorch 9.9, CUDA 7.7, cuDNN 66, diffusers 8.8", self.page)

    def test_a_setting_without_memory_is_a_row_and_not_the_end(self):
        why = "pytorch.py: OutOfMemoryError: CUDA out of memory"
        status = self.run_engine("--only", "training step, cifar10, batch 512",
                                 **GPU, **{"max-autotune": {"fails": why}})
        self.assertEqual(status, 0)
        self.assertEqual([r.get("failed") for r in self.rows], [None, None, why, None, why])
        self.assertIn("- training step, cifar10, batch 512, bf16, channels_last, compiled "
                      "max-autotune, AdamW fused: " + why, self.page)

    def test_one_that_ends_in_its_turn(self):
        why = "pytorch.py: RuntimeError: CUDA error: an illegal memory access"
        self.run_engine("--only", "batch 64", **GPU, graph={"dies_after": 3, "last_words": why})
        self.assertEqual([r.get("failed") for r in self.rows], [None, None, None, why, why])

    def test_figures_of_a_run(self):
        self.run_engine("--only", "DDIM step, cifar10, batch 64", "--no-compile", **GPU)
        row = self.row("channels_last, eager, bare loop as a CUDA graph")
        self.assertAlmostEqual(row["tweedie"]["images_per_s"], 64 / (50 * 0.1))
        self.assertAlmostEqual(row["ratio_memory"], 2)
        self.assertAlmostEqual(row["tweedie"]["first_seconds"], 5)
        self.assertAlmostEqual(row["pytorch"]["first_seconds"], 10 + 3)  # and the check
        self.assertIsNone(row["ratio_joules"])
        self.assertIn("| 13 / 6 | 1.00 / 2.00 | - / - | 5.0 / 13.0 | 5 x 1 |", self.page)

    def test_short_calls_are_put_together(self):
        self.run_engine("--only", "batch 128", "--no-compile", ours={"device": "cuda", "seconds": 0.03},
                        peer={"device": "cuda", "seconds": 0.04})
        self.assertEqual(self.rows[0]["calls"], 4)

    def test_joules(self):
        class Counter:
            said = 0.0

            def joules(self):
                Counter.said += 64
                return Counter.said

            def describe(self):
                return {"gpu": "stand-in", "driver": "1", "watts": 700.0, "sm_mhz": 1, "sm_mhz_most": 2,
                        "memory_mhz": 3}

        nvml.Gpu.open = staticmethod(Counter)
        self.run_engine("--only", "DDIM step, cifar10, batch 64", "--no-compile",
                        "--energy-seconds", "0", **GPU)
        self.assertEqual(self.rows[0]["tweedie"]["joules_per_image"], 1)
        self.assertIn("stand-in, driver 1, 700 W at most, 1 of 2 MHz, memory at 3 MHz", self.page)

    def test_from_start_to_first_image(self):
        self.run_engine("--only", "start", "--no-compile", ours={"device": "cuda"},
                        peer={"device": "cuda", "sleeps": 0.3})
        self.assertGreater(self.rows[0]["ratio"], 1.5)
        self.assertEqual(self.rows[0]["runs"], engine.STARTS)
        self.assertIn("start to first image, cifar10, batch 1, 20 steps", self.page)


class Pieces(unittest.TestCase):
    def test_spread(self):
        self.assertEqual(turns.spread([3.0]), {"median": 3.0, "p10": 3.0, "p90": 3.0})
        found = turns.spread([float(i) for i in range(11)][::-1])
        self.assertEqual(found, {"median": 5.0, "p10": 1.0, "p90": 9.0})

    def test_ratio(self):
        self.assertEqual(turns.ratio(2.0, 3.0), 1.5)
        self.assertIsNone(turns.ratio(None, 3.0))
        self.assertIsNone(turns.ratio(0, 3.0))

    def test_the_quickest_setting_decides(self):
        row = dict(what="DDIM step", mode="sample", network="cifar10", batch=1, steps=50,
                   format="bf16")
        found = pages.quickest([{}, dict(row, ratio=3.0, settings="a"),
                                dict(row, ratio=1.2, settings="b"), dict(row, failed="c")])
        self.assertEqual([r["settings"] for r in found], ["b"])

    def test_a_run_that_was_broken_off(self):
        head = {"device": "cpu", "commit": "c", "cpu": "x", "processors": 1, "torch": "1",
                "diffusers": "2", "load": 0.5}
        self.assertIn("broken off", pages.page([head]))
        self.assertNotIn("broken off", pages.page([head, {"end": True, "load": 0.1}]))

    def test_every_format_has_a_bound_for_what_it_does(self):
        for form, bounds in engine.BOUNDS.items():
            self.assertIn("samples", bounds, form)
            if form != "fp16":
                self.assertLessEqual({"loss", "grad_norm"}, set(bounds), form)

    def test_no_library_no_gpu(self):
        self.assertIsNone(nvml.Gpu.open("libnothing-of-this-name.so"))


if __name__ == "__main__":
    unittest.main()
