#include <tweedie/tensor.h>

#include <string.h>

#include "core/checked.h"
#include "core/context.h"
#include "core/dlpack.h"

static const struct {
    const char *name;
    size_t size;
    DLDataType dlpack;
} dtypes[] = {
    [TW_F32] = {"float32", 4, {TW_DLPACK_FLOAT, 32, 1}},
    [TW_F64] = {"float64", 8, {TW_DLPACK_FLOAT, 64, 1}},
    [TW_BF16] = {"bfloat16", 2, {TW_DLPACK_BFLOAT, 16, 1}},
    [TW_F16] = {"float16", 2, {TW_DLPACK_FLOAT, 16, 1}},
    [TW_I32] = {"int32", 4, {TW_DLPACK_INT, 32, 1}},
    [TW_I64] = {"int64", 8, {TW_DLPACK_INT, 64, 1}},
    [TW_U8] = {"uint8", 1, {TW_DLPACK_UINT, 8, 1}},
};
enum { DTYPES = sizeof dtypes / sizeof *dtypes };

static bool is_dtype(tw_dtype dtype) {
    return (int)dtype >= 0 && (int)dtype < DTYPES;
}

size_t tw_dtype_size(tw_dtype dtype) {
    return is_dtype(dtype) ? dtypes[dtype].size : 0;
}

const char *tw_dtype_name(tw_dtype dtype) {
    return is_dtype(dtype) ? dtypes[dtype].name : "unknown";
}

/* Checks the extents and that the elements' bytes fit 63 bits, and sets dense strides. */
static tw_status set_shape(tw_tensor *t, const char *what, int rank, const int64_t *shape) {
    if (rank < 0 || rank > TW_MAX_RANK)
        return tw_fail(NULL, TW_ERROR_ARGUMENT, "%s: rank: expected 0 to %d, got %d", what,
                       TW_MAX_RANK, rank);
    if (rank && !shape) return tw_fail(NULL, TW_ERROR_ARGUMENT, "%s: no shape", what);
    t->rank = rank;
    int64_t bytes = (int64_t)tw_dtype_size(t->dtype), stride = 1;
    for (int i = 0; i < rank; i++) {
        if (shape[i] < 0)
            return tw_fail(NULL, TW_ERROR_ARGUMENT, "%s: extent %d: expected at least 0, got %lld",
                           what, i, (long long)shape[i]);
        t->shape[i] = shape[i];
        if (!tw_mul_i64(bytes, shape[i] ? shape[i] : 1, &bytes))
            return tw_fail(NULL, TW_ERROR_ARGUMENT, "%s: the shape does not fit 63 bits", what);
    }
    for (int i = rank - 1; i >= 0; i--) {
        t->strides[i] = stride;
        stride *= shape[i] ? shape[i] : 1;
    }
    return TW_OK;
}

tw_status tw_tensor_view(void *data, tw_dtype dtype, int rank, const int64_t *shape,
                         tw_tensor *out) {
    tw_tensor t = {.data = data, .device = TW_DEVICE_CPU, .dtype = dtype};
    if (!out) return tw_fail(NULL, TW_ERROR_ARGUMENT, "tensor: no place for the result");
    if (!is_dtype(dtype))
        return tw_fail(NULL, TW_ERROR_ARGUMENT, "tensor: unknown dtype %d", (int)dtype);
    TW_TRY(set_shape(&t, "tensor", rank, shape));
    *out = t;
    return TW_OK;
}

int64_t tw_tensor_count(const tw_tensor *tensor) {
    if (!tensor) return -1;
    int64_t count = 1;
    for (int i = 0; i < tensor->rank; i++) count *= tensor->shape[i];
    return count;
}

int tw_tensor_is_dense(const tw_tensor *tensor) {
    if (!tensor) return 0;
    int64_t stride = 1;
    for (int i = 0; i < tensor->rank; i++)
        if (tensor->shape[i] == 0) return 1; /* there is nothing to stride over */
    for (int i = tensor->rank - 1; i >= 0; i--) {
        if (tensor->shape[i] != 1 && tensor->strides[i] != stride) return 0;
        stride *= tensor->shape[i];
    }
    return 1;
}

/* A capsule of ours with what its deleter needs. */
typedef struct capsule {
    DLManagedTensorVersioned managed;
    int64_t shape[TW_MAX_RANK], strides[TW_MAX_RANK];
    void (*release)(void *user);
    void *user;
} capsule;

static void delete_capsule(DLManagedTensorVersioned *self) {
    if (!self) return;
    capsule *c = self->manager_ctx;
    if (c->release) c->release(c->user);
    tw_free(NULL, c);
}

