/* Philox4x32-10 (Salmon et al. 2011) and the one place where its counter is laid out.
 *
 *   key     = (low, high 32 bits of the seed)
 *   ctr[0]  = element / 4          element counted in H,W,C order within its sample, < 2^34
 *   ctr[1]  = step
 *   ctr[2]  = low 32 bits of the sample index
 *   ctr[3]  = purpose << 16 | next 16 bits of the sample index (samples < 2^48)
 *
 * Word element % 4 of the output belongs to the element. Noise therefore depends on the sample and
 * not on the batch that it is computed in. */
#ifndef TW_CORE_PHILOX_H
#define TW_CORE_PHILOX_H

#include <stdint.h>

enum tw_purpose {
    TW_PURPOSE_INITIAL = 0,     /* x_T */
    TW_PURPOSE_SAMPLER = 1,     /* z of a sampler's step */
    TW_PURPOSE_TRAIN_T = 2,     /* time steps */
    TW_PURPOSE_TRAIN_NOISE = 3, /* epsilon */
    TW_PURPOSE_COND_DROP = 4,
    TW_PURPOSE_SHUFFLE = 5,
    TW_PURPOSE_INIT = 6, /* weights; the sample is the hash of the parameter's name */
    TW_PURPOSE_FLIP = 7,
    TW_PURPOSE_SPLIT = 8,
    TW_PURPOSE_GOLDEN = 9,
    TW_PURPOSE_INPAINT = 10,
    TW_PURPOSE_DATA = 11,       /* data sets that are made on the spot */
    TW_PURPOSE_DROPOUT = 0x8000 /* + layer */
};

typedef struct tw_philox_key {
    uint64_t seed;
    uint64_t sample;
    uint32_t purpose;
    uint32_t step;
} tw_philox_key;

/* The raw function: ten rounds. */
void tw_philox4x32(const uint32_t ctr[4], const uint32_t key[2], uint32_t out[4]);

/* Words of elements 4 * quad .. 4 * quad + 3. */
void tw_philox_words(const tw_philox_key *key, uint32_t quad, uint32_t out[4]);

/* Normals of the same four elements by Box-Muller: words (0,1) give elements 0 and 1 (cosine,
 * sine), words (2,3) elements 2 and 3. The radius' uniform is fma(float(r), 2^-32, 2^-33) rounded
 * to float32, the angle's float(r) 2^-32, so that every device starts from equal numbers. */
void tw_philox_normals(const tw_philox_key *key, uint32_t quad, double out[4]);

/* [0, 1) with 24 bits. */
static inline float tw_philox_uniform(uint32_t word) {
    return (float)(word >> 8) * 0x1p-24f;
}

/* One word of one element. */
uint32_t tw_philox_word(const tw_philox_key *key, uint64_t element);

/* 32-bit FNV-1a of a name: the sample index of weights. */
uint32_t tw_name_hash(const char *name);

#endif
