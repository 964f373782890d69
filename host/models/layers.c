#include "models/layers.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "graph/internal.h"
#include "models/weights.h"

tw_scope tw_scope_in(const char *outer, const char *format, ...) {
    tw_scope scope;
    int used = snprintf(scope.text, sizeof scope.text, "%s%s", outer, *outer ? "." : "");
    if (used < 0 || (size_t)used >= sizeof scope.text) return scope;
    va_list args;
    va_start(args, format);
    vsnprintf(scope.text + used, sizeof scope.text - (size_t)used, format, args);
    va_end(args);
    return scope;
}

static bool reserve(tw_builder *b, int64_t index) {
    if (index < b->capacity) return true;
    int64_t capacity = 2 * index + 64;
    tw_value *values = tw_allocate(b->model->ctx, (size_t)capacity, sizeof *values);
    if (!values) {
        tw_plan_fail(b->plan, TW_ERROR_MEMORY, "the network's list of weights: out of memory");
        return false;
    }
    if (b->capacity) memcpy(values, b->values, (size_t)b->capacity * sizeof *values);
    for (int64_t i = b->capacity; i < capacity; i++) values[i] = TW_NONE;
    tw_free(b->model->ctx, b->values);
    b->values = values;
    b->capacity = capacity;
    return true;
}

/* Declares the weight if the model is new; its index, or -1. */
static int64_t declare(tw_builder *b, const char *name, tw_weight w) {
    tw_weights *all = &b->model->weights;
    if (strlen(name) + 1 >= sizeof(tw_scope)) {
        tw_plan_fail(b->plan, TW_ERROR_INTERNAL, "weight %s: the name is too long", name);
        return -1;
    }
    w.name = (char *)(uintptr_t)name; /* copied */
    if (!all->complete) {
        tw_status s = tw_weights_add(b->model->ctx, all, &w);
        if (s != TW_OK) {
            tw_plan_fail(b->plan, s, "%s", b->model->ctx->error);
            return -1;
        }
    }
    const int64_t index = tw_weights_find(all, name);
    if (index < 0 || all->items[index].rank != w.rank ||
        memcmp(all->items[index].shape, w.shape, (size_t)w.rank * sizeof w.shape[0]) != 0) {
        tw_plan_fail(b->plan, TW_ERROR_INTERNAL, "weight %s: not as it was declared", name);
        return -1;
    }
    return reserve(b, index) ? index : -1;
}

/* Declares the weight if the model is new, and puts it into the plan. */
static tw_value weight(tw_builder *b, const char *scope, const char *name, const char *suffix,
                       tw_weight w) {
    tw_scope layer = tw_scope_in(scope, "%s", name), full = tw_scope_in(layer.text, "%s", suffix);
    const int64_t index = declare(b, full.text, w);
    if (index < 0) return TW_NONE;
    b->values[index] = w.trainable
                           ? tw_plan_parameter(b->plan, full.text, w.rank, w.shape)
                           : tw_plan_input(b->plan, full.text, b->plan->wide, w.rank, w.shape);
    return b->values[index];
}

static tw_value vector(tw_builder *b, const char *scope, const char *name, const char *suffix,
                       int64_t count, int64_t fan_in, tw_init init) {
    return weight(b, scope, name, suffix,
                  (tw_weight){.rank = 1,
                              .shape = {count},
                              .fan_in = fan_in,
                              .init = init,
                              .gain = 1.0,
                              .trainable = true});
}

/* A layer's result has its name. */
static tw_value named(tw_builder *b, const char *scope, const char *name, tw_value y) {
    tw_plan_name(b->plan, y, tw_scope_in(scope, "%s", name).text);
    return b->plan->status == TW_OK ? y : TW_NONE;
}

tw_value tw_layer_conv2d(tw_builder *b, const char *scope, const char *name, tw_value x,
                         int64_t channels, int64_t kernel, tw_conv_options options, tw_init init) {
    if (x == TW_NONE) return TW_NONE;
    int64_t in = tw_layer_channels(b, x), fan_in = in * kernel * kernel;
    tw_value w = weight(b, scope, name, "weight",
                        (tw_weight){.rank = 4,
                                    .shape = {channels, kernel, kernel, in},
                                    .fan_in = fan_in,
                                    .init = init,
                                    .trainable = true});
    tw_value bias = vector(b, scope, name, "bias", channels, fan_in, init);
    return named(b, scope, name, tw_plan_conv2d(b->plan, x, w, bias, options));
}

