/* The run state of noise and the tables of coefficients, as the operations read them. */
#ifndef TW_BACKEND_CPU_REF_TABLE_H
#define TW_BACKEND_CPU_REF_TABLE_H

#include "backend/cpu/ref.h"
#include "core/philox.h"

/* The key of sample n of the batch; rng = {seed, index of the first sample, step, 0}. */
static inline tw_philox_key tw_ref_key(const int64_t *rng, int64_t n, uint32_t purpose) {
    return (tw_philox_key){(uint64_t)rng[0], (uint64_t)(rng[1] + n), purpose, (uint32_t)rng[2]};
}

/* Element i of an input that is float32 or float64 whatever the precision. */
static inline double tw_ref_table_at(const tw_ref_call *c, int input, int64_t i) {
    if (c->in_desc[input].dtype == TW_F64) return ((const double *)c->in[input])[i];
    return (double)((const float *)c->in[input])[i];
}

#endif
