/* How a camera was held: the orientation that a JPEG's Exif data names. */
#ifndef TW_IO_EXIF_H
#define TW_IO_EXIF_H

#include "io/image.h"

/* 1 to 8 as Exif 2.3 counts them (tag 0x0112 of the first directory); 1, upright, where the file
 * says nothing that makes sense. */
int tw_exif_orientation(const uint8_t *bytes, size_t size);

/* Turns and mirrors a picture that lies in this orientation upright. */
tw_status tw_image_set_upright(tw_context *ctx, tw_image *image, int orientation);

#endif
