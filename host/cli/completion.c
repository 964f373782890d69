/* tweedie completion: scripts that let a shell complete commands, options and values, made from the
 * options' tables. */
#include <stdio.h>
#include <string.h>

#include "cli/cli.h"
#include "cli/value.h"

/* `text` inside single quotes: `quote` stands for one of them. A backslash goes before each of
 * `escaped`. */
static void print_quoted(const char *text, const char *quote, const char *escaped) {
    for (; *text; text++) {
        if (*text == '\'') {
            fputs(quote, stdout);
            continue;
        }
        if (strchr(escaped, *text)) putchar('\\');
        putchar(*text);
    }
}

/* The words among an option's values. */
static void print_words(const cli_option *o) {
    const char *space = "";
    cli_part part;
    for (const char *at = o->value; cli_next_part(o->type, &at, &part);) {
        if (part.kind != CLI_PART_WORD) continue;
        printf("%s%.*s", space, part.length, part.text);
        space = " ";
    }
}

/* The commands' names; with `operand`, the words that may stand after a command. */
static void print_names(const char *operand) {
    cli_part part;
    const char *space = "";
    if (operand && strchr(operand, '|')) {
        for (const char *at = operand; cli_next_part(CLI_CHOICE, &at, &part); space = " ")
            printf("%s%.*s", space, part.length, part.text);
        return;
    }
    for (int i = 0; cli_command_at(i); i++, space = " ")
        printf("%s%s", space, cli_command_at(i)->name);
}

/* --- bash --- */

static const char bash_begin[] =
    "# Completion of tweedie for bash, made by `tweedie completion bash`.\n"
    "\n"
    "# Of the words given, those that go on from what was typed.\n"
    "_tweedie_words() {\n"
    "    local word\n"
    "    for word; do\n"
    "        if [[ $word == \"$cur\"* ]]; then COMPREPLY+=(\"$word\"); fi\n"
    "    done\n"
    "}\n"
    "\n"
    "# Folders, and files with the ending given.\n"
    "_tweedie_files() {\n"
    "    local name\n"
    "    compopt -o filenames 2>/dev/null\n"
    "    while IFS= read -r name; do\n"
    "        if [[ $name == *\"$1\" || -d $name ]]; then COMPREPLY+=(\"$name\"); fi\n"
    "    done < <(compgen -f -- \"$cur\")\n"
    "}\n"
    "\n"
    "_tweedie_folders() {\n"
    "    local name\n"
    "    compopt -o filenames 2>/dev/null\n"
    "    while IFS= read -r name; do COMPREPLY+=(\"$name\"); done < <(compgen -d -- \"$cur\")\n"
    "}\n"
    "\n"
    "_tweedie() {\n"
    "    local cur=${COMP_WORDS[COMP_CWORD]} prev=${COMP_WORDS[COMP_CWORD-1]} options lists word "
    "given\n"
    "    COMPREPLY=()\n"
    "    # An equals sign is a word of its own.\n"
    "    if [[ $cur == = ]]; then\n"
    "        cur=\n"
    "    elif [[ $prev == = ]]; then\n"
    "        prev=${COMP_WORDS[COMP_CWORD-2]}\n"
    "    fi\n"
    "    if ((COMP_CWORD == 1)); then\n"
    "        _tweedie_words ";

static const char bash_end[] =
    "    *) return ;;\n"
    "    esac\n"
    "    # None twice, but for those that may be.\n"
    "    given=\" ${COMP_WORDS[*]:2:COMP_CWORD-2} \"\n"
    "    for word in $options; do\n"
    "        if [[ $given != *\" $word \"* || $lists == *\" $word \"* ]]; "
    "then _tweedie_words \"$word\"; fi\n"
    "    done\n"
    "}\n"
    "\n"
    "complete -F _tweedie tweedie\n";

