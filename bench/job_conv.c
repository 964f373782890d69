/* Convolution forward with its bias, and its gradients. */
#include <math.h>

#include "job.h"

/* Of a sum of products whose factors were rounded once more: the format's unit roundoff. */
static double rounded_again(twk_format f) {
    return 8 + (f == TWK_F32 ? 4 : f == TWK_BF16 ? 0x1p16 : 0x1p13);
}

/* Stride 2 pads below and right only, as diffusers' downsampling does. */
static twk_conv_args conv_args(const bench_row *r, bench_memory *m) {
    const int halved = r->stride == 2, pad = r->kernel / 2;
    const int64_t weights = r->out_channels * (int64_t)r->kernel * r->kernel * r->c;
    twk_conv_args a = {.batch = r->n,
                       .h = r->h,
                       .w = r->w,
                       .channels = (int)r->c - r->second,
                       .channels2 = r->second,
                       .upsample = r->upsampled,
                       .out_channels = r->out_channels,
                       .kernel_h = r->kernel,
                       .kernel_w = r->kernel,
                       .stride = r->stride,
                       .pad_top = halved ? 0 : pad,
                       .pad_left = halved ? 0 : pad,
                       .pad_bottom = pad,
                       .pad_right = pad,
                       .format = r->format,
                       .tf32 = r->tf32};
    a.weight = bench_normals(m, r->format, weights,
                             1.0f / sqrtf((float)(r->kernel * r->kernel) * (float)r->c));
    return a;
}

static int64_t outputs(const twk_conv_args *a) {
    return a->batch * twk_conv_out_h(a) * twk_conv_out_w(a) * a->out_channels;
}
static void *image(bench_memory *m, const twk_conv_args *a, int channels) {
    return channels ? bench_normals(m, a->format, a->batch * a->h * a->w * channels, 1.0f) : NULL;
}
static void *image_to_be(bench_memory *m, const twk_conv_args *a, int channels) {
    const size_t pixels = (size_t)(a->batch * a->h * a->w);
    return channels ? bench_raw(m, pixels * (size_t)channels * bench_format_bytes(a->format))
                    : NULL;
}

static void conv_make(const bench_row *r, bench_memory *m, bench_call *call) {
    twk_conv_args *a = &call->u.conv;
    *a = conv_args(r, m);
    a->fold = r->upsampled;
    a->x = image(m, a, a->channels);
    a->x2 = image(m, a, a->channels2);
    a->bias = bench_floats(m, r->out_channels, 0.5f);
    a->y = bench_raw(m, (size_t)outputs(a) * bench_format_bytes(r->format));
    a->workspace_bytes = twk_conv_workspace(a);
    if (a->workspace_bytes) a->workspace = bench_raw(m, a->workspace_bytes);
}

static void input_gradient_make(const bench_row *r, bench_memory *m, bench_call *call) {
    twk_conv_args *a = &call->u.conv;
    *a = conv_args(r, m);
    a->dy = bench_normals(m, r->format, outputs(a), 1.0f);
    a->dx = image_to_be(m, a, a->channels);
    a->dx2 = image_to_be(m, a, a->channels2);
    a->workspace_bytes = twk_conv_input_gradient_workspace(a);
    if (a->workspace_bytes) a->workspace = bench_raw(m, a->workspace_bytes);
}

static void weight_gradient_make(const bench_row *r, bench_memory *m, bench_call *call) {
    twk_conv_args *a = &call->u.conv;
    *a = conv_args(r, m);
    a->x = image(m, a, a->channels);
    a->x2 = image(m, a, a->channels2);
    a->dy = bench_normals(m, r->format, outputs(a), 1.0f);
    a->dweight = bench_zeros(m, (size_t)(r->out_channels * r->kernel * r->kernel) * (size_t)r->c *
                                    sizeof(float));
    a->dbias = bench_zeros(m, (size_t)r->out_channels * sizeof(float));
    a->workspace_bytes = twk_conv_weight_gradient_workspace(a);
    if (a->workspace_bytes) a->workspace = bench_raw(m, a->workspace_bytes);
}

