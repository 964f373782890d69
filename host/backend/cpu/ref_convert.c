/* Fills and conversions between formats. Half formats are rounded from the nearest float32. */
#include "backend/cpu/ref.h"
#include "core/halfs.h"

static double load(const void *p, tw_dtype dtype, int64_t i) {
    switch (dtype) {
    case TW_F32:
        return (double)((const float *)p)[i];
    case TW_F64:
        return ((const double *)p)[i];
    case TW_BF16:
        return (double)tw_bf16_to_f32(((const uint16_t *)p)[i]);
    case TW_F16:
        return (double)tw_f16_to_f32(((const uint16_t *)p)[i]);
    case TW_I32:
        return (double)((const int32_t *)p)[i];
    case TW_I64:
        return (double)((const int64_t *)p)[i];
    default:
        return (double)((const uint8_t *)p)[i];
    }
}

/* Towards zero, saturating; NaN becomes 0. */
static int64_t to_integer(double x, int64_t low, int64_t high) {
    if (x != x) return 0;
    if (x <= (double)low) return low;
    if (x >= (double)high) return high;
    return (int64_t)x;
}

static void store(void *p, tw_dtype dtype, int64_t i, double x) {
    switch (dtype) {
    case TW_F32:
        ((float *)p)[i] = (float)x;
        break;
    case TW_F64:
        ((double *)p)[i] = x;
        break;
    case TW_BF16:
        ((uint16_t *)p)[i] = tw_f32_to_bf16((float)x);
        break;
    case TW_F16:
        ((uint16_t *)p)[i] = tw_f32_to_f16((float)x);
        break;
    case TW_I32:
        ((int32_t *)p)[i] = (int32_t)to_integer(x, INT32_MIN, INT32_MAX);
        break;
    case TW_I64:
        ((int64_t *)p)[i] = to_integer(x, INT64_MIN, INT64_MAX);
        break;
    default:
        ((uint8_t *)p)[i] = (uint8_t)to_integer(x, 0, 255);
        break;
    }
}

void TW_REF(fill)(const tw_ref_call *c) {
    const int64_t count = c->dim['.'];
    if (c->attr.fill.value == 0 && !signbit(c->attr.fill.value)) { /* all bits, in every format */
        memset(c->out[0], 0, tw_desc_bytes(&c->out_desc[0]));
        return;
    }
    TW_PARALLEL(c, count)
    for (int64_t i = 0; i < count; i++)
        store(c->out[0], c->out_desc[0].dtype, i, c->attr.fill.value);
}

void TW_REF(convert)(const tw_ref_call *c) {
    const int64_t count = c->dim['.'];
    const tw_dtype from = c->in_desc[0].dtype, to = c->out_desc[0].dtype;
    if (from == to) {
        memcpy(c->out[0], c->in[0], tw_desc_bytes(&c->in_desc[0]));
        return;
    }
    TW_PARALLEL(c, count)
    for (int64_t i = 0; i < count; i++) store(c->out[0], to, i, load(c->in[0], from, i));
}
