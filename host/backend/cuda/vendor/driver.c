#include "backend/cuda/vendor/driver.h"

#include <dlfcn.h>
#include <stdlib.h>

#include "backend/cuda/vendor/library.h"

#define AT(member) offsetof(tw_driver_api, member)
static const tw_library_symbol symbols[] = {
    {"cuEventCreate", AT(event_create)},
    {"cuEventDestroy_v2", AT(event_destroy)},
    {"cuEventRecord", AT(event_record)},
    {"cuEventSynchronize", AT(event_synchronize)},
    {"cuEventElapsedTime", AT(event_elapsed)},
    {"cuMemAlloc_v2", AT(allocate)},
    {"cuMemFree_v2", AT(release)},
    {"cuMemsetD8Async", AT(fill)},
    {"cuMemcpyDtoH_v2", AT(to_host)},
    {"cuStreamSynchronize", AT(synchronize)},
    {"cuStreamIsCapturing", AT(is_capturing)},
};
static const char *const names[] = {"libcuda.so.1", NULL};

twk_status tw_driver_open(tw_vendor *v) {
    if (!v->driver) {
        tw_driver *d = calloc(1, sizeof *d);
        if (!d) return tw_vendor_fail(TWK_UNSUPPORTED, "tuning: out of memory");
        v->driver = d;
        d->library =
            tw_library_open(v->options.driver, names, symbols, sizeof symbols / sizeof *symbols,
                            &d->api, d->reason, sizeof d->reason);
    }
    if (!v->driver->library)
        return tw_vendor_fail(TWK_UNSUPPORTED, "tuning: %s", v->driver->reason);
    return TWK_OK;
}

void tw_driver_close(tw_driver *d) {
    if (!d) return;
    if (d->library) dlclose(d->library);
    free(d);
}
