/* States of a diffusion, one after the other, as an animation or as a labelled strip. */
#ifndef TW_CLI_FRAMES_H
#define TW_CLI_FRAMES_H

#include "cli/output.h"
#include "io/image.h"

typedef struct cli_frames {
    cli_shape shape;     /* of a sample: an image of 1 or 3 channels, or a point of the plane */
    int64_t count, n;    /* frames, samples */
    const float *values; /* [count, n, shape] */
    const char *axis;    /* what `at` counts: "t", "step" */
    const int64_t *at;   /* [count]; -1: the data */
} cli_frames;

/* An animation that repeats for ever: `fps` frames a second, and the last one for `pause` seconds
 * more. Images stand in a grid of `columns` (0: near a square). TW_ERROR_CANCELLED after a signal.
 */
tw_status cli_frames_animate(tw_context *ctx, const char *path, const cli_frames *frames,
                             int64_t fps, double pause, int64_t columns);

/* A picture by gnuplot, in the format of the path's ending. Points: a panel a frame, with axes.
 * Images: a column a frame, a row a sample. */
tw_status cli_frames_plot(tw_context *ctx, const char *path, const cli_frames *frames);

/* Makes every pixel `times` by `times` of them. */
tw_status cli_frames_enlarge(tw_context *ctx, tw_image *image, int64_t times);

#endif
