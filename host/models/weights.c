#include "models/weights.h"

#include <math.h>
#include <string.h>

#include "core/checked.h"
#include "core/context.h"
#include "core/philox.h"

#define PLACE_UNIT 64 /* elements: 256 bytes of float32, a whole line on every device */

int64_t tw_weights_find(const tw_weights *weights, const char *name) {
    const uint32_t hash = tw_name_hash(name);
    for (int64_t i = 0; i < weights->count; i++)
        if (weights->items[i].hash == hash && strcmp(weights->items[i].name, name) == 0) return i;
    return -1;
}

static tw_status grow(tw_context *ctx, tw_weights *weights) {
    int64_t capacity = weights->capacity ? 2 * weights->capacity : 64;
    tw_weight *items = tw_allocate(ctx, (size_t)capacity, sizeof *items);
    if (!items) return TW_ERROR_MEMORY;
    if (weights->count) memcpy(items, weights->items, (size_t)weights->count * sizeof *items);
    tw_free(ctx, weights->items);
    weights->items = items;
    weights->capacity = capacity;
    return TW_OK;
}

tw_status tw_weights_add(tw_context *ctx, tw_weights *weights, const tw_weight *like) {
    if (weights->complete)
        return tw_fail(ctx, TW_ERROR_INTERNAL, "weight %s: declared too late", like->name);
    if (tw_weights_find(weights, like->name) >= 0)
        return tw_fail(ctx, TW_ERROR_INTERNAL, "weight %s: declared twice", like->name);
    int64_t count = 1;
    for (int i = 0; i < like->rank; i++)
        if (like->shape[i] < 1 || !tw_mul_i64(count, like->shape[i], &count) ||
            count > INT64_C(1) << 40)
            return tw_fail(ctx, TW_ERROR_ARGUMENT, "weight %s: its size does not fit", like->name);
    if (weights->count == weights->capacity) TW_TRY(grow(ctx, weights));
    tw_weight *w = &weights->items[weights->count];
    *w = *like;
    w->count = count;
    w->offset = 0;
    w->name = tw_strdup(ctx, like->name);
    if (!w->name) return TW_ERROR_MEMORY;
    w->hash = tw_name_hash(w->name);
    weights->count++;
    return TW_OK;
}

/* Which stack it is a part of; 0: none. */
static int stack_of(const tw_weight *w, bool saved) {
    return saved && w->apart ? 0 : w->stack;
}

static bool is_placed(const tw_weights *weights, int64_t i, bool saved) {
    const int stack = stack_of(&weights->items[i], saved);
    for (int64_t k = 0; stack && k < i; k++)
        if (stack_of(&weights->items[k], saved) == stack) return true;
    return false;
}

static bool add(int64_t *total, int64_t count) {
    return tw_add_i64(*total, count, total) && *total <= INT64_MAX / (int64_t)sizeof(double);
}

/* Weight `i`, or its whole stack. */
static bool place_at_end(tw_weights *weights, int64_t i, bool saved) {
    const int stack = stack_of(&weights->items[i], saved);
    for (int64_t k = i; k < weights->count; k++) {
        tw_weight *w = &weights->items[k];
        if (k != i && (!stack || stack_of(w, saved) != stack)) continue;
        w->offset = weights->total;
        if (!add(&weights->total, w->count)) return false;
        if (!stack) break;
    }
    const int64_t over = weights->total % PLACE_UNIT;
    return !over || add(&weights->total, PLACE_UNIT - over);
}

static tw_status place(tw_context *ctx, tw_weights *weights, bool trainable, bool saved) {
    for (int64_t i = 0; i < weights->count; i++) {
        const tw_weight *w = &weights->items[i];
        if (w->trainable == trainable && !is_placed(weights, i, saved) &&
            !place_at_end(weights, i, saved))
            return tw_fail(ctx, TW_ERROR_MEMORY, "weight %s: the model does not fit an address",
                           w->name);
    }
    return TW_OK;
}

/* In memory, or as they are saved. */
static tw_status place_all(tw_context *ctx, tw_weights *weights, bool saved) {
    weights->total = 0;
    TW_TRY(place(ctx, weights, true, saved));
    weights->trainable = weights->total;
    return place(ctx, weights, false, saved);
}

