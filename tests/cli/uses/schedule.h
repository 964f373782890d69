#include "cli/uses/uses.h"

// The numbers that `tweedie schedule` prints with these words.
inline std::string schedule_numbers(EveryOption &t, const EveryOption::Words &words) {
    return t.works(EveryOption::joined({"schedule", "--json"}, words)).out;
}

static const std::vector<Use> schedule_uses = {
    {"schedule",
     {"schedules", "training-steps", "json"},
     [](EveryOption &t) {
         EXPECT_EQ(schedule_numbers(t, {"--schedules", "linear", "--training-steps", "2"})
                       .rfind("{\"schedules\":[{\"name\":\"linear\",\"training_steps\":2,"
                              "\"beta\":[0.0001,0.02",
                              0),
                   0u);
     }},
    {"schedule",
     {"beta-start", "beta-end", "rescale-zero-snr"},
     [](EveryOption &t) {
         const std::string base = schedule_numbers(t, {"--schedules", "linear"});
         for (const EveryOption::Words &more : {EveryOption::Words{"--beta-start", "0.001"},
                                                {"--beta-end", "0.03"},
                                                {"--rescale-zero-snr"}})
             EXPECT_NE(schedule_numbers(t, EveryOption::joined({"--schedules", "linear"}, more)),
                       base)
                 << more[0];
     }},
    {"schedule",
     {"model", "scheduler"},
     [](EveryOption &t) {
         t.make_models();
         const std::string file = "points/scheduler/scheduler_config.json";
         std::string a = schedule_numbers(t, {"--model", "points"});
         std::string b = schedule_numbers(t, {"--scheduler", file});
         EXPECT_NE(a.find("\"points\""), std::string::npos);
         EXPECT_NE(b.find("\"scheduler_config.json\""), std::string::npos);
         EXPECT_EQ(a.substr(a.find("\"training_steps\"")), b.substr(b.find("\"training_steps\"")));
     }},
    {"schedule",
     {"out"},
     [](EveryOption &t) {
         t.works({"schedule", "--out", "a.png"});
         EXPECT_GT(t.drawn("a.png"), 0.02);
     }},
};

static const std::vector<Misuse> schedule_misuses = {
    {"schedule", "schedules", {"--schedules", "linear;cosine"}, 2, "squaredcos_cap_v2 or sigmoid"},
    {"schedule", "training-steps", {"--training-steps", "1"}, 2, "from 2 to 1000000"},
    {"schedule", "beta-start", {"--beta-start", "0.5"}, 2, "at most --beta-end"},
    {"schedule",
     "beta-end",
     {"--schedules", "cosine", "--beta-end", "0.5"},
     2,
     "belongs to linear"},
    {"schedule",
     "rescale-zero-snr",
     {"--model", "points", "--rescale-zero-snr"},
     2,
     "belongs to --schedules"},
    {"schedule", "model", {"--model", "absent"}, 1, "no folder absent"},
    {"schedule", "scheduler", {"--scheduler", "absent"}, 1, "absent"},
    {"schedule", "out", {"--out", "a.jpg"}, 2, ".png, .svg, .pdf, .csv or .json"},
    {"schedule", "json", {"--json", "--out", "a.json"}, 2, "one of them"},
};
