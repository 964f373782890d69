#include "cli/command.h"
#include "support/golden.h"

namespace {

struct Row {
    double beta, bar, noise, log_snr;
};

class Schedule : public CommandTest {
  protected:
    // A .csv's rows by schedule, t counted from 0.
    std::map<std::string, std::vector<Row>> table(const std::string &name) {
        std::map<std::string, std::vector<Row>> all;
        std::stringstream lines(read(name));
        std::string line;
        std::getline(lines, line);
        EXPECT_EQ(line, "schedule,t,beta,alphas_cumprod,sqrt_one_minus_alphas_cumprod,log_snr");
        while (std::getline(lines, line)) {
            Row r;
            long t = -1;
            const size_t comma = line.find(',');
            const std::string which = line.substr(0, comma);
            EXPECT_EQ(sscanf(line.c_str() + comma, ",%ld,%lf,%lf,%lf,%lf", &t, &r.beta, &r.bar,
                             &r.noise, &r.log_snr),
                      5)
                << line;
            EXPECT_EQ(size_t(t), all[which].size());
            all[which].push_back(r);
        }
        return all;
    }
    static std::string text_of(double v) {
        char text[40];
        snprintf(text, sizeof text, "%.17g", v);
        return text;
    }
};

// The numbers are those of diffusers, in all of its kinds.
TEST_F(Schedule, TheNumbersAreTheGoldenOnes) {
    const golden::Json root = golden::Load("schedulers.json");
    const json_t *tables = golden::At(root.get(), "tables");
    ASSERT_GE(json_array_size(tables), 9u);
    for (size_t i = 0; i < json_array_size(tables); i++) {
        const json_t *row = json_array_get(tables, i);
        const std::string kind = golden::Text(row, "beta_schedule");
        const bool rescaled = json_is_true(golden::At(row, "rescale_betas_zero_snr"));
        SCOPED_TRACE(kind + (rescaled ? ", rescaled" : ""));
        std::vector<std::string> args = {"schedule",
                                         "--schedules",
                                         kind,
                                         "--out",
                                         "a.csv",
                                         "--training-steps",
                                         std::to_string(golden::Whole(row, "num_train_timesteps"))};
        if (kind != "squaredcos_cap_v2")
            args.insert(args.end(), {"--beta-start", text_of(golden::Number(row, "beta_start")),
                                     "--beta-end", text_of(golden::Number(row, "beta_end"))});
        if (rescaled) args.push_back("--rescale-zero-snr");
        EXPECT_EQ(works(args).out, "a.csv\n");
        const std::vector<Row> got = table("a.csv")[kind];
        ASSERT_EQ(got.size(), size_t(golden::Whole(row, "num_train_timesteps")));
        const json_t *t = golden::At(row, "t"), *betas = golden::At(row, "betas"),
                     *bars = golden::At(row, "alphas_cumprod");
        for (size_t k = 0; k < json_array_size(t); k++) {
            const Row &r = got.at(size_t(json_number_value(json_array_get(t, k))));
            const double beta = json_number_value(json_array_get(betas, k));
            const double bar = json_number_value(json_array_get(bars, k));
            EXPECT_NEAR(r.beta, beta, 1e-12 * beta + 1e-15);
            EXPECT_NEAR(r.bar, bar, 1e-12 * bar);
            EXPECT_NEAR(r.noise, std::sqrt(1 - bar), 1e-12);
            if (bar > 0)
                EXPECT_NEAR(r.log_snr, std::log(bar / (1 - bar)), 1e-9);
            else
                EXPECT_EQ(r.log_snr, -INFINITY);
        }
    }
}

TEST_F(Schedule, TheDefaultsAreFourSideBySide) {
    works({"schedule", "--out", "a.csv"});
    const auto all = table("a.csv");
    EXPECT_EQ(all.size(), 4u);
    for (const char *name : {"linear", "scaled_linear", "squaredcos_cap_v2", "sigmoid"})
        EXPECT_EQ(all.at(name).size(), 1000u) << name;
    const Result r = works({"schedule"});
    EXPECT_EQ(std::count(r.out.begin(), r.out.end(), '\n'), 1 + 4 * 5);
    // The last row of the first schedule.
    EXPECT_NE(r.out.find(" 999   2.0000e-02      4.03583e-05"), std::string::npos) << r.out;
}

TEST_F(Schedule, JsonHasTheSameNumbers) {
    const std::vector<std::string> args = {
        "schedule", "--schedules", "linear,cosine", "--rescale-zero-snr", "--training-steps", "50"};
    auto with = [&](const std::vector<std::string> &more) {
        std::vector<std::string> all = args;
        all.insert(all.end(), more.begin(), more.end());
        return all;
    };
    works(with({"--out", "a.csv"}));
    works(with({"--out", "a.json"}));
    EXPECT_EQ(works(with({"--json"})).out, read("a.json"));
    const auto want = table("a.csv");
    const golden::Json root(json_loads(read("a.json").c_str(), 0, nullptr), json_decref);
    const json_t *list = json_object_get(root.get(), "schedules");
    ASSERT_EQ(json_array_size(list), 2u);
    for (size_t i = 0; i < 2; i++) {
        const json_t *one = json_array_get(list, i);
        const std::vector<Row> &rows = want.at(golden::Text(one, "name"));
        EXPECT_EQ(golden::Whole(one, "training_steps"), 50);
        for (size_t t = 0; t < 50; t++) {
            const auto value = [&](const char *key) {
                return json_array_get(golden::At(one, key), t);
            };
            EXPECT_EQ(json_number_value(value("beta")), rows[t].beta);
            EXPECT_EQ(json_number_value(value("alphas_cumprod")), rows[t].bar);
            EXPECT_EQ(json_number_value(value("sqrt_one_minus_alphas_cumprod")), rows[t].noise);
            if (t < 49)
                EXPECT_EQ(json_number_value(value("log_snr")), rows[t].log_snr);
            else
                EXPECT_TRUE(json_is_null(value("log_snr"))); // no signal
        }
    }
}

TEST_F(Schedule, AModelsOwnIsShown) {
    make_model("one,two", kPoints, kSchedule);
    write("file.json", R"({"trained_betas": [0.1, 0.2, 0.5], "num_train_timesteps": 3})");
    works({"schedule", "--model", "one,two/", "--scheduler", "file.json", "--out", "a.csv"});
    std::string text = read("a.csv");
    // A comma needs quotes; without them the line is as the others.
    ASSERT_NE(text.find("\n\"one,two\",0,"), std::string::npos) << text.substr(0, 300);
    for (size_t at; (at = text.find("\"one,two\"")) != std::string::npos;)
        text.replace(at, 9, "model");
    write("b.csv", text);
    const auto all = table("b.csv");
    EXPECT_EQ(all.size(), 2u);
    EXPECT_EQ(all.at("model").size(), 100u);
    EXPECT_DOUBLE_EQ(all.at("model")[0].beta, 0.001);
    EXPECT_DOUBLE_EQ(all.at("model")[99].beta, 0.2);
    ASSERT_EQ(all.at("file.json").size(), 3u);
    EXPECT_DOUBLE_EQ(all.at("file.json")[2].bar, 0.9 * 0.8 * 0.5);
    works({"schedule", "--model", "one,two", "--schedules", "linear", "--out", "a.csv"});
    EXPECT_NE(read("a.csv").find("\nlinear,999,"), std::string::npos);
}

TEST_F(Schedule, ThePlotsArePictures) {
    works({"schedule", "--out", "a.png"});
    EXPECT_EQ(picture("a.png"), (std::vector<int64_t>{1520, 1120, 3}));
    const double four = drawn("a.png");
    EXPECT_GT(four, 0.02);
    EXPECT_LT(four, 0.3);
    works({"schedule", "--schedules", "linear", "--out", "b.png"});
    EXPECT_LT(drawn("b.png"), four - 0.005); // three curves less
    works({"schedule", "--out", "a.svg"});
    const std::string svg = read("a.svg");
    for (const char *word : {"<?xml", "squaredcos_cap_v2", "log-SNR", "</svg>"})
        EXPECT_NE(svg.find(word), std::string::npos) << word;
    works({"schedule", "--out", "a.pdf"});
    EXPECT_EQ(read("a.pdf").rfind("%PDF", 0), 0u);
    // No part of the picture depends on the call or the user's language.
    setenv("LC_ALL", "de_DE.UTF-8", 1);
    works({"schedule", "--out", "c.png"});
    unsetenv("LC_ALL");
    EXPECT_EQ(read("c.png"), read("a.png"));
}

// Names reach gnuplot as texts, whatever is in them.
TEST_F(Schedule, NamesAreNotRun) {
    const std::string name = "it's `touch x` \"$y\" @z \\ 100%_{a}\nsystem('touch x')\n#";
    make_model("own", kPoints, kSchedule);
    ASSERT_EQ(rename(path("own").c_str(), path(name).c_str()), 0);
    works({"schedule", "--model", name, "--out", "a.svg"});
    EXPECT_FALSE(exists("x"));
    EXPECT_NE(read("a.svg").find("100%_{a} system("), std::string::npos);
}

TEST_F(Schedule, WhatCannotBeIsRefused) {
    const std::string kinds = "linear, scaled_linear, squaredcos_cap_v2 or sigmoid";
    fails(2, {"schedule", "--schedules", "linear,quadratic"}, {"--schedules", kinds, "quadratic"});
    fails(2, {"schedule", "--schedules", "linear,"}, {"--schedules", kinds, "got \"\""});
    fails(2, {"schedule", "--schedules", "custom"}, {kinds});
    fails(2, {"schedule", "--schedules", "linear,sigmoid,linear"}, {"\"linear\" is there twice"});
    fails(2, {"schedule", "--beta-start", "0.03"}, {"--beta-start", "at most --beta-end", "0.02"});
    fails(2, {"schedule", "--schedules", "cosine", "--beta-end", "0.1"}, {"--beta-end"});
    fails(1, {"schedule", "--schedules", "linear", "--training-steps", "100000"},
          {"--schedules: linear", "signal is gone"});
    fails(2, {"schedule", "--json", "--out", "a.json"}, {"--json and --out"});
    for (const char *out : {"a.jpg", "a", "a.PNG", ".png", "a.gif"})
        fails(2, {"schedule", "--out", out}, {"--out", ".png, .svg, .pdf, .csv or .json", out});
    fails(1, {"schedule", "--out", "absent/a.png"}, {"--out: there is no folder absent"});
    fails(1, {"schedule", "--model", "absent"}, {"--model: there is no folder absent"});
    ASSERT_EQ(mkdir(path("empty").c_str(), 0777), 0);
    fails(1, {"schedule", "--model", "empty"}, {"--model: empty", "scheduler_config.json"});
    fails(1, {"schedule", "--scheduler", "absent.json"}, {"absent.json"});
    write("bad.json", "{\"beta_start\": 2}");
    fails(1, {"schedule", "--scheduler", "bad.json"}, {"bad.json", "start"});
    write("bad.json", "[]");
    fails(1, {"schedule", "--scheduler", "bad.json"}, {"bad.json"});
    EXPECT_EQ(list(".").size(), 2u);
}

TEST_F(Schedule, GnuplotsFailuresAreOneLine) {
    RunOptions options;
    options.search_path = folder + "/empty";
    fails(1, {"schedule", "--out", "a.png"}, {"gnuplot is not installed", "gnuplot-nox"}, options);
    options.search_path = folder;
    const struct {
        const char *commands, *words;
    } rows[] = {
        // It ends before it has read the script: no SIGPIPE for us.
        {"exec /bin/true", "a.png: gnuplot drew no picture"},
        {"echo '  ^' >&2; echo 'line 3: no such terminal' >&2; echo >&2; exit 3",
         "a.png: gnuplot failed with status 3: line 3: no such terminal"},
        {"/bin/cat > /dev/null; exit 1", "a.png: gnuplot failed with status 1"},
        {"/bin/cat > /dev/null; echo text", "a.png: gnuplot drew no picture"},
        {"kill -SEGV $$", "a.png: gnuplot was ended by signal 11"},
    };
    for (const auto &row : rows) {
        make_gnuplot(row.commands);
        fails(1, {"schedule", "--out", "a.png"}, {row.words}, options);
        EXPECT_FALSE(exists("a.png"));
    }
    ASSERT_EQ(chmod(path("gnuplot").c_str(), 0644), 0);
    fails(1, {"schedule", "--out", "a.png"}, {"gnuplot: cannot be started"}, options);
    // Complaints beside a picture are none.
    make_gnuplot("/bin/cat > /dev/null; echo warning >&2; printf '\\211PNG and more'");
    works({"schedule", "--out", "a.png"}, options);
    EXPECT_EQ(read("a.png"), "\211PNG and more");
}

TEST_F(Schedule, AFullDiskLeavesTheOldFile) {
    RunOptions options;
    options.file_limit = 512;
    for (const char *out : {"a.png", "a.svg", "a.csv", "a.json"}) {
        write(out, "old");
        fails(1, {"schedule", "--out", out}, {out, "cannot write"}, options);
        EXPECT_EQ(read(out), "old");
        ASSERT_EQ(unlink(path(out).c_str()), 0);
        EXPECT_EQ(list(".").size(), 0u) << out;
    }
    options.file_limit = 0;
    options.stdout_path = "/dev/full";
    fails(1, {"schedule", "--json"}, {"standard output"}, options);
    fails(1, {"schedule"}, {"standard output"}, options);
}

TEST_F(Schedule, ASignalEndsIt) {
    // The child would take for ever; it must go too.
    make_gnuplot("echo $$ > pid; exec /bin/sleep 1000");
    for (int number : {SIGINT, SIGTERM}) {
        RunOptions options;
        options.search_path = folder;
        bool sent = false;
        options.watch = [&](pid_t pid, const std::string &) {
            if (sent || read("pid").find('\n') == std::string::npos) return;
            usleep(20000);
            kill(pid, number);
            sent = true;
        };
        fails(130, {"schedule", "--out", "a.png"}, {"interrupted", "nothing was written"}, options);
        EXPECT_TRUE(sent);
        EXPECT_FALSE(exists("a.png"));
        EXPECT_EQ(kill(pid_t(std::stol(read("pid"))), 0), -1);
        ASSERT_EQ(unlink(path("pid").c_str()), 0);
    }
}

} // namespace
