/* What moves elements: concat, pooling and its counterpart, layout, images. */
#include <cuda_runtime_api.h>
#include <math.h>

#include "job.h"

static void *output(const bench_row *r, bench_memory *m, int64_t elements) {
    return bench_raw(m, (size_t)elements * bench_format_bytes(r->format));
}

static void concat_make(const bench_row *r, bench_memory *m, bench_call *call) {
    const int64_t total = bench_elements(r);
    call->u.concat.format = r->format;
    call->u.concat.rows = r->n * r->h * r->w;
    call->u.concat.half = r->c / 2;
    call->u.concat.a = bench_normals(m, r->format, total / 2, 0.5f);
    call->u.concat.b = bench_normals(m, r->format, total / 2, 0.5f);
    call->u.concat.out = output(r, m, total);
}

static twk_status concat_run(const bench_call *call, twk_stream s) {
    return twk_concat(call->u.concat.format, call->u.concat.rows, call->u.concat.half,
                      call->u.concat.half, call->u.concat.a, call->u.concat.b, call->u.concat.out,
                      s);
}

/* The two strided copies that a program without the kernel would make. */
static bool concat_peer(const bench_call *call, twk_stream s) {
    const size_t half = (size_t)call->u.concat.half * bench_format_bytes(call->u.concat.format);
    const size_t rows = (size_t)call->u.concat.rows;
    char *out = call->u.concat.out;
    return cudaMemcpy2DAsync(out, 2 * half, call->u.concat.a, half, half, rows,
                             cudaMemcpyDeviceToDevice, s) == cudaSuccess &&
           cudaMemcpy2DAsync(out + half, 2 * half, call->u.concat.b, half, half, rows,
                             cudaMemcpyDeviceToDevice, s) == cudaSuccess;
}

static void concat_check(const bench_row *r, const bench_call *call, bench_check *k) {
    const twk_format f = call->u.concat.format;
    const int64_t half = call->u.concat.half;
    bench_range range[2];
    const int n = bench_ends(call->u.concat.rows, BENCH_CHECKED / r->c, range); /* of rows */
    for (int part = 0; part < n; part++) {
        const int64_t first = range[part].first, rows = range[part].count;
        const double *a = bench_fetch(k, f, call->u.concat.a, first * half, rows * half);
        const double *b = bench_fetch(k, f, call->u.concat.b, first * half, rows * half);
        const double *out = bench_fetch(k, f, call->u.concat.out, first * r->c, rows * r->c);
        if (k->failed) return;
        for (int64_t i = 0; i < rows * r->c; i++) {
            const int64_t row = i / r->c, c = i % r->c;
            const double want = c < half ? a[row * half + c] : b[row * half + c - half];
            bench_compare(k, f, out[i], (bench_value){want, 0}, 0);
        }
        bench_drop(k);
    }
    if (n == 2) k->of = "first and last 32768";
}

const bench_family bench_concat = {concat_make, concat_run, concat_check, concat_peer,
                                   "two cudaMemcpy2DAsync"};

static void spread_make(const bench_row *r, bench_memory *m, bench_call *call) {
    const int64_t total = bench_elements(r);
    const void *in = bench_normals(m, r->format, total / 4, 0.5f);
    call->u.blocks =
        (twk_blocks_args){r->n, r->h, r->w, r->c, 2, 1.0f, r->format, in, output(r, m, total)};
}

static void pool_make(const bench_row *r, bench_memory *m, bench_call *call) {
    const int64_t total = bench_elements(r);
    const void *in = bench_normals(m, r->format, total, 0.5f);
    call->u.blocks =
        (twk_blocks_args){r->n, r->h, r->w, r->c, 2, 0.25f, r->format, in, output(r, m, total / 4)};
}

static twk_status spread_run(const bench_call *call, twk_stream s) {
    return twk_spread(&call->u.blocks, s);
}
static twk_status pool_run(const bench_call *call, twk_stream s) {
    return twk_pool(&call->u.blocks, s);
}

/* Element of the small image over element i of the large one. */
static int64_t small_of(const twk_blocks_args *a, int64_t i) {
    const int64_t c = i % a->channels, x = i / a->channels % a->w, y = i / a->channels / a->w;
    return (y / 2 * (a->w / 2) + x / 2) * a->channels + c;
}

