#include "cli/train_runs.h"

#include <map>

TEST_F(Train, LeavesAWholeRun) {
    const Result r = works(with({"--out", "runs/a", "--preview-every", "10", "--holdout", "0.1",
                                 "--validate-every", "10"}));
    EXPECT_EQ(r.out.rfind("tweedie 0.1 ", 0), 0u) << r.out;
    EXPECT_NE(r.out.find("\n  chosen     cpu-"), std::string::npos) << r.out;
    for (const char *part : {"TweedieMLP", "scurve: 10,000 points", "20 of 8 points", "memory",
                             "step 20/20", "loss on held-out data", "peak of the process"})
        EXPECT_NE(r.out.find(part), std::string::npos) << part << "\n" << r.out;
    EXPECT_EQ(lines_of(r.out).back(), "runs/a");
    for (const char *name : {"runs/a/model_index.json", "runs/a/unet/config.json",
                             "runs/a/scheduler/scheduler_config.json", "runs/a/run.json"})
        EXPECT_TRUE(exists(name)) << name;
    for (const char *name : {"runs/a/previews/step-000010.png", "runs/a/previews/step-000020.png"})
        EXPECT_EQ(picture(name), (std::vector<int64_t>{512, 512, 3}));
    const std::vector<std::string> lines = lines_of(read("runs/a/metrics.jsonl"));
    ASSERT_EQ(lines.size(), 22u);
    int64_t step = 0;
    for (const std::string &line : lines) {
        json_t *j = json_loads(line.c_str(), 0, nullptr);
        ASSERT_NE(j, nullptr) << line;
        if (json_object_get(j, "loss")) {
            EXPECT_EQ(json_integer_value(json_object_get(j, "step")), ++step);
            for (const char *key : {"loss", "grad_norm", "lr", "samples_per_s"})
                EXPECT_GT(json_number_value(json_object_get(j, key)), 0.0) << line;
        } else {
            EXPECT_GT(json_number_value(json_object_get(j, "validation_loss")), 0.0) << line;
            EXPECT_GT(json_number_value(json_object_get(j, "validation_loss_average")), 0.0);
        }
        json_decref(j);
    }
    EXPECT_EQ(step, 20);
    works({"info", "--model", "runs/a"});
    works({"sample", "--model", "runs/a", "--out", "a.png", "--n", "10", "--steps", "5"});
}

TEST_F(Train, RunJsonSaysAllThatIsNeededToRepeat) {
    works(with({"--out", "a", "--lr", "3e-3", "--ema", "0.9", "--antithetic", "--seed", "12",
                "--accumulate", "2", "--loss-weight", "min-snr", "--lr-schedule", "cosine"}));
    works({"train", "--config", "a/run.json", "--out", "b"});
    expect_same_run("a", "b");
    json_t *j = json_loads(read("a/run.json").c_str(), 0, nullptr);
    ASSERT_NE(j, nullptr);
    EXPECT_STREQ(json_string_value(json_object_get(j, "tweedie")), tw_version());
    const json_t *o = json_object_get(j, "options");
    EXPECT_EQ(json_number_value(json_object_get(o, "lr")), 3e-3);
    EXPECT_EQ(json_integer_value(json_object_get(o, "seed")), 12);
    EXPECT_TRUE(json_is_true(json_object_get(o, "antithetic")));
    json_decref(j);
    works(with({"--out", "c", "--seed", "13"}));
    EXPECT_NE(weights("c"), weights("a"));
}

TEST_F(Train, AnInterruptedRunResumesToTheSameBits) {
    works(long_run("whole"));
    for (int number : {SIGINT, SIGTERM}) {
        const std::string out = "broken" + std::to_string(number);
        Result r = run(long_run(out), signal_after(500, number));
        EXPECT_EQ(r.status, 130);
        EXPECT_EQ(r.err, "");
        const size_t done = lines_of(read(out + "/metrics.jsonl")).size();
        EXPECT_GT(done, 500u);
        ASSERT_LT(done, 6000u) << "the run ended before the signal came";
        works({"train", "--out", out, "--resume"});
        expect_same_run(out, "whole");
    }
}

