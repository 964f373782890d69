/* Descriptors, which are what cuDNN's graph interface is made of. */
#include "backend/cuda/vendor/cudnn.h"

static void note(tw_cudnn_builder *b, cudnnStatus_t status, const char *where) {
    if (b->status != CUDNN_STATUS_SUCCESS || status == CUDNN_STATUS_SUCCESS) return;
    b->status = status;
    b->where = where;
}

cudnnBackendDescriptor_t tw_cudnn_make(tw_cudnn_builder *b, cudnnBackendDescriptorType_t type) {
    if (b->status != CUDNN_STATUS_SUCCESS) return NULL;
    if (b->n_made == TW_CUDNN_DESCRIPTORS) {
        note(b, CUDNN_STATUS_INTERNAL_ERROR, "too many descriptors");
        return NULL;
    }
    cudnnBackendDescriptor_t d = NULL;
    note(b, b->cudnn->api.BackendCreateDescriptor(type, &d), "a descriptor");
    if (b->status != CUDNN_STATUS_SUCCESS) return NULL;
    b->made[b->n_made++] = d;
    return d;
}

void tw_cudnn_set(tw_cudnn_builder *b, cudnnBackendDescriptor_t d, cudnnBackendAttributeName_t name,
                  cudnnBackendAttributeType_t type, int64_t n, const void *values) {
    if (b->status != CUDNN_STATUS_SUCCESS) return;
    note(b, b->cudnn->api.BackendSetAttribute(d, name, type, n, values), "an attribute");
}

void tw_cudnn_set_descriptor(tw_cudnn_builder *b, cudnnBackendDescriptor_t d,
                             cudnnBackendAttributeName_t name, cudnnBackendDescriptor_t value) {
    tw_cudnn_set(b, d, name, CUDNN_TYPE_BACKEND_DESCRIPTOR, 1, &value);
}

void tw_cudnn_set_float(tw_cudnn_builder *b, cudnnBackendDescriptor_t d,
                        cudnnBackendAttributeName_t name, float value) {
    tw_cudnn_set(b, d, name, CUDNN_TYPE_FLOAT, 1, &value);
}

void tw_cudnn_finish(tw_cudnn_builder *b, cudnnBackendDescriptor_t d, const char *where) {
    if (b->status != CUDNN_STATUS_SUCCESS) return;
    note(b, b->cudnn->api.BackendFinalize(d), where);
}

cudnnBackendDescriptor_t tw_cudnn_tensor_of(tw_cudnn_builder *b, const tw_cudnn_tensor *t) {
    cudnnBackendDescriptor_t d = tw_cudnn_make(b, CUDNN_BACKEND_TENSOR_DESCRIPTOR);
    tw_cudnn_set(b, d, CUDNN_ATTR_TENSOR_UNIQUE_ID, CUDNN_TYPE_INT64, 1, &t->uid);
    tw_cudnn_set(b, d, CUDNN_ATTR_TENSOR_DATA_TYPE, CUDNN_TYPE_DATA_TYPE, 1, &t->type);
    tw_cudnn_set(b, d, CUDNN_ATTR_TENSOR_DIMENSIONS, CUDNN_TYPE_INT64, 4, t->dim);
    tw_cudnn_set(b, d, CUDNN_ATTR_TENSOR_STRIDES, CUDNN_TYPE_INT64, 4, t->stride);
    tw_cudnn_set(b, d, CUDNN_ATTR_TENSOR_BYTE_ALIGNMENT, CUDNN_TYPE_INT64, 1, &t->alignment);
    if (t->is_virtual)
        tw_cudnn_set(b, d, CUDNN_ATTR_TENSOR_IS_VIRTUAL, CUDNN_TYPE_BOOLEAN, 1, &t->is_virtual);
    if (t->by_value)
        tw_cudnn_set(b, d, CUDNN_ATTR_TENSOR_IS_BY_VALUE, CUDNN_TYPE_BOOLEAN, 1, &t->by_value);
    tw_cudnn_finish(b, d, "a tensor");
    return d;
}