tw_status tw_tensor_to_dlpack(const tw_tensor *tensor, void (*release)(void *user), void *user,
                              struct DLManagedTensorVersioned **out) {
    if (!out) return tw_fail(NULL, TW_ERROR_ARGUMENT, "DLPack: no place for the result");
    *out = NULL;
    if (!tensor || !is_dtype(tensor->dtype) || tensor->rank < 0 || tensor->rank > TW_MAX_RANK)
        return tw_fail(NULL, TW_ERROR_ARGUMENT, "DLPack: no tensor, or its dtype or rank is bad");
    if (tensor->device != TW_DEVICE_CPU && tensor->device != TW_DEVICE_CUDA)
        return tw_fail(NULL, TW_ERROR_ARGUMENT, "DLPack: device: expected CPU or CUDA, got %d",
                       (int)tensor->device);
    capsule *c = tw_allocate(NULL, 1, sizeof *c);
    if (!c) return TW_ERROR_MEMORY;
    memcpy(c->shape, tensor->shape, sizeof c->shape);
    memcpy(c->strides, tensor->strides, sizeof c->strides);
    c->release = release;
    c->user = user;
    c->managed = (DLManagedTensorVersioned){
        .version = {TW_DLPACK_MAJOR, TW_DLPACK_MINOR},
        .manager_ctx = c,
        .deleter = delete_capsule,
        .flags = tensor->read_only ? TW_DLPACK_READ_ONLY : 0,
        .dl_tensor = {.data = tensor->data,
                      .device = {tensor->device == TW_DEVICE_CUDA ? TW_DLPACK_CUDA : TW_DLPACK_CPU,
                                 tensor->device_index},
                      .ndim = tensor->rank,
                      .dtype = dtypes[tensor->dtype].dlpack,
                      .shape = c->shape,
                      .strides = c->strides}};
    *out = &c->managed;
    return TW_OK;
}

static tw_status find_dtype(DLDataType d, tw_dtype *out) {
    for (int i = 0; i < DTYPES; i++) {
        const DLDataType *ours = &dtypes[i].dlpack;
        if (d.code == ours->code && d.bits == ours->bits && d.lanes == ours->lanes) {
            *out = (tw_dtype)i;
            return TW_OK;
        }
    }
    return tw_fail(NULL, TW_ERROR_UNSUPPORTED, "DLPack: dtype with code %d, %d bits, %d lanes",
                   d.code, d.bits, d.lanes);
}

static tw_status from_dltensor(const DLTensor *from, tw_tensor *out) {
    tw_tensor t = {.device_index = from->device.device_id};
    if (from->device.device_type == TW_DLPACK_CPU)
        t.device = TW_DEVICE_CPU;
    else if (from->device.device_type == TW_DLPACK_CUDA)
        t.device = TW_DEVICE_CUDA;
    else
        return tw_fail(NULL, TW_ERROR_UNSUPPORTED,
                       "DLPack: device type %d, expected 1 (CPU) or 2 (CUDA)",
                       (int)from->device.device_type);
    TW_TRY(find_dtype(from->dtype, &t.dtype));
    if (from->ndim > TW_MAX_RANK)
        return tw_fail(NULL, TW_ERROR_UNSUPPORTED, "DLPack: rank %d, expected at most %d",
                       (int)from->ndim, TW_MAX_RANK);
    TW_TRY(set_shape(&t, "DLPack", from->ndim, from->shape));
    if (from->strides)
        for (int i = 0; i < t.rank; i++) t.strides[i] = from->strides[i];
    /* An empty tensor's address may be null: leave it so. */
    t.data = from->data ? (char *)from->data + from->byte_offset : NULL;
    if (!t.data && tw_tensor_count(&t)) return tw_fail(NULL, TW_ERROR_ARGUMENT, "DLPack: no data");
    *out = t;
    return TW_OK;
}

tw_status tw_tensor_from_dlpack(const struct DLManagedTensorVersioned *in, tw_tensor *out) {
    if (!in || !out) return tw_fail(NULL, TW_ERROR_ARGUMENT, "DLPack: a null argument");
    /* Under another major version everything but the version, context and deleter may differ. */
    if (in->version.major != TW_DLPACK_MAJOR)
        return tw_fail(NULL, TW_ERROR_UNSUPPORTED, "DLPack: version %u.%u, expected %d.x",
                       (unsigned)in->version.major, (unsigned)in->version.minor, TW_DLPACK_MAJOR);
    TW_TRY(from_dltensor(&in->dl_tensor, out));
    out->read_only = (in->flags & TW_DLPACK_READ_ONLY) != 0;
    return TW_OK;
}

tw_status tw_tensor_from_dlpack_unversioned(const struct DLManagedTensor *in, tw_tensor *out) {
    if (!in || !out) return tw_fail(NULL, TW_ERROR_ARGUMENT, "DLPack: a null argument");
    return from_dltensor(&in->dl_tensor, out);
}
