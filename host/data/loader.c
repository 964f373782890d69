#include "data/loader.h"

#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>

#include "core/checked.h"
#include "core/philox.h"
#include "data/order.h"

/* One batch is in the caller's hands, one is ready, one is being prepared. */
enum { SLOTS = 3 };

typedef struct slot {
    float *x;       /* null in a loader of indices */
    int64_t *index; /* null in others */
    int32_t *labels;
    tw_status status;
    char error[TW_DATASET_ERROR_TEXT];
} slot;

struct tw_loader {
    tw_context *ctx;
    const tw_dataset *dataset;
    tw_loader_options options;
    uint32_t *part; /* [size], indices into the data set */
    int64_t size;
    slot slots[SLOTS];

    /* The thread's own. */
    uint32_t *order; /* [size], of epoch `order_epoch` */
    int64_t order_epoch;

    pthread_mutex_t mutex;
    pthread_cond_t changed;
    pthread_t thread;
    bool has_mutex, has_condition, has_thread;

    /* Guarded by the mutex. Slot b % SLOTS holds batch b, counted from `start`. */
    int64_t start;    /* position of batch 0 */
    int64_t prepared; /* batches */
    int64_t consumed; /* batches given to the caller, who holds the last of them */
    bool failed;      /* batch prepared - 1 has an error */
    bool busy, pause, stop;
};

/* Sample of the data set at a position of the stream. */
static int64_t sample_at(tw_loader *l, int64_t position) {
    const int64_t epoch = position / l->size, place = position % l->size;
    if (l->options.validation) return l->part[place];
    if (epoch != l->order_epoch) {
        tw_order_permute(l->options.seed, TW_PURPOSE_SHUFFLE, (uint64_t)epoch, l->size, l->order);
        l->order_epoch = epoch;
    }
    return l->part[l->order[place]];
}

static void prepare(tw_loader *l, slot *s, int64_t position) {
    const tw_dataset *d = l->dataset;
    s->status = TW_OK;
    for (int64_t i = 0; i < l->options.batch && s->status == TW_OK; i++) {
        const int64_t sample = sample_at(l, position + i);
        if (s->index) {
            s->index[i] = sample;
            s->labels[i] = d->labels ? d->labels[sample] : -1;
        } else {
            s->status = d->read(d, sample, s->x + i * d->elements, &s->labels[i], s->error);
        }
    }
}

/* Whether the thread has to wait: no free slot, an error nobody has seen to, or a seek. */
static bool must_wait(const tw_loader *l) {
    const int64_t held = l->consumed > 0 ? l->consumed - 1 : 0;
    return l->pause || l->failed || l->prepared - held >= SLOTS;
}

static void *run(void *argument) {
    tw_loader *l = argument;
    pthread_mutex_lock(&l->mutex);
    for (;;) {
        while (!l->stop && must_wait(l)) pthread_cond_wait(&l->changed, &l->mutex);
        if (l->stop) break;
        slot *s = &l->slots[l->prepared % SLOTS];
        const int64_t position = l->start + l->prepared * l->options.batch;
        l->busy = true;
        pthread_mutex_unlock(&l->mutex);
        prepare(l, s, position);
        pthread_mutex_lock(&l->mutex);
        l->busy = false;
        l->failed = s->status != TW_OK;
        l->prepared++;
        pthread_cond_broadcast(&l->changed);
    }
    pthread_mutex_unlock(&l->mutex);
    return NULL;
}

/* Starts the thread with all signals blocked: they are the program's, not ours. */
static tw_status start_thread(tw_loader *l) {
    sigset_t all, before;
    l->has_mutex = pthread_mutex_init(&l->mutex, NULL) == 0;
    l->has_condition = l->has_mutex && pthread_cond_init(&l->changed, NULL) == 0;
    if (!l->has_condition) return tw_fail(l->ctx, TW_ERROR_MEMORY, "loader: no mutex");
    sigfillset(&all);
    pthread_sigmask(SIG_BLOCK, &all, &before);
    const int error = pthread_create(&l->thread, NULL, run, l);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    l->has_thread = error == 0;
    return l->has_thread ? TW_OK
                         : tw_fail(l->ctx, TW_ERROR_MEMORY, "loader: cannot start a thread: %s",
                                   strerror(error));
}

