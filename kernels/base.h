/* What all launchers share: statuses, formats, the stream. kernels.h is the manual. */
#ifndef TWEEDIE_KERNELS_BASE_H
#define TWEEDIE_KERNELS_BASE_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef enum twk_status {
    TWK_OK = 0,
    TWK_BAD_ARGUMENT,  /* the call is wrong; nothing was enqueued */
    TWK_UNSUPPORTED,   /* the call is right, this kernel cannot serve it: ask another provider */
    TWK_LAUNCH_FAILED, /* the driver refused */
} twk_status;

typedef enum twk_format { TWK_F32 = 0, TWK_BF16 = 1, TWK_F16 = 2 } twk_format;

/* A cudaStream_t. */
typedef struct CUstream_st *twk_stream;

/* What went wrong in this thread's last call that did not return TWK_OK. Never NULL. */
const char *twk_error_text(void);

/* The last kernel that this thread enqueued: for benchmarks and for reports. */
typedef struct twk_launch_info {
    const char *kernel; /* as the source spells it; "" before the first */
    unsigned blocks, threads, cluster;
    size_t shared;              /* bytes of shared memory a block asked for */
    int registers, local_bytes; /* a thread; 0 where the build cannot tell */
} twk_launch_info;
void twk_last_launch(twk_launch_info *info);

/* Mean and sum of squared deviations of one group over some pixels. */
typedef struct twk_moments {
    float mean, m2;
} twk_moments;

/* Rows by columns of a matrix product that a block calculates: of a convolution, pixels by
 * output channels; of its weights' gradient, output channels by weights of each. */
typedef enum twk_tile {
    TWK_TILE_AUTO = 0,
    TWK_TILE_128X128 = 1,
    TWK_TILE_64X64 = 2,
    TWK_TILE_128X16 = 3,
    TWK_TILE_128X64 = 4,        /* exact fp32, which has no other */
    TWK_TILE_16X128 = 5,        /* weights' gradients alone: of few output channels, */
    TWK_TILE_128X32 = 6,        /* of few input channels */
    TWK_TILE_128X128_WGMMA = 7, /* bf16 and fp16, aligned, on compute capability 9.0 */
    TWK_TILE_128X256_TMA = 8,   /* the same: 128 output channels by 256 pixels or columns */
} twk_tile;

#ifdef __cplusplus
}
#endif

#endif
