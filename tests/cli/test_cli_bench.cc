// What a benchmark's file holds, and that it survives Ctrl-C, failures and being measured again.
#include <memory>

#include "cli/uses/bench.h"

namespace {

class Bench : public EveryOption {
  protected:
    void SetUp() override {
        EveryOption::SetUp();
        make_models();
    }
    // The seconds of all classes.
    static double classes(const BenchLines &b, size_t line) {
        double sum = 0;
        const char *name;
        json_t *cost;
        json_object_foreach(const_cast<json_t *>(b.at(line, "split/classes")), name, cost) {
            EXPECT_GE(json_number_value(json_object_get(cost, "seconds")), 0) << name;
            sum += json_number_value(json_object_get(cost, "seconds"));
        }
        return sum;
    }
    static double sum(const BenchLines &b, size_t line, const std::string &at, const char *key) {
        double sum = 0;
        const char *name;
        json_t *j;
        json_object_foreach(const_cast<json_t *>(b.at(line, at)), name, j) sum +=
            json_number_value(key ? json_object_get(j, key) : j);
        return sum;
    }
};

TEST_F(Bench, TheHeaderSaysWhereAndHow) {
    const BenchLines b(*this, {"train", "--model", "points", "--threads", "1"});
    EXPECT_EQ(b.number(0, "bench"), 1);
    EXPECT_EQ(b.text(0, "mode"), "\"train\"");
    EXPECT_EQ(b.text(0, "tweedie"), std::string("\"") + tw_version() + "\"");
    EXPECT_EQ(b.text(0, "device"), "\"CPU, 1 thread\"");
    EXPECT_EQ(b.text(0, "command").rfind("[\"tweedie\",\"bench\",\"train\",\"--model\"", 0), 0u);
    EXPECT_GE(json_array_size(b.at(0, "providers")), 1u);
    EXPECT_EQ(b.text(0, "time").size(), 22u);
    EXPECT_GT(b.number(0, "host/memory"), 0);
    for (const char *key : {"commit", "compiler", "build", "precision", "included", "folder"})
        EXPECT_TRUE(json_is_string(b.at(0, key))) << key;
    EXPECT_EQ(b.text(0, "complete"), "true");
    EXPECT_EQ(b.number(0, "rows"), 1);
    EXPECT_GE(b.number(0, "model_seconds"), 0);
    EXPECT_TRUE(json_is_null(b.at(0, "peak_tflops")));
}

// Both kinds of rows have the same keys, and figures that agree with each other.
TEST_F(Bench, ARowHoldsEveryField) {
    for (const std::string mode : {"train", "sample"}) {
        SCOPED_TRACE(mode);
        const BenchLines b(*this,
                           {mode, "--model", "images", "--batch-size", "4", "--repeats", "5"});
        EXPECT_EQ(b.number(1, "row"), 1);
        EXPECT_EQ(b.text(1, "mode"), "\"" + mode + "\"");
        EXPECT_EQ(b.text(1, "complete") + b.text(1, "finite"), "truetrue");
        EXPECT_EQ(b.number(1, "n"), 5);
        const double median = b.number(1, "seconds/median");
        double last = 0;
        for (const char *key : {"least", "p10", "median", "p90", "p99", "most"}) {
            EXPECT_GE(b.number(1, std::string("seconds/") + key), last) << key;
            last = b.number(1, std::string("seconds/") + key);
        }
        EXPECT_GE(b.number(1, "seconds/total"), last);
        EXPECT_NEAR(b.number(1, "images_per_s") * median, 4, 1e-5);
        EXPECT_NEAR(b.number(1, "images_per_s_sustained") * b.number(1, "seconds/total"), 20, 1e-5);
        EXPECT_NEAR(b.number(1, "flops_per_s") * median / b.number(1, "flops"), 1, 1e-5);
        EXPECT_TRUE(json_is_null(b.at(1, "steps")) == (mode == "train"));
        EXPECT_TRUE(json_is_null(b.at(1, "evaluations_per_s")) == (mode == "train"));
        for (const char *key : {"processor_seconds", "create_seconds", "first_seconds"})
            EXPECT_GT(b.number(1, key), 0) << key;
        for (const char *key : {"utilisation", "joules_per_image", "device_busy", "graph_speedup"})
            EXPECT_TRUE(json_is_null(b.at(1, key))) << key;
        EXPECT_GT(b.number(1, "memory/arena"), 0);
        EXPECT_GT(b.number(1, "memory/process"), b.number(1, "memory/planned"));
        EXPECT_EQ(sum(b, 1, "memory", nullptr),
                  2 * b.number(1, "memory/planned") + b.number(1, "memory/process"));
    }
}

TEST_F(Bench, TheClassesAreTheWhole) {
    for (const EveryOption::Words &words : {Words{"train", "--batch-size", "2"},
                                            Words{"sample", "--batch-size", "2", "--steps", "3"}}) {
        SCOPED_TRACE(words[0]);
        const BenchLines b(*this, joined(words, {"--model", "images"}));
        const double whole = b.number(1, "split/seconds");
        EXPECT_NEAR(classes(b, 1) + b.number(1, "split/outside"), whole, 1e-6 * whole);
        EXPECT_GE(b.number(1, "split/outside"), 0);
        EXPECT_GT(b.number(1, "split/wall_seconds"), 0);
        EXPECT_TRUE(json_is_string(b.at(1, "split/clock")));
        EXPECT_NEAR(sum(b, 1, "split/classes", "flops"), b.number(1, "flops"), 1);
        EXPECT_EQ(sum(b, 1, "split/classes", "launches"), sum(b, 1, "launches", nullptr));
        for (const char *c : {"convolution", "linear", "attention"})
            EXPECT_GT(b.number(1, std::string("split/classes/") + c + "/flops"), 0) << c;
        for (const char *c : {"norm", "elementwise", "loss and noise"})
            EXPECT_GT(b.number(1, std::string("split/classes/") + c + "/launches"), 0) << c;
        const bool training = words[0] == "train";
        EXPECT_EQ(b.number(1, "split/classes/optimizer/launches") > 0, training);
        EXPECT_EQ(b.number(1, "split/classes/sampler/launches") > 0, !training);
    }
}

// A row measured again has the same configuration, from wherever it is asked for.
TEST_F(Bench, ReplayIsTheSameRow) {
    const Words odd = {"sample",
                       "--preset",
                       "scurve",
                       "--set",
                       "model.hidden=16",
                       "--set",
                       "scheduler.beta_end=0.03",
                       "--batch-size",
                       "1,3",
                       "--steps",
                       "2,4",
                       "--eta",
                       "0.25",
                       "--repeats",
                       "2",
                       "--warmup",
                       "1",
                       "--peak-tflops",
                       "0.125"};
    std::string arguments;
    {
        const BenchLines b(*this, odd);
        ASSERT_EQ(b.rows(), 4u);
        arguments = b.text(3, "arguments");
    }
    ASSERT_EQ(rename(path("bench.jsonl").c_str(), path("first.jsonl").c_str()), 0);
    works({"bench", "--replay", "first.jsonl:3", "--json", "bench.jsonl"});
    EXPECT_NE(read("bench.jsonl").find("\"complete\": true"), std::string::npos);
    const BenchLines c(*this, {"--replay", "bench.jsonl:1", "--repeats", "2", "--warmup", "1"});
    EXPECT_EQ(c.text(1, "arguments"), arguments);
    EXPECT_EQ(c.text(0, "model/set"), "[\"model.hidden=16\",\"scheduler.beta_end=0.03\"]");
    // What is given stands over the row's.
    const BenchLines d(*this, {"--replay", "first.jsonl:3", "--steps", "5"});
    EXPECT_EQ(d.number(1, "steps"), 5);
    EXPECT_EQ(d.number(1, "batch"), 3);
    fails(2, {"bench", "train", "--replay", "first.jsonl:3"}, {"of `bench sample`"});
    // A folder named without its path is found from elsewhere.
    const BenchLines e(*this, {"train", "--model", "points"});
    EXPECT_NE(e.text(1, "arguments").find("\"" + folder + "/points\""), std::string::npos)
        << e.text(1, "arguments");
}

TEST_F(Bench, BrokenFilesAreRefusedInOneLine) {
    const std::string header = "{\"bench\": 1}\n";
    const std::pair<std::string, std::string> broken[] = {
        {"", "is empty"},
        {"text\n", "line 1 is no object of JSON"},
        {header + "[1]\n", "line 2 is no object of JSON"},
        {"{\"row\": 1}\n", "`tweedie bench --json`"},
        {header, "has no row 1"},
        {header + "{\"row\": 1}\n", "those of a row"},
        {header + "{\"row\": 1, \"arguments\": [1]}\n", "expected texts"},
        {header + "{\"row\": 1, \"arguments\": [\"train\", \"--speed\", \"2\"]}\n", "--speed"},
        {header + "{\"row\": 1, \"arguments\": [\"train\", \"--help\"]}\n", "those of a row"},
        {header + "{\"row\": 1, \"arguments\": [\"train\", \"--json\", \"b\"]}\n",
         "those of a row"},
    };
    for (const auto &b : broken) {
        write("broken.jsonl", b.first);
        fails(1, {"bench", "--replay", "broken.jsonl:1"}, {b.second});
    }
}

// Ctrl-C as soon as stdout has these words.
RunOptions interrupted_at(const std::string &words) {
    RunOptions options;
    const auto sent = std::make_shared<bool>(false);
    options.watch = [=](pid_t pid, const std::string &out) {
        if (*sent || out.find(words) == std::string::npos) return;
        *sent = true;
        kill(pid, SIGINT);
    };
    return options;
}

TEST_F(Bench, CtrlCKeepsWhatWasMeasured) {
    const Result r = run({"bench", "train", "--model", "points", "--batch-size", "1,2,3",
                          "--threads", "1", "--seconds", "0.5", "--json", "a.jsonl"},
                         interrupted_at("launches a step"));
    EXPECT_EQ(r.status, 130) << r.err;
    EXPECT_EQ(r.err, "");
    EXPECT_NE(r.out.find(" of 3 rows measured"), std::string::npos) << r.out;
    std::vector<json_t *> lines;
    std::stringstream text(read("a.jsonl"));
    for (std::string line; std::getline(text, line);)
        lines.push_back(json_loads(line.c_str(), 0, nullptr));
    ASSERT_GE(lines.size(), 2u);
    ASSERT_LE(lines.size(), 3u);
    EXPECT_TRUE(json_is_false(json_object_get(lines[0], "complete")));
    EXPECT_TRUE(json_is_true(json_object_get(lines[1], "complete")));
    if (lines.size() == 3) { // the row that was broken off has what was timed, and no split
        EXPECT_TRUE(json_is_false(json_object_get(lines[2], "complete")));
        EXPECT_GE(json_integer_value(json_object_get(lines[2], "n")), 1);
        EXPECT_TRUE(json_is_null(json_object_get(lines[2], "split")));
        EXPECT_NE(r.out.find("broken off"), std::string::npos) << r.out;
    }
    for (json_t *j : lines) json_decref(j);
}

TEST_F(Bench, CtrlCWithNothingMeasuredWritesNothing) {
    write("a.jsonl", "old");
    const Result r = run({"bench", "sample", "--model", "images", "--batch-size", "16", "--steps",
                          "100", "--warmup", "1000000", "--json", "a.jsonl"},
                         interrupted_at("of peak"));
    EXPECT_EQ(r.status, 130) << r.err;
    EXPECT_NE(r.out.find("0 of 1 rows"), std::string::npos) << r.out;
    EXPECT_EQ(read("a.jsonl"), "old");
}

TEST_F(Bench, TheFileIsWholeOrAsItWas) {
    write("a.jsonl", "old");
    RunOptions options;
    options.file_limit = 100;
    fails(1, {"bench", "train", "--model", "points", "--repeats", "1", "--json", "a.jsonl"},
          {"a.jsonl"}, options);
    EXPECT_EQ(read("a.jsonl"), "old");
}

TEST_F(Bench, NeedsToKnowWhat) {
    fails(2, {"bench"}, {"expected train or sample"});
    fails(2, {"bench", "load"}, {"expected train or sample"});
}

} // namespace
