/* tweedie help: what there is, and how it is called. */
#include "cli/help.h"

#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "cli/cli.h"

#define PLAIN_WIDTH 80 /* where there is no terminal */
#define LEAST_WIDTH 40
#define MOST_WIDTH 100 /* longer lines read badly */
#define OPTION_WIDTH 24

static int width_of(FILE *file) {
    struct winsize size;
    if (ioctl(fileno(file), TIOCGWINSZ, &size) != 0 || size.ws_col == 0) return PLAIN_WIDTH;
    if (size.ws_col < LEAST_WIDTH) return LEAST_WIDTH;
    return size.ws_col < MOST_WIDTH ? size.ws_col : MOST_WIDTH;
}

/* A line that is being filled. */
typedef struct filler {
    FILE *file;
    int width, indent; /* of the lines that follow the first */
    int column;        /* of the next character */
    bool fresh;        /* nothing but the indent stands on the line */
} filler;

static void break_line(filler *f) {
    fprintf(f->file, "\n%*s", f->indent, "");
    f->column = f->indent;
    f->fresh = true;
}

/* Adds a word that may be broken behind its bars. */
static void add_word(filler *f, const char *word, int length) {
    const int space = f->fresh ? 0 : 1;
    if (!f->fresh && f->column + space + length > f->width) {
        break_line(f);
    } else if (space) {
        fputc(' ', f->file);
        f->column++;
    }
    while (f->column + length > f->width) {
        int part = 0;
        for (int i = 0; i < length && f->column + i + 1 <= f->width; i++)
            if (word[i] == '|') part = i + 1;
        if (part == 0) break; /* too long for any line */
        fprintf(f->file, "%.*s", part, word);
        word += part;
        length -= part;
        break_line(f);
    }
    fprintf(f->file, "%.*s", length, word);
    f->column += length;
    f->fresh = false;
}

static void add_text(filler *f, const char *text) {
    while (*text) {
        const size_t length = strcspn(text, " \n");
        if (length) add_word(f, text, (int)length);
        text += length;
        if (*text) text++;
    }
}

static void print_paragraph(FILE *file, const char *text, int indent, int width) {
    filler f = {file, width, indent, indent, true};
    fprintf(file, "%*s", indent, "");
    add_text(&f, text);
    fputc('\n', file);
}

/* The lines of `text` as paragraphs, the first after `begin`. */
static void print_usage(FILE *file, const char *text, int width) {
    static const char begin[] = "Usage: ";
    const int indent = (int)sizeof begin - 1;
    for (const char *line = text; line;) {
        const char *newline = strchr(line, '\n');
        filler f = {file, width, indent + 4, indent, true};
        char one[512];
        snprintf(one, sizeof one, "%.*s", newline ? (int)(newline - line) : (int)strlen(line),
                 line);
        fprintf(file, "%*s", indent, line == text ? begin : "");
        add_text(&f, one);
        fputc('\n', file);
        line = newline ? newline + 1 : NULL;
    }
}

static void print_option(FILE *file, const char *left, const char *help, const char *fallback,
                         int width) {
    const int indent = 2 + OPTION_WIDTH + 1;
    fputs("  ", file);
    filler f = {file, width, 6, 2, true};
    add_text(&f, left);
    f.indent = indent;
    if (f.column > 2 + OPTION_WIDTH) {
        break_line(&f);
    } else {
        fprintf(file, "%*s", indent - f.column, "");
        f.column = indent;
        f.fresh = true;
    }
    add_text(&f, help);
    if (fallback) {
        char text[128];
        snprintf(text, sizeof text, "[%s]", fallback);
        add_text(&f, text);
    }
    fputc('\n', file);
}

void cli_print_help(FILE *file, const cli_command *command) {
    const int width = width_of(file);
    char title[256];
    snprintf(title, sizeof title, "tweedie %s: %s", command->name, command->summary);
    print_paragraph(file, title, 0, width);
    fputc('\n', file);
    print_usage(file, command->usage, width);
    fputs("\nExamples:\n", file);
    for (const cli_example *e = command->examples; e->command; e++)
        /* Not wrapped: it is there to be copied. */
        fprintf(file, "  # %s\n  %s\n", e->what, e->command);
    for (const cli_option *o = command->options; o->name; o++) {
        if (o->type == CLI_HEADING) {
            fprintf(file, "\n%s:\n", o->name);
            continue;
        }
        char left[256];
        snprintf(left, sizeof left, "--%s%s%s", o->name, o->value ? " " : "",
                 o->value ? o->value : "");
        char help[256];
        snprintf(help, sizeof help, "%s%s", o->help, o->type == CLI_LIST ? "; repeatable" : "");
        print_option(file, left, help, o->fallback, width);
    }
    fputc('\n', file);
    print_option(file, "--help", "print this text", NULL, width);
    for (const char *at = command->notes; at;) {
        char one[1024];
        const size_t length = strcspn(at, "\n");
        snprintf(one, sizeof one, "%.*s", (int)length, at);
        fputc('\n', file);
        print_paragraph(file, one, 0, width);
        at = at[length] ? at + length + 1 : NULL;
    }
}

static void print_overview(FILE *file) {
    const int width = width_of(file);
    fprintf(file,
            "tweedie %s: trains diffusion models and samples from them\n\n"
            "Usage: tweedie COMMAND [--option VALUE ...]\n\nCommands:\n",
            tw_version());
    for (int i = 0; cli_command_at(i); i++) {
        const cli_command *c = cli_command_at(i);
        fprintf(file, "  %-12s", c->name);
        filler f = {file, width, 14, 14, true};
        add_text(&f, c->summary);
        fputc('\n', file);
    }
    fputs("\nTo begin with, points on an S-curve, learned in half a minute:\n"
          "  tweedie train --preset scurve --out run\n"
          "  tweedie sample --model run --out points.png\n\n",
          file);
    print_paragraph(file,
                    "`tweedie help COMMAND` explains a command and its options; `tweedie "
                    "--version` prints the version.",
                    0, width);
}

static const cli_option options[] = {
    CLI_GROUP("Options"),
    {"json", CLI_FLAG, NULL, 0, 0, NULL, "print all commands and options as JSON"},
    {"man", CLI_FLAG, NULL, 0, 0, NULL, "print the man page, for man -l"},
    {NULL, CLI_FLAG, NULL, 0, 0, NULL, NULL}};

static int run(const cli_args *args) {
    const cli_command *command = args->operand ? cli_command_find(args->operand) : NULL;
    const bool json = cli_flag(args, "json"), man = cli_flag(args, "man");
    if (args->operand && (json || man))
        return cli_usage("--%s: describes all commands; expected no COMMAND, got \"%s\"",
                         json ? "json" : "man", args->operand);
    if (json && man) return cli_usage("--json and --man: expected one of them, got both");
    if (args->operand && !command) return cli_unknown_command(args->operand);
    if (json) return cli_print_help_json();
    if (man)
        cli_print_man();
    else if (command)
        cli_print_help(stdout, command);
    else
        print_overview(stdout);
    return CLI_OK;
}

static const cli_example examples[] = {{"the options of a command", "tweedie help train"},
                                       {NULL, NULL}};

const cli_command cli_help_command = {.name = "help",
                                      .summary = "lists the commands, or explains one",
                                      .usage = "tweedie help [COMMAND]\n"
                                               "tweedie COMMAND --help",
                                      .options = options,
                                      .examples = examples,
                                      .operand = "COMMAND",
                                      .run = run};
