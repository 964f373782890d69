#include "cli/train_runs.h"

#include <algorithm>
#include <map>

class Checkpoints : public Train {
  protected:
    static std::vector<std::string> saving(const std::string &out, const std::string &steps,
                                           const std::vector<std::string> &more = {}) {
        std::vector<std::string> args =
            with({"--out", out, "--steps", steps, "--save-every", "5", "--tensorboard", "off",
                  "--holdout", "0.1", "--validate-every", "5", "--lr", "2e-2"});
        args.insert(args.end(), more.begin(), more.end());
        return args;
    }
    std::vector<std::string> sorted(const std::string &name) const {
        std::vector<std::string> names = list(name);
        std::sort(names.begin(), names.end());
        return names;
    }
    std::string field(const std::string &file, const char *key) {
        json_t *j = json_loads(read(file).c_str(), 0, nullptr);
        char *text = json_dumps(json_object_get(j, key), JSON_ENCODE_ANY);
        const std::string value = text ? text : "";
        free(text);
        json_decref(j);
        return value;
    }
    // Every file below a folder with its bytes, without the ids of the runs.
    std::map<std::string, std::string> tree(const std::string &name) {
        std::map<std::string, std::string> files;
        for (const std::string &entry : list(name)) {
            const std::string below = name + "/" + entry;
            struct stat st;
            EXPECT_EQ(lstat(path(below).c_str(), &st), 0);
            if (S_ISDIR(st.st_mode))
                for (const auto &f : tree(below)) files[entry + "/" + f.first] = f.second;
            else if (entry == "checkpoint.json")
                files[entry] = field(below, "step") + " " + field(below, "validation_loss");
            else
                files[entry] = read(below);
        }
        return files;
    }
    void expect_same_tree(const std::string &a, const std::string &b) {
        const auto x = tree(a), y = tree(b);
        EXPECT_FALSE(x.empty()) << a;
        for (const auto &f : x) EXPECT_TRUE(y.count(f.first)) << b << " lacks " << f.first;
        for (const auto &f : y) {
            ASSERT_TRUE(x.count(f.first)) << a << " lacks " << f.first;
            EXPECT_TRUE(x.at(f.first) == f.second) << f.first << " differs";
        }
    }
};

TEST_F(Checkpoints, TheLastStay) {
    works(saving("a", "22", {"--keep-last", "2"}));
    EXPECT_EQ(sorted("a/checkpoints"), (std::vector<std::string>{"step-000020", "step-000022"}));
    EXPECT_EQ(read("a/checkpoints/step-000022/unet/diffusion_pytorch_model.safetensors"),
              weights("a"));
    EXPECT_EQ(read("a/checkpoints/step-000022/state/trainer.safetensors"), state("a"));
    works(saving("b", "20"));
    EXPECT_EQ(read("a/checkpoints/step-000020/unet/diffusion_pytorch_model.safetensors"),
              weights("b"));
    EXPECT_FALSE(exists("b/checkpoints"));
    works({"sample", "--model", "a/checkpoints/step-000020", "--out", "a.npy", "--n", "5",
           "--steps", "5"});
    works({"sample", "--model", "b", "--out", "b.npy", "--n", "5", "--steps", "5"});
    EXPECT_EQ(load("a.npy").values, load("b.npy").values);
    works({"train", "--out", "a", "--resume", "--steps", "30"});
    EXPECT_EQ(sorted("a/checkpoints"), (std::vector<std::string>{"step-000025", "step-000030"}));
    // Back to an earlier one: its state in the place of the run's.
    EXPECT_EQ(
        system(("cp -r " + path("a/checkpoints/step-000025/state") + " " + path("a")).c_str()), 0);
    const std::string later = state("a"),
                      before = read("a/checkpoints/step-000030/checkpoint.json");
    works({"train", "--out", "a", "--resume"});
    EXPECT_NE(state("a"), later);
    EXPECT_EQ(sorted("a/checkpoints"), (std::vector<std::string>{"step-000025", "step-000030"}));
    EXPECT_EQ(read("a/checkpoints/step-000030/checkpoint.json"), before);
}