static void bash_value(const cli_option *o) {
    const cli_value value = cli_value_of(o);
    printf("        --%s)", o->name);
    if (value.words) {
        fputs(" _tweedie_words ", stdout);
        print_words(o);
        putchar(';');
    }
    if (value.rest.kind == CLI_PART_FOLDER) fputs(" _tweedie_folders;", stdout);
    if (value.rest.kind == CLI_PART_FILE)
        printf(" _tweedie_files '%.*s';", value.rest.ending_length,
               value.rest.ending ? value.rest.ending : "");
    fputs(" return ;;\n", stdout);
}

/* Whether there is something to complete the value with. */
static bool is_listed(const cli_option *o) {
    const cli_value value = cli_value_of(o);
    return value.words || value.rest.kind != CLI_PART_NAME;
}

static void bash_command(const cli_command *c) {
    const char *bar = "        ";
    printf("    %s)\n        case $prev in\n", c->name);
    for (const cli_option *o = c->options; o->name; o++)
        if (o->value && is_listed(o)) bash_value(o);
    for (const cli_option *o = c->options; o->name; o++) {
        if (!o->value || is_listed(o)) continue;
        printf("%s--%s", bar, o->name);
        bar = " | ";
    }
    printf("%s        esac\n", strchr(bar, '|') ? ") return ;;\n" : "");
    if (c->operand) {
        fputs("        if ((COMP_CWORD == 2)); then _tweedie_words ", stdout);
        print_names(c->operand);
        fputs("; fi\n", stdout);
    }
    fputs("        options='", stdout);
    for (const cli_option *o = c->options; o->name; o++)
        if (o->type != CLI_HEADING) printf("--%s ", o->name);
    fputs("--help'\n        lists=' ", stdout);
    for (const cli_option *o = c->options; o->name; o++)
        if (o->type == CLI_LIST) printf("--%s ", o->name);
    fputs("'\n        ;;\n", stdout);
}

static void print_bash(void) {
    fputs(bash_begin, stdout);
    print_names(NULL);
    fputs(" --help --version\n        return\n    fi\n    case ${COMP_WORDS[1]} in\n", stdout);
    for (int i = 0; cli_command_at(i); i++) bash_command(cli_command_at(i));
    fputs(bash_end, stdout);
}

/* --- zsh --- */

static void zsh_value(const cli_option *o) {
    const cli_value value = cli_value_of(o);
    const bool place = value.rest.kind != CLI_PART_NAME;
    printf(":%s:", value.words ? "value" : o->value);
    if (value.words) {
        fputs(place ? " _alternative \"words:word:(" : "(", stdout);
        print_words(o);
        fputs(place ? ")\" \"files:file:_files\"" : ")", stdout);
    } else if (place) {
        fputs(value.rest.kind == CLI_PART_FOLDER ? "_files -/" : "_files", stdout);
        if (value.rest.ending_length)
            printf(" -g \"*%.*s\"", value.rest.ending_length, value.rest.ending);
    } else {
        putchar(' ');
    }
}

static void zsh_command(const cli_command *c) {
    printf("        %s)\n            _arguments \\\n", c->name);
    for (const cli_option *o = c->options; o->name; o++) {
        if (o->type == CLI_HEADING) continue;
        printf("                '%s--%s%s[", o->type == CLI_LIST ? "*" : "", o->name,
               o->value ? "=" : "");
        print_quoted(o->help, "'\\''", "[]\\");
        putchar(']');
        if (o->value) zsh_value(o);
        fputs("' \\\n", stdout);
    }
    if (c->operand) {
        fputs("                '1:word:(", stdout);
        print_names(c->operand);
        fputs(")' \\\n", stdout);
    }
    fputs("                '--help[print how it is called]'\n            ;;\n", stdout);
}

