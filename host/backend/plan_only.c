/* A backend that lays plans out, however large, without the memory that they would take. */
#include <stdint.h>

#include "backend/backend.h"

static tw_status allocate(tw_backend *b, size_t bytes, void **out) {
    (void)b;
    *out = bytes ? (void *)(uintptr_t)4096 : NULL; /* not null, and never read */
    return TW_OK;
}

static void release(tw_backend *b, void *address) {
    (void)b;
    (void)address;
}

static tw_status copy(tw_backend *b, void *dst, const void *src, size_t bytes) {
    (void)b;
    (void)dst;
    (void)src;
    (void)bytes;
    return TW_OK;
}

static tw_status fill(tw_backend *b, void *dst, int byte, size_t bytes) {
    (void)b;
    (void)dst;
    (void)byte;
    (void)bytes;
    return TW_OK;
}

void tw_backend_plan_only(tw_backend *b) {
    b->allocate = allocate;
    b->release = release;
    b->upload = b->download = b->copy = copy;
    b->feed = b->send = NULL;
    b->gather = NULL;
    b->pin = NULL;
    b->unpin = NULL;
    b->mark = NULL;
    b->reached = NULL;
    b->unmark = NULL;
    b->follow = b->signal = NULL;
    b->fill = fill;
    b->plans_only = true;
}
