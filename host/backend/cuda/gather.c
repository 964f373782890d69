/* Batches of pictures that lie on the device. */
#include "backend/cuda/gather.h"

#include "core/context.h"
#include "kernels.h"

tw_status tw_cuda_gather(tw_backend *b, const tw_pictures_on_device *p, void *out) {
    TW_TRY(tw_cuda_use(b));
    const twk_image_args args = {.batch = p->batch,
                                 .h = p->shape[0],
                                 .w = p->shape[1],
                                 .channels = p->shape[2],
                                 .in = p->bytes,
                                 .index = p->index,
                                 .n_images = p->count,
                                 .format = TWK_F32,
                                 .out = out};
    const twk_status s = twk_image_to_tensor(&args, tw_cuda_of(b)->stream);
    if (s == TWK_OK) return TW_OK;
    return tw_fail(b->ctx, s == TWK_LAUNCH_FAILED ? TW_ERROR_DEVICE : TW_ERROR_INTERNAL,
                   "a batch of pictures: %s", twk_error_text());
}