tw_status tw_weights_place(tw_context *ctx, tw_weights *weights) {
    TW_TRY(place_all(ctx, weights, true));
    weights->saved = weights->total;
    for (int64_t i = 0; i < weights->count; i++) weights->items[i].saved = weights->items[i].offset;
    TW_TRY(place_all(ctx, weights, false));
    weights->complete = true;
    return TW_OK;
}

void tw_weights_to_state(const tw_weights *weights, const float *flat, float *state) {
    memset(state, 0, (size_t)weights->saved * sizeof *state);
    for (int64_t i = 0; i < weights->count; i++) {
        const tw_weight *w = &weights->items[i];
        memcpy(state + w->saved, flat + w->offset, (size_t)w->count * sizeof *state);
    }
}

void tw_weights_from_state(const tw_weights *weights, const float *state, float *flat) {
    memset(flat, 0, (size_t)weights->total * sizeof *flat);
    for (int64_t i = 0; i < weights->count; i++) {
        const tw_weight *w = &weights->items[i];
        memcpy(flat + w->offset, state + w->saved, (size_t)w->count * sizeof *flat);
    }
}

void tw_weights_free(tw_context *ctx, tw_weights *weights) {
    for (int64_t i = 0; i < weights->count; i++) tw_free(ctx, weights->items[i].name);
    tw_free(ctx, weights->items);
    memset(weights, 0, sizeof *weights);
}

int tw_weight_file_shape(const tw_weight *weight, int64_t shape[TW_MAX_RANK]) {
    memcpy(shape, weight->shape, sizeof weight->shape);
    if (weight->rank == 4) {
        shape[1] = weight->shape[3];
        shape[2] = weight->shape[1];
        shape[3] = weight->shape[2];
    }
    return weight->rank;
}

/* Copies `from` [outer, rows, columns] to `to` [outer, columns, rows]. */
static void transpose(int64_t outer, int64_t rows, int64_t columns, const float *from, float *to) {
    for (int64_t o = 0; o < outer; o++, from += rows * columns, to += rows * columns)
        for (int64_t r = 0; r < rows; r++)
            for (int64_t c = 0; c < columns; c++) to[c * rows + r] = from[r * columns + c];
}

void tw_weight_from_file(const tw_weight *weight, const float *file, float *plan) {
    if (weight->rank == 4)
        transpose(weight->shape[0], weight->shape[3], weight->shape[1] * weight->shape[2], file,
                  plan);
    else
        memcpy(plan, file, (size_t)weight->count * sizeof *plan);
}

void tw_weight_to_file(const tw_weight *weight, const float *plan, float *file) {
    if (weight->rank == 4)
        transpose(weight->shape[0], weight->shape[1] * weight->shape[2], weight->shape[3], plan,
                  file);
    else
        memcpy(file, plan, (size_t)weight->count * sizeof *file);
}

static void init_uniform(const tw_weight *weight, const tw_philox_key *key, float *file) {
    double bound = 1.0 / sqrt((double)weight->fan_in);
    for (int64_t i = 0; i < weight->count; i += 4) {
        uint32_t words[4];
        tw_philox_words(key, (uint32_t)(i / 4), words);
        for (int64_t j = 0; j < 4 && i + j < weight->count; j++)
            file[i + j] = (float)(bound * (2.0 * (double)tw_philox_uniform(words[j]) - 1.0));
    }
}

static void init_normal(const tw_weight *weight, const tw_philox_key *key, float *file) {
    for (int64_t i = 0; i < weight->count; i += 4) {
        double z[4];
        tw_philox_normals(key, (uint32_t)(i / 4), z);
        for (int64_t j = 0; j < 4 && i + j < weight->count; j++)
            file[i + j] = (float)(weight->gain * z[j]);
    }
}

void tw_weight_init(const tw_weight *weight, uint64_t seed, float *file) {
    const tw_philox_key key = {seed, weight->hash, TW_PURPOSE_INIT, 0};
    switch (weight->init) {
    case TW_INIT_UNIFORM:
        init_uniform(weight, &key, file);
        break;
    case TW_INIT_NORMAL:
        init_normal(weight, &key, file);
        break;
    case TW_INIT_ZERO:
    case TW_INIT_ONE:
        for (int64_t i = 0; i < weight->count; i++)
            file[i] = weight->init == TW_INIT_ONE ? 1.0f : 0.0f;
        break;
    }
}
