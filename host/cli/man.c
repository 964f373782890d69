/* The man page tweedie(1): the tables of commands and options between a few words of prose. */
#include <ctype.h>
#include <stdio.h>
#include <string.h>

#include "cli/cli.h"
#include "cli/help.h"

/* Text of a man page: what begins a request or an escape is made harmless. `*start`: at the
 * beginning of a line. */
static void print_text(const char *text) {
    bool start = true;
    for (; *text; text++) {
        if (start && (*text == '.' || *text == '\'')) fputs("\\&", stdout);
        start = *text == '\n';
        if (*text == '\\')
            fputs("\\e", stdout);
        else if (*text == '-')
            fputs("\\-", stdout);
        else if (*text == '`')
            fputs("\\(ga", stdout);
        else if (*text == '\'')
            fputs("\\(aq", stdout);
        else if (*text == '~')
            fputs("\\(ti", stdout);
        else if (*text == '^')
            fputs("\\(ha", stdout);
        else
            putchar(*text);
    }
}

/* A range of numbers that is worth saying. */
static void print_range(const cli_option *o) {
    if ((o->type != CLI_INT && o->type != CLI_REAL) || o->high < o->low) return;
    const bool open = o->high >= (o->type == CLI_INT ? 1e9 : 1e300);
    const char *digits = o->type == CLI_INT ? "%s%.0f" : "%s%.9g";
    printf(digits, "\nFrom ", o->low);
    if (open)
        fputs(" up", stdout);
    else
        printf(digits, " to ", o->high);
    putchar('.');
}

static void print_option(const cli_option *o) {
    fputs(".TP\n\\fB\\-\\-", stdout);
    print_text(o->name);
    fputs("\\fR", stdout);
    if (o->value) {
        putchar(' ');
        /* Words to be given as they stand are bold, names of values slanted. */
        printf("\\f%c", o->type == CLI_CHOICE ? 'B' : 'I');
        print_text(o->value);
        fputs("\\fR", stdout);
    }
    putchar('\n');
    print_text(o->help);
    putchar('.');
    if (o->type == CLI_LIST) fputs("\nMay be given several times.", stdout);
    print_range(o);
    if (o->fallback) {
        fputs("\nDefault: ", stdout);
        print_text(o->fallback);
        putchar('.');
    }
    putchar('\n');
}

static void print_usage(const cli_command *c) {
    for (const char *line = c->usage; line;) {
        char one[512];
        const size_t length = strcspn(line, "\n");
        snprintf(one, sizeof one, "%.*s", (int)length, line);
        print_text(one);
        putchar('\n');
        line = line[length] ? line + length + 1 : NULL;
    }
}

static void print_command(const cli_command *c) {
    printf(".SS tweedie %s\n", c->name);
    putchar(toupper((unsigned char)c->summary[0]));
    print_text(c->summary + 1);
    fputs(".\n.PP\n.nf\n", stdout);
    print_usage(c);
    fputs(".fi\n", stdout);
    bool first = true;
    for (const cli_option *o = c->options; o->name; o++) {
        if (o->type != CLI_HEADING) {
            print_option(o);
            continue;
        }
        /* A single heading says nothing. */
        if (!first || strcmp(o->name, "Options") != 0) printf(".PP\n.I %s\n", o->name);
        first = false;
    }
    for (const char *at = c->notes; at;) {
        char one[1024];
        const size_t length = strcspn(at, "\n");
        snprintf(one, sizeof one, "%.*s", (int)length, at);
        fputs(".PP\n", stdout);
        print_text(one);
        putchar('\n');
        at = at[length] ? at + length + 1 : NULL;
    }
}

static const char description[] =
    "trains diffusion models on images and points of the plane, and samples from them with DDIM "
    "and DDPM.\nModels are directories as Hugging Face diffusers writes and reads them.\n"
    "An option's value follows it as the next word or after an equals sign; options are written "
    "out in full, and in any order.\n";

