/* The inside of a context, and the calls that every part of the library uses to fail, log and
 * allocate. */
#ifndef TW_CORE_CONTEXT_H
#define TW_CORE_CONTEXT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <tweedie/context.h>

#define TW_ERROR_TEXT 1024

struct tw_backend;

struct tw_context {
    tw_allocator allocator;
    tw_log_fn log;
    void *log_user;
    tw_log_level log_level;
    struct tw_backend *backend;
    bool poison;
    unsigned no_fusion;
    void *stream;                         /* the caller's, or null */
    tw_device_allocator device_allocator; /* without functions: none was given */
    char device_name[96];
    char error[TW_ERROR_TEXT];
};

/* Records the text of a failure and returns `status`, so that a caller can `return tw_fail(...)`.
 * One line: what, where, and what would be right. A null context records for the thread. */
tw_status tw_fail(tw_context *ctx, tw_status status, const char *format, ...) TW_PRINTF(3, 4);
/* Puts "prefix: " before the text of the failure just recorded; returns `status`. */
tw_status tw_fail_prefix(tw_context *ctx, tw_status status, const char *format, ...)
    TW_PRINTF(3, 4);
void tw_log(tw_context *ctx, tw_log_level level, const char *format, ...) TW_PRINTF(3, 4);

/* The C library's memory. */
extern const tw_allocator tw_libc_allocator;

/* Host memory through the context's allocator (the C library's for a null context). Zeroed,
 * aligned to 64 bytes. On failure null, with the error recorded. tw_free takes null. */
void *tw_allocate(tw_context *ctx, size_t count, size_t size);
void tw_free(tw_context *ctx, void *memory);
char *tw_strdup(tw_context *ctx, const char *text);

#define TW_TRY(call)                                                                               \
    do {                                                                                           \
        tw_status tw_try_status_ = (call);                                                         \
        if (tw_try_status_ != TW_OK) return tw_try_status_;                                        \
    } while (0)

#endif
