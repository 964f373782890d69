#pragma once
#include "kernels.h"

// What one launch of the wrappers leaves behind; see wrappers.cu.
struct WrapperResults {
    uint32_t shuffled[4][256]; // xor 5, down 3, up 7, from lane (lane * 7) % 32
    uint32_t votes[256];
    uint32_t half_votes[256]; // of the 16 lanes that a half mask names
    uint32_t copied[256 * 4]; // through asynchronous copies, neighbour's 16 bytes
    uint32_t partly[256 * 4]; // the same with valid = 4 * (thread % 5)
    float block_sum[256];
    float moments[256][3];
    uint32_t count, largest, smallest;
};

// What one warp finds with ldmatrix in four 8 x 8 matrices of 16-bit elements, stored one below the
// other, and what the smaller asynchronous copies leave of 256 words.
struct MatrixResults {
    uint32_t one[32], two[32][2], four[32][4];
    uint32_t one_t[32], two_t[32][2], four_t[32][4];
    uint32_t copied_8[256], copied_4[256]; // thread t asks for 4 (t % 3) bytes, and for 4 (t % 2)
    uint32_t rounded[256];                 // to_tf32 of the input
};

twk_status wrappers_run(const uint32_t *in, WrapperResults *out, twk_stream stream);
// pairs: of elements i and n - 1 - i, n in bf16 and then n in fp16.
twk_status wrappers_convert(const float *in, int64_t n, uint16_t *bf16, uint16_t *f16,
                            float *from_bf16, float *from_f16, uint32_t *pairs, twk_stream stream);
twk_status wrappers_math(const float *in, int64_t n, float *sigmoid, float *exp, float *exp2,
                         float *sine, float *cosine, twk_stream stream);
twk_status wrappers_cluster(unsigned cluster, uint32_t *out, twk_stream stream);
unsigned wrappers_max_cluster();

twk_status wrappers_matrices(const uint32_t *in, MatrixResults *out, twk_stream stream);
// Two warps: one copies `rounds` rows of 128 words into a ring of two, the other sums what it finds
// (sums[round][lane] of four neighbouring words) and gives the place back.
twk_status wrappers_ring(const uint32_t *in, int rounds, uint32_t *sums, twk_stream stream);
// d[32][16] (+)= a[32][K] b[16][K]^T by one warp, K = 32 in bf16 and fp16 and 16 in fp32 (as tf32):
// two steps along K from tiles with rows of 64 bytes.
twk_status wrappers_multiply(twk_format format, const void *a, const void *b, float *d,
                             twk_stream stream);
// Whether the device and the code for it have wgmma; then d[64][128] (+)= a b by one warpgroup in
// two steps along K, in bf16 or fp16: a[64][32] or, by columns, [32][64], and b[128][32] or
// [32][128].
bool wrappers_has_wgmma();
twk_status wrappers_warpgroup(twk_format format, bool a_columns, bool b_columns, const void *a,
                              const void *b, float *d, twk_stream stream);
// Byte offset of a chunk in a swizzled tile, and in one of which words are read.
unsigned wrappers_swizzled(int row_bytes, unsigned row, unsigned chunk);
unsigned wrappers_swizzled_words(int row_bytes, unsigned row, unsigned chunk);
