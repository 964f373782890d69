#include "backend/cuda/feed.h"

#include <string.h>

#include "backend/cuda/cuda.h"
#include "core/context.h"

/* What the runtime says, or TW_OK. */
#define TRY_CUDA(b, call, what) TW_TRY(tw_cuda_check(b, call, what))

static tw_status open(tw_backend *b) {
    tw_cuda_backend *c = tw_cuda_of(b);
    for (int i = 0; i < TW_FEED_SLOTS; i++) {
        tw_cuda_feed_slot *s = &c->feed.slots[i];
        if (!s->arrived) TRY_CUDA(b, c->rt->event_create(&s->arrived), "an event");
        if (!s->taken) TRY_CUDA(b, c->rt->event_create(&s->taken), "an event");
    }
    if (!c->feed.stream) TRY_CUDA(b, c->rt->stream_create(&c->feed.stream), "a stream");
    return TW_OK; /* after a failure, what there is so far is of use next time */
}

static void release_slots(tw_backend *b) {
    tw_cuda_backend *c = tw_cuda_of(b);
    for (int i = 0; i < TW_FEED_SLOTS; i++) {
        tw_cuda_feed_slot *s = &c->feed.slots[i];
        b->release(b, s->device);
        if (s->pinned) c->rt->pinned_release(s->pinned);
        s->pinned = s->device = NULL;
        s->used = false;
    }
    c->feed.bytes = 0;
}

/* Slots of `bytes` each. */
static tw_status resize(tw_backend *b, size_t bytes) {
    tw_cuda_backend *c = tw_cuda_of(b);
    TW_TRY(b->synchronize(b)); /* it has waited for all that the feed's stream did */
    release_slots(b);
    for (int i = 0; i < TW_FEED_SLOTS; i++) {
        tw_cuda_feed_slot *s = &c->feed.slots[i];
        TW_TRY(b->allocate(b, bytes, &s->device));
        TRY_CUDA(b, c->rt->pinned_allocate(bytes, &s->pinned), "pinned memory");
        /* The memory is there from this point of the backend's stream on. */
        TRY_CUDA(b, c->rt->event_record(s->taken, c->stream), "recording an event");
    }
    c->feed.bytes = bytes;
    return TW_OK;
}

static tw_status send(tw_backend *b, tw_cuda_feed_slot *s, void *dst, size_t bytes) {
    tw_cuda_backend *c = tw_cuda_of(b);
    const tw_cuda_runtime *rt = c->rt;
    TRY_CUDA(b, rt->stream_wait(c->feed.stream, s->taken), "upload");
    TRY_CUDA(b, rt->copy(c->feed.stream, s->device, s->pinned, bytes, TW_CUDA_IN), "upload");
    TRY_CUDA(b, rt->event_record(s->arrived, c->feed.stream), "upload");
    s->used = true;
    TRY_CUDA(b, rt->stream_wait(c->stream, s->arrived), "upload");
    TRY_CUDA(b, rt->copy(c->stream, dst, s->device, bytes, TW_CUDA_ON), "upload");
    TRY_CUDA(b, rt->event_record(s->taken, c->stream), "upload");
    return TW_OK;
}

tw_status tw_cuda_feed_upload(tw_backend *b, void *dst, const void *src, size_t bytes) {
    tw_cuda_backend *c = tw_cuda_of(b);
    if (bytes < TW_FEED_LEAST) return b->upload(b, dst, src, bytes);
    TW_TRY(tw_cuda_use(b));
    TW_TRY(open(b));
    if (c->feed.bytes < bytes) TW_TRY(resize(b, bytes));
    tw_cuda_feed_slot *s = &c->feed.slots[c->feed.next];
    if (s->used) TRY_CUDA(b, c->rt->event_synchronize(s->arrived), "upload");
    memcpy(s->pinned, src, bytes);
    const tw_status status = send(b, s, dst, bytes);
    if (status != TW_OK) { /* perhaps it is under way, and no event says so */
        c->rt->stream_synchronize(c->feed.stream);
        c->rt->stream_synchronize(c->stream);
    }
    c->feed.next = (c->feed.next + 1) % TW_FEED_SLOTS;
    return status;
}

size_t tw_cuda_feed_bytes(const tw_backend *b, size_t bytes) {
    (void)b;
    return bytes < TW_FEED_LEAST ? 0 : TW_FEED_SLOTS * bytes;
}

void tw_cuda_feed_free(tw_backend *b) {
    tw_cuda_backend *c = tw_cuda_of(b);
    if (c->feed.stream) c->rt->stream_synchronize(c->feed.stream);
    release_slots(b);
    for (int i = 0; i < TW_FEED_SLOTS; i++) {
        if (c->feed.slots[i].arrived) c->rt->event_destroy(c->feed.slots[i].arrived);
        if (c->feed.slots[i].taken) c->rt->event_destroy(c->feed.slots[i].taken);
    }
    if (c->feed.stream) c->rt->stream_destroy(c->feed.stream);
    memset(&c->feed, 0, sizeof c->feed);
}
