/* The provider "cudnn": convolutions, attention and their gradients by cuDNN, products by cuBLASLt.
 * The arguments are those that the hand-written kernels are called with. */
#include <stdio.h>

#include "backend/cuda/own.h"
#include "backend/cuda/vendor/vendor.h"

typedef union arguments {
    twk_conv_args conv;
    twk_gemm_args gemm;
    twk_attention_args attention;
} arguments;

static tw_vendor_call call_of(const tw_own_call *c, arguments *a) {
    static const tw_vendor_op ops[TW_OP_COUNT] = {
        [TW_OP_CONV2D] = TW_VENDOR_CONV_FORWARD,
        [TW_OP_CONV2D_BWD_DATA] = TW_VENDOR_CONV_INPUT_GRADIENT,
        [TW_OP_CONV2D_BWD_WEIGHT] = TW_VENDOR_CONV_WEIGHT_GRADIENT,
        [TW_OP_LINEAR] = TW_VENDOR_GEMM,
        [TW_OP_LINEAR_BWD_DATA] = TW_VENDOR_GEMM,
        [TW_OP_LINEAR_BWD_WEIGHT] = TW_VENDOR_GEMM,
        [TW_OP_ATTENTION] = TW_VENDOR_ATTENTION_FORWARD,
        [TW_OP_ATTENTION_BWD] = TW_VENDOR_ATTENTION_BACKWARD};
    tw_vendor_call call = {.op = ops[c->op.kind]};
    switch (call.op) {
    case TW_VENDOR_GEMM:
        a->gemm = tw_own_linear_args(c);
        a->gemm.workspace = c->workspace;
        a->gemm.workspace_bytes = c->workspace_bytes;
        call.args.gemm = &a->gemm;
        break;
    case TW_VENDOR_ATTENTION_FORWARD:
    case TW_VENDOR_ATTENTION_BACKWARD:
        a->attention = tw_own_attention_args(c);
        call.args.attention = &a->attention;
        break;
    default:
        a->conv = tw_own_conv2d_args(c);
        call.args.conv = &a->conv;
    }
    return call;
}

static tw_status run(const tw_own_call *c) {
    arguments a;
    const tw_vendor_call call = call_of(c, &a);
    const twk_status s = tw_vendor_run(tw_cuda_of(c->backend)->vendor, &call, c->stream);
    return tw_own_result(c, s, tw_vendor_text());
}

static size_t workspace(const tw_own_call *c) {
    arguments a;
    tw_vendor_choice choice = {0};
    const tw_vendor_call call = call_of(c, &a);
    const twk_status s = tw_vendor_choose(tw_cuda_of(c->backend)->vendor, &call, &choice);
    return s == TWK_OK ? choice.workspace : 0;
}

static const char *refuse(const tw_own_call *c) {
    arguments a;
    tw_vendor_choice choice;
    const tw_vendor_call call = call_of(c, &a);
    const twk_status s = tw_vendor_choose(tw_cuda_of(c->backend)->vendor, &call, &choice);
    return s == TWK_OK ? NULL : tw_vendor_text();
}

static tw_status linear_bwd_weight(const tw_own_call *c) {
    TW_TRY(run(c));
    return tw_own_linear_sums(c);
}

static size_t linear_bwd_weight_workspace(const tw_own_call *c) {
    const size_t product = workspace(c), sums = tw_own_linear_sums_workspace(c);
    return product > sums ? product : sums;
}

static const char *refuse_conv2d(const tw_own_call *c) {
    const char *why = tw_own_conv2d_refuse(c);
    return why ? why : refuse(c);
}

static const char *refuse_attention(const tw_own_call *c) {
    const char *why = tw_own_attention_refuse(c);
    return why ? why : refuse(c);
}

static const tw_own_entry entries[TW_OP_COUNT] = {
    [TW_OP_LINEAR] = {run, workspace, refuse},
    [TW_OP_LINEAR_BWD_DATA] = {run, workspace, refuse},
    [TW_OP_LINEAR_BWD_WEIGHT] = {linear_bwd_weight, linear_bwd_weight_workspace, refuse},
    [TW_OP_CONV2D] = {run, workspace, refuse_conv2d},
    [TW_OP_CONV2D_BWD_DATA] = {run, workspace, refuse_conv2d},
    [TW_OP_CONV2D_BWD_WEIGHT] = {run, workspace, refuse_conv2d},
    [TW_OP_ATTENTION] = {run, workspace, refuse_attention},
    [TW_OP_ATTENTION_BWD] = {run, workspace, refuse_attention},
};

tw_status tw_cuda_open_libraries(tw_cuda_backend *b) {
    const tw_vendor_options options = {
        .cudnn = b->rt->cudnn,
        .cublaslt = b->rt->cublaslt,
        .kernels = {.convert = twk_convert,
                    .add = twk_add,
                    .column_sums_workspace = twk_column_sums_workspace,
                    .column_sums = twk_column_sums,
                    .error_text = twk_error_text}};
    if (tw_vendor_create(&options, &b->vendor) == TWK_OK) return TW_OK;
    return tw_fail(b->base.ctx, TW_ERROR_MEMORY, "%s", tw_vendor_text());
}

void tw_cuda_name_libraries(tw_backend *b, char *out, size_t size) {
    static const tw_vendor_op ops[] = {TW_VENDOR_CONV_FORWARD, TW_VENDOR_GEMM};
    size_t used = 0;
    *out = '\0';
    if (b->begin(b) != TW_OK) return;
    for (int i = 0; i < 2 && used < size; i++) {
        const char *name = tw_vendor_library(tw_cuda_of(b)->vendor, ops[i]);
        const int n = snprintf(out + used, size - used, "%s%s", i ? ", " : "",
                               name ? name : tw_vendor_text());
        used += n > 0 ? (size_t)n : 0;
    }
    b->end(b);
}

bool tw_cuda_library_has(tw_op_kind kind) {
    return entries[kind].run != NULL;
}

bool tw_cuda_library_claims(tw_backend *b, const tw_region *region, const tw_own_fused *f) {
    tw_kernel kernel = {0};
    b->ctx->error[0] = 0;
    if (tw_own_prepare(entries, b, region, f, &kernel) != TW_OK) return false;
    kernel.destroy(&kernel, b);
    return true;
}

/* The most of what one kernel of ours would do with the product that a library does, too. Other
 * operations are passed over without a word: no library has them. */
static tw_status library_prepare(tw_backend *backend, const tw_region *region, tw_kernel *kernel) {
    tw_region part = *region;
    tw_own_fused f = tw_own_fuse(&part);
    tw_status s = TW_ERROR_UNSUPPORTED;
    while (f.claimed > f.product && tw_cuda_library_has(part.ops[f.product].kind)) {
        s = tw_own_prepare(entries, backend, region, &f, kernel);
        if (s != TW_ERROR_UNSUPPORTED || f.claimed <= 1) break;
        part.n_ops = f.claimed - 1;
        f = tw_own_fuse(&part);
    }
    return s;
}

const tw_provider tw_provider_library = {"cudnn", library_prepare};
