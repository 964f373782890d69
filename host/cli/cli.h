/* What the files of the command share: exit statuses, error lines, the subcommands. */
#ifndef TW_CLI_CLI_H
#define TW_CLI_CLI_H

#include <tweedie/tweedie.h>

#include "cli/options.h"

enum cli_exit {
    CLI_OK = 0,
    CLI_FAILED = 1,
    CLI_USAGE = 2,
    CLI_NOT_FINITE = 3, /* a training run, or samples, whose numbers are beyond help */
    CLI_INTERRUPTED = 130
};

/* Both print one line, "tweedie: " and the text, on stderr and return the exit status. */
int cli_fail(const char *format, ...) TW_PRINTF(1, 2);
int cli_usage(const char *format, ...) TW_PRINTF(1, 2);
/* The line of a failed call; 130 if it was cancelled. */
int cli_fail_status(const tw_context *ctx, tw_status status);
/* The same, with what takes less where memory was short. */
int cli_fail_memory(const tw_context *ctx, tw_status status, const char *remedy);

/* The options of every command that calculates. */
#define CLI_DEVICE_ROWS                                                                            \
    {"device", CLI_CHOICE, "auto|cpu|cuda", 0, 0, "auto", "device to run on"},                     \
        {"provider",                                                                               \
         CLI_CHOICE,                                                                               \
         "auto|own|cudnn",                                                                         \
         0,                                                                                        \
         0,                                                                                        \
         "auto",                                                                                   \
         "whose kernels a GPU runs: this program's own, cuDNN's and cuBLASLt's where they "        \
         "can, or the ones that should be quicker"},                                               \
    {                                                                                              \
        "no-fusion", CLI_TEXT, "NAME[,NAME...]", 0, 0, NULL,                                       \
            "operations to do one by one: all, norm-silu, epilogue, norm-statistics, concat, "     \
            "upsample, qkv, gradients, time"                                                       \
    }

/* The choices of --precision are those of tw_precision, in order. */
#define CLI_TRAIN_PRECISIONS "fp32|tf32|bf16"
#define CLI_PRECISIONS CLI_TRAIN_PRECISIONS "|fp16"

/* A context from --device, --provider, --no-fusion and --threads. */
int cli_context(const cli_args *args, tw_context **out);

/* The commands, in the order of the help; null past the last. */
const cli_command *cli_command_at(int index);
const cli_command *cli_command_find(const char *name);

/* The line for a word that is no command, with the nearest one; 2. */
int cli_unknown_command(const char *word);

extern const cli_command cli_info_command;
extern const cli_command cli_train_command;
extern const cli_command cli_sample_command;
extern const cli_command cli_bench_command;
extern const cli_command cli_diffuse_command;
extern const cli_command cli_plot_command;
extern const cli_command cli_schedule_command;
extern const cli_command cli_completion_command;
extern const cli_command cli_help_command;

#endif