static const char ending[] =
    ".SH EXIT STATUS\n"
    ".TP\n.B 0\nall went well.\n"
    ".TP\n.B 1\nsomething failed: a file, memory, a device.\n"
    ".TP\n.B 2\nthe command line is wrong.\n"
    ".TP\n.B 3\na training run stopped because its loss or gradient was not finite too often; its "
    "state is saved. Or samples hold numbers that are not finite; they are written.\n"
    ".TP\n.B 130\ninterrupted by SIGINT, SIGTERM or SIGHUP, or because nobody reads standard "
    "output any more; the state of a training run is saved.\n"
    ".PP\nAn error is one line on standard error: what failed, which file or option, and what "
    "would be right.\n"
    ".SH ENVIRONMENT\n"
    ".TP\n.B GOMP_SPINCOUNT\nhow long a waiting thread of GNU OpenMP spins.\n"
    ".B tweedie\nsets it to 10000 unless it or\n.B OMP_WAIT_POLICY\n"
    "is set: with longer spins, another program on the same processors slows everything down.\n"
    ".TP\n.BR OMP_PROC_BIND \", \" OMP_PLACES\nwhere OpenMP's threads run. How many there are "
    "comes "
    "from\n.B \\-\\-threads\nand the processors that the process may use, not from\n"
    ".BR OMP_NUM_THREADS .\n"
    ".TP\n.BR LC_ALL \", \" LC_CTYPE \", \" LANG\na character set of UTF\\-8 gives finer progress "
    "bars.\n"
    ".SH FILES\n"
    "A run of\n.B tweedie train\\fR, in the folder that\n.B \\-\\-out\nnames:\n"
    ".TP\n.IR model_index.json \", \" unet/ \", \" scheduler/\nthe model, as diffusers reads it.\n"
    ".TP\n.I run.json\nwhat the run was trained from, by which version, where; to repeat it, give "
    "it to\n.BR \\-\\-config .\n"
    ".TP\n.I metrics.jsonl\na line of JSON for each step and each validation;\n"
    ".B tweedie plot\ndraws them.\n"
    ".TP\n.I events.out.tfevents.*\nthe same for TensorBoard.\n"
    ".TP\n.I previews/\npictures of samples; the last is\n.I latest.png\ntoo.\n"
    ".TP\n.I state/\nwhat\n.B \\-\\-resume\ncontinues from.\n"
    ".TP\n.IR checkpoints/step\\-* \", \" best/\nthe saves and the model that\n.B "
    "\\-\\-keep\\-last\nand\n.B \\-\\-keep\\-best\nkeep.\n"
    ".PP\nInstalled with the command, in\n.IR share/tweedie/models/digits ,\nis a model of "
    "handwritten digits to try\n.B tweedie sample\nwith.\n"
    ".PP\nFiles are written whole or not at all: a name never holds half a file.\n";

void cli_print_man(void) {
    printf(".\\\" Made by `tweedie help --man`.\n"
           ".TH TWEEDIE 1 \"\" \"tweedie %s\" \"User Commands\"\n"
           ".SH NAME\ntweedie \\- train diffusion models and sample from them\n"
           ".SH SYNOPSIS\n.nf\n",
           tw_version());
    for (int i = 0; cli_command_at(i); i++) print_usage(cli_command_at(i));
    printf("tweedie \\-\\-version\n.fi\n.SH DESCRIPTION\n.B tweedie\n%s.SH COMMANDS\n",
           description);
    for (int i = 0; cli_command_at(i); i++) print_command(cli_command_at(i));
    fputs(ending, stdout);
    const char *between = ".SH EXAMPLES\n";
    for (int i = 0; cli_command_at(i); i++)
        for (const cli_example *e = cli_command_at(i)->examples; e->command; e++) {
            printf("%s%c", between, toupper((unsigned char)e->what[0]));
            between = ".PP\n";
            print_text(e->what + 1);
            fputs(":\n.PP\n.RS 4\n.nf\n", stdout);
            print_text(e->command);
            fputs("\n.fi\n.RE\n", stdout);
        }
}
