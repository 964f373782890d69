/* The rows of convolutions, matrix products and attention: the shapes of the CIFAR-10 UNet at batch
 * 128 and of the 256 px UNet at batch 8, and what lies beside them. */
#include "plan_rows.h"

#define COUNT(array) (sizeof(array) / sizeof *(array))

/* mma.sync reaches about 0.6 of the rate on the reference GPU: 60 % would be all of it. wgmma,
 * which the 16-bit formats have there, reaches all of it, but tiles of 128 x 128 want 64 bytes a
 * cycle and processor from L2, which gives 39, and 160 of shared memory, which gives 128.
 *
 * Convolutions by tiles of 128 x 256, which TMA brings and blocks share in pairs, want 32 or 40 of
 * L2 and 128 of shared memory: all of the rate, if nothing else were. 64 along K are taken for 1140
 * cycles in place of 1024, the end of a tile, in which nothing is multiplied, for 4500; rows are
 * the whole rounds of 132 tiles that come of it and 7000 cycles of start and end, a tenth off for
 * what is not counted, and 66 at most, as nothing of it has been measured. Where tiles are finished
 * for longer than they are multiplied (1 x 1) the smaller tiles stay. Half a tile, 128 pixels, is
 * taken for 710 and 2250 cycles: as many blocks again where 64 whole tiles would leave half of the
 * processors idle. Where tiles are fewer still, 64 x 64 in parts along K that the blocks of a
 * cluster add up: no second launch, what a block reads from the others at 12 bytes a cycle.
 *
 * Weights' gradients by the same tiles, unshared, are bound by L2: 64 along K are a box of 64
 * pixels, the parts of the sum fill the processors, and what the parts take through L2 is counted;
 * below 20 GFLOPs that, the start and the end are half of the time, and a result of 2 million
 * weights and more is bound by memory. Matrix products likewise, where both sides and K are long:
 * 512 -> 2048 has eight steps for each tile that is finished, as good as the smaller tiles; its
 * gradients have 32 and more. */
static const char *const mma = "mma.sync";
static const char *const wgmma = "L2, shared memory (wgmma)";
static const char *const few = "few blocks: latency of the pipeline";
static const char *const units = "fp32 units and shared memory";

static bench_row *add(bench_rows *all, bench_kind kind, const char *name, twk_format f,
                      bench_shape s, double bytes, const char *formula, double flops,
                      const char *limit, double percent, double library, const char *note) {
    const double elements = (double)(s.n * s.h * s.w * s.c);
    bench_row *r = bench_add_row(all, kind, name, f, s, bytes / elements, formula, limit, percent);
    r->flops_per_element = flops / elements;
    r->executed = 1;
    r->rate = f == TWK_F32 ? BENCH_REFERENCE_FP32 : BENCH_REFERENCE_BF16;
    r->library = library;
    r->note = note;
    return r;
}

static void as_tf32(bench_row *r) {
    r->tf32 = true;
    r->rate = BENCH_REFERENCE_TF32;
}

/* --- convolutions ----------------------------------------------------------------------------- */

/* x is [n, h, w, c], the last `second` of c in an image of their own. Percents of the forward
 * pass and of the gradients of the input and of the weights, the kernel's and the library's; 0: no
 * such row. The note is the forward pass's. */
typedef struct conv {
    bench_shape x;
    int second, out, kernel;
    enum { SAME, HALVED, UPSAMPLED } to;
    enum { MMA, FEW, MEMORY } limit;
    double percent[3], library[3];
    const char *note;
} conv;

#define LONG18 "18 tiles along K"
#define LONG36 "36 tiles along K"
#define LONG72 "72 tiles along K"
#define TARGET "; the target is 0.55 of the library"
#define HALVES "128 half tiles, none split"
#define SPLIT "two parts along K, added up in a cluster"
#define ALONE "a batch of one: split along K, added up in clusters"
#define SHORT "eight tiles along K: filling and emptying the pipeline shows"
#define SKIP "read as two images"
#define HALF "padded below and right"
#define FOLDED "four convolutions of 2x2 taps: 4/9 of the FLOPs are executed"
#define FEW_IN "two waves of blocks that begin and end without writing; instructions take as long"
#define FEW_OUT "one wave of blocks that begin with reading alone and end with writing alone"

