/* The table of "auto".
 *
 * Nothing has been measured on a GPU yet: every row is a prediction, the one that
 * bench/results/plan.md has for the typical shape of its class, and a test holds the table to that
 * page: all the page's rows of a class must be on the same side. A row that was measured takes the
 * place of the prediction and says so. */
#include "backend/cuda/heuristics.h"

#include "backend/cuda/own.h"
#include "backend/cuda/tuning.h"

/* A library's lead is worth more than what is not known of it. */
#define LEAD 1.15

#define PREDICTED false

/* kind, class, format, tf32, own %, library %, measured, row of the page */
const tw_heuristic tw_heuristics[] = {
    /* Tiles of 128 x 256 by TMA and wgmma, at whose end nothing is multiplied; mma.sync, which tf32
     * has, reaches 0.6 of the tensor cores' rate. */
    {TW_OP_CONV2D, TW_PRODUCT_WIDE, TW_BF16, false, 60, 75, PREDICTED,
     "conv 3x3 + bias | 128x32x32x128 -> 128 | bf16"},
    {TW_OP_CONV2D, TW_PRODUCT_WIDE, TW_F16, false, 60, 75, PREDICTED,
     "conv 3x3 + bias | 128x32x32x128 -> 128 | fp16"},
    {TW_OP_CONV2D, TW_PRODUCT_WIDE, TW_F32, true, 40, 70, PREDICTED,
     "conv 3x3 + bias | 128x32x32x128 -> 128 tf32 | fp32"},
    /* Both by the fp32 units, which the library keeps busier. */
    {TW_OP_CONV2D, TW_PRODUCT_WIDE, TW_F32, false, 45, 55, PREDICTED,
     "conv 3x3 + bias | 128x32x32x128 -> 128 | fp32"},
    /* Memory binds, and the library's tiles are wide. */
    {TW_OP_CONV2D, TW_PRODUCT_NARROW, TW_BF16, false, 55, 45, PREDICTED,
     "conv 3x3 + bias | 128x32x32x128 -> 3 | bf16"},
    /* Four convolutions with 4/9 of the products in the place of one. */
    {TW_OP_CONV2D, TW_PRODUCT_ENLARGED, TW_BF16, false, 130, 80, PREDICTED,
     "conv 3x3 + bias | 128x16x16x256 up -> 256 | bf16"},

    /* As forward; the kernels lay the weights down first. */
    {TW_OP_CONV2D_BWD_DATA, TW_PRODUCT_WIDE, TW_BF16, false, 57, 72, PREDICTED,
     "conv 3x3 input gradient | 128x32x32x128 -> 128 | bf16"},
    {TW_OP_CONV2D_BWD_DATA, TW_PRODUCT_WIDE, TW_F16, false, 57, 72, PREDICTED,
     "conv 3x3 input gradient | 128x32x32x128 -> 128 | fp16"},
    {TW_OP_CONV2D_BWD_DATA, TW_PRODUCT_WIDE, TW_F32, true, 38, 68, PREDICTED,
     "conv 3x3 input gradient | 128x32x32x128 -> 128 tf32 | fp32"},
    {TW_OP_CONV2D_BWD_DATA, TW_PRODUCT_WIDE, TW_F32, false, 44, 52, PREDICTED,
     "conv 3x3 input gradient | 128x32x32x128 -> 128 | fp32"},
    {TW_OP_CONV2D_BWD_DATA, TW_PRODUCT_NARROW, TW_BF16, false, 52, 45, PREDICTED,
     "conv 3x3 input gradient | 128x32x32x128 -> 3 | bf16"},
    {TW_OP_CONV2D_BWD_DATA, TW_PRODUCT_ENLARGED, TW_BF16, false, 125, 78, PREDICTED,
     "conv 3x3 input gradient | 128x16x16x256 up -> 256 | bf16"},

    /* Split over the pixels, the parts added up in order; the lead is too small where sums are
     * long, and in exact fp32. */
    {TW_OP_CONV2D_BWD_WEIGHT, TW_PRODUCT_WIDE, TW_BF16, false, 53, 60, PREDICTED,
     "conv 3x3 weight gradient | 128x32x32x128 -> 128 | bf16"},
    {TW_OP_CONV2D_BWD_WEIGHT, TW_PRODUCT_WIDE, TW_F16, false, 53, 60, PREDICTED,
     "conv 3x3 weight gradient | 128x32x32x128 -> 128 | fp16"},
    {TW_OP_CONV2D_BWD_WEIGHT, TW_PRODUCT_SMALL, TW_BF16, false, 37, 45, PREDICTED,
     "conv 3x3 weight gradient | 128x8x8x256 -> 256 | bf16"},
    {TW_OP_CONV2D_BWD_WEIGHT, TW_PRODUCT_WIDE, TW_F32, true, 28, 50, PREDICTED,
     "conv 3x3 weight gradient | 128x32x32x128 -> 128 tf32 | fp32"},
    {TW_OP_CONV2D_BWD_WEIGHT, TW_PRODUCT_WIDE, TW_F32, false, 40, 45, PREDICTED,
     "conv 3x3 weight gradient | 128x32x32x128 -> 128 | fp32"},
    {TW_OP_CONV2D_BWD_WEIGHT, TW_PRODUCT_NARROW, TW_BF16, false, 25, 30, PREDICTED,
     "conv 3x3 weight gradient | 128x32x32x128 -> 3 | bf16"},

    /* As convolutions; small ones are bound by latency, of which the libraries have less. */
    {TW_OP_LINEAR, TW_PRODUCT_WIDE, TW_BF16, false, 54, 80, PREDICTED,
     "linear + bias | 1x1x16384x512 -> 2048 | bf16"},
    {TW_OP_LINEAR, TW_PRODUCT_WIDE, TW_F16, false, 54, 80, PREDICTED,
     "linear + bias | 1x1x16384x512 -> 2048 | fp16"},
    {TW_OP_LINEAR, TW_PRODUCT_WIDE, TW_F32, true, 43, 75, PREDICTED,
     "linear + bias | 1x1x16384x512 -> 2048 tf32 | fp32"},
    {TW_OP_LINEAR, TW_PRODUCT_WIDE, TW_F32, false, 50, 75, PREDICTED,
     "linear + bias | 1x1x16384x512 -> 2048 | fp32"},
    {TW_OP_LINEAR_BWD_DATA, TW_PRODUCT_WIDE, TW_BF16, false, 62, 80, PREDICTED,
     "linear input gradient | 1x1x16384x512 -> 2048 | bf16"},
    {TW_OP_LINEAR_BWD_DATA, TW_PRODUCT_WIDE, TW_F16, false, 62, 80, PREDICTED,
     "linear input gradient | 1x1x16384x512 -> 2048 | fp16"},
    {TW_OP_LINEAR_BWD_DATA, TW_PRODUCT_WIDE, TW_F32, true, 43, 75, PREDICTED,
     "linear input gradient | 1x1x16384x512 -> 2048 tf32 | fp32"},
    {TW_OP_LINEAR_BWD_DATA, TW_PRODUCT_WIDE, TW_F32, false, 50, 75, PREDICTED,
     "linear input gradient | 1x1x16384x512 -> 2048 | fp32"},
    {TW_OP_LINEAR_BWD_WEIGHT, TW_PRODUCT_WIDE, TW_BF16, false, 56, 72, PREDICTED,
     "linear weight gradient | 1x1x16384x512 -> 2048 | bf16"},
    {TW_OP_LINEAR_BWD_WEIGHT, TW_PRODUCT_WIDE, TW_F16, false, 56, 72, PREDICTED,
     "linear weight gradient | 1x1x16384x512 -> 2048 | fp16"},
    {TW_OP_LINEAR_BWD_WEIGHT, TW_PRODUCT_WIDE, TW_F32, true, 36, 65, PREDICTED,
     "linear weight gradient | 1x1x16384x512 -> 2048 tf32 | fp32"},
    {TW_OP_LINEAR_BWD_WEIGHT, TW_PRODUCT_WIDE, TW_F32, false, 48, 70, PREDICTED,
     "linear weight gradient | 1x1x16384x512 -> 2048 | fp32"},

    /* cuDNN has attention in 16 bits alone. */
    {TW_OP_ATTENTION, TW_PRODUCT_WIDE, TW_BF16, false, 35, 52, PREDICTED,
     "attention | 128x1x256x256 keys 256 | bf16"},
    {TW_OP_ATTENTION, TW_PRODUCT_WIDE, TW_F16, false, 35, 52, PREDICTED,
     "attention | 128x1x256x256 keys 256 | fp16"},
    {TW_OP_ATTENTION_BWD, TW_PRODUCT_WIDE, TW_BF16, false, 18, 32, PREDICTED,
     "attention backward | 128x1x256x256 keys 256 | bf16"},
    {TW_OP_ATTENTION_BWD, TW_PRODUCT_WIDE, TW_F16, false, 18, 32, PREDICTED,
     "attention backward | 128x1x256x256 keys 256 | fp16"},
};
const int tw_heuristic_count = (int)(sizeof tw_heuristics / sizeof *tw_heuristics);

