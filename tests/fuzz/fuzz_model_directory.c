/* A model's directory, with every file of it from the input: configurations, weights in one file or
 * in shards by their index. What loads is saved and loaded again the same. */
#include <stdlib.h>
#include <string.h>

#include "fuzz.h"
#include "models/model.h"

static void check_same(tw_model *a, tw_model *b) {
    FUZZ_CHECK(a->weights.count == b->weights.count && a->weights.total == b->weights.total);
    FUZZ_CHECK(!strcmp(a->config, b->config) && !strcmp(a->scheduler_config, b->scheduler_config));
    for (int64_t i = 0; i < a->weights.count; i++) {
        const tw_weight *w = &a->weights.items[i];
        const size_t bytes = (size_t)w->count * sizeof(float);
        float *x = malloc(bytes), *y = malloc(bytes);
        FUZZ_CHECK(tw_model_get_weight(a, w->name, x, w->count) == TW_OK);
        FUZZ_CHECK(tw_model_get_weight(b, w->name, y, w->count) == TW_OK);
        FUZZ_CHECK(!memcmp(x, y, bytes));
        free(x);
        free(y);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    tw_context *ctx = fuzz_context();
    const size_t before = fuzz_held();
    fuzz_cap((size_t)256 << 10); /* a large network takes long to describe */
    tw_model *model = NULL, *again = NULL;
    fuzz_disk_fill(data, size);
    const bool variant = fuzz_disk_name(0) && fuzz_disk_name(0)[0] == 'v';
    tw_status s = tw_model_load(ctx, "m", variant ? "fp16" : NULL, &model);
    if (s != TW_OK) {
        FUZZ_CHECK(!model);
        fuzz_refused(s, NULL);
    } else if (model->weights.count < 64) {
        s = tw_model_save(model, "copy");
        if (s == TW_OK) s = tw_model_load(ctx, "copy", NULL, &again);
        FUZZ_CHECK(s == TW_OK || s == TW_ERROR_MEMORY);
        if (s == TW_OK) check_same(model, again);
    }
    tw_model_free(again);
    tw_model_free(model);
    FUZZ_CHECK(fuzz_held() == before);
    return 0;
}
