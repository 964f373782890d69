/* The providers of the CPU. */
#ifndef TW_BACKEND_CPU_H
#define TW_BACKEND_CPU_H

#include "backend/provider.h"

/* Every operation in plain C, float32 or float64 by its operands; the oracle of the others. */
extern const tw_provider tw_provider_cpu_reference;

/* Operations in float32 that the reference computes more slowly. */
extern const tw_provider tw_provider_cpu_fast;

/* Convolutions and matrix products in float32. Only in a build with oneDNN. */
extern const tw_provider tw_provider_cpu_onednn;

#endif
