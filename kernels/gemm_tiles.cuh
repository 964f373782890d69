// Which of the large tiles a product gets and in how many parts its sums are split, for the
// launchers.
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

// Whether TWK_TILE_128X256_TMA is ever chosen by the shape.
constexpr bool specialised_tiles = true;

// Cycles that a product is predicted to take by each kind of tile, for the choice alone; README.md
// has the rates. `count` tiles of D, their sums in `splits` parts of `steps` tiles along K in all;
// D has `elements`.
inline int64_t gather_cycles(int splits, int64_t elements) {
    return splits == 1 ? 0 : 4000 + 8 * splits * elements / 5120; // to L2 and back
}
// In a cluster: two barriers, and what its blocks read from each other, 12 bytes a cycle and
// processor (14 have been reported for pairs, fewer for more); `sums` of a tile, of which a
// processor finishes `together`.
inline int64_t cluster_gather_cycles(int blocks, int64_t together, int64_t sums) {
    return blocks == 1 ? 0 : 1000 + together * sums * 4 * (blocks - 1) / blocks / 12;
}
// 64 along K are 1024 cycles and a ninth for what is not counted, and a tile is finished in about
// 4500, for which nothing is multiplied. Where blocks share nothing L2 takes 1264 and goes on while
// a tile is finished; a tenth for the rest. The last tile holds everything up. Of half a tile,
// which is shared too, 64 along K take what shared memory does: 80 KB, 640 cycles.
inline int64_t specialised_cycles(int64_t count, int steps, int splits, int64_t elements,
                                  bool shared, bool narrow = false) {
    const int64_t rounds = ceil_div<int64_t>(count * splits, device_limits().processors);
    const int64_t along_k = ceil_div(steps, splits);
    if (narrow) return rounds * (710 * along_k + 2250) + 4000 + gather_cycles(splits, elements);
    const int64_t alone = larger(1264 * along_k, 1024 * along_k + 4000) + 1000;
    return rounds * (shared ? 1140 * along_k + 4500 : alone * 11 / 10) + 4000 +
           gather_cycles(splits, elements);
}

// Parts of a sum, added up by a second kernel or by the blocks of a cluster.
struct Parts {
    int count;
    bool clustered;
    int blocks() const { return clustered ? count : 1; } // of a cluster
    int slices() const { return clustered ? 1 : count; } // in the workspace
};

// 128 x 128 by wgmma, two on a processor, or 64 x 64, four: one is finished while others multiply.
// Clusters of four and eight leave one processor in 33 alone: GPCs have 16 or 18.
inline int64_t shared_cycles(bool large, int64_t count, int steps, const Parts &parts,
                             int64_t elements) {
    int64_t processors = device_limits().processors;
    if (parts.blocks() > 2) processors -= processors / 33;
    const int64_t all = count * parts.count, resident = large ? 2 : 4;
    const int64_t rounds = ceil_div(all, resident * processors);
    const int64_t together = smaller(resident, ceil_div(all, processors));
    const int64_t step = large ? (together == 1 ? 570 : 850) : larger<int64_t>(250, 160 * together);
    const int64_t gather = cluster_gather_cycles(parts.blocks(), together, large ? 16384 : 4096);
    return rounds * (step * ceil_div(steps, parts.count) + 1500 + gather) +
           gather_cycles(parts.slices(), elements);
}

// Whether a cluster may add up so many parts.
inline bool cluster_adds(int parts) {
    return (parts == 2 || parts == 4 || parts == 8) && parts <= (int)device_limits().cluster;
}

// The parts that take least time: `slices` through the workspace, none, or those of a cluster, each
// with at least four tiles along K.
inline Parts best_parts(bool large, int64_t count, int steps, int slices, int64_t elements) {
    Parts best = {slices, false};
    if (device_limits().cluster < 2) return best;
    int64_t least = shared_cycles(large, count, steps, best, elements);
    for (int blocks : {1, 2, 4, 8}) {
        if (blocks > 1 && (!cluster_adds(blocks) || 4 * blocks > steps)) break;
        const Parts parts = {blocks, true};
        const int64_t cycles = shared_cycles(large, count, steps, parts, elements);
        if (cycles < least) least = cycles, best = parts;
    }
    return best;
}

// As many as are wanted and none is empty.
inline int filled_parts(int wanted, int steps) {
    return ceil_div(steps, ceil_div(steps, smaller(smaller(wanted, steps), 65535)));
}

// As many as are asked for, by a cluster where it may.
inline Parts parts_asked_for(int wanted, int steps) {
    if (cluster_adds(wanted) && wanted <= steps) return {wanted, true};
    return {filled_parts(wanted, steps), false};
}

// Parts of a sum of `steps` tiles along K by TWK_TILE_128X256_TMA that take least time.
inline int specialised_splits(int64_t count, int steps, int64_t elements, bool narrow) {
    int best = 1;
    int64_t least = specialised_cycles(count, steps, 1, elements, true, narrow);
    for (int s = 2; s <= smaller(16, steps / 4); s++) {
        const int64_t cycles = specialised_cycles(count, steps, s, elements, true, narrow);
        if (cycles < least) least = cycles, best = s;
    }
    return best;
}

// The same where tiles are few and sums long, up to 256 parts: those that fill the processors once,
// twice, ...
inline int specialised_parts(int64_t count, int steps, int64_t elements) {
    const int64_t processors = device_limits().processors;
    int best = 1;
    int64_t least = specialised_cycles(count, steps, 1, elements, false);
    for (int64_t rounds = 1; rounds <= 6; rounds++) {
        const int parts =
            (int)smaller<int64_t>(smaller<int64_t>(rounds * processors / count, 256), steps / 4);
        if (parts <= best) continue;
        const int64_t cycles = specialised_cycles(count, steps, parts, elements, false);
        if (cycles < least) least = cycles, best = parts;
    }
    return best;
}

} // namespace tw
