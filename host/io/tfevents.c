#include "io/tfevents.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

static const char prefix[] = "events.out.tfevents.";

/* A message that is being put together. */
typedef struct message {
    uint8_t *bytes;
    size_t size, room;
} message;

struct tw_tfevents {
    tw_context *ctx;
    char path[4096];
    int fd;
    message inner, value, summary, event; /* kept from record to record */
};

uint32_t tw_crc32c(const void *bytes, size_t size) {
    const uint8_t *p = bytes;
    uint32_t table[16]; /* of four bits */
    for (uint32_t i = 0; i < 16; i++) {
        uint32_t c = i;
        for (int k = 0; k < 4; k++) c = c >> 1 ^ (c & 1 ? UINT32_C(0x82f63b78) : 0);
        table[i] = c;
    }
    uint32_t crc = UINT32_MAX;
    for (size_t i = 0; i < size; i++) {
        crc ^= p[i];
        crc = crc >> 4 ^ table[crc & 15];
        crc = crc >> 4 ^ table[crc & 15];
    }
    return ~crc;
}

static uint32_t masked(const void *bytes, size_t size) {
    const uint32_t crc = tw_crc32c(bytes, size);
    return (crc >> 15 | crc << 17) + UINT32_C(0xa282ead8);
}

/* --- Protocol buffers: a field is its number and wire type, then the value --- */

enum { VARINT = 0, FIXED64 = 1, BYTES = 2, FIXED32 = 5 };

static tw_status reserve(tw_tfevents *e, message *m, size_t more) {
    if (m->room - m->size >= more) return TW_OK;
    const size_t room = 2 * (m->size + more);
    uint8_t *bytes = tw_allocate(e->ctx, room, 1);
    if (!bytes) return TW_ERROR_MEMORY;
    if (m->size) memcpy(bytes, m->bytes, m->size);
    tw_free(e->ctx, m->bytes);
    m->bytes = bytes;
    m->room = room;
    return TW_OK;
}

/* The callers have reserved the room. */
static void put_varint(message *m, uint64_t v) {
    for (; v > 127; v >>= 7) m->bytes[m->size++] = (uint8_t)(v | 128);
    m->bytes[m->size++] = (uint8_t)v;
}

static void put_little_endian(uint8_t *to, uint64_t v, int bytes) {
    for (int i = 0; i < bytes; i++) to[i] = (uint8_t)(v >> (8 * i));
}

static void put_fixed(message *m, int field, uint64_t bits, int bytes) {
    put_varint(m, (uint64_t)field << 3 | (bytes == 8 ? FIXED64 : FIXED32));
    put_little_endian(m->bytes + m->size, bits, bytes);
    m->size += (size_t)bytes;
}

#define SMALL 32 /* room for any field but bytes */

static tw_status put_whole(tw_tfevents *e, message *m, int field, int64_t v) {
    TW_TRY(reserve(e, m, SMALL));
    put_varint(m, (uint64_t)field << 3 | VARINT);
    put_varint(m, (uint64_t)v);
    return TW_OK;
}

static tw_status put_float(tw_tfevents *e, message *m, int field, float v) {
    uint32_t bits;
    TW_TRY(reserve(e, m, SMALL));
    memcpy(&bits, &v, sizeof bits);
    put_fixed(m, field, bits, 4);
    return TW_OK;
}

static tw_status put_double(tw_tfevents *e, message *m, int field, double v) {
    uint64_t bits;
    TW_TRY(reserve(e, m, SMALL));
    memcpy(&bits, &v, sizeof bits);
    put_fixed(m, field, bits, 8);
    return TW_OK;
}

static tw_status put_bytes(tw_tfevents *e, message *m, int field, const void *bytes, size_t size) {
    TW_TRY(reserve(e, m, SMALL + size));
    put_varint(m, (uint64_t)field << 3 | BYTES);
    put_varint(m, size);
    memcpy(m->bytes + m->size, bytes, size);
    m->size += size;
    return TW_OK;
}

