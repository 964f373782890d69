/* What may stand for an option's value, read from what the table calls it: "scurve|FILE.npy" is the
 * word scurve or a file that ends in .npy. */
#ifndef TW_CLI_VALUE_H
#define TW_CLI_VALUE_H

#include <stdbool.h>

#include "cli/options.h"

typedef enum cli_part_kind {
    CLI_PART_WORD,   /* to be given as it stands */
    CLI_PART_FILE,   /* FILE, PATH or SOURCE, perhaps with an ending */
    CLI_PART_FOLDER, /* DIR */
    CLI_PART_NAME    /* stands for something that cannot be listed */
} cli_part_kind;

typedef struct cli_part {
    cli_part_kind kind;
    const char *text; /* not terminated */
    int length;
    const char *ending; /* of a file, such as ".npy", not terminated */
    int ending_length;  /* 0: any */
} cli_part;

/* The next of the parts that "|" separates; `*at` begins as the value's name and ends null. False
 * past the last, and for an option without a value. */
bool cli_next_part(cli_type type, const char **at, cli_part *out);

/* Whether there are words among the parts, and which part is a file or a folder. */
typedef struct cli_value {
    bool words;
    cli_part rest; /* CLI_PART_NAME: none is */
} cli_value;
cli_value cli_value_of(const cli_option *o);

#endif
