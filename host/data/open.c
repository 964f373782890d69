/* Opening a data set: telling what a source is, and bringing pictures to the wanted size. */
#include <string.h>

#include "core/checked.h"
#include "core/options.h"
#include "data/dataset.h"
#include "data/fit.h"
#include "io/file.h"

#define EXPECTED                                                                                   \
    "scurve, shapes, a folder or a tar of PNG and JPEG files, CIFAR-10's .bin files, an IDX file " \
    "(plain or .gz) or an .npy"

typedef enum source_kind { POINTS, SHAPES, FOLDER, ARCHIVE, CIFAR, ARRAY } source_kind;

static bool ends_with(const char *text, const char *end) {
    const size_t n = strlen(text), m = strlen(end);
    return n >= m && strcmp(text + n - m, end) == 0;
}

static tw_status open_file(tw_context *ctx, const char *path, const tw_dataset_options *o,
                           source_kind *kind, tw_dataset **out) {
    tw_file_mapping mapping;
    TW_TRY(tw_file_map(ctx, path, &mapping));
    tw_status s;
    *kind = ARRAY;
    if (mapping.size >= 6 && !memcmp(mapping.data, "\x93NUMPY", 6)) {
        s = tw_dataset_open_npy(ctx, path, mapping.data, mapping.size, out);
    } else if (ends_with(path, ".bin")) {
        *kind = CIFAR;
        s = tw_dataset_open_cifar(ctx, path, out);
    } else if (tw_archive_is(mapping.data, mapping.size)) {
        *kind = ARCHIVE;
        s = tw_dataset_open_archive(ctx, path, mapping.data, mapping.size, o, out);
    } else if (tw_idx_is(mapping.data, mapping.size)) {
        s = tw_dataset_open_idx(ctx, path, mapping.data, mapping.size, out);
    } else {
        s = tw_fail(ctx, TW_ERROR_FORMAT, "%s: unknown kind of data; expected " EXPECTED, path);
    }
    tw_file_unmap(&mapping);
    return s;
}

static tw_status open_source(tw_context *ctx, const char *source, const tw_dataset_options *o,
                             source_kind *kind, tw_dataset **out) {
    if (!strcmp(source, "scurve")) {
        *kind = POINTS;
        return tw_dataset_open_scurve(ctx, o, out);
    }
    if (!strcmp(source, "shapes")) {
        *kind = SHAPES;
        return tw_dataset_open_shapes(ctx, o, out);
    }
    if (!tw_directory_exists(source)) return open_file(ctx, source, o, kind, out);
    if (tw_cifar_is_folder(ctx, source)) {
        *kind = CIFAR;
        return tw_dataset_open_cifar(ctx, source, out);
    }
    *kind = FOLDER;
    return tw_dataset_open_folder(ctx, source, o, out);
}

/* Reads the named label file, or the one found beside the images. */
static tw_status attach_labels(tw_dataset *d, const char *source, const char *labels_path) {
    char *found = NULL;
    int32_t *labels = NULL;
    int64_t n = 0;
    if (!labels_path) {
        TW_TRY(tw_labels_find(d->ctx, source, &found));
        labels_path = found;
    }
    if (!labels_path) return TW_OK;
    tw_status s = tw_labels_read(d->ctx, labels_path, &labels, &n);
    if (s == TW_OK) s = tw_dataset_set_labels(d, labels_path, labels, n);
    tw_free(d->ctx, found);
    return s;
}

static tw_status refuse_labels(tw_context *ctx, const char *source, source_kind kind) {
    static const char *const reasons[] = {"scurve has no labels",
                                          "the class of shapes is the shape",
                                          "the classes of a folder are its sub-folders",
                                          "the classes of an archive are the folders within it",
                                          "CIFAR-10's files hold their labels"};
    return tw_fail(ctx, TW_ERROR_ARGUMENT,
                   "data set: labels: %s: %s; a label file goes with IDX and .npy", source,
                   reasons[kind]);
}