static twk_status conv_run(const bench_call *call, twk_stream s) {
    return twk_conv_forward(&call->u.conv, s);
}
static twk_status input_gradient_run(const bench_call *call, twk_stream s) {
    return twk_conv_input_gradient(&call->u.conv, s);
}
static twk_status weight_gradient_run(const bench_call *call, twk_stream s) {
    return twk_conv_weight_gradient(&call->u.conv, s);
}

/* The pixel of x under a tap of an output pixel; -1 in the padding. */
static int64_t pixel_under(const twk_conv_args *a, int64_t out_pixel, int tap) {
    const int64_t out_w = twk_conv_out_w(a), up = a->upsample ? 2 : 1;
    const int64_t row = out_pixel / out_w * a->stride + tap / a->kernel_w - a->pad_top;
    const int64_t column = out_pixel % out_w * a->stride + tap % a->kernel_w - a->pad_left;
    if (row < 0 || column < 0 || row >= a->h * up || column >= a->w * up) return -1;
    return row / up * a->w + column / up;
}

/* The pixels of sample `at` of one image or, channel by channel, of two. */
static const double *sample(bench_check *k, const twk_conv_args *a, const void *x, const void *x2,
                            int64_t at) {
    const int64_t pixels = a->h * a->w, c1 = a->channels, c2 = a->channels2, in = c1 + c2;
    const double *one = bench_fetch(k, a->format, x, at * pixels * c1, pixels * c1);
    if (!c2) return one;
    const double *two = bench_fetch(k, a->format, x2, at * pixels * c2, pixels * c2);
    double *both = bench_hold(k, pixels * in);
    if (k->failed) return NULL;
    for (int64_t i = 0; i < pixels * in; i++)
        both[i] = i % in < c1 ? one[i / in * c1 + i % in] : two[i / in * c2 + i % in - c1];
    return both;
}

static void conv_check(const bench_row *r, const bench_call *call, bench_check *k) {
    const twk_conv_args *a = &call->u.conv;
    const int taps = a->kernel_h * a->kernel_w;
    const int64_t out = a->out_channels, in = r->c;
    const int64_t out_pixels = twk_conv_out_h(a) * twk_conv_out_w(a);
    bench_range range[2];
    const int ranges = bench_ends(out_pixels, 8, range);
    for (int part = 0; part < 2; part++) {
        const int64_t at = part ? r->n - 1 : 0;
        const double *x = sample(k, a, a->x, a->x2, at);
        const double *y = bench_fetch(k, a->format, a->y, at * out_pixels * out, out_pixels * out);
        const double *w = bench_fetch(k, a->format, a->weight, 0, out * taps * in);
        const double *bias = bench_fetch(k, TWK_F32, a->bias, 0, out);
        if (k->failed) return;
        for (int i = 0; i < ranges; i++)
            for (int64_t j = 0; j < range[i].count * out; j++) {
                const int64_t pixel = range[i].first + j / out, o = j % out;
                bench_value sum = {bias[o], fabs(bias[o])};
                for (int t = 0; t < taps; t++) {
                    const int64_t under = pixel_under(a, pixel, t);
                    for (int64_t c = 0; under >= 0 && c < in; c++)
                        bench_add_term(&sum, x[under * in + c], w[(o * taps + t) * in + c],
                                       a->tf32);
                }
                bench_compare(k, a->format, y[pixel * out + o], sum,
                              a->fold ? rounded_again(a->format) : 8);
            }
        bench_drop(k);
    }
    k->of = "8 pixels at both ends of the first and last sample";
}

