#include "data/pictures.h"

#include <stdio.h>
#include <string.h>
#include <strings.h>

#include "core/checked.h"
#include "core/philox.h"
#include "core/threads.h"
#include "data/classes.h"

enum { LOGGED = 10 };
#define DEFAULT_MEMORY ((int64_t)1 << 30)

bool tw_picture_is_name(const char *name) {
    const char *dot = strrchr(name, '.');
    return dot &&
           (!strcasecmp(dot, ".png") || !strcasecmp(dot, ".jpg") || !strcasecmp(dot, ".jpeg"));
}

void tw_pictures_begin(tw_pictures *p, tw_context *ctx, const char *source, bool is_folder,
                       const tw_dataset_options *o) {
    *p = (tw_pictures){.ctx = ctx, .source = source, .is_folder = is_folder};
    p->threads = tw_context_threads(ctx) > 1 ? tw_context_threads(ctx) : 1;
    p->own_size = o->height == 0;
    p->fit = (tw_fit){o->height, o->width, o->channels ? o->channels : 3, o->crop, o->seed};
    p->memory_limit = o->memory_limit ? o->memory_limit : DEFAULT_MEMORY;
}

/* A context of one thread's own: the same memory, no log, a text of its own. */
static tw_context private_context(const tw_context *ctx) {
    tw_context c = {.allocator = ctx ? ctx->allocator : tw_libc_allocator};
    return c;
}

/* As much of the failure's text as to[TW_DATASET_ERROR_TEXT] holds. */
static void keep_text(char *to, const tw_context *ctx) {
    snprintf(to, TW_DATASET_ERROR_TEXT, "%.*s", TW_DATASET_ERROR_TEXT - 1, ctx->error);
}

static bool join(char *out, size_t size, const char *folder, const char *path) {
    const size_t n = strlen(folder);
    const int used =
        snprintf(out, size, "%s%s%s", folder, n && folder[n - 1] == '/' ? "" : "/", path);
    return used >= 0 && (size_t)used < size;
}

static tw_status read_in_folder(tw_context *ctx, const char *folder, const char *path,
                                int64_t at_least, tw_image *image) {
    char full[4096];
    memset(image, 0, sizeof *image);
    if (!join(full, sizeof full, folder, path))
        return tw_fail(ctx, TW_ERROR_IO, "%s: the path is too long", path);
    return tw_image_read(ctx, full, at_least, image);
}

static tw_status decode(const tw_pictures *p, tw_context *ctx, const tw_picture *picture,
                        tw_image *image) {
    const int64_t at_least = p->own_size ? 0 : tw_fit_at_least(&p->fit);
    if (!picture->bytes) return read_in_folder(ctx, p->source, picture->path, at_least, image);
    char name[1024];
    snprintf(name, sizeof name, "%s: %s", p->source, picture->path);
    return tw_image_decode_reduced(ctx, name, picture->bytes, picture->size, at_least, image);
}

static void decode_one(const tw_pictures *p, tw_picture *picture) {
    tw_context ctx = private_context(p->ctx);
    tw_image image;
    tw_status s = decode(p, &ctx, picture, &image);
    if (s == TW_OK) {
        picture->height = image.height;
        picture->width = image.width;
        picture->pixels =
            tw_allocate(&ctx, (size_t)(p->fit.height * p->fit.width), (size_t)p->fit.channels);
        s = picture->pixels ? tw_fit_picture(&ctx, &p->fit, tw_name_hash(picture->path), &image,
                                             picture->pixels)
                            : TW_ERROR_MEMORY;
        tw_image_free(&ctx, &image);
    }
    picture->status = s;
    if (s != TW_OK) keep_text(picture->error, &ctx);
}

/* Takes the size of the first picture that can be decoded, where none was asked for. */
static tw_status find_size(tw_pictures *p, const tw_picture *batch, int n) {
    for (int i = 0; i < n && p->fit.height == 0; i++) {
        tw_context ctx = private_context(p->ctx);
        tw_image image;
        const tw_status s = decode(p, &ctx, &batch[i], &image);
        /* The picture is not to blame, and the next one may have another size. */
        if (s == TW_ERROR_MEMORY) return tw_fail(p->ctx, s, "%s", ctx.error);
        if (s != TW_OK) continue;
        p->fit.height = image.height;
        p->fit.width = image.width;
        tw_image_free(&ctx, &image);
    }
    return TW_OK;
}

