/* What a training step and a sampling step should take on the reference GPU, said before either is
 * measured: the engine's own plans, call by call, over the kernels' predictions (plan.md).
 *
 *   engine_plan > bench/results/engine.md
 *
 * It needs no GPU: the plans are made by the CUDA backend over a stand-in for its runtime, and are
 * never run. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <tweedie/tweedie.h>

#include "diffusion/sampler.h"
#include "graph/internal.h"
#include "graph/times.h"
#include "models/model.h"
#include "plan.h"
#include "train/internal.h"

#define DDPM                                                                                       \
    "{\"_class_name\": \"UNet2DModel\", \"in_channels\": 3, \"out_channels\": 3, "                 \
    "\"layers_per_block\": 2, \"attention_head_dim\": null, \"downsample_padding\": 0, "           \
    "\"flip_sin_to_cos\": false, \"freq_shift\": 1, \"norm_eps\": 1e-6, "
static const char cifar10[] =
    DDPM "\"sample_size\": 32, \"block_out_channels\": [128, 256, 256, 256], "
         "\"down_block_types\": [\"DownBlock2D\", \"AttnDownBlock2D\", \"DownBlock2D\", "
         "\"DownBlock2D\"], "
         "\"up_block_types\": [\"UpBlock2D\", \"UpBlock2D\", \"AttnUpBlock2D\", \"UpBlock2D\"]}";
static const char large[] = DDPM
    "\"sample_size\": 256, \"block_out_channels\": [128, 128, 256, 256, 512, 512], "
    "\"down_block_types\": [\"DownBlock2D\", \"DownBlock2D\", \"DownBlock2D\", \"DownBlock2D\", "
    "\"AttnDownBlock2D\", \"DownBlock2D\"], "
    "\"up_block_types\": [\"UpBlock2D\", \"AttnUpBlock2D\", \"UpBlock2D\", \"UpBlock2D\", "
    "\"UpBlock2D\", \"UpBlock2D\"]}";

/* Those of the comparison with PyTorch; its aim, in times as quick. */
typedef struct work {
    const char *name, *config;
    bool training;
    int64_t batch;
    double aim;
} work;
static const work works[] = {
    {"training step, cifar10", cifar10, true, 128, 1.4},
    {"training step, cifar10", cifar10, true, 512, 1.4},
    {"training step, 256px", large, true, 8, 1.4},
    {"training step, 256px", large, true, 32, 1.4},
    {"DDIM step, cifar10", cifar10, false, 512, 1.4},
    {"DDIM step, cifar10", cifar10, false, 64, 1.5},
    {"DDIM step, cifar10", cifar10, false, 1, 4},
};
#define WORKS (sizeof works / sizeof *works)

typedef struct cost {
    int launches;
    double flops, bytes;          /* nominal; across device memory */
    double floor, own, libraries; /* seconds; the last: the quicker of ours and a library's */
} cost;

typedef struct prediction {
    cost all, classes[TW_CLASS_COUNT];
} prediction;

static bench_row rows[BENCH_MAX_ROWS];
static size_t n_rows;

/* --- One call --- */

static int executed(const tw_plan *plan, const tw_step *step, const tw_node **out) {
    int n = 0;
    for (int i = step->first_node; i < plan->n_nodes && n < step->kernel.claimed; i++)
        if (plan->nodes[i].live) out[n++] = &plan->nodes[i];
    return n;
}

/* What a node moves of a value: of vectors, its own columns. `beside` the one that makes it, a sum
 * reads nothing. */
static double moved(const tw_plan *plan, const tw_node *n, bool beside, tw_value v) {
    const tw_desc *d = &plan->values[v].desc;
    const double bytes = (double)tw_desc_bytes(d);
    const bool add = n->kind == TW_OP_ADD_VEC && v == n->in[1];
    const bool sum = n->kind == TW_OP_SUM_SPATIAL;
    if (sum && beside && v == n->in[0]) return 0;
    if (!add && !(sum && v == n->out[0])) return bytes;
    const tw_desc *x = &plan->values[n->in[0]].desc;
    return bytes * (double)x->dim[x->rank - 1] / (double)d->dim[1];
}