tw_value tw_layer_linear(tw_builder *b, const char *scope, const char *name, tw_value x,
                         int64_t features, tw_init init) {
    if (x == TW_NONE) return TW_NONE;
    int64_t in = tw_layer_channels(b, x);
    tw_value w = weight(
        b, scope, name, "weight",
        (tw_weight){
            .rank = 2, .shape = {features, in}, .fan_in = in, .init = init, .trainable = true});
    tw_value bias = vector(b, scope, name, "bias", features, in, init);
    return named(b, scope, name, tw_plan_linear(b->plan, x, w, bias));
}

/* A part of a stack of `count` layers' weights or biases; the first of them gets the value that
 * stands for all, named `name`, the others none. Without a name each gets its own. */
static void stacked(tw_builder *b, const char *scope, const char *layer, const char *suffix,
                    const char *name, int count, bool first, tw_weight w, tw_value *out) {
    if (!name) {
        *out = weight(b, scope, layer, suffix, w);
        return;
    }
    const int64_t index =
        declare(b, tw_scope_in(tw_scope_in(scope, "%s", layer).text, "%s", suffix).text, w);
    if (index < 0 || !first) return;
    w.shape[0] *= count;
    const tw_scope full = tw_scope_in(tw_scope_in(scope, "%s", name).text, "%s", suffix);
    *out = b->values[index] = tw_plan_parameter(b->plan, full.text, w.rank, w.shape);
}

void tw_layer_projections(tw_builder *b, const char *scope, tw_value x, int64_t features,
                          bool together, tw_value out[3]) {
    static const char *const names[] = {"to_q", "to_k", "to_v"};
    if (x == TW_NONE) return;
    const int64_t in = tw_layer_channels(b, x);
    const int stack = b->stacks += 2;
    tw_value w[3] = {TW_NONE, TW_NONE, TW_NONE}, bias[3] = {TW_NONE, TW_NONE, TW_NONE};
    const char *name = together && tw_plan_fuses(b->plan, TW_FUSION_QKV) &&
                               b->plan->backend->device == TW_DEVICE_CUDA
                           ? "to_qkv"
                           : NULL;
    for (int i = 0; i < 3; i++) {
        tw_weight like = {.rank = 2,
                          .shape = {features, in},
                          .fan_in = in,
                          .init = TW_INIT_UNIFORM,
                          .gain = 1.0,
                          .trainable = true,
                          .stack = stack};
        stacked(b, scope, names[i], "weight", name, 3, i == 0, like, &w[i]);
        like.rank = 1;
        like.shape[1] = 0;
        like.stack = stack + 1;
        stacked(b, scope, names[i], "bias", name, 3, i == 0, like, &bias[i]);
        if (!name) out[i] = named(b, scope, names[i], tw_plan_linear(b->plan, x, w[i], bias[i]));
    }
    if (!name) return;
    const tw_value all = named(b, scope, name, tw_plan_linear(b->plan, x, w[0], bias[0]));
    if (all == TW_NONE) return;
    tw_plan_split(b->plan, all, (int64_t[]){features, features, features}, 3, out);
}

/* Whether the model's weights are placed for the product of all. */
static bool stacks(const tw_model *model) {
    return model->ctx->backend->device == TW_DEVICE_CUDA &&
           !(model->ctx->no_fusion & TW_FUSION_TIME);
}

/* The weights of all layers of the stack as one, named `suffix`; the first has the index *first.
 * TW_NONE without any. */
static tw_value stack_weight(tw_builder *b, const tw_stack *s, int number, const char *suffix,
                             int64_t *first) {
    const tw_weights *all = &b->model->weights;
    tw_weight whole = {0};
    *first = -1;
    for (int64_t i = 0; i < all->count; i++) {
        const tw_weight *w = &all->items[i];
        if (w->stack != number) continue;
        if (*first < 0) *first = i;
        whole = (tw_weight){.rank = w->rank, .shape = {whole.shape[0] + w->shape[0], w->shape[1]}};
    }
    if (*first < 0 || !reserve(b, *first)) return TW_NONE;
    const tw_scope name = tw_scope_in(s->name, "%s", suffix);
    return b->values[*first] = tw_plan_parameter(b->plan, name.text, whole.rank, whole.shape);
}