#define FEW_CHANNELS 4

static bool is_convolution(tw_op_kind kind) {
    return kind == TW_OP_CONV2D || kind == TW_OP_CONV2D_BWD_DATA || kind == TW_OP_CONV2D_BWD_WEIGHT;
}

/* Of dy and the weights' gradient. */
static bool is_small(const tw_desc *dy, const tw_desc *weights) {
    const int64_t channels = dy->dim[dy->rank - 1];
    const double pixels = (double)tw_desc_count(dy) / (double)channels;
    return dy->dtype != TW_F32 && 2 * pixels * (double)tw_desc_count(weights) < TW_SMALL_FLOPS;
}

static tw_product_class class_of(const tw_region *region, const tw_own_fused *f) {
    const tw_region_op *op = &region->ops[f->product];
    if (!is_convolution(op->kind)) return TW_PRODUCT_WIDE;
    if (f->upsampled >= 0) return TW_PRODUCT_ENLARGED;
    const int images[] = {op->in[0], op->kind == TW_OP_CONV2D_BWD_WEIGHT ? op->in[1] : op->out[0]};
    for (int i = 0; i < 2; i++) {
        const tw_desc *d = &region->slots[images[i]].desc;
        if (d->dim[d->rank - 1] <= FEW_CHANNELS) return TW_PRODUCT_NARROW;
    }
    if (op->kind == TW_OP_CONV2D_BWD_WEIGHT &&
        is_small(&region->slots[op->in[1]].desc, &region->slots[op->out[0]].desc))
        return TW_PRODUCT_SMALL;
    return TW_PRODUCT_WIDE;
}

