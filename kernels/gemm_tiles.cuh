// Which of the large tiles a product gets, for the launchers.
#pragma once

#include "device/launch.cuh"

namespace tw {

inline bool is_large(twk_tile tile) {
    return tile == TWK_TILE_128X128 || tile == TWK_TILE_128X128_WGMMA;
}

// 128 x 128 or 64 x 64, for aligned operands of which the large tile makes `blocks`. Through
// mma.sync it wants a block on nine processors of ten: less, and four times the blocks of a quarter
// the size are done sooner. By wgmma a block alone on its processor does about as much as four of
// those: it wants four of ten.
inline twk_tile large_tile(twk_format format, int64_t blocks) {
    const Limits limits = device_limits();
    const bool wgmma = limits.wgmma && format != TWK_F32;
    if (10 * blocks < (wgmma ? 4 : 9) * (int64_t)limits.processors) return TWK_TILE_64X64;
    return wgmma ? TWK_TILE_128X128_WGMMA : TWK_TILE_128X128;
}

} // namespace tw