static tw_status allocate_slots(tw_loader *l) {
    int64_t values, bytes;
    if (!tw_mul_i64(l->options.batch, l->dataset->elements, &values) ||
        !tw_mul_i64(values, (int64_t)sizeof(float), &bytes))
        return tw_fail(l->ctx, TW_ERROR_ARGUMENT, "loader: batch: %lld samples do not fit 63 bits",
                       (long long)l->options.batch);
    for (int i = 0; i < SLOTS; i++) {
        slot *s = &l->slots[i];
        if (l->options.indices)
            s->index = tw_allocate(l->ctx, (size_t)l->options.batch, sizeof *s->index);
        else
            s->x = tw_allocate(l->ctx, (size_t)values, sizeof *s->x);
        s->labels = tw_allocate(l->ctx, (size_t)l->options.batch, sizeof *s->labels);
        if ((!s->x && !s->index) || !s->labels) return TW_ERROR_MEMORY;
    }
    l->order = tw_allocate(l->ctx, (size_t)l->size, sizeof *l->order);
    return l->order ? TW_OK : TW_ERROR_MEMORY;
}

tw_status tw_loader_create(tw_context *ctx, const tw_dataset *dataset,
                           const tw_loader_options *options, tw_loader **out) {
    *out = NULL;
    if (options->batch < 1)
        return tw_fail(ctx, TW_ERROR_ARGUMENT, "loader: batch: expected at least 1, got %lld",
                       (long long)options->batch);
    tw_loader *l = tw_allocate(ctx, 1, sizeof *l);
    if (!l) return TW_ERROR_MEMORY;
    l->ctx = ctx;
    l->dataset = dataset;
    l->options = *options;
    l->order_epoch = -1;
    tw_status s = tw_order_split(ctx, options->seed, dataset->count, options->holdout,
                                 options->validation, &l->part, &l->size);
    if (s == TW_OK) s = allocate_slots(l);
    if (s == TW_OK) s = start_thread(l);
    if (s != TW_OK) {
        tw_loader_free(l);
        return s;
    }
    *out = l;
    return TW_OK;
}

void tw_loader_free(tw_loader *l) {
    if (!l) return;
    if (l->has_thread) {
        pthread_mutex_lock(&l->mutex);
        l->stop = true;
        pthread_cond_broadcast(&l->changed);
        pthread_mutex_unlock(&l->mutex);
        pthread_join(l->thread, NULL);
    }
    if (l->has_condition) pthread_cond_destroy(&l->changed);
    if (l->has_mutex) pthread_mutex_destroy(&l->mutex);
    for (int i = 0; i < SLOTS; i++) {
        tw_free(l->ctx, l->slots[i].x);
        tw_free(l->ctx, l->slots[i].index);
        tw_free(l->ctx, l->slots[i].labels);
    }
    tw_free(l->ctx, l->order);
    tw_free(l->ctx, l->part);
    tw_free(l->ctx, l);
}

static tw_status next(tw_loader *l, const slot **out) {
    pthread_mutex_lock(&l->mutex);
    while (l->prepared == l->consumed) pthread_cond_wait(&l->changed, &l->mutex);
    const slot *s = &l->slots[l->consumed % SLOTS];
    /* A batch with an error is not consumed: it is there until a seek. */
    if (s->status == TW_OK) l->consumed++;
    pthread_cond_broadcast(&l->changed);
    pthread_mutex_unlock(&l->mutex);
    *out = s;
    return s->status == TW_OK ? TW_OK : tw_fail(l->ctx, s->status, "loader: %s", s->error);
}

tw_status tw_loader_next(tw_loader *l, const float **x, const int32_t **labels) {
    const slot *s;
    TW_TRY(next(l, &s));
    if (x) *x = s->x;
    if (labels) *labels = s->labels;
    return TW_OK;
}

tw_status tw_loader_next_indices(tw_loader *l, const int64_t **index, const int32_t **labels) {
    const slot *s;
    TW_TRY(next(l, &s));
    if (index) *index = s->index;
    if (labels) *labels = s->labels;
    return TW_OK;
}

int64_t tw_loader_position(const tw_loader *l) {
    /* Both are written by the caller's thread only. */
    return l->start + l->consumed * l->options.batch;
}

tw_status tw_loader_seek(tw_loader *l, int64_t position) {
    if (position < 0 || position > INT64_MAX / 2)
        return tw_fail(l->ctx, TW_ERROR_ARGUMENT,
                       "loader: position: expected 0 to 2^62 - 1, got %lld", (long long)position);
    pthread_mutex_lock(&l->mutex);
    l->pause = true;
    while (l->busy) pthread_cond_wait(&l->changed, &l->mutex);
    l->start = position;
    l->prepared = l->consumed = 0;
    l->failed = l->pause = false;
    pthread_cond_broadcast(&l->changed);
    pthread_mutex_unlock(&l->mutex);
    return TW_OK;
}

int64_t tw_loader_size(const tw_loader *l) {
    return l->size;
}