static void blocks_check(const bench_row *r, const bench_call *call, bench_check *k) {
    const twk_blocks_args *a = &call->u.blocks;
    const bool pool = r->kind == BENCH_POOL;
    const int64_t large = a->h * a->w * a->channels, small = large / 4;
    const int64_t in = pool ? large : small, out = pool ? small : large;
    for (int part = 0; part < 2; part++) {
        const int64_t at = part ? r->n - 1 : 0;
        const double *x = bench_fetch(k, a->format, a->in, at * in, in);
        const double *got = bench_fetch(k, a->format, a->out, at * out, out);
        double *want = bench_hold(k, out), *size = bench_hold(k, out);
        if (k->failed) return;
        for (int64_t i = 0; i < large; i++) {
            const int64_t from = pool ? i : small_of(a, i), to = pool ? small_of(a, i) : i;
            want[to] += (double)a->scale * x[from];
            size[to] += fabs((double)a->scale * x[from]);
        }
        for (int64_t i = 0; i < out; i++)
            bench_compare(k, a->format, got[i], (bench_value){want[i], size[i]}, 8);
        bench_drop(k);
    }
    k->of = "first and last sample";
}

const bench_family bench_spread = {spread_make, spread_run, blocks_check, NULL, "none"};
const bench_family bench_pool = {pool_make, pool_run, blocks_check, NULL, "none"};

static void convert_make(const bench_row *r, bench_memory *m, bench_call *call) {
    const int64_t total = bench_elements(r);
    const void *in = bench_normals(m, r->format, total, 0.5f);
    call->u.convert = (twk_convert_args){r->n,     r->h * r->w, r->c, r->format,          r->format,
                                         TWK_NHWC, TWK_NCHW,    in,   output(r, m, total)};
}

static twk_status convert_run(const bench_call *call, twk_stream s) {
    return twk_convert(&call->u.convert, s);
}

static void convert_check(const bench_row *r, const bench_call *call, bench_check *k) {
    const twk_convert_args *a = &call->u.convert;
    const int64_t n = a->pixels * a->channels;
    for (int part = 0; part < 2; part++) {
        const int64_t at = part ? r->n - 1 : 0;
        const double *in = bench_fetch(k, a->in_format, a->in, at * n, n);
        const double *out = bench_fetch(k, a->out_format, a->out, at * n, n);
        if (k->failed) return;
        for (int64_t i = 0; i < n; i++)
            bench_compare(k, a->out_format, out[i % a->channels * a->pixels + i / a->channels],
                          (bench_value){in[i], 0}, 0);
        bench_drop(k);
    }
    k->of = "first and last sample";
}

const bench_family bench_convert = {convert_make, convert_run, convert_check, NULL, "none"};

static void image_make(const bench_row *r, bench_memory *m, bench_call *call) {
    const int64_t total = bench_elements(r);
    call->u.image = (twk_image_args){.batch = r->n,
                                     .n_images = r->n,
                                     .h = r->h,
                                     .w = r->w,
                                     .channels = r->c,
                                     .in = bench_normals(m, TWK_F32, (total + 3) / 4, 0.5f),
                                     .format = r->format,
                                     .out = output(r, m, total),
                                     .flip = 0.5f};
}

static twk_status image_run(const bench_call *call, twk_stream s) {
    return twk_image_to_tensor(&call->u.image, s);
}

static void image_check(const bench_row *r, const bench_call *call, bench_check *k) {
    const twk_image_args *a = &call->u.image;
    const int64_t total = bench_elements(r), n = total / r->n;
    const unsigned char *in = bench_fetch_bytes(k, a->in, (size_t)total);
    const double *out = bench_fetch(k, a->format, a->out, 0, total);
    if (k->failed) return;
    for (int64_t i = 0; i < total; i++) {
        const int64_t image = i / n, c = i % a->channels, row = i % n / a->channels / a->w;
        int64_t x = i / a->channels % a->w;
        if (bench_noise_uniform((uint64_t)image, TWK_NOISE_FLIP, 0, 0) < (double)a->flip)
            x = a->w - 1 - x;
        const double v = in[image * n + (row * a->w + x) * a->channels + c] / 127.5;
        bench_compare(k, a->format, out[i], (bench_value){v - 1, v + 1}, 4);
    }
    bench_drop(k);
}

const bench_family bench_image = {image_make, image_run, image_check, NULL, "none"};