static const conv convs[] = {
    {{128, 32, 32, 128}, 0, 128, 3, SAME, MMA, {60, 57, 53}, {75, 72, 60}, LONG18 TARGET},
    {{128, 16, 16, 256}, 0, 256, 3, SAME, MMA, {65, 63, 56}, {80, 78, 62}, LONG36 TARGET},
    {{128, 8, 8, 256}, 0, 256, 3, SAME, FEW, {46, 40, 37}, {65, 60, 45}, HALVES},
    {{128, 4, 4, 256}, 0, 256, 3, SAME, FEW, {21, 14, 15}, {42, 38, 25}, SPLIT},
    {{128, 16, 16, 128}, 0, 256, 3, SAME, MMA, {56, 55, 46}, {78, 75, 60}, LONG18},
    {{128, 32, 32, 256}, 128, 128, 3, SAME, MMA, {66, 60, 61}, {77, 77, 60}, SKIP},
    {{128, 32, 32, 384}, 128, 128, 3, SAME, MMA, {66, 62, 61}, {77, 77, 60}, SKIP},
    {{128, 16, 16, 384}, 128, 256, 3, SAME, MMA, {66, 64, 55}, {80, 80, 62}, SKIP},
    {{128, 16, 16, 512}, 256, 256, 3, SAME, MMA, {66, 65, 59}, {80, 80, 62}, SKIP},
    {{128, 16, 16, 512}, 0, 256, 3, SAME, MMA, {66, 65, 59}, {80, 80, 62}, "read as one image"},
    {{128, 8, 8, 512}, 256, 256, 3, SAME, FEW, {51, 53, 40}, {67, 62, 47}, SKIP},
    {{128, 16, 16, 256}, 0, 256, 1, SAME, MEMORY, {49, 42, 39}, {80, 75, 55}, SHORT},
    {{128, 16, 16, 512}, 256, 256, 1, SAME, MEMORY, {53, 43, 40}, {80, 75, 55}, SKIP},
    {{128, 32, 32, 384}, 128, 128, 1, SAME, MEMORY, {54, 46, 46}, {82, 78, 55}, SKIP},
    {{128, 32, 32, 3}, 0, 128, 3, SAME, MEMORY, {60, 0, 25}, {60, 0, 30}, FEW_IN},
    {{128, 32, 32, 128}, 0, 3, 3, SAME, MEMORY, {55, 52, 25}, {45, 45, 30}, FEW_OUT},
    {{128, 32, 32, 128}, 0, 128, 3, HALVED, FEW, {45, 32, 36}, {60, 52, 45}, HALF},
    {{128, 16, 16, 256}, 0, 256, 3, HALVED, FEW, {46, 32, 36}, {58, 50, 42}, HALF},
    {{128, 16, 16, 256}, 0, 256, 3, UPSAMPLED, MMA, {130, 125, 64}, {80, 78, 62}, FOLDED},
    {{128, 8, 8, 256}, 0, 256, 3, UPSAMPLED, MMA, {112, 98, 56}, {80, 76, 60}, FOLDED},
    {{8, 256, 256, 128}, 0, 128, 3, SAME, MMA, {63, 62, 60}, {78, 76, 60}, LONG18},
    {{8, 128, 128, 128}, 0, 128, 3, SAME, MMA, {60, 57, 53}, {76, 74, 60}, LONG18},
    {{8, 64, 64, 256}, 0, 256, 3, SAME, MMA, {65, 63, 56}, {80, 78, 62}, LONG36},
    {{8, 32, 32, 256}, 0, 256, 3, SAME, FEW, {46, 40, 37}, {65, 60, 45}, HALVES},
    {{8, 16, 16, 512},
     0,
     512,
     3,
     SAME,
     FEW,
     {38, 34, 33},
     {60, 55, 45},
     "64 half tiles: two parts along K"},
    {{8, 8, 8, 512},
     0,
     512,
     3,
     SAME,
     FEW,
     {13, 10, 18},
     {35, 32, 28},
     "64 x 64 in four parts, added up in clusters; 4.7 MB of weights"},
    {{512, 32, 32, 128}, 0, 128, 3, SAME, MMA, {63, 62, 60}, {78, 76, 62}, LONG18},
    {{1, 32, 32, 128}, 0, 128, 3, SAME, FEW, {4, 0, 0}, {5, 0, 0}, ALONE},
    {{1, 16, 16, 256}, 0, 256, 3, SAME, FEW, {4, 0, 0}, {5, 0, 0}, ALONE},
};

