/* Choices by the clock: the providers of a product timed against each other, and kept in a file.
 *
 * The file is of one device, one version of this program, of CUDA and of the libraries:
 *     {"tweedie": "0.1.0", "device": "NVIDIA H100", "capability": "9.0", "cuda": "CUDA 13.0",
 *      "libraries": "cuDNN 9.19.0, cuBLASLt 13.1.0",
 *      "choices": {"conv2d(...) ...": {"provider": "cudnn", "own_ms": 0.12, "cudnn_ms": 0.07}}}
 * A region is named by a text of all that its kernels are chosen by: operations, attributes,
 * formats, shapes, alignments and who else reads what. */
#ifndef TW_BACKEND_CUDA_TUNING_H
#define TW_BACKEND_CUDA_TUNING_H

#include "backend/cuda/cuda.h"

struct tw_own_fused;

/* As tw_backend.tune and save_tuning. */
tw_status tw_cuda_tune(tw_backend *b, const char *file);
tw_status tw_cuda_save_tuning(tw_backend *b, const char *file);
void tw_cuda_tuning_free(tw_cuda_backend *c);

/* Which of the two the claim `f` of a region is given to; null: only one of them can, or it could
 * not be tried. */
tw_status tw_cuda_tuned(tw_backend *b, const tw_region *region, const struct tw_own_fused *f,
                        const tw_provider **out);

/* The claimed operations as a text into out[size]; false if it is too long. */
bool tw_region_text(const tw_region *region, char *out, size_t size);

#endif
