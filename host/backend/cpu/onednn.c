/* The provider "cpu-onednn". */
#include <dnnl.h>

#include "backend/backend.h"
#include "backend/cpu/cpu.h"
#include "core/context.h"

static tw_status onednn_prepare(tw_backend *backend, const tw_region *region, tw_kernel *kernel) {
    (void)backend;
    (void)region;
    (void)kernel;
    return TW_ERROR_UNSUPPORTED;
}

const tw_provider tw_provider_cpu_onednn = {"cpu-onednn", onednn_prepare};
