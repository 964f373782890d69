/* One claim by the hand-written kernels and by a library, on the same random operands. */
#ifndef TW_BACKEND_CUDA_TRIAL_H
#define TW_BACKEND_CUDA_TRIAL_H

#include "backend/cuda/cuda.h"

typedef struct tw_trial_result {
    float own, library; /* milliseconds of the whole claim; 0: not timed */
    char refusal[160];  /* of the library: it does not run, or disagrees with the kernels; or "" */
} tw_trial_result;

/* `region` is what one kernel of ours claims, and no more. What of it the library does not do the
 * kernels do after it, and its time counts them. TW_ERROR_UNSUPPORTED: one of the two cannot at
 * all. Device memory for the operands is taken meanwhile, and the stream is waited for. */
tw_status tw_trial_run(tw_backend *b, const tw_region *region, tw_trial_result *out);

#endif