TEST_F(Checkpoints, TheBestStays) {
    works(saving("a", "60", {"--keep-best"}));
    double best = INFINITY;
    int64_t step = 0;
    for (const std::string &line : lines_of(read("a/metrics.jsonl"))) {
        json_t *j = json_loads(line.c_str(), 0, nullptr);
        const json_t *loss = json_object_get(j, "validation_loss_average");
        if (loss && json_number_value(loss) < best) {
            best = json_number_value(loss);
            step = json_integer_value(json_object_get(j, "step"));
        }
        json_decref(j);
    }
    EXPECT_EQ(field("a/best/checkpoint.json", "step"), std::to_string(step));
    EXPECT_EQ(std::stod(field("a/best/checkpoint.json", "validation_loss")), best);
    EXPECT_FALSE(exists("a/best/state"));
    works(saving("b", std::to_string(step)));
    EXPECT_EQ(read("a/best/unet/diffusion_pytorch_model.safetensors"), weights("b"));
    works({"sample", "--model", "a/best", "--out", "a.npy", "--n", "5", "--steps", "5"});
    // It stays the best when the run goes on, until something is better.
    write("a/best/checkpoint.json",
          "{\"run\": " + field("a/run.json", "id") + ", \"step\": 5, \"validation_loss\": 0}");
    const std::string model = read("a/best/unet/diffusion_pytorch_model.safetensors");
    works({"train", "--out", "a", "--resume", "--steps", "70"});
    EXPECT_EQ(read("a/best/unet/diffusion_pytorch_model.safetensors"), model);
    write("a/best/checkpoint.json",
          "{\"run\": " + field("a/run.json", "id") + ", \"step\": 5, \"validation_loss\": 9}");
    works({"train", "--out", "a", "--resume", "--steps", "80"});
    EXPECT_NE(read("a/best/unet/diffusion_pytorch_model.safetensors"), model);
    EXPECT_EQ(tree("a/best").size(), 5u);
    EXPECT_EQ(sorted("a"), (std::vector<std::string>{"best", "metrics.jsonl", "model_index.json",
                                                     "run.json", "scheduler", "state", "unet"}));
}

// Killed at any moment, most of them inside a write, and gone on with.
TEST_F(Checkpoints, AKilledRunHasTheSameInTheEnd) {
    const std::vector<std::string> keep = {"--keep-last", "3", "--keep-best", "--log-json"};
    works(saving("whole", "50", keep));
    for (size_t lines : {1, 13, 37}) {
        const std::string out = "killed" + std::to_string(lines);
        EXPECT_EQ(run(saving(out, "50", keep), signal_after(lines, SIGKILL)).status, 128 + SIGKILL);
        for (const std::string &name : list(out + "/checkpoints"))
            if (name[0] != '.') works({"info", "--model", out + "/checkpoints/" + name});
        if (exists(out + "/best")) works({"info", "--model", out + "/best"});
        works({"train", "--out", out, "--resume", "--log-json"});
        expect_same_run(out, "whole");
        expect_same_tree(out + "/checkpoints", "whole/checkpoints");
        expect_same_tree(out + "/best", "whole/best");
        EXPECT_EQ(sorted(out), sorted("whole"));
    }
}

