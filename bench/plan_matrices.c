/* The rows of convolutions, matrix products and attention. */
#include "plan_rows.h"

/* mma.sync reaches about 0.6 of the rate on the reference GPU: 60 % would be all of it. */
static const char *const mma = "mma.sync";
static const char *const few = "few blocks: latency of the pipeline";

static bench_row *add(bench_rows *all, bench_kind kind, const char *name, twk_format f,
                      bench_shape s, double bytes, const char *formula, double flops,
                      const char *limit, double percent, const char *note) {
    const double elements = (double)(s.n * s.h * s.w * s.c);
    bench_row *r = bench_add_row(all, kind, name, f, s, bytes / elements, formula, limit, percent);
    r->flops_per_element = flops / elements;
    r->executed = 1;
    r->rate = f == TWK_F32 ? BENCH_REFERENCE_FP32 : BENCH_REFERENCE_BF16;
    r->note = note;
    return r;
}

/* Convolutions. x is [n, h, w, c]. */
typedef struct conv {
    bench_shape x;
    int out, kernel, stride;
    bool upsampled;
} conv;

static bench_row *add_conv(bench_rows *all, bench_kind kind, twk_format f, conv k,
                           const char *limit, double percent, const char *note) {
    static const struct {
        const char *three, *one, *formula;
    } texts[] = {
        {"conv 3x3 + bias", "conv 1x1 + bias", "x b + w b + y b"},
        {"conv 3x3 input gradient", "conv 1x1 input gradient", "dy b + w b + dx b"},
    };
    const int which = (int)(kind - BENCH_CONV);
    const double b = (double)bench_format_bytes(f), pixels = (double)(k.x.n * k.x.h * k.x.w);
    const double per = k.upsampled ? 4 : k.stride == 2 ? 0.25 : 1; /* pixels of y, per one of x */
    const double weights = (double)k.x.c * k.out * k.kernel * k.kernel;
    const double images = b * pixels * ((double)k.x.c + per * k.out);
    bench_row *r = add(all, kind, k.kernel == 1 ? texts[which].one : texts[which].three, f, k.x,
                       images + b * weights, texts[which].formula, 2 * pixels * per * weights,
                       limit, percent, note);
    r->out_channels = k.out;
    r->kernel = k.kernel;
    r->stride = k.stride ? k.stride : 1;
    r->upsampled = k.upsampled;
    return r;
}

static const bench_shape c32 = {128, 32, 32, 128}, c16 = {128, 16, 16, 256};
static const bench_shape c8 = {128, 8, 8, 256}, c4 = {128, 4, 4, 256};

static void add_forward(bench_rows *all) {
    const bench_kind kind = BENCH_CONV;
    add_conv(all, kind, TWK_BF16, (conv){c32, 128, 3, 0, 0}, mma, 42, "");
    add_conv(all, kind, TWK_BF16, (conv){c16, 256, 3, 0, 0}, mma, 45, "");
    add_conv(all, kind, TWK_BF16, (conv){c8, 256, 3, 0, 0}, few, 30, "two parts along K");
    add_conv(all, kind, TWK_BF16, (conv){c4, 256, 3, 0, 0}, few, 18, "two parts along K");
    add_conv(all, kind, TWK_BF16, (conv){{128, 16, 16, 384}, 256, 3, 0, 0}, mma, 45, "");
    add_conv(all, kind, TWK_BF16, (conv){{128, 16, 16, 512}, 256, 3, 0, 0}, mma, 45, "");
    add_conv(all, kind, TWK_BF16, (conv){c16, 256, 1, 0, 0}, "memory", 45,
             "eight tiles along K: filling and emptying the pipeline shows");
    add_conv(all, kind, TWK_BF16, (conv){{128, 32, 32, 3}, 128, 3, 0, 0}, "memory", 60,
             "two waves of blocks that begin and end without writing; instructions take as long");
    add_conv(all, kind, TWK_BF16, (conv){c32, 3, 3, 0, 0}, "memory", 55,
             "one wave of blocks that begin with reading alone and end with writing alone");
    add_conv(all, kind, TWK_BF16, (conv){c32, 128, 3, 2, 0}, few, 33, "padded below and right");
    add_conv(all, kind, TWK_BF16, (conv){c16, 256, 3, 0, true}, mma, 90,
             "four phases: 4/9 of the FLOPs are executed")
        ->executed = 4.0 / 9;
    add_conv(all, kind, TWK_BF16, (conv){{8, 64, 64, 256}, 256, 3, 0, 0}, mma, 45, "");
    add_conv(all, kind, TWK_BF16, (conv){{8, 256, 256, 128}, 128, 3, 0, 0}, mma, 43, "");
    add_conv(all, kind, TWK_BF16, (conv){{8, 16, 16, 512}, 512, 3, 0, 0}, few, 28,
             "64 large tiles: split along K");
    add_conv(all, kind, TWK_BF16, (conv){{1, 32, 32, 128}, 128, 3, 0, 0}, few, 3,
             "a batch of one: split along K");
    add_conv(all, kind, TWK_F16, (conv){c32, 128, 3, 0, 0}, mma, 42, "");
    bench_row *r = add_conv(all, kind, TWK_F32, (conv){c32, 128, 3, 0, 0}, mma, 40, "tf32");
    r->tf32 = true;
    r->rate = BENCH_REFERENCE_TF32;
    add_conv(all, kind, TWK_F32, (conv){c32, 128, 3, 0, 0}, "fp32 units and shared memory", 45,
             "exact");
}

