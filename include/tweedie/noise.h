/* The noise of a sample, as the samplers draw it: Philox4x32-10 keyed by seed, sample, purpose,
 * step and element (Salmon et al. 2011). It does not depend on the batch, the chunk or the device.
 */
#ifndef TWEEDIE_NOISE_H
#define TWEEDIE_NOISE_H

#include "status.h"
#include <stdint.h>

TW_BEGIN_DECLS

/* The starting noise x_T of sample `sample`: `count` standard normals in H,W,C order. */
TW_API tw_status tw_noise_initial(uint64_t seed, uint64_t sample, int64_t count, float *out);
/* The noise that sampling step `step` adds. */
TW_API tw_status tw_noise_step(uint64_t seed, uint64_t sample, uint32_t step, int64_t count,
                               float *out);

TW_END_DECLS

#endif
