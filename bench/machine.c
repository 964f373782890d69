#include "machine.h"

#include <dlfcn.h>
#include <math.h>

#include "copy.h"
#include "job.h"

/* cublasGemmEx and what it needs, by their documented C signatures. */
typedef struct gemm {
    int (*create)(void **handle);
    int (*destroy)(void *handle);
    int (*set_stream)(void *handle, cudaStream_t stream);
    int (*multiply)(void *handle, int transa, int transb, int m, int n, int k, const void *alpha,
                    const void *a, int a_type, int lda, const void *b, int b_type, int ldb,
                    const void *beta, void *c, int c_type, int ldc, int compute, int algorithm);
    void *handle;
    bench_memory memory;
    void *a, *b, *c;
} gemm;

enum { GEMM_SIZE = 8192, CUDA_R_16BF_VALUE = 14, CUBLAS_COMPUTE_32F_VALUE = 68 };

static void *symbol(void *library, const char *name) {
    return dlsym(library, name);
}

static bool gemm_load(gemm *g) {
    static const char *const names[] = {"libcublas.so.13", "libcublas.so.12", "libcublas.so"};
    void *library = NULL;
    for (size_t i = 0; i < sizeof names / sizeof *names && !library; i++)
        library = dlopen(names[i], RTLD_NOW);
    if (!library) return false;
    *(void **)&g->create = symbol(library, "cublasCreate_v2");
    *(void **)&g->destroy = symbol(library, "cublasDestroy_v2");
    *(void **)&g->set_stream = symbol(library, "cublasSetStream_v2");
    *(void **)&g->multiply = symbol(library, "cublasGemmEx");
    return g->create && g->destroy && g->set_stream && g->multiply;
}

static bool gemm_run(const void *object, int set, cudaStream_t stream) {
    const gemm *g = object;
    const float one = 1, zero = 0;
    const int n = GEMM_SIZE, bf16 = CUDA_R_16BF_VALUE;
    (void)set, (void)stream; /* the handle has it */
    return g->multiply(g->handle, 0, 0, n, n, n, &one, g->a, bf16, n, g->b, bf16, n, &zero, g->c,
                       bf16, n, CUBLAS_COMPUTE_32F_VALUE, -1) == 0;
}

/* FLOP/s of the vendor's library, where it can be loaded; else 0. */
static double matmul_rate(bench_timer *timer) {
    const int64_t elements = (int64_t)GEMM_SIZE * GEMM_SIZE;
    gemm g = {0};
    int driver = 0;
    double best = 0;
    /* No driver, nothing that the library could run on. */
    if (cudaDriverGetVersion(&driver) != cudaSuccess || !driver) return 0;
    if (!gemm_load(&g) || g.create(&g.handle) != 0) return 0;
    g.a = bench_normals(&g.memory, TWK_BF16, elements, 1);
    g.b = bench_normals(&g.memory, TWK_BF16, elements, 1);
    g.c = bench_normals(&g.memory, TWK_BF16, elements, 1);
    if (!g.memory.failed && g.set_stream(g.handle, timer->stream) == 0 &&
        cudaDeviceSynchronize() == cudaSuccess)
        for (int i = 0; i < 10; i++) {
            const double seconds = bench_time_once(timer, (bench_work){gemm_run, &g, 1});
            if (!(seconds > 0)) break;
            best = fmax(best, 2.0 * GEMM_SIZE * GEMM_SIZE * GEMM_SIZE / seconds);
        }
    bench_memory_free(&g.memory);
    g.destroy(g.handle);
    return best;
}

static bool job_run(const void *object, int set, cudaStream_t stream) {
    return bench_job_run(object, set, stream) == TWK_OK;
}

/* Reads 16 MB again and again: what the L2 gives. */
static double l2_read_rate(bench_timer *timer, bool small) {
    const bench_row row = {.kind = BENCH_COLUMN_SUMS,
                           .name = "L2 read",
                           .format = TWK_BF16,
                           .n = small ? 1 : 64,
                           .h = small ? 4 : 32,
                           .w = 32,
                           .c = 128,
                           .bytes_per_element = 2};
    bench_job job;
    bench_times a, b;
    if (!bench_job_make(&row, 2, &job)) return 0;
    const bench_work work = {job_run, &job, job.sets};
    const bench_protocol hot = {false, small ? 2 : 128, small ? 2 : 20};
    const bool good = bench_compare_times(timer, work, work, hot, &a, &b);
    bench_job_free(&job);
    return good ? bench_bytes(&row) / a.median : 0;
}

static double copy_rate(bench_timer *timer, bool small) {
    bench_device_copy copy;
    bench_times a, b;
    if (!bench_device_copy_make(small ? 1e5 : 1e9, 2, &copy)) return 0;
    const bench_work work = bench_device_copy_work(&copy);
    const bench_protocol cold = {true, 4, small ? 2 : 20};
    const bool good = bench_compare_times(timer, work, work, cold, &a, &b);
    const double rate = good ? 2.0 * (double)copy.bytes / a.median : 0;
    bench_device_copy_free(&copy);
    return rate;
}

static void number(double v, double unit, char text[32]) {
    if (v > 0)
        snprintf(text, 32, "%.0f", v / unit);
    else
        snprintf(text, 32, "null");
}

void bench_print_machine(bench_timer *timer, bool small, FILE *json) {
    struct cudaDeviceProp p;
    int driver = 0, runtime = 0;
    char copy[32], l2[32], matmul[32];
    if (cudaGetDeviceProperties(&p, 0) != cudaSuccess) return;
    cudaDriverGetVersion(&driver);
    cudaRuntimeGetVersion(&runtime);
    number(copy_rate(timer, small), 1e9, copy);
    number(l2_read_rate(timer, small), 1e9, l2);
    number(small ? 0 : matmul_rate(timer), 1e12, matmul);
    printf("%s, sm_%d%d, driver %d, runtime %d, copy %s GB/s, L2 read %s GB/s, bf16 matmul %s "
           "TFLOP/s (null: not measured)\n",
           p.name, p.major, p.minor, driver, runtime, copy, l2, matmul);
    if (!json) return;
    fprintf(json,
            "{\"gpu\":\"%s\",\"sm\":\"%d.%d\",\"driver\":%d,\"runtime\":%d,\"copy_gb_per_s\":%s,"
            "\"l2_read_gb_per_s\":%s,\"bf16_matmul_tflop_per_s\":%s}\n",
            p.name, p.major, p.minor, driver, runtime, copy, l2, matmul);
}