static void add_input_gradients(bench_rows *all) {
    const bench_kind kind = BENCH_CONV_INPUT_GRADIENT;
    static const char *const laid = "weights are laid down first";
    add_conv(all, kind, TWK_BF16, (conv){c32, 128, 3, 0, 0}, mma, 40, laid);
    add_conv(all, kind, TWK_BF16, (conv){c16, 256, 3, 0, 0}, mma, 42, laid);
    add_conv(all, kind, TWK_BF16, (conv){c8, 256, 3, 0, 0}, few, 24, laid);
    add_conv(all, kind, TWK_BF16, (conv){c4, 256, 3, 0, 0}, few, 13, laid);
    add_conv(all, kind, TWK_BF16, (conv){{128, 16, 16, 512}, 256, 3, 0, 0}, mma, 43, laid);
    add_conv(all, kind, TWK_BF16, (conv){c16, 256, 1, 0, 0}, "memory", 38, laid);
    add_conv(all, kind, TWK_BF16, (conv){c32, 128, 3, 2, 0}, mma, 28,
             "four classes of pixels with 1, 2, 2 and 4 taps");
    add_conv(all, kind, TWK_BF16, (conv){c16, 256, 3, 0, true}, mma, 85,
             "a 4x4 kernel at stride 2: 4/9 of the FLOPs are executed")
        ->executed = 4.0 / 9;
    add_conv(all, kind, TWK_BF16, (conv){{8, 256, 256, 128}, 128, 3, 0, 0}, mma, 43, laid);
    bench_row *r = add_conv(all, kind, TWK_F32, (conv){c32, 128, 3, 0, 0}, mma, 38, "tf32");
    r->tf32 = true;
    r->rate = BENCH_REFERENCE_TF32;
    add_conv(all, kind, TWK_F32, (conv){c32, 128, 3, 0, 0}, "fp32 units and shared memory", 44,
             "exact");
}

/* Products of `count` matrices: y[m, out] = x[m, k] w[out, k]^T and its gradients. */
static void add_gemm(bench_rows *all, bench_kind kind, twk_format f, int64_t count, int64_t m,
                     int64_t k, int out, const char *limit, double percent, const char *note) {
    static const char *const names[] = {"linear + bias", "linear input gradient",
                                        "linear weight gradient"};
    static const char *const formulas[] = {"x b + w b + y b", "dy b + w b + dx b",
                                           "x b + dy b + dw 8"};
    const int which = (int)(kind - BENCH_GEMM);
    const double b = (double)bench_format_bytes(f), products = (double)count * (double)m;
    const double weights = (double)k * out * (double)count;
    bench_row *r = add(all, kind, names[which], f, (bench_shape){count, 1, m, k},
                       b * products * (double)(k + out) + (which == 2 ? 8 : b) * weights,
                       formulas[which], 2 * products * (double)k * out, limit, percent, note);
    r->out_channels = out;
    r->kernel = 1;
}

static void add_gemms(bench_rows *all) {
    const bench_kind y = BENCH_GEMM, dx = BENCH_GEMM_INPUT_GRADIENT,
                     dw = BENCH_GEMM_WEIGHT_GRADIENT;
    static const char *const qkv = "queries, keys and values of 256 tokens";
    add_gemm(all, y, TWK_BF16, 1, 32768, 256, 768, mma, 40, qkv);
    add_gemm(all, dx, TWK_BF16, 1, 32768, 256, 768, mma, 40, qkv);
    add_gemm(all, dw, TWK_BF16, 1, 32768, 256, 768, mma, 30, qkv);
    add_gemm(all, y, TWK_BF16, 1, 128, 512, 512, few, 9, "the time embedding's second layer");
    add_gemm(all, y, TWK_BF16, 1, 8192, 8192, 8192, mma, 52, "a large square");
    add_gemm(all, dw, TWK_BF16, 1, 8192, 8192, 8192, mma, 48, "both operands are columns");
}

/* Attention: `tokens` queries of `heads` heads of `size` columns, `keys` keys; two products. */
static void add_attention(bench_rows *all, twk_format f, int64_t batch, int heads, int64_t tokens,
                          int keys, int size, double percent, const char *note) {
    const bench_shape s = {batch, heads, tokens, size};
    const double b = (double)bench_format_bytes(f), q = (double)(batch * heads * tokens * size);
    const double share = (double)keys / (double)tokens;
    add(all, BENCH_ATTENTION, "attention", f, s, q * b * (2 + 2 * share), "q b + k b + v b + o b",
        q * 4 * keys, "mma.sync, exponentials", percent, note)
        ->keys = keys;
}

static void add_attentions(bench_rows *all) {
    static const int sizes[] = {64, 128, 256, 512};
    static const struct {
        int64_t batch, tokens;
        double percent[4];
    } rows[] = {
        {128, 64, {25, 30, 30, 22}},
        {128, 256, {30, 35, 35, 25}},
        {16, 1024, {35, 42, 35, 25}},
        {2, 4096, {36, 43, 35, 25}},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++)
        for (int k = 0; k < 4; k++) {
            const int heads = sizes[k] == 256 ? 1 : 512 / sizes[k]; /* 512 columns, or DDPM's 256 */
            add_attention(all, TWK_BF16, rows[i].batch, heads, rows[i].tokens, (int)rows[i].tokens,
                          sizes[k], rows[i].percent[k], "");
        }
    add_attention(all, TWK_BF16, 16, 8, 1024, 77, 64, 20, "cross-attention");
    add_attention(all, TWK_F16, 128, 1, 256, 256, 256, 35, "");
}

void bench_plan_matrices(bench_rows *all) {
    add_forward(all);
    add_input_gradients(all);
    add_gemms(all);
    add_attentions(all);
}
