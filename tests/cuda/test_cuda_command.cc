// The command on an emulated GPU: what a user sees there and nowhere else.
#include "cli/train_runs.h"

namespace {

class CudaCommand : public Train {
  protected:
    json_t *line(const std::string &file, size_t index) {
        const std::vector<std::string> lines = lines_of(read(file));
        json_t *j = index < lines.size() ? json_loads(lines[index].c_str(), 0, nullptr) : nullptr;
        EXPECT_NE(j, nullptr) << file << " " << index;
        return j;
    }
    std::vector<double> logged(const std::string &run, const char *key) {
        std::vector<double> values;
        for (const std::string &text : lines_of(read(run + "/metrics.jsonl"))) {
            json_t *j = json_loads(text.c_str(), 0, nullptr);
            values.push_back(json_number_value(json_object_get(j, key)));
            json_decref(j);
        }
        return values;
    }
    // Largest difference of the arrays, relative to the largest number.
    double apart(const std::string &a, const std::string &b) {
        const Array x = load(a), y = load(b);
        double worst = 0, most = 0;
        EXPECT_EQ(x.values.size(), y.values.size());
        for (size_t i = 0; i < x.values.size() && i < y.values.size(); i++) {
            worst = std::fmax(worst, std::fabs(double(x.values[i]) - y.values[i]));
            most = std::fmax(most, std::fabs(double(y.values[i])));
        }
        return worst / most;
    }
};

TEST_F(CudaCommand, ARunGoesOnOnTheOtherDevice) {
    const Result first =
        works(with({"--out", "moved", "--steps", "4", "--device", "cuda", "--provider", "own"}));
    EXPECT_NE(first.out.find("Emulated GPU"), std::string::npos) << first.out;
    const size_t at = first.out.find("  GPU 73%  memory ");
    ASSERT_NE(at, std::string::npos) << first.out;
    char *unit = nullptr; /* the device's memory: the process takes far more */
    const double held = std::strtod(first.out.c_str() + at + 18, &unit);
    EXPECT_TRUE(held > 0 && (std::strncmp(unit, " KiB", 4) == 0 || held < 8)) << first.out;
    works({"train", "--out", "moved", "--resume", "--steps", "8", "--device", "cpu", "--provider",
           "auto"});
    works({"train", "--out", "moved", "--resume", "--steps", "12", "--device", "cuda"});
    works(with({"--out", "stayed", "--steps", "12", "--device", "cpu"}));
    const std::vector<double> moved = logged("moved", "loss"), stayed = logged("stayed", "loss");
    ASSERT_EQ(moved.size(), 12u);
    for (size_t i = 0; i < 12; i++) EXPECT_NEAR(moved[i], stayed[i], 1e-4 * stayed[i]) << i;
    json_t *j = line("moved/metrics.jsonl", 0);
    EXPECT_DOUBLE_EQ(json_number_value(json_object_get(j, "device_busy")), 0.73);
    json_decref(j);
    for (const char *device : {"cuda", "cpu"})
        works({"sample", "--model", "moved", "--n", "20", "--steps", "10", "--device", device,
               "--out", std::string(device) + ".npy"});
    EXPECT_LT(apart("cuda.npy", "cpu.npy"), 1e-4);
}

TEST_F(CudaCommand, ARunInBf16GoesOnOnTheCpu) {
    works(with({"--out", "half", "--steps", "3", "--device", "cuda", "--precision", "bf16"}));
    works({"train", "--out", "half", "--resume", "--steps", "6", "--device", "cpu"});
    works(with({"--out", "whole", "--steps", "6", "--device", "cpu"}));
    const std::vector<double> half = logged("half", "loss"), whole = logged("whole", "loss");
    ASSERT_EQ(half.size(), 6u);
    for (size_t i = 0; i < 6; i++) EXPECT_NEAR(half[i], whole[i], 0.02 * whole[i]) << i;
}

// Metrics that are read two steps later, and those that --check-finite reads at once.
TEST_F(CudaCommand, LateMetricsAreTheSame) {
    Array points = {{40, 2}, std::vector<float>(80)};
    for (size_t i = 0; i < 80; i++) points.values[i] = float(std::sin(double(i)));
    points.values[13] = 1e30f;
    save("points.npy", points);
    for (const char *out : {"late", "at-once"}) {
        std::vector<std::string> args =
            with({"--data", "points.npy", "--out", out, "--save-every", "7", "--device", "cuda"});
        if (std::string(out) == "at-once") args.push_back("--check-finite");
        works(args);
    }
    for (const char *key : {"step", "loss", "grad_norm", "lr", "skipped"})
        EXPECT_EQ(logged("late", key), logged("at-once", key)) << key;
    EXPECT_EQ(logged("late", "step").size(), 20u);
    EXPECT_EQ(logged("late", "skipped").back(), 4);
    EXPECT_EQ(weights("late"), weights("at-once"));
    // A run gives up at the same step.
    for (float &v : points.values) v = 1e30f;
    save("huge.npy", points);
    for (const char *most : {"0", "2", "5"})
        for (const char *out : {"late", "at-once"}) {
            const std::string run = std::string(out) + most;
            std::vector<std::string> args = with(
                {"--data", "huge.npy", "--out", run, "--max-skipped", most, "--device", "cuda"});
            if (std::string(out) == "at-once") args.push_back("--check-finite");
            fails(3, args, {"step " + std::to_string(std::atoi(most) + 1) + ": "});
            EXPECT_EQ(logged(run, "step").size(), size_t(std::atoi(most) + 1));
        }
}

// Data that lies on the device is counted where memory is: before, at the start, in a benchmark.
TEST_F(CudaCommand, SaysWhatDataOnTheDeviceTakes) {
    const int64_t shape[] = {48, 8, 8, 1}, bytes = 48 * 8 * 8;
    const std::vector<uint8_t> values((size_t)bytes, 7);
    ASSERT_EQ(tw_npy_write(ctx, path("pictures.npy").c_str(), TW_U8, 4, shape, values.data()),
              TW_OK);
    make_model("images", kImages, kSchedule);
    write("images.json", std::string("{\"model\": ") + kImages + ", \"scheduler\": " + kSchedule +
                             ", \"options\": {\"data\": \"pictures.npy\", \"batch-size\": 4, " +
                             "\"steps\": 1, \"threads\": 1}}");
    const auto data = [&](std::vector<std::string> args, const char *object) {
        const Result r = works(args);
        const std::string text = args[0] == "bench" ? lines_of(read("b.jsonl")).at(1) : r.out;
        json_t *j = json_loads(text.c_str(), 0, nullptr);
        const json_t *found = json_object_get(json_object_get(j, object), "data");
        const json_int_t n = json_integer_value(found);
        json_decref(j);
        return n;
    };
    const std::vector<std::string> plan = {"info",     "--plan", "--model",
                                           "images",   "--data", "pictures.npy",
                                           "--device", "cuda",   "--json"};
    EXPECT_EQ(data(plan, "bytes"), bytes);
    std::vector<std::string> scarce = plan; // a quarter of what is left must hold them
    scarce.insert(scarce.end(), {"--memory", "100K"});
    EXPECT_EQ(data(scarce, "bytes"), 0);
    const std::vector<std::string> run = {"train",    "--config", "images.json",
                                          "--device", "cuda",     "--dry-run"};
    EXPECT_NE(works(run).out.find(", data 3.0 KiB\n"), std::string::npos);
    std::vector<std::string> json = run;
    json.push_back("--log-json");
    EXPECT_EQ(data(json, "memory"), bytes);
    EXPECT_EQ(
        data({"bench", "train", "--model", "images", "--data", "pictures.npy", "--batch-size", "4",
              "--repeats", "1", "--warmup", "0", "--device", "cuda", "--json", "b.jsonl"},
             "memory"),
        bytes);
    // Points lie there too; what is drawn when it is asked for cannot.
    make_model("points", kPoints, kSchedule);
    EXPECT_EQ(data({"info", "--plan", "--model", "points", "--data", "scurve", "--device", "cuda",
                    "--json"},
                   "bytes"),
              10000 * 2 * 4);
    EXPECT_EQ(data({"info", "--plan", "--model", "images", "--data", "shapes", "--device", "cuda",
                    "--json"},
                   "bytes"),
              0);
}

TEST_F(CudaCommand, SaysWhatTakesLessMemory) {
    make_model("images", kImages, kSchedule);
    fails(1,
          {"sample", "--model", "images", "--device", "cuda", "--n", "400000", "--max-batch",
           "400000", "--out", "a.npy"},
          {"memory", "a smaller --max-batch"});
    fails(1,
          with({"--out", "a", "--batch-size", "65536", "--set", "model.hidden=1024", "--device",
                "cuda"}),
          {"memory", "a smaller --batch-size"});
    EXPECT_FALSE(exists("a"));
}

// The most that a row took is what was planned, up to a batch that waits at the host, and a row's
// own: the second's is not the first's.
TEST_F(CudaCommand, BenchSaysWhatMemoryWasUsed) {
    make_model("images", kImages, kSchedule);
    const auto bench = [&](const char *mode, const char *device, const char *batches) {
        std::vector<std::string> args = {"bench",        mode,    "--model",   "images",
                                         "--device",     device,  "--repeats", "1",
                                         "--batch-size", batches, "--warmup",  "0",
                                         "--threads",    "1",     "--json",    "b.jsonl"};
        if (std::string(mode) == "sample") args.insert(args.end(), {"--steps", "1"});
        return works(args).out;
    };
    for (const char *mode : {"train", "sample"}) {
        SCOPED_TRACE(mode);
        const std::string out = bench(mode, "cuda", "4,1");
        double used[2];
        for (size_t i = 0; i < 2; i++) {
            json_t *row = line("b.jsonl", 1 + i);
            const auto memory = [&](const char *key) {
                return json_number_value(json_object_get(json_object_get(row, "memory"), key));
            };
            used[i] = memory("device_used");
            EXPECT_NEAR(used[i], memory("planned"), 0.05 * used[i]);
            EXPECT_GE(memory("device_held"), used[0]);
            json_decref(row);
        }
        EXPECT_GT(used[0], 1.1 * used[1]);
        EXPECT_NE(out.find(" of the device ("), std::string::npos) << out;
    }
    const std::string out = bench("train", "cpu", "2");
    json_t *row = line("b.jsonl", 1);
    EXPECT_EQ(json_object_get(json_object_get(row, "memory"), "device_used"), nullptr);
    EXPECT_EQ(out.find("of the device"), std::string::npos) << out;
    json_decref(row);
}

// The stand-in for NVML counts 100 watts.
TEST_F(CudaCommand, BenchMetersTheDevice) {
    make_model("m", kPoints, kSchedule);
    for (const char *mode : {"train", "sample"})
        for (const char *seconds : {"1", "0"}) {
            SCOPED_TRACE(std::string(mode) + " " + seconds);
            const Result r = works({"bench", mode, "--model", "m", "--device", "cuda",
                                    "--batch-size", "4", "--repeats", "2", "--seconds", seconds,
                                    "--threads", "1", "--json", "b.jsonl"});
            json_t *row = line("b.jsonl", 1);
            const auto number = [&](const char *key) {
                return json_number_value(json_object_get(row, key));
            };
            EXPECT_DOUBLE_EQ(number("device_busy"), 0.73);
            EXPECT_GT(number("graph_speedup"), 0);
            EXPECT_EQ(number("images_per_s_queued") > 0, std::string(mode) == "train");
            const double watts = number("joules_per_image") * number("images_per_s_sustained");
            const json_t *total = json_object_get(json_object_get(row, "seconds"), "total");
            if (json_number_value(total) >= 1) { // on a busy machine without being told
                EXPECT_NEAR(watts, 100, 10);
                EXPECT_NE(r.out.find("joules a sample"), std::string::npos) << r.out;
            } else {
                EXPECT_TRUE(json_is_null(json_object_get(row, "joules_per_image")));
                EXPECT_NE(r.out.find("joules take --seconds 1"), std::string::npos) << r.out;
            }
            json_decref(row);
        }
}

} // namespace
