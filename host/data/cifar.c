/* CIFAR-10's binary files: records of a label and 32x32 pixels, plane after plane (Krizhevsky
 * 2009). */
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "data/dataset.h"
#include "io/file.h"

enum { SIDE = 32, PLANE = SIDE * SIDE, RECORD = 1 + 3 * PLANE, CLASSES = 10, BATCHES = 5 };

static const char *const class_names[CLASSES] = {
    "airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"};

static bool batch_path(char *out, size_t size, const char *folder, int batch) {
    const int used = snprintf(out, size, "%s/data_batch_%d.bin", folder, batch);
    return used >= 0 && (size_t)used < size;
}

bool tw_cifar_is_folder(tw_context *ctx, const char *path) {
    char name[4096];
    (void)ctx;
    for (int i = 1; i <= BATCHES; i++)
        if (batch_path(name, sizeof name, path, i) && tw_file_exists(name)) return true;
    return false;
}

static tw_status check_size(tw_context *ctx, const char *path, size_t size) {
    if (size % RECORD == 0) return TW_OK;
    if (size % (RECORD + 1) == 0)
        return tw_fail(ctx, TW_ERROR_UNSUPPORTED,
                       "%s: records of %d bytes, as CIFAR-100 has; expected CIFAR-10's %d", path,
                       RECORD + 1, RECORD);
    return tw_fail(ctx, TW_ERROR_FORMAT,
                   "%s: %zu bytes, expected a multiple of CIFAR-10's records of %d", path, size,
                   RECORD);
}

/* The files that a source stands for: itself, or the batches in a folder. */
static tw_status map_files(tw_context *ctx, const char *path, tw_file_mapping *maps, int64_t *n) {
    char name[4096];
    *n = 0;
    const bool folder = tw_directory_exists(path);
    for (int i = 0; i < (folder ? BATCHES : 1); i++) {
        const char *file = path;
        if (folder) {
            if (!batch_path(name, sizeof name, path, i + 1) || !tw_file_exists(name)) continue;
            file = name;
        }
        TW_TRY(tw_file_map(ctx, file, &maps[i]));
        TW_TRY(check_size(ctx, file, maps[i].size));
        *n += (int64_t)(maps[i].size / RECORD);
    }
    return TW_OK;
}

static tw_status read_records(tw_dataset *d, const char *path, const tw_file_mapping *maps,
                              int32_t *labels) {
    uint8_t *to = d->bytes;
    for (int f = 0; f < BATCHES; f++)
        for (size_t i = 0; i < maps[f].size / RECORD; i++, labels++, to += 3 * PLANE) {
            const uint8_t *record = maps[f].data + i * RECORD;
            if (record[0] >= CLASSES)
                return tw_fail(d->ctx, TW_ERROR_FORMAT,
                               "%s: record %zu of file %d: label %d, expected 0 to 9", path, i,
                               f + 1, record[0]);
            *labels = record[0];
            for (int k = 0; k < 3 * PLANE; k++) to[k] = record[1 + k % 3 * PLANE + k / 3];
        }
    return TW_OK;
}

static tw_status make_set(tw_context *ctx, const char *path, const tw_file_mapping *maps, int64_t n,
                          tw_dataset **out) {
    const int64_t shape[3] = {SIDE, SIDE, 3};
    TW_TRY(tw_dataset_new(ctx, path, n, 3, shape, out));
    tw_dataset *d = *out;
    int32_t *labels = tw_allocate(ctx, (size_t)n, sizeof *labels);
    d->bytes = labels ? tw_allocate(ctx, (size_t)n, 3 * PLANE) : NULL;
    tw_status s = d->bytes ? read_records(d, path, maps, labels) : TW_ERROR_MEMORY;
    if (s != TW_OK) {
        tw_free(ctx, labels);
        return s;
    }
    TW_TRY(tw_dataset_set_labels(d, path, labels, n));
    d->classes = CLASSES; /* also where the records have fewer */
    return tw_dataset_set_class_names(d, class_names, CLASSES);
}

tw_status tw_dataset_open_cifar(tw_context *ctx, const char *path, tw_dataset **out) {
    tw_file_mapping maps[BATCHES] = {{NULL, 0}};
    int64_t n;
    *out = NULL;
    tw_status s = map_files(ctx, path, maps, &n);
    if (s == TW_OK) s = make_set(ctx, path, maps, n, out);
    for (int i = 0; i < BATCHES; i++) tw_file_unmap(&maps[i]);
    if (s != TW_OK) {
        tw_dataset_free(*out);
        *out = NULL;
    }
    return s;
}
