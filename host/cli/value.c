#include "cli/value.h"

#include <ctype.h>
#include <string.h>

static bool begins(const cli_part *part, const char *word) {
    const int n = (int)strlen(word);
    return part->length >= n && memcmp(part->text, word, (size_t)n) == 0 &&
           (part->length == n || part->text[n] == '.');
}

static cli_part_kind kind_of(cli_type type, const cli_part *part) {
    if (type == CLI_CHOICE) return CLI_PART_WORD;
    if (type != CLI_TEXT && type != CLI_LIST) return CLI_PART_NAME;
    if (begins(part, "FILE") || begins(part, "PATH") || begins(part, "SOURCE"))
        return CLI_PART_FILE;
    if (begins(part, "DIR")) return CLI_PART_FOLDER;
    /* Names are in capitals, or patterns such as key=value. */
    const bool name = isupper((unsigned char)part->text[0]) ||
                      memchr(part->text, '=', (size_t)part->length) != NULL;
    return name ? CLI_PART_NAME : CLI_PART_WORD;
}

bool cli_next_part(cli_type type, const char **at, cli_part *out) {
    if (!*at || !**at) return false;
    const char *text = *at;
    *out = (cli_part){.text = text, .length = (int)strcspn(text, "|")};
    *at = text[out->length] ? text + out->length + 1 : NULL;
    out->kind = kind_of(type, out);
    const char *dot = memchr(text, '.', (size_t)out->length);
    if (out->kind == CLI_PART_FILE && dot) {
        out->ending = dot;
        out->ending_length = out->length - (int)(dot - text);
    }
    return true;
}

cli_value cli_value_of(const cli_option *o) {
    cli_value value = {.rest = {.kind = CLI_PART_NAME}};
    cli_part part;
    for (const char *at = o->value; cli_next_part(o->type, &at, &part);) {
        value.words |= part.kind == CLI_PART_WORD;
        if (part.kind == CLI_PART_FILE || part.kind == CLI_PART_FOLDER) value.rest = part;
    }
    return value;
}
