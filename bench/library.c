#include "library.h"

#include <stdio.h>

bool bench_libraries_open(const bench_library_files *files, bool compile, bench_libraries *out) {
    tw_vendor_options o = {.cudnn = files->cudnn,
                           .cublaslt = files->cublaslt,
                           .driver = files->driver,
                           .workspace_limit = (size_t)1 << 30,
                           .compile = compile,
                           .kernels = {.convert = twk_convert,
                                       .add = twk_add,
                                       .column_sums_workspace = twk_column_sums_workspace,
                                       .column_sums = twk_column_sums,
                                       .error_text = twk_error_text}};
    *out = (bench_libraries){0};
    if (tw_vendor_create(&o, &out->ready) != TWK_OK) return false;
    o.compile = true;
    if (tw_vendor_create(&o, &out->compiled) == TWK_OK) return true;
    bench_libraries_close(out);
    return false;
}

void bench_libraries_close(bench_libraries *l) {
    tw_vendor_destroy(l->ready);
    tw_vendor_destroy(l->compiled);
    *l = (bench_libraries){0};
}

static tw_vendor_op op_of(bench_kind kind) {
    switch (kind) {
    case BENCH_CONV:
        return TW_VENDOR_CONV_FORWARD;
    case BENCH_CONV_INPUT_GRADIENT:
        return TW_VENDOR_CONV_INPUT_GRADIENT;
    case BENCH_CONV_WEIGHT_GRADIENT:
        return TW_VENDOR_CONV_WEIGHT_GRADIENT;
    case BENCH_GEMM:
    case BENCH_GEMM_INPUT_GRADIENT:
    case BENCH_GEMM_WEIGHT_GRADIENT:
        return TW_VENDOR_GEMM;
    case BENCH_ATTENTION:
        return TW_VENDOR_ATTENTION_FORWARD;
    case BENCH_ATTENTION_BACKWARD:
        return TW_VENDOR_ATTENTION_BACKWARD;
    default:
        return TW_VENDOR_OP_COUNT;
    }
}

bool bench_has_library(bench_kind kind) {
    return op_of(kind) != TW_VENDOR_OP_COUNT;
}

static bool is_attention(tw_vendor_op op) {
    return op == TW_VENDOR_ATTENTION_FORWARD || op == TW_VENDOR_ATTENTION_BACKWARD;
}

static tw_vendor_call call_of(const bench_job *job, int set) {
    const bench_call *c = &job->call[set];
    tw_vendor_call call = {.op = op_of(job->row.kind)};
    if (call.op == TW_VENDOR_GEMM)
        call.args.gemm = &c->u.gemm;
    else if (is_attention(call.op))
        call.args.attention = &c->u.attention;
    else
        call.args.conv = &c->u.conv;
    return call;
}

static void give_workspace(bench_job *job, void *workspace, size_t bytes) {
    const tw_vendor_op op = op_of(job->row.kind);
    for (int i = 0; i < job->sets; i++) {
        bench_call *c = &job->call[i];
        void **at = op == TW_VENDOR_GEMM ? &c->u.gemm.workspace
                    : is_attention(op)   ? &c->u.attention.workspace
                                         : &c->u.conv.workspace;
        size_t *size = op == TW_VENDOR_GEMM ? &c->u.gemm.workspace_bytes
                       : is_attention(op)   ? &c->u.attention.workspace_bytes
                                            : &c->u.conv.workspace_bytes;
        *at = workspace;
        *size = bytes;
    }
}

bench_row bench_library_row(const bench_row *row) {
    bench_row r = *row;
    r.second = 0;
    if (r.upsampled) {
        r.h *= 2;
        r.w *= 2;
        r.upsampled = false;
    }
    return r;
}

static bool cannot(bench_peer *p, const char *text) {
    snprintf(p->text, sizeof p->text, "none: %s", text);
    return false;
}

/* The plans are tuned with the call's own inputs; its workspace serves all sets in turn. */
static bool tune(bench_peer *p, twk_stream stream) {
    const tw_vendor_call call = call_of(&p->job, 0);
    tw_vendor_choice choice;
    if (tw_vendor_tune(p->vendor, &call, stream, &choice) != TWK_OK)
        return cannot(p, tw_vendor_text());
    void *workspace = choice.workspace ? bench_raw(&p->job.memory, choice.workspace) : NULL;
    if (p->job.memory.failed) return cannot(p, "no memory for the plan's workspace");
    give_workspace(&p->job, workspace, choice.workspace);
    snprintf(p->text, sizeof p->text, "%s, quickest of %d", choice.text, choice.tried);
    return true;
}

bool bench_peer_make(const bench_libraries *l, const bench_row *row, int max_sets,
                     twk_stream stream, bench_peer *p) {
    const bench_row given = bench_library_row(row);
    const bool attention = is_attention(op_of(row->kind));
    *p = (bench_peer){.vendor = attention ? l->compiled : l->ready};
    if (!bench_job_make(&given, max_sets, &p->job)) return cannot(p, "no memory for its buffers");
    if (tune(p, stream)) return true;
    bench_peer_free(p);
    return false;
}

void bench_peer_free(bench_peer *p) {
    bench_job_free(&p->job);
}

bool bench_peer_run(const bench_peer *p, int set, twk_stream stream) {
    const tw_vendor_call call = call_of(&p->job, set);
    return tw_vendor_run(p->vendor, &call, stream) == TWK_OK;
}

void bench_peer_check(const bench_peer *p, bench_check *k) {
    const twk_format f = p->job.row.format;
    *k = (bench_check){.more = p->job.row.tf32 ? 0x1p-9
                               : f == TWK_F32  ? 0
                               : f == TWK_BF16 ? 0x1p-8
                                               : 0x1p-11};
    bench_job_check(&p->job, k);
}
