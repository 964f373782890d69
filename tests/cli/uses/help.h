#include "cli/uses/uses.h"

static const std::vector<Use> help_uses = {
    {"help",
     {"json"},
     [](EveryOption &t) {
         json_t *j = json_loads(t.works({"help", "--json"}).out.c_str(), 0, nullptr);
         EXPECT_STREQ(json_string_value(json_object_get(j, "tweedie")), tw_version());
         json_decref(j);
     }},
};

static const std::vector<Misuse> help_misuses = {
    {"help", "json", {"--json", "train"}, 2, "expected no COMMAND"},
};
