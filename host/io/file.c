#include "io/file.h"

#include <errno.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "core/checked.h"

enum { BUFFER_BYTES = 1 << 16 };

struct tw_file_writer {
    tw_context *ctx;
    char *path;              /* as the caller gave it, for messages */
    char *target;            /* what is renamed over: `path` with symbolic links resolved */
    char *temporary;         /* beside the target; see `named` */
    size_t directory_length; /* of `target`, including the slash; 0: the current directory */
    int fd;
    bool named; /* `temporary` is the file's name by now */
    int error;  /* errno of the first failure */
    size_t used;
    uint8_t buffer[BUFFER_BYTES];
};

static tw_status fail_errno(tw_context *ctx, const char *path, const char *what, int error) {
    return tw_fail(ctx, TW_ERROR_IO, "%s: cannot %s: %s", path, what, strerror(error));
}

/* Opens a regular, non-empty file. */
static tw_status open_regular(tw_context *ctx, const char *path, int *fd, size_t *size) {
    if (!path || !*path) return tw_fail(ctx, TW_ERROR_ARGUMENT, "an empty file name");
    /* O_NONBLOCK: a FIFO must not make us wait for a writer. */
    *fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (*fd < 0) return fail_errno(ctx, path, "open", errno);
    struct stat st;
    tw_status s = TW_OK;
    if (fstat(*fd, &st) != 0)
        s = fail_errno(ctx, path, "read", errno);
    else if (S_ISDIR(st.st_mode))
        s = tw_fail(ctx, TW_ERROR_IO, "%s: is a directory, expected a file", path);
    else if (!S_ISREG(st.st_mode))
        s = tw_fail(ctx, TW_ERROR_IO, "%s: not a regular file", path);
    else if (st.st_size == 0)
        s = tw_fail(ctx, TW_ERROR_IO, "%s: the file is empty", path);
    else if ((uintmax_t)st.st_size > SIZE_MAX)
        s = tw_fail(ctx, TW_ERROR_IO, "%s: the file does not fit the address space", path);
    if (s != TW_OK) {
        close(*fd);
        return s;
    }
    *size = (size_t)st.st_size;
    return TW_OK;
}

tw_status tw_file_map(tw_context *ctx, const char *path, tw_file_mapping *out) {
    int fd;
    size_t size;
    *out = (tw_file_mapping){NULL, 0};
    TW_TRY(open_regular(ctx, path, &fd, &size));
    void *data = mmap(NULL, size, PROT_READ, MAP_PRIVATE, fd, 0);
    int error = errno;
    close(fd);
    if (data == MAP_FAILED) return fail_errno(ctx, path, "map", error);
    *out = (tw_file_mapping){data, size};
    return TW_OK;
}

void tw_file_unmap(tw_file_mapping *mapping) {
    if (mapping->data) munmap((void *)(uintptr_t)mapping->data, mapping->size);
    *mapping = (tw_file_mapping){NULL, 0};
}

/* Reads up to `size` bytes; *got is smaller only at the end of the file. */
static int read_fully(int fd, char *to, size_t size, size_t *got) {
    *got = 0;
    while (*got < size) {
        ssize_t n = read(fd, to + *got, size - *got);
        if (n < 0 && errno == EINTR) continue;
        if (n < 0) return errno;
        if (n == 0) break;
        *got += (size_t)n;
    }
    return 0;
}

tw_status tw_file_read(tw_context *ctx, const char *path, size_t cap, char **bytes, size_t *size) {
    int fd;
    size_t n, got;
    *bytes = NULL;
    TW_TRY(open_regular(ctx, path, &fd, &n));
    if (n > cap) {
        close(fd);
        return tw_fail(ctx, TW_ERROR_FORMAT, "%s: %zu bytes, expected at most %zu", path, n, cap);
    }
    char *text = tw_allocate(ctx, n + 1, 1); /* n <= off_t's maximum: no overflow */
    int error = text ? read_fully(fd, text, n, &got) : 0;
    close(fd);
    if (!text) return TW_ERROR_MEMORY;
    if (error || got != n) {
        tw_free(ctx, text);
        return error ? fail_errno(ctx, path, "read", error)
                     : tw_fail(ctx, TW_ERROR_IO, "%s: the file shrank while it was read", path);
    }
    *bytes = text;
    if (size) *size = n;
    return TW_OK;
}

bool tw_file_exists(const char *path) {
    struct stat st;
    return path && stat(path, &st) == 0 && !S_ISDIR(st.st_mode);
}

