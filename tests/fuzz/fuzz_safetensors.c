/* Safetensors: what parses lies within the file and fills it, is written and read back the same,
 * and a model takes its weights from it or says why not. */
#include <stdlib.h>
#include <string.h>

#include "fuzz.h"
#include "io/safetensors.h"
#include "models/model.h"

static const char config[] = "{\"_class_name\": \"TweedieMLP\", \"in_features\": 1, \"hidden\": 2, "
                             "\"layers\": 1}";

static void check_entries(const tw_safetensors *st, const uint8_t *data, size_t size) {
    const uint8_t *next = NULL;
    for (int64_t i = 0; i < tw_safetensors_count(st); i++) {
        const tw_safetensors_entry *e = tw_safetensors_entry_at(st, i);
        const uint8_t *from = e->data;
        FUZZ_CHECK(from >= data + 8 && e->bytes <= size && from + e->bytes <= data + size);
        FUZZ_CHECK(!next || from == next);
        next = from + e->bytes;
        FUZZ_CHECK(e->rank >= 0 && e->rank <= TW_SAFETENSORS_MAX_RANK && e->count >= 0);
        FUZZ_CHECK(tw_safetensors_find(st, e->name) == e);
        float *values = malloc(((size_t)e->count + 1) * sizeof *values);
        const tw_status s = tw_safetensors_read_f32(st, e, values);
        FUZZ_CHECK(s == TW_OK || s == TW_ERROR_UNSUPPORTED);
        free(values);
    }
    FUZZ_CHECK(!next || next == data + size);
    FUZZ_CHECK(!tw_safetensors_entry_at(st, tw_safetensors_count(st)));
}

static void check_same(const tw_safetensors *a, const tw_safetensors *b) {
    FUZZ_CHECK(tw_safetensors_count(a) == tw_safetensors_count(b));
    for (int64_t i = 0; i < tw_safetensors_count(a); i++) {
        const tw_safetensors_entry *x = tw_safetensors_entry_at(a, i);
        const tw_safetensors_entry *y = tw_safetensors_find(b, x->name);
        FUZZ_CHECK(y && y->dtype == x->dtype && y->rank == x->rank && y->bytes == x->bytes);
        FUZZ_CHECK(!memcmp(x->shape, y->shape, (size_t)x->rank * sizeof *x->shape));
        FUZZ_CHECK(!x->bytes || !memcmp(x->data, y->data, x->bytes));
    }
}

static void round_trip(const tw_safetensors *st) {
    const int64_t n = tw_safetensors_count(st);
    tw_safetensors_item *items = calloc((size_t)n + 1, sizeof *items);
    bool known = items != NULL;
    for (int64_t i = 0; known && i < n; i++) {
        const tw_safetensors_entry *e = tw_safetensors_entry_at(st, i);
        known = e->known;
        items[i] = (tw_safetensors_item){
            .name = e->name, .dtype = e->dtype, .rank = e->rank, .data = e->data};
        memcpy(items[i].shape, e->shape, sizeof e->shape);
    }
    tw_safetensors *copy = NULL;
    if (known) {
        fuzz_disk_clear();
        FUZZ_CHECK(tw_safetensors_write(fuzz_context(), "copy", items, n, NULL, 0, NULL, NULL) ==
                   TW_OK);
        FUZZ_CHECK(tw_safetensors_open(fuzz_context(), "copy", &copy) == TW_OK);
        check_same(st, copy);
        tw_safetensors_close(copy);
    }
    free(items);
}

static void take_weights(tw_safetensors *st) {
    static tw_model *model;
    tw_context *ctx = fuzz_context();
    if (!model)
        FUZZ_CHECK(tw_model_describe(ctx, config, "config.json", NULL, "", &model) == TW_OK);
    const size_t before = fuzz_held();
    const tw_status s = tw_model_read_weights(model, &st, 1, "the weights");
    if (s != TW_OK) {
        fuzz_refused(s, NULL);
    } else {
        float here[2] = {0, 0}, there[2] = {0, 0};
        const tw_safetensors_entry *e = tw_safetensors_find(st, "output.weight");
        FUZZ_CHECK(e && e->count == 2 && tw_safetensors_read_f32(st, e, there) == TW_OK);
        FUZZ_CHECK(tw_model_get_weight(model, "output.weight", here, 2) == TW_OK);
        FUZZ_CHECK(!memcmp(here, there, sizeof here));
    }
    FUZZ_CHECK(fuzz_held() == before);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    static const char name[] = "m.safetensors";
    tw_safetensors *st = NULL;
    const size_t before = fuzz_held();
    const tw_status s = tw_safetensors_parse(fuzz_context(), data, size, name, &st);
    if (s != TW_OK) {
        FUZZ_CHECK(!st);
        fuzz_refused(s, name);
        FUZZ_CHECK(fuzz_held() == before);
        return 0;
    }
    check_entries(st, data, size);
    round_trip(st);
    take_weights(st);
    tw_safetensors_close(st);
    return 0;
}
