#include "cli/uses/uses.h"

// Writes the folder "logged": the metrics of 40 steps.
inline void make_log(EveryOption &t) {
    std::string text;
    for (int k = 1; k <= 40; k++)
        text += "{\"step\": " + std::to_string(k) + ", \"loss\": " + std::to_string(1.0 / k) +
                ", \"lr\": 0.1}\n";
    mkdir(t.path("logged").c_str(), 0777);
    t.write("logged/metrics.jsonl", text);
}

static const std::vector<Use> plot_uses = {
    {"plot",
     {"run", "out", "smooth"},
     [](EveryOption &t) {
         make_log(t);
         t.works({"plot", "--run", "logged", "--out", "a.csv", "--smooth", "3"});
         EXPECT_NE(t.read("a.csv").find("\nlogged,2,0.5,0.611111"), std::string::npos)
             << t.read("a.csv").substr(0, 300);
     }},
    {"plot",
     {"loss-axis"},
     [](EveryOption &t) {
         make_log(t);
         t.works({"plot", "--run", "logged", "--out", "a.svg", "--loss-axis", "log"});
         t.works({"plot", "--run", "logged", "--out", "b.svg", "--loss-axis", "linear"});
         EXPECT_NE(t.read("a.svg"), t.read("b.svg"));
     }},
};

static const std::vector<Misuse> plot_misuses = {
    {"plot", "run", {"--run", "absent", "--out", "a.png"}, 1, "there is no run absent"},
    {"plot", "out", {"--run", "points", "--out", "a.npy"}, 2, ".png, .svg, .pdf or .csv"},
    {"plot", "smooth", {"--smooth", "0"}, 2, "from 1 to 1000000000"},
    {"plot", "loss-axis", {"--loss-axis", "root"}, 2, "auto, linear or log"},
};
