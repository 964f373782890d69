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

twk_status wrappers_run(const uint32_t *in, WrapperResults *out, twk_stream stream);
twk_status wrappers_convert(const float *in, int64_t n, uint16_t *bf16, uint16_t *f16,
                            float *from_bf16, float *from_f16, twk_stream stream);
twk_status wrappers_math(const float *in, int64_t n, float *sigmoid, float *exp, float *sine,
                         float *cosine, twk_stream stream);
twk_status wrappers_cluster(unsigned cluster, uint32_t *out, twk_stream stream);
unsigned wrappers_max_cluster();