static void print_zsh(void) {
    fputs("#compdef tweedie\n"
          "# Completion of tweedie for zsh, made by `tweedie completion zsh`.\n"
          "\n"
          "_tweedie() {\n"
          "    local context state state_descr line\n"
          "    local -A opt_args\n"
          "    local -a commands\n"
          "    commands=(\n",
          stdout);
    for (int i = 0; cli_command_at(i); i++) {
        printf("        '%s:", cli_command_at(i)->name);
        print_quoted(cli_command_at(i)->summary, "'\\''", "\\");
        fputs("'\n", stdout);
    }
    fputs("    )\n"
          "    _arguments -C '--help[list the commands]' '--version[print the version]' \\\n"
          "        '1: :->command' '*:: :->rest' && return\n"
          "    case $state in\n"
          "    command) _describe -t commands command commands ;;\n"
          "    rest)\n"
          "        case $words[1] in\n",
          stdout);
    for (int i = 0; cli_command_at(i); i++) zsh_command(cli_command_at(i));
    fputs("        esac\n"
          "        ;;\n"
          "    esac\n"
          "}\n"
          "\n"
          "# Sourced, it says what it is for; found as a function, it completes at once.\n"
          "if [[ $funcstack[1] == _tweedie ]]; then\n"
          "    _tweedie \"$@\"\n"
          "else\n"
          "    compdef _tweedie tweedie\n"
          "fi\n",
          stdout);
}

/* --- fish --- */

static void fish_value(const cli_option *o) {
    const cli_value value = cli_value_of(o);
    const cli_part *rest = &value.rest;
    fputs(rest->kind == CLI_PART_FILE && !rest->ending_length ? " -r -F" : " -x", stdout);
    if (value.words) {
        fputs(" -a '", stdout);
        print_words(o);
        putchar('\'');
    }
    if (rest->kind == CLI_PART_FOLDER) fputs(" -a '(__fish_complete_directories)'", stdout);
    if (rest->ending_length)
        printf(" -a '(__fish_complete_suffix %.*s)'", rest->ending_length, rest->ending);
}

static void fish_command(const cli_command *c) {
    for (const cli_option *o = c->options; o->name; o++) {
        if (o->type == CLI_HEADING) continue;
        printf("complete -c tweedie -n '__fish_seen_subcommand_from %s' -l %s", c->name, o->name);
        if (o->value) fish_value(o);
        fputs(" -d '", stdout);
        print_quoted(o->help, "\\'", "\\");
        fputs("'\n", stdout);
    }
    printf("complete -c tweedie -n '__fish_seen_subcommand_from %s' -l help -d 'print how it is "
           "called'\n",
           c->name);
    if (!c->operand) return;
    printf("complete -c tweedie -n '__fish_seen_subcommand_from %s' -a '", c->name);
    print_names(c->operand);
    fputs("'\n", stdout);
}

static void print_fish(void) {
    fputs("# Completion of tweedie for fish, made by `tweedie completion fish`.\n"
          "complete -c tweedie -f\n"
          "complete -c tweedie -n __fish_use_subcommand -l version -d 'print the version'\n"
          "complete -c tweedie -n __fish_use_subcommand -l help -d 'list the commands'\n",
          stdout);
    for (int i = 0; cli_command_at(i); i++) {
        printf("complete -c tweedie -n __fish_use_subcommand -a %s -d '", cli_command_at(i)->name);
        print_quoted(cli_command_at(i)->summary, "\\'", "\\");
        fputs("'\n", stdout);
    }
    for (int i = 0; cli_command_at(i); i++) fish_command(cli_command_at(i));
}

static int run(const cli_args *args) {
    if (!args->operand)
        return cli_usage("completion: the shell is missing: expected bash, zsh or fish");
    if (strcmp(args->operand, "bash") == 0)
        print_bash();
    else if (strcmp(args->operand, "zsh") == 0)
        print_zsh();
    else
        print_fish();
    return CLI_OK;
}

static const cli_option options[] = {{NULL, CLI_FLAG, NULL, 0, 0, NULL, NULL}};

static const cli_example examples[] = {
    {"in this bash", "source <(tweedie completion bash)"},
    {"in every fish", "tweedie completion fish > ~/.config/fish/completions/tweedie.fish"},
    {NULL, NULL}};

const cli_command cli_completion_command = {
    .name = "completion",
    .summary = "prints a script that completes commands and options in a shell",
    .usage = "tweedie completion bash|zsh|fish",
    .options = options,
    .notes = "An installed tweedie needs none of this: the scripts were installed with it. zsh "
             "finds its own as _tweedie in a folder of $fpath.",
    .examples = examples,
    .operand = "bash|zsh|fish",
    .run = run};
