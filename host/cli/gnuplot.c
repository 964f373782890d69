#include "cli/gnuplot.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <math.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "cli/signals.h"
#include "core/checked.h"
#include "core/context.h"
#include "io/file.h"

/* A picture is at most so large. */
#define PICTURE_MAX ((size_t)256 << 20)
#define PIECE 65536

extern char **environ;

const char *cli_plot_colour(int64_t index) {
    static const char *const colours[CLI_PLOT_COLOURS] = {
        "#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000"};
    return colours[index % CLI_PLOT_COLOURS];
}

double cli_plot_step(double range, int parts) {
    const double least = range / parts, power = pow(10.0, floor(log10(least)));
    const double times = least / power;
    return power * (times <= 1.0 ? 1.0 : times <= 2.0 ? 2.0 : times <= 5.0 ? 5.0 : 10.0);
}

static bool ends_with(const char *text, const char *end) {
    const size_t n = strlen(text), m = strlen(end);
    return n > m && strcmp(text + n - m, end) == 0;
}

bool cli_plot_takes(const char *path) {
    return ends_with(path, ".png") || ends_with(path, ".svg") || ends_with(path, ".pdf");
}

tw_status cli_plot_begin(tw_context *ctx, cli_plot *plot, const char *path, int width, int height) {
    *plot = (cli_plot){0};
    plot->script = open_memstream(&plot->text, &plot->size);
    if (!plot->script) return tw_fail(ctx, TW_ERROR_MEMORY, "%s: out of memory", path);
    FILE *f = plot->script;
    fprintf(f, "set encoding utf8\n");
    /* Without an output name the picture goes to stdout, which is ours to write to its file. */
    if (ends_with(path, ".png"))
        fprintf(f,
                "set terminal pngcairo enhanced font 'Sans,10' fontscale 1.5 linewidth 1.8 "
                "pointscale 1.5 "
                "dashlength 0.6 "
                "size %d,%d\n",
                2 * width, 2 * height);
    else if (ends_with(path, ".svg"))
        fprintf(
            f,
            "set terminal svg enhanced font 'sans-serif,10' dashlength 0.6 size %d,%d background "
            "'white'\n",
            width, height);
    else
        fprintf(f,
                "set terminal pdfcairo enhanced font 'Sans,10' fontscale 0.8 linewidth 1.5 "
                "dashlength 0.6 size "
                "%.4f,%.4f\n",
                width / 72.0, height / 72.0);
    fprintf(f, "set border linecolor '#444444'\n"
               "set grid linecolor '#dddddd' linetype 1 linewidth 0.5\n"
               "set tics nomirror\nset key noenhanced Left reverse samplen 3\n");
    return TW_OK;
}

void cli_plot_close(cli_plot *plot) {
    if (plot->script) fclose(plot->script);
    free(plot->text);
    *plot = (cli_plot){0};
}

void cli_plot_quote(cli_plot *plot, const char *text) {
    fputc('\'', plot->script);
    for (const char *p = text; *p; p++) {
        const unsigned char c = (unsigned char)*p;
        if (c == '\'') fputc('\'', plot->script); /* doubled */
        fputc(c < 0x20 || c == 0x7f ? ' ' : c, plot->script);
    }
    fputc('\'', plot->script);
}

void cli_plot_csv_field(FILE *f, const char *text) {
    if (!strpbrk(text, ",\"\r\n")) {
        fputs(text, f);
        return;
    }
    fputc('"', f);
    for (const char *p = text; *p; p++) {
        if (*p == '"') fputc('"', f);
        fputc(*p, f);
    }
    fputc('"', f);
}

/* --- The child --- */

typedef struct stream {
    int fd; /* -1: closed */
    char *bytes;
    size_t size, room, most;
} stream;

typedef struct child {
    tw_context *ctx;
    pid_t pid;
    int to; /* its stdin; -1: closed */
    const char *script;
    size_t left;
    stream out, err;
} child;

static void close_end(int *fd) {
    if (*fd >= 0) close(*fd);
    *fd = -1;
}

/* The environment with another language: messages and numbers do not depend on the user's. */
static char **plain_environment(tw_context *ctx) {
    static char plain[] = "LC_ALL=C", none[] = "GNUTERM=";
    size_t n = 0;
    while (environ[n]) n++;
    char **copy = tw_allocate(ctx, n + 3, sizeof *copy);
    if (!copy) return NULL;
    copy[0] = plain;
    size_t used = 1;
    for (size_t i = 0; i < n; i++)
        if (strncmp(environ[i], "LC_ALL=", 7) != 0 && strncmp(environ[i], none, 8) != 0)
            copy[used++] = environ[i];
    return copy;
}