static bench_row *add_conv(bench_rows *all, bench_kind kind, twk_format f, const conv *k) {
    static const struct {
        const char *three, *one, *formula, *note;
    } texts[] = {
        {"conv 3x3 + bias", "conv 1x1 + bias", "x b + w b + y b", ""},
        {"conv 3x3 input gradient", "conv 1x1 input gradient", "dy b + w b + dx b",
         "weights are laid down first"},
        {"conv 3x3 weight gradient", "conv 1x1 weight gradient", "x b + dy b + dw 8",
         "with the bias's; split over the pixels, the parts added up in order"},
    };
    const int which = (int)(kind - BENCH_CONV);
    const double b = (double)bench_format_bytes(f), pixels = (double)(k->x.n * k->x.h * k->x.w);
    /* pixels of y, per one of x */
    const double per = k->to == UPSAMPLED ? 4 : k->to == HALVED ? 0.25 : 1;
    const double weights = (double)k->x.c * k->out * k->kernel * k->kernel;
    const double images = b * pixels * ((double)k->x.c + per * k->out);
    const bool folded = k->to == UPSAMPLED && kind != BENCH_CONV_WEIGHT_GRADIENT;
    bench_row *r = add(
        all, kind, k->kernel == 1 ? texts[which].one : texts[which].three, f, k->x,
        images + (which == 2 ? 8 : b) * weights, texts[which].formula, 2 * pixels * per * weights,
        k->limit == MMA   ? (f == TWK_F32 ? mma : wgmma)
        : k->limit == FEW ? few
                          : "memory",
        k->percent[which], k->library[which], which && !folded ? texts[which].note : k->note);
    r->second = k->second;
    r->out_channels = k->out;
    r->kernel = k->kernel;
    r->stride = k->to == HALVED ? 2 : 1;
    r->upsampled = k->to == UPSAMPLED;
    if (folded) r->executed = 4.0 / 9;
    return r;
}

static void add_convs(bench_rows *all, bench_kind kind) {
    conv k = convs[0];
    for (size_t i = 0; i < COUNT(convs); i++)
        if (convs[i].percent[kind - BENCH_CONV] > 0) add_conv(all, kind, TWK_BF16, &convs[i]);
    add_conv(all, kind, TWK_F16, &k);
    k = (conv){k.x, 0, k.out, 3, SAME, MMA, {40, 38, 28}, {70, 68, 50}, LONG72};
    as_tf32(add_conv(all, kind, TWK_F32, &k));
    k = (conv){k.x, 0, k.out, 3, SAME, MMA, {45, 44, 40}, {55, 52, 45}, LONG72};
    add_conv(all, kind, TWK_F32, &k)->limit = units;
}

/* --- matrix products -------------------------------------------------------------------------- */

/* y[m, out] = x[m, k] w[out, k]^T and its gradients. */
typedef struct product {
    int64_t m, k;
    int out;
    const char *limit;
    double percent[3], library[3]; /* forward, input gradient, weight gradient; 0: no such row */
    const char *note;
} product;

static bench_row *add_gemm(bench_rows *all, int which, twk_format f, const product *p) {
    static const char *const names[] = {"linear + bias", "linear input gradient",
                                        "linear weight gradient"};
    static const char *const formulas[] = {"x b + w b + y b", "dy b + w b + dx b",
                                           "x b + dy b + dw 8"};
    const double b = (double)bench_format_bytes(f), m = (double)p->m, k = (double)p->k;
    bench_row *r =
        add(all, BENCH_GEMM + (bench_kind)which, names[which], f, (bench_shape){1, 1, p->m, p->k},
            b * m * (k + p->out) + (which == 2 ? 8 : b) * k * p->out, formulas[which],
            2 * m * k * p->out, p->limit, p->percent[which], p->library[which], p->note);
    r->out_channels = p->out;
    r->kernel = 1;
    return r;
}

static void add_gemms(bench_rows *all) {
    const product products[] = {
        {32768,
         256,
         768,
         wgmma,
         {45, 47, 39},
         {55, 55, 45},
         "queries, keys and values of 256 tokens: short along K"},
        {32768, 256, 256, "memory", {46, 44, 35}, {75, 72, 50}, "after attention"},
        {16384, 512, 2048, wgmma, {54, 62, 56}, {80, 80, 72}, "a transformer's wide layer"},
        {128, 512, 512, few, {9, 9, 9}, {12, 12, 12}, "the time embedding's second layer"},
        {128, 512, 256, few, {5, 0, 0}, {7, 0, 0}, "the time embedding in a residual block"},
        {8192, 8192, 8192, wgmma, {66, 0, 66}, {90, 0, 88}, "a large square"},
    };
    const product tf32 = {16384, 512, 2048, mma, {43, 43, 36}, {75, 75, 65}, "tf32"};
    const product exact = {16384, 512, 2048, units, {50, 50, 48}, {75, 75, 70}, "exact"};
    for (int which = 0; which < 3; which++) {
        for (size_t i = 0; i < COUNT(products); i++)
            if (products[i].percent[which] > 0) add_gemm(all, which, TWK_BF16, &products[i]);
        add_gemm(all, which, TWK_F16, &products[2]);
        as_tf32(add_gemm(all, which, TWK_F32, &tf32));
        add_gemm(all, which, TWK_F32, &exact);
    }
}

