// Rows that show every option at work and every option misused. A command's rows stand in
// uses/COMMAND.h; test_cli_every_option.cc runs them and demands both for each option.
#ifndef TESTS_CLI_USES_USES_H
#define TESTS_CLI_USES_USES_H

#include <jansson.h>

#include "cli/command.h"

// What the rows' checks work with: tiny models, a training run's description, and shorthands.
class EveryOption : public CommandTest {
  public:
    using Words = std::vector<std::string>;

    static Words joined(Words a, const Words &b) {
        a.insert(a.end(), b.begin(), b.end());
        return a;
    }
    // Writes the model folders "points", "images" and "classes".
    void make_models() {
        make_model("points", kPoints, kSchedule);
        make_model("images", kImages, kSchedule);
        make_model("classes", kClasses, kSchedule);
    }
    // Writes points.json and classes.json, of runs with 20 and 4 steps.
    void make_configs() {
        write("points.json",
              std::string("{\"model\": ") + kPoints + ", \"scheduler\": " + kSchedule +
                  ", \"options\": {\"data\": \"scurve\", \"batch-size\": 8, \"lr\": 2e-3, " +
                  "\"lr-warmup\": 5, \"steps\": 20, \"threads\": 1}}");
        Array images = {{12, 8, 8, 3}, std::vector<float>(12 * 192)};
        for (size_t i = 0; i < images.values.size(); i++)
            images.values[i] = float(std::sin(0.1 * double(i)));
        save("images.npy", images);
        make_labels("labels.npy", 3);
        write("classes.json",
              std::string("{\"model\": ") + kClasses + ", \"scheduler\": " + kSchedule +
                  ", \"options\": {\"data\": \"images.npy\", \"labels\": \"labels.npy\", " +
                  "\"batch-size\": 4, \"lr\": 1e-3, \"lr-warmup\": 0, \"steps\": 4, " +
                  "\"threads\": 1}}");
    }
    void make_labels(const std::string &name, int32_t classes) {
        const int64_t n = 12;
        int32_t labels[12];
        for (int i = 0; i < 12; i++) labels[i] = i % classes;
        ASSERT_EQ(tw_npy_write(ctx, path(name).c_str(), TW_I32, 1, &n, labels), TW_OK);
    }

    // The JSON that the command prints.
    json_t *json(const Words &args) {
        const Result r = works(args);
        json_t *document = json_loads(r.out.c_str(), 0, nullptr);
        EXPECT_NE(document, nullptr) << r.out;
        return document;
    }

    // Four samples (unless `more` says how many) in five steps, as numbers.
    Array sampled(const std::string &model, const Words &more) {
        Words args = {"sample", "--model", model, "--threads", "1", "--out", "sampled.npy"};
        const std::pair<const char *, const char *> rest[] = {{"--n", "4"}, {"--steps", "5"}};
        for (const auto &r : rest)
            if (std::find(more.begin(), more.end(), r.first) == more.end() &&
                std::find(more.begin(), more.end(), "--noise") == more.end())
                args = joined(args, {r.first, r.second});
        works(joined(args, more));
        return load("sampled.npy");
    }
    // The option must change the samples.
    void changes_samples(const std::string &model, const Words &base, const Words &more) {
        EXPECT_NE(sampled(model, joined(base, more)).values, sampled(model, base).values)
            << more[0];
    }

    // A run of `config` into a folder of its own; its name.
    std::string trained(const std::string &config, const Words &more = {}) {
        const std::string out = "run" + std::to_string(runs++);
        last = works(joined({"train", "--config", config, "--out", out}, more));
        return out;
    }
    // What run.json keeps of an option, as a text.
    std::string kept(const std::string &run, const std::string &option) {
        json_t *j = json_loads(read(run + "/run.json").c_str(), 0, nullptr);
        const json_t *value = json_object_get(json_object_get(j, "options"), option.c_str());
        char *text = json_dumps(value, JSON_ENCODE_ANY | JSON_REAL_PRECISION(9));
        std::string result = text ? text : "nothing";
        free(text);
        json_decref(j);
        return result;
    }
    // The numbers of a key in metrics.jsonl, line by line.
    std::vector<double> logged(const std::string &run, const char *key) {
        std::vector<double> values;
        std::stringstream lines(read(run + "/metrics.jsonl"));
        for (std::string line; std::getline(lines, line);) {
            json_t *j = json_loads(line.c_str(), 0, nullptr);
            EXPECT_NE(j, nullptr) << line;
            const json_t *value = json_object_get(j, key);
            if (value) values.push_back(json_number_value(value));
            json_decref(j);
        }
        return values;
    }
    std::string weights(const std::string &run) {
        return read(run + "/unet/diffusion_pytorch_model.safetensors");
    }
    // run.json must keep the option with this value, and the losses must differ from those of
    // a run without it.
    void changes_losses(const std::string &config, const Words &more, const std::string &option,
                        const std::string &value, const Words &base = {}) {
        const std::string with = trained(config, joined(base, more));
        EXPECT_EQ(kept(with, option), value);
        EXPECT_NE(logged(with, "loss"), logged(trained(config, base), "loss")) << option;
    }
    // As above, for what shows in the saved weights alone.
    void changes_weights(const std::string &config, const Words &more, const std::string &option,
                         const std::string &value, const Words &base = {}) {
        const std::string with = trained(config, joined(base, more));
        EXPECT_EQ(kept(with, option), value);
        EXPECT_NE(weights(with), weights(trained(config, base))) << option;
    }

    // The protected helpers, for checks that are no members.
    using CommandTest::Array;
    using CommandTest::ctx;
    using CommandTest::drawn;
    using CommandTest::exists;
    using CommandTest::fails;
    using CommandTest::list;
    using CommandTest::load;
    using CommandTest::make_model;
    using CommandTest::path;
    using CommandTest::picture;
    using CommandTest::read;
    using CommandTest::run;
    using CommandTest::save;
    using CommandTest::works;
    using CommandTest::write;
    Result last; // of trained()
    int runs = 0;
};

// Options of a command at work. The check runs the command with each of them and looks at what
// the option did, not only at the exit status.
struct Use {
    const char *command;
    std::vector<std::string> options;
    void (*check)(EveryOption &t);
};

// The command with these words must exit with `status` and one line that names the option, or the
// file given to it (status 1), and holds `right`, which says what would be right. The files of
// make_models() and make_configs() are there.
struct Misuse {
    const char *command, *option;
    std::vector<std::string> words;
    int status;
    std::string right;
};

#endif
