#include "backend/cuda/trial.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "backend/cuda/own.h"
#include "backend/cuda/vendor/vendor.h"
#include "core/halfs.h"

#define ROUNDS 5
#define LAUNCHES 20       /* at most, between two events */
#define MEASURED_FOR 0.5f /* milliseconds, at least, where that many launches take as long */
#define SEED 20251125

/* A provider's way through the claim: kernels one after the other. */
typedef struct side {
    int n, launches;
    tw_kernel kernels[TW_REGION_MAX_OPS];
    void *at[TW_REGION_MAX_OPS][TW_REGION_MAX_SLOTS]; /* what each is given */
    size_t workspace;
    void *recording; /* of `launches` times all of it; null: it cannot be recorded */
    float times[ROUNDS];
} side;

enum { OWN, LIBRARY, SIDES };

typedef struct trial {
    tw_backend *b;
    const tw_region *region;
    bool written[TW_REGION_MAX_SLOTS], seen[TW_REGION_MAX_SLOTS]; /* seen: by others, too */
    void *memory[TW_REGION_MAX_SLOTS], *taken[TW_REGION_MAX_SLOTS], *workspace;
    void *host[SIDES][TW_REGION_MAX_SLOTS]; /* what was seen */
    side sides[SIDES];
    tw_cuda_event from, to;
} trial;

/* --- kernels ---------------------------------------------------------------------------------- */

/* What a kernel of several operations keeps to itself is not stored. */
static void place(const trial *t, const tw_region_op *ops, int claimed, void **at) {
    memcpy(at, t->memory, sizeof t->memory);
    for (int k = 0; k + 1 < claimed; k++)
        for (int i = 0; i < ops[k].n_out; i++)
            if (ops[k].out[i] >= 0 && !t->region->slots[ops[k].out[i]].needed)
                at[ops[k].out[i]] = NULL;
}

/* The whole claim, of which `first` has the beginning. */
static tw_status prepare_side(trial *t, const tw_provider *first, side *s) {
    tw_region rest = *t->region;
    const tw_provider *provider = first;
    while (rest.n_ops > 0) {
        tw_kernel *kernel = &s->kernels[s->n];
        TW_TRY(provider->prepare(t->b, &rest, kernel));
        if (kernel->workspace > s->workspace) s->workspace = kernel->workspace;
        s->n++;
        rest.n_ops -= kernel->claimed;
        memmove(rest.ops, rest.ops + kernel->claimed, (size_t)rest.n_ops * sizeof *rest.ops);
        provider = &tw_provider_own;
    }
    return TW_OK;
}

static void place_side(const trial *t, side *s) {
    const tw_region_op *ops = t->region->ops;
    for (int k = 0; k < s->n; k++) {
        place(t, ops, s->kernels[k].claimed, s->at[k]);
        ops += s->kernels[k].claimed;
    }
}

static tw_status run_side(const trial *t, const side *s) {
    for (int k = 0; k < s->n; k++)
        TW_TRY(s->kernels[k].run(&s->kernels[k], t->b, s->at[k], t->workspace));
    return TW_OK;
}

/* --- operands --------------------------------------------------------------------------------- */

static void look_at_slots(trial *t) {
    const tw_region *r = t->region;
    for (int k = 0; k < r->n_ops; k++)
        for (int i = 0; i < r->ops[k].n_out; i++) {
            const int slot = r->ops[k].out[i];
            if (slot < 0) continue;
            t->written[slot] = true;
            t->seen[slot] = r->slots[slot].needed || k + 1 == r->n_ops;
        }
}

/* Aligned as the plan's is, and no better: kernels and engines differ by it. */
static tw_status allocate_slot(trial *t, int slot) {
    const int known = t->region->slots[slot].alignment;
    const size_t bytes = tw_desc_bytes(&t->region->slots[slot].desc);
    const size_t shift = known < 256 ? (size_t)known : 0;
    TW_TRY(t->b->allocate(t->b, bytes + shift, &t->taken[slot]));
    t->memory[slot] = (char *)t->taken[slot] + shift;
    for (int s = 0; s < SIDES && t->seen[slot]; s++) {
        t->host[s][slot] = tw_allocate(t->b->ctx, bytes, 1);
        if (!t->host[s][slot]) return TW_ERROR_MEMORY;
    }
    return TW_OK;
}

static tw_status allocate(trial *t) {
    const tw_region *r = t->region;
    size_t workspace = 0;
    for (int i = 0; i < SIDES; i++)
        if (t->sides[i].workspace > workspace) workspace = t->sides[i].workspace;
    TW_TRY(t->b->allocate(t->b, workspace, &t->workspace));
    for (int k = 0; k < r->n_ops; k++) {
        const tw_region_op *op = &r->ops[k];
        for (int i = 0; i < op->n_in + op->n_out; i++) {
            const int slot = i < op->n_in ? op->in[i] : op->out[i - op->n_in];
            if (slot >= 0 && !t->memory[slot]) TW_TRY(allocate_slot(t, slot));
        }
    }
    return TW_OK;
}

