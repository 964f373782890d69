/* What the fuzz targets share: one context a process, whose memory is capped so that a file that
 * asks for 2^60 elements meets a status; a disk in memory in the place of io/file.c; checks. */
#ifndef TW_FUZZ_FUZZ_H
#define TW_FUZZ_FUZZ_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "core/context.h"

/* libFuzzer calls it with each input. */
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

_Noreturn void fuzz_check_failed(const char *what, const char *file, int line);
#define FUZZ_CHECK(condition)                                                                      \
    ((condition) ? (void)0 : fuzz_check_failed(#condition, __FILE__, __LINE__))

/* Made by the first call, never freed. */
tw_context *fuzz_context(void);
/* Bytes that the context gives out at most; 4 MiB unless said. */
void fuzz_cap(size_t bytes);
/* Allocations of the context that are not released. */
size_t fuzz_held(void);

/* `status` must be a failure that its caller may answer for, with one line about it; a line about
 * the content of a file begins with the file's `name` (may be null: not known). */
void fuzz_refused(tw_status status, const char *name);

/* The files of the disk, at most FUZZ_FILES of them, and at most FUZZ_FILES_IN from an input, so
 * that what is saved finds room; names are compared as they are. */
enum { FUZZ_FILES = 32, FUZZ_FILES_IN = 24, FUZZ_NAME = 256 };
void fuzz_disk_clear(void);
void fuzz_disk_put(const char *name, const void *bytes, size_t size);
bool fuzz_disk_get(const char *name, const uint8_t **bytes, size_t *size);
/* The name of file `index`, or null. */
const char *fuzz_disk_name(int index);
/* Clears the disk and fills it from an input: a line "=== NAME" begins each file, whose content
 * goes to the newline before the next such line, or to the end. */
void fuzz_disk_fill(const uint8_t *data, size_t size);

/* A copy with a NUL after it; freed with free(). */
char *fuzz_text(const uint8_t *data, size_t size);

#endif
