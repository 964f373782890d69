#include "cli/fingerprint.h"

#include <fcntl.h>
#include <fts.h>
#include <inttypes.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define PIECE (INT64_C(1) << 20)
#define PIECES 64

typedef struct print {
    int64_t files, bytes;
    uint64_t hash; /* FNV-1a of 64 bits */
} print;

static void add(print *p, const void *bytes, size_t size) {
    const uint8_t *b = bytes;
    uint64_t h = p->hash;
    for (size_t i = 0; i < size; i++) h = (h ^ b[i]) * UINT64_C(1099511628211);
    p->hash = h;
}

static void add_piece(print *p, int fd, int64_t offset, uint8_t *buffer) {
    const ssize_t n = pread(fd, buffer, PIECE, offset);
    if (n > 0) add(p, buffer, (size_t)n);
}

static void add_file(print *p, const char *path, int64_t size) {
    uint8_t *buffer = malloc(PIECE);
    const int fd = open(path, O_RDONLY | O_CLOEXEC);
    p->files++;
    p->bytes += size;
    const int64_t pieces = size <= PIECES * PIECE ? (size + PIECE - 1) / PIECE : PIECES;
    for (int64_t i = 0; buffer && fd >= 0 && i < pieces; i++)
        add_piece(p, fd, pieces < PIECES ? i * PIECE : (size - PIECE) / (PIECES - 1) * i, buffer);
    if (fd >= 0) close(fd);
    free(buffer);
}

static int by_name(const FTSENT **a, const FTSENT **b) {
    return strcmp((*a)->fts_name, (*b)->fts_name);
}

static void add_folder(print *p, const char *path) {
    char *const roots[] = {(char *)(uintptr_t)path, NULL};
    FTS *walk = fts_open(roots, FTS_LOGICAL | FTS_NOCHDIR, by_name);
    if (!walk) return;
    const size_t root = strlen(path);
    for (FTSENT *e; (e = fts_read(walk));) {
        /* What file managers and tools leave behind is no data. */
        const bool hidden = e->fts_level > 0 && e->fts_name[0] == '.';
        if (hidden && e->fts_info == FTS_D) fts_set(walk, e, FTS_SKIP);
        if (hidden || e->fts_info != FTS_F) continue;
        char size[32];
        snprintf(size, sizeof size, " %" PRId64 "\n", (int64_t)e->fts_statp->st_size);
        const char *below = e->fts_path + root;
        while (*below == '/') below++;
        add(p, below, strlen(below));
        add(p, size, strlen(size));
        p->files++;
        p->bytes += e->fts_statp->st_size;
    }
    fts_close(walk);
}

bool cli_source_is_made(const char *source) {
    return strcmp(source, "scurve") == 0 || strcmp(source, "shapes") == 0;
}

json_t *cli_fingerprint(const char *source) {
    struct stat st;
    print p = {0, 0, UINT64_C(14695981039346656037)};
    if (!source || cli_source_is_made(source) || stat(source, &st) != 0) return NULL;
    if (S_ISDIR(st.st_mode))
        add_folder(&p, source);
    else if (S_ISREG(st.st_mode))
        add_file(&p, source, st.st_size);
    else
        return NULL;
    char hash[32];
    snprintf(hash, sizeof hash, "fnv1a64:%016" PRIx64, p.hash);
    return json_pack("{s:I, s:I, s:s}", "files", (json_int_t)p.files, "bytes", (json_int_t)p.bytes,
                     "hash", hash);
}