static tw_status put_text(tw_tfevents *e, message *m, int field, const char *text) {
    return put_bytes(e, m, field, text, strlen(text));
}

/* --- Records --- */

static tw_status write_whole(tw_tfevents *e, const void *bytes, size_t size) {
    for (const uint8_t *p = bytes; size;) {
        const ssize_t n = write(e->fd, p, size);
        if (n < 0 && errno == EINTR) continue;
        if (n <= 0)
            return tw_fail(e->ctx, TW_ERROR_IO, "%s: cannot write: %s", e->path,
                           strerror(n < 0 ? errno : ENOSPC));
        p += n;
        size -= (size_t)n;
    }
    return TW_OK;
}

/* Event: 1 wall_time, 2 step, 3 file_version, 5 summary, 7 session_log. */
static tw_status begin_event(tw_tfevents *e, int64_t step) {
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    e->event.size = 0;
    TW_TRY(put_double(e, &e->event, 1, (double)now.tv_sec + 1e-9 * (double)now.tv_nsec));
    return put_whole(e, &e->event, 2, step);
}

static tw_status end_event(tw_tfevents *e) {
    uint8_t head[12], tail[4];
    put_little_endian(head, e->event.size, 8);
    put_little_endian(head + 8, masked(head, 8), 4);
    put_little_endian(tail, masked(e->event.bytes, e->event.size), 4);
    /* One call: a record is whole unless the process dies within it. */
    message *all = &e->inner;
    all->size = 0;
    TW_TRY(reserve(e, all, e->event.size + sizeof head + sizeof tail));
    memcpy(all->bytes, head, sizeof head);
    memcpy(all->bytes + sizeof head, e->event.bytes, e->event.size);
    memcpy(all->bytes + sizeof head + e->event.size, tail, sizeof tail);
    return write_whole(e, all->bytes, e->event.size + sizeof head + sizeof tail);
}

/* Puts e->summary into an event of its own. */
static tw_status write_summary(tw_tfevents *e, int64_t step) {
    TW_TRY(begin_event(e, step));
    TW_TRY(put_bytes(e, &e->event, 5, e->summary.bytes, e->summary.size));
    return end_event(e);
}

/* Summary.Value: 1 tag, 2 simple_value, 4 image. */
tw_status tw_tfevents_scalars(tw_tfevents *e, int64_t step, const tw_tfevents_scalar *scalars,
                              int count) {
    e->summary.size = 0;
    for (int i = 0; i < count; i++) {
        e->value.size = 0;
        TW_TRY(put_text(e, &e->value, 1, scalars[i].tag));
        TW_TRY(put_float(e, &e->value, 2, (float)scalars[i].value));
        TW_TRY(put_bytes(e, &e->summary, 1, e->value.bytes, e->value.size));
    }
    return write_summary(e, step);
}

static uint32_t big_endian(const uint8_t *p) {
    return (uint32_t)p[0] << 24 | (uint32_t)p[1] << 16 | (uint32_t)p[2] << 8 | p[3];
}

/* Image: 1 height, 2 width, 3 colorspace (channels), 4 encoded_image_string. */
tw_status tw_tfevents_png(tw_tfevents *e, int64_t step, const char *tag, const void *png,
                          size_t size) {
    static const uint8_t signature[] = {0x89, 'P', 'N', 'G', '\r', '\n', 0x1a, '\n'};
    static const uint8_t channels[] = {1, 0, 3, 3, 2, 0, 4}; /* by PNG's colour type */
    const uint8_t *p = png;
    if (size < 33 || memcmp(p, signature, sizeof signature) != 0 || p[25] > 6)
        return tw_fail(e->ctx, TW_ERROR_FORMAT, "%s: expected a PNG", tag);
    e->inner.size = e->value.size = e->summary.size = 0;
    TW_TRY(put_whole(e, &e->inner, 1, big_endian(p + 20)));
    TW_TRY(put_whole(e, &e->inner, 2, big_endian(p + 16)));
    TW_TRY(put_whole(e, &e->inner, 3, channels[p[25]]));
    TW_TRY(put_bytes(e, &e->inner, 4, png, size));
    TW_TRY(put_text(e, &e->value, 1, tag));
    TW_TRY(put_bytes(e, &e->value, 4, e->inner.bytes, e->inner.size));
    TW_TRY(put_bytes(e, &e->summary, 1, e->value.bytes, e->value.size));
    return write_summary(e, step);
}

