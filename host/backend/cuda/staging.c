#include "backend/cuda/staging.h"

#include <string.h>

static tw_cuda_result open(tw_cuda_staging *s, const tw_cuda_runtime *rt) {
    tw_cuda_result r = TW_CUDA_OK;
    for (int i = 0; i < TW_STAGING_PAGES && r == TW_CUDA_OK; i++)
        if (!s->left[i]) r = rt->event_create(&s->left[i]);
    void *memory = NULL;
    if (r == TW_CUDA_OK) r = rt->pinned_allocate(TW_STAGING_PAGES * TW_STAGING_PAGE, &memory);
    if (r == TW_CUDA_OK) s->memory = memory;
    return r; /* what there is so far is of use next time */
}

static tw_cuda_result turn(tw_cuda_staging *s, const tw_cuda_runtime *rt, tw_cuda_stream stream) {
    tw_cuda_result r = rt->event_record(s->left[s->page], stream);
    if (r != TW_CUDA_OK) return r;
    s->pending[s->page] = true;
    s->page = (s->page + 1) % TW_STAGING_PAGES;
    s->used = 0;
    if (!s->pending[s->page]) return TW_CUDA_OK;
    r = rt->event_synchronize(s->left[s->page]);
    if (r == TW_CUDA_OK) s->pending[s->page] = false;
    return r;
}

tw_cuda_result tw_cuda_staging_upload(tw_cuda_staging *s, const tw_cuda_runtime *rt,
                                      tw_cuda_stream stream, void *dst, const void *src,
                                      size_t bytes) {
    tw_cuda_result r = s->memory || !bytes ? TW_CUDA_OK : open(s, rt);
    for (size_t done = 0; done < bytes && r == TW_CUDA_OK;) {
        if (s->used == TW_STAGING_PAGE) r = turn(s, rt, stream);
        if (r != TW_CUDA_OK) break;
        const size_t room = TW_STAGING_PAGE - s->used, left = bytes - done;
        const size_t part = left < room ? left : room;
        char *place = s->memory + (size_t)s->page * TW_STAGING_PAGE + s->used;
        memcpy(place, (const char *)src + done, part);
        r = rt->copy(stream, (char *)dst + done, place, part, TW_CUDA_IN);
        done += part;
        s->used += (part + 63) & ~(size_t)63;
    }
    return r;
}

void tw_cuda_staging_free(tw_cuda_staging *s, const tw_cuda_runtime *rt) {
    for (int i = 0; i < TW_STAGING_PAGES; i++)
        if (s->left[i]) rt->event_destroy(s->left[i]);
    if (s->memory) rt->pinned_release(s->memory);
    memset(s, 0, sizeof *s);
}
