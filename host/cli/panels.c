/* Frames as a labelled strip, drawn by gnuplot. */
#include <inttypes.h>
#include <math.h>
#include <stdio.h>

#include "cli/frames.h"
#include "cli/gnuplot.h"
#include "cli/scatter.h"
#include "core/checked.h"
#include "core/context.h"
#include "io/image.h"

/* Panels of points: how many stand in a row, and their size in points of 1/72 inch. */
#define ROW_MAX 8
#define PANEL 118
#define RIGHT 8
#define TOP 24
#define BOTTOM 38
#define BETWEEN 8

/* Points a side; twice as many pixels, which cairo takes. */
#define SIDE_MAX 6000

/* Around a strip of images, and the least size of an image. */
#define STRIP_EDGE 10
#define STRIP_LABELS 36
#define IMAGE_SIZE 48

static void print_place(FILE *f, const cli_frames *frames, int64_t i) {
    if (frames->at[i] < 0)
        fprintf(f, "data");
    else
        fprintf(f, "%" PRId64, frames->at[i]);
}

static tw_status check_size(tw_context *ctx, const char *path, const cli_frames *frames,
                            double width, double height) {
    if (width <= SIDE_MAX && height <= SIDE_MAX) return TW_OK;
    return tw_fail(ctx, TW_ERROR_ARGUMENT,
                   "%s: a strip of %lld frames and %lld samples is too large; expected fewer, or a "
                   "path ending in .gif",
                   path, (long long)frames->count, (long long)frames->n);
}

/* --- Points --- */

static void write_points(FILE *f, const cli_frames *frames, int64_t i) {
    fprintf(f, "$frame%" PRId64 " << EOD\n", i);
    for (int64_t k = 0; k < frames->n; k++) {
        const float *point = frames->values + 2 * (i * frames->n + k);
        if (isfinite(point[0]) && isfinite(point[1]))
            fprintf(f, "%.5g %.5g\n", (double)point[0], (double)point[1]);
    }
    fprintf(f, "NaN NaN\nEOD\n"); /* gnuplot takes no empty block */
}

static void write_panel(FILE *f, const cli_frames *frames, int64_t i, int64_t columns) {
    fprintf(f, "set title '");
    /* "t = 5", but "step 5" */
    if (frames->at[i] >= 0) fprintf(f, "%s%s", frames->axis, frames->axis[1] ? " " : " = ");
    print_place(f, frames, i);
    fprintf(f, "'\n");
    /* Numbers and names stand at the edge of the whole. */
    fprintf(f, i % columns == 0 ? "set format y '%%g'\nset ylabel 'y' offset 1.5,0 rotate by 0\n"
                                : "set format y ''\nunset ylabel\n");
    fprintf(f, i + columns >= frames->count ? "set format x '%%g'\nset xlabel 'x' offset 0,0.5\n"
                                            : "set format x ''\nunset xlabel\n");
    fprintf(f,
            "plot $frame%" PRId64 " using 1:2 with points pointtype 7 pointsize %s "
            "linecolor '#%s%s' notitle\n",
            i, frames->n > 1000 ? "0.16" : "0.3", frames->n > 1000 ? "70" : "30",
            cli_plot_colour(0) + 1);
}

static tw_status plot_points(tw_context *ctx, const char *path, const cli_frames *frames) {
    const int64_t rows = (frames->count - 1) / ROW_MAX + 1;
    const int64_t columns = (frames->count - 1) / rows + 1;
    const double extent = cli_scatter_extent(frames->values, frames->count * frames->n);
    const double tick = cli_plot_step(2.0 * extent, 4);
    char label[32];
    const int left = 22 + 6 * snprintf(label, sizeof label, "%g", -tick);
    const double width = left + (double)columns * (PANEL + BETWEEN) - BETWEEN + RIGHT;
    const double height = (double)rows * (PANEL + TOP) + BOTTOM;
    TW_TRY(check_size(ctx, path, frames, width, height));
    cli_plot plot;
    tw_status s = cli_plot_begin(ctx, &plot, path, (int)width, (int)height);
    if (s == TW_OK) {
        FILE *f = plot.script;
        for (int64_t i = 0; i < frames->count; i++) write_points(f, frames, i);
        fprintf(f,
                "set multiplot layout %" PRId64 ",%" PRId64
                " margins %.6f,%.6f,%.6f,%.6f spacing %.6f,%.6f\n",
                rows, columns, left / width, 1.0 - RIGHT / width, BOTTOM / height,
                1.0 - TOP / height, BETWEEN / width, TOP / height);
        /* Panels are squares already; a ratio would shift them. */
        fprintf(f, "set xrange [%.6g:%.6g]\nset yrange [%.6g:%.6g]\n", -extent, extent, -extent,
                extent);
        fprintf(f, "set xtics %g\nset ytics %g\nset title offset 0,-0.6\n", tick, tick);
        for (int64_t i = 0; i < frames->count; i++) write_panel(f, frames, i, columns);
        fprintf(f, "unset multiplot\n");
        s = cli_plot_write(ctx, &plot, path);
    }
    cli_plot_close(&plot);
    return s;
}

