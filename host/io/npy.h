/* NumPy's .npy arrays: little-endian, C order. Files are taken to be hostile. */
#ifndef TW_IO_NPY_H
#define TW_IO_NPY_H

#include <tweedie/tensor.h>

#include "core/context.h"
#include "io/file.h"

#define TW_NPY_MAX_RANK 8

typedef struct tw_npy {
    tw_dtype dtype; /* F32, F64, I32, I64 or U8 */
    int rank;
    int64_t shape[TW_NPY_MAX_RANK];
    int64_t count;    /* product of the shape */
    const void *data; /* perhaps unaligned */
    tw_file_mapping mapping;
} tw_npy;

/* Maps a file of version 1.0 to 3.0. Refused with TW_ERROR_UNSUPPORTED: other dtypes, big-endian
 * numbers, Fortran order. */
tw_status tw_npy_open(tw_context *ctx, const char *path, tw_npy *out);
/* The same over bytes that the caller keeps; close is then not needed. `name` is for messages. */
tw_status tw_npy_parse(tw_context *ctx, const void *bytes, size_t size, const char *name,
                       tw_npy *out);
void tw_npy_close(tw_npy *npy);

/* Elements first .. first + count - 1 (which must be there) as float32, rounded to nearest. */
void tw_npy_to_f32(const tw_npy *npy, int64_t first, int64_t count, float *out);
/* One element as int64; a float is cut towards zero, and NaN or what does not fit gives
 * INT64_MIN. */
int64_t tw_npy_to_i64(const tw_npy *npy, int64_t index);

/* Writes an array whole or not at all, piece by piece: append takes elements, commit fails unless
 * as many came as the shape says. Both commit (always) and abort free the writer. */
typedef struct tw_npy_writer tw_npy_writer;
tw_status tw_npy_writer_open(tw_context *ctx, const char *path, tw_dtype dtype, int rank,
                             const int64_t *shape, tw_npy_writer **out);
tw_status tw_npy_writer_append(tw_npy_writer *writer, const void *elements, int64_t count);
tw_status tw_npy_writer_commit(tw_npy_writer *writer);
void tw_npy_writer_abort(tw_npy_writer *writer);

/* The three in one. */
tw_status tw_npy_write(tw_context *ctx, const char *path, tw_dtype dtype, int rank,
                       const int64_t *shape, const void *data);

#endif
