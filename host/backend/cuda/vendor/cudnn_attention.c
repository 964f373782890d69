/* Attention by cuDNN, as its one operation for it. All of its engines are compiled at run time, so
 * this serves where the options allow that. cuDNN 9.19 has the backward operation's descriptor but
 * refuses a graph of it; a later one may not. */
#include <math.h>
#include <string.h>

#include "backend/cuda/vendor/cudnn.h"

#if CUDNN_VERSION >= 91301
#define HAVE_FORWARD 1
#endif
#if CUDNN_VERSION >= 91900
#define HAVE_BACKWARD 1
#endif

enum {
    UID_Q = 1,
    UID_K,
    UID_V,
    UID_O,
    UID_LSE,
    UID_SCALE,
    UID_D_O,
    UID_DQ,
    UID_DK,
    UID_DV,
};

static const char *name_of(tw_vendor_op op) {
    return op == TW_VENDOR_ATTENTION_FORWARD ? "attention" : "attention, gradients";
}

#define REQUIRE(condition, text)                                                                   \
    if (!(condition)) return tw_vendor_fail(TWK_BAD_ARGUMENT, "%s: " text, name_of(call->op))
#define CANNOT(condition, text)                                                                    \
    if (condition) return tw_vendor_fail(TWK_UNSUPPORTED, "cuDNN: %s: " text, name_of(call->op))

static twk_status check(const tw_vendor_call *call) {
    const twk_attention_args *a = call->args.attention;
    REQUIRE((unsigned)a->format <= TWK_F16, "format: expected fp32, bf16 or fp16");
    REQUIRE(a->batch > 0 && a->q_tokens > 0 && a->k_tokens > 0 && a->heads > 0 && a->head_size > 0,
            "sizes must be positive");
    CANNOT(a->format == TWK_F32, "no engine for fp32");
    CANNOT((double)a->batch * (double)(a->q_tokens + a->k_tokens) * a->heads * a->head_size >
               TW_VENDOR_MOST,
           "2^40 elements");
    return TWK_OK;
}

static twk_status addresses(const tw_vendor_call *call) {
    const twk_attention_args *a = call->args.attention;
    REQUIRE(a->q && a->k && a->v && a->o, "an operand's address is NULL");
    if (call->op == TW_VENDOR_ATTENTION_FORWARD) return TWK_OK;
    REQUIRE(a->lse && a->d_o, "an operand's address is NULL");
    CANNOT(!a->dq || !a->dk || !a->dv, "some of the gradients alone");
    return TWK_OK;
}

static void key_of(const tw_vendor_call *call, tw_vendor_key *key) {
    const twk_attention_args *a = call->args.attention;
    const bool forward = call->op == TW_VENDOR_ATTENTION_FORWARD;
    const int64_t values[] = {a->batch,
                              a->q_tokens,
                              a->k_tokens,
                              a->heads,
                              a->head_size,
                              a->format,
                              a->q_row,
                              a->k_row,
                              a->v_row,
                              a->q_batch,
                              a->k_batch,
                              a->v_batch,
                              a->o_row,
                              a->o_batch,
                              a->lse != NULL,
                              tw_vendor_alignment(a->q),
                              tw_vendor_alignment(a->k),
                              tw_vendor_alignment(a->v),
                              tw_vendor_alignment(a->o),
                              forward ? 0 : tw_vendor_alignment(a->d_o),
                              forward ? 0 : tw_vendor_alignment(a->dq),
                              forward ? 0 : tw_vendor_alignment(a->dk),
                              forward ? 0 : tw_vendor_alignment(a->dv)};
    tw_vendor_key_add(key, sizeof values / sizeof *values, values);
}

#ifdef HAVE_FORWARD

/* Tokens by head size for every head of every sample. */
static cudnnBackendDescriptor_t tokens(tw_cudnn_builder *b, int64_t uid,
                                       const twk_attention_args *a, int64_t n, int64_t row,
                                       int64_t batch, const void *address) {
    const tw_cudnn_tensor t = {.uid = uid,
                               .type = tw_cudnn_type(a->format),
                               .dim = {a->batch, a->heads, n, a->head_size},
                               .stride = {batch, a->head_size, row, 1},
                               .alignment = tw_vendor_alignment(address)};
    return tw_cudnn_tensor_of(b, &t);
}

typedef struct operands {
    cudnnBackendDescriptor_t q, k, v, o, lse, scale;
} operands;