/* --- Files --- */

/* Seconds in the name of the last file that is there; TensorBoard reads them by name. */
static int64_t last_of(const char *folder) {
    int64_t last = 0;
    DIR *dir = opendir(folder);
    if (!dir) return 0;
    for (const struct dirent *entry; (entry = readdir(dir));) {
        if (strncmp(entry->d_name, prefix, sizeof prefix - 1) != 0) continue;
        const int64_t seconds = strtoll(entry->d_name + sizeof prefix - 1, NULL, 10);
        if (seconds > last && seconds < INT64_C(9999999999)) last = seconds;
    }
    closedir(dir);
    return last;
}

static tw_status create(tw_tfevents *e, const char *folder) {
    char host[64] = "localhost", name[160];
    const int64_t now = time(NULL), last = last_of(folder);
    if (gethostname(host, sizeof host - 1) != 0 || !*host || strchr(host, '/'))
        snprintf(host, sizeof host, "localhost");
    snprintf(name, sizeof name, "%s%010" PRId64 ".%s.%ld", prefix, now > last ? now : last + 1,
             host, (long)getpid());
    const int length = snprintf(e->path, sizeof e->path, "%s/%s", folder, name);
    if (length < 0 || (size_t)length >= sizeof e->path)
        return tw_fail(e->ctx, TW_ERROR_IO, "%.64s...: the path is too long", folder);
    e->fd = open(e->path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
    if (e->fd >= 0) return TW_OK;
    return tw_fail(e->ctx, TW_ERROR_IO, "%s: cannot create: %s", e->path, strerror(errno));
}

static tw_status write_beginning(tw_tfevents *e, int64_t purge_step) {
    TW_TRY(begin_event(e, purge_step > 0 ? purge_step : 0));
    TW_TRY(put_text(e, &e->event, 3, "brain.Event:2"));
    TW_TRY(end_event(e));
    if (purge_step < 0) return TW_OK;
    static const uint8_t start[] = {1 << 3 | VARINT, 1}; /* SessionLog: status START */
    TW_TRY(begin_event(e, purge_step));
    TW_TRY(put_bytes(e, &e->event, 7, start, sizeof start));
    return end_event(e);
}

tw_status tw_tfevents_open(tw_context *ctx, const char *folder, int64_t purge_step,
                           tw_tfevents **out) {
    *out = NULL;
    tw_tfevents *e = tw_allocate(ctx, 1, sizeof *e);
    if (!e) return TW_ERROR_MEMORY;
    e->ctx = ctx;
    e->fd = -1;
    tw_status s = create(e, folder);
    if (s == TW_OK) {
        s = write_beginning(e, purge_step);
        if (s != TW_OK) unlink(e->path);
    }
    if (s == TW_OK)
        *out = e;
    else
        tw_tfevents_close(e);
    return s;
}

void tw_tfevents_close(tw_tfevents *e) {
    if (!e) return;
    message *messages[] = {&e->inner, &e->value, &e->summary, &e->event};
    for (size_t i = 0; i < sizeof messages / sizeof *messages; i++)
        tw_free(e->ctx, messages[i]->bytes);
    if (e->fd >= 0) close(e->fd);
    tw_free(e->ctx, e);
}
