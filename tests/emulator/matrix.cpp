// Matrix operations of a warp. Lane l holds its words of a fragment as kernels/device/mma.cuh draws
// them; the last lane to arrive calculates for all. Not instrumented for races, so that writing
// into the other lanes' registers is no race; the reads of shared memory are reported lane by lane.
#include "machine.h"

namespace tw::emu {
namespace {

struct LoadCall {
    uint32_t *r;
    const unsigned char *row;
    int count;
    bool transposed;
};

void load_all(void *const *lanes) {
    const LoadCall *call[32];
    for (int l = 0; l < 32; l++) call[l] = static_cast<const LoadCall *>(lanes[l]);
    for (int j = 0; j < call[0]->count; j++) {
        uint16_t matrix[8][8];
        for (int r = 0; r < 8; r++) memcpy(matrix[r], call[8 * j + r]->row, 16);
        for (int l = 0; l < 32; l++) {
            const int major = l / 4, minor = l % 4 * 2;
            uint16_t pair[2];
            for (int i = 0; i < 2; i++)
                pair[i] = call[0]->transposed ? matrix[minor + i][major] : matrix[major][minor + i];
            memcpy(&call[l]->r[j], pair, 4);
        }
    }
}

struct MultiplyCall {
    Mma kind;
    float *c;
    const uint32_t *a, *b;
    int m, n;
};

float from_bits(uint32_t bits) {
    float v;
    memcpy(&v, &bits, 4);
    return v;
}

float half_to_float(uint32_t h) {
    const uint32_t sign = (h & 0x8000u) << 16, exponent = h >> 10 & 31u, fraction = h & 1023u;
    if (exponent == 31) return from_bits(sign | 0x7f800000u | fraction << 13);
    if (exponent) return from_bits(sign | (exponent + 112) << 23 | fraction << 13);
    const float tiny = std::ldexp((float)fraction, -24);
    return sign ? -tiny : tiny;
}

} // namespace

// Two 16-bit elements, or a fp32 one of which the unit sees the first 19 bits.
int matrix_elements(Mma kind, uint32_t word, float *out) {
    if (kind == Mma::tf32) {
        out[0] = from_bits(word & 0xffffe000u);
        return 1;
    }
    for (int i = 0; i < 2; i++) {
        const uint32_t half = i ? word >> 16 : word & 0xffffu;
        out[i] = kind == Mma::bf16 ? from_bits(half << 16) : half_to_float(half);
    }
    return 2;
}

namespace {

// Of local arrays alone, with constant bounds: there is nothing for a sanitizer to look at.
__attribute__((no_sanitize("address", "undefined"))) void
sum_products(const double (&a)[16][16], const double (&b)[16][8], int depth, double (&sum)[16][8]) {
    for (int row = 0; row < 16; row++) {
        double mine[8] = {};
        for (int k = 0; k < depth; k++)
            for (int col = 0; col < 8; col++) mine[col] += a[row][k] * b[k][col];
        for (int col = 0; col < 8; col++) sum[row][col] = mine[col];
    }
}

void multiply_all(void *const *lanes) {
    const MultiplyCall *call[32];
    for (int l = 0; l < 32; l++) call[l] = static_cast<const MultiplyCall *>(lanes[l]);
    const MultiplyCall &first = *call[0];
    const int per = first.kind == Mma::tf32 ? 1 : 2, depth = 8 * per;
    static double b[64][16][8]; // fragment, k, column
    for (int j = 0; j < first.n; j++)
        for (int l = 0; l < 32; l++)
            for (int w = 0; w < 2; w++) {
                float e[2];
                const int n = matrix_elements(first.kind, call[l]->b[2 * j + w], e);
                for (int i = 0; i < n; i++)
                    b[j][w * 4 * per + l % 4 * per + i][l / 4] = (double)e[i];
            }
    for (int i = 0; i < first.m; i++) {
        double a[16][16]; // row, k
        for (int l = 0; l < 32; l++)
            for (int w = 0; w < 4; w++) {
                float e[2];
                const int n = matrix_elements(first.kind, call[l]->a[4 * i + w], e);
                for (int q = 0; q < n; q++)
                    a[l / 4 + 8 * (w % 2)][w / 2 * 4 * per + l % 4 * per + q] = (double)e[q];
            }
        for (int j = 0; j < first.n; j++) {
            double sum[16][8];
            sum_products(a, b[j], depth, sum);
            for (int l = 0; l < 32; l++) {
                float *const c = call[l]->c + (i * first.n + j) * 4;
                for (int q = 0; q < 4; q++)
                    c[q] = (float)((double)c[q] + sum[l / 4 + q / 2 * 8][l % 4 * 2 + q % 2]);
            }
        }
    }
}

} // namespace

void load_matrices(uint32_t *r, int count, bool transposed, const void *row, Site site) {
    if (lane() < 8u * (unsigned)count) note_read(row, 16);
    LoadCall call{r, static_cast<const unsigned char *>(row), count, transposed};
    meet_warp_act(&call, load_all, site);
}

void multiply(Mma kind, float *c, const uint32_t *a, const uint32_t *b, int m, int n, Site site) {
    MultiplyCall call{kind, c, a, b, m, n};
    meet_warp_act(&call, multiply_all, site);
}

} // namespace tw::emu
