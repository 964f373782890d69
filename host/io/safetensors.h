/* Safetensors files: eight bytes of header length (little-endian), a JSON header, the tensors'
 * bytes. Files are taken to be hostile: every length, offset and shape is checked, and the tensors
 * must fill the file exactly, in order, without holes or overlap. */
#ifndef TW_IO_SAFETENSORS_H
#define TW_IO_SAFETENSORS_H

#include <stdbool.h>

#include <tweedie/tensor.h>

#include "core/context.h"

#define TW_SAFETENSORS_MAX_RANK 8
/* The limit of the format's reference implementation. */
#define TW_SAFETENSORS_HEADER_MAX 100000000

typedef struct tw_safetensors tw_safetensors;

typedef struct tw_safetensors_entry {
    const char *name;
    const char *format; /* the dtype as the file has it, such as "BF16" */
    bool known; /* whether `dtype` is valid; the file may hold dtypes that are none of ours */
    tw_dtype dtype;
    int rank;
    int64_t shape[TW_SAFETENSORS_MAX_RANK];
    int64_t count;    /* product of the shape */
    const void *data; /* little-endian, dense, perhaps unaligned */
    size_t bytes;
} tw_safetensors_entry;

/* Maps a file. */
tw_status tw_safetensors_open(tw_context *ctx, const char *path, tw_safetensors **out);
/* The same over bytes that the caller keeps until the handle is closed; `name` is for messages. */
tw_status tw_safetensors_parse(tw_context *ctx, const void *bytes, size_t size, const char *name,
                               tw_safetensors **out);
/* Null is allowed. Entries and their data are invalid afterwards. */
void tw_safetensors_close(tw_safetensors *st);

int64_t tw_safetensors_count(const tw_safetensors *st);
/* In the order of the file's bytes; null past the last. */
const tw_safetensors_entry *tw_safetensors_entry_at(const tw_safetensors *st, int64_t index);
/* Null when there is none of this name. */
const tw_safetensors_entry *tw_safetensors_find(const tw_safetensors *st, const char *name);
/* A value of __metadata__, or null. */
const char *tw_safetensors_metadata(const tw_safetensors *st, const char *key);

/* Copies an entry as float32 into out[count]: F32, BF16 and F16 exactly, F64 rounded to nearest.
 * Other dtypes: TW_ERROR_UNSUPPORTED. */
tw_status tw_safetensors_read_f32(const tw_safetensors *st, const tw_safetensors_entry *entry,
                                  float *out);

typedef struct tw_safetensors_item {
    const char *name;
    tw_dtype dtype;
    int rank;
    int64_t shape[TW_SAFETENSORS_MAX_RANK];
    const void *data; /* not looked at when there is a fetch function */
} tw_safetensors_item;

typedef struct tw_safetensors_pair {
    const char *key, *value;
} tw_safetensors_pair;

/* Supplies the bytes of item `index`, in its dtype, dense. */
typedef tw_status (*tw_safetensors_fetch)(void *user, int64_t index, void *out);

/* Writes a file whole or not at all, the items in the order given. `fetch` may be null: the items'
 * data is written. Otherwise it is asked once for each item, in order, so that no more than the
 * largest item is held. */
tw_status tw_safetensors_write(tw_context *ctx, const char *path, const tw_safetensors_item *items,
                               int64_t count, const tw_safetensors_pair *metadata,
                               int64_t metadata_count, tw_safetensors_fetch fetch, void *user);

#endif