// A run that is killed has logged steps that its last saved state does not have.
TEST_F(Train, AKilledRunResumesToTheSameBits) {
    works(long_run("whole"));
    for (size_t lines : {300, 2500}) {
        const std::string out = "killed" + std::to_string(lines);
        EXPECT_EQ(run(long_run(out), signal_after(lines, SIGKILL)).status, 128 + SIGKILL);
        ASSERT_LT(lines_of(read(out + "/metrics.jsonl")).size(), 6000u);
        works({"train", "--out", out, "--resume", "--log-json"});
        expect_same_run(out, "whole");
    }
}

TEST_F(Train, AStopSaysHowToGoOn) {
    works(with({"--out", "a"}));
    // The table has eight lines; the next one is that of step 21.
    const Result r =
        run({"train", "--out", "a", "--resume", "--steps", "1000000"}, signal_after(8, SIGINT));
    EXPECT_EQ(r.status, 130);
    const std::string last = lines_of(r.out).back();
    EXPECT_EQ(last.rfind("stopped at step ", 0), 0u) << last;
    EXPECT_NE(last.find("`tweedie train --out a --resume` continues"), std::string::npos) << last;
    EXPECT_TRUE(exists("a/unet/diffusion_pytorch_model.safetensors"));
    fails(1, {"train", "--out", "a", "--resume", "--steps", "5"}, {"at step", "beyond the 5"});
}

// A narrow terminal loses the bar and the learning rate before the time that is left.
TEST_F(Train, TheLineFitsTheTerminal) {
    const auto shown = [&](const char *out, unsigned short columns) {
        const std::string all = on_terminal(with({"--out", out, "--preview-every", "20"}), columns);
        const size_t at = all.find("\rstep 20/20");
        EXPECT_NE(at, std::string::npos) << all;
        EXPECT_NE(all.find("\rpicture  25/25  "), std::string::npos) << all;
        return at == std::string::npos ? "" : all.substr(at + 1, all.find("\033[K", at) - at - 1);
    };
    for (unsigned short columns : {160, 80, 60}) {
        const std::string line = shown(std::to_string(columns).c_str(), columns);
        EXPECT_NE(line.find("  loss "), std::string::npos) << line;
        EXPECT_NE(line.find("  left "), std::string::npos) << line;
        EXPECT_EQ(line.find("  lr ") != std::string::npos, columns == 160) << line;
        EXPECT_EQ(line.find("  memory ") != std::string::npos, columns > 60) << line;
        EXPECT_LT(line.size() - 2 * 20 * (columns == 160), columns) << line;
    }
}

// A picture that cannot be written is said once, and costs none of the steps.
TEST_F(Train, APictureThatCannotBeMadeIsNoFailure) {
    ASSERT_EQ(mkdir(path("a").c_str(), 0777), 0);
    write("a/previews", "a file");
    const Result r = run(with({"--out", "a", "--preview-every", "7"}));
    EXPECT_EQ(r.status, 0);
    EXPECT_EQ(r.err.rfind("tweedie: step 7: there is no picture: ", 0), 0u) << r.err;
    EXPECT_NE(r.err.find("a/previews"), std::string::npos) << r.err;
    EXPECT_NE(r.err.find("; the run goes on\n"), std::string::npos) << r.err;
    EXPECT_EQ(std::count(r.err.begin(), r.err.end(), '\n'), 1) << r.err;
    const Result done = works({"train", "--out", "a", "--resume"});
    EXPECT_NE(done.out.find("a is complete with 20 steps"), std::string::npos) << done.out;
    works(with({"--out", "b"}));
    expect_same_run("a", "b");
}

TEST_F(Train, SaysThatARunWithoutAStateStartsAgain) {
    works(with({"--out", "a"}));
    ASSERT_EQ(unlink(path("a/state/trainer.safetensors").c_str()), 0);
    const Result r = works({"train", "--out", "a", "--resume"});
    EXPECT_NE(r.out.find("none done: no state was saved"), std::string::npos) << r.out;
    works(with({"--out", "b"}));
    expect_same_run("a", "b");
}

