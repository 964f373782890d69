// Small training runs, broken off and compared.
#ifndef TESTS_CLI_TRAIN_RUNS_H
#define TESTS_CLI_TRAIN_RUNS_H

#include "cli/command.h"

#include <jansson.h>

#include <cmath>

class Train : public CommandTest {
  protected:
    void SetUp() override {
        CommandTest::SetUp();
        write("small.json", std::string("{\"model\": ") + kPoints +
                                ", \"scheduler\": " + kSchedule +
                                ", \"options\": {\"data\": \"scurve\", \"batch-size\": 8, " +
                                "\"lr\": 2e-3, \"lr-warmup\": 5, \"steps\": 20, \"threads\": 1}}");
    }
    static std::vector<std::string> with(const std::vector<std::string> &more) {
        std::vector<std::string> args = {"train", "--config", "small.json"};
        args.insert(args.end(), more.begin(), more.end());
        return args;
    }
    static std::vector<std::string> lines_of(const std::string &text) {
        std::vector<std::string> lines;
        std::stringstream stream(text);
        for (std::string line; std::getline(stream, line);) lines.push_back(line);
        return lines;
    }
    // The lines of metrics.jsonl without what the clock says.
    std::vector<std::string> metrics(const std::string &run) {
        std::vector<std::string> lines = lines_of(read(run + "/metrics.jsonl"));
        for (std::string &line : lines) {
            json_t *j = json_loads(line.c_str(), 0, nullptr);
            EXPECT_TRUE(json_is_object(j)) << line;
            json_object_del(j, "time");
            json_object_del(j, "samples_per_s");
            char *text = json_dumps(j, JSON_REAL_PRECISION(17) | JSON_SORT_KEYS);
            line = text ? text : "";
            free(text);
            json_decref(j);
        }
        return lines;
    }
    std::string weights(const std::string &run) {
        return read(run + "/unet/diffusion_pytorch_model.safetensors");
    }
    std::string state(const std::string &run) { return read(run + "/state/trainer.safetensors"); }

    // Sends `number` when stdout has more than `lines` lines.
    static RunOptions signal_after(size_t lines, int number) {
        RunOptions options;
        bool sent = false;
        options.watch = [=](pid_t pid, const std::string &out) mutable {
            size_t n = 0;
            for (char c : out) n += c == '\n';
            if (sent || n <= lines) return;
            kill(pid, number);
            sent = true;
        };
        return options;
    }
    std::vector<std::string> long_run(const std::string &out) {
        return with({"--out", out, "--steps", "6000", "--save-every", "1000", "--holdout", "0.1",
                     "--validate-every", "2000", "--log-json"});
    }
    void expect_same_run(const std::string &a, const std::string &b) {
        const std::vector<std::string> x = metrics(a), y = metrics(b);
        ASSERT_EQ(x.size(), y.size());
        for (size_t i = 0; i < x.size(); i++) ASSERT_EQ(x[i], y[i]) << "line " << i;
        EXPECT_EQ(weights(a), weights(b));
        EXPECT_EQ(state(a), state(b));
        EXPECT_FALSE(weights(a).empty());
    }
};

#endif
