/* The training state as a file: its vectors, and the words that say what it belongs to. */
#ifndef TW_TRAIN_STATE_H
#define TW_TRAIN_STATE_H

#include "io/safetensors.h"
#include "train/internal.h"

#define TW_STATE_ITEMS 6     /* at most */
#define TW_STATE_OPTIONS 512 /* bytes of the options' text */

typedef struct tw_state_item {
    const char *name;
    void *address; /* on the device; in the host's memory, as saved, for a snapshot */
    tw_dtype dtype;
    int64_t count; /* of what is saved */
} tw_state_item;

static inline size_t tw_state_bytes(const tw_state_item *item) {
    return (size_t)item->count * tw_dtype_size(item->dtype);
}

/* Fills items[TW_STATE_ITEMS] and returns their number. */
int tw_state_items(const tw_trainer *trainer, tw_state_item *items);

/* Bytes of the host's memory that saving takes: all items, and a vector on its way where its order
 * in memory is another. */
size_t tw_state_save_bytes(const tw_trainer *trainer);

/* The item of a device as it is saved, into out[tw_state_bytes(item)]. */
tw_status tw_state_read(const tw_trainer *trainer, const tw_state_item *item, void *out);

/* What a run must have in common with the state that it takes up, as one text. `steps` may grow. */
void tw_state_options(const tw_trainer *trainer, char *out, size_t size);

typedef struct tw_state_labels {
    int64_t step;
    const char *options, *model, *scheduler;
} tw_state_labels;

/* Writes the state's file; `fetch` (null: the addresses are the host's) as in safetensors.h. */
tw_status tw_state_write(tw_context *ctx, const char *directory, const tw_state_item *items, int n,
                         const tw_state_labels *labels, tw_safetensors_fetch fetch, void *user);

#endif
