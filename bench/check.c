#include "check.h"

#include <cuda_runtime_api.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "plan.h"

static double rounded(double v, int tf32) {
    int e;
    if (!tf32) return v;
    const double m = frexp(v, &e);
    return ldexp(round(ldexp(m, 11)), e - 11);
}

void bench_add_term(bench_value *sum, double a, double b, int tf32) {
    const double term = rounded(a, tf32) * rounded(b, tf32);
    sum->value += term;
    sum->terms += fabs(term);
}

void bench_compare(bench_check *k, twk_format f, double got, bench_value want, double c) {
    const double eps = f == TWK_F32 ? 0x1p-24 : f == TWK_BF16 ? 0x1p-8 : 0x1p-11;
    const double tiny = f == TWK_F16 ? 0x1p-25 : 0x1p-133;
    const double bound = eps * fabs(want.value) + (c * 0x1p-24 + k->more) * want.terms + tiny;
    const double share = fabs(got - want.value) / bound;
    k->count++;
    if (!(share <= k->worst) && !isnan(k->worst)) k->worst = share;
}

static double decode(twk_format f, const unsigned char *p) {
    float v;
    uint16_t b;
    if (f == TWK_F32) {
        memcpy(&v, p, sizeof v);
        return v;
    }
    memcpy(&b, p, sizeof b);
    if (f == TWK_BF16) {
        const uint32_t bits = (uint32_t)b << 16;
        memcpy(&v, &bits, sizeof v);
        return v;
    }
    const int e = b >> 10 & 31, m = b & 1023;
    const double size = e == 31 ? (m ? NAN : INFINITY)
                        : e     ? ldexp(1024 + m, e - 25)
                                : ldexp(m, -24);
    return b & 0x8000 ? -size : size;
}

static void *hold(bench_check *k, size_t bytes) {
    void *p = k->n_held < BENCH_HELD ? calloc(1, bytes ? bytes : 1) : NULL;
    if (p)
        k->held[k->n_held++] = p;
    else
        k->failed = true;
    return p;
}

double *bench_hold(bench_check *k, int64_t count) {
    return hold(k, (size_t)count * sizeof(double));
}

void *bench_fetch_bytes(bench_check *k, const void *device, size_t bytes) {
    void *p = hold(k, bytes);
    if (p && cudaMemcpy(p, device, bytes, cudaMemcpyDeviceToHost) != cudaSuccess) {
        k->failed = true;
        return NULL;
    }
    return p;
}

double *bench_fetch_columns(bench_check *k, twk_format f, const void *device, int64_t rows,
                            int64_t width, int64_t first, int64_t count) {
    const size_t b = bench_format_bytes(f), n = (size_t)(rows * count);
    double *out = bench_hold(k, rows * count);
    unsigned char *raw = malloc(n * b + 1);
    bool good = out && raw;
    if (good) {
        const char *from = (const char *)device + (size_t)first * b;
        const size_t wide = (size_t)count * b;
        good = (width == count ? cudaMemcpy(raw, from, n * b, cudaMemcpyDeviceToHost)
                               : cudaMemcpy2D(raw, wide, from, (size_t)width * b, wide,
                                              (size_t)rows, cudaMemcpyDeviceToHost)) == cudaSuccess;
    }
    for (size_t i = 0; good && i < n; i++) out[i] = decode(f, raw + i * b);
    free(raw);
    if (good) return out;
    k->failed = true;
    return NULL;
}

double *bench_fetch(bench_check *k, twk_format f, const void *device, int64_t first,
                    int64_t count) {
    const char *from = (const char *)device + (size_t)first * bench_format_bytes(f);
    return bench_fetch_columns(k, f, from, 1, count, 0, count);
}

void bench_drop(bench_check *k) {
    while (k->n_held) free(k->held[--k->n_held]);
}

int bench_ends(int64_t total, int64_t each, bench_range range[2]) {
    range[0] = (bench_range){0, total < each ? total : each};
    range[1] = (bench_range){total - each, each};
    if (range[1].first < each) { /* they meet */
        range[0].count = total;
        return 1;
    }
    return 2;
}
