#include "cli/options.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "cli/cli.h"

/* Longer names are not compared. */
#define DISTANCE_MAX_LENGTH 40

int cli_distance(const char *a, const char *b) {
    const size_t n = strlen(a), m = strlen(b);
    if (n > DISTANCE_MAX_LENGTH || m > DISTANCE_MAX_LENGTH) return 9;
    int d[DISTANCE_MAX_LENGTH + 1][DISTANCE_MAX_LENGTH + 1];
    for (size_t i = 0; i <= n; i++) d[i][0] = (int)i;
    for (size_t j = 0; j <= m; j++) d[0][j] = (int)j;
    for (size_t i = 1; i <= n; i++)
        for (size_t j = 1; j <= m; j++) {
            int best = d[i - 1][j - 1] + (a[i - 1] != b[j - 1]);
            if (d[i - 1][j] + 1 < best) best = d[i - 1][j] + 1;
            if (d[i][j - 1] + 1 < best) best = d[i][j - 1] + 1;
            if (i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] &&
                d[i - 2][j - 2] + 1 < best)
                best = d[i - 2][j - 2] + 1;
            d[i][j] = best;
        }
    return d[n][m] < 9 ? d[n][m] : 9;
}

bool cli_nearer(const char *typed, const char *name, int *best) {
    const size_t length = strlen(typed);
    int d = cli_distance(typed, name);
    /* The beginning of a name is as good as a slip. */
    if (length >= 3 && d > 1 && strncmp(name, typed, length) == 0) d = 1;
    /* One edit in a name of one letter is another name. */
    if (d >= *best || (size_t)d >= length) return false;
    *best = d;
    return true;
}

bool cli_parse_int(const char *text, int64_t *out) {
    const char *digits = text + (*text == '-' || *text == '+');
    if (!*digits || strspn(digits, "0123456789") != strlen(digits)) return false;
    errno = 0;
    const long long v = strtoll(text, NULL, 10);
    if (errno) return false;
    *out = v;
    return true;
}

bool cli_parse_real(const char *text, double *out) {
    /* strtod would also take spaces, hexadecimal, "inf" and "nan". */
    if (!*text || strspn(text, "0123456789+-.eE") != strlen(text)) return false;
    char *end;
    const double v = strtod(text, &end);
    if (end == text || *end || !isfinite(v)) return false;
    *out = v;
    return true;
}

/* Index of the word among "a|b|c", or -1. */
static int choice_index(const char *choices, const char *word) {
    const size_t n = strlen(word);
    int index = 0;
    for (const char *p = choices; p; index++) {
        const char *bar = strchr(p, '|');
        const size_t length = bar ? (size_t)(bar - p) : strlen(p);
        if (length == n && memcmp(p, word, n) == 0) return index;
        p = bar ? bar + 1 : NULL;
    }
    return -1;
}

/* "a, b or c" of "a|b|c". */
static void choices_in_words(const char *choices, char *out, size_t size) {
    size_t used = 0;
    for (const char *p = choices; p;) {
        const char *bar = strchr(p, '|');
        const int length = bar ? (int)(bar - p) : (int)strlen(p);
        const char *joint = p == choices ? "" : bar ? ", " : " or ";
        const int k = snprintf(out + used, size - used, "%s%.*s", joint, length, p);
        if (k < 0 || (size_t)k >= size - used) return;
        used += (size_t)k;
        p = bar ? bar + 1 : NULL;
    }
}

static int find(const cli_command *command, const char *name, size_t length) {
    for (int i = 0; command->options[i].name; i++)
        if (command->options[i].type != CLI_HEADING && strlen(command->options[i].name) == length &&
            memcmp(command->options[i].name, name, length) == 0)
            return i;
    return -1;
}

/* The option's index; the name is one that the program itself uses. */
static int known(const cli_args *args, const char *name) {
    const int i = find(args->command, name, strlen(name));
    return i < 0 ? 0 : i;
}