/* Standard normals: in what is read, and in what is written too, since gradients are added to and
 * what a provider forgets to write must differ from what the other wrote. */
static tw_status fill(const trial *t) {
    for (int slot = 0; slot < t->region->n_slots; slot++) {
        const tw_desc *d = &t->region->slots[slot].desc;
        if (!t->memory[slot]) continue;
        const int64_t batch = d->rank > 0 ? d->dim[0] : 1;
        const twk_noise_fill_args a = {.batch = batch,
                                       .elements = tw_desc_count(d) / batch,
                                       .out = t->memory[slot],
                                       .format = tw_own_format(d->dtype),
                                       .kind = TWK_FILL_NORMAL,
                                       .scale = 1,
                                       .noise = {.seed = SEED, .first_sample = (uint64_t)slot}};
        if (twk_noise_fill(&a, tw_cuda_of(t->b)->stream) != TWK_OK)
            return tw_fail(t->b->ctx, TW_ERROR_DEVICE, "tuning: operands: %s", twk_error_text());
    }
    return TW_OK;
}

/* Whether the kernels can make all operands up. */
static bool is_real(const tw_region *r) {
    for (int k = 0; k < r->n_ops; k++)
        for (int i = 0; i < r->ops[k].n_in; i++) {
            const int slot = r->ops[k].in[i];
            if (slot < 0) continue;
            const tw_dtype dtype = r->slots[slot].desc.dtype;
            if (dtype != TW_F32 && dtype != TW_BF16 && dtype != TW_F16) return false;
        }
    return true;
}

/* --- results ---------------------------------------------------------------------------------- */

static tw_status results_of(trial *t, int s) {
    TW_TRY(fill(t));
    TW_TRY(t->b->fill(t->b, t->workspace, 0xff, t->sides[s].workspace));
    TW_TRY(run_side(t, &t->sides[s]));
    for (int slot = 0; slot < t->region->n_slots; slot++)
        if (t->seen[slot])
            TW_TRY(t->b->download(t->b, t->host[s][slot], t->memory[slot],
                                  tw_desc_bytes(&t->region->slots[slot].desc)));
    return TW_OK;
}

static double value(const void *from, tw_dtype dtype, int64_t i) {
    if (dtype == TW_F32) return (double)((const float *)from)[i];
    const uint16_t half = ((const uint16_t *)from)[i];
    return (double)(dtype == TW_BF16 ? tw_bf16_to_f32(half) : tw_f16_to_f32(half));
}

/* As vendor/tune.c compares engines: within the tolerance of the arithmetic, of the element's
 * magnitude and of the mean one. NaN agrees with nothing. */
static void compare(const trial *t, int slot, double tolerance, tw_trial_result *out) {
    const tw_desc *d = &t->region->slots[slot].desc;
    const void *own = t->host[OWN][slot], *library = t->host[LIBRARY][slot];
    const int64_t n = tw_desc_count(d);
    double squares = 0;
    for (int64_t i = 0; i < n; i++) squares += value(own, d->dtype, i) * value(own, d->dtype, i);
    const double mean = sqrt(squares / (double)n);
    for (int64_t i = 0; i < n; i++) {
        const double want = value(own, d->dtype, i), got = value(library, d->dtype, i);
        if (fabs(got - want) <= tolerance * (fabs(want) + mean)) continue;
        snprintf(out->refusal, sizeof out->refusal,
                 "it disagrees with own: element %lld of %lld is %.6g, not %.6g", (long long)i,
                 (long long)n, got, want);
        return;
    }
}

static void compare_all(const trial *t, tw_trial_result *out) {
    const tw_own_fused f = tw_own_fuse(t->region);
    const tw_dtype format = t->region->slots[t->region->ops[f.product].in[0]].desc.dtype;
    const double tolerance =
        tw_vendor_tolerance(tw_own_format(format), format == TW_F32 && t->region->tf32);
    for (int slot = 0; slot < t->region->n_slots && !*out->refusal; slot++)
        if (t->seen[slot]) compare(t, slot, tolerance, out);
}

/* --- time ------------------------------------------------------------------------------------- */

