/* The tables of commands and options as JSON. */
#include <jansson.h>
#include <stdlib.h>
#include <string.h>

#include "cli/cli.h"
#include "cli/help.h"

static json_t *choices_json(const char *choices) {
    json_t *list = json_array();
    for (const char *p = choices; p;) {
        const size_t length = strcspn(p, "|");
        json_array_append_new(list, json_stringn(p, length));
        p = p[length] ? p + length + 1 : NULL;
    }
    return list;
}

/* A bound of a number, or null where there is none. */
static json_t *bound_json(const cli_option *o, double bound) {
    const bool whole = o->type == CLI_INT;
    if (o->high < o->low || bound >= (whole ? 9e15 : 1e300)) return NULL;
    return whole ? json_integer((json_int_t)bound) : json_real(bound);
}

static json_t *option_json(const cli_option *o, const char *group) {
    static const char *const types[] = {"flag", "text", "int", "real", "choice", "list"};
    const bool choice = o->type == CLI_CHOICE, number = o->type == CLI_INT || o->type == CLI_REAL;
    return json_pack(
        "{s:s, s:s, s:s, s:s*, s:o*, s:o*, s:o*, s:s*, s:s}", "name", o->name, "group", group,
        "type", types[o->type], "value", choice ? NULL : o->value, "choices",
        choice ? choices_json(o->value) : NULL, "low", number ? bound_json(o, o->low) : NULL,
        "high", number ? bound_json(o, o->high) : NULL, "default", o->fallback, "help", o->help);
}

static json_t *command_json(const cli_command *c) {
    json_t *options = json_array(), *examples = json_array();
    const char *group = "Options";
    for (const cli_option *o = c->options; o->name; o++) {
        if (o->type == CLI_HEADING)
            group = o->name;
        else
            json_array_append_new(options, option_json(o, group));
    }
    for (const cli_example *e = c->examples; e->command; e++)
        json_array_append_new(examples,
                              json_pack("{s:s, s:s}", "what", e->what, "command", e->command));
    return json_pack("{s:s, s:s, s:s, s:s*, s:o, s:o, s:s*}", "name", c->name, "summary",
                     c->summary, "usage", c->usage, "operand", c->operand, "options", options,
                     "examples", examples, "notes", c->notes);
}

int cli_print_help_json(void) {
    json_t *commands = json_array();
    for (int i = 0; cli_command_at(i); i++)
        json_array_append_new(commands, command_json(cli_command_at(i)));
    json_t *document = json_pack("{s:s, s:o}", "tweedie", tw_version(), "commands", commands);
    char *text = document ? json_dumps(document, JSON_INDENT(2) | JSON_REAL_PRECISION(9)) : NULL;
    json_decref(document);
    if (!text) return cli_fail("out of memory");
    printf("%s\n", text);
    free(text);
    return CLI_OK;
}
