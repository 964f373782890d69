#include "copy.h"

bool bench_device_copy_make(double total, int max_sets, bench_device_copy *c) {
    const int sets = (int)(512e6 / total) + 1;
    *c = (bench_device_copy){.bytes = (size_t)(total / 2) / 16 * 16 + 16};
    c->sets = sets < 2 ? 2 : sets > max_sets ? max_sets : sets;
    for (int i = 0; i < 2 * c->sets; i++)
        bench_normals(&c->memory, TWK_BF16, (int64_t)(c->bytes / 2), 1);
    if (!c->memory.failed) return true;
    bench_device_copy_free(c);
    return false;
}

void bench_device_copy_free(bench_device_copy *c) {
    bench_memory_free(&c->memory);
    c->sets = 0;
}

static bool run(const void *object, int set, cudaStream_t stream) {
    const bench_device_copy *c = object;
    return cudaMemcpyAsync(c->memory.block[2 * set].data, c->memory.block[2 * set + 1].data,
                           c->bytes, cudaMemcpyDeviceToDevice, stream) == cudaSuccess;
}

bench_work bench_device_copy_work(const bench_device_copy *c) {
    return (bench_work){run, c, c->sets};
}
