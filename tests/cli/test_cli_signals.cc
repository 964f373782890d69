// kill -9, Ctrl-C, SIGTERM and SIGHUP at any moment: a run goes on to the numbers of one that was
// left alone, and a file is whole or not there.
#include "cli/broken.h"

#include <set>

namespace {

class Signals : public Broken {
  protected:
    // Goes on with a run that is broken off `times` times, and then to its end.
    void break_off(const std::string &out, int times, const std::function<RunOptions()> &how,
                   const std::function<void(const Result &)> &check) {
        std::set<std::string> saved; // and not pruned in the same part of the run
        for (int i = 0; i < times; i++) {
            const Result r = run(go_on(out), how());
            join();
            check(r);
            for (const std::string &name : list(out + "/checkpoints"))
                if (name[0] != '.') saved.insert(name);
            if (testing::Test::HasFailure()) return;
        }
        works(go_on(out));
        expect_same_run(out, "whole");
        expect_no_temporaries(out);
        // The last two saves; what a run saved when it was stopped is one, too.
        for (const std::string &name : list("whole/checkpoints")) saved.insert(name);
        const std::vector<std::string> kept = list(out + "/checkpoints");
        EXPECT_EQ(std::set<std::string>(kept.begin(), kept.end()),
                  std::set<std::string>(std::prev(saved.end(), 2), saved.end()));
        EXPECT_EQ(read(out + "/best/unet/diffusion_pytorch_model.safetensors"),
                  read("whole/best/unet/diffusion_pytorch_model.safetensors"));
    }
};

TEST_F(Signals, KilledAtAnyMoment) {
    const double whole = seconds_of(busy("whole"));
    for (int round = 0; round < (kSlow ? 1 : 3); round++) {
        break_off(
            "run" + std::to_string(round), 5,
            [&] { return signals_after(uniform(whole / (1 + round % 2)), {SIGKILL}); },
            [&](const Result &r) {
                EXPECT_TRUE(r.status == 128 + SIGKILL || r.status == 0) << r.status << r.err;
                EXPECT_EQ(r.err, "");
            });
    }
}

// Between the files of a save: after the first one has its name, after the second ...
TEST_F(Signals, KilledWithinASave) {
    works(busy("whole"));
    works(busy("begun", 20));
    for (int n = 1; n <= (kSlow ? 4 : 8); n++) {
        const std::string out = "run" + std::to_string(n);
        std::filesystem::copy(path("begun"), path(out), std::filesystem::copy_options::recursive);
        break_off(
            out, 1, [&] { return kill_at_name(out, n); },
            [&](const Result &r) { EXPECT_EQ(r.status, 128 + SIGKILL) << n << r.err; });
    }
}

TEST_F(Signals, InterruptedAtAnyMoment) {
    const double whole = seconds_of(busy("whole"));
    const int numbers[] = {SIGINT, SIGTERM, SIGHUP};
    int i = 0;
    for (int round = 0; round < (kSlow ? 1 : 2); round++) {
        int number = SIGINT;
        break_off(
            "run" + std::to_string(round), 6,
            [&] {
                number = numbers[i++ % 3];
                return signals_after(uniform(round ? whole / 3 : whole), {number});
            },
            [&](const Result &r) { expect_interrupted(r, number); });
    }
}

// `tweedie train | head`: whoever reads goes, and the run stops in order.
TEST_F(Signals, StoppedWhenNobodyReads) {
    works(busy("whole"));
    break_off(
        "run", 3,
        [&] {
            RunOptions options;
            int ends[2] = {-1, -1};
            EXPECT_EQ(pipe2(ends, O_CLOEXEC), 0);
            options.terminal = ends[1];
            const size_t lines = size_t(uniform(10));
            options.started = [=](pid_t) {
                close(ends[1]);
                char byte;
                for (size_t n = 0; n < lines && ::read(ends[0], &byte, 1) == 1;) n += byte == '\n';
                close(ends[0]);
            };
            return options;
        },
        [&](const Result &r) {
            if (r.status == 0) return; // all was written before the reader went
            EXPECT_EQ(r.status, 130);
            expect_one_line(r);
            EXPECT_NE(r.err.find("standard output is closed; stopped at step "), std::string::npos)
                << r.err;
        });
    // The very first line has no reader: still a step, and a state to go on from.
    int ends[2] = {-1, -1};
    ASSERT_EQ(pipe2(ends, O_CLOEXEC), 0);
    close(ends[0]);
    RunOptions options;
    options.terminal = ends[1];
    const Result r = run(busy("unread"), options);
    close(ends[1]);
    EXPECT_EQ(r.status, 130) << r.err;
    EXPECT_NE(r.err.find("stopped at step 1,"), std::string::npos) << r.err;
    EXPECT_FALSE(state("unread").empty());
}

// An estimate has nothing to save: it does not finish the step, of which this one takes minutes.
TEST_F(Signals, AnEstimateEndsAtOnce) {
    RunOptions options;
    const auto sent = std::make_shared<bool>(false);
    options.watch = [=](pid_t pid, const std::string &out) {
        if (*sent || out.find("nothing is written") == std::string::npos) return;
        *sent = true;
        kill(pid, SIGINT);
    };
    const Result r =
        run({"train", "--preset", "shapes", "--batch-size", "4096", "--dry-run"}, options);
    EXPECT_EQ(r.status, 130) << r.err;
    EXPECT_EQ(r.err, "tweedie: interrupted\n");
    EXPECT_EQ(r.out.find("the median of"), std::string::npos) << r.out;
}

// The second one does not wait, and spoils nothing.
TEST_F(Signals, InterruptedTwice) {
    const double whole = seconds_of(busy("whole"));
    for (int round = 0; round < (kSlow ? 1 : 2); round++) {
        break_off(
            "run" + std::to_string(round), 5,
            [&] {
                return signals_after(uniform(whole / 2), {SIGINT, SIGINT},
                                     round ? uniform(0.01) : 0.0);
            },
            [&](const Result &r) { expect_interrupted(r, SIGINT); });
    }
}

// Reading data takes long; there is nothing to save yet.
TEST_F(Signals, WhileDataIsRead) {
    std::vector<float> points(3000000);
    for (size_t i = 0; i < points.size(); i++) points[i] = float(i % 7) - 3.0f;
    save("large.npy", {{1500000, 2}, points});
    const auto args = with({"--data", "large.npy", "--out", "a", "--steps", "1"});
    const double whole = seconds_of(args);
    std::filesystem::remove_all(path("a"));
    for (int i = 0; i < (kSlow ? 3 : 8); i++) {
        const Result r = run(args, signals_after(uniform(whole), {SIGINT}));
        join();
        expect_interrupted(r, SIGINT);
        if (!exists("a/run.json")) {
            EXPECT_EQ(files("a").size(), 0u);
        }
        std::filesystem::remove_all(path("a"));
    }
}

TEST_F(Signals, SamplingLeavesWholeFilesOrNone) {
    make_model("images", kImages, kSchedule);
    for (const std::string out : {"a.npy", "a.png", "folder"}) {
        std::vector<std::string> args = {"sample",  "--model", "images",    "--n", "40",
                                         "--steps", "2",       "--seed",    "3",   "--threads",
                                         "1",       "--out",   "new/" + out};
        ASSERT_EQ(mkdir(path("new").c_str(), 0777), 0);
        const double whole = seconds_of(args);
        const auto right = files("new");
        // Into an empty place, and over something.
        for (int i = 0; i < (kSlow ? 4 : 10); i++) {
            const bool over = i % 2;
            std::filesystem::remove_all(path("new"));
            ASSERT_EQ(mkdir(path("new").c_str(), 0777), 0);
            if (over && out == "folder") {
                ASSERT_EQ(mkdir(path("new/folder").c_str(), 0777), 0);
            }
            const std::string old = out == "folder" ? "new/folder/00003.png" : "new/" + out;
            if (over) write(old, "old");
            const int number = i % 4 < 2 ? SIGINT : SIGTERM;
            const Result r = run(args, signals_after(uniform(1.1 * whole), {number}));
            join();
            expect_interrupted(r, number);
            const auto now = files("new");
            if (now == right) continue;
            EXPECT_NE(r.status, 0);
            EXPECT_EQ(now.size(), over ? 1u : 0u) << now.begin()->first;
            if (over) {
                EXPECT_EQ(read(old), "old");
            }
        }
        std::filesystem::remove_all(path("new"));
    }
}

// The commands that draw: one file, whole or as it was.
TEST_F(Signals, DrawingLeavesWholeFilesOrNone) {
    works(busy("run", 20));
    const std::vector<std::vector<std::string>> commands = {
        {"schedule", "--training-steps", "20", "--out", "new/a.png"},
        {"plot", "--run", "run", "--out", "new/a.png"},
        {"diffuse", "--data", "scurve", "--out", "new/a.gif"}};
    for (const std::vector<std::string> &args : commands) {
        SCOPED_TRACE(args[0]);
        std::filesystem::remove_all(path("new"));
        ASSERT_EQ(mkdir(path("new").c_str(), 0777), 0);
        const double whole = seconds_of(args);
        const auto right = files("new");
        for (int i = 0; i < (kSlow ? 2 : 5); i++) {
            write("new/" + args.back().substr(4), "old");
            const int number = i % 2 ? SIGTERM : SIGINT;
            const Result r = run(args, signals_after(uniform(whole), {number}));
            join();
            expect_interrupted(r, number);
            EXPECT_EQ(files("new").size(), 1u);
            const std::string now = read(args.back());
            EXPECT_TRUE(now == "old" || now == right.begin()->second) << now.size();
            EXPECT_EQ(now == "old", r.status != 0);
        }
    }
}

// A shell starts a background program with SIGINT ignored, which Ctrl-C then does not mean.
TEST_F(Signals, AnIgnoredSignalStaysIgnored) {
    signal(SIGINT, SIG_IGN);
    const Result r = run(busy("a"), signals_after(0.05, {SIGINT, SIGINT, SIGINT}, 0.02));
    join();
    signal(SIGINT, SIG_DFL);
    EXPECT_EQ(r.status, 0);
    EXPECT_EQ(r.err, "");
}

} // namespace