TEST_F(Train, ALongerRunGoesOn) {
    works(with({"--out", "a", "--steps", "10"}));
    const Result done = works({"train", "--out", "a", "--resume"});
    EXPECT_NE(done.out.find("a is complete with 10 steps"), std::string::npos) << done.out;
    works({"train", "--out", "a", "--resume", "--steps", "20"});
    works(with({"--out", "b"}));
    expect_same_run("a", "b");
}

// Their configurations come back from run.json written otherwise.
TEST_F(Train, PresetsResume) {
    const std::string digits = TW_TEST_DIR "/../host/examples/digits/t10k-images-idx3-ubyte.gz";
    for (const std::vector<std::string> &preset :
         {std::vector<std::string>{"--preset", "mnist", "--data", digits, "--limit", "40"},
          std::vector<std::string>{"--preset", "scurve"}}) {
        const std::string out = preset[1];
        std::vector<std::string> first = {"train"};
        first.insert(first.end(), preset.begin(), preset.end());
        for (const char *word : {"--batch-size", "2", "--steps", "1", "--validate-every", "0",
                                 "--preview-every", "0", "--out"})
            first.push_back(word);
        first.push_back(out);
        works(first);
        works({"train", "--out", out, "--resume", "--steps", "2"});
    }
}

TEST_F(Train, ARunIsNotOverwritten) {
    works(with({"--out", "a"}));
    const std::string before = state("a");
    fails(1, with({"--out", "a"}), {"--out: a already holds a run", "--resume"});
    EXPECT_EQ(state("a"), before);
    make_model("m", kPoints, kSchedule);
    fails(1, with({"--out", "m"}), {"--out: m already holds a model"});
    write("file", "");
    fails(1, with({"--out", "file"}), {"--out: file is a file"});
    fails(1, with({"--out", "file/a"}), {"file"});
}

TEST_F(Train, AResumedRunKeepsItsOptions) {
    works(with({"--out", "a"}));
    const std::vector<std::string> again = {"train", "--out", "a", "--resume"};
    auto resume = [&](const std::vector<std::string> &more) {
        std::vector<std::string> args = again;
        args.insert(args.end(), more.begin(), more.end());
        return args;
    };
    fails(2, resume({"--lr", "1e-2"}), {"--lr: cannot change", "0.002", "\"1e-2\""});
    fails(2, resume({"--seed", "1"}), {"--seed: cannot change"});
    fails(2, resume({"--antithetic"}), {"--antithetic: cannot change"});
    fails(2, resume({"--preset", "scurve"}), {"--preset: describes another model"});
    works(resume({"--lr", "0.002", "--config", "small.json", "--steps", "25"}));
    fails(1, {"train", "--out", "absent", "--resume"}, {"--resume: absent holds no run"});
    const std::string whole = state("a");
    write("a/state/trainer.safetensors", whole.substr(0, whole.size() / 2));
    fails(1, resume({"--steps", "30"}), {"trainer.safetensors"});
    write("a/state/trainer.safetensors", whole);
    write("a/run.json", "{");
    fails(1, again, {"run.json"});
}

TEST_F(Train, DescriptionsAreChecked) {
    fails(2, {"train", "--out", "a"}, {"--preset NAME or --config FILE.json"});
    fails(2, with({}), {"--out DIR is missing"});
    fails(2, with({"--preset", "scurve", "--out", "a"}), {"--preset and --config"});
    fails(2, {"train", "--preset", "mnist", "--out", "a"}, {"--data SOURCE is missing"});
    fails(2, with({"--validate-every", "5", "--out", "a"}), {"--validate-every", "--holdout"});
    fails(1, {"train", "--config", "absent.json", "--out", "a"}, {"absent.json"});
    const std::string model = std::string("\"model\": ") + kPoints;
    const struct {
        std::string text;
        const char *word;
    } wrong[] = {{"[]", "c.json"},
                 {"{}", "c.json: model"},
                 {"{\"model\": 3}", "c.json: model"},
                 {"{" + model + ", \"scheduler\": []}", "c.json: scheduler"},
                 {"{" + model + ", \"options\": 1}", "c.json: options"},
                 {"{" + model + ", \"optoins\": {}}", "optoins"},
                 {"{" + model + ", \"options\": {\"stesp\": 1}}", "stesp"},
                 {"{" + model + ", \"options\": {\"steps\": \"many\"}}", "\"many\""},
                 {"{" + model + ", \"options\": {\"steps\": []}}", "steps"},
                 {"{" + model + ", \"options\": {\"out\": \"b\"}}", "command line"},
                 {"{\"model\": {\"_class_name\": \"Unknown\"}}", "Unknown"},
                 {"{" + model + ", \"scheduler\": {\"beta_schedule\": \"steep\"}}", "steep"}};
    for (const auto &w : wrong) {
        write("c.json", w.text);
        SCOPED_TRACE(w.text);
        fails(1, {"train", "--config", "c.json", "--data", "scurve", "--out", "a"}, {w.word});
        EXPECT_FALSE(exists("a"));
    }
}

