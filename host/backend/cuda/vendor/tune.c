/* Timing the plans of a shape against each other. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "backend/cuda/vendor/driver.h"

#define ROUNDS 5
#define LAUNCHES 20       /* at most, between two events */
#define MEASURED_FOR 0.5f /* milliseconds, at least, where that many launches take as long */

typedef struct trial {
    tw_vendor *v;
    const tw_driver_api *driver;
    const tw_vendor_call *call;
    const tw_vendor_family *family;
    twk_stream stream;
    int n;
    tw_vendor_plan *plans[TW_VENDOR_CANDIDATES];
    bool fit[TW_VENDOR_CANDIDATES]; /* it ran, and agrees */
    int launches[TW_VENDOR_CANDIDATES];
    float times[TW_VENDOR_CANDIDATES][ROUNDS];
    int agreed, disagreed;
    tw_vendor_output output;
    size_t output_bytes;
    tw_device_address memory;
    tw_vendor_room room;
    tw_event from, to;
    void *bytes;
    float *reference, *got;
} trial;

static twk_status failed(int error, const char *what) {
    return tw_vendor_fail(TWK_LAUNCH_FAILED, "tuning: %s: CUDA error %d", what, error);
}

/* --- results ---------------------------------------------------------------------------------- */

static float half_to_float(uint16_t bits) {
    const int exponent = bits >> 10 & 31, fraction = bits & 1023;
    const float value = exponent == 31 ? (fraction ? NAN : INFINITY)
                        : exponent     ? ldexpf((float)(1024 + fraction), exponent - 25)
                                       : ldexpf((float)fraction, -24);
    return bits & 0x8000 ? -value : value;
}

static void decode(const void *bytes, twk_format format, int64_t n, float *out) {
    if (format == TWK_F32) {
        memcpy(out, bytes, (size_t)n * sizeof *out);
        return;
    }
    const uint16_t *from = bytes;
    for (int64_t i = 0; i < n; i++) {
        if (format == TWK_F16) {
            out[i] = half_to_float(from[i]);
        } else {
            const uint32_t bits = (uint32_t)from[i] << 16;
            memcpy(out + i, &bits, sizeof bits);
        }
    }
}

/* Within the tolerance of the element's magnitude and of the mean magnitude: sums that cancel have
 * the error of their terms. NaN agrees with nothing. */
static bool agree(const trial *t) {
    double squares = 0;
    for (int64_t i = 0; i < t->output.n; i++)
        squares += (double)t->reference[i] * (double)t->reference[i];
    const double mean = sqrt(squares / (double)t->output.n);
    for (int64_t i = 0; i < t->output.n; i++) {
        const double want = (double)t->reference[i];
        if (!(fabs((double)t->got[i] - want) <= t->output.tolerance * (fabs(want) + mean)))
            return false;
    }
    return true;
}

static twk_status enqueue(const trial *t, int i) {
    return t->family->enqueue(t->v, t->call, t->plans[i], &t->room, t->stream);
}

/* Runs plan i once and reads what it wrote. */
static bool result_of(trial *t, int i) {
    const tw_driver_api *d = t->driver;
    if (d->fill(t->memory, 0, t->output_bytes, t->stream) || enqueue(t, i) != TWK_OK ||
        d->synchronize(t->stream) || d->to_host(t->bytes, t->memory, t->output_bytes))
        return false;
    decode(t->bytes, t->output.format, t->output.n, t->got);
    return true;
}

/* The first that runs is the measure of the others. */
static void compare_all(trial *t) {
    bool have_reference = false;
    for (int i = 0; i < t->n; i++) {
        if (!result_of(t, i)) continue;
        if (!have_reference) memcpy(t->reference, t->got, (size_t)t->output.n * sizeof *t->got);
        have_reference = true;
        t->fit[i] = agree(t);
        t->agreed += t->fit[i];
        t->disagreed += !t->fit[i];
    }
}

/* --- time ------------------------------------------------------------------------------------- */

/* Milliseconds of one launch; negative when it cannot be told. */
static float measure(const trial *t, int i, int launches) {
    const tw_driver_api *d = t->driver;
    float milliseconds = -1;
    if (d->event_record(t->from, t->stream)) return -1;
    for (int l = 0; l < launches; l++)
        if (enqueue(t, i) != TWK_OK) return -1;
    if (d->event_record(t->to, t->stream) || d->event_synchronize(t->to) ||
        d->event_elapsed(&milliseconds, t->from, t->to))
        return -1;
    return milliseconds / (float)launches;
}

static int by_value(const void *a, const void *b) {
    const float x = *(const float *)a, y = *(const float *)b;
    return (x > y) - (x < y);
}

/* Rounds, so that a slow moment of the machine does not strike one plan alone; the median of them.
 * The quickest plan, or -1. */