static int expected_number(const char *where, const cli_option *o, double low, double high,
                           const char *text) {
    const char *kind = o->type == CLI_INT ? "whole number" : "number";
    if (high < low) return cli_usage("%s: expected a %s, got \"%s\"", where, kind, text);
    if (o->type == CLI_INT && high >= 9e15)
        return cli_usage("%s: expected a %s from %.0f up, got \"%s\"", where, kind, low, text);
    if (o->type == CLI_INT)
        return cli_usage("%s: expected a %s from %.0f to %.0f, got \"%s\"", where, kind, low, high,
                         text);
    if (high >= 1e300)
        return cli_usage("%s: expected a %s from %.9g up, got \"%s\"", where, kind, low, text);
    return cli_usage("%s: expected a %s from %.9g to %.9g, got \"%s\"", where, kind, low, high,
                     text);
}

/* Checks a value; `where` is such as "--steps" or "run.json: steps". */
static int check(const cli_option *o, const char *text, const char *where) {
    if (!*text) return cli_usage("%s: the value is empty", where);
    if (o->type == CLI_FLAG)
        return strcmp(text, "true") && strcmp(text, "false")
                   ? cli_usage("%s: expected true or false, got \"%s\"", where, text)
                   : CLI_OK;
    if (o->type == CLI_CHOICE && choice_index(o->value, text) < 0) {
        char words[256] = "";
        choices_in_words(o->value, words, sizeof words);
        return cli_usage("%s: expected %s, got \"%s\"", where, words, text);
    }
    if (o->type == CLI_INT && o->high >= o->low) {
        int64_t v;
        if (!cli_parse_int(text, &v) || (double)v < o->low || (double)v > o->high)
            return expected_number(where, o, o->low, o->high, text);
    }
    if (o->type == CLI_REAL) {
        double v;
        if (!cli_parse_real(text, &v) || (o->high >= o->low && (v < o->low || v > o->high)))
            return expected_number(where, o, o->low, o->high, text);
    }
    return CLI_OK;
}

static int unknown_option(const cli_command *command, const char *word, size_t length) {
    char name[64];
    snprintf(name, sizeof name, "%.*s", (int)(length < 60 ? length : 60), word);
    const char *closest = NULL;
    int best = CLI_NEAR;
    for (const cli_option *o = command->options; o->name; o++)
        if (o->type != CLI_HEADING && cli_nearer(name, o->name, &best)) closest = o->name;
    if (closest)
        return cli_usage("%s: unknown option --%s; did you mean --%s?", command->name, name,
                         closest);
    return cli_usage("%s: unknown option --%s; `tweedie help %s` lists them", command->name, name,
                     command->name);
}

static const char *first_name(const cli_command *command) {
    const cli_option *o = command->options;
    while (o->name && o->type == CLI_HEADING) o++;
    return o->name ? o->name : "help";
}

/* A word that is no option. */
static int take_operand(const cli_command *command, const char *word, cli_args *out) {
    if (!command->operand)
        return cli_usage("%s: expected an option such as --%s, got \"%s\"", command->name,
                         first_name(command), word);
    const bool choice = strchr(command->operand, '|') != NULL;
    char words[256] = "one ";
    if (choice)
        choices_in_words(command->operand, words, sizeof words);
    else
        snprintf(words, sizeof words, "one %s", command->operand);
    if (out->operand)
        return cli_usage("%s: expected %s, got \"%s\" and \"%s\"", command->name, words,
                         out->operand, word);
    if (choice && choice_index(command->operand, word) < 0)
        return cli_usage("%s: expected %s, got \"%s\"", command->name, words, word);
    out->operand = word;
    return CLI_OK;
}

/* Takes the value of the option `index` from the command line. */
static int take_value(cli_args *out, int index, const char *value, const char *where) {
    const cli_option *o = &out->command->options[index];
    const bool again = out->sources[index] == CLI_FROM_USER;
    if (again && o->type != CLI_LIST) return cli_usage("%s: given twice", where);
    const int rc = check(o, value, where);
    if (rc) return rc;
    if (o->type == CLI_LIST) {
        if (out->listed_count == CLI_MAX_LISTED)
            return cli_usage("%s: given more than %d times", where, CLI_MAX_LISTED);
        out->listed[out->listed_count].option = index;
        out->listed[out->listed_count++].text = value;
    }
    out->values[index] = value;
    out->sources[index] = CLI_FROM_USER;
    return CLI_OK;
}