TEST_F(Train, DataThatDoesNotFitIsRefused) {
    fails(1, with({"--data", "absent.npy", "--out", "a"}), {"absent.npy"});
    save("wide.npy", {{6, 3}, std::vector<float>(18, 0.5f)});
    fails(1, with({"--data", "wide.npy", "--out", "a"}), {"3", "2"});
    write("broken.npy", "\x93NUMPY");
    fails(1, with({"--data", "broken.npy", "--out", "a"}), {"broken.npy"});
    fails(1, with({"--flip", "0.5", "--out", "a"}), {"mirrored"});
    fails(1, with({"--cond-dropout", "0.5", "--out", "a"}), {"class labels"});
    EXPECT_FALSE(exists("a"));
}

TEST_F(Train, ImagesWithLabelsTrain) {
    Array images = {{12, 8, 8, 3}, std::vector<float>(12 * 192)};
    for (size_t i = 0; i < images.values.size(); i++)
        images.values[i] = float(std::sin(0.1 * double(i)));
    save("images.npy", images);
    const int64_t n = 12;
    int32_t labels[12];
    for (int i = 0; i < 12; i++) labels[i] = i % 3;
    ASSERT_EQ(tw_npy_write(ctx, path("labels.npy").c_str(), TW_I32, 1, &n, labels), TW_OK);
    write("c.json", std::string("{\"model\": ") + kClasses + ", \"scheduler\": " + kSchedule + "}");
    const std::vector<std::string> args = {
        "train",      "--config",       "c.json", "--data",  "images.npy", "--labels",
        "labels.npy", "--out",          "a",      "--steps", "3",          "--batch-size",
        "4",          "--cond-dropout", "0.2",    "--flip",  "0.5",        "--preview-every",
        "3",          "--threads",      "1"};
    works(args);
    // Ten rows of six images, twice the three classes, of 8 pixels with 2 between and around.
    EXPECT_EQ(picture("a/previews/step-000003.png"), (std::vector<int64_t>{62, 102, 3}));
    // The data may be named relative to another folder when the run goes on.
    ASSERT_EQ(mkdir(path("elsewhere").c_str(), 0777), 0);
    const Result r =
        run_command({"train", "--out", "../a", "--resume", "--steps", "4"}, path("elsewhere"));
    EXPECT_EQ(r.status, 0) << r.err;
    ASSERT_EQ(unlink(path("labels.npy").c_str()), 0);
    fails(1, {"train", "--out", "a", "--resume", "--steps", "5"}, {"labels.npy"});
}

TEST_F(Train, ALossThatIsNotFiniteEndsIt) {
    save("huge.npy", {{64, 2}, std::vector<float>(128, 3e38f)});
    const Result r = fails(3, with({"--data", "huge.npy", "--out", "a", "--steps", "1000"}),
                           {"has not been finite for 51 steps"});
    EXPECT_NE(r.out.find("step 2: the loss is not finite: its update is skipped, 2 in all\n"),
              std::string::npos)
        << r.out;
    const std::vector<std::string> lines = metrics("a");
    ASSERT_EQ(lines.size(), 51u);
    EXPECT_NE(lines[0].find("\"loss\": null"), std::string::npos) << lines[0];
    // The weights are those that it began with.
    fails(3, with({"--data", "huge.npy", "--out", "b", "--max-skipped", "0"}), {"for 1 steps"});
    EXPECT_EQ(weights("a"), weights("b"));
    EXPECT_FALSE(weights("a").empty());
    // What is saved goes on, and counts on.
    fails(3, {"train", "--out", "b", "--resume", "--max-skipped", "1"}, {"step 3: "});
    EXPECT_NE(metrics("b")[2].find("\"skipped\": 3"), std::string::npos) << metrics("b")[2];
}

