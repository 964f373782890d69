/* A device as the rest of the library sees it: memory that only it may dereference, copies that are
 * ordered on its stream, and its providers in order of preference. */
#ifndef TW_BACKEND_BACKEND_H
#define TW_BACKEND_BACKEND_H

#include "backend/choices.h"
#include "backend/provider.h"

/* Samples of a data set, of which a batch is taken by index; both on the device. */
typedef struct tw_samples_on_device {
    bool are_bytes;      /* for -1..1; else float32 */
    const void *samples; /* [count, elements] */
    int64_t count, elements;
    const void *index; /* [batch]: int64 into bytes, int32 into float32 */
    int64_t batch;
} tw_samples_on_device;

struct tw_backend {
    tw_context *ctx;
    const char *name; /* "cpu", "cuda" */
    tw_device device;
    char description[96]; /* "CPU, 2 threads" */
    int threads;
    tw_stream stream;                    /* that everything is ordered on; null on the CPU */
    const tw_provider *const *providers; /* null-terminated */
    /* The same for a region, in the order in which they are asked. Null: as they are listed. */
    tw_status (*order)(tw_backend *b, const tw_region *region, const tw_provider *const **out);
    tw_choices choices; /* of all compilations since somebody cleared it */
    /* During a run: constant operands may have other values than in the plan's last one. */
    bool parameters_changed;
    bool plans_only; /* see tw_backend_plan_only */
    bool plain;      /* runs make their calls one by one, where they could be replayed */

    /* Names and versions of the libraries behind the providers, and why one cannot be used, into
     * out[size]. Null: there are none to speak of. */
    void (*libraries)(tw_backend *b, char *out, size_t size);

    /* See tw_context_tune and tw_context_save_tuning. Null where there is nothing to choose. */
    tw_status (*tune)(tw_backend *b, const char *file);
    tw_status (*save_tuning)(tw_backend *b, const char *file);

    /* Device memory aligned to 256 bytes. Zero bytes give a null address. */
    tw_status (*allocate)(tw_backend *b, size_t bytes, void **out);
    void (*release)(tw_backend *b, void *address);
    /* Ordered copies. After upload returns, `src` may be changed; download returns when the bytes
     * are there. */
    tw_status (*upload)(tw_backend *b, void *dst, const void *src, size_t bytes);
    tw_status (*download)(tw_backend *b, void *dst, const void *src, size_t bytes);
    /* An upload for the runs that follow, beside what is computed now. Null: as upload. */
    tw_status (*feed)(tw_backend *b, void *dst, const void *src, size_t bytes);
    /* Device memory that feeding so many bytes at a time takes. Null: none. */
    size_t (*feed_bytes)(const tw_backend *b, size_t bytes);
    /* A batch as float32[batch, elements], of bytes with the bits of tw_dataset_to_floats. Null
     * where the host's memory is the device's. */
    tw_status (*gather)(tw_backend *b, const tw_samples_on_device *samples, void *out);
    /* A download that may arrive later, when the stream is there. Null, as the seven below, where
     * everything is done when its call returns. */
    tw_status (*send)(tw_backend *b, void *dst, const void *src, size_t bytes);
    /* Host memory for what is sent and fed. Unpin takes null. */
    tw_status (*pin)(tw_backend *b, size_t bytes, void **out);
    void (*unpin)(tw_backend *b, void *memory);
    /* A point of the stream (one more where *mark is null, else this one again), and whether
     * everything before it is done; with `wait` it is waited for. Unmark takes null. */
    tw_status (*mark)(tw_backend *b, void **mark);
    tw_status (*reached)(tw_backend *b, void *mark, bool wait, bool *out);
    void (*unmark)(tw_backend *b, void *mark);
    /* The caller's events: the stream goes on after it, and records it. */
    tw_status (*follow)(tw_backend *b, void *event);
    tw_status (*signal)(tw_backend *b, void *event);
    tw_status (*copy)(tw_backend *b, void *dst, const void *src, size_t bytes);
    tw_status (*fill)(tw_backend *b, void *dst, int byte, size_t bytes);
    tw_status (*synchronize)(tw_backend *b);
    /* Bytes of the device's memory, and those that are free. Null where it is the host's. */
    tw_status (*memory)(tw_backend *b, size_t *total, size_t *available);
    /* The most bytes of the device's memory that were used, and held with what was kept for later,
     * since the backend was made or, with `restart`, will be from here on; NAN where that is not
     * known. Null where the device's memory is the host's. */
    void (*peak)(tw_backend *b, bool restart, double *used, double *held);
    /* Brackets a run of kernels (thread settings on the CPU, a stream on a GPU). */
    tw_status (*begin)(tw_backend *b);
    void (*end)(tw_backend *b);
    /* Null where runs cannot be recorded. Between record and recorded the kernels of a run leave
     * their calls behind instead of working; replay makes them all at once, with the addresses that
     * they were recorded with. After a failure there is nothing to forget. */
    tw_status (*record)(tw_backend *b);
    tw_status (*recorded)(tw_backend *b, void **out);
    tw_status (*replay)(tw_backend *b, void *recording);
    void (*forget)(tw_backend *b, void *recording);
    /* Joules that the device has taken so far, and the part of the last moments in which it was at
     * work; NAN where that is not known. Null where nothing counts. */
    void (*meter)(tw_backend *b, double *joules, double *busy);
    /* Seconds at which everything so far was done: differences are the cost of what lies between.
     */
    double (*clock)(tw_backend *b);
    const char *clock_name;
    void (*destroy)(tw_backend *b);
};

/* From here on the backend plans without memory: addresses stand for nothing, copies do nothing,
 * and runs fail. Before anything is allocated. */
void tw_backend_plan_only(tw_backend *backend);

/* Makes the CPU backend. `provider` is "auto" or the name of the only provider wanted. */
tw_status tw_backend_cpu_create(tw_context *ctx, int threads, const char *provider,
                                tw_backend **out);
/* Whether a provider of this name is a GPU's, in builds without one too. */
bool tw_backend_is_of_cuda(const char *provider);
/* Whether this build has the backend below. */
extern const bool tw_backend_has_cuda;
/* Makes the first GPU's. TW_ERROR_DEVICE without one that serves, or in a build without CUDA. */
tw_status tw_backend_cuda_create(tw_context *ctx, int threads, const char *provider,
                                 tw_backend **out);

#endif
