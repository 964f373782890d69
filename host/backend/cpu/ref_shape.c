/* Moving elements: joining, cutting, resampling, repeating. */
#include "backend/cpu/ref.h"

/* Copies `rows` rows between matrices of different row lengths, in bytes. */
static void copy_columns(const tw_ref_call *c, char *dst, size_t dst_row, const char *src,
                         size_t src_row, size_t bytes, int64_t rows) {
    TW_PARALLEL(c, rows * (int64_t)bytes)
    for (int64_t r = 0; r < rows; r++)
        memcpy(dst + (size_t)r * dst_row, src + (size_t)r * src_row, bytes);
}

static size_t row_bytes(const tw_desc *d) {
    return (size_t)d->dim[d->rank - 1] * tw_dtype_size(d->dtype);
}

void TW_REF(concat)(const tw_ref_call *c) {
    const size_t whole = row_bytes(&c->out_desc[0]);
    char *y = c->out[0];
    for (int i = 0; i < c->n_in; i++) {
        const size_t part = row_bytes(&c->in_desc[i]);
        copy_columns(c, y, whole, c->in[i], part, part, c->dim['.']);
        y += part;
    }
}

void TW_REF(split)(const tw_ref_call *c) {
    const size_t whole = row_bytes(&c->in_desc[0]);
    const char *x = c->in[0];
    for (int i = 0; i < c->n_out; i++) {
        const size_t part = row_bytes(&c->out_desc[i]);
        copy_columns(c, c->out[i], part, x, whole, part, c->dim['.']);
        x += part;
    }
}

void TW_REF(repeat_batch)(const tw_ref_call *c) {
    const size_t bytes = tw_desc_bytes(&c->in_desc[0]);
    memcpy(c->out[0], c->in[0], bytes);
    memcpy((char *)c->out[0] + bytes, c->in[0], bytes);
}

/* Pixels that no input covers (an extent that is no multiple of k) become zero. */
void TW_REF(upsample_nearest)(const tw_ref_call *c) {
    const int64_t h = c->dim['H'], w = c->dim['W'], channels = c->dim['C'];
    const int64_t oh = c->dim['P'], ow = c->dim['Q'], k = c->attr.resample.k;
    const real scale = (real)c->attr.resample.scale, *x = c->in[0];
    real *y = c->out[0];
    TW_PARALLEL(c, c->dim['N'] * oh * ow * channels)
    for (int64_t row = 0; row < c->dim['N'] * oh; row++)
        for (int64_t q = 0; q < ow; q++) {
            const int64_t n = row / oh, i = row % oh / k, j = q / k;
            const bool inside = i < h && j < w;
            const real *in = inside ? x + ((n * h + i) * w + j) * channels : NULL;
            real *out = y + (row * ow + q) * channels;
            for (int64_t e = 0; e < channels; e++) out[e] = inside ? scale * in[e] : 0;
        }
}

void TW_REF(pool)(const tw_ref_call *c) {
    const int64_t h = c->dim['H'], w = c->dim['W'], channels = c->dim['C'];
    const int64_t oh = c->dim['P'], ow = c->dim['Q'], k = c->attr.resample.k;
    const double scale = c->attr.resample.scale;
    const real *x = c->in[0];
    real *y = c->out[0];
    TW_PARALLEL(c, c->dim['N'] * h * w * channels)
    for (int64_t p = 0; p < c->dim['N'] * oh * ow; p++) {
        const int64_t n = p / (oh * ow), i0 = p / ow % oh * k, j0 = p % ow * k;
        for (int64_t e = 0; e < channels; e += TW_TILE) {
            const int64_t en = tw_min_i64(TW_TILE, channels - e);
            double sum[TW_TILE] = {0};
            for (int64_t i = i0; i < i0 + k; i++)
                for (int64_t j = j0; j < j0 + k; j++)
                    TW_REF(accumulate)(sum, 1.0, x + ((n * h + i) * w + j) * channels + e, en);
            for (int64_t c1 = 0; c1 < en; c1++) y[p * channels + e + c1] = (real)(scale * sum[c1]);
        }
    }
}
