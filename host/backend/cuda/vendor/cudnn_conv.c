/* Convolutions by cuDNN: forward, and the gradients of input and weights. cuDNN counts N,C,H,W;
 * that C lies closest together is said by the strides. */
#include <string.h>

#include "backend/cuda/vendor/cudnn.h"

/* y stands for dy in the gradients. */
enum { UID_X = 1, UID_WEIGHT, UID_Y, UID_BIAS, UID_RESIDUAL, UID_VECTOR, UID_INSIDE };

static const char *const names[] = {[TW_VENDOR_CONV_FORWARD] = "convolution",
                                    [TW_VENDOR_CONV_INPUT_GRADIENT] = "convolution, input gradient",
                                    [TW_VENDOR_CONV_WEIGHT_GRADIENT] =
                                        "convolution, weight gradient"};

static float scale_of(const twk_conv_args *a) {
    return a->scale == 0.0f ? 1.0f : a->scale;
}
static bool rounds_bias(const tw_vendor_call *call) {
    const twk_conv_args *a = call->args.conv;
    return call->op == TW_VENDOR_CONV_FORWARD && a->bias && a->format != TWK_F32;
}
static int64_t out_h(const twk_conv_args *a) {
    return (a->h + a->pad_top + a->pad_bottom - a->kernel_h) / a->stride + 1;
}
static int64_t out_w(const twk_conv_args *a) {
    return (a->w + a->pad_left + a->pad_right - a->kernel_w) / a->stride + 1;
}
static int64_t weights(const twk_conv_args *a) {
    return (int64_t)a->out_channels * a->kernel_h * a->kernel_w * a->channels;
}

/* Of its largest tensor, roughly. */
static double elements_at_most(const twk_conv_args *a) {
    const double h = (double)a->h + a->pad_top + a->pad_bottom;
    const double w = (double)a->w + a->pad_left + a->pad_right;
    const double images = (double)a->batch * h * w * ((double)a->channels + a->out_channels);
    const double weight = (double)a->out_channels * a->channels * a->kernel_h * a->kernel_w;
    return images > weight ? images : weight;
}

/* --- arguments -------------------------------------------------------------------------------- */

#define REQUIRE(condition, text)                                                                   \
    if (!(condition)) return tw_vendor_fail(TWK_BAD_ARGUMENT, "%s: " text, names[call->op])
#define CANNOT(condition, text)                                                                    \
    if (condition) return tw_vendor_fail(TWK_UNSUPPORTED, "cuDNN: %s: " text, names[call->op])

static twk_status check(const tw_vendor_call *call) {
    const twk_conv_args *a = call->args.conv;
    REQUIRE((unsigned)a->format <= TWK_F16, "format: expected fp32, bf16 or fp16");
    REQUIRE(!a->tf32 || a->format == TWK_F32, "tf32 is a way to multiply fp32");
    REQUIRE(a->batch > 0 && a->h > 0 && a->w > 0 && a->channels > 0 && a->channels2 >= 0 &&
                a->out_channels > 0 && a->kernel_h > 0 && a->kernel_w > 0 && a->stride > 0 &&
                a->pad_top >= 0 && a->pad_left >= 0 && a->pad_bottom >= 0 && a->pad_right >= 0,
            "sizes must be positive");
    CANNOT(a->channels2 > 0, "two inputs side by side");
    CANNOT(a->upsample, "an input that is enlarged meanwhile");
    CANNOT(elements_at_most(a) > TW_VENDOR_MOST, "2^40 elements");
    REQUIRE(a->h + a->pad_top + a->pad_bottom >= a->kernel_h &&
                a->w + a->pad_left + a->pad_right >= a->kernel_w,
            "sizes, strides and padding leave no output");
    if (call->op == TW_VENDOR_CONV_FORWARD) {
        CANNOT(a->partial, "statistics for the next norm");
        return TWK_OK;
    }
    REQUIRE(!a->silu, "silu belongs to the forward pass");
    CANNOT(call->op == TW_VENDOR_CONV_WEIGHT_GRADIENT && a->dbias && scale_of(a) != 1.0f,
           "the gradient of a bias that is scaled");
    return TWK_OK;
}