void tw_cudnn_operation(tw_cudnn_builder *b, cudnnBackendDescriptor_t d, const char *where) {
    tw_cudnn_finish(b, d, where);
    if (b->n_operations == TW_CUDNN_OPERATIONS)
        note(b, CUDNN_STATUS_INTERNAL_ERROR, "too many operations");
    if (b->status == CUDNN_STATUS_SUCCESS) b->operations[b->n_operations++] = d;
}

void tw_cudnn_pointwise(tw_cudnn_builder *b, cudnnPointwiseMode_t mode, cudnnBackendDescriptor_t x,
                        cudnnBackendDescriptor_t other, float scale, cudnnBackendDescriptor_t y) {
    const cudnnDataType_t f32 = CUDNN_DATA_FLOAT;
    cudnnBackendDescriptor_t p = tw_cudnn_make(b, CUDNN_BACKEND_POINTWISE_DESCRIPTOR);
    tw_cudnn_set(b, p, CUDNN_ATTR_POINTWISE_MODE, CUDNN_TYPE_POINTWISE_MODE, 1, &mode);
    tw_cudnn_set(b, p, CUDNN_ATTR_POINTWISE_MATH_PREC, CUDNN_TYPE_DATA_TYPE, 1, &f32);
    tw_cudnn_finish(b, p, "a pointwise function");
    cudnnBackendDescriptor_t d = tw_cudnn_make(b, CUDNN_BACKEND_OPERATION_POINTWISE_DESCRIPTOR);
    tw_cudnn_set_descriptor(b, d, CUDNN_ATTR_OPERATION_POINTWISE_PW_DESCRIPTOR, p);
    tw_cudnn_set_descriptor(b, d, CUDNN_ATTR_OPERATION_POINTWISE_XDESC, x);
    tw_cudnn_set_descriptor(b, d, CUDNN_ATTR_OPERATION_POINTWISE_YDESC, y);
    if (other) {
        tw_cudnn_set_descriptor(b, d, CUDNN_ATTR_OPERATION_POINTWISE_BDESC, other);
        if (scale != 1.0f) tw_cudnn_set_float(b, d, CUDNN_ATTR_OPERATION_POINTWISE_ALPHA2, scale);
    }
    tw_cudnn_operation(b, d, "a pointwise operation");
}

cudnnBackendDescriptor_t tw_cudnn_graph(tw_cudnn_builder *b) {
    cudnnBackendDescriptor_t d = tw_cudnn_make(b, CUDNN_BACKEND_OPERATIONGRAPH_DESCRIPTOR);
    tw_cudnn_set(b, d, CUDNN_ATTR_OPERATIONGRAPH_OPS, CUDNN_TYPE_BACKEND_DESCRIPTOR,
                 b->n_operations, b->operations);
    if (b->cudnn->handle) /* needed before 9.8 */
        tw_cudnn_set(b, d, CUDNN_ATTR_OPERATIONGRAPH_HANDLE, CUDNN_TYPE_HANDLE, 1,
                     &b->cudnn->handle);
    tw_cudnn_finish(b, d, "the graph");
    return d;
}

void tw_cudnn_clear(tw_cudnn_builder *b) {
    while (b->n_made > 0) b->cudnn->api.BackendDestroyDescriptor(b->made[--b->n_made]);
}

twk_status tw_cudnn_cannot(const tw_cudnn_builder *b, const char *what) {
    char text[200] = "";
    b->cudnn->api.GetLastErrorString(text, sizeof text);
    return tw_vendor_fail(TWK_UNSUPPORTED, "%s: %s: %s: %s%s%s", b->cudnn->name, what, b->where,
                          b->cudnn->api.GetErrorString(b->status), text[0] ? ": " : "", text);
}

cudnnDataType_t tw_cudnn_type(twk_format format) {
    return format == TWK_F32    ? CUDNN_DATA_FLOAT
           : format == TWK_BF16 ? CUDNN_DATA_BFLOAT16
                                : CUDNN_DATA_HALF;
}
