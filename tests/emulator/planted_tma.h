#pragma once
#include "../../kernels/kernels.h"

// d[64][256] = a[64][64 steps] b[256][64 steps]^T in bf16, tiles brought by TMA through a ring of
// two by one thread and multiplied by one warpgroup.
enum class PlantedTma {
    none,
    stored_and_fenced, // right: the tile is stored anew by the threads that multiply it
    no_wait,
    wrong_parity,
    bytes_more,
    bytes_fewer,
    no_expect,
    every_lane,
    missing_arrival,
    early_overwrite,
    early_release,
    no_init_fence,
    misaligned,
    past_the_end, // of what was taken
    stored,       // and not fenced
    box_over_stores,
    left_coming,
    too_many_registers,
    one_warp_keeps_registers,
    fewer_taken,
};
twk_status planted_tma(const void *a, const void *b, float *d, int steps, PlantedTma fault);

// Each block of a cluster of two brings half of 256 numbers and gives it to both; sums[block].
enum class PlantedCluster { none, no_init_fence, no_cluster_sync, no_remote_arrival, leaves_early };
twk_status planted_cluster_tma(const void *numbers, float *sums, PlantedCluster fault);

// Two groups of 64 threads meet four times each.
enum class PlantedGroups { none, missing, other_count, no_barrier };
twk_status planted_groups(int *out, PlantedGroups fault);
