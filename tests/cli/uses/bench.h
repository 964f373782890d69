#include "cli/uses/uses.h"

// The lines that `tweedie bench` with these words leaves in a file: the header, then the rows.
class BenchLines {
  public:
    BenchLines(EveryOption &t, const EveryOption::Words &words) {
        EveryOption::Words all = {"bench"};
        all.insert(all.end(), words.begin(), words.end());
        for (const auto &rest : {EveryOption::Words{"--threads", "1"},
                                 {"--repeats", "1"},
                                 {"--warmup", "0"},
                                 {"--json", "bench.jsonl"}})
            if (std::find(words.begin(), words.end(), rest[0]) == words.end())
                all = EveryOption::joined(all, rest);
        out = t.works(all).out;
        std::stringstream text(t.read("bench.jsonl"));
        for (std::string line; std::getline(text, line);)
            lines.push_back(json_loads(line.c_str(), 0, nullptr));
        EXPECT_GE(lines.size(), 2u) << out;
    }
    ~BenchLines() {
        for (json_t *j : lines) json_decref(j);
    }
    BenchLines(const BenchLines &) = delete;
    BenchLines &operator=(const BenchLines &) = delete;

    size_t rows() const { return lines.size() - 1; }
    // A value by its path, such as "seconds/median"; line 0 is the header.
    const json_t *at(size_t line, const std::string &path) const {
        const json_t *j = line < lines.size() ? lines[line] : nullptr;
        std::stringstream parts(path);
        for (std::string key; std::getline(parts, key, '/');) j = json_object_get(j, key.c_str());
        EXPECT_NE(j, nullptr) << path;
        return j;
    }
    double number(size_t line, const std::string &path) const {
        EXPECT_TRUE(json_is_number(at(line, path))) << path;
        return json_number_value(at(line, path));
    }
    std::string text(size_t line, const std::string &path) const {
        char *text = json_dumps(at(line, path), JSON_ENCODE_ANY | JSON_COMPACT);
        const std::string result = text ? text : "";
        free(text);
        return result;
    }

    std::string out;

  private:
    std::vector<json_t *> lines;
};

static const std::vector<Use> bench_uses = {
    {"bench",
     {"model", "batch-size", "json"},
     [](EveryOption &t) {
         t.make_models();
         const BenchLines b(t, {"train", "--model", "images", "--batch-size", "3,2"});
         ASSERT_EQ(b.rows(), 2u);
         EXPECT_EQ(b.text(0, "model/path"), "\"images\"");
         EXPECT_EQ(b.text(0, "model/shape"), "[8,8,1]");
         EXPECT_EQ(b.number(1, "batch"), 3);
         EXPECT_EQ(b.number(2, "batch"), 2);
         EXPECT_NEAR(b.number(1, "flops"), 1.5 * b.number(2, "flops"), 1);
     }},
    {"bench",
     {"preset", "set"},
     [](EveryOption &t) {
         const BenchLines b(
             t, {"sample", "--preset", "scurve", "--set", "model.hidden=16", "--batch-size", "2"});
         EXPECT_EQ(b.text(0, "model/preset"), "\"scurve\"");
         EXPECT_EQ(b.text(0, "model/set"), "[\"model.hidden=16\"]");
         EXPECT_LT(b.number(0, "model/parameters"), 10000);
     }},
    {"bench",
     {"data"},
     [](EveryOption &t) {
         t.make_models();
         for (const std::string data : {"random", "scurve"}) {
             const BenchLines b(t, {"train", "--model", "points", "--data", data});
             EXPECT_NE(b.out.find("data " + data), std::string::npos);
         }
         t.fails(1, {"bench", "train", "--model", "images", "--data", "scurve"}, {"scurve"});
     }},
    {"bench",
     {"steps", "sampler", "eta", "guidance"},
     [](EveryOption &t) {
         t.make_models();
         const BenchLines b(t, {"sample", "--model", "classes", "--batch-size", "2", "--steps",
                                "1,3", "--eta", "0.5"});
         ASSERT_EQ(b.rows(), 2u);
         EXPECT_EQ(b.number(1, "steps"), 1);
         EXPECT_EQ(b.number(2, "steps"), 3);
         EXPECT_NEAR(b.number(2, "flops"), 3 * b.number(1, "flops"), 1);
         const BenchLines guided(t, {"sample", "--model", "classes", "--batch-size", "2", "--steps",
                                     "1", "--sampler", "ddpm", "--guidance", "2"});
         EXPECT_NEAR(guided.number(1, "flops"), 2 * b.number(1, "flops"), 1);
         EXPECT_NEAR(guided.number(1, "evaluations_per_s"), 2 * guided.number(1, "images_per_s"),
                     1e-3);
         EXPECT_NE(guided.out.find("ddpm, guidance 2"), std::string::npos);
     }},
    {"bench",
     {"repeats", "seconds", "warmup"},
     [](EveryOption &t) {
         t.make_models();
         const BenchLines few(t, {"train", "--model", "points", "--repeats", "4", "--warmup", "7"});
         EXPECT_EQ(few.number(1, "n"), 4);
         const BenchLines more(t, {"train", "--model", "points", "--seconds", "0.05"});
         EXPECT_GT(more.number(1, "n"), 1);
         EXPECT_GE(more.number(1, "seconds/total"), 0.05);
     }},
    {"bench",
     {"peak-tflops"},
     [](EveryOption &t) {
         t.make_models();
         const BenchLines b(t, {"train", "--model", "images", "--peak-tflops", "0.5"});
         EXPECT_EQ(b.number(0, "peak_tflops"), 0.5);
         EXPECT_NEAR(b.number(1, "utilisation"), b.number(1, "flops_per_s") / 0.5e12, 1e-7);
     }},
    {"bench",
     {"operations"},
     [](EveryOption &t) {
         t.make_models();
         const BenchLines b(t, {"train", "--model", "images", "--operations", "2"});
         EXPECT_NE(b.out.find("GFLOP/s  operation\n"), std::string::npos) << b.out;
         EXPECT_NE(b.out.find("adamw"), std::string::npos) << b.out;
     }},
    {"bench",
     {"replay"},
     [](EveryOption &t) {
         t.make_models();
         const BenchLines b(t, {"train", "--model", "points", "--batch-size", "2,5"});
         const BenchLines again(t, {"--replay", "bench.jsonl:2"});
         EXPECT_EQ(again.rows(), 1u);
         EXPECT_EQ(again.number(1, "batch"), 5);
         EXPECT_NE(again.out.find("row 2 of bench.jsonl had"), std::string::npos) << again.out;
     }},
    {"bench",
     {"device", "provider", "no-fusion", "threads"},
     [](EveryOption &t) {
         t.make_models();
         const BenchLines b(t, {"sample", "--model", "points", "--device", "cpu", "--provider",
                                "auto", "--no-fusion", "all", "--threads", "2"});
         EXPECT_EQ(b.text(0, "device"), "\"CPU, 2 threads\"");
         EXPECT_EQ(b.number(0, "threads"), 2);
     }},
    {"bench",
     {"precision", "recompute"},
     [](EveryOption &t) {
         t.make_models();
         const EveryOption::Words train = {"train", "--model", "images"},
                                  sample = {"sample", "--model", "images"};
         for (const auto &words : {train, sample}) {
             const BenchLines b(t, EveryOption::joined(words, {"--precision", "bf16"}));
             EXPECT_EQ(b.text(0, "precision"), "\"bf16\"");
             EXPECT_GT(b.number(1, "memory/rounded"), 0);
         }
         const auto arena = [&](const char *what) {
             const BenchLines b(t, EveryOption::joined(train, {"--recompute", what}));
             return b.number(1, "memory/arena");
         };
         EXPECT_LT(arena("blocks"), arena("none"));
     }},
};

