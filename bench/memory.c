#include "memory.h"

#include <cuda_runtime_api.h>
#include <stdlib.h>

#include "plan.h"

void *bench_raw(bench_memory *m, size_t bytes) {
    void *p = NULL;
    if (m->count == m->capacity) {
        const size_t more = m->capacity ? 2 * m->capacity : 64;
        bench_block *grown = realloc(m->block, more * sizeof *grown);
        if (!grown) {
            m->failed = true;
            return NULL;
        }
        m->block = grown;
        m->capacity = more;
    }
    if (m->failed || cudaMalloc(&p, bytes < 16 ? 16 : bytes) != cudaSuccess) {
        m->failed = true;
        return NULL;
    }
    m->block[m->count++] = (bench_block){p, bytes};
    return p;
}

void *bench_zeros(bench_memory *m, size_t bytes) {
    void *p = bench_raw(m, bytes);
    if (p && cudaMemset(p, 0, bytes) != cudaSuccess) m->failed = true;
    return p;
}

static void *filled(bench_memory *m, twk_format f, int64_t n, twk_fill kind, float scale) {
    /* Whole samples of 2^20 elements, then the rest. */
    const int64_t part = n < (1 << 20) ? n : 1 << 20, whole = n / part;
    char *p = bench_raw(m, (size_t)n * bench_format_bytes(f));
    if (!p) return NULL;
    twk_noise_fill_args a = {.batch = whole,
                             .elements = part,
                             .out = p,
                             .format = f,
                             .kind = kind,
                             .scale = scale,
                             .purpose = TWK_NOISE_GOLDEN};
    a.noise.seed = m->count;
    if (twk_noise_fill(&a, NULL) != TWK_OK) m->failed = true;
    if (whole * part == n) return p;
    a.out = p + (size_t)(whole * part) * bench_format_bytes(f);
    a.batch = 1;
    a.elements = n - whole * part;
    a.noise.first_sample = (uint64_t)whole;
    if (twk_noise_fill(&a, NULL) != TWK_OK) m->failed = true;
    return p;
}

void *bench_normals(bench_memory *m, twk_format f, int64_t n, float scale) {
    return filled(m, f, n, TWK_FILL_NORMAL, scale);
}

float *bench_uniforms(bench_memory *m, int64_t n, float scale) {
    return filled(m, TWK_F32, n, TWK_FILL_UNIFORM, scale);
}

float *bench_floats(bench_memory *m, int64_t n, float scale) {
    return bench_normals(m, TWK_F32, n, scale);
}

void *bench_copy(bench_memory *m, const void *from, size_t bytes) {
    void *p = bench_raw(m, bytes);
    if (p && (!from || cudaMemcpy(p, from, bytes, cudaMemcpyDefault) != cudaSuccess))
        m->failed = true;
    return p;
}

void bench_memory_free(bench_memory *m) {
    for (size_t i = 0; i < m->count; i++) cudaFree(m->block[i].data);
    free(m->block);
    *m = (bench_memory){0};
}
