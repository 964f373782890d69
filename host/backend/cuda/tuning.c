#include "backend/cuda/tuning.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "backend/cuda/own.h"
#include "backend/cuda/trial.h"
#include "io/file.h"
#include "io/json.h"

#define REGION_TEXT 4096

typedef struct tw_tuning {
    json_t *choices; /* by the region's text */
    bool changed;    /* since they were read or written */
    char capability[16], libraries[512];
} tw_tuning;

/* --- the file --------------------------------------------------------------------------------- */

typedef struct header {
    const char *key, *value;
} header;
#define HEADERS 5

static void headers_of(const tw_cuda_backend *c, header *out) {
    const header all[HEADERS] = {{"tweedie", TW_VERSION_STRING},
                                 {"device", c->properties.name},
                                 {"capability", c->tuning->capability},
                                 {"cuda", c->rt->version()},
                                 {"libraries", c->tuning->libraries}};
    memcpy(out, all, sizeof all);
}

static tw_status check_choice(const tw_json *choices, const char *key) {
    tw_json choice;
    const char *provider = "", *refused = "";
    TW_TRY(tw_json_get_object(choices, key, &choice));
    TW_TRY(tw_json_require(&choice, "provider"));
    TW_TRY(tw_json_get_string(&choice, "provider", &provider));
    TW_TRY(tw_json_get_string(&choice, "refused", &refused));
    if (!strcmp(provider, tw_provider_own.name) || !strcmp(provider, tw_provider_library.name))
        return TW_OK;
    return tw_fail(choices->ctx, TW_ERROR_FORMAT, "%s: provider: expected own or cudnn, got \"%s\"",
                   choices->name, provider);
}

/* TW_OK with its choices, which the document keeps; TW_ERROR_FORMAT where it is not ours. */
static tw_status read_document(tw_cuda_backend *c, const tw_json *json, json_t **out) {
    header wanted[HEADERS];
    tw_json choices;
    const char *key;
    json_t *value;
    headers_of(c, wanted);
    for (int i = 0; i < HEADERS; i++) {
        const char *got = "";
        TW_TRY(tw_json_require(json, wanted[i].key));
        TW_TRY(tw_json_get_string(json, wanted[i].key, &got));
        if (strcmp(got, wanted[i].value) != 0)
            return tw_fail(json->ctx, TW_ERROR_FORMAT, "%s: its %s is \"%s\", this one's is \"%s\"",
                           json->name, wanted[i].key, got, wanted[i].value);
    }
    TW_TRY(tw_json_require(json, "choices"));
    TW_TRY(tw_json_get_object(json, "choices", &choices));
    json_object_foreach((json_t *)(uintptr_t)choices.object, key, value)
        TW_TRY(check_choice(&choices, key));
    *out = (json_t *)(uintptr_t)choices.object;
    return TW_OK;
}

/* A file that is broken or of something else is said and put aside: it only saves time. */
static void read_file(tw_cuda_backend *c, const char *file) {
    tw_context *ctx = c->base.ctx;
    json_t *document = NULL, *choices = NULL;
    if (!tw_file_exists(file)) return;
    tw_status s = tw_json_load(ctx, file, &document);
    if (s == TW_OK) s = read_document(c, &(tw_json){ctx, file, document}, &choices);
    if (s == TW_OK)
        json_object_update(c->tuning->choices, choices);
    else
        tw_log(ctx, TW_LOG_WARNING, "choices of providers are not taken up, and made again: %s",
               ctx->error);
    ctx->error[0] = '\0';
    json_decref(document);
}

tw_status tw_cuda_save_tuning(tw_backend *b, const char *file) {
    tw_cuda_backend *c = tw_cuda_of(b);
    header headers[HEADERS];
    if (!c->tuning || !c->tuning->changed) return TW_OK;
    json_t *document = json_object();
    headers_of(c, headers);
    for (int i = 0; i < HEADERS; i++)
        json_object_set_new(document, headers[i].key, json_string(headers[i].value));
    json_object_set(document, "choices", c->tuning->choices);
    char *text = json_dumps(document, JSON_INDENT(1) | JSON_REAL_PRECISION(6));
    json_decref(document);
    if (!text) return tw_fail(b->ctx, TW_ERROR_MEMORY, "tuning: out of memory");
    const tw_status s = tw_file_write(b->ctx, file, text, strlen(text));
    free(text);
    if (s == TW_OK) c->tuning->changed = false;
    return s;
}

