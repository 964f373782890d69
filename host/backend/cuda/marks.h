/* The backend's functions around pinned memory and events; see backend.h. */
#ifndef TW_BACKEND_CUDA_MARKS_H
#define TW_BACKEND_CUDA_MARKS_H

#include "backend/cuda/cuda.h"
#include "core/context.h"

tw_status tw_cuda_pin(tw_backend *b, size_t bytes, void **out);
void tw_cuda_unpin(tw_backend *b, void *memory);
tw_status tw_cuda_mark(tw_backend *b, void **mark);
tw_status tw_cuda_reached(tw_backend *b, void *mark, bool wait, bool *out);
void tw_cuda_unmark(tw_backend *b, void *mark);
tw_status tw_cuda_follow(tw_backend *b, void *event);
tw_status tw_cuda_signal(tw_backend *b, void *event);

#endif
