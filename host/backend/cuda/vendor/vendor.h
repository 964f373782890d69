/* NVIDIA's cuDNN and cuBLASLt behind the arguments of the hand-written kernels' launchers.
 *
 * The libraries are opened when the first call wants them, never linked and never required; what
 * cannot be served is answered by TWK_UNSUPPORTED and a text, and is no error: the next provider is
 * asked. Beside kernels.h this depends on nothing of the project.
 *
 * A plan is what a library makes of one shape: an engine (algorithm) and its settings. How it is
 * chosen:
 *   1. The call is described to the library: a graph of operations for cuDNN, layouts for cuBLASLt.
 *      What matters to it (sizes, strides, formats, which terms there are, how pointers are
 *      aligned) is also the key under which the plan, or the reason why there is none, is kept.
 *   2. The library's heuristics propose engines, best first; cuDNN's mode A is asked, then mode B,
 *      then the fallback.
 *   3. The first is taken that
 *        - gives equal bits for equal inputs, sums in fp32 and multiplies as the arguments say (no
 *          tf32 in exact fp32; no Winograd or Fourier transforms, whose errors have other bounds),
 *        - is compiled already, unless the options allow compilation at run time,
 *        - asks for no more workspace than the options allow, and
 *        - the library then really makes into a plan.
 *   4. tw_vendor_tune replaces that choice by the quickest of the first 16 such engines, of those
 *      whose results agree with the first one's.
 * The same build, device and options make the same choice every time; only tuning depends on the
 * clock.
 *
 * What differs from the hand-written kernels, in 16-bit formats: a bias is rounded to the format, a
 * weight gradient is rounded to it before it is added in fp32, and dx is rounded before a dx_add
 * that lies elsewhere is added. */
#ifndef TW_BACKEND_CUDA_VENDOR_VENDOR_H
#define TW_BACKEND_CUDA_VENDOR_VENDOR_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "kernels.h"

#ifdef __cplusplus
extern "C" {
#endif

/* One for every device that is used: it belongs to the CUDA device that is current when the first
 * call wants a library, and that is current in every thread that calls. Any number of threads may
 * use it; they take turns. */
typedef struct tw_vendor tw_vendor;

/* Launchers of kernels.h that complete a call around the library's part. Those that are NULL make
 * "cannot" of the calls that need them. */
typedef struct tw_vendor_kernels {
    twk_status (*convert)(const twk_convert_args *args, twk_stream stream); /* a bias */
    twk_status (*add)(twk_format format, int64_t n, float ca, const void *a, float cb,
                      const void *b, void *y, twk_stream stream); /* dx_add */
    size_t (*column_sums_workspace)(int64_t batch, int64_t pixels, int64_t channels);
    twk_status (*column_sums)(const twk_column_sums_args *args,
                              twk_stream stream); /* parameters' gradients */
    const char *(*error_text)(void);
} tw_vendor_kernels;

typedef struct tw_vendor_options {
    /* Files to open; NULL: as the loader finds libcudnn.so.9, libcublasLt.so.13 (or .12) and, for
     * tuning, libcuda.so.1. */
    const char *cudnn, *cublaslt, *driver;
    /* cuDNN's description of a device (JSON, cuDNN 9.8 and later) to choose plans for where there
     * is none; nothing can be run then. NULL: the current CUDA device. */
    const char *device;
    size_t workspace_limit; /* bytes a plan may ask for; 0: 256 MiB */
    bool compile;           /* allow engines that cuDNN compiles at run time: seconds a plan */
    tw_vendor_kernels kernels;
} tw_vendor_options;

typedef enum tw_vendor_op {
    TW_VENDOR_CONV_FORWARD,
    TW_VENDOR_CONV_INPUT_GRADIENT,
    TW_VENDOR_CONV_WEIGHT_GRADIENT,
    TW_VENDOR_GEMM,
    TW_VENDOR_ATTENTION_FORWARD,
    TW_VENDOR_ATTENTION_BACKWARD,
    TW_VENDOR_OP_COUNT
} tw_vendor_op;

/* An operation and its arguments. Addresses that are NULL count as aligned to 16 bytes until the
 * call is run; workspace, tile and splits are not looked at before either. */
typedef struct tw_vendor_call {
    tw_vendor_op op;
    union {
        const twk_conv_args *conv;
        const twk_gemm_args *gemm;
        const twk_attention_args *attention;
    } args;
} tw_vendor_call;

typedef struct tw_vendor_choice {
    uint64_t plan;      /* no two plans ever have the same number */
    int64_t engine;     /* the library's number for it */
    int rank;           /* its place among the proposals */
    size_t workspace;   /* bytes that the call needs in its arguments */
    int tried;          /* by tuning; 0 without */
    int disagreed;      /* of those tried */
    float milliseconds; /* of the plan chosen by tuning; 0 without */
    char text[128];     /* "cuDNN 9.19.0: engine 62, heuristic A" */
} tw_vendor_choice;

/* TWK_OK, or TWK_UNSUPPORTED without memory. No library is opened yet. */
twk_status tw_vendor_create(const tw_vendor_options *options, tw_vendor **out);
void tw_vendor_destroy(tw_vendor *vendor); /* NULL is allowed; no call may still be running */

/* Why this thread's last call did not return TWK_OK. Never NULL. */
const char *tw_vendor_text(void);

/* Name and version of the library that serves this operation, which is opened for it and keeps the
 * text; NULL: it cannot be used, as tw_vendor_text says. */
const char *tw_vendor_library(tw_vendor *vendor, tw_vendor_op op);

/* Chooses the plan, or finds the one chosen before. */
twk_status tw_vendor_choose(tw_vendor *vendor, const tw_vendor_call *call,
                            tw_vendor_choice *choice);
/* Enqueues the call. It allocates no device memory and does not wait. */
twk_status tw_vendor_run(tw_vendor *vendor, const tw_vendor_call *call, twk_stream stream);
/* Times the engines on the stream with the call's own inputs and keeps the quickest. The output
 * goes to memory that is allocated meanwhile, so that the call's stays as it is (lse, dk and dv of
 * attention do not); it waits for the stream. */
twk_status tw_vendor_tune(tw_vendor *vendor, const tw_vendor_call *call, twk_stream stream,
                          tw_vendor_choice *choice);

/* By how much of its magnitude, and of the mean magnitude, an element of a result may differ
 * between two plans, or between a plan and a kernel. */
double tw_vendor_tolerance(twk_format format, int tf32);

/* The same by name, as the launchers have it. */
twk_status tw_vendor_conv_forward(tw_vendor *vendor, const twk_conv_args *args, twk_stream stream);
twk_status tw_vendor_conv_input_gradient(tw_vendor *vendor, const twk_conv_args *args,
                                         twk_stream stream);
twk_status tw_vendor_conv_weight_gradient(tw_vendor *vendor, const twk_conv_args *args,
                                          twk_stream stream);
twk_status tw_vendor_gemm(tw_vendor *vendor, const twk_gemm_args *args, twk_stream stream);
twk_status tw_vendor_attention_forward(tw_vendor *vendor, const twk_attention_args *args,
                                       twk_stream stream);
twk_status tw_vendor_attention_backward(tw_vendor *vendor, const twk_attention_args *args,
                                        twk_stream stream);

#ifdef __cplusplus
}
#endif

#endif
