#include "fuzz.h"

#include <malloc.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static struct { size_t cap, bytes, blocks; } held = {.cap = (size_t)4 << 20};

void fuzz_cap(size_t bytes) {
    held.cap = bytes;
}

void fuzz_check_failed(const char *what, const char *file, int line) {
    fprintf(stderr, "%s:%d: not so: %s\nthe last error: %s\n", file, line, what,
            tw_context_error(fuzz_context()));
    abort();
}

/* Not rounded up, so that the byte after the last one is forbidden. */
static void *capped_allocate(void *user, size_t bytes, size_t alignment) {
    void *memory = NULL;
    (void)user;
    if (bytes > held.cap || held.bytes > held.cap - bytes ||
        posix_memalign(&memory, alignment, bytes) != 0)
        return NULL;
    held.bytes += malloc_usable_size(memory);
    held.blocks++;
    return memory;
}

static void capped_release(void *user, void *memory) {
    (void)user;
    held.bytes -= malloc_usable_size(memory);
    held.blocks--;
    free(memory);
}

tw_context *fuzz_context(void) {
    static tw_context *ctx;
    if (ctx) return ctx;
    const tw_allocator allocator = {capped_allocate, capped_release, NULL};
    tw_context_options options = TW_CONTEXT_OPTIONS_INIT;
    options.device = TW_DEVICE_CPU;
    options.threads = 1;
    options.allocator = &allocator;
    if (tw_context_create(&options, &ctx) != TW_OK) abort();
    return ctx;
}

size_t fuzz_held(void) {
    fuzz_context(); /* what it allocates itself is held from the start */
    return held.blocks;
}

void fuzz_refused(tw_status status, const char *name) {
    const char *text = tw_context_error(fuzz_context());
    FUZZ_CHECK(status == TW_ERROR_FORMAT || status == TW_ERROR_UNSUPPORTED ||
               status == TW_ERROR_IO || status == TW_ERROR_MEMORY || status == TW_ERROR_NUMERIC ||
               status == TW_ERROR_ARGUMENT);
    FUZZ_CHECK(*text);
    for (const char *p = text; *p; p++) FUZZ_CHECK((unsigned char)*p >= 0x20 && *p != 0x7f);
    if (name && status != TW_ERROR_MEMORY) FUZZ_CHECK(!strncmp(text, name, strlen(name)));
}

char *fuzz_text(const uint8_t *data, size_t size) {
    char *text = malloc(size + 1);
    if (!text) abort();
    if (size) memcpy(text, data, size);
    text[size] = '\0';
    return text;
}