static const std::vector<Misuse> bench_misuses = {
    {"bench", "preset", {"--preset", "digits"}, 2, "scurve"},
    {"bench",
     "preset",
     {"train", "--preset", "mnist", "--model", "images"},
     2,
     "expected one of them"},
    {"bench", "model", {"train", "--model", "absent"}, 1, "absent"},
    {"bench", "set", {"train", "--model", "images", "--set", "model.hidden=1"}, 2, "a preset"},
    {"bench",
     "set",
     {"train", "--preset", "scurve", "--set", "model.hidden=many"},
     2,
     "expected a whole number"},
    {"bench",
     "set",
     {"train", "--preset", "scurve", "--set", "options.repeats=3"},
     2,
     "a field of model or scheduler"},
    {"bench",
     "batch-size",
     {"train", "--model", "points", "--batch-size", "16,,8"},
     2,
     "whole numbers from 1 to 65536"},
    {"bench", "data", {"sample", "--data", "scurve"}, 2, "belongs to `tweedie bench train`"},
    {"bench", "steps", {"train", "--steps", "5"}, 2, "belongs to `tweedie bench sample`"},
    {"bench",
     "steps",
     {"sample", "--model", "points", "--steps", "101"},
     2,
     "whole numbers from 1 to 100"},
    {"bench", "sampler", {"sample", "--sampler", "dpm"}, 2, "ddim or ddpm"},
    {"bench", "eta", {"sample", "--sampler", "ddpm", "--eta", "1"}, 2, "belongs to --sampler ddim"},
    {"bench",
     "guidance",
     {"sample", "--model", "points", "--guidance", "2"},
     2,
     "no classes that could guide"},
    {"bench", "repeats", {"train", "--repeats", "0"}, 2, "a whole number from 1 to 1000000"},
    {"bench", "seconds", {"train", "--seconds", "-1"}, 2, "a number from 0"},
    {"bench", "warmup", {"train", "--warmup", "-1"}, 2, "a whole number from 0"},
    {"bench", "peak-tflops", {"train", "--peak-tflops", "0"}, 2, "a number from 1e-06"},
    {"bench", "operations", {"train", "--operations", "all"}, 2, "a whole number from 0"},
    {"bench", "json", {"train", "--json", "absent/a.jsonl"}, 1, "no folder absent"},
    {"bench", "replay", {"--replay", "points.json"}, 2, "expected FILE:ROW"},
    {"bench", "replay", {"--replay", "absent:1"}, 1, "absent"},
    {"bench", "device", {"train", "--device", "gpu"}, 2, "auto, cpu or cuda"},
    {"bench", "no-fusion", {"train", "--no-fusion", "all,none"}, 2, "norm-statistics"},
    {"bench", "provider", {"train", "--provider", "onednn"}, 2, "auto, own or cudnn"},
    {"bench",
     "provider",
     {"train", "--model", "points", "--device", "cpu", "--provider", "own"},
     2,
     "expected auto with --device cpu"},
    {"bench",
     "precision",
     {"train", "--precision", "fp16"},
     2,
     "belongs to `tweedie bench sample`"},
    {"bench",
     "recompute",
     {"sample", "--recompute", "norms"},
     2,
     "belongs to `tweedie bench train`"},
    {"bench", "threads", {"train", "--threads", "two"}, 2, "a whole number from 0 to 1024"},
};
