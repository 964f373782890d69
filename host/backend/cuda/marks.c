/* Pinned memory, points of the stream that the host asks for, and the caller's events. */
#include "backend/cuda/marks.h"

tw_status tw_cuda_pin(tw_backend *b, size_t bytes, void **out) {
    TW_TRY(tw_cuda_use(b));
    return tw_cuda_check(b, tw_cuda_of(b)->rt->pinned_allocate(bytes, out), "pinned memory");
}

void tw_cuda_unpin(tw_backend *b, void *memory) {
    if (memory && tw_cuda_use(b) == TW_OK) tw_cuda_of(b)->rt->pinned_release(memory);
}

tw_status tw_cuda_mark(tw_backend *b, void **mark) {
    tw_cuda_backend *c = tw_cuda_of(b);
    tw_cuda_event event = *mark;
    TW_TRY(tw_cuda_use(b));
    if (!event) TW_TRY(tw_cuda_check(b, c->rt->event_create(&event), "an event"));
    *mark = event;
    return tw_cuda_check(b, c->rt->event_record(event, c->stream), "recording an event");
}

tw_status tw_cuda_reached(tw_backend *b, void *mark, bool wait, bool *out) {
    tw_cuda_backend *c = tw_cuda_of(b);
    *out = false;
    TW_TRY(tw_cuda_use(b));
    const tw_cuda_result r = wait ? c->rt->event_synchronize(mark) : c->rt->event_query(mark);
    if (r == TW_CUDA_NOT_READY) return TW_OK;
    *out = r == TW_CUDA_OK;
    return tw_cuda_check(b, r, "waiting for the device");
}

void tw_cuda_unmark(tw_backend *b, void *mark) {
    if (mark && tw_cuda_use(b) == TW_OK) tw_cuda_of(b)->rt->event_destroy(mark);
}

tw_status tw_cuda_follow(tw_backend *b, void *event) {
    TW_TRY(tw_cuda_use(b));
    return tw_cuda_check(b, tw_cuda_of(b)->rt->stream_wait(tw_cuda_of(b)->stream, event),
                         "following an event");
}

tw_status tw_cuda_signal(tw_backend *b, void *event) {
    TW_TRY(tw_cuda_use(b));
    return tw_cuda_check(b, tw_cuda_of(b)->rt->event_record(event, tw_cuda_of(b)->stream),
                         "recording an event");
}
