/* tweedie bench: what a row measures, and how it is said. */
#ifndef TW_CLI_BENCH_H
#define TW_CLI_BENCH_H

#include <jansson.h>

#include "cli/cli.h"
#include "cli/output.h"
#include "graph/times.h"

#define CLI_BENCH_SPLIT 3 /* calls of the second pass */
#define CLI_BENCH_METERED                                                                          \
    1.0                   /* seconds at least, for joules that are counted some ten times in one */
#define CLI_BENCH_LIST 32 /* numbers of one list */

typedef struct cli_bench_list {
    int count;
    int64_t values[CLI_BENCH_LIST];
} cli_bench_list;

typedef struct cli_bench_row {
    int64_t number; /* from 1 */
    int64_t batch;
    int64_t steps;   /* of the sampler; 0: training */
    double create;   /* seconds: the trainer or the sampler */
    double first;    /* of its first call */
    double *seconds; /* of each timed call; sorted once all are there */
    int64_t count, capacity;
    double total;     /* of them */
    double processor; /* seconds of processor time of all threads in the timed calls */
    double joules;    /* of the device in the timed calls; NAN: not counted, or too short */
    double busy;      /* part of the time in which the device was at work, at their end; NAN */
    double plain;     /* the median second of a call that is not replayed; NAN: none is replayed */
    double queued;    /* seconds of a call where none is waited for but the last; NAN: never so */
    bool complete;    /* nothing below is missing, and all repeats are there */
    bool finite;      /* the numbers that came out */
    double process;   /* bytes: the most that this process has held so far */
    double peak;      /* bytes of the device, the most that this row used; NAN: not known */
    double held;      /* the same with what the pool kept for later */
    /* Of one call. */
    double evaluations; /* of the network, of one sample each */
    tw_class_cost classes[TW_CLASS_COUNT];
    json_t *launches; /* by provider, those that have some */
    json_t *memory;   /* bytes by what they are for, on the device */
    /* The second pass: seconds of a call; `classes` has the first one's parts. */
    int64_t split_calls;      /* 0: there was none */
    double split, split_wall; /* by tw_times_clock, and by the clock on the wall */
} cli_bench_row;

struct cli_bench_work;

typedef struct cli_bench {
    const cli_args *args;
    const struct cli_bench_work *work;
    tw_context *ctx;
    tw_model *model;
    tw_model_info info;
    cli_shape shape;
    double model_seconds;
    bool guided;
    cli_bench_list batches, steps;
    int64_t rows; /* that there will be */
    json_t *done; /* those that there are */
    tw_dataset *dataset;
    /* What a row works with. */
    tw_trainer *trainer;
    tw_sampler *sampler;
    float *samples;
    int32_t *labels;
    double loss; /* of the last step */
} cli_bench;

/* A plan that a call runs so many times. */
typedef struct cli_bench_part {
    tw_plan *plan;
    int64_t runs;
    bool optimizer; /* whatever its operations are */
} cli_bench_part;
#define CLI_BENCH_PARTS 2

/* What is measured: training or sampling. */
typedef struct cli_bench_work {
    const char *name;     /* the word after `bench` */
    const char *call;     /* what is timed: "step", "run" */
    const char *included; /* in it */
    tw_status (*create)(cli_bench *b, const cli_bench_row *row);
    tw_status (*call_once)(cli_bench *b, cli_bench_row *row);
    /* The same without its results, so that a GPU need not be waited for. Null: there is no such.
     */
    tw_status (*queue_once)(cli_bench *b);
    /* After the first call; how many there are. */
    int (*parts)(const cli_bench *b, cli_bench_part *parts);
    tw_status (*memory)(const cli_bench *b, const cli_bench_row *row, json_t *bytes);
    bool (*finite)(const cli_bench *b, const cli_bench_row *row);
    void (*close)(cli_bench *b); /* what create made, be it in part */
} cli_bench_work;
extern const cli_bench_work cli_bench_training, cli_bench_sampling;

/* --- bench.c --- */

/* Whether an option belongs to what is measured. */
bool cli_bench_takes(const cli_bench_work *work, const char *option);

/* --- bench_model.c --- */

/* Whether a source of data is made on the spot. */
bool cli_bench_makes(const char *source);

/* The preset whose network is measured; null for --model. */
const char *cli_bench_preset(const cli_bench *b);
/* The network, with weights that are all at work. */
int cli_bench_open_model(cli_bench *b);
/* What training works on; after the rows are known. */
int cli_bench_open_data(cli_bench *b);
void cli_bench_close(cli_bench *b);

/* --- bench_measure.c --- */

/* Fills the row. 0, 130 after Ctrl-C, or 1 after the error line; what was measured stands. */
int cli_bench_measure(cli_bench *b, cli_bench_row *row);
/* Returns when the device has done what it was given. */
tw_status cli_bench_wait(const cli_bench *b);
void cli_bench_row_free(cli_bench_row *row);

/* --- bench_report.c --- */

void cli_bench_show_head(const cli_bench *b);
void cli_bench_show_row(const cli_bench *b, const cli_bench_row *row);
/* What --operations asks for, while the row is open. */
int cli_bench_show_operations(const cli_bench *b, const cli_bench_row *row);
/* Null without memory. */
json_t *cli_bench_row_json(const cli_bench *b, const cli_bench_row *row);
/* Writes --json, whole: a header, then the rows. */
int cli_bench_write(const cli_bench *b, bool complete);

/* --- bench_replay.c --- */

typedef struct cli_bench_replay {
    json_t *header, *row; /* null: nothing is replayed */
    char file[4096];
    int64_t number;
    char **words; /* point into `row` */
} cli_bench_replay;

/* Gives `args` the options of the row that --replay names; what the command line says goes before.
 */
int cli_bench_replay_open(cli_args *args, cli_bench_replay *replay);
/* Says how the new row compares. */
void cli_bench_replay_compare(const cli_bench_replay *replay, const cli_bench *b);
void cli_bench_replay_close(cli_bench_replay *replay);
/* The words after `bench` that measure this row again, and only it. */
json_t *cli_bench_arguments(const cli_bench *b, const cli_bench_row *row);

#endif
