/* Device memory that lives as long as a job. */
#ifndef TWEEDIE_BENCH_MEMORY_H
#define TWEEDIE_BENCH_MEMORY_H

#include <stdbool.h>

#include "kernels.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct bench_block {
    void *data;
    size_t bytes;
} bench_block;

typedef struct bench_memory {
    bench_block *block;
    size_t count, capacity;
    bool failed; /* something below did not work; what was asked for may be NULL */
} bench_memory;

void *bench_raw(bench_memory *memory, size_t bytes);
void *bench_zeros(bench_memory *memory, size_t bytes);
/* n normals times scale: never zeros, which compress and switch fewer transistors. */
void *bench_normals(bench_memory *memory, twk_format format, int64_t n, float scale);
float *bench_floats(bench_memory *memory, int64_t n, float scale);
/* n uniforms from [0, scale). */
float *bench_uniforms(bench_memory *memory, int64_t n, float scale);
/* A copy of `bytes` at `from`, which may lie on the host or on the device. */
void *bench_copy(bench_memory *memory, const void *from, size_t bytes);
void bench_memory_free(bench_memory *memory);

#ifdef __cplusplus
}
#endif

#endif
