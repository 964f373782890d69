#include "io/gif.h"

#include <gif_lib.h>
#include <string.h>

#include "core/checked.h"
#include "io/file.h"

enum { EXTENT_MAX = 65535, COLOURS = 256, SLOTS = 1024 };

/* giflib's quantiser counts pixels in an unsigned int. */
#define PIXELS_MAX ((int64_t)1 << 28)

struct tw_gif_writer {
    tw_context *ctx;
    char *path;
    tw_file_writer *file;
    GifFileType *gif;
    tw_status status; /* of the file's first failure */
    int64_t width, height;
    int channels;
    int64_t frames;
    GifByteType *indices; /* [height, width] */
    GifByteType *planes;  /* [3, height, width], of RGB */
};

/* The colours of a frame. */
typedef struct palette {
    int count;
    GifColorType colours[COLOURS];
} palette;

static int on_write(GifFileType *gif, const GifByteType *bytes, int size) {
    tw_gif_writer *w = gif->UserData;
    if (w->status == TW_OK) w->status = tw_file_writer_write(w->file, bytes, (size_t)size);
    return w->status == TW_OK ? size : 0;
}

/* The failure of a call of giflib, which may stand for one of the file. */
static tw_status gif_failure(tw_gif_writer *w, int error) {
    if (w->status == TW_OK) {
        const char *text = GifErrorString(error);
        w->status =
            tw_fail(w->ctx, error == E_GIF_ERR_NOT_ENOUGH_MEM ? TW_ERROR_MEMORY : TW_ERROR_INTERNAL,
                    "%s: GIF: %s", w->path, text ? text : "unknown error");
    }
    return w->status;
}

static tw_status check(tw_gif_writer *w, int result) {
    return result == GIF_OK && w->status == TW_OK ? TW_OK : gif_failure(w, w->gif->Error);
}

/* The extension by which readers repeat an animation; a count of 0 is for ever. */
static tw_status put_loop(tw_gif_writer *w) {
    static const char name[] = "NETSCAPE2.0";
    static const GifByteType count[3] = {1, 0, 0};
    TW_TRY(check(w, EGifPutExtensionLeader(w->gif, APPLICATION_EXT_FUNC_CODE)));
    TW_TRY(check(w, EGifPutExtensionBlock(w->gif, sizeof name - 1, name)));
    TW_TRY(check(w, EGifPutExtensionBlock(w->gif, sizeof count, count)));
    return check(w, EGifPutExtensionTrailer(w->gif));
}

/* Grey levels are the colours of the whole file; a frame of RGB brings its own. */
static tw_status put_head(tw_gif_writer *w) {
    ColorMapObject *map = NULL;
    if (w->channels == 1) {
        map = GifMakeMapObject(COLOURS, NULL);
        if (!map) return gif_failure(w, E_GIF_ERR_NOT_ENOUGH_MEM);
        for (int i = 0; i < COLOURS; i++) {
            const GifByteType level = (GifByteType)i;
            map->Colors[i] = (GifColorType){level, level, level};
        }
    }
    EGifSetGifVersion(w->gif, true);
    const tw_status s =
        check(w, EGifPutScreenDesc(w->gif, (int)w->width, (int)w->height, 8, 0, map));
    GifFreeMapObject(map);
    return s == TW_OK ? put_loop(w) : s;
}

