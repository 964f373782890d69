#include "cli/command.h"

// The help texts, and the scripts and pages made of the same tables.
class Help : public CommandTest {
  protected:
    // Runs a script with a shell; what it prints, and its exit status in `status`.
    std::string shell(const std::string &program, const std::string &script) {
        write("script", script);
        const std::string command =
            "cd '" + folder + "' && PATH='" TW_BUILD_DIR "/host':$PATH " + program + " script 2>&1";
        std::string out;
        FILE *pipe = popen(command.c_str(), "r");
        if (!pipe) return "popen failed";
        char buffer[4096];
        for (size_t n; (n = fread(buffer, 1, sizeof buffer, pipe)) > 0;) out.append(buffer, n);
        const int rc = pclose(pipe);
        status = WIFEXITED(rc) ? WEXITSTATUS(rc) : -1;
        return out;
    }
    static bool installed(const std::string &program) {
        return system(("command -v " + program + " >/dev/null 2>&1").c_str()) == 0;
    }
    // The words that bash offers for the last of `words`.
    std::string offered(const std::vector<std::string> &words) {
        std::string line;
        for (const std::string &word : words) line += "'" + word + "' ";
        const std::string text =
            shell("bash --norc", "set -u\nsource <(tweedie completion bash)\nCOMP_WORDS=(" + line +
                                     ")\nCOMP_CWORD=$((${#COMP_WORDS[@]} - 1))\n_tweedie\n" +
                                     "echo \"${COMPREPLY[*]-}\"\n");
        EXPECT_EQ(status, 0) << text;
        return text;
    }
    // The commands, as the overview lists them.
    std::vector<std::string> commands() {
        std::vector<std::string> names;
        std::stringstream lines(works({"help"}).out);
        bool listed = false;
        for (std::string line; std::getline(lines, line);) {
            if (listed && line.empty()) break;
            if (listed) names.push_back(line.substr(2, line.find(' ', 2) - 2));
            listed |= line == "Commands:";
        }
        EXPECT_GE(names.size(), 6u);
        return names;
    }
    int status = 0;
};

TEST_F(Help, FillsThePlainWidth) {
    for (const std::string &command : commands()) {
        const std::string text = works({"help", command}).out;
        std::stringstream lines(text);
        bool example = false;
        size_t longest = 0;
        for (std::string line; std::getline(lines, line);) {
            // An example is not broken, so that it can be copied.
            if (!example) longest = std::max(longest, line.size());
            example = line.rfind("  # ", 0) == 0;
            EXPECT_TRUE(line.empty() || line.back() != ' ') << "\"" << line << "\"";
        }
        EXPECT_LE(longest, 80u) << text;
    }
}

TEST_F(Help, IsAskedForInShort) {
    EXPECT_EQ(works({"-h"}).out, works({"help"}).out);
    EXPECT_EQ(works({"sample", "-h"}).out, works({"help", "sample"}).out);
}

TEST_F(Help, FitsTheTerminal) {
    const std::string shown = on_terminal({"help", "completion"}, 50);
    size_t longest = 0, at = 0;
    for (size_t end; (end = shown.find("\r\n", at)) != std::string::npos; at = end + 2)
        if (shown.compare(at, 2, "  ") != 0) longest = std::max(longest, end - at);
    EXPECT_LE(longest, 50u) << shown;
    EXPECT_GT(longest, 40u) << shown;
}

TEST_F(Help, ExplainsEveryPreset) {
    const std::string text = works({"help", "train"}).out;
    const size_t at = text.find("\n  --preset "), note = text.find("\nPresets: ");
    ASSERT_NE(note, std::string::npos) << text;
    std::stringstream names(text.substr(at + 12, text.find_first_of(" \n", at + 12) - at - 12));
    for (std::string name; std::getline(names, name, '|');)
        EXPECT_TRUE(text.find(name + " (", note) != std::string::npos ||
                    text.find(name + "\n(", note) != std::string::npos)
            << name << "\n"
            << text;
}

TEST_F(Help, NamesTheNearestCommand) {
    fails(2, {"help", "smaple"}, {"did you mean sample?"});
    fails(2, {"completion", "csh"}, {"completion: expected bash, zsh or fish, got \"csh\""});
    fails(2, {"completion"}, {"expected bash, zsh or fish"});
    fails(2, {"completion", "bash", "zsh"}, {"got \"bash\" and \"zsh\""});
}

