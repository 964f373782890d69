// Timing on a GPU; built only with CUDA.
#pragma once

#include "plan.h"

#include <cstdio>
#include <string>
#include <vector>

namespace bench {

struct Options {
    std::string filter, json;
    bool quick = false;
};

// Measures the rows whose name contains the filter and prints them; JSON lines go to options.json.
// 0 on success; 2 and a reason where there is no GPU.
int measure(const std::vector<Row> &rows, const Options &options);

} // namespace bench
