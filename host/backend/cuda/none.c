/* In the place of the GPU's backend in builds without CUDA. */
#include "backend/backend.h"
#include "core/context.h"

const bool tw_backend_has_cuda = false;

tw_status tw_backend_cuda_create(tw_context *ctx, int threads, const char *provider,
                                 tw_backend **out) {
    (void)threads;
    (void)provider;
    *out = NULL;
    return tw_fail(ctx, TW_ERROR_DEVICE,
                   "this build has no CUDA (nvcc was not found when it was configured)");
}
