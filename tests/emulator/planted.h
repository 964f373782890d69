#pragma once
#include "../../kernels/kernels.h"

twk_status planted_neighbour(const int *in, int *out, int n, int barrier, int reach);
twk_status planted_past_end(const int *in, int *out, int n, int shared_past, int global_past);
twk_status planted_staged(const float *in, float *out, int n, int commit, int wait, int barrier);
twk_status planted_mask(uint32_t *out, int n, int fault);
twk_status planted_divergent(int *out, int n, int fault);
twk_status planted_turns(int *out, int n, int second);
twk_status planted_exchange(int *out, int blocks, int n, int cluster, int linger);
twk_status planted_count(uint32_t *count, uint32_t *largest, int blocks, int n);
twk_status planted_collide(int *out);
twk_status planted_shared_too_small(const int *in, int *out, int n);
// A warp copies, another reads: 1 it does not wait, 2 with the wrong parity, 3 one lane never
// arrives, 4 nobody made the barrier, 5 the place is not given back before it is filled again.
twk_status planted_ring(const float *in, float *out, int fault);
// d[64][128] = a[64][32] b[128][32]^T in bf16, or with columns a[32][64]^T b[32][128], by wgmma.
enum class PlantedProduct {
    none,
    no_copy_wait,
    no_proxy_fence,
    no_barrier,
    no_fence,
    no_wait,
    no_commit,
    d_touched,
    tile_overwritten,
    wrong_stride,
    wrong_leading,
    wrong_swizzle,
    misaligned,
    warp_left_out,
    lane_left_out,
    other_product,
};
twk_status planted_product(const uint16_t *a, const uint16_t *b, float *d, int columns,
                           PlantedProduct fault);