/* --- choosing --------------------------------------------------------------------------------- */

static tw_status keep(tw_cuda_backend *c, const char *key, const tw_trial_result *r) {
    const bool refused = *r->refusal, library = !refused && r->library < r->own;
    json_t *choice = json_object();
    const char *name = library ? tw_provider_library.name : tw_provider_own.name;
    int failed = json_object_set_new(choice, "provider", json_string(name));
    if (refused) {
        failed |= json_object_set_new(choice, "refused", json_string(r->refusal));
    } else {
        failed |= json_object_set_new(choice, "own_ms", json_real((double)r->own));
        failed |= json_object_set_new(choice, "cudnn_ms", json_real((double)r->library));
    }
    failed |= json_object_set_new(c->tuning->choices, key, choice);
    if (failed) return tw_fail(c->base.ctx, TW_ERROR_MEMORY, "tuning: out of memory");
    c->tuning->changed = true;
    return TW_OK;
}

static const tw_provider *take_up(tw_backend *b, const json_t *choice) {
    const char *name = json_string_value(json_object_get(choice, "provider"));
    const char *refused = json_string_value(json_object_get(choice, "refused"));
    b->choices.tuned++;
    if (refused) tw_choices_refused(&b->choices, tw_provider_library.name, refused);
    return name && !strcmp(name, tw_provider_library.name) ? &tw_provider_library
                                                           : &tw_provider_own;
}

/* Without the memory for it the table decides. */
static tw_status try_region(tw_backend *b, const tw_region *region, const char *key) {
    tw_trial_result r;
    const tw_status s = tw_trial_run(b, region, &r);
    if (s == TW_ERROR_MEMORY)
        tw_log(b->ctx, TW_LOG_WARNING, "tuning: %s is not timed: %s",
               tw_op_name(region->ops[0].kind), b->ctx->error);
    if (s == TW_ERROR_MEMORY || s == TW_ERROR_UNSUPPORTED) return TW_OK;
    TW_TRY(s);
    b->choices.timed++;
    if (*r.refusal)
        tw_log(b->ctx, TW_LOG_WARNING, "tuning: cudnn is refused for %s: %s", key, r.refusal);
    else
        tw_log(b->ctx, TW_LOG_INFO, "tuning: own %.4f ms, cudnn %.4f ms: %s", (double)r.own,
               (double)r.library, key);
    return keep(tw_cuda_of(b), key, &r);
}

tw_status tw_cuda_tuned(tw_backend *b, const tw_region *region, const tw_own_fused *f,
                        const tw_provider **out) {
    const tw_cuda_backend *c = tw_cuda_of(b);
    char key[REGION_TEXT];
    *out = NULL;
    if (!c->tuning || !tw_cuda_library_has(region->ops[f->product].kind)) return TW_OK;
    tw_region part = *region;
    part.n_ops = f->claimed;
    if (!tw_region_text(&part, key, sizeof key)) return TW_OK;
    const json_t *choice = json_object_get(c->tuning->choices, key);
    if (!choice && !b->plans_only) {
        TW_TRY(try_region(b, &part, key));
        choice = json_object_get(c->tuning->choices, key);
    }
    if (choice) *out = take_up(b, choice);
    return TW_OK;
}

/* --- beginning and ending --------------------------------------------------------------------- */

tw_status tw_cuda_tune(tw_backend *b, const char *file) {
    tw_cuda_backend *c = tw_cuda_of(b);
    if (!c->vendor || !b->order)
        return tw_fail(b->ctx, TW_ERROR_ARGUMENT,
                       "tuning: it chooses where the provider is auto, and %s was asked for",
                       c->list[0]->name);
    if (!c->tuning) {
        c->tuning = tw_allocate(b->ctx, 1, sizeof *c->tuning);
        if (!c->tuning) return TW_ERROR_MEMORY;
        c->tuning->choices = json_object();
        snprintf(c->tuning->capability, sizeof c->tuning->capability, "%d.%d", c->properties.major,
                 c->properties.minor);
        tw_cuda_name_libraries(b, c->tuning->libraries, sizeof c->tuning->libraries);
    }
    if (file) read_file(c, file);
    return TW_OK;
}

void tw_cuda_tuning_free(tw_cuda_backend *c) {
    if (!c->tuning) return;
    json_decref(c->tuning->choices);
    tw_free(c->base.ctx, c->tuning);
}
