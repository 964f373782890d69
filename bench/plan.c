/* The rows. */
#include "plan_rows.h"

typedef bench_shape shape;
typedef bench_rows rows;

size_t bench_format_bytes(twk_format format) {
    return format == TWK_F32 ? 4 : 2;
}

int64_t bench_elements(const bench_row *r) {
    return r->n * r->h * r->w * r->c;
}
double bench_bytes(const bench_row *r) {
    return r->bytes_per_element * (double)bench_elements(r);
}
double bench_flops(const bench_row *r) {
    return r->flops_per_element * (double)bench_elements(r);
}
double bench_floor_seconds(const bench_row *r) {
    const double moving = bench_bytes(r) / BENCH_REFERENCE_BANDWIDTH;
    const double computing = r->rate > 0 ? bench_flops(r) / r->rate : 0;
    return moving > computing ? moving : computing;
}
double bench_predicted_seconds(const bench_row *r) {
    return bench_floor_seconds(r) / (r->percent / 100) + BENCH_LAUNCH_SECONDS;
}

double bench_predicted_ratio(const bench_row *r) {
    return r->library > 0 ? r->percent / r->library : 0;
}

bench_row *bench_add_row(rows *all, bench_kind kind, const char *name, twk_format f, shape s,
                         double bytes_per_element, const char *formula, const char *limit,
                         double percent) {
    bench_row *r = &all->row[all->count++];
    *r = (bench_row){.kind = kind,
                     .name = name,
                     .format = f,
                     .n = s.n,
                     .h = s.h,
                     .w = s.w,
                     .c = s.c,
                     .bytes_per_element = bytes_per_element,
                     .formula = formula,
                     .limit = limit,
                     .percent = percent,
                     .note = ""};
    return r;
}

static void add_samplers(rows *all) {
    /* 2^26 elements: x is 256 MiB. */
    const shape large = {64, 512, 512, 4}, cifar = {512, 32, 32, 3};
    static const twk_format formats[] = {TWK_F32, TWK_BF16, TWK_F16};
    static const char *const ddim = "x 4 + m b + x_p 4";
    for (size_t i = 0; i < 3; i++) {
        const twk_format f = formats[i];
        const bool fp32 = f == TWK_F32;
        const double b = (double)bench_format_bytes(f);
        bench_add_row(all, BENCH_DDIM, "ddim eta 0", f, large, 8 + b, ddim, "memory",
                      fp32 ? 97 : 95);
        bench_row *noisy =
            bench_add_row(all, BENCH_DDIM, "ddim eta 1", f, large, 8 + b, ddim,
                          fp32 ? "memory" : "memory, then ALU (Box-Muller)", fp32 ? 92 : 86);
        noisy->noisy = true;
        noisy->note = "about 45 instructions an element for the noise";
        bench_add_row(all, BENCH_DDIM, "ddim eta 0", f, cifar, 8 + b, ddim, "launch", 90)->note =
            "belongs in the step's graph";
        bench_add_row(all, BENCH_UPDATE, "update x, p, 2 history", f, large, 16 + b,
                      "x 4 + p b + h 2 4 + x_p 4", "memory", 94);
        bench_add_row(all, BENCH_NOISING, "forward noising", f, large, 8 + b,
                      "x0 4 + x_t b + target 4", "memory, then ALU (Box-Muller)", fp32 ? 90 : 84);
        bench_add_row(all, BENCH_NOISE, "noise fill", f, large, b, "out b",
                      "ALU (Philox, Box-Muller)", fp32 ? 60 : 30);
    }
    static const char *const once = "one read, keys in shared memory";
    bench_add_row(all, BENCH_THRESHOLD, "dynamic threshold", TWK_BF16, (shape){64, 64, 64, 3}, 6,
                  "x 4 + m b once", "latency (three histograms)", 14)
        ->note = once;
    bench_add_row(all, BENCH_THRESHOLD, "dynamic threshold", TWK_BF16, (shape){16, 256, 256, 3}, 6,
                  "x 4 + m b once", "latency (three histograms)", 28)
        ->note = once;
}

/* Percents and what they are of: a read in one pass, in two, small ones. Forward: blocks of one
 * processor wait for memory in turn; small ones end with the latency of a read, of two meetings of
 * a block and of a write. Backward, per element and processor: 6 bytes in 16 bits take 0.31 cycles,
 * the slope of SiLU 0.13 (two of the slow instructions) and about 26 others 0.20, of which the
 * blocks hide a part; then the parameters' gradients, 2 us of latency, which small ones show. Two
 * passes backward: the sums of the chunks are added up in between. */
static void add_norm(rows *all, shape s, int second, twk_format f) {
    const double b = (double)bench_format_bytes(f);
    const bool twice = s.h >= 128;
    const bool small = (double)(s.n * s.h * s.w * s.c) * b < 32e6;
    const char *limit = small ? "latency" : "memory";
    const char *once = second ? "one read of two tensors side by side" : "one read";
    bench_row *r = bench_add_row(all, BENCH_NORM_FORWARD, "group norm + silu", f, s, 2 * b,
                                 second ? "x b + x2 b + y b" : "x b + y b", limit,
                                 twice   ? 65
                                 : small ? 60
                                         : 85);
    r->groups = 32;
    r->second = second;
    r->twice = twice;
    r->note = twice ? "two passes: 3 b moved, 67 % at most but for what L2 keeps" : once;
    r = bench_add_row(all, BENCH_NORM_BACKWARD, "group norm + silu backward", f, s, 3 * b,
                      second ? "x b + x2 b + dy b + dx b + dx2 b" : "x b + dy b + dx b", limit,
                      twice   ? 56
                      : small ? 56
                              : 80);
    r->groups = 32;
    r->second = second;
    r->twice = twice;
    r->note = twice ? "two passes: 5 b moved, 60 % at most but for what L2 keeps" : once;
}

