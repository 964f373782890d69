/* The calls of io/file.h on a disk in memory. What is mapped or read is a copy of its own length,
 * so that AddressSanitizer sees a byte read beyond it. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "fuzz.h"
#include "io/file.h"

static struct {
    char name[FUZZ_NAME];
    uint8_t *bytes;
    size_t size;
} files[FUZZ_FILES];
static int count;
bool tw_file_nameless;

struct tw_file_writer {
    tw_context *ctx;
    char name[FUZZ_NAME];
    uint8_t *bytes;
    size_t size, room;
};

void fuzz_disk_clear(void) {
    for (int i = 0; i < count; i++) free(files[i].bytes);
    count = 0;
}

static int find(const char *name) {
    for (int i = 0; i < count; i++)
        if (!strcmp(files[i].name, name)) return i;
    return -1;
}

void fuzz_disk_put(const char *name, const void *bytes, size_t size) {
    int i = find(name);
    if (i < 0 && (count == FUZZ_FILES || strlen(name) >= FUZZ_NAME)) return;
    uint8_t *copy = malloc(size ? size : 1);
    if (!copy) abort();
    if (size) memcpy(copy, bytes, size);
    if (i >= 0) {
        free(files[i].bytes);
    } else {
        i = count++;
        snprintf(files[i].name, sizeof files[i].name, "%s", name);
    }
    files[i].bytes = copy;
    files[i].size = size;
}

bool fuzz_disk_get(const char *name, const uint8_t **bytes, size_t *size) {
    const int i = find(name);
    if (i < 0) return false;
    *bytes = files[i].bytes;
    *size = files[i].size;
    return true;
}

const char *fuzz_disk_name(int index) {
    return index < count ? files[index].name : NULL;
}

/* The start of the next line that begins a file, or the end. */
static const uint8_t *next_file(const uint8_t *at, const uint8_t *end) {
    for (; at < end; at++)
        if (end - at >= 4 && !memcmp(at, "=== ", 4)) return at;
    return end;
}

void fuzz_disk_fill(const uint8_t *data, size_t size) {
    const uint8_t *end = data + size, *at = next_file(data, end);
    fuzz_disk_clear();
    while (at < end && count < FUZZ_FILES_IN) {
        char name[FUZZ_NAME];
        const uint8_t *line = memchr(at, '\n', (size_t)(end - at));
        if (!line) return;
        const uint8_t *next = next_file(line + 1, end);
        snprintf(name, sizeof name, "%.*s", (int)(line - at) - 4, (const char *)at + 4);
        const uint8_t *last = next < end && next > line + 1 ? next - 1 : next;
        fuzz_disk_put(name, line + 1, (size_t)(last - line - 1));
        at = next;
    }
}

/* --- io/file.h --- */

tw_status tw_file_map(tw_context *ctx, const char *path, tw_file_mapping *out) {
    *out = (tw_file_mapping){NULL, 0};
    const int i = find(path);
    if (i < 0) return tw_fail(ctx, TW_ERROR_IO, "%s: cannot open: no such file", path);
    if (!files[i].size) return tw_fail(ctx, TW_ERROR_IO, "%s: the file is empty", path);
    uint8_t *copy = malloc(files[i].size);
    if (!copy) abort();
    memcpy(copy, files[i].bytes, files[i].size);
    *out = (tw_file_mapping){copy, files[i].size};
    return TW_OK;
}

void tw_file_unmap(tw_file_mapping *mapping) {
    free((void *)(uintptr_t)mapping->data);
    *mapping = (tw_file_mapping){NULL, 0};
}

tw_status tw_file_read(tw_context *ctx, const char *path, size_t cap, char **bytes, size_t *size) {
    *bytes = NULL;
    const int i = find(path);
    if (i < 0) return tw_fail(ctx, TW_ERROR_IO, "%s: cannot open: no such file", path);
    if (!files[i].size) return tw_fail(ctx, TW_ERROR_IO, "%s: the file is empty", path);
    if (files[i].size > cap)
        return tw_fail(ctx, TW_ERROR_FORMAT, "%s: %zu bytes, expected at most %zu", path,
                       files[i].size, cap);
    *bytes = tw_allocate(ctx, files[i].size + 1, 1);
    if (!*bytes) return TW_ERROR_MEMORY;
    memcpy(*bytes, files[i].bytes, files[i].size);
    if (size) *size = files[i].size;
    return TW_OK;
}

tw_status tw_file_writer_open(tw_context *ctx, const char *path, tw_file_writer **out) {
    *out = calloc(1, sizeof **out);
    if (!*out) abort();
    (*out)->ctx = ctx;
    snprintf((*out)->name, sizeof(*out)->name, "%s", path);
    return TW_OK;
}

tw_status tw_file_writer_write(tw_file_writer *w, const void *bytes, size_t size) {
    if (size > w->room - w->size) {
        w->room = 2 * (w->size + size);
        w->bytes = realloc(w->bytes, w->room);
        if (!w->bytes) abort();
    }
    if (size) memcpy(w->bytes + w->size, bytes, size);
    w->size += size;
    return TW_OK;
}

tw_status tw_file_writer_commit(tw_file_writer *w) {
    fuzz_disk_put(w->name, w->bytes, w->size);
    tw_file_writer_abort(w);
    return TW_OK;
}

void tw_file_writer_abort(tw_file_writer *w) {
    if (!w) return;
    free(w->bytes);
    free(w);
}

tw_status tw_file_write(tw_context *ctx, const char *path, const void *bytes, size_t size) {
    (void)ctx;
    fuzz_disk_put(path, bytes, size);
    return TW_OK;
}

tw_status tw_directory_make(tw_context *ctx, const char *path) {
    (void)ctx;
    (void)path;
    return TW_OK;
}

bool tw_file_exists(const char *path) {
    return find(path) >= 0;
}

bool tw_directory_exists(const char *path) {
    const size_t n = strlen(path);
    for (int i = 0; i < count; i++)
        if (!strncmp(files[i].name, path, n) && files[i].name[n] == '/') return true;
    return false;
}