static int spawn_with(child *c, const int ends[3], char **environment) {
    static char name[] = "gnuplot", defaults[] = "--default-settings";
    char *const argv[] = {name, defaults, NULL};
    posix_spawn_file_actions_t actions;
    posix_spawnattr_t attributes;
    sigset_t signals;
    int error = posix_spawn_file_actions_init(&actions);
    if (error) return error;
    error = posix_spawnattr_init(&attributes);
    if (error) {
        posix_spawn_file_actions_destroy(&actions);
        return error;
    }
    /* What we ignore, the child need not. */
    sigemptyset(&signals);
    sigaddset(&signals, SIGPIPE);
    posix_spawnattr_setsigdefault(&attributes, &signals);
    posix_spawnattr_setflags(&attributes, POSIX_SPAWN_SETSIGDEF);
    for (int i = 0; !error && i < 3; i++)
        error = posix_spawn_file_actions_adddup2(&actions, ends[i], i);
    if (!error) error = posix_spawnp(&c->pid, name, &actions, &attributes, argv, environment);
    posix_spawnattr_destroy(&attributes);
    posix_spawn_file_actions_destroy(&actions);
    return error;
}

static tw_status start_failure(tw_context *ctx, int error) {
    if (error == ENOENT)
        return tw_fail(ctx, TW_ERROR_UNSUPPORTED,
                       "gnuplot is not installed, and it draws the plots; on Debian: apt install "
                       "gnuplot-nox");
    return tw_fail(ctx, TW_ERROR_IO, "gnuplot: cannot be started: %s", strerror(error));
}

static tw_status start(child *c) {
    int pipes[3][2] = {{-1, -1}, {-1, -1}, {-1, -1}};
    int error = 0;
    for (int i = 0; !error && i < 3; i++)
        if (pipe2(pipes[i], O_CLOEXEC) != 0) error = errno;
    char **environment = error ? NULL : plain_environment(c->ctx);
    const int ends[3] = {pipes[0][0], pipes[1][1], pipes[2][1]};
    if (!error) error = environment ? spawn_with(c, ends, environment) : ENOMEM;
    tw_free(c->ctx, environment);
    close_end(&pipes[0][0]);
    close_end(&pipes[1][1]);
    close_end(&pipes[2][1]);
    c->to = pipes[0][1];
    c->out.fd = pipes[1][0];
    c->err.fd = pipes[2][0];
    if (!error && fcntl(c->to, F_SETFL, O_NONBLOCK) != 0) error = errno;
    return error ? start_failure(c->ctx, error) : TW_OK;
}

/* Sends what fits. A child that reads no more says why at its end. */
static void feed(child *c) {
    const ssize_t n = write(c->to, c->script, c->left < PIECE ? c->left : PIECE);
    if (n > 0) {
        c->script += n;
        c->left -= (size_t)n;
    }
    if (c->left == 0 || (n < 0 && errno != EAGAIN && errno != EINTR)) close_end(&c->to);
}

/* Takes what there is; beyond `most` bytes it is dropped. */
static tw_status drain(tw_context *ctx, stream *s) {
    char piece[PIECE];
    const ssize_t n = read(s->fd, piece, sizeof piece);
    if (n < 0 && (errno == EINTR || errno == EAGAIN)) return TW_OK;
    if (n <= 0) {
        close_end(&s->fd);
        return TW_OK;
    }
    const size_t size = (size_t)n;
    if (size > s->most - s->size) return TW_OK;
    if (size > s->room - s->size) {
        size_t room = 2 * (s->room + size);
        char *bytes = realloc(s->bytes, room);
        if (!bytes) return tw_fail(ctx, TW_ERROR_MEMORY, "gnuplot: out of memory");
        s->bytes = bytes;
        s->room = room;
    }
    memcpy(s->bytes + s->size, piece, size);
    s->size += size;
    return TW_OK;
}

