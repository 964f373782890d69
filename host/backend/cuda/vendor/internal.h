/* What the parts of the provider share. A family is an operation of a library; everything that is
 * the same for all of them (keys, workspace, turns, tuning) is in vendor.c, cache.c and tune.c. */
#ifndef TW_BACKEND_CUDA_VENDOR_INTERNAL_H
#define TW_BACKEND_CUDA_VENDOR_INTERNAL_H

#include <pthread.h>

#include "backend/cuda/vendor/vendor.h"

#define TW_VENDOR_CANDIDATES 16
#define TW_VENDOR_TEXT 512
#define TW_VENDOR_MOST 0x1p40 /* elements of a tensor: no stride overflows */

/* The first member of every library's plans. choice.workspace is what the call needs, `bytes` what
 * the library's part of it does. */
typedef struct tw_vendor_plan {
    tw_vendor_choice choice;
    size_t bytes;
} tw_vendor_plan;

/* Bytes of workspace beside the plan's own. */
typedef struct tw_vendor_needs {
    size_t bias;   /* rounded to the format */
    size_t output; /* of the plan, where it is not the call's own */
    size_t sums;   /* of the launcher that adds it to the call's */
} tw_vendor_needs;

typedef struct tw_vendor_room {
    void *bias, *output, *sums, *plan; /* output: NULL where the plan writes the call's own */
    tw_vendor_needs needs;
} tw_vendor_room;

/* What a plan writes, for tuning: n elements. */
typedef struct tw_vendor_output {
    int64_t n;
    twk_format format;
    double tolerance; /* by which two plans may differ, of an element's magnitude */
} tw_vendor_output;

typedef struct tw_vendor_key {
    int n;
    int64_t v[48];
} tw_vendor_key;

typedef struct tw_vendor_family {
    /* What no plan can serve or is wrong, from the arguments alone, without addresses. */
    twk_status (*check)(const tw_vendor_call *call);
    /* What is missing or not served once addresses count. */
    twk_status (*addresses)(const tw_vendor_call *call);
    void (*key)(const tw_vendor_call *call, tw_vendor_key *key);
    /* Opens the library, once. */
    twk_status (*open)(tw_vendor *v);
    const char *(*name)(const tw_vendor *v); /* with its version, once it is open */
    /* The first *n plans, of `most`; TWK_OK with at least one of them, or why there is none. */
    twk_status (*plans)(tw_vendor *v, const tw_vendor_call *call, int most, tw_vendor_plan **plans,
                        int *n);
    void (*free)(tw_vendor *v, tw_vendor_plan *plan);
    twk_status (*needs)(const tw_vendor *v, const tw_vendor_call *call, tw_vendor_needs *needs);
    twk_status (*before)(const tw_vendor *v, const tw_vendor_call *call, const tw_vendor_room *room,
                         twk_stream stream);
    twk_status (*enqueue)(tw_vendor *v, const tw_vendor_call *call, const tw_vendor_plan *plan,
                          const tw_vendor_room *room, twk_stream stream);
    twk_status (*after)(const tw_vendor *v, const tw_vendor_call *call, const tw_vendor_room *room,
                        twk_stream stream);
    tw_vendor_output (*output)(const tw_vendor_call *call);
} tw_vendor_family;

/* Built with the headers of the library; else NULL stands in their place. */
extern const tw_vendor_family tw_cudnn_conv, tw_cudnn_attention, tw_cublaslt_gemm;

typedef struct tw_vendor_entry tw_vendor_entry;
typedef struct tw_cudnn tw_cudnn;
typedef struct tw_cublaslt tw_cublaslt;
typedef struct tw_driver tw_driver;

/* A plan that was chosen, or the reason why there is none. */
struct tw_vendor_entry {
    tw_vendor_entry *next;
    tw_vendor_key key;
    const tw_vendor_family *family;
    tw_vendor_plan *plan;
    char *reason;
};

#define TW_VENDOR_BUCKETS 64

struct tw_vendor {
    tw_vendor_options options; /* its strings are copies */
    pthread_mutex_t lock;      /* who holds it uses what follows */
    tw_vendor_entry *cache[TW_VENDOR_BUCKETS];
    uint64_t plans_made;
    /* NULL until they are opened. */
    tw_cudnn *cudnn;
    tw_cublaslt *cublaslt;
    tw_driver *driver;
};

/* Records the text for the thread and returns the status. */
twk_status tw_vendor_fail(twk_status status, const char *format, ...)
    __attribute__((format(printf, 2, 3)));

/* --- cache.c --- */
void tw_vendor_key_add(tw_vendor_key *key, int n, const int64_t *values);
tw_vendor_entry *tw_vendor_find(const tw_vendor *v, const tw_vendor_key *key);
/* Keeps the plan, or the thread's text as the reason why there is none. NULL without memory. */
tw_vendor_entry *tw_vendor_keep(tw_vendor *v, const tw_vendor_key *key,
                                const tw_vendor_family *family, tw_vendor_plan *plan);
void tw_vendor_forget_all(tw_vendor *v);

/* --- tune.c: replaces the entry's plan --- */
twk_status tw_vendor_time_plans(tw_vendor *v, const tw_vendor_call *call, tw_vendor_entry *entry,
                                twk_stream stream);
void tw_driver_close(tw_driver *driver);

/* --- the libraries --- */
void tw_cudnn_close(tw_cudnn *cudnn);
void tw_cublaslt_close(tw_cublaslt *cublaslt);

/* --- what the families share, call.c --- */
size_t tw_vendor_format_bytes(twk_format format);
const char *tw_vendor_format_name(twk_format format, int tf32);
/* The largest power of two up to 16 that divides the address. */
int64_t tw_vendor_alignment(const void *address);
/* Rounds n fp32 values to the format, or only copies them to an aligned place. */
twk_status tw_vendor_round(const tw_vendor *v, const float *from, int64_t n, twk_format format,
                           void *to, twk_stream stream);

#endif
