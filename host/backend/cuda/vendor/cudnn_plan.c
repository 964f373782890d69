/* From a graph to plans. vendor.h says how they are chosen. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "backend/cuda/vendor/cudnn.h"

#define MOST_PROPOSALS 128
#define NOTES 16

/* A search and what became of the proposals. */
typedef struct search {
    tw_vendor *v;
    const tw_cudnn *cudnn;
    const tw_cudnn_wish *wish;
    int most, n;
    tw_vendor_plan **plans;
    int proposed, compiled, inexact, too_large, failed;
} search;

typedef enum verdict { USABLE, COMPILED, INEXACT } verdict;

static bool among(const int *notes, int64_t n, int note) {
    for (int64_t i = 0; i < n; i++)
        if (notes[i] == note) return true;
    return false;
}

static bool notes_of(const tw_cudnn *c, cudnnBackendDescriptor_t engine,
                     cudnnBackendAttributeName_t name, cudnnBackendAttributeType_t type, int *notes,
                     int64_t *n) {
    *n = 0;
    return c->api.BackendGetAttribute(engine, name, type, NOTES, n, notes) == CUDNN_STATUS_SUCCESS;
}

_Static_assert(sizeof(cudnnBackendNumericalNote_t) == sizeof(int) &&
                   sizeof(cudnnBackendBehaviorNote_t) == sizeof(int),
               "notes are read as int");

static verdict judge(const search *s, cudnnBackendDescriptor_t engine) {
    /* What changes results from run to run, or bounds of the error. */
    static const int unwanted[] = {CUDNN_NUMERICAL_NOTE_DOWN_CONVERT_INPUTS,
                                   CUDNN_NUMERICAL_NOTE_REDUCED_PRECISION_REDUCTION,
                                   CUDNN_NUMERICAL_NOTE_FFT,
                                   CUDNN_NUMERICAL_NOTE_NONDETERMINISTIC,
                                   CUDNN_NUMERICAL_NOTE_WINOGRAD,
                                   CUDNN_NUMERICAL_NOTE_WINOGRAD_TILE_4x4,
                                   CUDNN_NUMERICAL_NOTE_WINOGRAD_TILE_6x6,
                                   CUDNN_NUMERICAL_NOTE_WINOGRAD_TILE_13x13};
    int behaviour[NOTES], numerical[NOTES];
    int64_t n_behaviour, n_numerical;
    if (!notes_of(s->cudnn, engine, CUDNN_ATTR_ENGINE_BEHAVIOR_NOTE, CUDNN_TYPE_BEHAVIOR_NOTE,
                  behaviour, &n_behaviour) ||
        !notes_of(s->cudnn, engine, CUDNN_ATTR_ENGINE_NUMERICAL_NOTE, CUDNN_TYPE_NUMERICAL_NOTE,
                  numerical, &n_numerical))
        return INEXACT; /* nothing is known about it */
    for (size_t i = 0; i < sizeof unwanted / sizeof *unwanted; i++)
        if (among(numerical, n_numerical, unwanted[i])) return INEXACT;
    if (s->wish->exact_f32 && among(numerical, n_numerical, CUDNN_NUMERICAL_NOTE_TENSOR_CORE))
        return INEXACT;
    if (!s->v->options.compile &&
        among(behaviour, n_behaviour, CUDNN_BEHAVIOR_NOTE_RUNTIME_COMPILATION))
        return COMPILED;
    return USABLE;
}

/* The plan of a configuration, which it takes over. NULL where the library cannot make it or it is
 * too large. */
