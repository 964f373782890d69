/* TensorBoard event files: TFRecord frames (length, masked CRC-32C, bytes, masked CRC-32C) around
 * protocol buffer messages `Event`, of which this writes scalars and PNG pictures. */
#ifndef TW_IO_TFEVENTS_H
#define TW_IO_TFEVENTS_H

#include "core/context.h"

typedef struct tw_tfevents tw_tfevents;

/* Makes a new file in `folder`, one that TensorBoard reads after those that are there. With
 * purge_step >= 0 TensorBoard forgets what those say of this step and later ones: a run goes on
 * there. */
tw_status tw_tfevents_open(tw_context *ctx, const char *folder, int64_t purge_step,
                           tw_tfevents **out);
/* Null is allowed. */
void tw_tfevents_close(tw_tfevents *events);

typedef struct tw_tfevents_scalar {
    const char *tag;
    double value; /* kept as float32 */
} tw_tfevents_scalar;

/* Both hand their record to the system before they return. */
tw_status tw_tfevents_scalars(tw_tfevents *events, int64_t step, const tw_tfevents_scalar *scalars,
                              int count);
/* The bytes of a PNG file; its size is read from them. */
tw_status tw_tfevents_png(tw_tfevents *events, int64_t step, const char *tag, const void *png,
                          size_t size);

/* CRC-32C (Castagnoli) of the bytes, as in RFC 3720. */
uint32_t tw_crc32c(const void *bytes, size_t size);

#endif