static operands make_operands(tw_cudnn_builder *b, const twk_attention_args *a) {
    const int64_t rows = a->heads * a->q_tokens;
    const tw_cudnn_tensor lse = {.uid = UID_LSE,
                                 .type = CUDNN_DATA_FLOAT,
                                 .dim = {a->batch, a->heads, a->q_tokens, 1},
                                 .stride = {rows, a->q_tokens, 1, 1},
                                 .alignment = 4};
    const tw_cudnn_tensor scale = {.uid = UID_SCALE,
                                   .type = CUDNN_DATA_FLOAT,
                                   .dim = {1, 1, 1, 1},
                                   .stride = {1, 1, 1, 1},
                                   .alignment = 4,
                                   .by_value = true};
    operands m;
    m.q = tokens(b, UID_Q, a, a->q_tokens, a->q_row, a->q_batch, a->q);
    m.k = tokens(b, UID_K, a, a->k_tokens, a->k_row, a->k_batch, a->k);
    m.v = tokens(b, UID_V, a, a->k_tokens, a->v_row, a->v_batch, a->v);
    m.o = tokens(b, UID_O, a, a->q_tokens, a->o_row, a->o_batch, a->o);
    m.lse = a->lse ? tw_cudnn_tensor_of(b, &lse) : NULL;
    m.scale = tw_cudnn_tensor_of(b, &scale);
    return m;
}

static void forward(tw_cudnn_builder *b, const twk_attention_args *a) {
    const operands m = make_operands(b, a);
    cudnnBackendDescriptor_t d = tw_cudnn_make(b, CUDNN_BACKEND_OPERATION_SDPA_FWD_DESCRIPTOR);
    tw_cudnn_set_descriptor(b, d, CUDNN_ATTR_OPERATION_SDPA_FWD_QDESC, m.q);
    tw_cudnn_set_descriptor(b, d, CUDNN_ATTR_OPERATION_SDPA_FWD_KDESC, m.k);
    tw_cudnn_set_descriptor(b, d, CUDNN_ATTR_OPERATION_SDPA_FWD_VDESC, m.v);
    tw_cudnn_set_descriptor(b, d, CUDNN_ATTR_OPERATION_SDPA_FWD_ODESC, m.o);
    tw_cudnn_set_descriptor(b, d, CUDNN_ATTR_OPERATION_SDPA_FWD_SCALEDESC, m.scale);
    if (m.lse) tw_cudnn_set_descriptor(b, d, CUDNN_ATTR_OPERATION_SDPA_FWD_STATSDESC, m.lse);
    tw_cudnn_operation(b, d, "attention");
}

#ifdef HAVE_BACKWARD
static void backward(tw_cudnn_builder *b, const twk_attention_args *a) {
    const operands m = make_operands(b, a);
    cudnnBackendDescriptor_t d = tw_cudnn_make(b, CUDNN_BACKEND_OPERATION_SDPA_BWD_DESCRIPTOR);
    tw_cudnn_set_descriptor(b, d, CUDNN_ATTR_OPERATION_SDPA_BWD_QDESC, m.q);
    tw_cudnn_set_descriptor(b, d, CUDNN_ATTR_OPERATION_SDPA_BWD_KDESC, m.k);
    tw_cudnn_set_descriptor(b, d, CUDNN_ATTR_OPERATION_SDPA_BWD_VDESC, m.v);
    tw_cudnn_set_descriptor(b, d, CUDNN_ATTR_OPERATION_SDPA_BWD_ODESC, m.o);
    tw_cudnn_set_descriptor(b, d, CUDNN_ATTR_OPERATION_SDPA_BWD_SCALEDESC, m.scale);
    if (m.lse) tw_cudnn_set_descriptor(b, d, CUDNN_ATTR_OPERATION_SDPA_BWD_STATSDESC, m.lse);
    tw_cudnn_set_descriptor(b, d, CUDNN_ATTR_OPERATION_SDPA_BWD_DODDESC,
                            tokens(b, UID_D_O, a, a->q_tokens, a->o_row, a->o_batch, a->d_o));
    tw_cudnn_set_descriptor(b, d, CUDNN_ATTR_OPERATION_SDPA_BWD_DQDESC,
                            tokens(b, UID_DQ, a, a->q_tokens, a->q_row, a->q_batch, a->dq));
    tw_cudnn_set_descriptor(b, d, CUDNN_ATTR_OPERATION_SDPA_BWD_DKDESC,
                            tokens(b, UID_DK, a, a->k_tokens, a->k_row, a->k_batch, a->dk));
    tw_cudnn_set_descriptor(b, d, CUDNN_ATTR_OPERATION_SDPA_BWD_DVDESC,
                            tokens(b, UID_DV, a, a->k_tokens, a->v_row, a->v_batch, a->dv));
    tw_cudnn_operation(b, d, "the gradients of attention");
}
#endif

