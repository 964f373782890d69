/* Failing, logging and allocating. */
#include "core/context.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/checked.h"

static _Thread_local char thread_error[TW_ERROR_TEXT];

const char *tw_version(void) {
    return TW_VERSION_STRING;
}

const char *tw_status_name(tw_status status) {
    switch (status) {
    case TW_OK:
        return "ok";
    case TW_ERROR_ARGUMENT:
        return "bad argument";
    case TW_ERROR_MEMORY:
        return "out of memory";
    case TW_ERROR_IO:
        return "input/output error";
    case TW_ERROR_FORMAT:
        return "bad file format";
    case TW_ERROR_UNSUPPORTED:
        return "unsupported";
    case TW_ERROR_DEVICE:
        return "device error";
    case TW_ERROR_CANCELLED:
        return "cancelled";
    case TW_ERROR_NUMERIC:
        return "not a finite number";
    case TW_ERROR_INTERNAL:
        return "internal error";
    }
    return "unknown status";
}

static char *error_buffer(tw_context *ctx) {
    return ctx ? ctx->error : thread_error;
}

/* Names from files may hold newlines or terminal controls; the text is one line. */
static void blank_controls(char *text) {
    for (; *text; text++)
        if ((unsigned char)*text < 0x20 || *text == 0x7f) *text = ' ';
}

tw_status tw_fail(tw_context *ctx, tw_status status, const char *format, ...) {
    char text[TW_ERROR_TEXT]; /* the arguments may point into the old text */
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    blank_controls(text);
    memcpy(error_buffer(ctx), text, sizeof text);
    return status;
}

tw_status tw_fail_prefix(tw_context *ctx, tw_status status, const char *format, ...) {
    char text[TW_ERROR_TEXT];
    va_list args;
    va_start(args, format);
    int used = vsnprintf(text, sizeof text, format, args);
    va_end(args);
    if (used < 0) used = 0;
    if ((size_t)used < sizeof text &&
        snprintf(text + used, sizeof text - (size_t)used, ": %s", error_buffer(ctx)) < 0)
        text[used] = '\0';
    blank_controls(text);
    memcpy(error_buffer(ctx), text, sizeof text);
    return status;
}

void tw_log(tw_context *ctx, tw_log_level level, const char *format, ...) {
    if (!ctx || !ctx->log || level > ctx->log_level) return;
    char text[TW_ERROR_TEXT];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    ctx->log(ctx->log_user, level, text);
}

static void *libc_allocate(void *user, size_t bytes, size_t alignment) {
    (void)user;
    size_t padded;
    if (!tw_add_size(bytes, alignment - 1, &padded)) return NULL;
    return aligned_alloc(alignment, padded & ~(alignment - 1));
}

static void libc_release(void *user, void *memory) {
    (void)user;
    free(memory);
}

const tw_allocator tw_libc_allocator = {libc_allocate, libc_release, NULL};

void *tw_allocate(tw_context *ctx, size_t count, size_t size) {
    const tw_allocator *a = ctx ? &ctx->allocator : &tw_libc_allocator;
    size_t bytes;
    if (!tw_mul_size(count, size, &bytes)) {
        tw_fail(ctx, TW_ERROR_MEMORY, "%zu elements of %zu bytes do not fit an address", count,
                size);
        return NULL;
    }
    void *memory = a->allocate(a->user, bytes ? bytes : 1, 64);
    if (!memory) {
        tw_fail(ctx, TW_ERROR_MEMORY, "out of memory: %zu bytes were asked for", bytes);
        return NULL;
    }
    memset(memory, 0, bytes);
    return memory;
}

void tw_free(tw_context *ctx, void *memory) {
    if (!memory) return;
    const tw_allocator *a = ctx ? &ctx->allocator : &tw_libc_allocator;
    a->release(a->user, memory);
}

char *tw_strdup(tw_context *ctx, const char *text) {
    size_t n = strlen(text);
    char *copy = tw_allocate(ctx, n + 1, 1);
    if (copy) memcpy(copy, text, n + 1);
    return copy;
}

const char *tw_context_error(const tw_context *ctx) {
    return ctx ? ctx->error : thread_error;
}

const char *tw_context_device_name(const tw_context *ctx) {
    return ctx ? ctx->device_name : "";
}