/* Brings a set of bytes in memory to the wanted size. */
static tw_status fit_bytes(tw_dataset *d, const tw_fit *f) {
    const int64_t elements = f->height * f->width * f->channels;
    const size_t size = (size_t)d->elements;
    uint8_t *bytes = tw_allocate(d->ctx, (size_t)d->count, (size_t)elements);
    tw_status s = bytes ? TW_OK : TW_ERROR_MEMORY;
    for (int64_t i = 0; i < d->count && s == TW_OK; i++) {
        tw_image image = {d->shape[1], d->shape[0], (int)d->shape[2], tw_allocate(d->ctx, size, 1)};
        if (!image.pixels) s = TW_ERROR_MEMORY;
        if (s == TW_OK) {
            memcpy(image.pixels, d->bytes + (size_t)i * size, size);
            s = tw_fit_picture(d->ctx, f, i, &image, bytes + i * elements);
        }
        tw_image_free(d->ctx, &image);
    }
    if (s != TW_OK) {
        tw_free(d->ctx, bytes);
        return s;
    }
    tw_free(d->ctx, d->bytes);
    d->bytes = bytes;
    d->shape[0] = f->height;
    d->shape[1] = f->width;
    d->shape[2] = f->channels;
    d->elements = elements;
    return TW_OK;
}

/* A set with a size of its own becomes one of the size asked for. */
static tw_status fit(tw_dataset *d, const char *source, const tw_dataset_options *o) {
    if (!o->height && !o->channels) return TW_OK;
    if (d->rank != 3)
        return tw_fail(d->ctx, TW_ERROR_ARGUMENT,
                       "data set: image size: %s holds vectors, not pictures", source);
    const tw_fit f = {o->height ? o->height : d->shape[0], o->height ? o->width : d->shape[1],
                      o->channels ? o->channels : (int)d->shape[2], o->crop, o->seed};
    if (f.height == d->shape[0] && f.width == d->shape[1] && f.channels == d->shape[2])
        return TW_OK;
    if (!d->bytes || (d->shape[2] != 1 && d->shape[2] != 3))
        return tw_fail(d->ctx, TW_ERROR_ARGUMENT,
                       "data set: image size: %s holds %lldx%lldx%lld %s and cannot become "
                       "%lldx%lldx%d",
                       source, (long long)d->shape[0], (long long)d->shape[1],
                       (long long)d->shape[2], d->bytes ? "bytes" : "numbers", (long long)f.height,
                       (long long)f.width, f.channels);
    return fit_bytes(d, &f);
}

static tw_status check_options(tw_context *ctx, const tw_dataset_options *o) {
    int64_t bytes;
    if (o->limit < 0 || o->count < 0 || o->memory_limit < 0)
        return tw_fail(ctx, TW_ERROR_ARGUMENT,
                       "data set: limit, count and memory limit: expected at least 0");
    if (o->height < 0 || o->width < 0 || (o->height == 0) != (o->width == 0) ||
        !tw_mul_i64(o->height, o->width, &bytes) || bytes > TW_IMAGE_BYTES_MAX / 3)
        return tw_fail(ctx, TW_ERROR_ARGUMENT,
                       "data set: image size: expected a height and a width of at least 1 and "
                       "less than 2^30 / 3 pixels, got %lldx%lld",
                       (long long)o->height, (long long)o->width);
    if (o->channels != 0 && o->channels != 1 && o->channels != 3)
        return tw_fail(ctx, TW_ERROR_ARGUMENT, "data set: channels: expected 1 or 3, got %d",
                       o->channels);
    if ((int)o->crop < TW_CROP_CENTER || o->crop > TW_CROP_PAD)
        return tw_fail(ctx, TW_ERROR_ARGUMENT, "data set: crop: unknown kind %d", (int)o->crop);
    return TW_OK;
}

tw_status tw_dataset_open(tw_context *ctx, const char *source, const tw_dataset_options *options,
                          tw_dataset **out) {
    tw_dataset_options o = TW_DATASET_OPTIONS_INIT;
    if (!out) return tw_fail(ctx, TW_ERROR_ARGUMENT, "data set: no place for the result");
    *out = NULL;
    TW_TRY(tw_options_read(ctx, "data set", &o, sizeof o, options));
    if (!source || !*source) return tw_fail(ctx, TW_ERROR_ARGUMENT, "data set: no source is named");
    TW_TRY(check_options(ctx, &o));
    tw_dataset *d = NULL;
    source_kind kind = POINTS;
    tw_status s = open_source(ctx, source, &o, &kind, &d);
    if (s == TW_OK && kind == ARRAY) s = attach_labels(d, source, o.labels);
    if (s == TW_OK && kind != ARRAY && o.labels) s = refuse_labels(ctx, source, kind);
    if (s == TW_OK && o.limit && o.limit < d->count) d->count = o.limit;
    if (s == TW_OK && !o.keep_own) s = fit(d, source, &o);
    if (s != TW_OK) {
        tw_dataset_free(d);
        return s;
    }
    *out = d;
    return TW_OK;
}
