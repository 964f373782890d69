/* Points of the plane as a picture: dots on white, without axes or text. */
#ifndef TW_CLI_SCATTER_H
#define TW_CLI_SCATTER_H

#include "io/image.h"

/* The half width of a square around the origin that holds every finite point; at least 0.1. */
double cli_scatter_extent(const float *points, int64_t count);

/* points[panels, n, 2] as panels side by side, each `size` pixels square, showing x and y from
 * -extent to extent; y points up. Points outside and NaN are left out. */
tw_status cli_scatter(tw_context *ctx, const float *points, int64_t panels, int64_t n, int64_t size,
                      double extent, tw_image *out);

#endif