tw_stack tw_layer_stack(tw_builder *b, const char *name, tw_value x) {
    tw_stack s = {.name = name, .x = x, .all = TW_NONE, .number = b->stacks += 2};
    if (x == TW_NONE || !b->model->weights.complete || !stacks(b->model) ||
        !tw_plan_fuses(b->plan, TW_FUSION_TIME))
        return s;
    int64_t first_bias;
    const tw_value w = stack_weight(b, &s, s.number, "weight", &s.first);
    const tw_value bias = stack_weight(b, &s, s.number + 1, "bias", &first_bias);
    if (w != TW_NONE) s.all = named(b, "", name, tw_plan_linear(b->plan, x, w, bias));
    return s;
}

tw_columns tw_layer_stacked(tw_builder *b, const tw_stack *s, const char *scope, int64_t features,
                            tw_init init) {
    if (s->x == TW_NONE) return (tw_columns){TW_NONE, 0};
    const int64_t in = tw_layer_channels(b, s->x);
    const bool together = stacks(b->model);
    tw_weight like = {.rank = 2,
                      .shape = {features, in},
                      .fan_in = in,
                      .init = init,
                      .gain = 1.0,
                      .trainable = true,
                      .stack = together ? s->number : 0,
                      .apart = true};
    const char *whole = s->all == TW_NONE ? NULL : s->name;
    tw_value w = TW_NONE, bias = TW_NONE;
    stacked(b, scope, s->name, "weight", whole, 0, false, like, &w);
    like.rank = 1;
    like.shape[1] = 0;
    like.stack += together;
    stacked(b, scope, s->name, "bias", whole, 0, false, like, &bias);
    if (!whole)
        return (tw_columns){named(b, scope, s->name, tw_plan_linear(b->plan, s->x, w, bias)), 0};
    const tw_weights *all = &b->model->weights;
    const tw_scope layer = tw_scope_in(scope, "%s", s->name);
    const int64_t own = tw_weights_find(all, tw_scope_in(layer.text, "weight").text);
    if (own < 0 || in < 1) return (tw_columns){TW_NONE, 0};
    return (tw_columns){s->all, (all->items[own].offset - all->items[s->first].offset) / in};
}

tw_value tw_layer_group_norm(tw_builder *b, const char *scope, const char *name, tw_value x,
                             tw_columns scale_shift, tw_norm_options options) {
    if (x == TW_NONE) return TW_NONE;
    int64_t channels = tw_layer_channels(b, x);
    tw_value gamma = vector(b, scope, name, "weight", channels, 1, TW_INIT_ONE);
    tw_value beta = vector(b, scope, name, "bias", channels, 1, TW_INIT_ZERO);
    return named(b, scope, name,
                 tw_build_group_norm(b->plan, x, gamma, beta, scale_shift, options));
}

tw_value tw_layer_embedding(tw_builder *b, const char *scope, const char *name, tw_value index,
                            int64_t rows, int64_t columns) {
    if (index == TW_NONE) return TW_NONE;
    tw_value table = weight(b, scope, name, "weight",
                            (tw_weight){.rank = 2,
                                        .shape = {rows, columns},
                                        .fan_in = 1,
                                        .init = TW_INIT_NORMAL,
                                        .gain = 1.0,
                                        .trainable = true});
    return named(b, scope, name, tw_plan_embedding(b->plan, table, index));
}

tw_value tw_layer_constant(tw_builder *b, const char *name, int64_t count, double gain) {
    return weight(
        b, "", name, "weight",
        (tw_weight){
            .rank = 1, .shape = {count}, .fan_in = 1, .init = TW_INIT_NORMAL, .gain = gain});
}

tw_value tw_layer_dropout(tw_builder *b, tw_value x, tw_value rng, double p) {
    if (rng == TW_NONE || p == 0.0) return x;
    return tw_plan_dropout(b->plan, x, rng, p, b->dropouts++);
}

tw_value tw_layer_time(tw_builder *b, tw_value x) {
    if (x == TW_NONE || tw_plan_desc(b->plan, x)->dtype == b->plan->wide) return x;
    return tw_plan_convert(b->plan, x, b->plan->wide);
}

int64_t tw_layer_channels(const tw_builder *b, tw_value x) {
    int64_t shape[TW_MAX_RANK];
    int rank = tw_plan_shape(b->plan, x, shape);
    return rank > 0 ? shape[rank - 1] : 0;
}

tw_value tw_layer_fail(tw_builder *b, tw_status status, const char *text) {
    return tw_plan_fail(b->plan, status, "%s", text);
}
