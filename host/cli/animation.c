/* Frames as an animated GIF. */
#include <math.h>

#include "cli/frames.h"
#include "cli/scatter.h"
#include "cli/signals.h"
#include "core/checked.h"
#include "core/context.h"
#include "io/gif.h"

#define SCATTER_SIZE 400
/* Small images are shown larger, until a side has about so many pixels. */
#define WANTED_SIZE 320

tw_status cli_frames_enlarge(tw_context *ctx, tw_image *image, int64_t times) {
    const int64_t width = image->width * times, height = image->height * times;
    const int channels = image->channels;
    uint8_t *pixels = tw_allocate(ctx, (size_t)(width * height), (size_t)channels);
    if (!pixels) return TW_ERROR_MEMORY;
    for (int64_t y = 0; y < height; y++)
        for (int64_t x = 0; x < width; x++)
            for (int k = 0; k < channels; k++)
                pixels[(y * width + x) * channels + k] =
                    image->pixels[(y / times * image->width + x / times) * channels + k];
    tw_image_free(ctx, image);
    *image = (tw_image){width, height, channels, pixels};
    return TW_OK;
}

static tw_status draw(tw_context *ctx, const cli_frames *f, int64_t frame, double extent,
                      int64_t columns, tw_image *out) {
    const float *values = f->values + frame * f->n * f->shape.count;
    const int64_t *e = f->shape.extents;
    if (f->shape.rank == 1) return cli_scatter(ctx, values, 1, f->n, SCATTER_SIZE, extent, out);
    TW_TRY(tw_image_grid(ctx, values, f->n, e[0], e[1], (int)e[2], columns, f->n > 1 ? 2 : 0, out));
    const int64_t larger = out->width > out->height ? out->width : out->height;
    const int64_t times = (WANTED_SIZE + larger / 2) / larger;
    if (times < 2) return TW_OK;
    const tw_status s = cli_frames_enlarge(ctx, out, times);
    if (s != TW_OK) tw_image_free(ctx, out);
    return s;
}

static tw_status append_all(tw_context *ctx, const char *path, const cli_frames *f, int64_t fps,
                            double pause, int64_t columns, tw_gif_writer **writer) {
    const double extent = f->shape.rank == 1 ? cli_scatter_extent(f->values, f->count * f->n) : 0.0;
    const int delay = (int)lround(100.0 / (double)fps), held = delay + (int)lround(100.0 * pause);
    for (int64_t i = 0; i < f->count; i++) {
        tw_image image = {0};
        if (cli_signals_stop()) return TW_ERROR_CANCELLED;
        tw_status s = draw(ctx, f, i, extent, columns, &image);
        if (s == TW_OK && i == 0)
            s = tw_gif_writer_open(ctx, path, image.width, image.height, image.channels, writer);
        if (s == TW_OK) s = tw_gif_writer_append(*writer, &image, i < f->count - 1 ? delay : held);
        tw_image_free(ctx, &image);
        if (s != TW_OK) return s;
    }
    return TW_OK;
}

tw_status cli_frames_animate(tw_context *ctx, const char *path, const cli_frames *frames,
                             int64_t fps, double pause, int64_t columns) {
    tw_gif_writer *writer = NULL;
    const tw_status s = append_all(ctx, path, frames, fps, pause, columns, &writer);
    if (s == TW_OK) return tw_gif_writer_commit(writer);
    tw_gif_writer_abort(writer);
    return s;
}
