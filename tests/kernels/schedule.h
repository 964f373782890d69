#pragma once

#include <algorithm>
#include <vector>

namespace tst {

// A linear schedule in float64: A_t of each step.
struct Schedule {
    std::vector<double> a;
    explicit Schedule(int steps) {
        double product = 1;
        for (int t = 0; t < steps; t++) {
            const double beta =
                (1e-4 + (0.02 - 1e-4) * t / std::max(steps - 1, 1)) * 1000.0 / steps;
            a.push_back(product *= 1 - std::min(beta, 0.999));
        }
    }
};

} // namespace tst