/* Room for one more path and, where pixels are held, for its pixels. */
static tw_status grow(tw_pictures *p) {
    const int64_t elements = p->fit.height * p->fit.width * p->fit.channels;
    if (p->count == p->capacity) {
        const int64_t capacity = p->count ? 2 * p->count : 256;
        char **paths = tw_allocate(p->ctx, (size_t)capacity, sizeof *paths);
        if (!paths) return TW_ERROR_MEMORY;
        if (p->count) memcpy(paths, p->paths, (size_t)p->count * sizeof *paths);
        tw_free(p->ctx, p->paths);
        p->paths = paths;
        p->capacity = capacity;
    }
    const int64_t most = p->memory_limit / elements;
    if (p->anew || p->count < p->byte_samples) return TW_OK;
    if (p->count + 1 > most || p->expected > most) {
        if (!p->is_folder)
            return tw_fail(p->ctx, TW_ERROR_UNSUPPORTED,
                           "%s: the pictures take more than %lld bytes decoded; unpack the archive "
                           "and name the folder",
                           p->source, (long long)p->memory_limit);
        tw_free(p->ctx, p->bytes);
        p->bytes = NULL;
        p->anew = true;
        return TW_OK;
    }
    int64_t room = p->expected > p->count ? p->expected : p->count ? 2 * p->count : 256;
    if (room > most) room = most;
    uint8_t *bytes = tw_allocate(p->ctx, (size_t)room, (size_t)elements);
    if (!bytes) return TW_ERROR_MEMORY;
    if (p->count) memcpy(bytes, p->bytes, (size_t)p->count * (size_t)elements);
    tw_free(p->ctx, p->bytes);
    p->bytes = bytes;
    p->byte_samples = room;
    return TW_OK;
}

static void leave_out(tw_pictures *p, const tw_picture *picture) {
    if (p->skipped == 0) snprintf(p->first_error, sizeof p->first_error, "%s", picture->error);
    if (p->skipped < LOGGED) tw_log(p->ctx, TW_LOG_WARNING, "%s; left out", picture->error);
    p->skipped++;
}

static tw_status take(tw_pictures *p, tw_picture *picture) {
    p->seen++;
    /* No memory is nothing that the picture is to blame for. */
    if (picture->status == TW_ERROR_MEMORY)
        return tw_fail(p->ctx, TW_ERROR_MEMORY, "%s", picture->error);
    if (picture->status != TW_OK) {
        leave_out(p, picture);
        return TW_OK;
    }
    if (p->own_size && (picture->height != p->fit.height || picture->width != p->fit.width))
        return tw_fail(p->ctx, TW_ERROR_ARGUMENT,
                       "%s: %s: %lldx%lld pixels where others have %lldx%lld; expected an image "
                       "size that all are brought to",
                       p->source, picture->path, (long long)picture->width,
                       (long long)picture->height, (long long)p->fit.width,
                       (long long)p->fit.height);
    TW_TRY(grow(p));
    const size_t elements = (size_t)(p->fit.height * p->fit.width * p->fit.channels);
    if (!p->anew) memcpy(p->bytes + (size_t)p->count * elements, picture->pixels, elements);
    p->paths[p->count++] = picture->path;
    picture->path = NULL;
    return TW_OK;
}

tw_status tw_pictures_add(tw_pictures *p, tw_picture *batch, int n) {
    tw_status s = find_size(p, batch, n);
    if (s == TW_OK) s = tw_threads_try(p->ctx, p->threads);
#pragma omp parallel for schedule(dynamic) num_threads(p->threads) if (s == TW_OK)
    for (int i = 0; i < (s == TW_OK ? n : 0); i++) decode_one(p, &batch[i]);
    for (int i = 0; i < n; i++) {
        if (s == TW_OK) s = take(p, &batch[i]);
        tw_free(p->ctx, batch[i].path);
        tw_free(p->ctx, batch[i].bytes);
        tw_free(p->ctx, batch[i].pixels);
    }
    memset(batch, 0, (size_t)n * sizeof *batch);
    return s;
}

/* --- A set that is decoded anew whenever a sample is asked for --- */

typedef struct album {
    char *folder;
    tw_fit fit;
    int64_t count;
    char **paths;
} album;

