/* What the reference operations share. Each ref_*.c is compiled twice: `real` is float, or double
 * with TW_REF_DOUBLE. Sums are accumulated in double, in an order that does not depend on the
 * number of threads: threads divide outputs, never a sum. */
#ifndef TW_BACKEND_CPU_REF_H
#define TW_BACKEND_CPU_REF_H

#include <math.h>
#include <omp.h>
#include <string.h>

#include "backend/cpu/reference.h"

#ifdef TW_REF_DOUBLE
typedef double real;
#define TW_REF(name) tw_ref_##name##_d
#else
typedef float real;
#define TW_REF(name) tw_ref_##name##_f
#endif

/* Hot loops are compiled for several instruction sets; contraction to fused multiply-add is off,
 * so that all of them give the same bits. */
#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__) &&                             \
    !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
#define TW_HOT __attribute__((target_clones("arch=x86-64-v4", "arch=x86-64-v3", "default")))
#else
#define TW_HOT
#endif

#define TW_TEXT(x) #x
/* Divides independent iterations among the threads when there is enough to do. */
#define TW_PARALLEL(c, work)                                                                       \
    _Pragma(TW_TEXT(omp parallel for schedule(static) num_threads((c)->threads) if ((work) > 200000)))

/* Channels that are accumulated at once. */
#define TW_TILE 64

static inline int64_t tw_min_i64(int64_t a, int64_t b) {
    return a < b ? a : b;
}

/* sum a[i] b[i] */
double TW_REF(dot)(const real *a, const real *b, int64_t n);
/* acc[i] += s x[i] */
void TW_REF(accumulate)(double *acc, double s, const real *x, int64_t n);

#endif
