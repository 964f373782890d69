// Every option of every command is used once and misused once. The command itself says which
// options there are, so that a new one without rows fails here.
#include <algorithm>
#include <set>

#include "cli/uses/bench.h"
#include "cli/uses/diffuse.h"
#include "cli/uses/help.h"
#include "cli/uses/info.h"
#include "cli/uses/plot.h"
#include "cli/uses/sample.h"
#include "cli/uses/schedule.h"
#include "cli/uses/train.h"

template <class T> static std::vector<T> together(const std::vector<std::vector<T>> &lists) {
    std::vector<T> all;
    for (const auto &list : lists) all.insert(all.end(), list.begin(), list.end());
    return all;
}

static const std::vector<Use> kUses = together<Use>({
    bench_uses,
    diffuse_uses,
    help_uses,
    info_uses,
    plot_uses,
    sample_uses,
    schedule_uses,
    train_uses,
});

static const std::vector<Misuse> kMisuses = together<Misuse>({
    bench_misuses,
    diffuse_misuses,
    help_misuses,
    info_misuses,
    plot_misuses,
    sample_misuses,
    schedule_misuses,
    train_misuses,
});

struct Option {
    std::string command, name, type;
    std::vector<std::string> choices;
    json_t *row; // borrowed from the listing
};

class Coverage : public EveryOption {
  protected:
    void SetUp() override {
        EveryOption::SetUp();
        listing = json_loads(works({"help", "--json"}).out.c_str(), 0, nullptr);
        ASSERT_NE(listing, nullptr);
        size_t i, k, n;
        json_t *command, *row, *choice;
        json_array_foreach(json_object_get(listing, "commands"), i, command)
            json_array_foreach(json_object_get(command, "options"), k, row) {
            Option o = {text(command, "name"), text(row, "name"), text(row, "type"), {}, row};
            json_array_foreach(json_object_get(row, "choices"), n, choice)
                o.choices.push_back(json_string_value(choice));
            options.push_back(o);
        }
        ASSERT_GT(options.size(), 50u);
    }
    void TearDown() override {
        json_decref(listing);
        EveryOption::TearDown();
    }
    static std::string text(json_t *object, const char *key) {
        const char *s = json_string_value(json_object_get(object, key));
        return s ? s : "";
    }
    json_t *listing = nullptr;
    std::vector<Option> options;
};

TEST_F(Coverage, EveryOptionHasItsRows) {
    std::set<std::pair<std::string, std::string>> there, used, misused;
    for (const Option &o : options) there.insert({o.command, o.name});
    for (const Use &u : kUses)
        for (const std::string &name : u.options) used.insert({u.command, name});
    for (const Misuse &m : kMisuses) misused.insert({m.command, m.option});
    for (const auto &o : there) {
        const std::string file = "tests/cli/uses/" + o.first + ".h";
        EXPECT_TRUE(used.count(o))
            << o.first << " --" << o.second << " is used by no row: add one to " << o.first
            << "_uses in " << file;
        EXPECT_TRUE(misused.count(o))
            << o.first << " --" << o.second << " is misused by no row: add one to " << o.first
            << "_misuses in " << file;
    }
    for (const auto &rows : {used, misused})
        for (const auto &o : rows)
            EXPECT_TRUE(there.count(o)) << "a row names " << o.first << " --" << o.second
                                        << ", which `tweedie help --json` does not list";
}

// What the table of options alone refuses.
TEST_F(Coverage, TheTableIsEnforced) {
    for (const Option &o : options) {
        const std::string dashed = "--" + o.name;
        if (o.type == "flag") {
            fails(2, {o.command, dashed + "=1"}, {dashed + ": takes no value, got \"1\""});
            continue;
        }
        fails(2, {o.command, dashed}, {dashed + ": a value is missing"});
        json_t *low = json_object_get(o.row, "low"), *high = json_object_get(o.row, "high");
        if (o.type == "choice") {
            fails(2, {o.command, dashed, "neither"}, {dashed + ": expected " + o.choices[0]});
        } else if (o.type == "int") {
            if (low)
                fails(2, {o.command, dashed + "=" + std::to_string(json_integer_value(low) - 1)},
                      {dashed + ": expected a whole number from"});
            if (high)
                fails(2, {o.command, dashed + "=" + std::to_string(json_integer_value(high) + 1)},
                      {dashed + ": expected a whole number from"});
        } else if (o.type == "real") {
            fails(2, {o.command, dashed + "=nan"}, {dashed + ": expected a number"});
            if (high)
                fails(2,
                      {o.command, dashed + "=" + std::to_string(json_number_value(high) * 2 + 1)},
                      {dashed + ": expected a number from"});
        }
    }
}

// Examples are there to be copied: a word added to their end must be the only one refused.
TEST_F(Coverage, EveryCommandHasExamplesThatParse) {
    size_t i, k;
    json_t *command, *example;
    json_array_foreach(json_object_get(listing, "commands"), i, command) {
        json_t *examples = json_object_get(command, "examples");
        EXPECT_GE(json_array_size(examples), 1u) << text(command, "name");
        json_array_foreach(examples, k, example) {
            const std::string line = text(example, "command");
            if (line.find_first_of("<>|$~") != std::string::npos) continue; // the shell's
            std::stringstream words(line);
            Words args;
            for (std::string word; words >> word;) args.push_back(word);
            ASSERT_GE(args.size(), 2u) << line;
            EXPECT_EQ(args[0], "tweedie") << line;
            EXPECT_EQ(args[1], text(command, "name")) << line;
            args.erase(args.begin());
            args.push_back("--not-an-option");
            fails(2, args, {"unknown option --not-an-option"});
        }
    }
}

TEST_F(Coverage, EveryMisuseIsOneLineThatSaysWhatWouldBeRight) {
    make_models();
    make_configs();
    for (const Misuse &m : kMisuses) {
        const std::string dashed = std::string("--") + m.option;
        const Result r = fails(m.status, joined({m.command}, m.words), {m.right});
        const auto given = std::find(m.words.begin(), m.words.end(), dashed);
        const bool named = r.err.find(dashed) != std::string::npos ||
                           (m.status == 1 && given != m.words.end() && given + 1 != m.words.end() &&
                            r.err.find(given[1]) != std::string::npos);
        EXPECT_TRUE(named) << dashed << " is not named: " << r.err;
    }
    EXPECT_FALSE(exists("a"));
    EXPECT_FALSE(exists("a.npy"));
}

class Uses : public EveryOption, public testing::WithParamInterface<size_t> {};

TEST_P(Uses, DoWhatTheySay) {
    kUses[GetParam()].check(*this);
}

static std::string name_of(const testing::TestParamInfo<size_t> &info) {
    const Use &use = kUses[info.param];
    std::string name = use.command;
    for (const std::string &o : use.options) name += "_" + o;
    std::replace(name.begin(), name.end(), '-', '_');
    return name;
}
INSTANTIATE_TEST_SUITE_P(Of, Uses, testing::Range<size_t>(0, kUses.size()), name_of);