// One sample of many spoils the steps that draw it, and no others.
TEST_F(Train, SkippedUpdatesAreCountedAndNamed) {
    Array points = {{40, 2}, std::vector<float>(80)};
    for (size_t i = 0; i < 80; i++) points.values[i] = float(std::sin(double(i)));
    points.values[13] = 1e30f;
    save("points.npy", points);
    const Result r = works(with({"--data", "points.npy", "--out", "a", "--check-finite"}));
    const std::vector<std::string> lines = metrics("a");
    ASSERT_EQ(lines.size(), 20u);
    int skipped = 0, in_a_row = 0, most = 0;
    for (const std::string &line : lines) {
        const bool bad = line.find("\"loss\": null") != std::string::npos;
        skipped += bad;
        in_a_row = bad ? in_a_row + 1 : 0;
        most = std::max(most, in_a_row);
        EXPECT_EQ(line.find("\"not_finite\": \"loss\"") != std::string::npos, bad) << line;
        EXPECT_NE(line.find("\"skipped\": " + std::to_string(skipped)), std::string::npos) << line;
    }
    EXPECT_EQ(skipped, 4); // five batches an epoch
    EXPECT_NE(r.out.find("; first not finite: loss\n"), std::string::npos) << r.out;
    EXPECT_NE(r.out.find("\n4 updates were skipped"), std::string::npos) << r.out;
    // Those in a row count.
    works(with({"--data", "points.npy", "--out", "b", "--max-skipped", std::to_string(most)}));
    EXPECT_EQ(weights("b"), weights("a"));
    works({"plot", "--run", "a", "--out", "loss.png"});
}

TEST_F(Train, AFullDiskIsOneLine) {
    RunOptions options;
    // Enough for run.json and the log, not for the state.
    options.file_limit = 4000;
    fails(1, with({"--out", "a"}), {"a/unet"}, options);
    EXPECT_EQ(list("a/state"), std::vector<std::string>());
    EXPECT_FALSE(exists("a/unet/diffusion_pytorch_model.safetensors"));
    // The run can go on once there is room.
    works({"train", "--out", "a", "--resume"});
    works(with({"--out", "b"}));
    expect_same_run("a", "b");
    // Not even for run.json.
    options.file_limit = 100;
    fails(1, with({"--out", "c"}), {"c/run.json"}, options);
    EXPECT_EQ(list("c"), std::vector<std::string>());
    // The log outgrows the disk; the state, saved before, does not.
    const std::vector<std::string> log = {"--steps", "2000", "--save-every", "200", "--log-json"};
    auto logged = [&](const std::string &out) {
        std::vector<std::string> args = with({"--out", out});
        args.insert(args.end(), log.begin(), log.end());
        return args;
    };
    options.file_limit = rlim_t(state("a").size()) + 20000;
    fails(1, logged("d"), {"d/metrics.jsonl"}, options);
    EXPECT_TRUE(exists("d/state/trainer.safetensors"));
    works({"train", "--out", "d", "--resume", "--log-json"});
    works(logged("e"));
    expect_same_run("d", "e");
}

TEST_F(Train, JsonLinesReplaceTheTable) {
    const Result r = works(with({"--out", "a", "--log-json"}));
    EXPECT_EQ(r.out, read("a/metrics.jsonl"));
}