bool tw_directory_exists(const char *path) {
    struct stat st;
    return path && stat(path, &st) == 0 && S_ISDIR(st.st_mode);
}

tw_status tw_directory_make(tw_context *ctx, const char *path) {
    if (!path || !*path) return tw_fail(ctx, TW_ERROR_ARGUMENT, "an empty directory name");
    char *copy = tw_strdup(ctx, path);
    if (!copy) return TW_ERROR_MEMORY;
    tw_status s = TW_OK;
    for (char *p = copy + 1; s == TW_OK; p++) {
        if (*p != '/' && *p != '\0') continue;
        char end = *p;
        *p = '\0';
        if (mkdir(copy, 0777) != 0) {
            int error = errno;
            if (!tw_directory_exists(copy)) s = fail_errno(ctx, copy, "make the directory", error);
        }
        *p = end;
        if (end == '\0') break;
    }
    tw_free(ctx, copy);
    return s;
}

static void free_writer(tw_file_writer *w) {
    tw_context *ctx = w->ctx;
    tw_free(ctx, w->path);
    tw_free(ctx, w->target);
    tw_free(ctx, w->temporary);
    tw_free(ctx, w);
}

/* The directory of the target, for open(); freed with free(). */
static char *directory_of(const tw_file_writer *w) {
    return strndup(w->directory_length ? w->target : ".",
                   w->directory_length ? w->directory_length : 1);
}

static void fd_path(int fd, char *out, size_t size) {
    snprintf(out, size, "/proc/self/fd/%d", fd);
}

bool tw_file_nameless = true;

/* A file without a name goes with the process, however that ends. Not every file system has them,
 * and naming one later takes /proc. */
static bool open_nameless(tw_file_writer *w) {
    char path[48];
    char *directory = tw_file_nameless ? directory_of(w) : NULL;
    if (!directory) return false;
    w->fd = open(directory, O_TMPFILE | O_WRONLY | O_CLOEXEC, 0666);
    free(directory);
    if (w->fd < 0) return false;
    fd_path(w->fd, path, sizeof path);
    if (access(path, F_OK) == 0) return true;
    close(w->fd);
    w->fd = -1;
    return false;
}

/* Gives the file its temporary name: the nameless one by a link, else by creating it. Not mkstemp:
 * that would ignore the umask. 0, or errno. */