/* --- Images --- */

/* The strip's pixels as gnuplot takes them from its input: three bytes each, from the top. */
static void write_pixels(FILE *f, const tw_image *image) {
    const int64_t pixels = image->width * image->height;
    for (int64_t i = 0; i < pixels; i++)
        for (int k = 0; k < 3; k++) fputc(image->pixels[image->channels == 3 ? 3 * i + k : i], f);
}

static tw_status write_strip(tw_context *ctx, cli_plot *plot, const char *path,
                             const cli_frames *frames, tw_image *image) {
    const int64_t *e = frames->shape.extents;
    const int64_t larger = e[0] > e[1] ? e[0] : e[1];
    const int64_t times = larger < IMAGE_SIZE ? (IMAGE_SIZE - 1) / larger + 1 : 1;
    const double width = (double)(times * image->width), height = (double)(times * image->height);
    const double all_width = width + 2 * STRIP_EDGE;
    const double all_height = height + STRIP_EDGE + STRIP_LABELS;
    TW_TRY(check_size(ctx, path, frames, all_width, all_height));
    /* A pixel of the picture for each, so that nothing is smoothed. */
    const int64_t scale = 2 * times;
    TW_TRY(cli_frames_enlarge(ctx, image, scale));
    TW_TRY(cli_plot_begin(ctx, plot, path, (int)all_width, (int)all_height));
    FILE *f = plot->script;
    fprintf(f,
            "set lmargin at screen %.9f\nset rmargin at screen %.9f\n"
            "set tmargin at screen %.9f\nset bmargin at screen %.9f\n",
            STRIP_EDGE / all_width, 1.0 - STRIP_EDGE / all_width, 1.0 - STRIP_EDGE / all_height,
            STRIP_LABELS / all_height);
    fprintf(f, "unset border\nunset grid\nunset ytics\nset xlabel '%s' offset 0,0.9\n",
            frames->axis);
    fprintf(f, "set xrange [-0.5:%.1f]\nset yrange [-0.5:%.1f]\nset xtics scale 0 offset 0,0.4 (",
            (double)image->width - 0.5, (double)image->height - 0.5);
    for (int64_t i = 0; i < frames->count; i++) {
        fprintf(f, "%s'", i ? ", " : "");
        print_place(f, frames, i);
        const double middle = (double)scale * (1.0 + ((double)i + 0.5) * ((double)e[1] + 2.0));
        fprintf(f, "' %.1f", middle - 0.5);
    }
    fprintf(f,
            ")\nplot '-' binary array=(%" PRId64 ",%" PRId64
            ") flipy format='%%uchar%%uchar%%uchar' using 1:2:3 with rgbimage notitle\n",
            image->width, image->height);
    write_pixels(f, image);
    return cli_plot_write(ctx, plot, path);
}

/* A row a sample; white between the images. */
static tw_status make_strip(tw_context *ctx, const cli_frames *frames, tw_image *image) {
    const int64_t *e = frames->shape.extents;
    const int64_t size = frames->shape.count;
    size_t count;
    if (!tw_mul_size((size_t)(frames->count * frames->n), (size_t)size, &count))
        return tw_fail(ctx, TW_ERROR_MEMORY, "too many numbers");
    float *rows = tw_allocate(ctx, count, sizeof *rows);
    if (!rows) return TW_ERROR_MEMORY;
    for (int64_t i = 0; i < frames->n; i++)
        for (int64_t k = 0; k < frames->count; k++)
            for (int64_t j = 0; j < size; j++)
                rows[(i * frames->count + k) * size + j] =
                    frames->values[(k * frames->n + i) * size + j];
    const tw_status s = tw_image_grid(ctx, rows, frames->count * frames->n, e[0], e[1], (int)e[2],
                                      frames->count, 2, image);
    tw_free(ctx, rows);
    if (s != TW_OK) return s;
    for (int64_t y = 0; y < image->height; y++)
        for (int64_t x = 0; x < image->width; x++) {
            if (y % (e[0] + 2) >= 2 && x % (e[1] + 2) >= 2) continue;
            for (int k = 0; k < image->channels; k++)
                image->pixels[(y * image->width + x) * image->channels + k] = 255;
        }
    return TW_OK;
}

static tw_status plot_images(tw_context *ctx, const char *path, const cli_frames *frames) {
    tw_image image = {0};
    cli_plot plot = {0};
    tw_status s = make_strip(ctx, frames, &image);
    if (s == TW_OK) s = write_strip(ctx, &plot, path, frames, &image);
    cli_plot_close(&plot);
    tw_image_free(ctx, &image);
    return s;
}

tw_status cli_frames_plot(tw_context *ctx, const char *path, const cli_frames *frames) {
    return frames->shape.rank == 1 ? plot_points(ctx, path, frames)
                                   : plot_images(ctx, path, frames);
}
