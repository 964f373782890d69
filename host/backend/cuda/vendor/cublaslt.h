/* The inside of the cuBLASLt part, the only one that knows cuBLASLt. */
#ifndef TW_BACKEND_CUDA_VENDOR_CUBLASLT_H
#define TW_BACKEND_CUDA_VENDOR_CUBLASLT_H

#include <cublasLt.h>

#include "backend/cuda/vendor/internal.h"

#define TW_CUBLASLT_FUNCTIONS(X)                                                                   \
    X(GetVersion)                                                                                  \
    X(GetStatusString)                                                                             \
    X(Create)                                                                                      \
    X(Destroy)                                                                                     \
    X(MatmulDescCreate)                                                                            \
    X(MatmulDescDestroy)                                                                           \
    X(MatmulDescSetAttribute)                                                                      \
    X(MatrixLayoutCreate)                                                                          \
    X(MatrixLayoutDestroy)                                                                         \
    X(MatrixLayoutSetAttribute)                                                                    \
    X(MatmulPreferenceCreate)                                                                      \
    X(MatmulPreferenceDestroy)                                                                     \
    X(MatmulPreferenceSetAttribute)                                                                \
    X(MatmulAlgoGetHeuristic)                                                                      \
    X(MatmulAlgoConfigGetAttribute)                                                                \
    X(Matmul)

typedef struct tw_cublaslt_api {
#define TW_CUBLASLT_MEMBER(name) __typeof__(cublasLt##name) *name;
    TW_CUBLASLT_FUNCTIONS(TW_CUBLASLT_MEMBER)
#undef TW_CUBLASLT_MEMBER
} tw_cublaslt_api;

struct tw_cublaslt {
    void *library; /* NULL: it could not be opened */
    char reason[TW_VENDOR_TEXT];
    char name[32]; /* "cuBLASLt 13.1.0" */
    tw_cublaslt_api api;
    cublasLtHandle_t handle; /* NULL: not ready */
};

twk_status tw_cublaslt_open(tw_vendor *v);
const char *tw_cublaslt_name(const tw_vendor *v);

#endif
