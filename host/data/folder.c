/* A folder of pictures. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "data/pictures.h"

typedef struct listing {
    tw_context *ctx;
    const char *root;
    char **paths; /* relative to the root */
    int64_t count, capacity;
    int64_t ignored, skipped;
} listing;

/* A folder that is being walked, and those around it. */
typedef struct place {
    const struct place *parent;
    dev_t device;
    ino_t inode;
} place;

static tw_status append(listing *l, char *path) {
    if (l->count == l->capacity) {
        const int64_t capacity = l->capacity ? 2 * l->capacity : 1024;
        char **paths = tw_allocate(l->ctx, (size_t)capacity, sizeof *paths);
        if (!paths) {
            tw_free(l->ctx, path);
            return TW_ERROR_MEMORY;
        }
        if (l->count) memcpy(paths, l->paths, (size_t)l->count * sizeof *paths);
        tw_free(l->ctx, l->paths);
        l->paths = paths;
        l->capacity = capacity;
    }
    l->paths[l->count++] = path;
    return TW_OK;
}

/* "folder/name", or "name" within the root; freed with tw_free. */
static char *child_of(tw_context *ctx, const char *folder, const char *name) {
    const size_t n = strlen(folder), m = strlen(name);
    char *path = tw_allocate(ctx, n + m + 2, 1);
    if (!path) return NULL;
    memcpy(path, folder, n);
    if (n) path[n] = '/';
    memcpy(path + n + (n ? 1 : 0), name, m + 1);
    return path;
}

static tw_status walk(listing *l, int parent_fd, const char *name, const char *folder,
                      const place *around);

static tw_status visit(listing *l, int fd, const char *folder, const char *name,
                       const place *here) {
    struct stat st;
    if (name[0] == '.') return TW_OK; /* hidden, and . and .. */
    const bool found = fstatat(fd, name, &st, 0) == 0;
    const bool is_folder = found && S_ISDIR(st.st_mode);
    if (!is_folder && !tw_picture_is_name(name)) {
        l->ignored++;
        return TW_OK;
    }
    char *path = child_of(l->ctx, folder, name);
    if (!path) return TW_ERROR_MEMORY;
    /* One that cannot be looked at is kept: reading it will say why. */
    if (!is_folder) return append(l, path);
    const tw_status s = walk(l, fd, name, path, here);
    tw_free(l->ctx, path);
    return s;
}

/* A link that leads back into one of the folders around it would never end. */
static bool is_around(const place *around, const struct stat *st) {
    for (; around; around = around->parent)
        if (around->device == st->st_dev && around->inode == st->st_ino) return true;
    return false;
}

static tw_status walk(listing *l, int parent_fd, const char *name, const char *folder,
                      const place *around) {
    struct stat st;
    const int fd = openat(parent_fd, name, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    DIR *directory = fd >= 0 && fstat(fd, &st) == 0 ? fdopendir(fd) : NULL;
    if (!directory) {
        const int error = errno;
        if (fd >= 0) close(fd);
        if (!around)
            return tw_fail(l->ctx, TW_ERROR_IO, "%s: cannot open the folder: %s", l->root,
                           strerror(error));
        tw_log(l->ctx, TW_LOG_WARNING, "%s/%s: cannot open the folder: %s; left out", l->root,
               folder, strerror(error));
        l->skipped++;
        return TW_OK;
    }
    tw_status s = TW_OK;
    if (!is_around(around, &st)) {
        const place here = {around, st.st_dev, st.st_ino};
        const struct dirent *entry;
        while (s == TW_OK && (entry = readdir(directory)))
            s = visit(l, fd, folder, entry->d_name, &here);
    }
    closedir(directory);
    return s;
}

static int compare(const void *a, const void *b) {
    return strcmp(*(char *const *)a, *(char *const *)b);
}

/* Keeps `limit` paths, spread evenly. */
static void thin_out(listing *l, int64_t limit) {
    if (limit == 0 || limit >= l->count) return;
    for (int64_t i = 0, k = 0; i < l->count; i++) {
        char *path = l->paths[i];
        l->paths[i] = NULL;
        if (k < limit && i == (int64_t)((__int128)k * l->count / limit))
            l->paths[k++] = path;
        else
            tw_free(l->ctx, path);
    }
    l->count = limit;
}

static tw_status add_all(listing *l, tw_pictures *p) {
    tw_picture *batch = tw_allocate(l->ctx, TW_PICTURES_BATCH, sizeof *batch);
    tw_status s = batch ? TW_OK : TW_ERROR_MEMORY;
    for (int64_t i = 0; i < l->count && s == TW_OK;) {
        int n = 0;
        for (; n < TW_PICTURES_BATCH && i < l->count; i++) {
            batch[n++].path = l->paths[i];
            l->paths[i] = NULL;
        }
        s = tw_pictures_add(p, batch, n);
    }
    tw_free(l->ctx, batch);
    return s;
}

tw_status tw_dataset_open_folder(tw_context *ctx, const char *path, const tw_dataset_options *o,
                                 tw_dataset **out) {
    listing l = {.ctx = ctx, .root = path};
    tw_pictures p;
    *out = NULL;
    tw_pictures_begin(&p, ctx, path, true, o);
    tw_status s = walk(&l, AT_FDCWD, path, "", NULL);
    if (s == TW_OK && l.count) {
        qsort(l.paths, (size_t)l.count, sizeof *l.paths, compare);
        thin_out(&l, o->limit);
        p.expected = l.count;
    }
    p.ignored = l.ignored;
    p.skipped = 0;
    if (s == TW_OK) s = add_all(&l, &p);
    if (s == TW_OK) s = tw_pictures_finish(&p, out);
    if (s == TW_OK) (*out)->skipped += l.skipped;
    for (int64_t i = 0; i < l.count; i++) tw_free(ctx, l.paths[i]);
    tw_free(ctx, l.paths);
    tw_pictures_free(&p);
    return s;
}
