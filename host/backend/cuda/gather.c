/* Batches of samples that lie on the device. */
#include "backend/cuda/gather.h"

#include "core/context.h"
#include "kernels.h"

static twk_status launch(const tw_samples_on_device *p, void *out, twk_stream stream) {
    if (!p->are_bytes)
        return twk_embedding(TWK_F32, p->batch, p->count, p->elements, p->samples, p->index, out,
                             stream);
    const twk_image_args args = {.batch = p->batch,
                                 .h = 1,
                                 .w = 1,
                                 .channels = p->elements,
                                 .in = p->samples,
                                 .index = p->index,
                                 .n_images = p->count,
                                 .format = TWK_F32,
                                 .out = out};
    return twk_image_to_tensor(&args, stream);
}

tw_status tw_cuda_gather(tw_backend *b, const tw_samples_on_device *p, void *out) {
    TW_TRY(tw_cuda_use(b));
    const twk_status s = launch(p, out, tw_cuda_of(b)->stream);
    if (s == TWK_OK) return TW_OK;
    return tw_fail(b->ctx, s == TWK_LAUNCH_FAILED ? TW_ERROR_DEVICE : TW_ERROR_INTERNAL,
                   "a batch of samples: %s", twk_error_text());
}
