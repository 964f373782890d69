/* What a run shows while it works: one live line on a terminal, and figures in words. */
#ifndef TW_CLI_PROGRESS_H
#define TW_CLI_PROGRESS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <tweedie/export.h>

/* Once, before anything is shown. `utf8`: whether the locale's character set is UTF-8. */
void cli_progress_init(bool utf8);

/* Whether stdout is a terminal, so that live lines are shown at all. */
bool cli_progress_live(void);

/* Shows a line in place of the live one, cut to the terminal's width. Nothing off a terminal. */
void cli_progress_show(const char *format, ...) TW_PRINTF(1, 2);
/* Whether the line would not be cut. */
bool cli_progress_fits(const char *text);
/* Ends the live line, if there is one, so that other text can follow; the line stays. */
void cli_progress_end_line(void);
/* Takes it away. */
void cli_progress_clear(void);

/* Between the parts of a line: " · ", or " | " where the locale lacks it. */
const char *cli_separator(void);

#define CLI_TEXT_SIZE 128
typedef struct cli_words {
    char text[CLI_TEXT_SIZE];
} cli_words;

cli_words cli_bar(double fraction);     /* 20 cells */
cli_words cli_grouped(int64_t value);   /* 18,200 */
cli_words cli_bytes(double bytes);      /* 1.2 GiB */
cli_words cli_magnitude(double value);  /* 35.7 M */
cli_words cli_duration(double seconds); /* 0.09 s, 1:05, 2:03:04 */
cli_words cli_rate(double per_second);  /* 711, 0.53 */

/* Seconds on a clock that only goes forward. */
double cli_seconds(void);
/* The most memory that this process has held so far, in bytes. */
double cli_peak_memory(void);

#endif
