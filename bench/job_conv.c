/* Convolution forward with its bias. */
#include <math.h>

#include "job.h"

static void conv_make(const bench_row *r, bench_memory *m, bench_call *call) {
    const int64_t taps = (int64_t)r->kernel * r->kernel, weights = r->out_channels * taps * r->c;
    const int64_t out = r->n * r->h * r->w * r->out_channels;
    twk_conv_args *a = &call->u.conv;
    *a = (twk_conv_args){
        .batch = r->n,
        .h = r->h,
        .w = r->w,
        .channels = (int)r->c,
        .out_channels = r->out_channels,
        .kernel_h = r->kernel,
        .kernel_w = r->kernel,
        .stride = 1,
        .pad_top = r->kernel / 2,
        .pad_left = r->kernel / 2,
        .pad_bottom = r->kernel / 2,
        .pad_right = r->kernel / 2,
        .format = r->format,
        .tf32 = r->tf32,
        .x = bench_normals(m, r->format, bench_elements(r), 1.0f),
        .weight = bench_normals(m, r->format, weights, 1.0f / sqrtf((float)(taps * r->c))),
        .bias = bench_floats(m, r->out_channels, 0.5f)};
    a->y = bench_raw(m, (size_t)out * bench_format_bytes(r->format));
    a->workspace_bytes = twk_conv_workspace(a);
    if (a->workspace_bytes) a->workspace = bench_raw(m, a->workspace_bytes);
}

static twk_status conv_run(const bench_call *call, twk_stream s) {
    return twk_conv_forward(&call->u.conv, s);
}

/* The ten bits of fraction that tf32 keeps. */
static double rounded(double v, int tf32) {
    int e;
    if (!tf32) return v;
    const double m = frexp(v, &e);
    return ldexp(round(ldexp(m, 11)), e - 11);
}

/* One element; x is a sample, w the weights of its output channel. */
static bench_value conv_at(const twk_conv_args *a, const double *x, const double *w, int64_t pixel,
                           double bias) {
    bench_value sum = {bias, fabs(bias)};
    for (int i = 0; i < a->kernel_h * a->kernel_w; i++) {
        const int64_t row = pixel / a->w + i / a->kernel_w - a->pad_top;
        const int64_t column = pixel % a->w + i % a->kernel_w - a->pad_left;
        if (row < 0 || column < 0 || row >= a->h || column >= a->w) continue;
        const double *from = x + (row * a->w + column) * a->channels;
        for (int k = 0; k < a->channels; k++) {
            const double term =
                rounded(from[k], a->tf32) * rounded(w[i * a->channels + k], a->tf32);
            sum.value += term;
            sum.terms += fabs(term);
        }
    }
    return sum;
}

static void conv_check(const bench_row *r, const bench_call *call, bench_check *k) {
    const twk_conv_args *a = &call->u.conv;
    const int64_t pixels = a->h * a->w, depth = (int64_t)a->kernel_h * a->kernel_w * a->channels;
    const int64_t out = a->out_channels;
    bench_range range[2];
    const int ranges = bench_ends(pixels, 8, range);
    for (int part = 0; part < 2; part++) {
        const int64_t at = part ? r->n - 1 : 0;
        const double *x =
            bench_fetch(k, a->format, a->x, at * pixels * a->channels, pixels * a->channels);
        const double *y = bench_fetch(k, a->format, a->y, at * pixels * out, pixels * out);
        const double *w = bench_fetch(k, a->format, a->weight, 0, out * depth);
        const double *bias = bench_fetch(k, TWK_F32, a->bias, 0, out);
        if (k->failed) return;
        for (int i = 0; i < ranges; i++)
            for (int64_t j = 0; j < range[i].count * out; j++) {
                const int64_t pixel = range[i].first + j / out, o = j % out;
                bench_compare(k, a->format, y[pixel * out + o],
                              conv_at(a, x, w + o * depth, pixel, bias[o]), 8);
            }
        bench_drop(k);
    }
    k->of = "8 pixels at both ends of the first and last sample";
}

const bench_family bench_conv = {conv_make, conv_run, conv_check, NULL, "none"};
