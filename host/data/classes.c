#include "data/classes.h"

#include <stdlib.h>
#include <string.h>

/* The class folder of one path: its name ends at the slash. */
typedef struct entry {
    const char *name;
    size_t length;
    int64_t path;
} entry;

/* Length of the folders that all paths share, the last slash included. */
static size_t shared_folders(char *const *paths, int64_t n) {
    const char *first = paths[0], *slash = strrchr(first, '/');
    size_t length = slash ? (size_t)(slash - first) + 1 : 0;
    for (int64_t i = 1; i < n; i++)
        while (length > 0 && strncmp(first, paths[i], length) != 0) {
            length--;
            while (length > 0 && first[length - 1] != '/') length--;
        }
    return length;
}

static int compare(const void *a, const void *b) {
    const entry *x = a, *y = b;
    const int order = memcmp(x->name, y->name, x->length < y->length ? x->length : y->length);
    if (order) return order;
    return x->length < y->length ? -1 : x->length > y->length;
}

/* Numbers the sorted entries. */
static tw_status number(tw_context *ctx, const entry *entries, int64_t n, tw_classes *out) {
    for (int pass = 0; pass < 2; pass++) {
        int64_t label = -1;
        for (int64_t i = 0; i < n; i++) {
            if (i == 0 || compare(&entries[i - 1], &entries[i]) != 0) label++;
            if (pass == 0) continue;
            out->labels[entries[i].path] = (int32_t)label;
            if (out->names[label]) continue;
            out->names[label] = tw_allocate(ctx, entries[i].length + 1, 1);
            if (!out->names[label]) return TW_ERROR_MEMORY;
            memcpy(out->names[label], entries[i].name, entries[i].length);
        }
        if (pass == 1) break;
        out->names = tw_allocate(ctx, (size_t)label + 1, sizeof *out->names);
        out->labels = tw_allocate(ctx, (size_t)n, sizeof *out->labels);
        if (!out->names || !out->labels) return TW_ERROR_MEMORY;
        out->count = label + 1;
    }
    return TW_OK;
}

tw_status tw_classes_find(tw_context *ctx, char *const *paths, int64_t n, tw_classes *out) {
    memset(out, 0, sizeof *out);
    if (n < 1) return TW_OK;
    const size_t shared = shared_folders(paths, n);
    int64_t in_folders = 0;
    for (int64_t i = 0; i < n; i++) in_folders += strchr(paths[i] + shared, '/') != NULL;
    out->mixed = in_folders > 0 && in_folders < n;
    if (in_folders < n) return TW_OK;
    entry *entries = tw_allocate(ctx, (size_t)n, sizeof *entries);
    if (!entries) return TW_ERROR_MEMORY;
    for (int64_t i = 0; i < n; i++) {
        const char *name = paths[i] + shared;
        entries[i] = (entry){name, strcspn(name, "/"), i};
    }
    qsort(entries, (size_t)n, sizeof *entries, compare);
    const tw_status s = number(ctx, entries, n, out);
    tw_free(ctx, entries);
    if (s != TW_OK) tw_classes_free(ctx, out);
    return s;
}

void tw_classes_free(tw_context *ctx, tw_classes *c) {
    for (int64_t i = 0; i < c->count; i++) tw_free(ctx, c->names[i]);
    tw_free(ctx, c->names);
    tw_free(ctx, c->labels);
    memset(c, 0, sizeof *c);
}