/* What a call reads and writes, each tensor once; those inside of it are in no memory, but for
 * `stored`. */
static double bytes_of(const tw_plan *plan, const tw_node *const *nodes, int n, tw_value stored) {
    double sum = 0;
    for (int side = 0; side < 2; side++) {
        tw_value seen[TW_REGION_MAX_OPS * (TW_OP_MAX_IN + TW_OP_MAX_OUT)];
        int count = 0;
        for (int i = 0; i < n; i++) {
            const tw_value *values = side ? nodes[i]->out : nodes[i]->in;
            for (int k = 0; k < (side ? nodes[i]->n_out : nodes[i]->n_in); k++) {
                const tw_value v = values[k];
                bool known = v == TW_NONE || (plan->values[v].virtual_ && v != stored);
                for (int j = 0; j < count && !known; j++) known = seen[j] == v;
                if (known) continue;
                seen[count++] = v;
                sum += moved(plan, nodes[i], i > 0, v);
            }
        }
    }
    return sum;
}

static bench_kind kind_of(tw_op_kind kind) {
    switch (kind) {
    case TW_OP_CONV2D:
        return BENCH_CONV;
    case TW_OP_CONV2D_BWD_DATA:
        return BENCH_CONV_INPUT_GRADIENT;
    case TW_OP_CONV2D_BWD_WEIGHT:
        return BENCH_CONV_WEIGHT_GRADIENT;
    case TW_OP_LINEAR:
        return BENCH_GEMM;
    case TW_OP_LINEAR_BWD_DATA:
        return BENCH_GEMM_INPUT_GRADIENT;
    case TW_OP_LINEAR_BWD_WEIGHT:
        return BENCH_GEMM_WEIGHT_GRADIENT;
    case TW_OP_ATTENTION:
        return BENCH_ATTENTION;
    case TW_OP_ATTENTION_BWD:
        return BENCH_ATTENTION_BACKWARD;
    default:
        return BENCH_KINDS;
    }
}

/* How a row of the kernels' plan differs from a call in what its rate depends on besides the work:
 * the kernel's size, the stride, the upsampling, few channels, the channels of a head. */
typedef struct traits {
    int64_t kernel, stride, upsampled, few, head;
} traits;

static traits traits_of(const tw_plan *plan, const tw_node *product, bool upsampled) {
    traits t = {.kernel = 1, .stride = 1, .upsampled = upsampled};
    const bool conv = product->kind == TW_OP_CONV2D || product->kind == TW_OP_CONV2D_BWD_DATA ||
                      product->kind == TW_OP_CONV2D_BWD_WEIGHT;
    if (conv) {
        const tw_value weights =
            product->kind == TW_OP_CONV2D_BWD_WEIGHT ? product->out[0] : product->in[1];
        const tw_desc *w = &plan->values[weights].desc;
        t.kernel = w->dim[1];
        t.stride = product->attr.conv.stride;
        t.few = w->dim[0] <= 4 ? 2 : w->dim[3] <= 4;
    } else if (product->kind == TW_OP_ATTENTION || product->kind == TW_OP_ATTENTION_BWD) {
        t.head = plan->values[product->in[1]].desc.dim[2] / product->attr.attention.heads;
    }
    return t;
}

static traits traits_of_row(const bench_row *r) {
    const bool conv = r->kind >= BENCH_CONV && r->kind <= BENCH_CONV_WEIGHT_GRADIENT;
    return (traits){.kernel = conv ? r->kernel : 1,
                    .stride = conv ? r->stride : 1,
                    .upsampled = r->upsampled,
                    .few = conv ? (r->out_channels <= 4 ? 2 : r->c <= 4) : 0,
                    .head = r->kind >= BENCH_ATTENTION ? r->c : 0};
}

static bool same_traits(const traits *a, const traits *b) {
    return a->kernel == b->kernel && a->stride == b->stride && a->upsampled == b->upsampled &&
           a->few == b->few && a->head == b->head;
}