static int quickest(trial *t) {
    int best = -1;
    for (int i = 0; i < t->n; i++) {
        const float once = t->fit[i] ? measure(t, i, 1) : -1;
        t->fit[i] = once >= 0;
        const float wanted = once > 0 ? MEASURED_FOR / once : LAUNCHES;
        t->launches[i] = wanted < 1 ? 1 : wanted > LAUNCHES ? LAUNCHES : (int)wanted;
    }
    for (int round = 0; round < ROUNDS; round++)
        for (int i = 0; i < t->n; i++) {
            if (!t->fit[i]) continue;
            t->times[i][round] = measure(t, i, t->launches[i]);
            t->fit[i] = t->times[i][round] >= 0;
        }
    for (int i = 0; i < t->n; i++) {
        if (!t->fit[i]) continue;
        qsort(t->times[i], ROUNDS, sizeof t->times[i][0], by_value);
        if (best < 0 || t->times[i][ROUNDS / 2] < t->times[best][ROUNDS / 2]) best = i;
    }
    return best;
}

/* --- all of it -------------------------------------------------------------------------------- */

static size_t rounded(size_t bytes) {
    return (bytes + 255) / 256 * 256;
}

/* One piece of device memory: the output, the rounded bias, the plans' workspace. */
static twk_status prepare(trial *t) {
    size_t plan_bytes = 0;
    for (int i = 0; i < t->n; i++)
        if (t->plans[i]->bytes > plan_bytes) plan_bytes = t->plans[i]->bytes;
    t->output = t->family->output(t->call);
    t->output_bytes = (size_t)t->output.n * tw_vendor_format_bytes(t->output.format);
    t->bytes = malloc(t->output_bytes);
    t->reference = malloc((size_t)t->output.n * sizeof *t->reference);
    t->got = malloc((size_t)t->output.n * sizeof *t->got);
    if (!t->bytes || !t->reference || !t->got)
        return tw_vendor_fail(TWK_UNSUPPORTED, "tuning: out of memory");
    twk_status status = t->family->needs(t->v, t->call, &t->room.needs);
    if (status != TWK_OK) return status;
    const size_t bias_at = rounded(t->output_bytes);
    const size_t plan_at = bias_at + rounded(t->room.needs.bias);
    if (t->driver->allocate(&t->memory, plan_at + plan_bytes)) {
        t->memory = 0;
        return tw_vendor_fail(TWK_UNSUPPORTED, "tuning: %zu bytes of device memory are not there",
                              plan_at + plan_bytes);
    }
    char *const start = (char *)(uintptr_t)t->memory;
    t->room.output = start;
    t->room.bias = start + bias_at;
    t->room.plan = start + plan_at;
    int error = t->driver->event_create(&t->from, 0);
    if (!error) error = t->driver->event_create(&t->to, 0);
    if (error) return failed(error, "events");
    return t->family->before(t->v, t->call, &t->room, t->stream);
}

static void clean_up(trial *t) {
    if (t->memory) t->driver->synchronize(t->stream); /* nothing was enqueued before */
    if (t->from) t->driver->event_destroy(t->from);
    if (t->to) t->driver->event_destroy(t->to);
    if (t->memory) t->driver->release(t->memory);
    free(t->bytes);
    free(t->reference);
    free(t->got);
    for (int i = 0; i < t->n; i++)
        if (t->plans[i]) t->family->free(t->v, t->plans[i]);
}

static twk_status choose(trial *t, tw_vendor_entry *entry) {
    compare_all(t);
    const int ran = t->agreed + t->disagreed;
    if (ran > 1 && t->agreed == 1)
        return tw_vendor_fail(TWK_UNSUPPORTED, "tuning: %d plans, and no two agree", ran);
    const int best = quickest(t);
    if (best < 0) return tw_vendor_fail(TWK_UNSUPPORTED, "tuning: no plan runs");
    tw_vendor_choice *choice = &t->plans[best]->choice;
    choice->tried = ran;
    choice->disagreed = t->disagreed;
    choice->milliseconds = t->times[best][ROUNDS / 2];
    tw_vendor_plan *const before = entry->plan;
    entry->plan = t->plans[best];
    t->plans[best] = before; /* which goes with the others */
    return TWK_OK;
}

twk_status tw_vendor_time_plans(tw_vendor *v, const tw_vendor_call *call, tw_vendor_entry *entry,
                                twk_stream stream) {
    twk_status status = tw_driver_open(v);
    if (status != TWK_OK) return status;
    trial *t = calloc(1, sizeof *t);
    if (!t) return tw_vendor_fail(TWK_UNSUPPORTED, "tuning: out of memory");
    t->v = v;
    t->driver = &v->driver->api;
    t->call = call;
    t->family = entry->family;
    t->stream = stream;
    int capturing = 0;
    const int error = t->driver->is_capturing(stream, &capturing);
    if (error || capturing)
        status = error ? failed(error, "the stream")
                       : tw_vendor_fail(TWK_BAD_ARGUMENT, "tuning: the stream is being captured");
    if (status == TWK_OK) status = t->family->plans(v, call, TW_VENDOR_CANDIDATES, t->plans, &t->n);
    if (status == TWK_OK) status = prepare(t);
    if (status == TWK_OK) status = choose(t, entry);
    clean_up(t);
    free(t);
    return status;
}