static tw_cudnn_plan *make_plan(search *s, cudnnBackendDescriptor_t config, int64_t engine) {
    const tw_cudnn *c = s->cudnn;
    tw_cudnn_builder b = {.cudnn = c};
    cudnnBackendDescriptor_t d = tw_cudnn_make(&b, CUDNN_BACKEND_EXECUTION_PLAN_DESCRIPTOR);
    tw_cudnn_set_descriptor(&b, d, CUDNN_ATTR_EXECUTION_PLAN_ENGINE_CONFIG, config);
    if (c->handle) /* needed before 9.8 */
        tw_cudnn_set(&b, d, CUDNN_ATTR_EXECUTION_PLAN_HANDLE, CUDNN_TYPE_HANDLE, 1, &c->handle);
#if CUDNN_VERSION >= 90800
    if (c->device) tw_cudnn_set_descriptor(&b, d, CUDNN_ATTR_EXECUTION_PLAN_DEVICEPROP, c->device);
#endif
    tw_cudnn_finish(&b, d, "a plan");
    int64_t bytes = 0, n = 0;
    if (b.status != CUDNN_STATUS_SUCCESS ||
        c->api.BackendGetAttribute(d, CUDNN_ATTR_EXECUTION_PLAN_WORKSPACE_SIZE, CUDNN_TYPE_INT64, 1,
                                   &n, &bytes) != CUDNN_STATUS_SUCCESS) {
        s->failed++;
    } else if ((uint64_t)bytes > s->v->options.workspace_limit) {
        s->too_large++;
    } else {
        tw_cudnn_plan *p = calloc(1, sizeof *p);
        if (p) {
            p->config = config;
            p->plan = d;
            p->base.bytes = (size_t)bytes;
            p->base.choice.engine = engine;
            return p;
        }
    }
    tw_cudnn_clear(&b);
    return NULL;
}

/* Takes the configuration over. */
static void consider(search *s, cudnnBackendDescriptor_t config, int rank, const char *mode) {
    const tw_cudnn *c = s->cudnn;
    tw_cudnn_builder b = {.cudnn = c};
    cudnnBackendDescriptor_t engine = tw_cudnn_make(&b, CUDNN_BACKEND_ENGINE_DESCRIPTOR);
    int64_t n = 0, index = -1;
    tw_cudnn_plan *p = NULL;
    s->proposed++;
    if (engine && c->api.BackendGetAttribute(config, CUDNN_ATTR_ENGINECFG_ENGINE,
                                             CUDNN_TYPE_BACKEND_DESCRIPTOR, 1, &n,
                                             &engine) == CUDNN_STATUS_SUCCESS) {
        c->api.BackendGetAttribute(engine, CUDNN_ATTR_ENGINE_GLOBAL_INDEX, CUDNN_TYPE_INT64, 1, &n,
                                   &index);
        const verdict is = judge(s, engine);
        s->compiled += is == COMPILED;
        s->inexact += is == INEXACT;
        if (is == USABLE) p = make_plan(s, config, index);
    } else {
        s->failed++;
    }
    tw_cudnn_clear(&b);
    if (!p) {
        c->api.BackendDestroyDescriptor(config);
        return;
    }
    p->base.choice.plan = ++s->v->plans_made;
    p->base.choice.rank = rank;
    snprintf(p->base.choice.text, sizeof p->base.choice.text, "%s: engine %lld, %s", c->name,
             (long long)index, mode);
    s->plans[s->n++] = &p->base;
}

/* The proposals of one mode, as far as plans are wanted. */
static void ask(search *s, cudnnBackendDescriptor_t graph, cudnnBackendHeurMode_t mode,
                const char *name) {
    const tw_cudnn *c = s->cudnn;
    cudnnBackendDescriptor_t config[MOST_PROPOSALS];
    tw_cudnn_builder b = {.cudnn = c};
    cudnnBackendDescriptor_t d = tw_cudnn_make(&b, CUDNN_BACKEND_ENGINEHEUR_DESCRIPTOR);
    tw_cudnn_set_descriptor(&b, d, CUDNN_ATTR_ENGINEHEUR_OPERATION_GRAPH, graph);
    tw_cudnn_set(&b, d, CUDNN_ATTR_ENGINEHEUR_MODE, CUDNN_TYPE_HEUR_MODE, 1, &mode);
#if CUDNN_VERSION >= 90800
    if (c->device) tw_cudnn_set_descriptor(&b, d, CUDNN_ATTR_ENGINEHEUR_DEVICEPROP, c->device);
#endif
    tw_cudnn_finish(&b, d, "heuristics");
    int64_t n = 0, got = 0;
    int made = 0;
    if (b.status == CUDNN_STATUS_SUCCESS)
        c->api.BackendGetAttribute(d, CUDNN_ATTR_ENGINEHEUR_RESULTS, CUDNN_TYPE_BACKEND_DESCRIPTOR,
                                   0, &n, NULL);
    if (n > MOST_PROPOSALS) n = MOST_PROPOSALS;
    while (made < n && c->api.BackendCreateDescriptor(CUDNN_BACKEND_ENGINECFG_DESCRIPTOR,
                                                      &config[made]) == CUDNN_STATUS_SUCCESS)
        made++;
    /* Of those that it counts, it leaves out what this device cannot run. */
    if (made > 0 &&
        c->api.BackendGetAttribute(d, CUDNN_ATTR_ENGINEHEUR_RESULTS, CUDNN_TYPE_BACKEND_DESCRIPTOR,
                                   made, &got, config) != CUDNN_STATUS_SUCCESS)
        got = 0;
    for (int i = 0; i < made; i++) {
        if (i < got && s->n < s->most)
            consider(s, config[i], i, name);
        else
            c->api.BackendDestroyDescriptor(config[i]);
    }
    tw_cudnn_clear(&b);
}

