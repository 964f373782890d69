/* Animated GIF files, written with giflib. */
#ifndef TW_IO_GIF_H
#define TW_IO_GIF_H

#include "io/image.h"

/* An animation that repeats for ever and appears under its name only when it is complete. Frames
 * are `width` by `height` pixels (at most 65535 each) of 1 (grey) or 3 (RGB) channels. Grey is kept
 * to the bit, and so is a frame of at most 256 colours; one of more is brought to 256 that fit it
 * best. */
typedef struct tw_gif_writer tw_gif_writer;
tw_status tw_gif_writer_open(tw_context *ctx, const char *path, int64_t width, int64_t height,
                             int channels, tw_gif_writer **out);
/* Appends a frame that is shown for `delay` hundredths of a second, 0 to 65535. TW_ERROR_ARGUMENT
 * for an image of another size. After a failure only abort is left. */
tw_status tw_gif_writer_append(tw_gif_writer *writer, const tw_image *frame, int delay);
/* Both free the writer, commit also when it fails, as it does without a frame. Abort takes null. */
tw_status tw_gif_writer_commit(tw_gif_writer *writer);
void tw_gif_writer_abort(tw_gif_writer *writer);

#endif