TEST_F(Train, ThePresetsAreWhole) {
    works({"train", "--preset", "scurve", "--out", "a", "--steps", "2", "--preview-every", "0"});
    Array digits = {{10, 28, 28, 1}, std::vector<float>(10 * 784, -1.0f)};
    save("digits.npy", digits);
    const int64_t n = 10;
    const int32_t labels[10] = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9};
    ASSERT_EQ(tw_npy_write(ctx, path("labels.npy").c_str(), TW_I32, 1, &n, labels), TW_OK);
    works({"train", "--preset", "mnist", "--data", "digits.npy", "--labels", "labels.npy", "--out",
           "b", "--steps", "1", "--batch-size", "2", "--preview-every", "0"});
    EXPECT_NE(works({"info", "--model", "b"}).out.find("classes     11"), std::string::npos);
}

TEST_F(Train, FieldsAreSetByName) {
    works(with({"--out", "a", "--set", "model.hidden=24", "--set=scheduler.beta_schedule=cosine",
                "--set", "scheduler.clip_sample=true", "--set", "options.steps=3", "--set",
                "options.lr=1e-4", "--set", "model.act_fn=relu", "--set",
                "model.num_class_embeds=null", "--set", "scheduler.beta_end=1"}));
    json_t *j = json_loads(read("a/run.json").c_str(), 0, nullptr);
    const json_t *model = json_object_get(j, "model"), *scheduler = json_object_get(j, "scheduler");
    EXPECT_EQ(json_integer_value(json_object_get(model, "hidden")), 24);
    EXPECT_EQ(json_integer_value(json_object_get(model, "layers")), 2);
    EXPECT_STREQ(json_string_value(json_object_get(model, "act_fn")), "relu");
    EXPECT_TRUE(json_is_null(json_object_get(model, "num_class_embeds")));
    EXPECT_STREQ(json_string_value(json_object_get(scheduler, "beta_schedule")), "cosine");
    EXPECT_TRUE(json_is_true(json_object_get(scheduler, "clip_sample")));
    EXPECT_EQ(json_number_value(json_object_get(scheduler, "beta_end")), 1.0);
    const json_t *o = json_object_get(j, "options");
    EXPECT_EQ(json_integer_value(json_object_get(o, "steps")), 3);
    EXPECT_EQ(json_number_value(json_object_get(o, "lr")), 1e-4);
    json_decref(j);
    // They hold when the run goes on, and say so when they would change it.
    auto resume = [](const char *set) {
        return std::vector<std::string>{"train", "--out", "a", "--resume", "--set", set};
    };
    works(resume("model.hidden=24"));
    works(resume("options.steps=4"));
    fails(2, resume("model.hidden=32"),
          {"--set model.hidden: cannot change", "it has 24, got \"32\""});
    fails(2, resume("scheduler.beta_schedule=linear"), {"it has \"cosine\", got \"linear\""});
    fails(2, resume("scheduler.steps_offset=1"), {"it has none, got \"1\""});
    fails(2, resume("options.lr=1e-3"), {"--lr: cannot change"});
    // Lists, and a scheduler where the file has none.
    write("images.json", std::string("{\"model\": ") + kImages + "}");
    save("images.npy", {{4, 8, 8, 1}, std::vector<float>(256)});
    works({"train", "--config", "images.json", "--data", "images.npy", "--out", "b", "--steps", "1",
           "--batch-size", "2", "--set", "model.block_out_channels=[4,8]", "--set",
           "model.down_block_types=DownBlock2D, \"DownBlock2D\"", "--set",
           "model.sample_size=[8,8]", "--set", "scheduler.num_train_timesteps=50"});
    j = json_loads(read("b/run.json").c_str(), 0, nullptr);
    model = json_object_get(j, "model");
    char *text = json_dumps(model, JSON_COMPACT | JSON_SORT_KEYS);
    for (const char *part : {"\"block_out_channels\":[4,8]", "\"sample_size\":[8,8]",
                             "\"down_block_types\":[\"DownBlock2D\",\"DownBlock2D\"]"})
        EXPECT_NE(std::string(text).find(part), std::string::npos) << text;
    free(text);
    EXPECT_EQ(
        json_integer_value(json_object_get(json_object_get(j, "scheduler"), "num_train_timesteps")),
        50);
    json_decref(j);
}