static twk_status none_found(const search *s) {
    if (!s->proposed)
        return tw_vendor_fail(TWK_UNSUPPORTED, "%s: %s: no engine%s", s->cudnn->name, s->wish->what,
                              s->v->options.compile ? "" : " that is compiled already");
    return tw_vendor_fail(TWK_UNSUPPORTED,
                          "%s: %s: of %d engines %d would be compiled at run time, %d are not "
                          "exact or repeatable, %d ask for too much workspace, %d fail",
                          s->cudnn->name, s->wish->what, s->proposed, s->compiled, s->inexact,
                          s->too_large, s->failed);
}

twk_status tw_cudnn_plans(tw_vendor *v, cudnnBackendDescriptor_t graph, const tw_cudnn_wish *wish,
                          int most, tw_vendor_plan **plans, int *n) {
    search s = {.v = v, .cudnn = v->cudnn, .wish = wish, .most = most, .plans = plans};
    ask(&s, graph, CUDNN_HEUR_MODE_A, "heuristic A");
    if (!s.n) ask(&s, graph, CUDNN_HEUR_MODE_B, "heuristic B");
    if (s.n < most) ask(&s, graph, CUDNN_HEUR_MODE_FALLBACK, "fallback");
    *n = s.n;
    return s.n ? TWK_OK : none_found(&s);
}

void tw_cudnn_free_plan(tw_vendor *v, tw_vendor_plan *plan) {
    tw_cudnn_plan *p = (tw_cudnn_plan *)plan;
    v->cudnn->api.BackendDestroyDescriptor(p->plan);
    v->cudnn->api.BackendDestroyDescriptor(p->config);
    free(p);
}

void tw_cudnn_bind(tw_cudnn_binding *b, int64_t uid, const void *address) {
    b->uid[b->n] = uid;
    b->address[b->n++] = (void *)address;
}

twk_status tw_cudnn_execute(tw_vendor *v, const tw_vendor_plan *plan, const tw_cudnn_binding *bound,
                            void *workspace, twk_stream stream) {
    const tw_cudnn *c = v->cudnn;
    tw_cudnn_builder b = {.cudnn = c};
    cudnnBackendDescriptor_t d = tw_cudnn_make(&b, CUDNN_BACKEND_VARIANT_PACK_DESCRIPTOR);
    tw_cudnn_set(&b, d, CUDNN_ATTR_VARIANT_PACK_UNIQUE_IDS, CUDNN_TYPE_INT64, bound->n, bound->uid);
    tw_cudnn_set(&b, d, CUDNN_ATTR_VARIANT_PACK_DATA_POINTERS, CUDNN_TYPE_VOID_PTR, bound->n,
                 bound->address);
    tw_cudnn_set(&b, d, CUDNN_ATTR_VARIANT_PACK_WORKSPACE, CUDNN_TYPE_VOID_PTR, 1, &workspace);
    tw_cudnn_finish(&b, d, "addresses");
    if (b.status == CUDNN_STATUS_SUCCESS) {
        b.where = "execution";
        b.status = c->api.SetStream(c->handle, stream);
        if (b.status == CUDNN_STATUS_SUCCESS)
            b.status = c->api.BackendExecute(c->handle, ((const tw_cudnn_plan *)plan)->plan, d);
    }
    twk_status status = TWK_OK;
    if (b.status != CUDNN_STATUS_SUCCESS) {
        tw_cudnn_cannot(&b, plan->choice.text);
        status = TWK_LAUNCH_FAILED;
    }
    tw_cudnn_clear(&b);
    return status;
}
