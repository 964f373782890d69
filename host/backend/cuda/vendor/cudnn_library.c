/* Opening cuDNN. */
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "backend/cuda/vendor/cudnn.h"
#include "backend/cuda/vendor/library.h"

#define SYMBOL(name) {"cudnn" #name, offsetof(tw_cudnn_api, name)},
static const tw_library_symbol symbols[] = {TW_CUDNN_FUNCTIONS(SYMBOL)};
#undef SYMBOL
static const char *const names[] = {"libcudnn.so.9", NULL};

/* The device to choose plans for where there is none. */
static bool describe_device(tw_cudnn *c, const char *json) {
#if CUDNN_VERSION >= 90800
    if (c->api.GetVersion() >= 90800) {
        tw_cudnn_builder b = {.cudnn = c};
        cudnnBackendDescriptor_t d = tw_cudnn_make(&b, CUDNN_BACKEND_DEVICEPROP_DESCRIPTOR);
        tw_cudnn_set(&b, d, CUDNN_ATTR_DEVICEPROP_JSON_REPRESENTATION, CUDNN_TYPE_CHAR,
                     (int64_t)strlen(json) + 1, json);
        tw_cudnn_finish(&b, d, "the description of a device");
        if (b.status == CUDNN_STATUS_SUCCESS) {
            c->device = d; /* instead of tw_cudnn_clear */
            return true;
        }
        tw_cudnn_cannot(&b, "description of a device");
        tw_cudnn_clear(&b);
        snprintf(c->reason, sizeof c->reason, "%s", tw_vendor_text());
        return false;
    }
#endif
    (void)json;
    snprintf(c->reason, sizeof c->reason, "%s: chooses for a described device from 9.8 on only",
             c->name);
    return false;
}

static bool make_handle(tw_cudnn *c) {
    const cudnnStatus_t status = c->api.Create(&c->handle);
    if (status == CUDNN_STATUS_SUCCESS) return true;
    c->handle = NULL;
    char text[200] = "";
    c->api.GetLastErrorString(text, sizeof text);
    snprintf(c->reason, sizeof c->reason, "%s: no handle: %s%s%s", c->name,
             c->api.GetErrorString(status), text[0] ? ": " : "", text);
    return false;
}

twk_status tw_cudnn_open(tw_vendor *v) {
    if (!v->cudnn) {
        tw_cudnn *c = calloc(1, sizeof *c);
        if (!c) return tw_vendor_fail(TWK_UNSUPPORTED, "cuDNN: out of memory");
        v->cudnn = c;
        c->library =
            tw_library_open(v->options.cudnn, names, symbols, sizeof symbols / sizeof *symbols,
                            &c->api, c->reason, sizeof c->reason);
        if (c->library) {
            const size_t version = c->api.GetVersion();
            snprintf(c->name, sizeof c->name, "cuDNN %zu.%zu.%zu", version / 10000,
                     version / 100 % 100, version % 100);
            if (version / 10000 != CUDNN_MAJOR)
                snprintf(c->reason, sizeof c->reason, "cuDNN's number is %zu: built for %d.x",
                         version, CUDNN_MAJOR);
            else
                c->ready =
                    v->options.device ? describe_device(c, v->options.device) : make_handle(c);
        }
    }
    if (!v->cudnn->ready) return tw_vendor_fail(TWK_UNSUPPORTED, "%s", v->cudnn->reason);
    return TWK_OK;
}

const char *tw_cudnn_name(const tw_vendor *v) {
    return v->cudnn->name;
}

void tw_cudnn_close(tw_cudnn *c) {
    if (!c) return;
    if (c->device) c->api.BackendDestroyDescriptor(c->device);
    if (c->handle) c->api.Destroy(c->handle);
    if (c->library) dlclose(c->library);
    free(c);
}