static twk_status addresses(const tw_vendor_call *call) {
    const twk_conv_args *a = call->args.conv;
    const bool weight_gradient = call->op == TW_VENDOR_CONV_WEIGHT_GRADIENT;
    CANNOT(weight_gradient && !a->dweight && a->dbias, "the gradient of a bias alone");
    const bool given = call->op == TW_VENDOR_CONV_FORWARD ? a->x && a->weight && a->y
                       : weight_gradient                  ? a->dy && a->x && a->dweight
                                                          : a->dy && a->weight && a->dx;
    REQUIRE(given, "an operand's address is NULL");
    return TWK_OK;
}

/* Whether the library itself adds the gradient to what is there. Engines for 16-bit formats round
 * dweight to the format. */
static bool adds_itself(const tw_vendor_call *call) {
    const twk_conv_args *a = call->args.conv;
    if (call->op == TW_VENDOR_CONV_INPUT_GRADIENT) return a->dx_add && a->dx_add == a->dx;
    return call->op == TW_VENDOR_CONV_WEIGHT_GRADIENT && a->format == TWK_F32;
}

/* What cuDNN is told beside the sizes: which terms there are and how addresses are aligned. */
typedef struct terms {
    int64_t bias, residual, vector, silu, adds;
    int64_t align_x, align_weight, align_y, align_bias, align_residual, align_vector;
} terms;

static terms terms_of(const tw_vendor_call *call) {
    const twk_conv_args *a = call->args.conv;
    const bool forward = call->op == TW_VENDOR_CONV_FORWARD;
    const bool input = call->op == TW_VENDOR_CONV_INPUT_GRADIENT;
    terms t = {0};
    t.adds = adds_itself(call);
    t.align_x = tw_vendor_alignment(input ? a->dx : a->x);
    t.align_weight = forward || input ? tw_vendor_alignment(a->weight)
                     : t.adds         ? tw_vendor_alignment(a->dweight)
                                      : 16;
    t.align_y = tw_vendor_alignment(forward ? a->y : a->dy);
    if (!forward) return t;
    t.bias = a->bias != NULL;
    t.residual = a->residual != NULL;
    t.vector = a->vector != NULL;
    t.silu = a->silu != 0;
    t.align_bias = rounds_bias(call) ? 16 : tw_vendor_alignment(a->bias);
    t.align_residual = tw_vendor_alignment(a->residual);
    t.align_vector = tw_vendor_alignment(a->vector);
    return t;
}

static void key_of(const tw_vendor_call *call, tw_vendor_key *key) {
    const twk_conv_args *a = call->args.conv;
    const terms t = terms_of(call);
    const float scale = scale_of(a);
    int32_t scale_bits;
    memcpy(&scale_bits, &scale, sizeof scale_bits);
    const int64_t sizes[] = {
        a->batch,        a->h,         a->w,          a->channels,
        a->out_channels, a->kernel_h,  a->kernel_w,   a->stride,
        a->pad_top,      a->pad_left,  a->pad_bottom, a->pad_right,
        a->format,       a->tf32 != 0, scale_bits,    t.vector ? a->vector_stride : 0};
    tw_vendor_key_add(key, sizeof sizes / sizeof *sizes, sizes);
    tw_vendor_key_add(key, sizeof t / sizeof(int64_t), (const int64_t *)&t);
}

/* --- graphs ----------------------------------------------------------------------------------- */

static cudnnBackendDescriptor_t images(tw_cudnn_builder *b, int64_t uid, cudnnDataType_t type,
                                       int64_t n, int64_t c, int64_t h, int64_t w,
                                       int64_t alignment) {
    const tw_cudnn_tensor t = {.uid = uid,
                               .type = type,
                               .dim = {n, c, h, w},
                               .stride = {c * h * w, 1, c * w, c},
                               .alignment = alignment};
    return tw_cudnn_tensor_of(b, &t);
}

