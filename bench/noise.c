/* The noise contract once more, in double and independently of kernels/: key = seed (0 here);
 * counter = (element / 4, step, low word of the sample, purpose << 16 | 16 more bits of it). */
#include <math.h>
#include <string.h>

#include "check.h"

static void words_of(uint64_t sample, uint32_t purpose, uint32_t step, int64_t element,
                     uint32_t out[4]) {
    uint32_t c[4] = {(uint32_t)(element / 4), step, (uint32_t)sample,
                     purpose << 16 | (uint32_t)(sample >> 32 & 0xffff)};
    uint32_t k0 = 0, k1 = 0;
    for (int round = 0; round < 10; round++) { /* Philox4x32-10, Salmon et al. 2011 */
        const uint64_t p0 = UINT64_C(0xd2511f53) * c[0], p1 = UINT64_C(0xcd9e8d57) * c[2];
        const uint32_t next[4] = {(uint32_t)(p1 >> 32) ^ c[1] ^ k0, (uint32_t)p1,
                                  (uint32_t)(p0 >> 32) ^ c[3] ^ k1, (uint32_t)p0};
        memcpy(c, next, sizeof c);
        k0 += 0x9e3779b9u;
        k1 += 0xbb67ae85u;
    }
    memcpy(out, c, sizeof c);
}

double bench_noise_uniform(uint64_t sample, uint32_t purpose, uint32_t step, int64_t element) {
    uint32_t r[4];
    words_of(sample, purpose, step, element, r);
    return (r[element % 4] >> 8) * 0x1p-24;
}

double bench_noise_normal(uint64_t sample, uint32_t purpose, uint32_t step, int64_t element) {
    uint32_t r[4];
    words_of(sample, purpose, step, element, r);
    const int pair = (int)(element % 4 / 2 * 2);
    /* The uniforms are rounded to fp32 by contract. */
    const double u = (double)fmaf((float)r[pair], 0x1p-32f, 0x1p-33f);
    const double angle = 2 * 3.14159265358979323846 * (double)((float)r[pair + 1] * 0x1p-32f);
    const double radius = sqrt(-2 * log(u));
    return element % 2 ? radius * sin(angle) : radius * cos(angle);
}
