#include "cli/trajectory.h"

#include <string.h>

#include "cli/scatter.h"
#include "core/checked.h"
#include "core/context.h"
#include "io/npy.h"
#include "io/png.h"

/* A strip's size. */
#define STRIP_ROWS 6
#define STRIP_IMAGES 11
#define STRIP_POINTS 3000
#define STRIP_PANELS 7
#define PANEL_SIZE 192
/* An animation's size. */
#define ANIMATED_FRAMES 100
#define ANIMATED_IMAGES 64
#define ANIMATED_PIXELS ((int64_t)1 << 18)

/* As many samples as are looked at. */
static int64_t most_samples(cli_output_kind kind, const cli_shape *shape) {
    if (shape->rank != 3) return STRIP_POINTS;
    if (kind != CLI_OUTPUT_GIF) return STRIP_ROWS;
    const int64_t most = ANIMATED_PIXELS / (shape->extents[0] * shape->extents[1]);
    return most < 1 ? 1 : most > ANIMATED_IMAGES ? ANIMATED_IMAGES : most;
}

tw_status cli_trajectory_open(tw_context *ctx, cli_trajectory *t, const char *path,
                              cli_output_kind kind, const cli_shape *shape, int64_t n,
                              int64_t steps) {
    *t = (cli_trajectory){.path = path, .kind = kind, .shape = *shape, .steps = steps};
    if (!path) return TW_OK;
    t->samples = n;
    t->frames = steps + 1;
    if (kind != CLI_OUTPUT_NPY) {
        const int64_t samples = most_samples(kind, shape);
        const int64_t frames = kind == CLI_OUTPUT_GIF ? ANIMATED_FRAMES
                               : shape->rank == 3     ? STRIP_IMAGES
                                                      : STRIP_PANELS;
        if (t->samples > samples) t->samples = samples;
        if (t->frames > frames) t->frames = frames;
    }
    size_t count;
    if (!tw_mul_size((size_t)t->frames, (size_t)t->samples, &count) ||
        !tw_mul_size(count, (size_t)shape->count, &count))
        return tw_fail(ctx, TW_ERROR_MEMORY, "--trajectory: too many numbers");
    t->values = tw_allocate(ctx, count, sizeof *t->values);
    return t->values ? TW_OK : TW_ERROR_MEMORY;
}

void cli_trajectory_close(tw_context *ctx, cli_trajectory *t) {
    tw_free(ctx, t->values);
    t->values = NULL;
}

tw_status cli_trajectory_start(tw_context *ctx, cli_trajectory *t, uint64_t seed, uint64_t first,
                               const float *noise) {
    (void)ctx;
    for (int64_t i = 0; t->values && i < t->samples; i++) {
        float *to = t->values + i * t->shape.count;
        if (noise) {
            memcpy(to, noise + i * t->shape.count, (size_t)t->shape.count * sizeof *to);
            continue;
        }
        const tw_status s = tw_noise_initial(seed, first + (uint64_t)i, t->shape.count, to);
        if (s != TW_OK) return s;
    }
    return TW_OK;
}

/* The frame that a step's result is, or 0. Frames are spread evenly; the last step is the last. */
static int64_t frame_of(const cli_trajectory *t, int64_t step) {
    const int64_t last = t->frames - 1;
    const int64_t frame = (step + 1) * last / t->steps;
    return frame > step * last / t->steps ? frame : 0;
}

void cli_trajectory_step(cli_trajectory *t, const tw_step_info *info) {
    if (!t->values || !info->x || info->first >= t->samples) return;
    const int64_t frame = frame_of(t, info->step);
    if (!frame) return;
    int64_t n = t->samples - info->first;
    if (n > info->count) n = info->count;
    memcpy(t->values + (frame * t->samples + info->first) * t->shape.count, info->x,
           (size_t)(n * t->shape.count) * sizeof *t->values);
}

/* One row a sample: the frames from noise to data. */
static tw_status write_strip(tw_context *ctx, const cli_trajectory *t) {
    const int64_t size = t->shape.count;
    float *rows = tw_allocate(ctx, (size_t)(t->frames * t->samples * size), sizeof *rows);
    if (!rows) return TW_ERROR_MEMORY;
    for (int64_t i = 0; i < t->samples; i++)
        for (int64_t f = 0; f < t->frames; f++)
            memcpy(rows + (i * t->frames + f) * size, t->values + (f * t->samples + i) * size,
                   (size_t)size * sizeof *rows);
    tw_image image = {0};
    tw_status s =
        tw_image_grid(ctx, rows, t->frames * t->samples, t->shape.extents[0], t->shape.extents[1],
                      (int)t->shape.extents[2], t->frames, 2, &image);
    if (s == TW_OK) s = tw_png_write(ctx, t->path, &image);
    tw_image_free(ctx, &image);
    tw_free(ctx, rows);
    return s;
}

static tw_status write_panels(tw_context *ctx, const cli_trajectory *t) {
    tw_image image = {0};
    const double extent = cli_scatter_extent(t->values, t->frames * t->samples);
    tw_status s = cli_scatter(ctx, t->values, t->frames, t->samples, PANEL_SIZE, extent, &image);
    if (s == TW_OK) s = tw_png_write(ctx, t->path, &image);
    tw_image_free(ctx, &image);
    return s;
}

/* With gnuplot or as an animation. */
static tw_status write_frames(tw_context *ctx, const cli_trajectory *t) {
    int64_t *at = tw_allocate(ctx, (size_t)t->frames, sizeof *at);
    if (!at) return TW_ERROR_MEMORY;
    /* The first step whose result is frame i, as frame_of has it. */
    for (int64_t i = 0; i < t->frames; i++)
        at[i] = (i * t->steps + t->frames - 2) / (t->frames - 1);
    const cli_frames frames = {t->shape, t->frames, t->samples, t->values, "step", at};
    const tw_status s = t->kind == CLI_OUTPUT_GIF ? cli_frames_animate(ctx, t->path, &frames,
                                                                       t->fps, t->pause, t->columns)
                                                  : cli_frames_plot(ctx, t->path, &frames);
    tw_free(ctx, at);
    return s;
}

tw_status cli_trajectory_write(tw_context *ctx, const cli_trajectory *t) {
    if (!t->path) return TW_OK;
    if (t->kind == CLI_OUTPUT_PNG)
        return t->shape.rank == 3 ? write_strip(ctx, t) : write_panels(ctx, t);
    if (t->kind != CLI_OUTPUT_NPY) return write_frames(ctx, t);
    const int64_t extents[5] = {t->frames, t->samples, t->shape.extents[0], t->shape.extents[1],
                                t->shape.extents[2]};
    return tw_npy_write(ctx, t->path, TW_F32, t->shape.rank + 2, extents, t->values);
}
