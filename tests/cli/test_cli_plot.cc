#include "cli/command.h"

namespace {

class Plot : public CommandTest {
  protected:
    // A run's folder with these lines in its metrics.jsonl.
    void make_run(const std::string &name, const std::vector<std::string> &lines,
                  const std::string &end = "\n") {
        mkdir(path(name).c_str(), 0777);
        std::string text;
        for (size_t i = 0; i < lines.size(); i++)
            text += lines[i] + (i + 1 < lines.size() ? "\n" : end);
        write(name + "/metrics.jsonl", text);
    }
    static std::string step(int k, double loss) {
        char line[200];
        snprintf(line, sizeof line,
                 "{\"step\": %d, \"loss\": %.17g, \"grad_norm\": %.17g, \"lr\": %.17g, "
                 "\"skipped\": 0, \"samples_per_s\": 5, \"time\": 1}",
                 k, loss, 2 * loss, 1.0 / k);
        return line;
    }
    static std::string held_out(int k, double loss) {
        char line[200];
        snprintf(line, sizeof line,
                 "{\"step\": %d, \"validation_loss\": %.17g, \"validation_loss_average\": %.17g}",
                 k, loss, 0.9 * loss);
        return line;
    }
    // A run of n steps whose losses fall, with held-out losses.
    void make_usual_run(const std::string &name, int n) {
        std::vector<std::string> lines;
        for (int k = 1; k <= n; k++) {
            lines.push_back(step(k, 1.0 / k + 0.01 * (k % 3)));
            if (k % 20 == 0) lines.push_back(held_out(k, 1.1 / k));
        }
        make_run(name, lines);
    }
    // A .csv's cells, without its first line; empty ones are NaN.
    std::vector<std::vector<double>> numbers(const std::string &name, std::string *runs = nullptr) {
        std::vector<std::vector<double>> rows;
        std::stringstream lines(read(name));
        std::string line;
        std::getline(lines, line);
        EXPECT_EQ(line,
                  "run,step,loss,loss_mean,grad_norm,lr,validation_loss,validation_loss_average");
        while (std::getline(lines, line)) {
            std::vector<double> row;
            if (runs) *runs += line.substr(0, line.find(',')) + " ";
            for (size_t at = line.find(','); at != std::string::npos; at = line.find(',', at + 1)) {
                const std::string cell = line.substr(at + 1, line.find(',', at + 1) - at - 1);
                row.push_back(cell.empty() ? NAN : std::stod(cell));
            }
            EXPECT_EQ(row.size(), 7u) << line;
            rows.push_back(row);
        }
        return rows;
    }
};

TEST_F(Plot, TheNumbersAreTheRunsAndTheirMeans) {
    make_run("a", {step(1, 8), step(2, 4), held_out(2, 5), step(3, 1), step(5, 3), step(6, 7)});
    works({"plot", "--run", "a", "--smooth", "3", "--out", "a.csv"});
    std::string runs;
    const auto rows = numbers("a.csv", &runs);
    EXPECT_EQ(runs, "a a a a a a ");
    const double steps[] = {1, 2, 3, 5, 6}, losses[] = {8, 4, 1, 3, 7};
    const double means[] = {8, 13.0 / 3, 8.0 / 3, 11.0 / 3, 5};
    ASSERT_EQ(rows.size(), 6u);
    for (size_t i = 0; i < 5; i++) {
        EXPECT_EQ(rows[i][0], steps[i]);
        EXPECT_EQ(rows[i][1], losses[i]);
        EXPECT_DOUBLE_EQ(rows[i][2], means[i]) << i;
        EXPECT_EQ(rows[i][3], 2 * losses[i]);
        EXPECT_DOUBLE_EQ(rows[i][4], 1 / steps[i]);
        EXPECT_TRUE(std::isnan(rows[i][5]) && std::isnan(rows[i][6]));
    }
    EXPECT_EQ(rows[5][0], 2);
    EXPECT_TRUE(std::isnan(rows[5][1]) && std::isnan(rows[5][2]));
    EXPECT_EQ(rows[5][5], 5);
    EXPECT_DOUBLE_EQ(rows[5][6], 4.5);
    // An even window has one more after than before; one of 1 is the loss itself.
    works({"plot", "--run", "a/metrics.jsonl", "--smooth", "4", "--out", "a.csv"});
    EXPECT_DOUBLE_EQ(numbers("a.csv")[1][2], (8 + 4 + 1 + 3) / 4.0);
    works({"plot", "--run", "a", "--smooth", "1", "--out", "a.csv"});
    for (size_t i = 0; i < 5; i++) EXPECT_EQ(numbers("a.csv")[i][2], losses[i]);
    // Longer than the run.
    works({"plot", "--run", "a", "--smooth", "1000", "--out", "a.csv"});
    EXPECT_DOUBLE_EQ(numbers("a.csv")[2][2], 23.0 / 5);
}

TEST_F(Plot, LossesThatAreNoNumbersAreGaps) {
    make_run("a", {step(1, 8), "{\"step\": 2, \"loss\": null, \"grad_norm\": null, \"lr\": 1}",
                   "{\"step\": 3, \"loss\": 2}"});
    works({"plot", "--run", "a", "--smooth", "3", "--out", "a.csv"});
    const auto rows = numbers("a.csv");
    ASSERT_EQ(rows.size(), 3u);
    EXPECT_TRUE(std::isnan(rows[1][1]));
    EXPECT_DOUBLE_EQ(rows[1][2], 5);
    EXPECT_TRUE(std::isnan(rows[2][4]));
    works({"plot", "--run", "a", "--out", "a.png"});
    make_run("a", {"{\"step\": 2, \"loss\": null}"});
    fails(1, {"plot", "--run", "a", "--out", "b.png"}, {"a: no loss is a number"});
}

TEST_F(Plot, ARunInTrainingEndsInItsMidst) {
    make_run("a", {step(1, 8), step(2, 4), "{\"step\": 3, \"lo"}, "");
    works({"plot", "--run", "a", "--out", "a.csv"});
    EXPECT_EQ(numbers("a.csv").size(), 2u);
}

TEST_F(Plot, ARealRunsLogIsRead) {
    write("run.json",
          std::string("{\"model\": ") + kPoints + ", \"scheduler\": " + kSchedule +
              ", \"options\": {\"data\": \"scurve\", \"batch-size\": 8, \"steps\": 12," +
              "\"holdout\": 0.2, \"validate-every\": 6, \"threads\": 1}}");
    works({"train", "--config", "run.json", "--out", "run"});
    works({"plot", "--run", "run/", "--out", "a.csv"});
    std::string runs;
    EXPECT_EQ(numbers("a.csv", &runs).size(), 14u);
    EXPECT_EQ(runs.substr(0, 8), "run run ");
    works({"plot", "--run", "run/", "--out", "a.png"});
}

TEST_F(Plot, ThePlotsArePictures) {
    make_usual_run("one", 100);
    make_usual_run("two", 6000); // thinned
    works({"plot", "--run", "one", "--out", "a.png"});
    EXPECT_EQ(picture("a.png"), (std::vector<int64_t>{1520, 1120, 3}));
    EXPECT_GT(drawn("a.png"), 0.02);
    EXPECT_LT(drawn("a.png"), 0.4);
    works({"plot", "--run", "one", "--run", "two", "--out", "b.png"});
    EXPECT_NE(read("b.png"), read("a.png"));
    for (const char *axis : {"linear", "log"}) {
        works({"plot", "--run", "one", "--loss-axis", axis, "--out", std::string(axis) + ".png"});
        EXPECT_GT(drawn(std::string(axis) + ".png"), 0.02);
    }
    EXPECT_EQ(read("log.png"), read("a.png")); // it falls a hundredfold
    EXPECT_NE(read("linear.png"), read("a.png"));
    works({"plot", "--run", "one", "--run", "two", "--out", "a.svg"});
    const std::string svg = read("a.svg");
    for (const char *word : {"one, held out, averaged weights", "two, held out",
                             "norm of the gradient", "learning rate", "mean of 121 steps or fewer"})
        EXPECT_NE(svg.find(word), std::string::npos) << word;
    EXPECT_LT(svg.size(), 2u << 20);
    works({"plot", "--run", "one", "--out", "a.pdf"});
    EXPECT_EQ(read("a.pdf").rfind("%PDF", 0), 0u);
}

// A panel is there when there is something to show.
TEST_F(Plot, PartsAreLeftOut) {
    make_run("a", {held_out(5, 2), held_out(9, 1)});
    works({"plot", "--run", "a", "--out", "a.svg"});
    EXPECT_EQ(read("a.svg").find("learning rate"), std::string::npos);
    EXPECT_NE(read("a.svg").find("a, held out"), std::string::npos);
    make_run("a", {"{\"step\": 1, \"loss\": 1}", "{\"step\": 2, \"loss\": 1}"});
    works({"plot", "--run", "a", "--out", "a.svg"});
    EXPECT_EQ(read("a.svg").find("gradient"), std::string::npos);
    make_run("a", {"{\"step\": 0, \"loss\": 0, \"lr\": 0, \"grad_norm\": 0}"});
    works({"plot", "--run", "a", "--loss-axis", "log", "--out", "a.svg"});
}

TEST_F(Plot, FoldersMayHaveAnyName) {
    const std::string odd = "a,b 'c' {d}_e^f";
    make_usual_run(odd, 30);
    works({"plot", "--run", odd, "--out", "a.svg"});
    EXPECT_NE(read("a.svg").find("a,b 'c' {d}_e^f"), std::string::npos);
    works({"plot", "--run", odd, "--out", "a.csv"});
    EXPECT_NE(read("a.csv").find("\n\"" + odd + "\",1,"), std::string::npos);
    // The cut would fall into a character of two bytes.
    const std::string longer = std::string(70, 'x') + "/\xc3\xa9" + std::string(59, 'y');
    mkdir(path(longer.substr(0, 70)).c_str(), 0777);
    make_usual_run(longer, 30);
    works({"plot", "--run", longer, "--out", "a.csv"});
    EXPECT_NE(read("a.csv").find("\n..." + longer.substr(73) + ",1,"), std::string::npos)
        << read("a.csv").substr(0, 300);
}

TEST_F(Plot, BrokenAndForeignLinesAreNamed) {
    const struct {
        std::string line, words;
    } rows[] = {
        {"{\"step\": 3, \"loss\": 1", "expected a JSON object"},
        {"", "expected a JSON object"},
        {"[3, 1]", "expected a JSON object"},
        {"loss: 1", "expected a JSON object"},
        {"{\"loss\": 1}", "expected \"step\", a whole number"},
        {"{\"step\": 3.5, \"loss\": 1}", "expected \"step\", a whole number"},
        {"{\"step\": -3, \"loss\": 1}", "expected \"step\", a whole number"},
        {"{\"step\": \"3\", \"loss\": 1}", "expected \"step\", a whole number"},
        {"{\"step\": 3, \"loss\": \"low\"}", "loss: expected a number"},
        {"{\"step\": 3, \"loss\": 1, \"lr\": [1]}", "lr: expected a number"},
        {"{\"step\": 3, \"accuracy\": 1}", "expected \"loss\" or \"validation_loss\""},
        {"{\"step\": 3, \"step\": 4, \"loss\": 1}", "expected a JSON object"},
        {"{\"step\": 2, \"loss\": 1}", "expected a step past that of the lines before"},
        {"{\"step\": 1, \"validation_loss\": 1}", "expected a step not before"},
    };
    for (const auto &row : rows) {
        make_run("a", {step(1, 1), step(2, 1), held_out(2, 1), row.line, step(9, 1)});
        fails(1, {"plot", "--run", "a", "--out", "a.png"},
              {"a/metrics.jsonl: line 4: ", row.words});
    }
    EXPECT_FALSE(exists("a.png"));
    make_run("a", {"{\"step\": 3"}, "");
    fails(1, {"plot", "--run", "a", "--out", "a.png"}, {"a/metrics.jsonl: no whole line"});
    write("a/metrics.jsonl", "");
    fails(1, {"plot", "--run", "a", "--out", "a.png"}, {"a/metrics.jsonl", "empty"});
    ASSERT_EQ(mkdir(path("b").c_str(), 0777), 0);
    fails(1, {"plot", "--run", "b", "--out", "a.png"}, {"b/metrics.jsonl"});
    write("image", std::string("\x89PNG\r\n\x1a\n\0\0\n", 12));
    fails(1, {"plot", "--run", "image", "--out", "a.png"}, {"image: line 1: "});
}

TEST_F(Plot, Misuse) {
    make_usual_run("a", 5);
    fails(2, {"plot", "--out", "a.png"}, {"--run DIR is missing"});
    fails(2, {"plot", "--run", "a"}, {"--out PATH is missing"});
    fails(2, {"plot", "--run", "a", "--out", "a.gif"}, {"--out", ".png, .svg, .pdf or .csv"});
    fails(1, {"plot", "--run", "a", "--run", "b", "--out", "a.png"}, {"--run: there is no run b"});
    fails(1, {"plot", "--run", "a", "--out", "absent/a.png"}, {"there is no folder absent"});
    std::vector<std::string> many = {"plot", "--out", "a.png"};
    for (int i = 0; i < 17; i++) many.insert(many.end(), {"--run", "a"});
    fails(2, many, {"--run", "at most 16"});
    fails(2, {"plot", "--run", "a", "--out", "a.png", "--smooth", "0"}, {"--smooth"});
    EXPECT_FALSE(exists("a.png"));
}

TEST_F(Plot, FailuresLeaveTheOldFile) {
    make_usual_run("a", 100);
    RunOptions options;
    for (const char *out : {"a.png", "a.csv"}) {
        write(out, "old");
        options.file_limit = 512;
        fails(1, {"plot", "--run", "a", "--out", out}, {out, "cannot write"}, options);
        EXPECT_EQ(read(out), "old");
    }
    options.file_limit = 0;
    options.search_path = folder + "/empty";
    fails(1, {"plot", "--run", "a", "--out", "a.png"}, {"gnuplot-nox"}, options);
    EXPECT_EQ(read("a.png"), "old");
    // With the child at work, and its script larger than a pipe.
    make_gnuplot("echo > begun; exec /bin/sleep 1000");
    make_usual_run("a", 20000);
    options.search_path = folder;
    bool sent = false;
    options.watch = [&](pid_t pid, const std::string &) {
        if (sent || !exists("begun")) return;
        kill(pid, SIGINT);
        sent = true;
    };
    fails(130, {"plot", "--run", "a", "--out", "a.png"}, {"interrupted"}, options);
    EXPECT_EQ(read("a.png"), "old");
}

} // namespace