/* fp32 values that never leave the processor. */
static cudnnBackendDescriptor_t inside(tw_cudnn_builder *b, int64_t uid, const twk_conv_args *a) {
    const int64_t c = a->out_channels, h = out_h(a), w = out_w(a);
    const tw_cudnn_tensor t = {.uid = uid,
                               .type = CUDNN_DATA_FLOAT,
                               .dim = {a->batch, c, h, w},
                               .stride = {c * h * w, 1, c * w, c},
                               .alignment = 16,
                               .is_virtual = true};
    return tw_cudnn_tensor_of(b, &t);
}

/* One value a channel, and a sample where stride is not 0. */
static cudnnBackendDescriptor_t channels(tw_cudnn_builder *b, int64_t uid, const twk_conv_args *a,
                                         int64_t stride, int64_t alignment) {
    const int64_t c = a->out_channels;
    const tw_cudnn_tensor t = {.uid = uid,
                               .type = tw_cudnn_type(a->format),
                               .dim = {stride ? a->batch : 1, c, 1, 1},
                               .stride = {stride ? stride : c, 1, c, c},
                               .alignment = alignment};
    return tw_cudnn_tensor_of(b, &t);
}

static cudnnBackendDescriptor_t geometry(tw_cudnn_builder *b, const twk_conv_args *a) {
    const cudnnDataType_t sums = CUDNN_DATA_FLOAT;
    const cudnnConvolutionMode_t mode = CUDNN_CROSS_CORRELATION;
    const int64_t axes = 2, one[] = {1, 1}, stride[] = {a->stride, a->stride};
    const int64_t before[] = {a->pad_top, a->pad_left}, after[] = {a->pad_bottom, a->pad_right};
    cudnnBackendDescriptor_t d = tw_cudnn_make(b, CUDNN_BACKEND_CONVOLUTION_DESCRIPTOR);
    tw_cudnn_set(b, d, CUDNN_ATTR_CONVOLUTION_SPATIAL_DIMS, CUDNN_TYPE_INT64, 1, &axes);
    tw_cudnn_set(b, d, CUDNN_ATTR_CONVOLUTION_COMP_TYPE, CUDNN_TYPE_DATA_TYPE, 1, &sums);
    tw_cudnn_set(b, d, CUDNN_ATTR_CONVOLUTION_CONV_MODE, CUDNN_TYPE_CONVOLUTION_MODE, 1, &mode);
    tw_cudnn_set(b, d, CUDNN_ATTR_CONVOLUTION_PRE_PADDINGS, CUDNN_TYPE_INT64, 2, before);
    tw_cudnn_set(b, d, CUDNN_ATTR_CONVOLUTION_POST_PADDINGS, CUDNN_TYPE_INT64, 2, after);
    tw_cudnn_set(b, d, CUDNN_ATTR_CONVOLUTION_DILATIONS, CUDNN_TYPE_INT64, 2, one);
    tw_cudnn_set(b, d, CUDNN_ATTR_CONVOLUTION_FILTER_STRIDES, CUDNN_TYPE_INT64, 2, stride);
    tw_cudnn_finish(b, d, "the convolution's geometry");
    return d;
}

/* Adds `other`, where there is one, to the values so far; the last operation writes y. */
static cudnnBackendDescriptor_t add_term(tw_cudnn_builder *b, const twk_conv_args *a,
                                         cudnnBackendDescriptor_t so_far,
                                         cudnnBackendDescriptor_t other, bool last,
                                         cudnnBackendDescriptor_t y, int64_t *uid) {
    cudnnBackendDescriptor_t sum = last ? y : inside(b, (*uid)++, a);
    tw_cudnn_pointwise(b, CUDNN_POINTWISE_ADD, so_far, other, scale_of(a), sum);
    return sum;
}

