/* What a row of the plan runs: the buffers, several sets of them so that a cold measurement finds
 * nothing in the cache, the call, its check against float64 and its named peer. */
#ifndef TWEEDIE_BENCH_JOB_H
#define TWEEDIE_BENCH_JOB_H

#include "check.h"
#include "memory.h"
#include "plan.h"

#ifdef __cplusplus
extern "C" {
#endif

/* One set of buffers: what the launcher is called with. */
typedef struct bench_call {
    union {
        struct {
            twk_ddim_args args;
            twk_ddim_row row;
            float *threshold;
        } ddim;
        struct {
            twk_update_args args;
            twk_update_row row;
        } update;
        struct {
            twk_noising_args args;
            float a, one_minus_a;
        } noising;
        twk_noise_fill_args noise;
        twk_group_norm_args norm;
        struct {
            twk_format format;
            int64_t n;
            const void *a, *b;
            void *y;
        } pair; /* silu (a alone) and add */
        twk_dropout_args dropout;
        struct {
            twk_format format;
            int64_t rows, half;
            const void *a, *b;
            void *out;
        } concat;
        twk_blocks_args blocks;
        twk_convert_args convert;
        twk_image_args image;
        twk_mse_args mse;
        twk_column_sums_args sums;
        twk_conv_args conv;
        twk_gemm_args gemm;
        twk_attention_args attention;
        struct {
            twk_adamw_args args;
            twk_adamw_hyper hyper;
            struct bench_tensor { /* of the first and the last tensor: what it held before */
                twk_parameter p;
                float *master, *m, *v, *ema;
            } end[2];
        } adamw;
    } u;
} bench_call;

typedef struct bench_family {
    void (*make)(const bench_row *row, bench_memory *memory, bench_call *call);
    twk_status (*run)(const bench_call *call, twk_stream stream);
    /* After the first run of the set. */
    void (*check)(const bench_row *row, const bench_call *call, bench_check *check);
    /* The same result by another's code; NULL where there is none without further libraries. */
    bool (*peer)(const bench_call *call, twk_stream stream);
    const char *peer_name;
} bench_family;

/* Each defined in the file of its kernels. */
extern const bench_family bench_ddim, bench_update, bench_noising, bench_threshold, bench_noise;
extern const bench_family bench_norm_forward, bench_norm_backward;
extern const bench_family bench_activation, bench_add, bench_dropout;
extern const bench_family bench_concat, bench_spread, bench_pool, bench_convert, bench_image;
extern const bench_family bench_mse, bench_column_sums, bench_adamw;
extern const bench_family bench_conv, bench_conv_input_gradient, bench_conv_weight_gradient;
extern const bench_family bench_gemm, bench_gemm_input_gradient, bench_gemm_weight_gradient;
extern const bench_family bench_attention, bench_attention_backward;

typedef struct bench_job {
    const bench_family *family;
    bench_row row;
    bench_memory memory;
    bench_call *call;
    int sets;
} bench_job;

/* False, and nothing to free, when there is not enough memory. */
bool bench_job_make(const bench_row *row, int max_sets, bench_job *job);
void bench_job_free(bench_job *job);
twk_status bench_job_run(const bench_job *job, int set, twk_stream stream);
/* Compares what the first run of set 0 left; that run must have passed. Of *check, `more` is read.
 */
void bench_job_check(const bench_job *job, bench_check *check);

#ifdef __cplusplus
}
#endif

#endif
