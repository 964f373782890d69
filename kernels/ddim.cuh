// The arithmetic of a DDIM step that the update and the dynamic threshold share.
#pragma once

#include "kernels.h"
#include "device/math.cuh"

namespace tw {

twk_status check_ddim(const twk_ddim_args *a);

// Row of the coefficient table for a sample.
template <typename ARGS> TW_DEVICE int64_t row_of(const ARGS &a, int64_t sample) {
    int64_t row = a.row_index ? a.row_index[sample] : a.counter ? (int64_t)*a.counter : 0;
    row = row < 0 ? 0 : row;
    return row < a.n_rows ? row : a.n_rows - 1;
}

// A row of a table whose rows lie `stride` words apart; 0: side by side.
template <typename ROW> TW_DEVICE const ROW *row_at(const ROW *rows, int64_t row, int64_t stride) {
    return stride
               ? reinterpret_cast<const ROW *>(reinterpret_cast<const float *>(rows) + row * stride)
               : rows + row;
}

struct DdimStep {
    float sqrt_a_t, sqrt_b_t, inv_sqrt_a_t, inv_sqrt_b_t; // b = 1 - A
    float sqrt_a_p, sqrt_b_p, sigma, direction;
    uint32_t noise_step;
};

TW_DEVICE DdimStep ddim_step(const twk_ddim_args &a, int64_t sample) {
    const twk_ddim_row r = *row_at(a.rows, row_of(a, sample), a.row_stride);
    DdimStep s;
    s.sqrt_a_t = sqrtf(r.a_t);
    s.sqrt_b_t = sqrtf(r.one_minus_a_t);
    s.inv_sqrt_a_t = 1.0f / s.sqrt_a_t;
    s.inv_sqrt_b_t = 1.0f / s.sqrt_b_t;
    s.sqrt_a_p = sqrtf(r.a_p);
    s.sqrt_b_p = sqrtf(r.one_minus_a_p);
    s.noise_step = r.noise_step;
    s.sigma = 0.0f;
    s.direction = s.sqrt_b_p;
    if (r.eta > 0.0f && r.one_minus_a_t > 0.0f) {
        const float share = r.one_minus_a_p / r.one_minus_a_t;
        s.sigma = r.eta * sqrtf(share) * sqrtf(fmaxf(r.one_minus_ratio, 0.0f));
        // 1 - A_p - sigma^2, written as (1 - A_p) times a sum of positive terms (eta <= 1): the
        // difference itself would lose its digits where eta is 1 and p is close to t.
        const float eta2 = r.eta * r.eta;
        const float left = (1.0f - r.eta) * (1.0f + r.eta) + eta2 * (r.a_t / r.a_p) * share;
        s.direction = s.sqrt_b_p * sqrtf(fmaxf(left, 0.0f));
    }
    return s;
}

// x0 and epsilon from x_t and the prediction m.
TW_DEVICE void predict(const DdimStep &s, twk_prediction kind, float x, float m, float *x0,
                       float *e) {
    if (kind == TWK_PREDICT_SAMPLE) {
        *x0 = m;
        *e = (x - s.sqrt_a_t * m) * s.inv_sqrt_b_t;
    } else if (kind == TWK_PREDICT_V) {
        *x0 = s.sqrt_a_t * x - s.sqrt_b_t * m;
        *e = s.sqrt_a_t * m + s.sqrt_b_t * x;
    } else {
        *e = kind == TWK_PREDICT_SCORE ? -s.sqrt_b_t * m : m;
        *x0 = (x - s.sqrt_b_t * *e) * s.inv_sqrt_a_t;
    }
}

} // namespace tw
