#include "models/architecture.h"

#include <string.h>

static const tw_architecture *const table[] = {&tw_architecture_unet2d, &tw_architecture_mlp};

tw_status tw_architecture_find(const tw_json *json, const tw_architecture **out) {
    const char *name = NULL;
    *out = NULL;
    TW_TRY(tw_json_require(json, "_class_name"));
    TW_TRY(tw_json_get_string(json, "_class_name", &name));
    for (size_t i = 0; i < sizeof table / sizeof *table; i++)
        if (strcmp(name, table[i]->name) == 0) *out = table[i];
    if (*out) return TW_OK;
    return tw_fail(json->ctx, TW_ERROR_UNSUPPORTED,
                   "%s: _class_name: \"%.64s\" is not supported; expected \"%s\" or \"%s\"",
                   json->name, name, table[0]->name, table[1]->name);
}
