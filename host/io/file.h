/* Files: mapped, read whole, and written whole or not at all. */
#ifndef TW_IO_FILE_H
#define TW_IO_FILE_H

#include <stdbool.h>

#include "core/context.h"

typedef struct tw_file_mapping {
    const uint8_t *data;
    size_t size;
} tw_file_mapping;

/* Maps a regular file for reading. A missing file, a directory, an empty file: TW_ERROR_IO. The
 * file must not shrink while it is mapped. */
tw_status tw_file_map(tw_context *ctx, const char *path, tw_file_mapping *out);
/* A zeroed mapping is allowed; the mapping is zeroed. */
void tw_file_unmap(tw_file_mapping *mapping);

/* Reads a file of at most `cap` bytes whole. *bytes has a NUL after its last byte, counted by
 * *size (may be null) or not; it is freed with tw_free. */
tw_status tw_file_read(tw_context *ctx, const char *path, size_t cap, char **bytes, size_t *size);

/* A file that appears under its name only when it is complete and on the disk. The bytes go to a
 * file without a name in the same directory, or, where the file system has none, to a temporary
 * one; commit renames it. An existing file keeps its permissions, and is untouched unless commit
 * succeeds. Something that is not a regular file is refused. */
typedef struct tw_file_writer tw_file_writer;
tw_status tw_file_writer_open(tw_context *ctx, const char *path, tw_file_writer **out);
/* After a failure every further call on this writer fails the same way. */
tw_status tw_file_writer_write(tw_file_writer *writer, const void *bytes, size_t size);
/* Both free the writer, commit also when it fails. Abort takes null. */
tw_status tw_file_writer_commit(tw_file_writer *writer);
void tw_file_writer_abort(tw_file_writer *writer);

/* For tests: false writes as on a file system where every file has a name. */
extern bool tw_file_nameless;

/* The three in one. */
tw_status tw_file_write(tw_context *ctx, const char *path, const void *bytes, size_t size);

/* Makes a directory and the parents that it lacks; one that exists already is fine. */
tw_status tw_directory_make(tw_context *ctx, const char *path);

/* Whether something that is no directory, or a directory, has this name. */
bool tw_file_exists(const char *path);
bool tw_directory_exists(const char *path);

#endif
