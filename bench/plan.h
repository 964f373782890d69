// What is measured, what it must move at least, and what it is expected to reach: written down
// before any measurement.
#pragma once

#include "kernels.h"

#include <string>
#include <vector>

namespace bench {

enum class Kind {
    ddim,
    update,
    noising,
    threshold,
    noise,
    norm_forward,
    norm_backward,
    activation,
    add,
    dropout,
    concat,
    spread,
    pool,
    convert,
    image,
    mse,
    column_sums,
    adamw,
};

struct Row {
    Kind kind;
    std::string name; // kernel and variant
    twk_format format;
    int64_t n, h, w, c;
    int groups = 0; // of the norm
    bool noisy = false;
    double bytes; // that must cross device memory
    std::string formula;
    std::string limit; // what is expected to bind
    double percent;    // of the copy bandwidth, predicted
    std::string note;
};

// The reference GPU of the floors (H200): device copy counted read + write.
constexpr double reference_bandwidth = 4.3e12;
// A launch that does nothing takes about this long inside a graph.
constexpr double launch_seconds = 2.0e-6;

std::vector<Row> plan();
std::string shape_of(const Row &row);
const char *name_of(twk_format format);
size_t bytes_of(twk_format format);
double floor_seconds(const Row &row);
double predicted_seconds(const Row &row);
// The plan as a page.
std::string page(const std::vector<Row> &rows);

} // namespace bench