/* convolution + residual + bias in this order is the one that cuDNN brings compiled. */
static void forward(tw_cudnn_builder *b, const twk_conv_args *a, const terms *t,
                    cudnnBackendDescriptor_t x, cudnnBackendDescriptor_t weight,
                    cudnnBackendDescriptor_t y) {
    int64_t uid = UID_INSIDE, left = t->residual + t->bias + t->vector + t->silu;
    cudnnBackendDescriptor_t so_far = left ? inside(b, uid++, a) : y;
    cudnnBackendDescriptor_t d =
        tw_cudnn_make(b, CUDNN_BACKEND_OPERATION_CONVOLUTION_FORWARD_DESCRIPTOR);
    tw_cudnn_set_descriptor(b, d, CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_CONV_DESC,
                            geometry(b, a));
    tw_cudnn_set_descriptor(b, d, CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_X, x);
    tw_cudnn_set_descriptor(b, d, CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_W, weight);
    tw_cudnn_set_descriptor(b, d, CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_Y, so_far);
    tw_cudnn_set_float(b, d, CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_ALPHA, scale_of(a));
    tw_cudnn_set_float(b, d, CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_BETA, 0.0f);
    tw_cudnn_operation(b, d, "the convolution");
    if (t->residual)
        so_far = add_term(b, a, so_far,
                          images(b, UID_RESIDUAL, tw_cudnn_type(a->format), a->batch,
                                 a->out_channels, out_h(a), out_w(a), t->align_residual),
                          --left == 0, y, &uid);
    if (t->bias)
        so_far = add_term(b, a, so_far, channels(b, UID_BIAS, a, 0, t->align_bias), --left == 0, y,
                          &uid);
    if (t->vector)
        so_far =
            add_term(b, a, so_far, channels(b, UID_VECTOR, a, a->vector_stride, t->align_vector),
                     --left == 0, y, &uid);
    if (t->silu) tw_cudnn_pointwise(b, CUDNN_POINTWISE_SWISH_FWD, so_far, NULL, 1.0f, y);
}

static void input_gradient(tw_cudnn_builder *b, const twk_conv_args *a, const terms *t,
                           cudnnBackendDescriptor_t dx, cudnnBackendDescriptor_t weight,
                           cudnnBackendDescriptor_t dy) {
    cudnnBackendDescriptor_t d =
        tw_cudnn_make(b, CUDNN_BACKEND_OPERATION_CONVOLUTION_BACKWARD_DATA_DESCRIPTOR);
    tw_cudnn_set_descriptor(b, d, CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_CONV_DESC,
                            geometry(b, a));
    tw_cudnn_set_descriptor(b, d, CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_DX, dx);
    tw_cudnn_set_descriptor(b, d, CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_W, weight);
    tw_cudnn_set_descriptor(b, d, CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_DY, dy);
    tw_cudnn_set_float(b, d, CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_ALPHA, scale_of(a));
    tw_cudnn_set_float(b, d, CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_BETA, t->adds ? 1.0f : 0.0f);
    tw_cudnn_operation(b, d, "the input gradient");
}

static void weight_gradient(tw_cudnn_builder *b, const twk_conv_args *a, const terms *t,
                            cudnnBackendDescriptor_t x, cudnnBackendDescriptor_t dweight,
                            cudnnBackendDescriptor_t dy) {
    cudnnBackendDescriptor_t d =
        tw_cudnn_make(b, CUDNN_BACKEND_OPERATION_CONVOLUTION_BACKWARD_FILTER_DESCRIPTOR);
    tw_cudnn_set_descriptor(b, d, CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_CONV_DESC,
                            geometry(b, a));
    tw_cudnn_set_descriptor(b, d, CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_X, x);
    tw_cudnn_set_descriptor(b, d, CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_DW, dweight);
    tw_cudnn_set_descriptor(b, d, CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_DY, dy);
    tw_cudnn_set_float(b, d, CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_ALPHA, scale_of(a));
    tw_cudnn_set_float(b, d, CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_BETA,
                       t->adds ? 1.0f : 0.0f);
    tw_cudnn_operation(b, d, "the weight gradient");
}

