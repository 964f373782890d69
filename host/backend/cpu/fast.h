/* The inside of the provider "cpu-fast": what the reference computes, in float32, written for
 * vector units and caches. Sums are made in float over a few elements and in double over the
 * blocks; threads divide outputs or whole blocks, so that their number does not change a bit. */
#ifndef TW_BACKEND_CPU_FAST_H
#define TW_BACKEND_CPU_FAST_H

#include "backend/cpu/ref_math.h"

/* An operation: its function, and the bytes of scratch memory that it needs (null: none). */
typedef struct tw_fast_entry {
    tw_ref_fn run;
    size_t (*workspace)(const tw_ref_call *call);
} tw_fast_entry;

void tw_fast_attention(const tw_ref_call *call);
size_t tw_fast_attention_workspace(const tw_ref_call *call);
void tw_fast_attention_bwd(const tw_ref_call *call);
size_t tw_fast_attention_bwd_workspace(const tw_ref_call *call);

/* With an operand more than the operation has, v[N,C] is added to x beforehand. */
#define TW_FAST_NORM_VECTOR 6
void tw_fast_group_norm(const tw_ref_call *call);
size_t tw_fast_group_norm_workspace(const tw_ref_call *call);
/* With an operand more than the operation has, dx is added to it in the same pass. */
#define TW_FAST_NORM_SUMMAND 7
void tw_fast_group_norm_bwd(const tw_ref_call *call);
size_t tw_fast_group_norm_bwd_workspace(const tw_ref_call *call);

/* Columns of a packed matrix are grouped in panels of so many; the last is filled with zeros. */
#define TW_FAST_PANEL 32

static inline int64_t tw_fast_padded(int64_t columns) {
    return (columns + TW_FAST_PANEL - 1) / TW_FAST_PANEL * TW_FAST_PANEL;
}

/* b[p * row + j * column], rows x columns, as panels [columns / 32][rows][32]. */
void tw_fast_pack(const float *b, int64_t row, int64_t column, int64_t rows, int64_t columns,
                  float *packed);

/* c[i * ldc + j] = sum over p of a[i * row + p * column] b[p, j], or += with `add`; m x n, with
 * b packed, k x n. */
void tw_fast_product(int64_t m, int64_t n, int64_t k, const float *a, int64_t row, int64_t column,
                     const float *packed, float *c, int64_t ldc, bool add);

typedef struct tw_fast_strided {
    const float *at;
    int64_t row, column;
} tw_fast_strided;

typedef struct tw_fast_matrices {
    int64_t m, n, k;
    tw_fast_strided a;
    const float *packed; /* b */
    float *c;
    int64_t ldc;
    bool add;
} tw_fast_matrices;

/* The two ways that tw_fast_product chooses from: for vectors of a cache line, as AVX-512 has them,
 * and for shorter ones and eight columns. Each works everywhere. */
void tw_fast_product_of_lines(const tw_fast_matrices *x);
void tw_fast_product_of_halves(const tw_fast_matrices *x);

#endif
