/* Calls: from arguments to a plan, and its turn on the stream. */
#include "backend/cuda/vendor/vendor.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "backend/cuda/vendor/internal.h"

#define ALIGNMENT ((size_t)256)

static _Thread_local char last_text[TW_VENDOR_TEXT] = "no error";

const char *tw_vendor_text(void) {
    return last_text;
}

twk_status tw_vendor_fail(twk_status status, const char *format, ...) {
    va_list list;
    va_start(list, format);
    char text[TW_VENDOR_TEXT]; /* an argument may be the last text */
    vsnprintf(text, sizeof text, format, list);
    va_end(list);
    memcpy(last_text, text, sizeof text);
    return status;
}

/* --- making and ending ------------------------------------------------------------------------ */

static void free_options(tw_vendor_options *o) {
    free((char *)o->cudnn);
    free((char *)o->cublaslt);
    free((char *)o->driver);
    free((char *)o->device);
}

twk_status tw_vendor_create(const tw_vendor_options *options, tw_vendor **out) {
    const tw_vendor_options none = {0};
    tw_vendor *v = calloc(1, sizeof *v);
    *out = NULL;
    if (!v) return tw_vendor_fail(TWK_UNSUPPORTED, "vendor libraries: out of memory");
    v->options = options ? *options : none;
    if (!v->options.workspace_limit) v->options.workspace_limit = (size_t)256 << 20;
    const char **const texts[] = {&v->options.cudnn, &v->options.cublaslt, &v->options.driver,
                                  &v->options.device};
    bool copied = true;
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) {
        const char *const text = *texts[i];
        *texts[i] = text ? strdup(text) : NULL;
        copied = copied && (!text || *texts[i]);
    }
    pthread_mutex_init(&v->lock, NULL);
    *out = v;
    if (copied) return TWK_OK;
    tw_vendor_destroy(v);
    *out = NULL;
    return tw_vendor_fail(TWK_UNSUPPORTED, "vendor libraries: out of memory");
}

void tw_vendor_destroy(tw_vendor *v) {
    if (!v) return;
    tw_vendor_forget_all(v);
#ifdef TW_WITH_CUDNN
    tw_cudnn_close(v->cudnn);
#endif
#ifdef TW_WITH_CUBLASLT
    tw_cublaslt_close(v->cublaslt);
#endif
    tw_driver_close(v->driver);
    free_options(&v->options);
    pthread_mutex_destroy(&v->lock);
    free(v);
}

/* --- from a call to its plan ------------------------------------------------------------------ */

static const tw_vendor_family *family_of(tw_vendor_op op) {
    switch (op) {
#ifdef TW_WITH_CUDNN
    case TW_VENDOR_CONV_FORWARD:
    case TW_VENDOR_CONV_INPUT_GRADIENT:
    case TW_VENDOR_CONV_WEIGHT_GRADIENT:
        return &tw_cudnn_conv;
    case TW_VENDOR_ATTENTION_FORWARD:
    case TW_VENDOR_ATTENTION_BACKWARD:
        return &tw_cudnn_attention;
#endif
#ifdef TW_WITH_CUBLASLT
    case TW_VENDOR_GEMM:
        return &tw_cublaslt_gemm;
#endif
    default:
        return NULL;
    }
}

static twk_status without_headers(tw_vendor_op op) {
    return tw_vendor_fail(TWK_UNSUPPORTED, "this build was made without the headers of %s",
                          op == TW_VENDOR_GEMM ? "cuBLASLt" : "cuDNN");
}

static twk_status check(const tw_vendor *v, const tw_vendor_call *call,
                        const tw_vendor_family **family) {
    if (!v || !call || (unsigned)call->op >= TW_VENDOR_OP_COUNT || !call->args.conv)
        return tw_vendor_fail(TWK_BAD_ARGUMENT, "vendor libraries: no arguments");
    *family = family_of(call->op);
    if (!*family) return without_headers(call->op);
    return (*family)->check(call);
}

