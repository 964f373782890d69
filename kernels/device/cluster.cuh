// Clusters of blocks and each other's shared memory (sm_90 and later; one block alone before).
#pragma once

#include "platform.cuh"

#ifndef TW_EMULATOR
#include <cooperative_groups.h>

namespace tw {

#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
TW_DEVICE unsigned cluster_rank() {
    return cooperative_groups::this_cluster().block_rank();
}
TW_DEVICE unsigned cluster_size() {
    return cooperative_groups::this_cluster().num_blocks();
}
TW_DEVICE void sync_cluster() {
    cooperative_groups::this_cluster().sync();
}
template <typename T> TW_DEVICE T *cluster_map(T *shared, unsigned rank) {
    return cooperative_groups::this_cluster().map_shared_rank(shared, (int)rank);
}
#else
TW_DEVICE unsigned cluster_rank() {
    return 0;
}
TW_DEVICE unsigned cluster_size() {
    return 1;
}
TW_DEVICE void sync_cluster() {
    __syncthreads();
}
template <typename T> TW_DEVICE T *cluster_map(T *shared, unsigned) {
    return shared;
}
#endif

} // namespace tw
#endif
