// What a row of the plan runs: buffers filled with noise, several sets of them so that a cold
// measurement finds nothing in the cache, and the call.
#pragma once

#include "plan.h"

#include <functional>
#include <memory>

namespace bench {

struct Job {
    int sets = 0;
    std::function<twk_status(int set, twk_stream stream)> run;
    // Largest difference of set 0's output from float64, over its first elements (a whole sample
    // for norms); empty where the row has no check of its own besides the device tests.
    std::function<double()> error;
    std::shared_ptr<void> memory; // owns the buffers
};

// Job with sets == 0 when there is not enough memory.
Job make_job(const Row &row);

} // namespace bench