static bool build(tw_cudnn_builder *b, const tw_vendor_call *call) {
    const bool is_forward = call->op == TW_VENDOR_ATTENTION_FORWARD;
    if (b->cudnn->api.GetVersion() < (is_forward ? 91301u : 91900u)) return false;
    if (is_forward) forward(b, call->args.attention);
#ifdef HAVE_BACKWARD
    else
        backward(b, call->args.attention);
#endif
    return b->n_operations > 0 || b->status != CUDNN_STATUS_SUCCESS;
}

#else

static bool build(tw_cudnn_builder *b, const tw_vendor_call *call) {
    (void)b, (void)call;
    return false;
}

#endif

static twk_status plans(tw_vendor *v, const tw_vendor_call *call, int most, tw_vendor_plan **found,
                        int *n) {
    const char *const what = name_of(call->op);
    if (!v->options.compile)
        return tw_vendor_fail(TWK_UNSUPPORTED, "%s: %s: its engines are compiled at run time",
                              v->cudnn->name, what);
    tw_cudnn_builder b = {.cudnn = v->cudnn};
    if (!build(&b, call))
        return tw_vendor_fail(TWK_UNSUPPORTED, "%s: %s: not offered", v->cudnn->name, what);
    cudnnBackendDescriptor_t graph = tw_cudnn_graph(&b);
    const tw_cudnn_wish wish = {what, false};
    const twk_status status = b.status == CUDNN_STATUS_SUCCESS
                                  ? tw_cudnn_plans(v, graph, &wish, most, found, n)
                                  : tw_cudnn_cannot(&b, what);
    tw_cudnn_clear(&b);
    return status;
}

static twk_status needs(const tw_vendor *v, const tw_vendor_call *call, tw_vendor_needs *needs) {
    (void)v, (void)call, (void)needs;
    return TWK_OK;
}

static twk_status nothing(const tw_vendor *v, const tw_vendor_call *call,
                          const tw_vendor_room *room, twk_stream stream) {
    (void)v, (void)call, (void)room, (void)stream;
    return TWK_OK;
}

static twk_status enqueue(tw_vendor *v, const tw_vendor_call *call, const tw_vendor_plan *plan,
                          const tw_vendor_room *room, twk_stream stream) {
    const twk_attention_args *a = call->args.attention;
    const bool is_forward = call->op == TW_VENDOR_ATTENTION_FORWARD;
    float scale = a->scale == 0.0f ? 1.0f / sqrtf((float)a->head_size) : a->scale;
    tw_cudnn_binding b = {0};
    tw_cudnn_bind(&b, UID_Q, a->q);
    tw_cudnn_bind(&b, UID_K, a->k);
    tw_cudnn_bind(&b, UID_V, a->v);
    tw_cudnn_bind(&b, UID_O, is_forward && room->output ? room->output : a->o);
    tw_cudnn_bind(&b, UID_SCALE, &scale);
    if (a->lse) tw_cudnn_bind(&b, UID_LSE, a->lse);
    if (!is_forward) {
        tw_cudnn_bind(&b, UID_D_O, a->d_o);
        tw_cudnn_bind(&b, UID_DQ, room->output ? room->output : a->dq);
        tw_cudnn_bind(&b, UID_DK, a->dk);
        tw_cudnn_bind(&b, UID_DV, a->dv);
    }
    return tw_cudnn_execute(v, plan, &b, room->plan, stream);
}

/* With the gaps between rows, which stay as they are. */
static tw_vendor_output output(const tw_vendor_call *call) {
    const twk_attention_args *a = call->args.attention;
    const bool is_forward = call->op == TW_VENDOR_ATTENTION_FORWARD;
    const int64_t row = is_forward ? a->o_row : a->q_row;
    const int64_t batch = is_forward ? a->o_batch : a->q_batch;
    return (tw_vendor_output){(a->batch - 1) * batch + (a->q_tokens - 1) * row +
                                  (int64_t)a->heads * a->head_size,
                              a->format, tw_vendor_tolerance(a->format, 0)};
}

const tw_vendor_family tw_cudnn_attention = {
    .check = check,
    .addresses = addresses,
    .key = key_of,
    .open = tw_cudnn_open,
    .name = tw_cudnn_name,
    .plans = plans,
    .free = tw_cudnn_free_plan,
    .needs = needs,
    .before = nothing,
    .enqueue = enqueue,
    .after = nothing,
    .output = output,
};
