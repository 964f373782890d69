/* Where samples go: a PNG, an .npy or a folder of PNGs, by the path's ending. */
#ifndef TW_CLI_OUTPUT_H
#define TW_CLI_OUTPUT_H

#include <stdbool.h>

#include <tweedie/tweedie.h>

typedef enum cli_output_kind { CLI_OUTPUT_PNG, CLI_OUTPUT_NPY, CLI_OUTPUT_FOLDER } cli_output_kind;

/* The samples' shape: rank 3 (H,W,C) or 1 (D). */
typedef struct cli_shape {
    int rank;
    int64_t extents[3];
    int64_t count; /* numbers of one sample */
} cli_shape;

cli_shape cli_shape_of(const tw_model_info *info);
/* "images", "points", "samples"; `one` for one of them. */
const char *cli_shape_noun(const cli_shape *shape, bool one);

/* The kind of a path, checked against what can be drawn, and whether its folder can be written to.
 * `option` is "--out" or "--trajectory"; only the former may be a folder. 0, or an exit status
 * after the error line. */
int cli_output_check(const char *option, const char *path, const cli_shape *shape,
                     cli_output_kind *kind);

/* Whether a file of this name can be written: its folder is there and writable, and it is none. 0,
 * or an exit status after the error line. */
int cli_output_check_file(const char *option, const char *path);

/* Writes values[n, shape]. `columns` of a grid; 0: near a square. A failed folder loses what this
 * call wrote into it. */
tw_status cli_output_write(tw_context *ctx, const char *path, cli_output_kind kind,
                           const cli_shape *shape, int64_t n, const float *values, int64_t columns);

#endif
