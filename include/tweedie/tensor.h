/* A view of a tensor that somebody else owns, and its exchange through DLPack. */
#ifndef TWEEDIE_TENSOR_H
#define TWEEDIE_TENSOR_H

#include <stdint.h>

#include "context.h"

TW_BEGIN_DECLS

#define TW_MAX_RANK 4

typedef enum tw_dtype {
    TW_F32 = 0,
    TW_F64 = 1,
    TW_BF16 = 2,
    TW_F16 = 3,
    TW_I32 = 4,
    TW_I64 = 5,
    TW_U8 = 6
} tw_dtype;

/* Bytes of one element; 0 for a value that is no dtype. */
TW_API size_t tw_dtype_size(tw_dtype dtype);
/* "float32", "bfloat16" ...; "unknown" for a value that is no dtype. */
TW_API const char *tw_dtype_name(tw_dtype dtype);

/* A stream of the device on which work is ordered (a cudaStream_t); null on the CPU. */
typedef void *tw_stream;

/* What a network computes with. Weights are kept in float32 whatever this is, as are statistics,
 * losses, gradients of weights, and the states of optimizer and sampler. */
typedef enum tw_precision {
    TW_PRECISION_F32 = 0,
    TW_PRECISION_TF32 = 1, /* float32; a GPU may round the operands of products to tf32 */
    TW_PRECISION_BF16 = 2,
    TW_PRECISION_F16 = 3 /* not for training: small gradients would vanish */
} tw_precision;

/* A plain view: the memory belongs to whoever made it. Strides count elements. */
typedef struct tw_tensor {
    void *data;
    tw_device device; /* CPU or CUDA */
    int device_index;
    tw_dtype dtype;
    int rank;
    int64_t shape[TW_MAX_RANK];
    int64_t strides[TW_MAX_RANK];
    int read_only;
} tw_tensor;

/* A dense (row-major) view of `data`. TW_ERROR_ARGUMENT for a rank outside 0..TW_MAX_RANK, a
 * negative extent or a size that does not fit 63 bits. No context is needed: the text goes to
 * tw_context_error(NULL). */
TW_API tw_status tw_tensor_view(void *data, tw_dtype dtype, int rank, const int64_t *shape,
                                tw_tensor *out);
/* Elements, and whether they lie row by row without gaps; -1 and 0 of a null pointer. */
TW_API int64_t tw_tensor_count(const tw_tensor *tensor);
TW_API int tw_tensor_is_dense(const tw_tensor *tensor);

struct DLManagedTensor;
struct DLManagedTensorVersioned;

/* DLPack out: wraps the view without copying. The memory must outlive the capsule; `release`
 * (may be null) is called once with `user` when the consumer calls the capsule's deleter. */
TW_API tw_status tw_tensor_to_dlpack(const tw_tensor *tensor, void (*release)(void *user),
                                     void *user, struct DLManagedTensorVersioned **out);

/* DLPack in: describes a capsule's memory. The capsule still belongs to the caller, who calls its
 * deleter when the view is no longer used. Refused with TW_ERROR_UNSUPPORTED: a major version
 * other than 1, a dtype with lanes or none of ours, a device other than CPU and CUDA, a rank above
 * TW_MAX_RANK. */
TW_API tw_status tw_tensor_from_dlpack(const struct DLManagedTensorVersioned *capsule,
                                       tw_tensor *out);
/* The same for capsules from before DLPack 1.0, which carry no version and no read-only flag. */
TW_API tw_status tw_tensor_from_dlpack_unversioned(const struct DLManagedTensor *capsule,
                                                   tw_tensor *out);

TW_END_DECLS

#endif