/* With the lock held. */
static twk_status entry_of(tw_vendor *v, const tw_vendor_family *family, const tw_vendor_call *call,
                           tw_vendor_entry **out) {
    twk_status status = family->open(v);
    if (status != TWK_OK) return status;
    tw_vendor_key key = {1, {call->op}};
    family->key(call, &key);
    tw_vendor_entry *e = tw_vendor_find(v, &key);
    if (!e) {
        tw_vendor_plan *plan = NULL;
        int n = 0;
        status = family->plans(v, call, 1, &plan, &n);
        if (status != TWK_OK && status != TWK_UNSUPPORTED) return status;
        e = tw_vendor_keep(v, &key, family, status == TWK_OK ? plan : NULL);
        if (!e) {
            if (status == TWK_OK) family->free(v, plan);
            return tw_vendor_fail(TWK_UNSUPPORTED, "vendor libraries: out of memory");
        }
    }
    if (!e->plan) return tw_vendor_fail(TWK_UNSUPPORTED, "%s", e->reason);
    *out = e;
    return TWK_OK;
}

/* --- workspace -------------------------------------------------------------------------------- */

static void place(size_t bytes, size_t *total, char *base, void **out) {
    *out = base && bytes ? base + *total : NULL;
    *total += (bytes + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT;
}

/* Bytes with what aligning the start may cost; base: the start, aligned, or NULL for the size. */
static size_t lay_out(const tw_vendor_needs *needs, size_t plan_bytes, char *base,
                      tw_vendor_room *room) {
    size_t total = 0;
    room->needs = *needs;
    place(needs->bias, &total, base, &room->bias);
    place(needs->output, &total, base, &room->output);
    place(needs->sums, &total, base, &room->sums);
    place(plan_bytes, &total, base, &room->plan);
    return total ? total + ALIGNMENT : 0;
}

static void workspace_of(const tw_vendor_call *call, char **start, size_t *bytes) {
    switch (call->op) {
    case TW_VENDOR_GEMM:
        *start = call->args.gemm->workspace;
        *bytes = call->args.gemm->workspace_bytes;
        return;
    case TW_VENDOR_ATTENTION_FORWARD:
    case TW_VENDOR_ATTENTION_BACKWARD:
        *start = call->args.attention->workspace;
        *bytes = call->args.attention->workspace_bytes;
        return;
    default:
        *start = call->args.conv->workspace;
        *bytes = call->args.conv->workspace_bytes;
    }
}

static twk_status take_room(const tw_vendor *v, const tw_vendor_call *call,
                            const tw_vendor_entry *e, tw_vendor_room *room) {
    tw_vendor_needs needs = {0};
    const twk_status status = e->family->needs(v, call, &needs);
    if (status != TWK_OK) return status;
    char *start;
    size_t bytes;
    workspace_of(call, &start, &bytes);
    const size_t wanted = lay_out(&needs, e->plan->bytes, NULL, room);
    if (wanted && (!start || bytes < wanted))
        return tw_vendor_fail(TWK_BAD_ARGUMENT, "vendor libraries: %zu bytes of workspace, not %zu",
                              wanted, start ? bytes : 0);
    if (wanted) start += -(uintptr_t)start % ALIGNMENT;
    lay_out(&needs, e->plan->bytes, start, room);
    return TWK_OK;
}

static twk_status describe(const tw_vendor *v, const tw_vendor_call *call, const tw_vendor_entry *e,
                           tw_vendor_choice *choice) {
    tw_vendor_needs needs = {0};
    tw_vendor_room room;
    const twk_status status = e->family->needs(v, call, &needs);
    if (status != TWK_OK) return status;
    *choice = e->plan->choice;
    choice->workspace = lay_out(&needs, e->plan->bytes, NULL, &room);
    return TWK_OK;
}

/* --- the entry points ------------------------------------------------------------------------- */

const char *tw_vendor_library(tw_vendor *v, tw_vendor_op op) {
    const tw_vendor_family *family = family_of(op);
    if (!family) {
        without_headers(op);
        return NULL;
    }
    pthread_mutex_lock(&v->lock);
    const char *name = family->open(v) == TWK_OK ? family->name(v) : NULL;
    pthread_mutex_unlock(&v->lock);
    return name;
}

twk_status tw_vendor_choose(tw_vendor *v, const tw_vendor_call *call, tw_vendor_choice *choice) {
    const tw_vendor_family *family = NULL;
    tw_vendor_entry *e = NULL;
    twk_status status = check(v, call, &family);
    if (status != TWK_OK) return status;
    pthread_mutex_lock(&v->lock);
    status = entry_of(v, family, call, &e);
    if (status == TWK_OK) status = describe(v, call, e, choice);
    pthread_mutex_unlock(&v->lock);
    return status;
}

static twk_status run_plan(tw_vendor *v, const tw_vendor_call *call, const tw_vendor_entry *e,
                           twk_stream stream) {
    tw_vendor_room room;
    twk_status status = take_room(v, call, e, &room);
    if (status == TWK_OK) status = e->family->before(v, call, &room, stream);
    if (status == TWK_OK) status = e->family->enqueue(v, call, e->plan, &room, stream);
    if (status == TWK_OK) status = e->family->after(v, call, &room, stream);
    return status;
}

static twk_status check_to_run(const tw_vendor *v, const tw_vendor_call *call,
                               const tw_vendor_family **family) {
    const twk_status status = check(v, call, family);
    if (status != TWK_OK) return status;
    if (v->options.device)
        return tw_vendor_fail(TWK_UNSUPPORTED,
                              "vendor libraries: plans for a described device cannot be run");
    return (*family)->addresses(call);
}

twk_status tw_vendor_run(tw_vendor *v, const tw_vendor_call *call, twk_stream stream) {
    const tw_vendor_family *family = NULL;
    tw_vendor_entry *e = NULL;
    twk_status status = check_to_run(v, call, &family);
    if (status != TWK_OK) return status;
    pthread_mutex_lock(&v->lock);
    status = entry_of(v, family, call, &e);
    if (status == TWK_OK) status = run_plan(v, call, e, stream);
    pthread_mutex_unlock(&v->lock);
    return status;
}

twk_status tw_vendor_tune(tw_vendor *v, const tw_vendor_call *call, twk_stream stream,
                          tw_vendor_choice *choice) {
    const tw_vendor_family *family = NULL;
    tw_vendor_entry *e = NULL;
    twk_status status = check_to_run(v, call, &family);
    if (status != TWK_OK) return status;
    pthread_mutex_lock(&v->lock);
    status = entry_of(v, family, call, &e);
    if (status == TWK_OK) status = tw_vendor_time_plans(v, call, e, stream);
    if (status == TWK_OK) status = describe(v, call, e, choice);
    pthread_mutex_unlock(&v->lock);
    return status;
}

twk_status tw_vendor_conv_forward(tw_vendor *v, const twk_conv_args *args, twk_stream stream) {
    return tw_vendor_run(v, &(tw_vendor_call){TW_VENDOR_CONV_FORWARD, {.conv = args}}, stream);
}

twk_status tw_vendor_conv_input_gradient(tw_vendor *v, const twk_conv_args *args,
                                         twk_stream stream) {
    return tw_vendor_run(v, &(tw_vendor_call){TW_VENDOR_CONV_INPUT_GRADIENT, {.conv = args}},
                         stream);
}

twk_status tw_vendor_conv_weight_gradient(tw_vendor *v, const twk_conv_args *args,
                                          twk_stream stream) {
    return tw_vendor_run(v, &(tw_vendor_call){TW_VENDOR_CONV_WEIGHT_GRADIENT, {.conv = args}},
                         stream);
}

twk_status tw_vendor_gemm(tw_vendor *v, const twk_gemm_args *args, twk_stream stream) {
    return tw_vendor_run(v, &(tw_vendor_call){TW_VENDOR_GEMM, {.gemm = args}}, stream);
}

twk_status tw_vendor_attention_forward(tw_vendor *v, const twk_attention_args *args,
                                       twk_stream stream) {
    return tw_vendor_run(v, &(tw_vendor_call){TW_VENDOR_ATTENTION_FORWARD, {.attention = args}},
                         stream);
}

twk_status tw_vendor_attention_backward(tw_vendor *v, const twk_attention_args *args,
                                        twk_stream stream) {
    return tw_vendor_run(v, &(tw_vendor_call){TW_VENDOR_ATTENTION_BACKWARD, {.attention = args}},
                         stream);
}
