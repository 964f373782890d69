/* The inside of the cuDNN part, the only one that knows cuDNN: its graph interface, by way of a
 * table that is filled when the library is opened. */
#ifndef TW_BACKEND_CUDA_VENDOR_CUDNN_H
#define TW_BACKEND_CUDA_VENDOR_CUDNN_H

#include <cudnn_graph.h>

#include "backend/cuda/vendor/internal.h"

#define TW_CUDNN_FUNCTIONS(X)                                                                      \
    X(GetVersion)                                                                                  \
    X(GetErrorString)                                                                              \
    X(GetLastErrorString)                                                                          \
    X(Create)                                                                                      \
    X(Destroy)                                                                                     \
    X(SetStream)                                                                                   \
    X(BackendCreateDescriptor)                                                                     \
    X(BackendDestroyDescriptor)                                                                    \
    X(BackendSetAttribute)                                                                         \
    X(BackendGetAttribute)                                                                         \
    X(BackendFinalize)                                                                             \
    X(BackendExecute)

typedef struct tw_cudnn_api {
#define TW_CUDNN_MEMBER(name) __typeof__(cudnn##name) *name;
    TW_CUDNN_FUNCTIONS(TW_CUDNN_MEMBER)
#undef TW_CUDNN_MEMBER
} tw_cudnn_api;

struct tw_cudnn {
    void *library; /* NULL: it could not be opened */
    bool ready;    /* with a handle, or a described device */
    char reason[TW_VENDOR_TEXT];
    char name[32]; /* "cuDNN 9.19.0" */
    tw_cudnn_api api;
    cudnnHandle_t handle;            /* NULL with a described device */
    cudnnBackendDescriptor_t device; /* NULL with a handle */
};

twk_status tw_cudnn_open(tw_vendor *v);
const char *tw_cudnn_name(const tw_vendor *v);

/* --- cudnn_descriptor.c: descriptors that are made together and go together ------------------- */

#define TW_CUDNN_DESCRIPTORS 32
#define TW_CUDNN_OPERATIONS 6

/* After the first failure nothing more is done, and `status` and `where` tell of it. */
typedef struct tw_cudnn_builder {
    const tw_cudnn *cudnn;
    cudnnStatus_t status;
    const char *where;
    int n_made, n_operations;
    cudnnBackendDescriptor_t made[TW_CUDNN_DESCRIPTORS];
    cudnnBackendDescriptor_t operations[TW_CUDNN_OPERATIONS];
} tw_cudnn_builder;

/* A tensor N,C,H,W as cuDNN counts them; strides in elements. */
typedef struct tw_cudnn_tensor {
    int64_t uid;
    cudnnDataType_t type;
    int64_t dim[4], stride[4];
    int64_t alignment;
    bool is_virtual, by_value;
} tw_cudnn_tensor;

cudnnBackendDescriptor_t tw_cudnn_make(tw_cudnn_builder *b, cudnnBackendDescriptorType_t type);
void tw_cudnn_set(tw_cudnn_builder *b, cudnnBackendDescriptor_t d, cudnnBackendAttributeName_t name,
                  cudnnBackendAttributeType_t type, int64_t n, const void *values);
void tw_cudnn_set_descriptor(tw_cudnn_builder *b, cudnnBackendDescriptor_t d,
                             cudnnBackendAttributeName_t name, cudnnBackendDescriptor_t value);
void tw_cudnn_set_float(tw_cudnn_builder *b, cudnnBackendDescriptor_t d,
                        cudnnBackendAttributeName_t name, float value);
void tw_cudnn_finish(tw_cudnn_builder *b, cudnnBackendDescriptor_t d, const char *where);
cudnnBackendDescriptor_t tw_cudnn_tensor_of(tw_cudnn_builder *b, const tw_cudnn_tensor *t);
/* Finishes an operation and puts it into the graph to be. */
void tw_cudnn_operation(tw_cudnn_builder *b, cudnnBackendDescriptor_t d, const char *where);
/* y = x or, with b, x + scale b, or f(x). */
void tw_cudnn_pointwise(tw_cudnn_builder *b, cudnnPointwiseMode_t mode, cudnnBackendDescriptor_t x,
                        cudnnBackendDescriptor_t other, float scale, cudnnBackendDescriptor_t y);
cudnnBackendDescriptor_t tw_cudnn_graph(tw_cudnn_builder *b);
void tw_cudnn_clear(tw_cudnn_builder *b);
/* The builder's failure as the thread's text. */
twk_status tw_cudnn_cannot(const tw_cudnn_builder *b, const char *what);

cudnnDataType_t tw_cudnn_type(twk_format format);

/* --- cudnn_plan.c: from a graph to plans, and their execution --------------------------------- */

typedef struct tw_cudnn_plan {
    tw_vendor_plan base;
    cudnnBackendDescriptor_t config, plan;
} tw_cudnn_plan;

typedef struct tw_cudnn_wish {
    const char *what; /* for texts: "convolution, input gradient" */
    bool exact_f32;   /* no engine that multiplies on tensor cores */
} tw_cudnn_wish;

typedef struct tw_cudnn_binding {
    int n;
    int64_t uid[12];
    void *address[12];
} tw_cudnn_binding;

void tw_cudnn_bind(tw_cudnn_binding *b, int64_t uid, const void *address);
twk_status tw_cudnn_plans(tw_vendor *v, cudnnBackendDescriptor_t graph, const tw_cudnn_wish *wish,
                          int most, tw_vendor_plan **plans, int *n);
twk_status tw_cudnn_execute(tw_vendor *v, const tw_vendor_plan *plan, const tw_cudnn_binding *b,
                            void *workspace, twk_stream stream);
void tw_cudnn_free_plan(tw_vendor *v, tw_vendor_plan *plan);

#endif
