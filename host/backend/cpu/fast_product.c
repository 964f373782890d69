/* Products of small matrices that lie in the cache. */
#include "backend/cpu/fast.h"

/* What a vector register holds with AVX-512, a cache line, and without. */
typedef float line __attribute__((vector_size(64)));
typedef float half __attribute__((vector_size(32)));
#define LINES 2
#define HALVES 4 /* a panel's row */
#define HALF (TW_FAST_PANEL / HALVES)

/* Rows of c at once: their sums and one row of b fit the registers, 32 lines or 16 halves. */
#define ROWS 8
#define FEW_ROWS 2

/* Without it GCC keeps a copy of the sums in memory. */
#if defined(__GNUC__) && !defined(__clang__)
#define UNROLL _Pragma("GCC unroll 8")
#else
#define UNROLL
#endif

void tw_fast_pack(const float *b, int64_t row, int64_t column, int64_t rows, int64_t columns,
                  float *packed) {
    for (int64_t j0 = 0; j0 < columns; j0 += TW_FAST_PANEL, packed += rows * TW_FAST_PANEL) {
        const int64_t n = tw_min_i64(TW_FAST_PANEL, columns - j0);
        for (int64_t p = 0; p < rows; p++) {
            float *to = packed + p * TW_FAST_PANEL;
            const float *from = b + p * row + j0 * column;
            if (column == 1 && n == TW_FAST_PANEL) {
                memcpy(to, from, TW_FAST_PANEL * sizeof *to);
                continue;
            }
            for (int64_t j = 0; j < n; j++) to[j] = from[j * column];
            for (int64_t j = n; j < TW_FAST_PANEL; j++) to[j] = 0;
        }
    }
}

/* The rows of c end within a panel. */
static inline __attribute__((always_inline)) void leave_row(const float out[TW_FAST_PANEL],
                                                            float *to, int64_t width, bool add) {
    for (int64_t j = 0; j < width; j++) to[j] = add ? to[j] + out[j] : out[j];
}

/* `rows` (a constant in each use) rows of one panel. A sum is made in one order in either way. */
static inline __attribute__((always_inline)) void panel_lines(int rows, tw_fast_strided a,
                                                              int64_t k, const float *packed,
                                                              float *c, int64_t ldc, int64_t width,
                                                              bool add) {
    line sum[ROWS][LINES];
    UNROLL
    for (int r = 0; r < rows; r++) sum[r][0] = sum[r][1] = (line){0};
    for (int64_t p = 0; p < k; p++) {
        line b[LINES];
        memcpy(b, packed + p * TW_FAST_PANEL, sizeof b);
        UNROLL
        for (int r = 0; r < rows; r++) {
            const float x = a.at[r * a.row + p * a.column];
            sum[r][0] += x * b[0];
            sum[r][1] += x * b[1];
        }
    }
    UNROLL
    for (int r = 0; r < rows; r++) {
        const line left = sum[r][0], right = sum[r][1]; /* so that the sums stay in registers */
        float out[TW_FAST_PANEL];
        memcpy(out, &left, sizeof left);
        memcpy(out + TW_FAST_PANEL / 2, &right, sizeof right);
        leave_row(out, c + r * ldc, width, add);
    }
}

/* The same of the first `halves` (another constant) of a panel, eight columns each. */
static inline __attribute__((always_inline)) void
panel_halves(int rows, int halves, tw_fast_strided a, int64_t k, const float *packed, float *c,
             int64_t ldc, int64_t width, bool add) {
    half sum[ROWS][HALVES];
    UNROLL
    for (int r = 0; r < rows; r++) UNROLL
    for (int v = 0; v < halves; v++) sum[r][v] = (half){0};
    for (int64_t p = 0; p < k; p++) {
        half b[HALVES];
        memcpy(b, packed + p * TW_FAST_PANEL, (size_t)halves * sizeof *b);
        UNROLL
        for (int r = 0; r < rows; r++) {
            const float x = a.at[r * a.row + p * a.column];
            UNROLL
            for (int v = 0; v < halves; v++) sum[r][v] += x * b[v];
        }
    }
    UNROLL
    for (int r = 0; r < rows; r++) {
        float out[TW_FAST_PANEL];
        UNROLL
        for (int v = 0; v < halves; v++) {
            const half one = sum[r][v];
            memcpy(out + v * HALF, &one, sizeof one);
        }
        leave_row(out, c + r * ldc, width, add);
    }
}

