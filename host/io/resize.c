#include "io/resize.h"

#include <math.h>
#include <string.h>

#include "core/checked.h"

/* How one axis is read: pixel i of the result is sum_k weights[i * count + k] in[first[i] + k]. */
typedef struct axis {
    int64_t count; /* weights of a pixel */
    int64_t *first;
    float *weights;
} axis;

static void free_axis(tw_context *ctx, axis *a) {
    tw_free(ctx, a->first);
    tw_free(ctx, a->weights);
}

/* Catmull and Rom's cubic (Keys' with a = -1/2) at distance x. */
static double cubic(double x) {
    x = fabs(x);
    if (x < 1) return (1.5 * x - 2.5) * x * x + 1;
    return x < 2 ? ((-0.5 * x + 2.5) * x - 4) * x + 2 : 0;
}

static int64_t clamp(int64_t v, int64_t low, int64_t high) {
    return v < low ? low : v > high ? high : v;
}

/* The weights of a pixel that covers [from, from + scale) of an axis of `in` pixels. */
static void weigh(axis *a, int64_t i, double from, double scale, int64_t in) {
    float *w = a->weights + i * a->count;
    double sum = 0, parts[4];
    if (scale > 1) {
        const int64_t first = clamp((int64_t)floor(from), 0, in - 1);
        a->first[i] = clamp(first, 0, in - a->count);
        const int64_t shift = first - a->first[i];
        for (int pass = 0; pass < 2; pass++)
            for (int64_t k = shift; k < a->count; k++) {
                const double p = (double)(a->first[i] + k);
                const double part = fmin(from + scale, p + 1) - fmax(from, p);
                if (part <= 0) continue;
                if (pass == 0)
                    sum += part;
                else
                    w[k] = (float)(part / sum);
            }
        return;
    }
    const double centre = from + 0.5 * scale - 0.5;
    const int64_t first = (int64_t)floor(centre) - 1;
    for (int k = 0; k < 4; k++) sum += parts[k] = cubic(centre - (double)(first + k));
    /* Beyond the edge its last pixel goes on. */
    a->first[i] = clamp(first, 0, in - a->count);
    for (int k = 0; k < 4; k++)
        w[clamp(first + k, 0, in - 1) - a->first[i]] += (float)(parts[k] / sum);
}

/* The axis from `extent` pixels, starting at `start`, of `in` pixels to `out` pixels. */
static tw_status make_axis(tw_context *ctx, int64_t in, double start, double extent, int64_t out,
                           axis *a) {
    const double scale = extent / (double)out;
    /* An interval of this length touches no more pixels. */
    a->count = scale > 1 ? (int64_t)ceil(scale) + 1 : 4;
    if (a->count > in) a->count = in;
    a->first = tw_allocate(ctx, (size_t)out, sizeof *a->first);
    size_t weights;
    if (!tw_mul_size((size_t)out, (size_t)a->count, &weights))
        return tw_fail(ctx, TW_ERROR_MEMORY, "image: the size does not fit an address");
    a->weights = tw_allocate(ctx, weights, sizeof *a->weights);
    if (!a->first || !a->weights) return TW_ERROR_MEMORY;
    for (int64_t i = 0; i < out; i++) weigh(a, i, start + (double)i * scale, scale, in);
    return TW_OK;
}

/* One row of pixels to numbers. */
static void shrink_row(const axis *a, const uint8_t *from, int channels, int64_t width, float *to) {
    for (int64_t x = 0; x < width; x++) {
        const uint8_t *in = from + a->first[x] * channels;
        const float *w = a->weights + x * a->count;
        for (int c = 0; c < channels; c++) {
            float sum = 0;
            for (int64_t k = 0; k < a->count; k++) sum += w[k] * (float)in[k * channels + c];
            to[x * channels + c] = sum;
        }
    }
}

/* Rows of numbers to a row of pixels; sums[line] is scratch. */
static void shrink_rows(const axis *a, int64_t y, const float *rows, int64_t line, float *sums,
                        uint8_t *to) {
    const float *w = a->weights + y * a->count;
    memset(sums, 0, (size_t)line * sizeof *sums);
    for (int64_t k = 0; k < a->count; k++) {
        const float *row = rows + (a->first[y] + k) * line;
        for (int64_t i = 0; i < line; i++) sums[i] += w[k] * row[i];
    }
    for (int64_t i = 0; i < line; i++) {
        const float v = sums[i] + 0.5f;
        to[i] = v <= 0 ? 0 : v >= 255 ? 255 : (uint8_t)v;
    }
}