static twk_status plans(tw_vendor *v, const tw_vendor_call *call, int most, tw_vendor_plan **found,
                        int *n) {
    const twk_conv_args *a = call->args.conv;
    const terms t = terms_of(call);
    const cudnnDataType_t type = tw_cudnn_type(a->format);
    tw_cudnn_builder b = {.cudnn = v->cudnn};
    cudnnBackendDescriptor_t x =
        images(&b, UID_X, type, a->batch, a->channels, a->h, a->w, t.align_x);
    cudnnBackendDescriptor_t weight = images(&b, UID_WEIGHT, type, a->out_channels, a->channels,
                                             a->kernel_h, a->kernel_w, t.align_weight);
    cudnnBackendDescriptor_t y =
        images(&b, UID_Y, type, a->batch, a->out_channels, out_h(a), out_w(a), t.align_y);
    if (call->op == TW_VENDOR_CONV_FORWARD)
        forward(&b, a, &t, x, weight, y);
    else if (call->op == TW_VENDOR_CONV_INPUT_GRADIENT)
        input_gradient(&b, a, &t, x, weight, y);
    else
        weight_gradient(&b, a, &t, x, weight, y);
    cudnnBackendDescriptor_t graph = tw_cudnn_graph(&b);
    const tw_cudnn_wish wish = {names[call->op], a->format == TWK_F32 && !a->tf32};
    const twk_status status = b.status == CUDNN_STATUS_SUCCESS
                                  ? tw_cudnn_plans(v, graph, &wish, most, found, n)
                                  : tw_cudnn_cannot(&b, names[call->op]);
    tw_cudnn_clear(&b);
    return status;
}

/* --- calls ------------------------------------------------------------------------------------ */

static size_t sums_workspace(const tw_vendor_kernels *k, const tw_vendor_call *call) {
    const twk_conv_args *a = call->args.conv;
    const size_t weight = adds_itself(call) ? 0 : k->column_sums_workspace(1, 1, weights(a));
    const size_t bias =
        a->dbias ? k->column_sums_workspace(1, a->batch * out_h(a) * out_w(a), a->out_channels) : 0;
    return weight > bias ? weight : bias;
}

static twk_status needs(const tw_vendor *v, const tw_vendor_call *call, tw_vendor_needs *needs) {
    const twk_conv_args *a = call->args.conv;
    const tw_vendor_kernels *k = &v->options.kernels;
    if (rounds_bias(call)) {
        CANNOT(!k->convert, "a bias that nobody rounds to the format");
        needs->bias = (size_t)a->out_channels * tw_vendor_format_bytes(a->format);
    }
    if (call->op == TW_VENDOR_CONV_INPUT_GRADIENT)
        CANNOT(a->dx_add && !adds_itself(call) && !k->add, "a gradient that nobody adds");
    if (call->op == TW_VENDOR_CONV_WEIGHT_GRADIENT && (a->dbias || !adds_itself(call))) {
        CANNOT(!k->column_sums || !k->column_sums_workspace, "a gradient that nobody adds");
        if (!adds_itself(call))
            needs->output = (size_t)weights(a) * tw_vendor_format_bytes(a->format);
        needs->sums = sums_workspace(k, call);
    }
    return TWK_OK;
}

static twk_status before(const tw_vendor *v, const tw_vendor_call *call, const tw_vendor_room *room,
                         twk_stream stream) {
    const twk_conv_args *a = call->args.conv;
    if (!rounds_bias(call)) return TWK_OK;
    return tw_vendor_round(v, a->bias, a->out_channels, a->format, room->bias, stream);
}