static inline __attribute__((always_inline)) void panel(bool lines, int rows, tw_fast_strided a,
                                                        int64_t k, const float *packed, float *c,
                                                        int64_t ldc, int64_t width, bool add) {
    if (lines)
        panel_lines(rows, a, k, packed, c, ldc, width, add);
    else
        panel_halves(rows, HALVES, a, k, packed, c, ldc, width, add);
}

/* `lines` and `rows` are constants in each use. */
static inline __attribute__((always_inline)) void product(bool lines, int rows,
                                                          const tw_fast_matrices *x) {
    const float *packed = x->packed;
    for (int64_t j = 0; j < x->n; j += TW_FAST_PANEL, packed += x->k * TW_FAST_PANEL) {
        const int64_t width = tw_min_i64(TW_FAST_PANEL, x->n - j);
        float *c = x->c + j;
        tw_fast_strided a = x->a;
        int64_t i = 0;
        if (width == TW_FAST_PANEL)
            for (; i + rows <= x->m; i += rows, a.at += rows * a.row, c += rows * x->ldc)
                panel(lines, rows, a, x->k, packed, c, x->ldc, TW_FAST_PANEL, x->add);
        for (; i + rows <= x->m; i += rows, a.at += rows * a.row, c += rows * x->ldc)
            panel(lines, rows, a, x->k, packed, c, x->ldc, width, x->add);
        for (; i < x->m; i++, a.at += a.row, c += x->ldc)
            panel(lines, 1, a, x->k, packed, c, x->ldc, width, x->add);
    }
}

/* Of as many columns as a half has, as a head of eight channels. */
static inline __attribute__((always_inline)) void product_of_one_half(const tw_fast_matrices *x) {
    float *c = x->c;
    tw_fast_strided a = x->a;
    int64_t i = 0;
    for (; i + ROWS <= x->m; i += ROWS, a.at += ROWS * a.row, c += ROWS * x->ldc)
        panel_halves(ROWS, 1, a, x->k, x->packed, c, x->ldc, HALF, x->add);
    for (; i < x->m; i++, a.at += a.row, c += x->ldc)
        panel_halves(1, 1, a, x->k, x->packed, c, x->ldc, HALF, x->add);
}

TW_HOT static void product_of_lines(const tw_fast_matrices *x) {
    product(true, ROWS, x);
}

TW_HOT static void product_of_halves(const tw_fast_matrices *x) {
    if (x->n == HALF)
        product_of_one_half(x);
    else
        product(false, FEW_ROWS, x);
}

/* Clones of a function that is not static would be exported. */
void tw_fast_product_of_lines(const tw_fast_matrices *x) {
    product_of_lines(x);
}

void tw_fast_product_of_halves(const tw_fast_matrices *x) {
    product_of_halves(x);
}

static bool has_lines(void) {
#ifdef __x86_64__
    return __builtin_cpu_supports("avx512f");
#else
    return false;
#endif
}

void tw_fast_product(int64_t m, int64_t n, int64_t k, const float *a, int64_t row, int64_t column,
                     const float *packed, float *c, int64_t ldc, bool add) {
    const tw_fast_matrices x = {m, n, k, {a, row, column}, packed, c, ldc, add};
    if (has_lines() && n != HALF)
        product_of_lines(&x);
    else
        product_of_halves(&x);
}