TEST_F(Help, BashCompletesWhatIsTyped) {
    EXPECT_EQ(offered({"tweedie", "s"}).substr(0, 6), "sample");
    EXPECT_NE(offered({"tweedie", ""}).find("info train sample"), std::string::npos);
    EXPECT_EQ(offered({"tweedie", "sample", "--clip-"}),
              "--clip-range --clip-quantile --clip-max\n");
    EXPECT_EQ(offered({"tweedie", "sample", "--sampler", ""}), "ddim ddpm\n");
    EXPECT_EQ(offered({"tweedie", "train", "--loss-weight", "=", "m"}), "min-snr\n");
    EXPECT_EQ(offered({"tweedie", "train", "--loss-weight", "="}), "simple min-snr\n");
    EXPECT_EQ(offered({"tweedie", "sample", "--class", ""}), "all\n");
    EXPECT_EQ(offered({"tweedie", "train", "--steps", ""}), "\n");
    EXPECT_EQ(offered({"tweedie", "completion", ""}).substr(0, 14), "bash zsh fish ");
    EXPECT_EQ(offered({"tweedie", "help", "tr"}), "train\n");
    EXPECT_EQ(offered({"tweedie", "unheard", ""}), "\n");
    // No option twice, but for those that may be.
    EXPECT_EQ(offered({"tweedie", "train", "--set", "a=1", "--se"}), "--set --seed\n");
    EXPECT_EQ(offered({"tweedie", "info", "--json", "--js"}), "\n");
    EXPECT_EQ(offered({"tweedie", "info", "--js"}), "--json\n");
}

TEST_F(Help, BashCompletesFiles) {
    for (const char *name : {"run.json", "run.txt", "noise it.npy"}) write(name, "");
    ASSERT_EQ(mkdir(path("runs").c_str(), 0777), 0);
    auto sorted = [&](const std::vector<std::string> &words) {
        std::stringstream text(offered(words));
        std::vector<std::string> names;
        for (std::string name; text >> name;) names.push_back(name);
        std::sort(names.begin(), names.end());
        return names;
    };
    using Names = std::vector<std::string>;
    EXPECT_EQ(sorted({"tweedie", "train", "--config", "r"}), (Names{"run.json", "runs"}));
    EXPECT_EQ(sorted({"tweedie", "train", "--out", "r"}), (Names{"runs"}));
    EXPECT_EQ(sorted({"tweedie", "sample", "--out", "r"}), (Names{"run.json", "run.txt", "runs"}));
    // One name, with its space.
    EXPECT_EQ(offered({"tweedie", "sample", "--noise", "n"}), "noise it.npy\n");
}

TEST_F(Help, EveryShellReadsItsScript) {
    for (const std::string name : {"bash", "zsh", "fish"}) {
        const std::string script = works({"completion", name}).out;
        EXPECT_NE(script.find("min-snr"), std::string::npos) << name;
        if (!installed(name)) {
            printf("%s is not installed: its script is not checked\n", name.c_str());
            continue;
        }
        EXPECT_EQ(shell(name + " -n", script), "") << name;
        EXPECT_EQ(status, 0) << name;
    }
}

TEST_F(Help, FishCompletes) {
    if (!installed("fish")) GTEST_SKIP() << "fish is not installed";
    const std::string begin = "tweedie completion fish | source\ncomplete -C ";
    EXPECT_EQ(shell("fish -N", begin + "'tweedie sample --sampler '"),
              "ddim\tDDIM, or ancestral DDPM\nddpm\tDDIM, or ancestral DDPM\n");
    EXPECT_NE(shell("fish -N", begin + "'tweedie sample --clip-q'").find("--clip-quantile\t"),
              std::string::npos);
    EXPECT_EQ(shell("fish -N", begin + "'tweedie tr'"), "train\ttrains a model on a data set\n");
}

TEST_F(Help, TheManPageIsWellFormed) {
    write("tweedie.1", works({"help", "--man"}).out);
    for (const char *part : {"\n.SH EXIT STATUS\n", "\n.SH ENVIRONMENT\n", "\n.SH FILES\n",
                             "\n.SH EXAMPLES\n", "GOMP_SPINCOUNT", "\\-\\-clip\\-quantile"})
        EXPECT_NE(read("tweedie.1").find(part), std::string::npos) << part;
    if (installed("mandoc"))
        // It carries no date: it is as old as the program.
        EXPECT_EQ(shell("sh", "mandoc -T lint -W warning tweedie.1 | grep -v 'missing date'"), "");
    else
        printf("mandoc is not installed\n");
    if (installed("groff"))
        EXPECT_EQ(shell("sh", "groff -ww -man -Tutf8 tweedie.1 >/dev/null"), "");
    else
        printf("groff is not installed\n");
}
