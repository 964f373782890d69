#include "cli/scatter.h"

#include <math.h>

/* A GIF holds so few exactly, and in six bits each. */
#define SHADES 62.0

double cli_scatter_extent(const float *points, int64_t count) {
    double extent = 0.1;
    for (int64_t i = 0; i < 2 * count; i++) {
        const double v = fabs((double)points[i]);
        if (isfinite(v) && v > extent) extent = v;
    }
    return 1.05 * extent;
}

/* Light that passes the dots so far, multiplied per dot by 1 - opacity * cover. */
static void draw_dot(float *light, int64_t size, double x, double y, double radius,
                     double opacity) {
    const int64_t x0 = (int64_t)floor(x - radius - 1.0), x1 = (int64_t)ceil(x + radius + 1.0);
    const int64_t y0 = (int64_t)floor(y - radius - 1.0), y1 = (int64_t)ceil(y + radius + 1.0);
    for (int64_t r = y0 < 0 ? 0 : y0; r <= y1 && r < size; r++)
        for (int64_t c = x0 < 0 ? 0 : x0; c <= x1 && c < size; c++) {
            const double distance = hypot((double)c + 0.5 - x, (double)r + 0.5 - y);
            const double cover = fmin(fmax(radius + 0.5 - distance, 0.0), 1.0);
            light[r * size + c] *= (float)(1.0 - opacity * cover);
        }
}

tw_status cli_scatter(tw_context *ctx, const float *points, int64_t panels, int64_t n, int64_t size,
                      double extent, tw_image *out) {
    static const double ink[3] = {31.0, 78.0, 161.0};
    const double radius = (double)size / 250.0 + 0.5, opacity = n > 2000 ? 0.4 : 0.6;
    *out = (tw_image){0};
    float *light = tw_allocate(ctx, (size_t)(size * size), sizeof *light);
    /* A column of grey pixels stands between two panels. */
    const int64_t width = panels * (size + 1) - 1;
    uint8_t *pixels = tw_allocate(ctx, (size_t)(width * size), 3);
    if (!light || !pixels) {
        tw_free(ctx, light);
        tw_free(ctx, pixels);
        return TW_ERROR_MEMORY;
    }
    for (int64_t i = 0; i < 3 * width * size; i++) pixels[i] = 208;
    for (int64_t p = 0; p < panels; p++) {
        for (int64_t i = 0; i < size * size; i++) light[i] = 1.0f;
        for (int64_t i = 0; i < n; i++) {
            const float *point = points + 2 * (p * n + i);
            const double x = (point[0] / extent + 1.0) * 0.5 * (double)size;
            const double y = (1.0 - point[1] / extent) * 0.5 * (double)size;
            if (!(x >= 0.0 && x < (double)size && y >= 0.0 && y < (double)size)) continue;
            draw_dot(light, size, x, y, radius, opacity);
        }
        for (int64_t r = 0; r < size; r++)
            for (int64_t c = 0; c < size; c++) {
                const double shade = round(SHADES * (double)light[r * size + c]) / SHADES;
                for (int k = 0; k < 3; k++)
                    pixels[3 * (r * width + p * (size + 1) + c) + k] =
                        (uint8_t)(ink[k] + (255.0 - ink[k]) * shade + 0.5);
            }
    }
    tw_free(ctx, light);
    *out = (tw_image){width, size, 3, pixels};
    return TW_OK;
}
