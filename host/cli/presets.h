/* Presets: a network, a schedule and option values that train well together. */
#ifndef TW_CLI_PRESETS_H
#define TW_CLI_PRESETS_H

#define CLI_PRESET_NAMES "scurve|shapes|images|mnist|cifar10"

typedef struct cli_preset_option {
    const char *name, *text;
} cli_preset_option;

typedef struct cli_preset {
    const char *name;
    const char *model, *scheduler;    /* config.json, scheduler_config.json */
    const cli_preset_option *options; /* of `train`; ends with a null name */
} cli_preset;

/* Null when there is none of this name. */
const cli_preset *cli_preset_find(const char *name);

#endif