int cli_parse(const cli_command *command, int argc, char **argv, cli_args *out) {
    memset(out, 0, sizeof *out);
    out->command = command;
    out->word_count = argc;
    out->words = argv;
    for (int i = 0; i < argc; i++)
        if (strcmp(argv[i], "--help") == 0 || strcmp(argv[i], "-h") == 0) {
            out->help = true;
            return CLI_OK;
        }
    for (int i = 0; i < argc; i++) {
        const char *word = argv[i];
        if (strncmp(word, "--", 2) != 0 || !word[2]) {
            const int rc = take_operand(command, word, out);
            if (rc) return rc;
            continue;
        }
        const char *name = word + 2, *equals = strchr(name, '=');
        const size_t length = equals ? (size_t)(equals - name) : strlen(name);
        const int index = find(command, name, length);
        if (index < 0) return unknown_option(command, name, length);
        const cli_option *o = &command->options[index];
        char where[80];
        snprintf(where, sizeof where, "--%s", o->name);
        const char *value = equals ? equals + 1 : NULL;
        if (o->type == CLI_FLAG) {
            if (value) return cli_usage("%s: takes no value, got \"%s\"", where, value);
            value = "true";
        } else if (!value) {
            if (i + 1 >= argc || strncmp(argv[i + 1], "--", 2) == 0)
                return cli_usage("%s: a value is missing", where);
            value = argv[++i];
        }
        const int rc = take_value(out, index, value, where);
        if (rc) return rc;
    }
    for (int i = 0; command->options[i].name; i++)
        if (out->sources[i] == CLI_FROM_NOWHERE && command->options[i].fallback) {
            out->values[i] = command->options[i].fallback;
            out->sources[i] = CLI_FROM_TABLE;
        }
    return CLI_OK;
}

int cli_set(cli_args *args, const char *name, const char *text, cli_source source,
            const char *where) {
    const int i = find(args->command, name, strlen(name));
    if (i < 0) return cli_usage("%s: unknown option \"%s\"", where, name);
    char full[512];
    snprintf(full, sizeof full, "%s: %s", where, name);
    const int rc = check(&args->command->options[i], text, full);
    if (rc || args->sources[i] >= source) return rc;
    args->values[i] = text;
    args->sources[i] = source;
    return CLI_OK;
}

bool cli_given(const cli_args *args, const char *name) {
    return args->values[known(args, name)] != NULL;
}

cli_source cli_source_of(const cli_args *args, const char *name) {
    return args->sources[known(args, name)];
}

const char *cli_text(const cli_args *args, const char *name) {
    return args->values[known(args, name)];
}

bool cli_flag(const cli_args *args, const char *name) {
    const char *text = cli_text(args, name);
    return text && strcmp(text, "true") == 0;
}

int64_t cli_int(const cli_args *args, const char *name) {
    int64_t v = 0;
    const char *text = cli_text(args, name);
    if (text) cli_parse_int(text, &v);
    return v;
}

double cli_real(const cli_args *args, const char *name) {
    double v = 0.0;
    const char *text = cli_text(args, name);
    if (text) cli_parse_real(text, &v);
    return v;
}

int cli_choice(const cli_args *args, const char *name) {
    const int i = known(args, name);
    return args->values[i] ? choice_index(args->command->options[i].value, args->values[i]) : -1;
}

const char *cli_listed(const cli_args *args, const char *name, int index) {
    const int option = known(args, name);
    for (int i = 0; i < args->listed_count; i++)
        if (args->listed[i].option == option && index-- == 0) return args->listed[i].text;
    return NULL;
}

int cli_check_int(const cli_args *args, const char *name, int64_t low, int64_t high) {
    const cli_option *o = &args->command->options[known(args, name)];
    const char *text = cli_text(args, name);
    int64_t v;
    if (text && cli_parse_int(text, &v) && v >= low && v <= high) return CLI_OK;
    char where[80];
    snprintf(where, sizeof where, "--%s", name);
    return expected_number(where, o, (double)low, (double)high, text ? text : "");
}