/* Sends the script and takes the answers until both are at their ends. */
static tw_status talk(child *c) {
    tw_status s = TW_OK;
    while (s == TW_OK && (c->out.fd >= 0 || c->err.fd >= 0)) {
        struct pollfd fds[3] = {
            {c->to, POLLOUT, 0}, {c->out.fd, POLLIN, 0}, {c->err.fd, POLLIN, 0}};
        if (cli_signals_stop()) return TW_ERROR_CANCELLED;
        /* The time is for a signal that comes just before the call. */
        if (poll(fds, 3, 200) < 0 && errno != EINTR)
            return tw_fail(c->ctx, TW_ERROR_IO, "gnuplot: %s", strerror(errno));
        if (fds[0].revents) feed(c);
        if (fds[1].revents) s = drain(c->ctx, &c->out);
        if (s == TW_OK && fds[2].revents) s = drain(c->ctx, &c->err);
    }
    return s;
}

/* The line of gnuplot's complaint that says most: its last one with words. */
static void complaint(const stream *err, char *out, size_t size) {
    const char *end = err->bytes ? err->bytes + err->size : NULL;
    out[0] = '\0';
    while (err->bytes && end > err->bytes) {
        const char *last = end;
        while (end > err->bytes && end[-1] != '\n') end--;
        const char *from = end;
        while (from < last && (*from == ' ' || *from == '\t' || *from == '^')) from++;
        if (from < last) {
            snprintf(out, size, "%.*s", last - from < 300 ? (int)(last - from) : 300, from);
            return;
        }
        if (end > err->bytes) end--; /* the newline */
    }
}

/* Whether the bytes begin as a file of the path's format. */
static bool is_picture(const stream *out, const char *path) {
    static const char png[] = "\x89PNG", pdf[] = "%PDF", svg[] = "<?xml";
    const char *magic = ends_with(path, ".png") ? png : ends_with(path, ".pdf") ? pdf : svg;
    return out->size > strlen(magic) && memcmp(out->bytes, magic, strlen(magic)) == 0;
}

static tw_status judge(const child *c, int status, const char *path) {
    char text[320];
    complaint(&c->err, text, sizeof text);
    const char *joint = *text ? ": " : "";
    if (WIFSIGNALED(status))
        return tw_fail(c->ctx, TW_ERROR_IO, "%s: gnuplot was ended by signal %d%s%s", path,
                       WTERMSIG(status), joint, text);
    if (!WIFEXITED(status) || WEXITSTATUS(status) != 0)
        return tw_fail(c->ctx, TW_ERROR_IO, "%s: gnuplot failed with status %d%s%s", path,
                       WIFEXITED(status) ? WEXITSTATUS(status) : -1, joint, text);
    if (!is_picture(&c->out, path))
        return tw_fail(c->ctx, TW_ERROR_IO, "%s: gnuplot drew no picture%s%s", path, joint, text);
    return TW_OK;
}

static tw_status run_child(child *c, const char *path) {
    tw_status s = start(c);
    if (s == TW_OK) s = talk(c);
    close_end(&c->to);
    close_end(&c->out.fd);
    close_end(&c->err.fd);
    if (c->pid <= 0) return s;
    int status = 0;
    if (s != TW_OK) kill(c->pid, SIGKILL);
    while (waitpid(c->pid, &status, 0) < 0 && errno == EINTR) continue;
    /* The key that stops us stops the child too, and it may be gone before we look. */
    if (cli_signals_stop()) return TW_ERROR_CANCELLED;
    return s == TW_OK ? judge(c, status, path) : s;
}

tw_status cli_plot_write(tw_context *ctx, cli_plot *plot, const char *path) {
    fprintf(plot->script, "\nexit\n");
    const bool bad = ferror(plot->script) != 0;
    const bool unfinished = fclose(plot->script) != 0;
    plot->script = NULL;
    if (bad || unfinished) return tw_fail(ctx, TW_ERROR_MEMORY, "%s: out of memory", path);
    child c = {.ctx = ctx, .pid = -1, .to = -1, .script = plot->text, .left = plot->size};
    c.out = (stream){.fd = -1, .most = PICTURE_MAX};
    c.err = (stream){.fd = -1, .most = PIECE};
    struct sigaction ignore, old;
    memset(&ignore, 0, sizeof ignore);
    ignore.sa_handler = SIG_IGN;
    sigemptyset(&ignore.sa_mask);
    sigaction(SIGPIPE, &ignore, &old);
    tw_status s = run_child(&c, path);
    sigaction(SIGPIPE, &old, NULL);
    if (s == TW_OK) s = tw_file_write(ctx, path, c.out.bytes, c.out.size);
    free(c.out.bytes);
    free(c.err.bytes);
    return s;
}