/* The row of the same kind whose work is nearest; of bf16. */
static const bench_row *nearest(bench_kind kind, const traits *t, double flops) {
    const bench_row *best = NULL;
    double least = INFINITY;
    for (int strict = 1; strict >= 0 && !best; strict--)
        for (size_t i = 0; i < n_rows; i++) {
            const bench_row *r = &rows[i];
            const traits of_row = traits_of_row(r);
            if (r->kind != kind || r->format != TWK_BF16 || (strict && !same_traits(t, &of_row)))
                continue;
            const double distance = fabs(log(bench_flops(r) / flops));
            if (distance < least) least = distance, best = r;
        }
    return best;
}

/* Whether the kernel reads what it reads twice, by its launcher. `second`: of the channels. */
static bool reads_twice(int64_t batch, int64_t pixels, int64_t channels, int second, int groups,
                        twk_format format, bool backward) {
    void *some = (void *)(uintptr_t)256; /* aligned as a plan's memory is */
    const twk_group_norm_args a = {.batch = batch,
                                   .pixels = pixels,
                                   .channels = (int)channels,
                                   .channels2 = second,
                                   .groups = groups,
                                   .format = format,
                                   .x = some,
                                   .x2 = some,
                                   .y = some,
                                   .dy = some,
                                   .dx = some,
                                   .mean = some,
                                   .rstd = some};
    return backward ? twk_group_norm_backward_reads_twice(&a) : twk_group_norm_reads_twice(&a);
}

/* Whether the kernels' plan knows of its normalisations what their launchers do. */
static bool check_norm_rows(void) {
    bool right = true;
    for (size_t i = 0; i < n_rows; i++) {
        const bench_row *r = &rows[i];
        if ((r->kind != BENCH_NORM_FORWARD && r->kind != BENCH_NORM_BACKWARD) || r->given) continue;
        if (r->twice == reads_twice(r->n, r->h * r->w, r->c, r->second, r->groups, r->format,
                                    r->kind == BENCH_NORM_BACKWARD))
            continue;
        char shape[BENCH_SHAPE_TEXT];
        bench_shape_text(r, shape);
        fprintf(stderr, "engine_plan: %s, %s, %s: the plan says that it reads %s\n", r->name, shape,
                bench_format_name(r->format), r->twice ? "twice" : "once");
        right = false;
    }
    return right;
}

/* The row for a normalisation: in as many reads, with the work that is nearest; of bf16. */
static const bench_row *nearest_norm(const tw_plan *plan, const tw_node *node, bool given,
                                     double bytes) {
    const bool backward = node->kind == TW_OP_GROUP_NORM_BWD;
    const tw_desc *x = &plan->values[node->in[backward]].desc;
    const int64_t channels = x->dim[x->rank - 1];
    const bool twice =
        !given && reads_twice(x->dim[0], tw_desc_count(x) / x->dim[0] / channels, channels, 0,
                              node->attr.norm.groups, TWK_BF16, backward);
    const bench_row *best = NULL;
    double least = INFINITY;
    for (size_t i = 0; i < n_rows; i++) {
        const bench_row *r = &rows[i];
        if (r->kind != (backward ? BENCH_NORM_BACKWARD : BENCH_NORM_FORWARD) ||
            r->format != TWK_BF16 || r->twice != twice || r->given != given)
            continue;
        const double distance = fabs(log(bench_bytes(r) / bytes));
        if (distance < least) least = distance, best = r;
    }
    return best;
}

/* Percent of the copy bandwidth that a call without a matrix product should reach. */
static double memory_percent(const tw_plan *plan, const tw_node *main, double bytes) {
    if (tw_op_class_of(main->kind) != TW_CLASS_NORM) return bytes < 48e6 ? 60 : 90;
    const bool given = main->kind == TW_OP_GROUP_NORM && main->n_in > 5;
    return nearest_norm(plan, main, given, bytes)->percent;
}

static void add(cost *to, const cost *c) {
    to->launches += c->launches;
    to->flops += c->flops;
    to->bytes += c->bytes;
    to->floor += c->floor;
    to->own += c->own;
    to->libraries += c->libraries;
}

/* GroupNorm behind a convolution that has measured its input: its statistics' parts are gathered,
 * then it is applied. */
