/* Options of a subcommand: one table says name, type, range, default and help, and serves the
 * parser, the error lines and the help text. Long options only, never abbreviated. */
#ifndef TW_CLI_OPTIONS_H
#define TW_CLI_OPTIONS_H

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

typedef enum cli_type {
    CLI_FLAG,   /* takes no value */
    CLI_TEXT,   /* any text but the empty one */
    CLI_INT,    /* a whole number from low to high */
    CLI_REAL,   /* a number from low to high */
    CLI_CHOICE, /* one of the words in `value`, which "|" separates */
    CLI_LIST,   /* any texts but the empty one, one each time that it is given */
    CLI_HEADING /* no option: `name` stands over the rows that follow, up to the next heading */
} cli_type;

typedef struct cli_option {
    const char *name; /* without the dashes */
    cli_type type;
    const char *value;    /* what the help calls the value, or the choices */
    double low, high;     /* CLI_INT, CLI_REAL; below 2^53. high < low: checked by its user */
    const char *fallback; /* the default as a text, or null */
    const char *help;
} cli_option;

#define CLI_GROUP(title)                                                                           \
    { title, CLI_HEADING, NULL, 0, 0, NULL, NULL }

struct cli_args;

typedef struct cli_example {
    const char *what;    /* it does, in a few words */
    const char *command; /* to copy */
} cli_example;

typedef struct cli_command {
    const char *name, *summary, *usage;
    const cli_option *options;   /* ends with a null name */
    const char *notes;           /* paragraphs, a line each, under the options; may be null */
    const cli_example *examples; /* end with a null command; one at least */
    const char *operand; /* a word that may be given without an option: its name, or the words to
                            choose from, which "|" separates. Null: none may */
    int (*run)(const struct cli_args *args);
} cli_command;

#define CLI_MAX_OPTIONS 96 /* headings too */
#define CLI_MAX_LISTED 64  /* values of all lists of a command line */

/* Where a value came from. A later one is never replaced by an earlier one. */
typedef enum cli_source {
    CLI_FROM_NOWHERE,
    CLI_FROM_TABLE,
    CLI_FROM_PRESET, /* or a configuration file */
    CLI_FROM_RUN,    /* the run that is resumed */
    CLI_FROM_USER
} cli_source;

typedef struct cli_args {
    const cli_command *command;
    const char *values[CLI_MAX_OPTIONS]; /* not owned; null: none. A flag that is set is "true" */
    cli_source sources[CLI_MAX_OPTIONS];
    struct {
        int option;
        const char *text;
    } listed[CLI_MAX_LISTED]; /* of lists, in the order given; `values` has the last */
    int listed_count;
    int word_count; /* the command line as it was given, after the subcommand */
    char **words;
    const char *operand; /* null: none */
    bool help;           /* --help was given; nothing else is then checked */
} cli_args;

/* Parses argv[0..argc-1], the words after the subcommand. On failure prints the error line and
 * returns 2, else 0. The texts of argv are kept. */
int cli_parse(const cli_command *command, int argc, char **argv, cli_args *out);

/* Gives an option a value from `source` unless it has one from the same or a later source.
 * `where` begins the error line. The text must outlive `args`. 0, or 2 after the error line. */
int cli_set(cli_args *args, const char *name, const char *text, cli_source source,
            const char *where);

/* Values by name; the name must be in the table. Numbers were checked before. */
bool cli_given(const cli_args *args, const char *name); /* has any value */
cli_source cli_source_of(const cli_args *args, const char *name);
const char *cli_text(const cli_args *args, const char *name); /* null: none */
bool cli_flag(const cli_args *args, const char *name);
int64_t cli_int(const cli_args *args, const char *name);
double cli_real(const cli_args *args, const char *name);
int cli_choice(const cli_args *args, const char *name); /* index among the choices */
/* Value `index` of a list, in the order given; null past the last. */
const char *cli_listed(const cli_args *args, const char *name, int index);

/* Checks the whole-number option against a range that only its user knows. 0, or 2 after the error
 * line. */
int cli_check_int(const cli_args *args, const char *name, int64_t low, int64_t high);

/* Strict readings of a whole text: no space, no rest, finite. */
bool cli_parse_int(const char *text, int64_t *out);
bool cli_parse_real(const char *text, double *out);

/* Number of edits (insert, delete, replace, swap neighbours) from a to b; capped at 9. */
int cli_distance(const char *a, const char *b);
/* Whether `name` is nearer to what was typed than the best so far, which begins as CLI_NEAR. */
#define CLI_NEAR 3
bool cli_nearer(const char *typed, const char *name, int *best);

#endif