static int name_temporary(tw_file_writer *w) {
    static atomic_uint serial;
    const size_t room = w->directory_length + 64;
    char path[48];
    if (w->fd >= 0) fd_path(w->fd, path, sizeof path);
    for (int attempt = 0; attempt < 100 && !w->named; attempt++) {
        unsigned n = atomic_fetch_add(&serial, 1);
        snprintf(w->temporary, room, "%.*s.tweedie-%ld-%u.tmp", (int)w->directory_length, w->target,
                 (long)getpid(), n);
        if (w->fd >= 0) {
            w->named = linkat(AT_FDCWD, path, AT_FDCWD, w->temporary, AT_SYMLINK_FOLLOW) == 0;
        } else {
            w->fd = open(w->temporary, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
            w->named = w->fd >= 0;
        }
        if (!w->named && errno != EEXIST) return errno;
    }
    return w->named ? 0 : EEXIST;
}

static tw_status create_temporary(tw_file_writer *w) {
    w->temporary = tw_allocate(w->ctx, w->directory_length + 64, 1);
    if (!w->temporary) return TW_ERROR_MEMORY;
    if (open_nameless(w)) return TW_OK;
    const int error = name_temporary(w);
    return error ? fail_errno(w->ctx, w->path, "create", error) : TW_OK;
}

/* Finds what the path stands for. *mode gets the permissions of a file that is already there. */
static tw_status resolve_target(tw_file_writer *w, mode_t *mode) {
    struct stat st;
    *mode = 0;
    const char *slash = strrchr(w->path, '/');
    if (slash && !slash[1])
        return tw_fail(w->ctx, TW_ERROR_IO, "%s: is a directory, expected a file name", w->path);
    char *resolved = NULL;
    if (stat(w->path, &st) == 0) {
        if (S_ISDIR(st.st_mode))
            return tw_fail(w->ctx, TW_ERROR_IO, "%s: is a directory, expected a file", w->path);
        if (!S_ISREG(st.st_mode))
            return tw_fail(w->ctx, TW_ERROR_IO, "%s: not a regular file, will not replace it",
                           w->path);
        *mode = st.st_mode & 07777;
        resolved = realpath(w->path, NULL);
    }
    w->target = tw_strdup(w->ctx, resolved ? resolved : w->path);
    free(resolved);
    if (!w->target) return TW_ERROR_MEMORY;
    slash = strrchr(w->target, '/');
    w->directory_length = slash ? (size_t)(slash - w->target) + 1 : 0;
    return TW_OK;
}

tw_status tw_file_writer_open(tw_context *ctx, const char *path, tw_file_writer **out) {
    *out = NULL;
    if (!path || !*path) return tw_fail(ctx, TW_ERROR_ARGUMENT, "an empty file name");
    tw_file_writer *w = tw_allocate(ctx, 1, sizeof *w);
    if (!w) return TW_ERROR_MEMORY;
    w->ctx = ctx;
    w->fd = -1;
    w->path = tw_strdup(ctx, path);
    mode_t mode = 0;
    tw_status s = w->path ? resolve_target(w, &mode) : TW_ERROR_MEMORY;
    if (s == TW_OK) s = create_temporary(w);
    if (s == TW_OK && mode && fchmod(w->fd, mode) != 0)
        s = fail_errno(ctx, path, "set the permissions", errno);
    if (s != TW_OK) {
        tw_file_writer_abort(w);
        return s;
    }
    *out = w;
    return TW_OK;
}

static tw_status writer_failure(tw_file_writer *w) {
    return fail_errno(w->ctx, w->path, "write", w->error);
}

static void write_through(tw_file_writer *w, const uint8_t *bytes, size_t size) {
    while (size && !w->error) {
        ssize_t n = write(w->fd, bytes, size);
        if (n < 0 && errno == EINTR) continue;
        if (n <= 0) {
            w->error = n < 0 ? errno : ENOSPC;
            return;
        }
        bytes += n;
        size -= (size_t)n;
    }
}

static void flush_buffer(tw_file_writer *w) {
    if (!w->error) write_through(w, w->buffer, w->used);
    w->used = 0;
}

tw_status tw_file_writer_write(tw_file_writer *w, const void *bytes, size_t size) {
    if (!w->error && size > sizeof w->buffer - w->used) flush_buffer(w);
    if (w->error) return writer_failure(w);
    if (size >= sizeof w->buffer) {
        write_through(w, bytes, size);
    } else if (size) {
        memcpy(w->buffer + w->used, bytes, size);
        w->used += size;
    }
    return w->error ? writer_failure(w) : TW_OK;
}

/* Makes the new name durable. Some file systems cannot: that does not make the file wrong. */
static int sync_directory(const tw_file_writer *w) {
    char *directory = directory_of(w);
    if (!directory) return ENOMEM;
    int fd = open(directory, O_RDONLY | O_DIRECTORY | O_CLOEXEC), error = 0;
    free(directory);
    if (fd < 0) return errno == EACCES ? 0 : errno;
    if (fsync(fd) != 0 && errno != EINVAL && errno != ENOTSUP) error = errno;
    close(fd);
    return error;
}

tw_status tw_file_writer_commit(tw_file_writer *w) {
    flush_buffer(w);
    if (!w->error && fsync(w->fd) != 0 && errno != EINVAL) w->error = errno;
    if (!w->error && !w->named) w->error = name_temporary(w);
    /* After close, whatever it says, the descriptor is gone. */
    if (close(w->fd) != 0 && !w->error) w->error = errno;
    w->fd = -1;
    if (!w->error && rename(w->temporary, w->target) != 0) w->error = errno;
    if (w->error) {
        tw_status s = writer_failure(w);
        tw_file_writer_abort(w);
        return s;
    }
    int error = sync_directory(w);
    tw_status s = error ? fail_errno(w->ctx, w->path, "write the directory", error) : TW_OK;
    free_writer(w);
    return s;
}

void tw_file_writer_abort(tw_file_writer *w) {
    if (!w) return;
    if (w->fd >= 0) close(w->fd);
    if (w->named) unlink(w->temporary);
    free_writer(w);
}

tw_status tw_file_write(tw_context *ctx, const char *path, const void *bytes, size_t size) {
    tw_file_writer *w;
    TW_TRY(tw_file_writer_open(ctx, path, &w));
    tw_status s = tw_file_writer_write(w, bytes, size);
    if (s != TW_OK) {
        tw_file_writer_abort(w);
        return s;
    }
    return tw_file_writer_commit(w);
}
