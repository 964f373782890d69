/* config.json of a network: what is accepted has a plan whose weights fit the memory, and is told
 * in the same words by a second reading. */
#include <stdlib.h>
#include <string.h>

#include "fuzz.h"
#include "models/model.h"

static void check_model(const tw_model *m, const char *text) {
    const tw_model_info *info = &m->info;
    int64_t parameters = 0;
    FUZZ_CHECK(info->rank == 1 || info->rank == 3);
    for (int i = 0; i < info->rank; i++) FUZZ_CHECK(info->shape[i] >= 1);
    FUZZ_CHECK(info->out_channels >= 1 && info->classes >= 0 && info->training_steps >= 1);
    FUZZ_CHECK(info->tensors == m->weights.count && info->tensors > 0);
    FUZZ_CHECK(m->weights.trainable >= 0 && m->weights.trainable <= m->weights.total);
    for (int64_t i = 0; i < m->weights.count; i++) {
        const tw_weight *w = &m->weights.items[i];
        FUZZ_CHECK(w->count >= 1 && w->offset >= 0 && w->offset + w->count <= m->weights.total);
        parameters += w->count;
    }
    FUZZ_CHECK(parameters == info->parameters);
    FUZZ_CHECK(!strcmp(m->config, text));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    tw_context *ctx = fuzz_context();
    const size_t before = fuzz_held();
    fuzz_cap((size_t)256 << 10); /* a large network takes long to describe */
    char *text = fuzz_text(data, size);
    tw_model *model = NULL;
    const tw_status s =
        tw_model_describe(ctx, text, "config.json", NULL, "scheduler_config.json", &model);
    if (s == TW_OK) {
        check_model(model, text);
        tw_model_free(model);
    } else {
        FUZZ_CHECK(!model);
        fuzz_refused(s, "config.json");
    }
    free(text);
    FUZZ_CHECK(fuzz_held() == before);
    return 0;
}
