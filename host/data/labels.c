/* Label files: IDX of one dimension, or .npy. */
#include <stdio.h>
#include <string.h>

#include "data/dataset.h"
#include "io/file.h"
#include "io/npy.h"

static tw_status read_idx(tw_context *ctx, const char *path, const tw_file_mapping *m,
                          int32_t **out, int64_t *count) {
    uint8_t *data;
    TW_TRY(tw_idx_read(ctx, path, m->data, m->size, 1, count, &data));
    *out = tw_allocate(ctx, (size_t)*count, sizeof **out);
    if (*out)
        for (int64_t i = 0; i < *count; i++) (*out)[i] = data[i];
    tw_free(ctx, data);
    return *out ? TW_OK : TW_ERROR_MEMORY;
}

static tw_status read_npy(tw_context *ctx, const char *path, const tw_file_mapping *m,
                          int32_t **out, int64_t *count) {
    tw_npy npy;
    TW_TRY(tw_npy_parse(ctx, m->data, m->size, path, &npy));
    if (npy.rank != 1 || npy.dtype == TW_F32 || npy.dtype == TW_F64)
        return tw_fail(ctx, TW_ERROR_UNSUPPORTED,
                       "%s: labels of %s with %d dimensions; expected int32, int64 or uint8 with 1",
                       path, tw_dtype_name(npy.dtype), npy.rank);
    *count = npy.count;
    *out = tw_allocate(ctx, (size_t)npy.count, sizeof **out);
    if (!*out) return TW_ERROR_MEMORY;
    for (int64_t i = 0; i < npy.count; i++) {
        const int64_t label = tw_npy_to_i64(&npy, i);
        /* What does not fit becomes -1, which the data set refuses. */
        (*out)[i] = label >= 0 && label < INT32_MAX ? (int32_t)label : -1;
    }
    return TW_OK;
}

tw_status tw_labels_read(tw_context *ctx, const char *path, int32_t **out, int64_t *count) {
    tw_file_mapping m;
    *out = NULL;
    TW_TRY(tw_file_map(ctx, path, &m));
    const bool npy = m.size >= 6 && !memcmp(m.data, "\x93NUMPY", 6);
    tw_status s = npy ? read_npy(ctx, path, &m, out, count) : read_idx(ctx, path, &m, out, count);
    tw_file_unmap(&m);
    return s;
}

tw_status tw_labels_find(tw_context *ctx, const char *images, char **out) {
    static const char from[] = "images", to[] = "labels";
    *out = NULL;
    const char *slash = strrchr(images, '/'), *base = slash ? slash + 1 : images;
    const char *word = strstr(base, from), *idx = strstr(base, "idx3");
    if (!word || !idx) return TW_OK;
    const size_t n = strlen(images);
    char *path = tw_allocate(ctx, n + 4, 1);
    if (!path) return TW_ERROR_MEMORY;
    memcpy(path, images, n);
    memcpy(path + (word - images), to, sizeof to - 1);
    path[idx - images + 3] = '1';
    if (!tw_file_exists(path)) {
        /* One of the two may be compressed and the other not. */
        if (n > 3 && !strcmp(path + n - 3, ".gz"))
            path[n - 3] = '\0';
        else
            memcpy(path + n, ".gz", 4);
    }
    if (tw_file_exists(path))
        *out = path;
    else
        tw_free(ctx, path);
    return TW_OK;
}
