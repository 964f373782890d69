/* Coloured shapes, drawn when they are asked for. Sample i is a shape of class i mod 6; colour,
 * size, place, turn and the background's two colours follow from (seed, i). */
#include <math.h>
#include <string.h>

#include "core/philox.h"
#include "data/dataset.h"

enum { CLASSES = 6, DEFAULT_COUNT = 50000, DEFAULT_SIDE = 32, POINTS_MAX = 12, STEP_SHAPE = 2 };
enum { DISC, RING, SQUARE, TRIANGLE, STAR, CROSS };

static const char *const class_names[CLASSES] = {"disc",     "ring", "square",
                                                 "triangle", "star", "cross"};

typedef struct figure {
    int kind;
    double x, y, radius; /* pixels; the circle around the shape */
    int points;          /* of a polygon */
    double px[POINTS_MAX], py[POINTS_MAX];
    double colour[3], from[3], to[3]; /* 0..1; the background goes from one to the other */
    double dx, dy, start;             /* along dx x + dy y - start */
} figure;

/* A colour by its hue, saturation and value, all 0..1. */
static void set_colour(double h, double s, double v, double rgb[3]) {
    for (int c = 0; c < 3; c++) {
        const double k = fmod(6 * h + (double)(5 - 2 * c), 6);
        rgb[c] = v - v * s * fmax(0, fmin(1, fmin(k, 4 - k)));
    }
}

/* The corners on the circle of radius 1 before the turn. */
static void set_corners(figure *s, double turn) {
    const double pi = 3.14159265358979323846;
    /* A bar of the cross is this much of the circle wide. */
    const double bar = 0.3, end = 0.954;
    const double cross[CLASSES * 2][2] = {{bar, bar},  {end, bar},   {end, -bar},  {bar, -bar},
                                          {bar, -end}, {-bar, -end}, {-bar, -bar}, {-end, -bar},
                                          {-end, bar}, {-bar, bar},  {-bar, end},  {bar, end}};
    s->points = s->kind == SQUARE ? 4 : s->kind == TRIANGLE ? 3 : s->kind == STAR ? 10 : 12;
    for (int i = 0; i < s->points; i++) {
        const double angle = 2 * pi * i / s->points;
        const double r = s->kind == STAR && i % 2 ? 0.45 : 1;
        const double x = s->kind == CROSS ? cross[i][0] : r * cos(angle);
        const double y = s->kind == CROSS ? cross[i][1] : r * sin(angle);
        s->px[i] = s->x + s->radius * (x * cos(turn) - y * sin(turn));
        s->py[i] = s->y + s->radius * (x * sin(turn) + y * cos(turn));
    }
}

static void draw_plan(uint64_t seed, int64_t index, double height, double width, figure *s) {
    const tw_philox_key key = {seed, (uint64_t)index, TW_PURPOSE_DATA, STEP_SHAPE};
    double u[16];
    for (uint32_t quad = 0; quad < 4; quad++) {
        uint32_t words[4];
        tw_philox_words(&key, quad, words);
        for (int i = 0; i < 4; i++) u[4 * quad + (uint32_t)i] = (double)tw_philox_uniform(words[i]);
    }
    memset(s, 0, sizeof *s);
    s->kind = (int)(index % CLASSES);
    const double shorter = fmin(height, width);
    s->radius = shorter * (0.22 + 0.2 * u[0]);
    s->x = s->radius + u[1] * (width - 2 * s->radius);
    s->y = s->radius + u[2] * (height - 2 * s->radius);
    /* The background is dark or dull enough for the shape to stand out. */
    set_colour(u[3], 0.55 + 0.45 * u[4], 0.8 + 0.2 * u[5], s->colour);
    set_colour(u[6], 0.5 * u[7], 0.05 + 0.35 * u[8], s->from);
    set_colour(u[9], 0.5 * u[10], 0.05 + 0.35 * u[11], s->to);
    const double along = 6.28318530717958647693 * u[12];
    s->dx = cos(along) / hypot(height, width);
    s->dy = sin(along) / hypot(height, width);
    s->start = 0.5 * (s->dx * width + s->dy * height) - 0.5;
    if (s->kind != DISC && s->kind != RING) set_corners(s, 6.28318530717958647693 * u[13]);
}

