/* The context: a device, its threads, an allocator, a log callback and the text of the last error.
 *
 * Every other handle is made from a context and must be freed before it. A context and the handles
 * made from it are used by one thread at a time; different contexts are independent and may be used
 * by different threads at once. No call aborts or exits the process. */
#ifndef TWEEDIE_CONTEXT_H
#define TWEEDIE_CONTEXT_H

#include <stddef.h>

#include "status.h"

TW_BEGIN_DECLS

typedef struct tw_context tw_context;

typedef enum tw_device { TW_DEVICE_AUTO = 0, TW_DEVICE_CPU = 1, TW_DEVICE_CUDA = 2 } tw_device;

typedef enum tw_log_level {
    TW_LOG_ERROR = 0,
    TW_LOG_WARNING = 1,
    TW_LOG_INFO = 2,
    TW_LOG_DEBUG = 3
} tw_log_level;

/* `text` is one line without a newline, valid during the call. */
typedef void (*tw_log_fn)(void *user, tw_log_level level, const char *text);

/* Host memory. `allocate` returns memory aligned to `alignment` (a power of two, at least 16) or
 * null; `release` gets what `allocate` returned. Both may be called from several threads at once.
 */
typedef struct tw_allocator {
    void *(*allocate)(void *user, size_t bytes, size_t alignment);
    void (*release)(void *user, void *memory);
    void *user;
} tw_allocator;

/* Operations that are done as one, where a provider can: what lies between them is not stored. */
typedef enum tw_fusion {
    TW_FUSION_NORM_SILU = 1, /* "norm-silu": GroupNorm and SiLU */
    TW_FUSION_EPILOGUE = 2,  /* "epilogue": a convolution or linear layer, the time embedding's
                              * vector, the residual with its factor, SiLU */
    TW_FUSION_NORM_STATISTICS = 4, /* "norm-statistics": convolutions measure what GroupNorm would
                                    * else read twice */
    TW_FUSION_CONCAT = 8,     /* "concat": skips are read, and their gradients written, in place
                               * of a joint tensor */
    TW_FUSION_UPSAMPLE = 16,  /* "upsample": convolutions read the small image */
    TW_FUSION_QKV = 32,       /* "qkv": attention's three projections as one product */
    TW_FUSION_GRADIENTS = 64, /* "gradients": one is added to another where it is made */
    TW_FUSION_TIME = 128,     /* "time": the time embedding's projections of all blocks as one
                               * product; their gradient is summed where GroupNorm's is made */
    TW_FUSION_ALL = 255       /* "all" */
} tw_fusion;

/* The word for bit `index`; null past the last. */
TW_API const char *tw_fusion_name(int index);

/* A GPU's memory. `allocate` returns memory of the device aligned to 256 bytes, or null; `release`
 * gets what `allocate` returned. Both in the order of `stream` (a cudaStream_t, the context's):
 * work that was queued before may still use what is released, work queued later uses what is
 * allocated. Called by the thread that uses the context, never while a plan runs. */
typedef struct tw_device_allocator {
    void *(*allocate)(void *user, size_t bytes, void *stream);
    void (*release)(void *user, void *memory, void *stream);
    void *user;
} tw_device_allocator;

typedef struct tw_context_options {
    size_t size;      /* sizeof(tw_context_options), set by the initialiser */
    tw_device device; /* AUTO: CUDA if there is one, else CPU */
    int threads;      /* CPU threads; 0: one per core available to the process. Where other programs
                       * use the cores too, set GOMP_SPINCOUNT=10000 before the process starts */
    tw_log_fn log;    /* null: warnings and errors go to no one */
    void *log_user;
    tw_log_level log_level;        /* nothing less important is reported */
    const tw_allocator *allocator; /* null: the C library; copied */
    const char
        *provider; /* "auto", or the name of the one to use, such as "cpu-reference", "own" (a GPU's
                    * kernels) or "cudnn" (and cuBLASLt; what these cannot, the kernels do). On a
                    * GPU "auto" asks region by region the one that should be quicker */
    int poison;    /* nonzero: fill dead plan memory with NaN, to find lifetime mistakes */
    unsigned no_fusion; /* of tw_fusion: what is not done. Numbers change by rounding only */
    /* A cudaStream_t of the first GPU that everything is queued on, neither a default stream nor
     * one that is capturing; it must outlive the context, and nobody else may queue on it during a
     * call. Null: one of the context's own. */
    void *stream;
    /* Copied. Null: a pool of the context's own (cudaMallocAsync), which keeps what plans give back
     * for those that follow, until the context goes. */
    const tw_device_allocator *device_allocator;
} tw_context_options;

#define TW_CONTEXT_OPTIONS_INIT                                                                    \
    { sizeof(tw_context_options), TW_DEVICE_AUTO, 0, 0, 0, TW_LOG_WARNING, 0, 0, 0, 0, 0, 0 }

/* Makes a context. `options` may be null for the defaults. On failure *out is null and
 * tw_context_error(NULL) has the text. */
TW_API tw_status tw_context_create(const tw_context_options *options, tw_context **out);

/* Frees the context. Null is allowed. All handles made from it must be gone. */
TW_API void tw_context_free(tw_context *ctx);

/* The text of the last failure on this context, one line, "" if there was none. With a null
 * context: the calling thread's last failure that had no context. Valid until the next failure. */
TW_API const char *tw_context_error(const tw_context *ctx);

/* What was decided: the device in words ("CPU, 2 threads"), never null. */
TW_API const char *tw_context_device_name(const tw_context *ctx);
TW_API tw_device tw_context_device(const tw_context *ctx);
TW_API int tw_context_threads(const tw_context *ctx);
/* The cudaStream_t that everything is queued on; null on the CPU. What else a program does with
 * buffers that it shares with us has to be ordered with it. */
TW_API void *tw_context_stream(const tw_context *ctx);

/* Name of the provider with this index in order of preference; null past the last. */
TW_API const char *tw_context_provider(const tw_context *ctx, int index);

/* From here on, compiling a plan on a GPU times the providers of every product against each other
 * on random operands, refuses a library whose results are not within the tolerance of the kernels',
 * and keeps the quickest. `file` has the choices of earlier runs on the same device with the same
 * libraries, which are taken up and not timed again; one that is missing, broken or of something
 * else is ignored, the latter two with a warning. Null: none. Only where the provider is "auto".
 *
 * The clock decides, so two runs that time may choose differently, and then their numbers differ
 * in the last bits; with the file of the first the second repeats it to the bit. */
TW_API tw_status tw_context_tune(tw_context *ctx, const char *file);
/* Writes all choices so far, whole or not at all; nothing if no new one was made. */
TW_API tw_status tw_context_save_tuning(tw_context *ctx, const char *file);

TW_END_DECLS

#endif