/* Milliseconds of one launch of the claim. */
static tw_status measure(const trial *t, const side *s, float *out) {
    const tw_cuda_backend *c = tw_cuda_of(t->b);
    TW_TRY(tw_cuda_check(t->b, c->rt->event_record(t->from, c->stream), "an event"));
    if (s->recording) TW_TRY(t->b->replay(t->b, s->recording));
    for (int i = 0; i < s->launches && !s->recording; i++) TW_TRY(run_side(t, s));
    TW_TRY(tw_cuda_check(t->b, c->rt->event_record(t->to, c->stream), "an event"));
    TW_TRY(tw_cuda_check(t->b, c->rt->event_synchronize(t->to), "timing"));
    TW_TRY(tw_cuda_check(t->b, c->rt->event_elapsed(t->from, t->to, out), "timing"));
    *out /= (float)s->launches;
    return TW_OK;
}

/* As a plan's run is: recorded, so that the host's part of a launch does not count. */
static void record(const trial *t, side *s) {
    if (t->b->record(t->b) != TW_OK) return;
    tw_status status = TW_OK;
    for (int i = 0; i < s->launches && status == TW_OK; i++) status = run_side(t, s);
    if (t->b->recorded(t->b, &s->recording) != TW_OK) s->recording = NULL;
    if (status == TW_OK || !s->recording) return;
    t->b->forget(t->b, s->recording);
    s->recording = NULL;
}

static int by_value(const void *a, const void *b) {
    const float x = *(const float *)a, y = *(const float *)b;
    return (x > y) - (x < y);
}

/* In rounds, so that a slow moment of the machine does not strike one side alone; the medians. */
static tw_status time_both(trial *t, tw_trial_result *out) {
    float *const medians[SIDES] = {&out->own, &out->library};
    for (int i = 0; i < SIDES; i++) {
        side *s = &t->sides[i];
        float once = 0;
        s->launches = 1;
        TW_TRY(measure(t, s, &once));
        const float wanted = once > 0 ? MEASURED_FOR / once : LAUNCHES;
        s->launches = wanted < 1 ? 1 : wanted > LAUNCHES ? LAUNCHES : (int)wanted;
        record(t, s);
    }
    for (int round = 0; round < ROUNDS; round++)
        for (int i = 0; i < SIDES; i++) TW_TRY(measure(t, &t->sides[i], &t->sides[i].times[round]));
    for (int i = 0; i < SIDES; i++) {
        qsort(t->sides[i].times, ROUNDS, sizeof(float), by_value);
        *medians[i] = t->sides[i].times[ROUNDS / 2];
    }
    return TW_OK;
}

/* --- all of it -------------------------------------------------------------------------------- */

static tw_status try_both(trial *t, tw_trial_result *out) {
    const tw_cuda_runtime *rt = tw_cuda_of(t->b)->rt;
    TW_TRY(prepare_side(t, &tw_provider_own, &t->sides[OWN]));
    TW_TRY(prepare_side(t, &tw_provider_library, &t->sides[LIBRARY]));
    look_at_slots(t);
    TW_TRY(allocate(t));
    for (int i = 0; i < SIDES; i++) place_side(t, &t->sides[i]);
    t->b->parameters_changed = true;
    TW_TRY(results_of(t, OWN));
    if (results_of(t, LIBRARY) == TW_OK)
        compare_all(t, out);
    else
        snprintf(out->refusal, sizeof out->refusal, "it does not run: %.130s", t->b->ctx->error);
    if (*out->refusal) return TW_OK;
    TW_TRY(tw_cuda_check(t->b, rt->timer_create(&t->from), "an event"));
    TW_TRY(tw_cuda_check(t->b, rt->timer_create(&t->to), "an event"));
    return time_both(t, out);
}

static void clean_up(trial *t) {
    tw_backend *b = t->b;
    const tw_cuda_runtime *rt = tw_cuda_of(b)->rt;
    for (int i = 0; i < SIDES; i++) {
        side *s = &t->sides[i];
        b->forget(b, s->recording);
        for (int k = 0; k < s->n; k++)
            if (s->kernels[k].destroy) s->kernels[k].destroy(&s->kernels[k], b);
        for (int slot = 0; slot < TW_REGION_MAX_SLOTS; slot++) tw_free(b->ctx, t->host[i][slot]);
    }
    for (int slot = 0; slot < TW_REGION_MAX_SLOTS; slot++) b->release(b, t->taken[slot]);
    b->release(b, t->workspace);
    if (t->from) rt->event_destroy(t->from);
    if (t->to) rt->event_destroy(t->to);
}

tw_status tw_trial_run(tw_backend *b, const tw_region *region, tw_trial_result *out) {
    *out = (tw_trial_result){0};
    if (!is_real(region)) return TW_ERROR_UNSUPPORTED;
    TW_TRY(b->begin(b));
    trial *t = tw_allocate(b->ctx, 1, sizeof *t);
    if (!t) return TW_ERROR_MEMORY;
    t->b = b;
    t->region = region;
    const tw_status s = try_both(t, out);
    clean_up(t);
    tw_free(b->ctx, t);
    b->end(b);
    return s;
}