tw_status tw_gif_writer_open(tw_context *ctx, const char *path, int64_t width, int64_t height,
                             int channels, tw_gif_writer **out) {
    *out = NULL;
    if (width < 1 || height < 1 || width > EXTENT_MAX || height > EXTENT_MAX ||
        width * height > PIXELS_MAX || (channels != 1 && channels != 3))
        return tw_fail(ctx, TW_ERROR_ARGUMENT,
                       "%s: frames of %lldx%lld with %d channels, expected 1 to %d pixels a side "
                       "and 1 or 3 channels",
                       path, (long long)width, (long long)height, channels, EXTENT_MAX);
    tw_gif_writer *w = tw_allocate(ctx, 1, sizeof *w);
    if (!w) return TW_ERROR_MEMORY;
    const size_t pixels = (size_t)(width * height);
    *w = (tw_gif_writer){.ctx = ctx, .width = width, .height = height, .channels = channels};
    w->path = tw_strdup(ctx, path);
    w->indices = tw_allocate(ctx, pixels, 1);
    if (channels == 3) w->planes = tw_allocate(ctx, pixels, 3);
    tw_status s = w->path && w->indices && (w->planes || channels == 1)
                      ? tw_file_writer_open(ctx, path, &w->file)
                      : TW_ERROR_MEMORY;
    if (s == TW_OK) {
        int error = 0;
        w->gif = EGifOpen(w, on_write, &error);
        s = w->gif ? put_head(w) : gif_failure(w, error);
    }
    if (s != TW_OK) {
        tw_gif_writer_abort(w);
        return s;
    }
    *out = w;
    return TW_OK;
}

/* Gives every pixel its colour's index if the frame has at most 256 colours, by a hash table with
 * four times the room. */
static bool index_exactly(tw_gif_writer *w, const uint8_t *rgb, palette *p) {
    int16_t slots[SLOTS];
    memset(slots, -1, sizeof slots);
    p->count = 0;
    const int64_t pixels = w->width * w->height;
    for (int64_t i = 0; i < pixels; i++, rgb += 3) {
        const uint32_t key = (uint32_t)rgb[0] << 16 | (uint32_t)rgb[1] << 8 | rgb[2];
        uint32_t slot = (key * 2654435769u) >> 22;
        const GifColorType *c = NULL;
        for (; slots[slot] >= 0; slot = (slot + 1) % SLOTS) {
            c = &p->colours[slots[slot]];
            if (c->Red == rgb[0] && c->Green == rgb[1] && c->Blue == rgb[2]) break;
        }
        if (slots[slot] < 0) {
            if (p->count == COLOURS) return false;
            p->colours[p->count] = (GifColorType){rgb[0], rgb[1], rgb[2]};
            slots[slot] = (int16_t)p->count++;
        }
        w->indices[i] = (GifByteType)slots[slot];
    }
    return true;
}

/* giflib cuts its colours to five bits. Each is replaced by the mean of the pixels it stands for,
 * so that white stays white. */
static void restore_colours(const tw_gif_writer *w, const uint8_t *rgb, palette *p) {
    int64_t sums[COLOURS][3] = {{0}}, counts[COLOURS] = {0};
    const int64_t pixels = w->width * w->height;
    for (int64_t i = 0; i < pixels; i++) {
        const GifByteType index = w->indices[i];
        for (int k = 0; k < 3; k++) sums[index][k] += rgb[3 * i + k];
        counts[index]++;
    }
    for (int i = 0; i < p->count; i++) {
        const int64_t n = counts[i];
        if (!n) continue;
        p->colours[i].Red = (GifByteType)((sums[i][0] + n / 2) / n);
        p->colours[i].Green = (GifByteType)((sums[i][1] + n / 2) / n);
        p->colours[i].Blue = (GifByteType)((sums[i][2] + n / 2) / n);
    }
}

static tw_status index_nearly(tw_gif_writer *w, const uint8_t *rgb, palette *p) {
    const int64_t pixels = w->width * w->height;
    GifByteType *red = w->planes, *green = red + pixels, *blue = green + pixels;
    for (int64_t i = 0; i < pixels; i++) {
        red[i] = rgb[3 * i];
        green[i] = rgb[3 * i + 1];
        blue[i] = rgb[3 * i + 2];
    }
    p->count = COLOURS;
    memset(p->colours, 0, sizeof p->colours);
    if (GifQuantizeBuffer((unsigned)w->width, (unsigned)w->height, &p->count, red, green, blue,
                          w->indices, p->colours) != GIF_OK)
        return gif_failure(w, E_GIF_ERR_NOT_ENOUGH_MEM);
    restore_colours(w, rgb, p);
    return TW_OK;
}

