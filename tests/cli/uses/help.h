#include "cli/uses/uses.h"

static const std::vector<Use> help_uses = {
    {"help",
     {"json"},
     [](EveryOption &t) {
         json_t *j = json_loads(t.works({"help", "--json"}).out.c_str(), 0, nullptr);
         EXPECT_STREQ(json_string_value(json_object_get(j, "tweedie")), tw_version());
         json_decref(j);
     }},
    {"help",
     {"man"},
     [](EveryOption &t) {
         const std::string page = t.works({"help", "--man"}).out;
         EXPECT_EQ(page.rfind(".\\\"", 0), 0u) << page.substr(0, 80);
         EXPECT_NE(page.find("\n.SH NAME\n"), std::string::npos);
     }},
};

static const std::vector<Misuse> help_misuses = {
    {"help", "json", {"--json", "train"}, 2, "expected no COMMAND"},
    {"help", "man", {"--man", "train"}, 2, "expected no COMMAND"},
    {"help", "man", {"--man", "--json"}, 2, "expected one of them"},
};
