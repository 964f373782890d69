#include "plan.h"

#include <cstdio>

namespace bench {

const char *name_of(twk_format f) {
    return f == TWK_F32 ? "fp32" : f == TWK_BF16 ? "bf16" : "fp16";
}
size_t bytes_of(twk_format f) {
    return f == TWK_F32 ? 4 : 2;
}

std::string shape_of(const Row &r) {
    std::string s = std::to_string(r.n) + "x" + std::to_string(r.h) + "x" + std::to_string(r.w) +
                    "x" + std::to_string(r.c);
    return r.groups ? s + " g" + std::to_string(r.groups) : s;
}

double floor_seconds(const Row &r) {
    return r.bytes / reference_bandwidth;
}
double predicted_seconds(const Row &r) {
    return floor_seconds(r) / (r.percent / 100) + launch_seconds;
}

namespace {

struct Shape {
    int64_t n, h, w, c;
    double elements() const { return (double)n * (double)h * (double)w * (double)c; }
};

Row make(Kind kind, const char *name, twk_format f, Shape s, double bytes_per_element,
         const char *formula, const char *limit, double percent, const char *note = "") {
    Row r = {};
    r.kind = kind;
    r.name = name;
    r.format = f;
    r.n = s.n;
    r.h = s.h;
    r.w = s.w;
    r.c = s.c;
    r.bytes = bytes_per_element * s.elements();
    r.formula = formula;
    r.limit = limit;
    r.percent = percent;
    r.note = note;
    return r;
}

void samplers(std::vector<Row> *rows) {
    // 2^26 elements: x is 256 MiB.
    const Shape large = {64, 512, 512, 4}, cifar = {512, 32, 32, 3};
    for (twk_format f : {TWK_F32, TWK_BF16, TWK_F16}) {
        const double b = (double)bytes_of(f);
        rows->push_back(make(Kind::ddim, "ddim eta 0", f, large, 8 + b, "x 4 + m b + x_p 4",
                             "memory", f == TWK_F32 ? 97 : 95));
        rows->push_back(make(Kind::ddim, "ddim eta 1", f, large, 8 + b, "x 4 + m b + x_p 4",
                             f == TWK_F32 ? "memory" : "memory, then ALU (Box-Muller)",
                             f == TWK_F32 ? 92 : 86,
                             "about 45 instructions an element for the noise"));
        rows->back().noisy = true;
        rows->push_back(make(Kind::ddim, "ddim eta 0", f, cifar, 8 + b, "x 4 + m b + x_p 4",
                             "launch", 90, "belongs in the step's graph"));
        rows->push_back(make(Kind::update, "update x, p, 2 history", f, large, 16 + b,
                             "x 4 + p b + h 2 4 + x_p 4", "memory", 94));
        rows->push_back(make(Kind::noising, "forward noising", f, large, 8 + b,
                             "x0 4 + x_t b + target 4", "memory, then ALU (Box-Muller)",
                             f == TWK_F32 ? 90 : 84));
        rows->push_back(make(Kind::noise, "noise fill", f, large, b, "out b",
                             "ALU (Philox, Box-Muller)", f == TWK_F32 ? 60 : 30));
    }
    rows->push_back(make(Kind::threshold, "dynamic threshold", TWK_BF16, {64, 64, 64, 3}, 6,
                         "x 4 + m b once", "L2 of one SM a sample", 8,
                         "four passes, one block a sample"));
}

void norms(std::vector<Row> *rows) {
    const struct {
        Shape s;
        int groups;
    } shapes[] = {{{128, 32, 32, 128}, 32}, {{128, 16, 16, 256}, 32}, {{128, 8, 8, 256}, 32},
                  {{128, 4, 4, 256}, 32},   {{128, 32, 32, 384}, 32}, {{8, 64, 64, 256}, 32},
                  {{8, 256, 256, 128}, 32}};
    for (const auto &z : shapes)
        for (twk_format f : {TWK_BF16, TWK_F32}) {
            const double b = (double)bytes_of(f);
            // The largest slices do not fit on chip: x is read twice.
            const bool twice = z.s.h >= 256;
            const bool small = z.s.elements() * b < 32e6;
            rows->push_back(make(Kind::norm_forward, "group norm + silu", f, z.s, 2 * b,
                                 "x b + y b", small ? "latency" : "memory",
                                 twice   ? 64
                                 : small ? 60
                                         : 85,
                                 twice ? "two passes: 3 b moved, 67 % at most" : "one read"));
            rows->back().groups = z.groups;
            rows->push_back(make(Kind::norm_backward, "group norm + silu backward", f, z.s, 3 * b,
                                 "x b + dy b + dx b", small ? "latency" : "memory",
                                 twice   ? 55
                                 : small ? 50
                                         : 75,
                                 twice ? "two passes: 5 b moved, 60 % at most" : "one read"));
            rows->back().groups = z.groups;
        }
}

void small_ones(std::vector<Row> *rows) {
    const Shape s = {512, 32, 32, 128}; // 2^26 elements
    for (twk_format f : {TWK_F32, TWK_BF16}) {
        const double b = (double)bytes_of(f);
        rows->push_back(make(Kind::activation, "silu", f, s, 2 * b, "x b + y b", "memory", 95));
        rows->push_back(make(Kind::add, "add", f, s, 3 * b, "a b + b b + y b", "memory", 95));
        rows->push_back(make(Kind::dropout, "dropout", f, s, 2 * b, "x b + y b",
                             f == TWK_F32 ? "memory" : "memory, then ALU (Philox)",
                             f == TWK_F32 ? 93 : 82));
        rows->push_back(
            make(Kind::concat, "concat", f, s, 2 * b, "a b/2 + b b/2 + out b", "memory", 93));
        rows->push_back(
            make(Kind::spread, "nearest up x2", f, s, 1.25 * b, "in b/4 + out b", "memory", 90));
        rows->push_back(
            make(Kind::pool, "average pool 2x2", f, s, 1.25 * b, "in b + out b/4", "memory", 90));
        rows->push_back(make(Kind::convert, "nhwc to nchw", f, s, 2 * b, "in b + out b", "memory",
                             f == TWK_F32 ? 85 : 60, "2-byte accesses in bf16: L1 binds"));
        rows->push_back(make(Kind::image, "uint8 image to tensor", f, {512, 32, 32, 3}, 1 + b,
                             "in 1 + out b", "launch", 50));
        rows->push_back(make(Kind::mse, "mse with gradient", f, {512, 32, 32, 3}, 4 + 2 * b,
                             "p b + target 4 + dp b", "launch (three kernels)", 40));
        rows->push_back(make(Kind::column_sums, "bias gradient", f, s, b, "dy b", "memory", 90));
    }
}

} // namespace

std::vector<Row> plan() {
    std::vector<Row> rows;
    samplers(&rows);
    norms(&rows);
    small_ones(&rows);
    rows.push_back(make(Kind::adamw, "adamw + ema + clip, 35.7 M", TWK_F32, {1, 1, 1, 35700000}, 42,
                        "norm 4 + g 4 + w m v ema 32 + copy 2", "memory", 91));
    rows.push_back(make(Kind::adamw, "adamw + ema + clip, 113.7 M", TWK_F32, {1, 1, 1, 113700000},
                        42, "norm 4 + g 4 + w m v ema 32 + copy 2", "memory", 92));
    return rows;
}

std::string page(const std::vector<Row> &rows) {
    char line[512];
    std::string out =
        "# Kernels: the plan\n\n"
        "Written by `kernel_bench --plan`; predictions come before measurements and stay as they "
        "are.\n"
        "Bytes are what must cross device memory; b is the format's size. The floor divides them "
        "by "
        "the\n"
        "reference GPU's copy bandwidth (H200, 4.3 TB/s counted read + write). Predicted is in "
        "percent of\n"
        "the copy bandwidth of the same session, cold, and does not count the launch (2 us in the "
        "time).\n"
        "The peer of every row is a device copy of the same bytes under the same protocol.\n"
        "None of these has a matrix product in it: FLOPs do not bind, instructions may.\n\n"
        "| kernel | shape | format | bytes | formula | floor us | predicted % | predicted us | "
        "limit "
        "| note |\n|---|---|---|---|---|---|---|---|---|---|\n";
    for (const Row &r : rows) {
        snprintf(line, sizeof line,
                 "| %s | %s | %s | %.4g MB | %s | %.2f | %.0f | %.1f | %s | %s |\n", r.name.c_str(),
                 shape_of(r).c_str(), name_of(r.format), r.bytes / 1e6, r.formula.c_str(),
                 floor_seconds(r) * 1e6, r.percent, predicted_seconds(r) * 1e6, r.limit.c_str(),
                 r.note.c_str());
        out += line;
    }
    return out;
}

} // namespace bench