// What the golden networks' configurations hold can be set, each with a value of its type.
TEST_F(Train, EveryFieldIsKnown) {
    std::map<std::string, std::string> fields; // key: a value in JSON
    for (const char *name :
         {"model_attn_groups", "model_class_cond", "model_class_timestep", "model_ddpm_cifar10_32",
          "model_defaults", "model_four_levels", "model_fourier", "model_learned_time",
          "model_no_attention", "model_resample", "model_scale_shift"}) {
        const std::string file = TW_TEST_DIR "/golden/" + std::string(name) + ".json";
        json_t *golden = json_load_file(file.c_str(), 0, nullptr), *value;
        const char *key;
        json_object_foreach(json_object_get(golden, "config"), key, value) {
            char *text = json_dumps(value, JSON_ENCODE_ANY);
            if (key[0] != '_') fields[key] = text;
            free(text);
        }
        json_decref(golden);
    }
    ASSERT_GT(fields.size(), 15u);
    write("images.json", std::string("{\"model\": ") + kImages + "}");
    for (const auto &f : fields) {
        const Result r = run({"train", "--config", "images.json", "--data", "absent", "--dry-run",
                              "--set", "model." + f.first + "=" + f.second});
        EXPECT_EQ(r.status, 1) << r.err; // past the options: the network or the data is wrong
        EXPECT_EQ(r.err.find("--set"), std::string::npos) << r.err;
        fails(2,
              {"train", "--config", "images.json", "--data", "absent", "--dry-run", "--set",
               "model." + f.first + "x=1"},
              {"unknown field; did you mean model." + f.first + "?"});
    }
}

TEST_F(Train, FieldsAreChecked) {
    const struct {
        const char *set;
        const char *words;
    } wrong[] = {
        {"model.hidden", "--set: expected KEY=VALUE"},
        {"hidden=3", "--set: expected KEY=VALUE"},
        {"model.hidden=", "--set: expected KEY=VALUE"},
        {"modle.hidden=3", "--set: expected KEY=VALUE"},
        {"model.hiden=3", "--set model.hiden: unknown field; did you mean model.hidden?"},
        {"model.norm_eps=3", "--set model.norm_eps: TweedieMLP has no such field"},
        {"scheduler.beta_sart=1", "did you mean scheduler.beta_start?"},
        {"options.batchsize=1", "did you mean options.batch-size?"},
        {"options.absent-thing=1", "the command has no such field"},
        {"options.out=b", "expected as an option of its own, --out"},
        {"options.lr=fast", "--set options: lr: expected a number from 0 to 1000"},
        {"model.hidden=many", "--set model.hidden: expected a whole number, got \"many\""},
        {"model.hidden=3.5", "expected a whole number, got \"3.5\""},
        {"model.hidden=null", "expected a whole number, got \"null\""},
        {"model.hidden=[3]", "expected a whole number, got \"[3]\""},
        {"model.num_class_embeds=x", "expected a whole number or null"},
        {"scheduler.clip_sample=1", "expected true or false, got \"1\""},
        {"scheduler.beta_start=low", "expected a number, got \"low\""},
        {"scheduler.trained_betas=[0.1,,0.2]", "expected numbers such as [0.1,0.2] or null"},
        {"scheduler.trained_betas=[]", "expected numbers"}};
    for (const auto &w : wrong) {
        fails(2, with({"--out", "a", "--set", w.set}), {w.words});
        EXPECT_FALSE(exists("a")) << w.set;
    }
    // What the type allows and the network does not is its own message.
    fails(1, with({"--out", "a", "--set", "model.hidden=1"}), {"hidden"});
    fails(1, with({"--out", "a", "--set", "scheduler.beta_schedule=steep"}), {"steep"});
    fails(2, with({"--out", "a", "--set", "options.lr=1", "--lr", "2"}),
          {"--set options.lr: --lr is given too"});
    fails(2, with({"--out", "a", "--set", "model.hidden=8", "--set", "model.hidden=8"}),
          {"--set model.hidden: given twice"});
    fails(2, with({"--set"}), {"--set: a value is missing"});
    fails(2, with({"--set="}), {"--set: the value is empty"});
}
