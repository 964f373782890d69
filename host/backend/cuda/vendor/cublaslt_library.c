/* Opening cuBLASLt. */
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>

#include "backend/cuda/vendor/cublaslt.h"
#include "backend/cuda/vendor/library.h"

#define SYMBOL(name) {"cublasLt" #name, offsetof(tw_cublaslt_api, name)},
static const tw_library_symbol symbols[] = {TW_CUBLASLT_FUNCTIONS(SYMBOL)};
#undef SYMBOL
static const char *const names[] = {"libcublasLt.so.13", "libcublasLt.so.12", NULL};

static void make_handle(tw_cublaslt *c) {
    const size_t version = c->api.GetVersion(); /* 120902 is 12.9.2, 130100 13.1.0 */
    snprintf(c->name, sizeof c->name, "cuBLASLt %zu.%zu.%zu", version / 10000, version / 100 % 100,
             version % 100);
    if (version / 10000 != 12 && version / 10000 != 13) {
        snprintf(c->reason, sizeof c->reason, "cuBLASLt's number is %zu: made for 12.x and 13.x",
                 version);
        return;
    }
    const cublasStatus_t status = c->api.Create(&c->handle);
    if (status == CUBLAS_STATUS_SUCCESS) return;
    c->handle = NULL;
    snprintf(c->reason, sizeof c->reason, "%s: no handle (is there a device?): %s", c->name,
             c->api.GetStatusString(status));
}

twk_status tw_cublaslt_open(tw_vendor *v) {
    if (!v->cublaslt) {
        tw_cublaslt *c = calloc(1, sizeof *c);
        if (!c) return tw_vendor_fail(TWK_UNSUPPORTED, "cuBLASLt: out of memory");
        v->cublaslt = c;
        c->library =
            tw_library_open(v->options.cublaslt, names, symbols, sizeof symbols / sizeof *symbols,
                            &c->api, c->reason, sizeof c->reason);
        if (c->library) make_handle(c);
    }
    if (!v->cublaslt->handle) return tw_vendor_fail(TWK_UNSUPPORTED, "%s", v->cublaslt->reason);
    return TWK_OK;
}

const char *tw_cublaslt_name(const tw_vendor *v) {
    return v->cublaslt->name;
}

void tw_cublaslt_close(tw_cublaslt *c) {
    if (!c) return;
    if (c->handle) c->api.Destroy(c->handle);
    if (c->library) dlclose(c->library);
    free(c);
}