static tw_status read_album(const tw_dataset *d, int64_t index, float *out, int32_t *label,
                            char *error) {
    const album *a = d->source;
    tw_context ctx = private_context(d->ctx);
    tw_image image;
    uint8_t *pixels = tw_allocate(&ctx, (size_t)d->elements, 1);
    tw_status s =
        pixels ? read_in_folder(&ctx, a->folder, a->paths[index], tw_fit_at_least(&a->fit), &image)
               : TW_ERROR_MEMORY;
    if (s == TW_OK) {
        s = tw_fit_picture(&ctx, &a->fit, tw_name_hash(a->paths[index]), &image, pixels);
        tw_image_free(&ctx, &image);
    }
    if (s == TW_OK)
        tw_dataset_to_floats(pixels, d->elements, out);
    else
        keep_text(error, &ctx);
    tw_free(&ctx, pixels);
    *label = d->labels ? d->labels[index] : -1;
    return s;
}

static void close_album(tw_dataset *d) {
    album *a = d->source;
    for (int64_t i = 0; i < a->count; i++) tw_free(d->ctx, a->paths[i]);
    tw_free(d->ctx, a->paths);
    tw_free(d->ctx, a->folder);
    tw_free(d->ctx, a);
}

static tw_status attach_album(tw_pictures *p, tw_dataset *d) {
    album *a = tw_allocate(p->ctx, 1, sizeof *a);
    if (!a) return TW_ERROR_MEMORY;
    d->source = a;
    d->close = close_album;
    d->read = read_album;
    a->fit = p->fit;
    a->folder = tw_strdup(p->ctx, p->source);
    if (!a->folder) return TW_ERROR_MEMORY;
    a->paths = p->paths;
    a->count = p->count;
    p->paths = NULL;
    p->count = 0;
    return TW_OK;
}

/* --- */

static tw_status set_classes(tw_pictures *p, tw_dataset *d) {
    tw_classes c;
    TW_TRY(tw_classes_find(p->ctx, p->paths, p->count, &c));
    if (c.mixed)
        tw_log(p->ctx, TW_LOG_WARNING,
               "%s: some pictures lie beside the folders of others: no classes are told by them",
               p->source);
    tw_status s = TW_OK;
    if (c.count) {
        int32_t *labels = c.labels;
        c.labels = NULL;
        s = tw_dataset_set_labels(d, p->source, labels, p->count);
        if (s == TW_OK) s = tw_dataset_set_class_names(d, (const char *const *)c.names, c.count);
    }
    tw_classes_free(p->ctx, &c);
    return s;
}

static tw_status none_left(const tw_pictures *p) {
    if (p->seen)
        return tw_fail(p->ctx, TW_ERROR_FORMAT,
                       "%s: none of the %lld picture%s can be read; the first: %s", p->source,
                       (long long)p->seen, p->seen == 1 ? "" : "s", p->first_error);
    return tw_fail(p->ctx, TW_ERROR_FORMAT,
                   "%s: no pictures: expected .png, .jpg or .jpeg files, found %lld of other kinds",
                   p->source, (long long)p->ignored);
}

tw_status tw_pictures_finish(tw_pictures *p, tw_dataset **out) {
    *out = NULL;
    if (p->count == 0) return none_left(p);
    if (p->skipped > LOGGED)
        tw_log(p->ctx, TW_LOG_WARNING, "%s: %lld more pictures cannot be read; left out", p->source,
               (long long)(p->skipped - LOGGED));
    const int64_t shape[3] = {p->fit.height, p->fit.width, p->fit.channels};
    tw_dataset *d;
    TW_TRY(tw_dataset_new(p->ctx, p->source, p->count, 3, shape, &d));
    d->skipped = p->skipped;
    d->ignored = p->ignored;
    tw_status s = set_classes(p, d);
    if (s == TW_OK && p->anew) s = attach_album(p, d);
    if (s != TW_OK) {
        tw_dataset_free(d);
        return s;
    }
    d->bytes = p->bytes;
    p->bytes = NULL;
    *out = d;
    return TW_OK;
}

void tw_pictures_free(tw_pictures *p) {
    for (int64_t i = 0; i < p->count; i++) tw_free(p->ctx, p->paths[i]);
    tw_free(p->ctx, p->paths);
    tw_free(p->ctx, p->bytes);
    memset(p, 0, sizeof *p);
}
