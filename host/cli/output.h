/* Where samples go: a picture, an animation, numbers or a folder of PNGs, by the path's ending. */
#ifndef TW_CLI_OUTPUT_H
#define TW_CLI_OUTPUT_H

#include <stdbool.h>

#include <tweedie/tweedie.h>

typedef enum cli_output_kind {
    CLI_OUTPUT_PNG = 1,
    CLI_OUTPUT_GIF = 2,
    CLI_OUTPUT_PLOT = 4, /* .svg and .pdf, drawn by gnuplot */
    CLI_OUTPUT_NPY = 8,
    CLI_OUTPUT_FOLDER = 16
} cli_output_kind;

/* The samples' shape: rank 3 (H,W,C) or 1 (D). */
typedef struct cli_shape {
    int rank;
    int64_t extents[3];
    int64_t count; /* numbers of one sample */
} cli_shape;

cli_shape cli_shape_of(const tw_model_info *info);
/* "images", "points", "samples"; `one` for one of them. */
const char *cli_shape_noun(const cli_shape *shape, bool one);

/* The kind of a path, which must be one of `allowed` (their sum), checked against what can be
 * drawn, and whether its folder can be written to. `option` begins the error line. 0, or an exit
 * status after the error line. */
int cli_output_check(const char *option, const char *path, unsigned allowed, const cli_shape *shape,
                     cli_output_kind *kind);

/* Whether a file of this name can be written: its folder is there and writable, and it is none. 0,
 * or an exit status after the error line. */
int cli_output_check_file(const char *option, const char *path);

/* Writes values[n, shape] as a PNG, an .npy or a folder. `columns` of a grid; 0: near a square. A
 * failed folder loses what this call wrote into it. */
tw_status cli_output_write(tw_context *ctx, const char *path, cli_output_kind kind,
                           const cli_shape *shape, int64_t n, const float *values, int64_t columns);

#endif
