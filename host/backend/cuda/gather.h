/* The backend's function over samples on the device; see backend.h. */
#ifndef TW_BACKEND_CUDA_GATHER_H
#define TW_BACKEND_CUDA_GATHER_H

#include "backend/cuda/cuda.h"

tw_status tw_cuda_gather(tw_backend *b, const tw_samples_on_device *samples, void *out);

#endif
