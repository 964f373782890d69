/* NVIDIA's libraries as the peer of a row: a job of its own, whose call goes to the quickest plan
 * that cuDNN or cuBLASLt has for it. */
#ifndef TWEEDIE_BENCH_LIBRARY_H
#define TWEEDIE_BENCH_LIBRARY_H

#include "backend/cuda/vendor/vendor.h"
#include "job.h"

#ifdef __cplusplus
extern "C" {
#endif

/* Files to open in place of those that the loader finds; NULL: those. */
typedef struct bench_library_files {
    const char *cudnn, *cublaslt, *driver;
} bench_library_files;

typedef struct bench_libraries {
    tw_vendor *ready;    /* engines that are compiled already */
    tw_vendor *compiled; /* those that are compiled when they are chosen, too */
} bench_libraries;

/* compile: also engines for convolutions that are compiled when they are chosen, seconds each;
 * attention has no others. False without memory. */
bool bench_libraries_open(const bench_library_files *files, bool compile, bench_libraries *out);
void bench_libraries_close(bench_libraries *libraries);

enum { BENCH_PEER_TEXT = 256 };

typedef struct bench_peer {
    bench_job job;
    tw_vendor *vendor;
    char text[BENCH_PEER_TEXT]; /* the plan, or why there is none */
} bench_peer;

/* The row as a library is given it: one image where there are two, upsampled where it would be. */
bench_row bench_library_row(const bench_row *row);
/* Whether a library has anything for rows of this kind. */
bool bench_has_library(bench_kind kind);
/* Times the library's plans on the stream and keeps the quickest. False, and nothing to free, where
 * there is none: peer->text says why. */
bool bench_peer_make(const bench_libraries *libraries, const bench_row *row, int max_sets,
                     twk_stream stream, bench_peer *peer);
void bench_peer_free(bench_peer *peer);
/* False, and the reason as tw_vendor_text, when the call fails. */
bool bench_peer_run(const bench_peer *peer, int set, twk_stream stream);
/* After the first run of set 0. The libraries round a bias, or a gradient that is added, to the
 * format, and cut off what tf32 drops; that much of the terms comes on top of the bound. */
void bench_peer_check(const bench_peer *peer, bench_check *check);

#ifdef __cplusplus
}
#endif

#endif
