# The benchmark's sources: read by its own build and by the one that runs it without a GPU.
set(TW_BENCH_PLAN_SOURCES plan.c plan_matrices.c page.c)
set(TW_BENCH_DEVICE_SOURCES
    check.c
    copy.c
    job.c
    job_adamw.c
    job_attention.c
    job_conv.c
    job_elementwise.c
    job_gemm.c
    job_norm.c
    job_sampler.c
    job_shape.c
    job_sums.c
    library.c
    machine.c
    measure.c
    memory.c
    noise.c
    report.c
    timer.c
)
set(TW_BENCH_WARNINGS -Wall -Wextra -Wshadow -Wvla -Wstrict-prototypes -Wmissing-prototypes -Werror)