/* As a convolution that measured them leaves it, and in a backward pass that makes it again. */
static void add_given_norm(rows *all, shape s, twk_format f) {
    const double b = (double)bench_format_bytes(f);
    bench_row *r = bench_add_row(all, BENCH_NORM_FORWARD, "group norm + silu, statistics given", f,
                                 s, 2 * b, "x b + y b", "memory", 90);
    r->groups = 32;
    r->given = true;
    r->note = "one read";
}

static void add_norms(rows *all) {
    static const shape shapes[] = {{128, 32, 32, 128}, {128, 16, 16, 256}, {128, 8, 8, 256},
                                   {128, 4, 4, 256},   {128, 32, 32, 384}, {8, 64, 64, 256},
                                   {8, 128, 128, 128}, {8, 256, 256, 128}};
    for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++) {
        add_norm(all, shapes[i], 0, TWK_BF16);
        add_norm(all, shapes[i], 0, TWK_F32);
    }
    /* Behind a skip connection: the seam lies between groups or inside one. */
    add_norm(all, (shape){128, 32, 32, 384}, 128, TWK_BF16);
    add_norm(all, (shape){128, 32, 32, 384}, 128, TWK_F32);
    add_norm(all, (shape){128, 16, 16, 512}, 256, TWK_BF16);
    add_norm(all, (shape){128, 8, 8, 512}, 256, TWK_BF16);
    add_norm(all, (shape){8, 256, 256, 256}, 128, TWK_BF16);
    add_given_norm(all, (shape){128, 32, 32, 128}, TWK_BF16);
    add_given_norm(all, (shape){8, 256, 256, 128}, TWK_BF16);
    add_given_norm(all, (shape){8, 256, 256, 128}, TWK_F32);
}

static void add_small_ones(rows *all, twk_format f) {
    const shape s = {512, 32, 32, 128}; /* 2^26 elements */
    const shape rgb = {512, 32, 32, 3};
    const bool fp32 = f == TWK_F32;
    const double b = (double)bench_format_bytes(f);
    bench_add_row(all, BENCH_ACTIVATION, "silu", f, s, 2 * b, "x b + y b", "memory", 95);
    bench_add_row(all, BENCH_ADD, "add", f, s, 3 * b, "a b + b b + y b", "memory", 95);
    bench_add_row(all, BENCH_DROPOUT, "dropout", f, s, 2 * b, "x b + y b",
                  fp32 ? "memory" : "memory, then ALU (Philox)", fp32 ? 93 : 82);
    bench_add_row(all, BENCH_CONCAT, "concat", f, s, 2 * b, "a b/2 + b b/2 + out b", "memory", 93);
    bench_add_row(all, BENCH_SPREAD, "nearest up x2", f, s, 1.25 * b, "in b/4 + out b", "memory",
                  90);
    bench_add_row(all, BENCH_POOL, "average pool 2x2", f, s, 1.25 * b, "in b + out b/4", "memory",
                  90);
    bench_add_row(all, BENCH_CONVERT, "nhwc to nchw", f, s, 2 * b, "in b + out b", "memory",
                  fp32 ? 85 : 82)
        ->note = fp32 ? "" : "two elements an access";
    bench_add_row(all, BENCH_IMAGE, "uint8 image to tensor", f, rgb, 1 + b, "in 1 + out b",
                  "launch", 50);
    bench_add_row(all, BENCH_MSE, "mse with gradient", f, rgb, 4 + 2 * b, "p b + target 4 + dp b",
                  "launch (three kernels)", 40);
    bench_add_row(all, BENCH_COLUMN_SUMS, "bias gradient", f, s, b, "dy b", "memory", 90);
}

size_t bench_plan(bench_row *row) {
    static const char *const adamw = "norm 4 + g 4 + w m v ema 32 + copy 2";
    bench_rows all = {row, 0};
    add_samplers(&all);
    add_norms(&all);
    add_small_ones(&all, TWK_F32);
    add_small_ones(&all, TWK_BF16);
    bench_add_row(&all, BENCH_ADAMW, "adamw + ema + clip, 35.7 M", TWK_F32,
                  (shape){1, 1, 1, 35700000}, 42, adamw, "memory", 91);
    bench_add_row(&all, BENCH_ADAMW, "adamw + ema + clip, 113.7 M", TWK_F32,
                  (shape){1, 1, 1, 113700000}, 42, adamw, "memory", 92);
    bench_plan_matrices(&all);
    return all.count;
}

bench_row bench_small_twin(const bench_row *row) {
    bench_row r = *row;
    if (r.kind == BENCH_ADAMW) {
        r.c = 10000;
        return r;
    }
    if (r.keys) { /* attention */
        r.n = 2;
        r.h = 1;
        r.w = 20;
        r.keys = 24;
        return r;
    }
    r.n = r.rate > 0 ? 2 : 3;
    r.h = 6;
    r.w = r.rate > 0 ? 5 : 10;
    if (r.c > 64) r.c = 64;
    if (r.second) r.second = 24;
    if (r.out_channels > 64) r.out_channels = 64;
    return r;
}
