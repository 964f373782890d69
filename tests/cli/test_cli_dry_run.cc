#include "cli/train_runs.h"

#include <algorithm>

class DryRun : public Train {
  protected:
    json_t *json_of(std::vector<std::string> args) {
        args.insert(args.end(), {"--dry-run", "--log-json"});
        const std::vector<std::string> lines = lines_of(works(args).out);
        EXPECT_EQ(lines.size(), 1u);
        json_t *j = lines.empty() ? nullptr : json_loads(lines[0].c_str(), 0, nullptr);
        EXPECT_NE(j, nullptr);
        return j;
    }
    // A number by its path, such as "memory/weights".
    static double number(const json_t *j, const std::string &at) {
        std::stringstream parts(at);
        for (std::string key; std::getline(parts, key, '/');) j = json_object_get(j, key.c_str());
        EXPECT_TRUE(json_is_number(j)) << at;
        return json_number_value(j);
    }
};

TEST_F(DryRun, SaysAllAndWritesNothing) {
    const std::vector<std::string> before = list(".");
    const Result r = works(with({"--out", "a", "--steps", "2000", "--preview-every", "10",
                                 "--holdout", "0.1", "--validate-every", "5", "--dry-run"}));
    for (const char *part :
         {"TweedieMLP", "2,000 of 8 points",
          "plan       micro-step: ", "plan       optimizer: ", "chosen     cpu-", "FLOP",
          "more while a save is written", "more for a picture", "the machine has",
          "output     none: nothing is written", "for 2,000 steps", "the median of", "timed"})
        EXPECT_NE(r.out.find(part), std::string::npos) << part << "\n" << r.out;
    EXPECT_EQ(list("."), before);
    // No folder need be named, but one that is taken is refused as ever.
    EXPECT_NE(works(with({"--dry-run"})).out.find("timed"), std::string::npos);
    write("file", "");
    fails(1, with({"--out", "file", "--dry-run"}), {"--out: file is a file"});
    fails(1, with({"--set", "model.hidden=1", "--dry-run"}), {"hidden"});
    fails(2, {"train", "--resume", "--dry-run"}, {"--out DIR is missing"});
}

TEST_F(DryRun, TellsNumbersToPrograms) {
    json_t *j = json_of(with({"--steps", "50"}));
    EXPECT_TRUE(json_is_true(json_object_get(j, "dry_run")));
    EXPECT_EQ(number(j, "steps"), 50);
    EXPECT_EQ(number(j, "done"), 0);
    EXPECT_EQ(number(j, "data/count"), 10000);
    double launches = 0;
    const char *name;
    json_t *count;
    json_object_foreach(
        json_object_get(json_object_get(json_object_get(j, "plan"), "micro-step"), "providers"),
        name, count) launches += json_number_value(count);
    EXPECT_EQ(launches, number(j, "plan/micro-step/launches"));
    double operations = 0;
    json_t *kinds;
    const char *kind;
    json_object_foreach(json_object_get(json_object_get(j, "providers"), "chosen"), name, kinds)
        json_object_foreach(kinds, kind, count) operations += json_number_value(count);
    EXPECT_EQ(operations,
              number(j, "plan/micro-step/operations") + number(j, "plan/optimizer/operations"));
    EXPECT_TRUE(json_is_array(json_object_get(json_object_get(j, "providers"), "refused")));
    EXPECT_GT(number(j, "plan/micro-step/flops"), 0);
    EXPECT_GT(number(j, "plan/optimizer/operations"), 0);
    EXPECT_GE(number(j, "memory/weights"), 4 * number(j, "model/parameters"));
    EXPECT_EQ(number(j, "memory/optimizer"), 2 * number(j, "memory/weights"));
    EXPECT_GT(number(j, "memory/save"), 3 * number(j, "memory/weights"));
    EXPECT_EQ(number(j, "memory/preview"), 0);
    EXPECT_GT(number(j, "memory/machine"), number(j, "memory/process"));
    EXPECT_GT(number(j, "time/seconds_per_step"), 0);
    EXPECT_NEAR(number(j, "time/seconds_left"), 50 * number(j, "time/seconds_per_step"),
                1e-6 * number(j, "time/seconds_left"));
    json_decref(j);
    j = json_of(with({"--steps", "1", "--preview-every", "1"}));
    EXPECT_EQ(number(j, "time/timed_steps"), 1);
    EXPECT_GT(number(j, "memory/preview"), 0);
    json_decref(j);
}

TEST_F(DryRun, OfARunThatGoesOnLeavesItAsItIs) {
    works(with({"--out", "a", "--steps", "10", "--tensorboard", "off"}));
    const std::string record = read("a/run.json"), log = read("a/metrics.jsonl"), was = state("a");
    const std::vector<std::string> files = list("a");
    json_t *j = json_of({"train", "--out", "a", "--resume", "--steps", "30"});
    EXPECT_EQ(number(j, "done"), 10);
    EXPECT_EQ(number(j, "time/steps_left"), 20);
    json_decref(j);
    j = json_of({"train", "--out", "a", "--resume"});
    EXPECT_EQ(number(j, "time/steps_left"), 0);
    EXPECT_EQ(number(j, "time/timed_steps"), 0);
    json_decref(j);
    EXPECT_NE(
        works({"train", "--out", "a", "--resume", "--dry-run"}).out.find("all steps are done"),
        std::string::npos);
    EXPECT_EQ(read("a/run.json"), record);
    EXPECT_EQ(read("a/metrics.jsonl"), log);
    EXPECT_EQ(state("a"), was);
    EXPECT_EQ(list("a"), files);
    fails(1, with({"--out", "a", "--dry-run"}), {"a already holds a run"});
    fails(1, {"train", "--out", "b", "--resume", "--dry-run"}, {"b holds no run"});
}