static void add_measured_norm(prediction *p, const tw_plan *plan, const tw_node *norm) {
    cost c = {.launches = 2, .bytes = bytes_of(plan, &norm, 1, norm->in[0])};
    c.floor = c.bytes / BENCH_REFERENCE_BANDWIDTH;
    c.own = c.libraries = c.floor / (nearest_norm(plan, norm, true, c.bytes)->percent / 100) +
                          c.launches * BENCH_LAUNCH_SECONDS;
    add(&p->all, &c);
    add(&p->classes[TW_CLASS_NORM], &c);
}

static void add_step(prediction *p, const tw_plan *plan, const tw_step *step, bool optimizer) {
    const tw_node *nodes[TW_REGION_MAX_OPS], *product = NULL;
    int n = executed(plan, step, nodes);
    cost c = {.launches = 1};
    bool upsampled = false;
    tw_value stored = TW_NONE;
    for (int i = 0; i < n; i++) {
        if (product && nodes[i]->kind == TW_OP_GROUP_NORM) {
            stored = nodes[i]->in[0];
            add_measured_norm(p, plan, nodes[i]);
            n = i;
            break;
        }
        const double flops = tw_node_flops(plan, nodes[i]);
        if (flops > 0) product = nodes[i];
        c.flops += flops;
        upsampled |= nodes[i]->kind == TW_OP_UPSAMPLE_NEAREST;
    }
    c.bytes = bytes_of(plan, nodes, n, stored);
    const double memory = c.bytes / BENCH_REFERENCE_BANDWIDTH;
    const double products = c.flops / BENCH_REFERENCE_BF16;
    const double gaps = c.launches * BENCH_LAUNCH_SECONDS;
    int main = 0; /* what the rest is done beside */
    while (main + 1 < n && tw_op_class_of(nodes[main]->kind) == TW_CLASS_ELEMENTWISE) main++;
    if (tw_op_class_of(nodes[main]->kind) == TW_CLASS_ELEMENTWISE) main = 0;
    const tw_op_kind kind = product ? product->kind : nodes[main]->kind;
    const tw_op_class class = optimizer ? TW_CLASS_OPTIMIZER : tw_op_class_of(kind);
    c.floor = memory > products ? memory : products;
    if (product) {
        const traits t = traits_of(plan, product, upsampled);
        const bench_row *r = nearest(kind_of(kind), &t, c.flops);
        const double library = r->library > r->percent ? r->library : r->percent;
        c.own = c.floor / (r->percent / 100) + gaps;
        c.libraries = c.floor / (library / 100) + gaps;
    } else {
        c.own = c.libraries = c.floor / (memory_percent(plan, nodes[main], c.bytes) / 100) + gaps;
    }
    add(&p->all, &c);
    add(&p->classes[class], &c);
}

static void add_plan(prediction *p, const tw_plan *plan, bool optimizer) {
    for (int i = 0; i < plan->n_steps; i++) add_step(p, plan, &plan->steps[i], optimizer);
}

/* --- One piece of work --- */

static tw_status predict_training(const work *w, tw_context *ctx, tw_model *m, prediction *p) {
    tw_trainer_options o = TW_TRAINER_OPTIONS_INIT;
    const int64_t *shape = m->info.shape;
    tw_dataset *data = NULL;
    tw_trainer *t = NULL;
    float *x = tw_allocate(ctx, (size_t)(w->batch * shape[0] * shape[1] * shape[2]), sizeof *x);
    if (!x) return TW_ERROR_MEMORY;
    o.batch_size = w->batch;
    o.precision = TW_PRECISION_BF16;
    tw_status s = tw_dataset_from_memory(ctx, w->batch, 3, shape, x, NULL, &data);
    if (s == TW_OK) s = tw_trainer_create(m, data, &o, &t);
    for (int i = 0; s == TW_OK && tw_trainer_plan(t, i); i++)
        add_plan(p, tw_trainer_plan(t, i), i > 0);
    tw_trainer_free(t);
    tw_dataset_free(data);
    tw_free(ctx, x);
    return s;
}

static tw_status predict_sampling(const work *w, tw_model *m, prediction *p) {
    tw_sampler_options o = TW_SAMPLER_OPTIONS_INIT;
    tw_sampler_chunk *chunk;
    tw_sampler *s = NULL;
    o.max_batch = w->batch;
    o.precision = TW_PRECISION_BF16;
    TW_TRY(tw_sampler_create(m, &o, &s));
    const tw_status status = tw_sampler_chunk_get(s, w->batch, &chunk);
    if (status == TW_OK) add_plan(p, chunk->step, false);
    tw_sampler_free(s);
    return status;
}

