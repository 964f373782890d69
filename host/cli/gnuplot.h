/* Plots, drawn by gnuplot as a child process: a script is built up in memory, then run. */
#ifndef TW_CLI_GNUPLOT_H
#define TW_CLI_GNUPLOT_H

#include <stdio.h>

#include "cli/cli.h"

/* Colours that people with any colour vision can tell apart (Okabe & Ito 2008), dark enough for
 * lines; the index is taken modulo their number. */
#define CLI_PLOT_COLOURS 7
const char *cli_plot_colour(int64_t index);

/* 1, 2 or 5 times a power of ten that divides `range` (positive) into at most `parts`. */
double cli_plot_step(double range, int parts);

typedef struct cli_plot {
    FILE *script; /* what gnuplot will read: commands and data */
    char *text;
    size_t size;
} cli_plot;

/* Whether a path ends in .png, .svg or .pdf, which are what a plot is written as. */
bool cli_plot_takes(const char *path);

/* Begins the script of a picture of `width` by `height` points (of 1/72 inch in .svg and .pdf; two
 * pixels each way in .png), in the format of the path's ending. Closed in either case. */
tw_status cli_plot_begin(tw_context *ctx, cli_plot *plot, const char *path, int width, int height);
void cli_plot_close(cli_plot *plot);

/* Adds a text in gnuplot's quotes. Whatever it holds, it is shown and not run; as it stands where
 * gnuplot's markup is off, as in keys. */
void cli_plot_quote(cli_plot *plot, const char *text);

/* Prints a field of a CSV file, in quotes where it needs them (RFC 4180). */
void cli_plot_csv_field(FILE *file, const char *text);

/* Runs the script and writes the picture, whole or not at all. TW_ERROR_CANCELLED after a signal
 * that cli_signals_catch() caught. */
tw_status cli_plot_write(tw_context *ctx, cli_plot *plot, const char *path);

#endif