const tw_heuristic *tw_heuristic_of(const tw_region *region, const tw_own_fused *f) {
    const tw_region_op *op = &region->ops[f->product];
    if (op->n_in < 2 || op->n_out < 1 || op->in[0] < 0 || op->in[1] < 0 || op->out[0] < 0)
        return NULL;
    const tw_dtype format = region->slots[op->in[0]].desc.dtype;
    const bool tf32 = format == TW_F32 && region->tf32;
    const tw_product_class shape = class_of(region, f);
    /* One row for both formats of 16 bits. */
    const tw_dtype like = shape == TW_PRODUCT_SMALL ? TW_BF16 : format;
    for (int i = 0; i < tw_heuristic_count; i++) {
        const tw_heuristic *h = &tw_heuristics[i];
        if (h->kind == op->kind && h->format == like && h->tf32 == tf32 && h->shape == shape)
            return h;
    }
    return NULL;
}

bool tw_heuristic_library_first(const tw_heuristic *h) {
    return h && h->library > LEAD * h->own;
}

/* What one kernel of ours does together a library may do in parts, and the parts pass through
 * memory: then its lead in the product is not worth it. */
static bool library_does_all(tw_backend *b, const tw_region *region, const tw_own_fused *f) {
    if (f->claimed == 1 || tw_cuda_library_claims(b, region, f)) return true;
    tw_choices_refused(&b->choices, tw_provider_library.name, b->ctx->error);
    return false;
}

tw_status tw_cuda_order(tw_backend *b, const tw_region *region, const tw_provider *const **out) {
    static const tw_provider *const own_first[] = {&tw_provider_own, &tw_provider_library, NULL};
    static const tw_provider *const library_first[] = {&tw_provider_library, &tw_provider_own,
                                                       NULL};
    const tw_own_fused f = tw_own_fuse(region);
    const tw_provider *tuned = NULL;
    TW_TRY(tw_cuda_tuned(b, region, &f, &tuned));
    if (tuned) {
        *out = tuned == &tw_provider_library ? library_first : own_first;
        return TW_OK;
    }
    const bool library =
        tw_heuristic_library_first(tw_heuristic_of(region, &f)) && library_does_all(b, region, &f);
    *out = library ? library_first : own_first;
    return TW_OK;
}