static twk_status enqueue(tw_vendor *v, const tw_vendor_call *call, const tw_vendor_plan *plan,
                          const tw_vendor_room *room, twk_stream stream) {
    const twk_conv_args *a = call->args.conv;
    const bool forward = call->op == TW_VENDOR_CONV_FORWARD;
    const bool input = call->op == TW_VENDOR_CONV_INPUT_GRADIENT;
    void *const output = room->output ? room->output : forward ? a->y : input ? a->dx : a->dweight;
    tw_cudnn_binding b = {0};
    tw_cudnn_bind(&b, UID_X, input ? output : a->x);
    tw_cudnn_bind(&b, UID_WEIGHT, forward || input ? a->weight : output);
    tw_cudnn_bind(&b, UID_Y, forward ? output : a->dy);
    if (forward && a->bias)
        tw_cudnn_bind(&b, UID_BIAS, rounds_bias(call) ? room->bias : (const void *)a->bias);
    if (forward && a->residual) tw_cudnn_bind(&b, UID_RESIDUAL, a->residual);
    if (forward && a->vector) tw_cudnn_bind(&b, UID_VECTOR, a->vector);
    return tw_cudnn_execute(v, plan, &b, room->plan, stream);
}

static twk_status sum_up(const tw_vendor *v, const void *x, int64_t pixels, int64_t channels,
                         twk_format format, float *out, const tw_vendor_room *room,
                         twk_stream stream) {
    const tw_vendor_kernels *k = &v->options.kernels;
    const twk_column_sums_args sums = {.batch = 1,
                                       .pixels = pixels,
                                       .channels = channels,
                                       .format = format,
                                       .x = x,
                                       .out = out,
                                       .accumulate = 1,
                                       .workspace = room->sums,
                                       .workspace_bytes = room->needs.sums};
    const twk_status status = k->column_sums(&sums, stream);
    if (status == TWK_OK) return TWK_OK;
    return tw_vendor_fail(status, "convolution, weight gradient: %s",
                          k->error_text ? k->error_text() : "not added");
}

static twk_status after(const tw_vendor *v, const tw_vendor_call *call, const tw_vendor_room *room,
                        twk_stream stream) {
    const twk_conv_args *a = call->args.conv;
    const tw_vendor_kernels *k = &v->options.kernels;
    if (call->op == TW_VENDOR_CONV_WEIGHT_GRADIENT) {
        twk_status status = TWK_OK;
        if (!adds_itself(call))
            status = sum_up(v, room->output, 1, weights(a), a->format, a->dweight, room, stream);
        if (status != TWK_OK || !a->dbias) return status;
        return sum_up(v, a->dy, a->batch * out_h(a) * out_w(a), a->out_channels, a->format,
                      a->dbias, room, stream);
    }
    if (call->op != TW_VENDOR_CONV_INPUT_GRADIENT || !a->dx_add || adds_itself(call)) return TWK_OK;
    const int64_t n = a->batch * a->h * a->w * a->channels;
    const twk_status status = k->add(a->format, n, 1.0f, a->dx, 1.0f, a->dx_add, a->dx, stream);
    if (status == TWK_OK) return TWK_OK;
    return tw_vendor_fail(status, "convolution, input gradient: %s",
                          k->error_text ? k->error_text() : "not added");
}

static tw_vendor_output output(const tw_vendor_call *call) {
    const twk_conv_args *a = call->args.conv;
    const int64_t n =
        call->op == TW_VENDOR_CONV_FORWARD ? a->batch * out_h(a) * out_w(a) * a->out_channels
        : call->op == TW_VENDOR_CONV_INPUT_GRADIENT ? a->batch * a->h * a->w * a->channels
                                                    : weights(a);
    return (tw_vendor_output){n, a->format, tw_vendor_tolerance(a->format, a->tf32)};
}

const tw_vendor_family tw_cudnn_conv = {
    .check = check,
    .addresses = addresses,
    .key = key_of,
    .open = tw_cudnn_open,
    .name = tw_cudnn_name,
    .plans = plans,
    .free = tw_cudnn_free_plan,
    .needs = needs,
    .before = before,
    .enqueue = enqueue,
    .after = after,
    .output = output,
};
