/* The in-memory layout of DLPack capsules, from the specification of DLPack 1.0. */
#ifndef TW_CORE_DLPACK_H
#define TW_CORE_DLPACK_H

#include <stdint.h>

enum {
    TW_DLPACK_MAJOR = 1,
    TW_DLPACK_MINOR = 0,
    TW_DLPACK_READ_ONLY = 1, /* bit 0 of the flags */
    TW_DLPACK_COPIED = 2     /* bit 1: the consumer owns a copy */
};

/* Device types. CUDA's own pinned and managed memory have types of their own, which we refuse. */
enum { TW_DLPACK_CPU = 1, TW_DLPACK_CUDA = 2 };

/* Type codes of the elements. */
enum { TW_DLPACK_INT = 0, TW_DLPACK_UINT = 1, TW_DLPACK_FLOAT = 2, TW_DLPACK_BFLOAT = 4 };

typedef struct DLDevice {
    int32_t device_type; /* an enum of 32 bits */
    int32_t device_id;
} DLDevice;

typedef struct DLDataType {
    uint8_t code, bits;
    uint16_t lanes;
} DLDataType;

typedef struct DLTensor {
    void *data;
    DLDevice device;
    int32_t ndim;
    DLDataType dtype;
    int64_t *shape;
    int64_t *strides; /* in elements; null: dense */
    uint64_t byte_offset;
} DLTensor;

typedef struct DLManagedTensor {
    DLTensor dl_tensor;
    void *manager_ctx;
    void (*deleter)(struct DLManagedTensor *self);
} DLManagedTensor;

typedef struct DLPackVersion {
    uint32_t major, minor;
} DLPackVersion;

typedef struct DLManagedTensorVersioned {
    DLPackVersion version;
    void *manager_ctx;
    void (*deleter)(struct DLManagedTensorVersioned *self);
    uint64_t flags;
    DLTensor dl_tensor;
} DLManagedTensorVersioned;

#endif