static tw_status predict(const work *w, tw_context *ctx, prediction *p) {
    tw_model *m = NULL;
    memset(p, 0, sizeof *p);
    TW_TRY(tw_model_create(ctx, w->config, NULL, NULL, 0, 0, &m));
    const tw_status s = w->training ? predict_training(w, ctx, m, p) : predict_sampling(w, m, p);
    tw_model_free(m);
    return s;
}

/* --- The page --- */

static void print_head(void) {
    printf(
        "# The engine: what a step should take\n\n"
        "Written by `engine_plan`; nothing here is measured. The engine's plans in bf16, call by\n"
        "call as its CUDA backend makes them, on the reference GPU of [plan.md](plan.md): what a\n"
        "call must move over the copy bandwidth, or its FLOPs over the tensor cores' rate, is its\n"
        "floor. Predicted is that over what plan.md expects of the kernel of its kind whose work "
        "is\n"
        "nearest, with %g us for a launch. \"With libraries\" takes cuDNN's and cuBLASLt's "
        "expected\n"
        "part of the floor where that is more, without what they would then not fuse. The aim is\n"
        "against PyTorch and diffusers; what these take is not predicted here.\n\n",
        1e6 * BENCH_LAUNCH_SECONDS);
}

static void print_totals(const prediction *p) {
    printf("| work | batch | GFLOP | GB | launches | floor ms | own kernels ms | images/s | with "
           "libraries ms | images/s | aim |\n|---|---|---|---|---|---|---|---|---|---|---|\n");
    for (size_t i = 0; i < WORKS; i++) {
        const cost *c = &p[i].all;
        const double batch = (double)works[i].batch;
        printf("| %s | %lld | %.0f | %.2f | %d | %.2f | %.2f | %.0f | %.2f | %.0f | %g |\n",
               works[i].name, (long long)works[i].batch, 1e-9 * c->flops, 1e-9 * c->bytes,
               c->launches, 1e3 * c->floor, 1e3 * c->own, batch / c->own, 1e3 * c->libraries,
               batch / c->libraries, works[i].aim);
    }
}

static void print_parts(const work *w, const prediction *p) {
    printf("\n## %s, batch %lld\n\n| part | launches | GFLOP | GB | floor ms | own kernels ms | "
           "share | with libraries ms |\n|---|---|---|---|---|---|---|---|\n",
           w->name, (long long)w->batch);
    for (int k = 0; k < TW_CLASS_COUNT; k++) {
        const cost *c = &p->classes[k];
        if (c->launches == 0) continue;
        printf("| %s | %d | %.1f | %.3f | %.3f | %.3f | %.0f %% | %.3f |\n",
               tw_op_class_name((tw_op_class)k), c->launches, 1e-9 * c->flops, 1e-9 * c->bytes,
               1e3 * c->floor, 1e3 * c->own, 100 * c->own / p->all.own, 1e3 * c->libraries);
    }
}

int main(void) {
    prediction predictions[WORKS];
    n_rows = bench_plan(rows);
    if (!check_norm_rows()) return 1; /* nothing is printed: a page that is compared differs */
    tw_context_options o = TW_CONTEXT_OPTIONS_INIT;
    tw_context *ctx = NULL;
    o.device = TW_DEVICE_CUDA;
    o.provider = "own";
    tw_status s = tw_context_create(&o, &ctx);
    if (s == TW_OK) tw_backend_plan_only(ctx->backend);
    for (size_t i = 0; s == TW_OK && i < WORKS; i++) s = predict(&works[i], ctx, &predictions[i]);
    if (s != TW_OK) fprintf(stderr, "engine_plan: %s\n", tw_context_error(ctx));
    if (s == TW_OK) {
        print_head();
        print_totals(predictions);
        for (size_t i = 0; i < WORKS; i++) print_parts(&works[i], &predictions[i]);
    }
    tw_context_free(ctx);
    return s == TW_OK ? 0 : 1;
}