TEST_F(Checkpoints, NothingElseIsRemoved) {
    works(saving("a", "10", {"--keep-last", "5"}));
    works(saving("b", "5", {"--keep-last", "5"}));
    const std::string base = path("a/checkpoints");
    // Somebody's notes, another run's checkpoint, other names, and a link.
    write("a/checkpoints/step-000005/notes.txt", "good");
    EXPECT_EQ(
        system(
            ("cp -r " + path("b/checkpoints/step-000005") + " " + base + "/step-000003").c_str()),
        0);
    EXPECT_EQ(system(("cp -r " + base + "/step-000010 " + base + "/step-7").c_str()), 0);
    EXPECT_EQ(system(("cp -r " + base + "/step-000010 " + path("elsewhere")).c_str()), 0);
    EXPECT_EQ(symlink(path("elsewhere").c_str(), (base + "/step-000002").c_str()), 0);
    EXPECT_EQ(mkdir((base + "/.new-thing").c_str(), 0777), 0);
    works({"train", "--out", "a", "--resume", "--steps", "20", "--keep-last", "1"});
    EXPECT_EQ(sorted("a/checkpoints"),
              (std::vector<std::string>{".new-thing", "step-000002", "step-000003", "step-000005",
                                        "step-000020", "step-7"}));
    EXPECT_EQ(read("a/checkpoints/step-000005/notes.txt"), "good");
    EXPECT_TRUE(exists("elsewhere/unet/config.json"));
    // A name that is taken ends the run; what it has is kept, and it goes on with room.
    EXPECT_EQ(mkdir((base + "/step-000025").c_str(), 0777), 0);
    write("a/checkpoints/step-000025/mine", "x");
    fails(1, {"train", "--out", "a", "--resume", "--steps", "30"},
          {"a/checkpoints/step-000025: it is there already", "will not replace it"});
    EXPECT_EQ(read("a/checkpoints/step-000025/mine"), "x");
    EXPECT_EQ(rename((base + "/step-000025").c_str(), (base + "/mine").c_str()), 0);
    works({"train", "--out", "a", "--resume", "--steps", "30"});
    works(saving("c", "30"));
    EXPECT_EQ(state("a"), state("c"));
    EXPECT_EQ(mkdir(path("c/best").c_str(), 0777), 0);
    fails(1, {"train", "--out", "c", "--resume", "--steps", "40", "--keep-best"},
          {"--keep-best: c/best is there already and not this run's"});
}

TEST_F(Checkpoints, LeftoversGoWhenTheRunGoesOn) {
    works(saving("a", "10", {"--keep-last", "2", "--keep-best"}));
    const std::vector<std::string> before = sorted("a");
    EXPECT_EQ(system(("cp -r " + path("a/best") + " " + path("a/.new-best")).c_str()), 0);
    EXPECT_EQ(system(("cp -r " + path("a/checkpoints/step-000005") + " " +
                      path("a/checkpoints/.old-step-000001"))
                         .c_str()),
              0);
    write("a/state/.tweedie-12-3.tmp", "half");
    write("a/checkpoints/.old-step-000001/unet/.tweedie-12-4.tmp", "half");
    works({"train", "--out", "a", "--resume", "--steps", "15"});
    EXPECT_EQ(sorted("a"), before);
    EXPECT_EQ(sorted("a/state"), std::vector<std::string>{"trainer.safetensors"});
    EXPECT_EQ(sorted("a/checkpoints"), (std::vector<std::string>{"step-000010", "step-000015"}));
}

// The writer works beside the training: what it cannot write ends the run soon, in one line.
TEST_F(Checkpoints, AWriterThatFailsEndsTheRun) {
    ASSERT_EQ(mkdir(path("a").c_str(), 0777), 0);
    write("a/checkpoints", "a file");
    fails(1, saving("a", "1000000", {"--keep-last", "1"}), {"a/checkpoints"});
    EXPECT_FALSE(exists("a/state/trainer.safetensors"));
    EXPECT_EQ(read("a/checkpoints"), "a file");
    ASSERT_EQ(unlink(path("a/checkpoints").c_str()), 0);
    const Result r = works({"train", "--out", "a", "--resume", "--steps", "20"});
    works(saving("b", "20"));
    EXPECT_EQ(state("a"), state("b"));
}

TEST_F(Checkpoints, TwoProcessesDoNotShareARun) {
    works(saving("a", "5"));
    RunOptions options;
    bool tried = false;
    options.watch = [&](pid_t pid, const std::string &out) {
        if (tried || lines_of(out).size() < 9) return;
        tried = true;
        fails(1, {"train", "--out", "a", "--resume", "--steps", "50"},
              {"--out: another process is training in a"});
        kill(pid, SIGINT);
    };
    EXPECT_EQ(run({"train", "--out", "a", "--resume", "--steps", "1000000"}, options).status, 130);
    EXPECT_TRUE(tried);
}