static tw_status resample(tw_context *ctx, const tw_image *in, const axis *across, const axis *down,
                          tw_image *out) {
    const int64_t line = out->width * in->channels;
    /* Only the rows that the part touches. */
    const int64_t top = down->first[0];
    const int64_t rows = down->first[out->height - 1] + down->count - top;
    int64_t numbers;
    if (!tw_add_i64(rows, 1, &numbers) || !tw_mul_i64(numbers, line, &numbers))
        return tw_fail(ctx, TW_ERROR_MEMORY, "image: the size does not fit an address");
    float *values = tw_allocate(ctx, (size_t)numbers, sizeof *values);
    if (!values) return TW_ERROR_MEMORY;
    for (int64_t y = 0; y < rows; y++)
        shrink_row(across, in->pixels + (top + y) * in->width * in->channels, in->channels,
                   out->width, values + y * line);
    axis shifted = *down;
    for (int64_t y = 0; y < out->height; y++) shifted.first[y] -= top;
    for (int64_t y = 0; y < out->height; y++)
        shrink_rows(&shifted, y, values, line, values + rows * line, out->pixels + y * line);
    tw_free(ctx, values);
    return TW_OK;
}

static bool is_within(double start, double extent, int64_t limit) {
    return start >= 0 && extent > 0 && start + extent <= (double)limit * (1 + 1e-12);
}

tw_status tw_image_resize(tw_context *ctx, const tw_image *in, const tw_image_part *part,
                          int64_t height, int64_t width, tw_image *out) {
    int64_t bytes;
    axis across = {0}, down = {0};
    memset(out, 0, sizeof *out);
    if (height < 1 || width < 1 || !is_within(part->left, part->width, in->width) ||
        !is_within(part->top, part->height, in->height))
        return tw_fail(ctx, TW_ERROR_ARGUMENT,
                       "image: %gx%g pixels at %g,%g of %lldx%lld to %lldx%lld: expected a part of "
                       "the picture and a size of at least 1",
                       part->width, part->height, part->left, part->top, (long long)in->width,
                       (long long)in->height, (long long)width, (long long)height);
    if (!tw_mul_i64(height, width, &bytes) || !tw_mul_i64(bytes, in->channels, &bytes) ||
        bytes > TW_IMAGE_BYTES_MAX)
        return tw_fail(ctx, TW_ERROR_ARGUMENT, "image: %lldx%lld: more than 2^30 bytes of pixels",
                       (long long)width, (long long)height);
    *out = (tw_image){width, height, in->channels, tw_allocate(ctx, (size_t)bytes, 1)};
    tw_status s = out->pixels ? TW_OK : TW_ERROR_MEMORY;
    if (s == TW_OK) s = make_axis(ctx, in->width, part->left, part->width, width, &across);
    if (s == TW_OK) s = make_axis(ctx, in->height, part->top, part->height, height, &down);
    if (s == TW_OK) s = resample(ctx, in, &across, &down, out);
    free_axis(ctx, &across);
    free_axis(ctx, &down);
    if (s != TW_OK) tw_image_free(ctx, out);
    return s;
}

tw_status tw_image_set_channels(tw_context *ctx, tw_image *image, int channels) {
    if (channels == image->channels) return TW_OK;
    const size_t pixels = (size_t)image->width * (size_t)image->height;
    uint8_t *to = tw_allocate(ctx, pixels, (size_t)channels);
    if (!to) return TW_ERROR_MEMORY;
    const uint8_t *from = image->pixels;
    if (channels == 1)
        for (size_t i = 0; i < pixels; i++)
            to[i] = (uint8_t)((299 * from[3 * i] + 587 * from[3 * i + 1] + 114 * from[3 * i + 2] +
                               500) /
                              1000);
    else
        for (size_t i = 0; i < 3 * pixels; i++) to[i] = from[i / 3];
    tw_free(ctx, image->pixels);
    image->pixels = to;
    image->channels = channels;
    return TW_OK;
}
