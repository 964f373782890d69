/* Noise: which numbers, and filling tensors with them. */
#ifndef TWEEDIE_KERNELS_NOISE_H
#define TWEEDIE_KERNELS_NOISE_H

#include "base.h"

#ifdef __cplusplus
extern "C" {
#endif

/* Purposes: the upper half of the generator's fourth counter word. */
enum {
    TWK_NOISE_INITIAL = 0,
    TWK_NOISE_SAMPLER = 1,
    TWK_NOISE_TRAIN_T = 2,
    TWK_NOISE_TRAIN_NOISE = 3,
    TWK_NOISE_COND_DROP = 4,
    TWK_NOISE_SHUFFLE = 5,
    TWK_NOISE_INIT = 6,
    TWK_NOISE_FLIP = 7,
    TWK_NOISE_SPLIT = 8,
    TWK_NOISE_GOLDEN = 9,
    TWK_NOISE_INPAINT = 10,
    TWK_NOISE_DROPOUT = 0x8000, /* + layer */
};

/* Which samples' noise: sample n of the batch is samples[n] where that is given (device memory),
 * else first_sample + n. device_seed and device_first_sample, where given, replace seed and
 * first_sample: a captured graph can then be replayed with others. */
typedef struct twk_noise {
    uint64_t seed;
    uint64_t first_sample;
    const uint64_t *device_seed;
    const uint64_t *samples;
    const uint64_t *device_first_sample;
} twk_noise;

typedef enum twk_fill { TWK_FILL_NORMAL, TWK_FILL_UNIFORM, TWK_FILL_WORDS } twk_fill;

/* Fills out with noise: normals, uniforms in [0, 1), or the generator's words (format TWK_F32;
 * the words are stored as they are). */
typedef struct twk_noise_fill_args {
    int64_t batch, elements;
    void *out;
    twk_format format;
    twk_fill kind;
    uint32_t purpose, step;
    const uint32_t *device_step; /* replaces step where given */
    float scale;                 /* normals and uniforms are multiplied by it */
    twk_noise noise;
} twk_noise_fill_args;

twk_status twk_noise_fill(const twk_noise_fill_args *args, twk_stream stream);

/* *counter += by: the last node of a captured step. */
twk_status twk_counter_add(uint32_t *counter, uint32_t by, twk_stream stream);

#ifdef __cplusplus
}
#endif

#endif