static tw_status make_map(tw_gif_writer *w, const uint8_t *rgb, ColorMapObject **map) {
    palette p;
    if (!index_exactly(w, rgb, &p)) TW_TRY(index_nearly(w, rgb, &p));
    /* The format wants a power of two; what is added is not used. */
    const int size = 1 << GifBitSize(p.count);
    *map = GifMakeMapObject(size, NULL);
    if (!*map) return gif_failure(w, E_GIF_ERR_NOT_ENOUGH_MEM);
    memcpy((*map)->Colors, p.colours, (size_t)p.count * sizeof *p.colours);
    return TW_OK;
}

static tw_status put_frame(tw_gif_writer *w, const ColorMapObject *map, int delay) {
    const GraphicsControlBlock control = {DISPOSE_DO_NOT, false, delay, NO_TRANSPARENT_COLOR};
    GifByteType packed[4];
    const size_t size = EGifGCBToExtension(&control, packed);
    TW_TRY(check(w, EGifPutExtension(w->gif, GRAPHICS_EXT_FUNC_CODE, (int)size, packed)));
    TW_TRY(check(w, EGifPutImageDesc(w->gif, 0, 0, (int)w->width, (int)w->height, false, map)));
    for (int64_t y = 0; y < w->height; y++)
        TW_TRY(check(w, EGifPutLine(w->gif, w->indices + y * w->width, (int)w->width)));
    return TW_OK;
}

tw_status tw_gif_writer_append(tw_gif_writer *w, const tw_image *frame, int delay) {
    if (w->status != TW_OK) return w->status;
    if (frame->width != w->width || frame->height != w->height || frame->channels != w->channels)
        return tw_fail(w->ctx, TW_ERROR_ARGUMENT,
                       "%s: a frame of %lldx%lldx%d, expected %lldx%lldx%d as the first", w->path,
                       (long long)frame->width, (long long)frame->height, frame->channels,
                       (long long)w->width, (long long)w->height, w->channels);
    if (delay < 0 || delay > EXTENT_MAX)
        return tw_fail(w->ctx, TW_ERROR_ARGUMENT, "%s: a delay of %d, expected 0 to %d", w->path,
                       delay, EXTENT_MAX);
    ColorMapObject *map = NULL;
    if (w->channels == 1)
        memcpy(w->indices, frame->pixels, (size_t)(w->width * w->height));
    else
        TW_TRY(make_map(w, frame->pixels, &map));
    const tw_status s = put_frame(w, map, delay);
    GifFreeMapObject(map);
    if (s == TW_OK) w->frames++;
    return s;
}

static void free_writer(tw_gif_writer *w) {
    tw_context *ctx = w->ctx;
    tw_free(ctx, w->planes);
    tw_free(ctx, w->indices);
    tw_free(ctx, w->path);
    tw_free(ctx, w);
}

tw_status tw_gif_writer_commit(tw_gif_writer *w) {
    tw_status s = w->status;
    if (s == TW_OK && !w->frames)
        s = tw_fail(w->ctx, TW_ERROR_ARGUMENT, "%s: a GIF without a frame", w->path);
    if (s != TW_OK) {
        tw_gif_writer_abort(w);
        return s;
    }
    int error = 0;
    const int closed = EGifCloseFile(w->gif, &error); /* writes the last byte; frees */
    w->gif = NULL;
    if (closed != GIF_OK || w->status != TW_OK) {
        s = gif_failure(w, error);
        tw_gif_writer_abort(w);
        return s;
    }
    s = tw_file_writer_commit(w->file);
    free_writer(w);
    return s;
}

void tw_gif_writer_abort(tw_gif_writer *w) {
    if (!w) return;
    if (w->status == TW_OK) w->status = TW_ERROR_CANCELLED; /* nothing more reaches the file */
    if (w->gif) EGifCloseFile(w->gif, NULL);
    tw_file_writer_abort(w->file);
    free_writer(w);
}
