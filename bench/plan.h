/* What is measured, what it must move at least, and what it is expected to reach: written down
 * before any measurement. */
#ifndef TWEEDIE_BENCH_PLAN_H
#define TWEEDIE_BENCH_PLAN_H

#include <stdbool.h>
#include <stdio.h>

#include "kernels.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef enum bench_kind {
    BENCH_DDIM,
    BENCH_UPDATE,
    BENCH_NOISING,
    BENCH_THRESHOLD,
    BENCH_NOISE,
    BENCH_NORM_FORWARD,
    BENCH_NORM_BACKWARD,
    BENCH_ACTIVATION,
    BENCH_ADD,
    BENCH_DROPOUT,
    BENCH_CONCAT,
    BENCH_SPREAD,
    BENCH_POOL,
    BENCH_CONVERT,
    BENCH_IMAGE,
    BENCH_MSE,
    BENCH_COLUMN_SUMS,
    BENCH_ADAMW,
    BENCH_CONV,
    BENCH_CONV_INPUT_GRADIENT,
    BENCH_CONV_WEIGHT_GRADIENT,
    BENCH_GEMM,
    BENCH_GEMM_INPUT_GRADIENT,
    BENCH_GEMM_WEIGHT_GRADIENT,
    BENCH_ATTENTION,
    BENCH_ATTENTION_BACKWARD,
    BENCH_KINDS,
} bench_kind;

typedef struct bench_row {
    bench_kind kind;
    const char *name; /* kernel and variant */
    twk_format format;
    int64_t n, h, w, c;
    int groups;               /* of the norm, else 0 */
    bool twice;               /* of the norm: what it reads it reads twice */
    bool given;               /* of the norm: mean and rstd are there already */
    bool noisy;               /* eta 1 */
    double bytes_per_element; /* that must cross device memory */
    const char *formula;      /* of these bytes; b is the format's size */
    const char *limit;        /* what is expected to bind */
    double percent; /* predicted, of the copy bandwidth; with a matrix product: of the floor */
    const char *note;
    /* Convolutions: x is n, h, w, c; the padding keeps the size, halves it with stride 2. Products:
     * n of h * w rows by c columns, times c by out_channels. */
    int out_channels, kernel, stride;
    int second;     /* of the c channels those of a second image; 0: there is one; norms, too */
    bool upsampled; /* the image is read as if it were twice as high and wide */
    /* Attention: n samples, h heads, w queries, c columns a head. */
    int keys;
    bool tf32;
    double flops_per_element; /* nominal, two a multiply-add; 0 without a matrix product */
    double executed;          /* FLOPs that the own kernel executes, as a multiple of the nominal */
    double rate;              /* of FLOPs on the reference GPU; 0: memory alone binds */
    double library; /* like percent, of the best plan of NVIDIA's libraries; 0: no prediction */
} bench_row;

enum { BENCH_MAX_ROWS = 320, BENCH_SHAPE_TEXT = 96 };

/* The reference GPU of the floors (H200): device copy counted read + write. */
#define BENCH_REFERENCE_BANDWIDTH 4.3e12
/* Its dense matrix products (bf16 on random data; tf32 at half of that), and its fp32 units. */
#define BENCH_REFERENCE_BF16 790e12
#define BENCH_REFERENCE_TF32 395e12
#define BENCH_REFERENCE_FP32 60e12
/* A launch that does nothing takes about this long inside a graph. */
#define BENCH_LAUNCH_SECONDS 2.0e-6

/* Fills rows[BENCH_MAX_ROWS] and gives their number. */
size_t bench_plan(bench_row *rows);

/* The same kernel at a shape of a few thousand elements: to see it run and be right. */
bench_row bench_small_twin(const bench_row *row);

int64_t bench_elements(const bench_row *row);
double bench_bytes(const bench_row *row);
double bench_flops(const bench_row *row); /* nominal; 0 without a matrix product */
double bench_floor_seconds(const bench_row *row);
double bench_predicted_seconds(const bench_row *row);
/* Predicted rate as a multiple of that of the libraries' best plan; 0: no prediction. */
double bench_predicted_ratio(const bench_row *row);
void bench_shape_text(const bench_row *row, char text[BENCH_SHAPE_TEXT]);
const char *bench_format_name(twk_format format);
size_t bench_format_bytes(twk_format format);

/* The plan as a page. */
void bench_print_page(FILE *out, const bench_row *rows, size_t count);

#ifdef __cplusplus
}
#endif

#endif
