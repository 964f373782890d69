/* Products of small matrices that lie in the cache. */
#include "backend/cpu/fast.h"

/* One cache line; the compiler splits it for processors with shorter vectors. */
typedef float line __attribute__((vector_size(64)));

/* Rows of c at once: their sums and one row of b fit the registers. */
#define ROWS 8

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

typedef struct strided {
    const float *at;
    int64_t row, column;
} strided;

/* `rows` (a constant in each use) rows of one panel. */
static inline __attribute__((always_inline)) void panel_rows(int rows, strided a, int64_t k,
                                                             const float *packed, float *c,
                                                             int64_t ldc, int64_t width, bool add) {
    line sum[ROWS][2];
    UNROLL
    for (int r = 0; r < rows; r++) sum[r][0] = sum[r][1] = (line){0};
    for (int64_t p = 0; p < k; p++) {
        line b[2];
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
        float out[TW_FAST_PANEL], *to = c + r * ldc;
        memcpy(out, &left, sizeof left);
        memcpy(out + TW_FAST_PANEL / 2, &right, sizeof right);
        for (int64_t j = 0; j < width; j++) to[j] = add ? to[j] + out[j] : out[j];
    }
}

TW_HOT static void product(int64_t m, int64_t n, int64_t k, strided a, const float *packed,
                           float *c, int64_t ldc, bool add) {
    for (int64_t j = 0; j < n; j += TW_FAST_PANEL, packed += k * TW_FAST_PANEL) {
        const int64_t width = tw_min_i64(TW_FAST_PANEL, n - j);
        strided at = a;
        int64_t i = 0;
        if (width == TW_FAST_PANEL)
            for (; i + ROWS <= m; i += ROWS, at.at += ROWS * a.row)
                panel_rows(ROWS, at, k, packed, c + i * ldc + j, ldc, TW_FAST_PANEL, add);
        for (; i + ROWS <= m; i += ROWS, at.at += ROWS * a.row)
            panel_rows(ROWS, at, k, packed, c + i * ldc + j, ldc, width, add);
        for (; i < m; i++, at.at += a.row)
            panel_rows(1, at, k, packed, c + i * ldc + j, ldc, width, add);
    }
}

void tw_fast_product(int64_t m, int64_t n, int64_t k, const float *a, int64_t row, int64_t column,
                     const float *packed, float *c, int64_t ldc, bool add) {
    product(m, n, k, (strided){a, row, column}, packed, c, ldc, add);
}
