#include "core/philox.h"

#include <math.h>
#include <tweedie/noise.h>

#include "core/context.h"

void tw_philox4x32(const uint32_t ctr[4], const uint32_t key[2], uint32_t out[4]) {
    uint32_t c0 = ctr[0], c1 = ctr[1], c2 = ctr[2], c3 = ctr[3], k0 = key[0], k1 = key[1];
    for (int round = 0; round < 10; round++) {
        uint64_t p0 = (uint64_t)0xD2511F53u * c0, p1 = (uint64_t)0xCD9E8D57u * c2;
        uint32_t n0 = (uint32_t)(p1 >> 32) ^ c1 ^ k0, n2 = (uint32_t)(p0 >> 32) ^ c3 ^ k1;
        c1 = (uint32_t)p1;
        c3 = (uint32_t)p0;
        c0 = n0;
        c2 = n2;
        k0 += 0x9E3779B9u;
        k1 += 0xBB67AE85u;
    }
    out[0] = c0;
    out[1] = c1;
    out[2] = c2;
    out[3] = c3;
}

void tw_philox_words(const tw_philox_key *key, uint32_t quad, uint32_t out[4]) {
    const uint32_t k[2] = {(uint32_t)key->seed, (uint32_t)(key->seed >> 32)};
    const uint32_t ctr[4] = {quad, key->step, (uint32_t)key->sample,
                             (key->purpose << 16) | (uint32_t)((key->sample >> 32) & 0xffffu)};
    tw_philox4x32(ctr, k, out);
}

uint32_t tw_philox_word(const tw_philox_key *key, uint64_t element) {
    uint32_t words[4];
    tw_philox_words(key, (uint32_t)(element / 4), words);
    return words[element % 4];
}

static void box_muller(uint32_t radius_word, uint32_t angle_word, double *a, double *b) {
    float u = fmaf((float)radius_word, 0x1p-32f, 0x1p-33f);
    double radius = sqrt(-2.0 * log((double)u));
    double angle = 6.283185307179586476925 * (double)((float)angle_word * 0x1p-32f);
    *a = radius * cos(angle);
    *b = radius * sin(angle);
}

void tw_philox_normals(const tw_philox_key *key, uint32_t quad, double out[4]) {
    uint32_t w[4];
    tw_philox_words(key, quad, w);
    box_muller(w[0], w[1], &out[0], &out[1]);
    box_muller(w[2], w[3], &out[2], &out[3]);
}

uint32_t tw_name_hash(const char *name) {
    uint32_t h = 2166136261u;
    for (; *name; name++) h = (h ^ (uint8_t)*name) * 16777619u;
    return h;
}

static tw_status noise(uint64_t seed, uint64_t sample, uint32_t purpose, uint32_t step,
                       int64_t count, float *out) {
    if (!out || count < 0 || count >= ((int64_t)1 << 34))
        return tw_fail(NULL, TW_ERROR_ARGUMENT, "noise: count: expected 0 to 2^34 - 1, got %lld",
                       (long long)count);
    tw_philox_key key = {seed, sample, purpose, step};
    for (int64_t i = 0; i < count; i += 4) {
        double z[4];
        tw_philox_normals(&key, (uint32_t)(i / 4), z);
        for (int64_t j = 0; j < 4 && i + j < count; j++) out[i + j] = (float)z[j];
    }
    return TW_OK;
}

tw_status tw_noise_initial(uint64_t seed, uint64_t sample, int64_t count, float *out) {
    return noise(seed, sample, TW_PURPOSE_INITIAL, 0, count, out);
}

tw_status tw_noise_step(uint64_t seed, uint64_t sample, uint32_t step, int64_t count, float *out) {
    return noise(seed, sample, TW_PURPOSE_SAMPLER, step, count, out);
}
