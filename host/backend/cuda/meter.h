/* What NVIDIA's management library (NVML) counts of a GPU. It is opened at run time. */
#ifndef TW_BACKEND_CUDA_METER_H
#define TW_BACKEND_CUDA_METER_H

#include "core/context.h"

typedef struct tw_cuda_meter tw_cuda_meter;

/* That of the GPU at the address `pci` ("0000:1b:00.0"), by the library in `file` (null: as the
 * loader finds it). Null where the library, the GPU in it, or the memory is not there. */
tw_cuda_meter *tw_cuda_meter_open(tw_context *ctx, const char *file, const char *pci);
/* Since the driver was loaded; NAN where it is not counted. The count moves some ten times a
 * second. */
double tw_cuda_meter_joules(const tw_cuda_meter *meter);
/* The part of the last moments (up to a second) in which a kernel ran, 0 to 1; NAN if not known. */
double tw_cuda_meter_busy(const tw_cuda_meter *meter);
void tw_cuda_meter_close(tw_context *ctx, tw_cuda_meter *meter);

#endif