/* Distance from (x, y) to the polygon's edge, negative inside (the crossings of a ray tell). */
static double polygon_distance(const figure *s, double x, double y) {
    double nearest = INFINITY;
    bool inside = false;
    for (int i = 0, j = s->points - 1; i < s->points; j = i++) {
        const double ex = s->px[j] - s->px[i], ey = s->py[j] - s->py[i];
        const double wx = x - s->px[i], wy = y - s->py[i];
        const double t = fmax(0, fmin(1, (wx * ex + wy * ey) / (ex * ex + ey * ey)));
        const double bx = wx - t * ex, by = wy - t * ey;
        nearest = fmin(nearest, bx * bx + by * by);
        if ((s->py[i] > y) != (s->py[j] > y) && wx < ex * wy / ey) inside = !inside;
    }
    return inside ? -sqrt(nearest) : sqrt(nearest);
}

/* The part of the pixel around (x, y) that the shape covers. */
static double coverage(const figure *s, double x, double y) {
    double d = hypot(x - s->x, y - s->y) - s->radius;
    if (d > 1) return 0;
    if (s->kind == RING)
        d = fabs(d + 0.2 * s->radius) - 0.2 * s->radius;
    else if (s->kind != DISC)
        d = polygon_distance(s, x, y);
    return fmax(0, fmin(1, 0.5 - d));
}

static tw_status read_shape(const tw_dataset *d, int64_t index, float *out, int32_t *label,
                            char *error) {
    const uint64_t *seed = d->source;
    const int64_t height = d->shape[0], width = d->shape[1], channels = d->shape[2];
    figure s;
    (void)error;
    draw_plan(*seed, index, (double)height, (double)width, &s);
    for (int64_t y = 0; y < height; y++)
        for (int64_t x = 0; x < width; x++) {
            const double cx = (double)x + 0.5, cy = (double)y + 0.5;
            const double a = coverage(&s, cx, cy);
            const double t = s.dx * cx + s.dy * cy - s.start;
            double rgb[3];
            for (int c = 0; c < 3; c++)
                rgb[c] = a * s.colour[c] + (1 - a) * ((1 - t) * s.from[c] + t * s.to[c]);
            if (channels == 1) rgb[0] = 0.299 * rgb[0] + 0.587 * rgb[1] + 0.114 * rgb[2];
            for (int64_t c = 0; c < channels; c++)
                out[(y * width + x) * channels + c] = (float)(2 * rgb[c] - 1);
        }
    *label = (int32_t)s.kind;
    return TW_OK;
}

static void close_shapes(tw_dataset *d) {
    tw_free(d->ctx, d->source);
}

tw_status tw_dataset_open_shapes(tw_context *ctx, const tw_dataset_options *o, tw_dataset **out) {
    const int64_t shape[3] = {o->height ? o->height : DEFAULT_SIDE,
                              o->width ? o->width : DEFAULT_SIDE, o->channels ? o->channels : 3};
    *out = NULL;
    tw_dataset *d;
    TW_TRY(tw_dataset_new(ctx, "shapes", o->count ? o->count : DEFAULT_COUNT, 3, shape, &d));
    uint64_t *seed = tw_allocate(ctx, 1, sizeof *seed);
    if (seed) {
        *seed = o->seed;
        d->source = seed;
        d->close = close_shapes;
        d->read = read_shape;
        d->classes = CLASSES;
    }
    const tw_status s =
        seed ? tw_dataset_set_class_names(d, class_names, CLASSES) : TW_ERROR_MEMORY;
    if (s != TW_OK) {
        tw_dataset_free(d);
        return s;
    }
    *out = d;
    return TW_OK;
}