/* Every output pixel's taps are walked, so that this is not the kernel's way to the same sum. */
static void input_gradient_check(const bench_row *r, const bench_call *call, bench_check *k) {
    const twk_conv_args *a = &call->u.conv;
    const int taps = a->kernel_h * a->kernel_w;
    const int64_t pixels = a->h * a->w, out = a->out_channels, in = r->c;
    const int64_t out_pixels = twk_conv_out_h(a) * twk_conv_out_w(a);
    bench_range range[2];
    const int ranges = bench_ends(pixels, 4, range);
    for (int part = 0; part < 2; part++) {
        const int64_t at = part ? r->n - 1 : 0;
        const double *dy =
            bench_fetch(k, a->format, a->dy, at * out_pixels * out, out_pixels * out);
        const double *dx = sample(k, a, a->dx, a->dx2, at);
        const double *w = bench_fetch(k, a->format, a->weight, 0, out * taps * in);
        bench_value *sum = (bench_value *)bench_hold(k, 2 * 8 * in);
        if (k->failed) return;
        for (int64_t p = 0; p < out_pixels; p++)
            for (int t = 0; t < taps; t++) {
                const int64_t under = pixel_under(a, p, t);
                int64_t slot = -1;
                for (int i = 0, before = 0; i < ranges; before += (int)range[i++].count)
                    if (under >= range[i].first && under < range[i].first + range[i].count)
                        slot = before + under - range[i].first;
                for (int64_t o = 0; slot >= 0 && o < out; o++)
                    for (int64_t c = 0; c < in; c++)
                        bench_add_term(&sum[slot * in + c], dy[p * out + o],
                                       w[(o * taps + t) * in + c], a->tf32);
            }
        for (int i = 0, slot = 0; i < ranges; i++)
            for (int64_t p = range[i].first; p < range[i].first + range[i].count; p++, slot++)
                for (int64_t c = 0; c < in; c++)
                    bench_compare(k, a->format, dx[p * in + c], sum[slot * in + c],
                                  a->upsample ? rounded_again(a->format) : 8);
        bench_drop(k);
    }
    k->of = "4 pixels at both ends of the first and last sample";
}

/* Of the first and last channels of x and dy: every tap of their weights, and the biases. */
static void weight_gradient_check(const bench_row *r, const bench_call *call, bench_check *k) {
    const twk_conv_args *a = &call->u.conv;
    const int taps = a->kernel_h * a->kernel_w;
    const int64_t pixels = a->h * a->w, out = a->out_channels, in = r->c;
    const int64_t out_pixels = twk_conv_out_h(a) * twk_conv_out_w(a);
    for (int part = 0; part < 2; part++) {
        const int64_t few = 2, ci = in < few ? in : few, co = out < few ? out : few;
        const int64_t c0 = part ? in - ci : 0, o0 = part ? out - co : 0;
        const bool second = part && a->channels2;
        const double *x = bench_fetch_columns(k, a->format, second ? a->x2 : a->x, r->n * pixels,
                                              second ? a->channels2 : a->channels,
                                              second ? c0 - a->channels : c0, ci);
        const double *dy = bench_fetch_columns(k, a->format, a->dy, r->n * out_pixels, out, o0, co);
        const double *dw = bench_fetch(k, TWK_F32, a->dweight, 0, out * taps * in);
        const double *db = bench_fetch(k, TWK_F32, a->dbias, 0, out);
        if (k->failed) return;
        for (int64_t o = 0; o < co; o++) {
            bench_value bias = {0, 0};
            for (int64_t p = 0; p < r->n * out_pixels; p++) {
                bias.value += dy[p * co + o];
                bias.terms += fabs(dy[p * co + o]);
            }
            bench_compare(k, TWK_F32, db[o0 + o], bias, 8);
            for (int64_t i = 0; i < taps * ci; i++) {
                const int t = (int)(i / ci);
                bench_value sum = {0, 0};
                for (int64_t p = 0; p < r->n * out_pixels; p++) {
                    const int64_t under = pixel_under(a, p % out_pixels, t);
                    if (under >= 0)
                        bench_add_term(&sum, dy[p * co + o],
                                       x[(p / out_pixels * pixels + under) * ci + i % ci], a->tf32);
                }
                bench_compare(k, TWK_F32, dw[((o0 + o) * taps + t) * in + c0 + i % ci], sum, 8);
            }
        }
        bench_drop(k);
    }
    k->of = "all taps of the first and last two channels, and their biases";
}

const bench_family bench_conv = {conv_make, conv_run, conv_check, NULL, "none"};
const bench_family bench_conv_input_gradient = {input_gradient_make, input_gradient_run,
                                                input_gradient_check, NULL, "none"};
const bench_family bench_conv_weight_gradient = {weight_gradient_make, weight_gradient_run,
                                                 weight_gradient_check, NULL, "none"};
