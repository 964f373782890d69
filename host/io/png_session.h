/* What one picture's coding needs, and what libpng calls back. */
#ifndef TW_IO_PNG_SESSION_H
#define TW_IO_PNG_SESSION_H

#include <png.h>

#include "io/png.h"

#define TW_PNG_EXTENT_MAX (1 << 20)

struct tw_file_writer;

/* It lives outside the frames that libpng jumps over. */
typedef struct tw_png_session {
    tw_context *ctx;
    const char *name;
    tw_status status; /* of the failure that made us jump; TW_OK: libpng's own, see message */
    char message[160];
    /* reading */
    const uint8_t *bytes;
    size_t size, used;
    uint8_t *pixels;
    png_bytep *rows;
    /* writing */
    struct tw_file_writer *writer;
} tw_png_session;

/* All take the session as libpng's error or memory pointer. */
void tw_png_on_error(png_structp png, png_const_charp text);
void tw_png_on_warning(png_structp png, png_const_charp text);
png_voidp tw_png_on_allocate(png_structp png, png_alloc_size_t size);
void tw_png_on_free(png_structp png, png_voidp memory);

/* Records the failure that libpng's jump stands for. */
tw_status tw_png_failure(tw_png_session *s);

#endif