/* --- attention -------------------------------------------------------------------------------- */

/* Percents of the forward and backward pass, the kernels' and the libraries' (0: unknown). */
typedef struct attention {
    int64_t batch, heads, tokens, keys, size;
    double percent[2], library[2];
    const char *note;
} attention;

#define TARGET256 "the target is 1.5 times PyTorch's best time"
#define NONE "no library has heads of 512"

/* 512 columns in all or, of 256, one head as DDPM has it. */
static const attention attentions[] = {
    {128, 8, 64, 64, 64, {25, 15}, {45, 30}, ""},
    {128, 4, 64, 64, 128, {30, 18}, {45, 30}, ""},
    {128, 1, 64, 64, 256, {30, 15}, {38, 24}, ""},
    {128, 1, 64, 64, 512, {22, 10}, {0, 0}, NONE},
    {128, 8, 256, 256, 64, {30, 20}, {48, 35}, TARGET256},
    {128, 4, 256, 256, 128, {35, 22}, {52, 40}, TARGET256},
    {128, 1, 256, 256, 256, {35, 18}, {52, 32}, TARGET256},
    {128, 1, 256, 256, 512, {25, 12}, {0, 0}, NONE},
    {16, 8, 1024, 1024, 64, {35, 24}, {52, 42}, ""},
    {16, 4, 1024, 1024, 128, {42, 26}, {70, 55}, ""},
    {16, 1, 1024, 1024, 256, {35, 20}, {58, 42}, "128 blocks: one wave"},
    {16, 1, 1024, 1024, 512, {25, 13}, {0, 0}, NONE},
    {2, 8, 4096, 4096, 64, {36, 25}, {56, 48}, ""},
    {2, 4, 4096, 4096, 128, {43, 27}, {76, 62}, ""},
    {2, 1, 4096, 4096, 256, {35, 20}, {62, 45}, "128 blocks: one wave"},
    {2, 1, 4096, 4096, 512, {25, 13}, {0, 0}, NONE},
    {16, 8, 1024, 77, 64, {20, 14}, {38, 26}, "cross-attention"},
    {2, 8, 4096, 77, 64, {20, 14}, {38, 26}, "cross-attention"},
    {128, 4, 256, 77, 128, {24, 15}, {40, 28}, "cross-attention"},
};

/* Tiles are multiplied whole: how many more keys that is. */
static double filled_up(int64_t keys, int tile) {
    return (double)((keys + tile - 1) / tile * tile) / (double)keys;
}

/* Nominal: two products forward, five backward, where the kernels do seven, or eight with wide
 * heads (one for dv, one each for dq and dk). */
static void add_attention(bench_rows *all, bool backward, twk_format f, const attention *k) {
    const bench_shape s = {k->batch, k->heads, k->tokens, k->size};
    const double b = (double)bench_format_bytes(f), q = (double)(s.n * s.h * s.w * s.c);
    const double both = 2 + 2 * (double)k->keys / (double)k->tokens; /* q and o, k and v */
    const bool narrow = k->size <= 128;
    bench_row *r;
    if (backward) {
        r = add(all, BENCH_ATTENTION_BACKWARD, "attention backward", f, s, q * b * 2 * both,
                "q k v o do b + dq dk dv b", q * 10 * (double)k->keys, mma, k->percent[1],
                k->library[1],
                narrow ? "dq by one kernel, dk and dv by another" : "a kernel for each gradient");
        r->executed = (narrow ? 1.4 : 1.6) * filled_up(k->keys, narrow ? 32 : 64);
    } else {
        r = add(all, BENCH_ATTENTION, "attention", f, s, q * b * both, "q b + k b + v b + o b",
                q * 4 * (double)k->keys, "mma.sync, exponentials", k->percent[0], k->library[0],
                k->note);
        r->executed = filled_up(k->keys, k->size == 128 ? 32 : 64);
    }
    r->keys = (int)k->keys;
    if (f == TWK_F32) r->limit = units;
}

static void add_attentions(bench_rows *all, bool backward) {
    static const attention exact = {128, 1, 256, 256, 256, {35, 30}, {0, 0}, "exact"};
    for (size_t i = 0; i < COUNT(attentions); i++)
        add_attention(all, backward, TWK_BF16, &attentions[i]);
    add_attention(all, backward, TWK_F16, &attentions[6]);
    add_attention(all, backward, TWK_F32, &exact);
}

void bench_plan_matrices(bench_rows *all) {
    add_convs(all, BENCH_CONV);
    add_convs(all, BENCH_CONV_INPUT_GRADIENT);
    add_convs(all, BENCH_CONV_WEIGHT_GRADIENT);
    add_gemms(all);
    add_attentions(all, false);
    add_attentions(all, true);
}
