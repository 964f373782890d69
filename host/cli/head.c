#include "cli/head.h"

#include <stdio.h>
#include <string.h>

cli_words cli_providers(const tw_context *ctx) {
    cli_words w = {""};
    size_t used = 0;
    for (int i = 0; tw_context_provider(ctx, i); i++) {
        const int k = snprintf(w.text + used, sizeof w.text - used, "%s%s", i ? ", " : "",
                               tw_context_provider(ctx, i));
        if (k < 0 || (size_t)k >= sizeof w.text - used) break;
        used += (size_t)k;
    }
    return w;
}

cli_words cli_model_words(const tw_model_info *info) {
    cli_words w;
    const char *kind = strcmp(info->kind, "UNet2DModel") == 0  ? "UNet"
                       : strcmp(info->kind, "TweedieMLP") == 0 ? "MLP"
                                                               : info->kind;
    snprintf(w.text, sizeof w.text, "%.32s %.32s", kind,
             cli_magnitude((double)info->parameters).text);
    return w;
}

void cli_print_head(const tw_context *ctx, const tw_model_info *info, const char *precision,
                    const char *more) {
    const char *dot = cli_separator();
    printf("tweedie %d.%d%s%s, %s%s%s%s%s", TW_VERSION_MAJOR, TW_VERSION_MINOR, dot,
           tw_context_device_name(ctx), precision, dot, cli_model_words(info).text, dot,
           cli_providers(ctx).text);
    if (*more) printf("%s%s", dot, more);
    putchar('\n');
    fflush(stdout);
}
