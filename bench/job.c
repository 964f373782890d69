#include "job.h"

#include <stdlib.h>

static const bench_family *family_of(bench_kind kind) {
    static const bench_family *const all[BENCH_KINDS] = {
        [BENCH_DDIM] = &bench_ddim,
        [BENCH_UPDATE] = &bench_update,
        [BENCH_NOISING] = &bench_noising,
        [BENCH_THRESHOLD] = &bench_threshold,
        [BENCH_NOISE] = &bench_noise,
        [BENCH_NORM_FORWARD] = &bench_norm_forward,
        [BENCH_NORM_BACKWARD] = &bench_norm_backward,
        [BENCH_ACTIVATION] = &bench_activation,
        [BENCH_ADD] = &bench_add,
        [BENCH_DROPOUT] = &bench_dropout,
        [BENCH_CONCAT] = &bench_concat,
        [BENCH_SPREAD] = &bench_spread,
        [BENCH_POOL] = &bench_pool,
        [BENCH_CONVERT] = &bench_convert,
        [BENCH_IMAGE] = &bench_image,
        [BENCH_MSE] = &bench_mse,
        [BENCH_COLUMN_SUMS] = &bench_column_sums,
        [BENCH_ADAMW] = &bench_adamw,
        [BENCH_CONV] = &bench_conv,
        [BENCH_CONV_INPUT_GRADIENT] = &bench_conv_input_gradient,
        [BENCH_CONV_WEIGHT_GRADIENT] = &bench_conv_weight_gradient,
        [BENCH_GEMM] = &bench_gemm,
        [BENCH_GEMM_INPUT_GRADIENT] = &bench_gemm_input_gradient,
        [BENCH_GEMM_WEIGHT_GRADIENT] = &bench_gemm_weight_gradient,
        [BENCH_ATTENTION] = &bench_attention,
        [BENCH_ATTENTION_BACKWARD] = &bench_attention_backward,
    };
    return all[kind];
}

bool bench_job_make(const bench_row *row, int max_sets, bench_job *job) {
    /* Several times the cache in all; at least two sets, so that none is still there. */
    const double wanted = 512e6;
    const int sets = (int)(wanted / bench_bytes(row)) + 1;
    *job = (bench_job){.family = family_of(row->kind), .row = *row};
    job->sets = sets < 2 ? 2 : sets > max_sets ? max_sets : sets;
    job->call = calloc((size_t)job->sets, sizeof *job->call);
    if (!job->call) return false;
    for (int i = 0; i < job->sets && !job->memory.failed; i++)
        job->family->make(row, &job->memory, &job->call[i]);
    if (!job->memory.failed) return true;
    bench_job_free(job);
    return false;
}

void bench_job_free(bench_job *job) {
    bench_memory_free(&job->memory);
    free(job->call);
    job->call = NULL;
    job->sets = 0;
}

twk_status bench_job_run(const bench_job *job, int set, twk_stream stream) {
    return job->family->run(&job->call[set], stream);
}

void bench_job_check(const bench_job *job, bench_check *check) {
    *check = (bench_check){.of = "all", .more = check->more};
    job->family->check(&job->row, &job->call[0], check);
    bench_drop(check);
}
