// Sums that are split along K: into how many parts, and what becomes of a parameter's gradient,
// which is added to fp32 either from a tile or from the parts.
#pragma once

#include "gemm_epilogue.cuh"
#include "device/launch.cuh"

namespace tw {

// Parts of a sum of `tiles` tiles along K for `blocks` tiles of D, of which a processor holds
// `resident`: those that are done soonest, counted in the time that a resident block needs for one
// tile along K. A part more fills and empties one more pipeline (about four tiles) and takes
// `elements` of fp32 to L2 and back (200,000 of them take as long as a tile), a second kernel to
// start about four.
inline int choose_parts(int64_t blocks, int resident, int tiles, int64_t elements) {
    const int64_t room = (int64_t)resident * device_limits().processors;
    const int64_t whole = ceil_div(blocks, room) * (tiles + 4);
    int best = 1;
    int64_t least = whole;
    for (int64_t waves = 1; waves <= 4; waves++) {
        int64_t parts = smaller<int64_t>(smaller(waves * room / blocks, (int64_t)tiles), 256);
        for (; parts > 1; parts /= 2) {
            const int64_t cost =
                ceil_div(blocks * parts, room) * (ceil_div<int64_t>(tiles, parts) + 4) +
                parts * elements / 200000 + 4;
            if (cost < least) least = cost, best = (int)parts;
        }
    }
    return best;
}

// out[i] += scale * the sum of slices[s][i] over s, for each of a batch of matrices.
struct SliceSum {
    float *out;
    const float *slices; // [batch][splits][elements]
    int64_t elements, out_batch;
    int splits;
};
// One launch for two sums, the second of which may have no elements.
twk_status add_slices(const SliceSum &first, const SliceSum &second, float scale, int64_t batch,
                      twk_stream stream);

// out += scale d; d is [count][LD] in shared memory, its first element that of (row0, column0).
template <int BN, int LD, typename TEAM = WholeBlock>
TW_DEVICE void add_tile(float *out, int rows, int columns, float scale, const float *d, int count,
                        int row0, int column0, TEAM team = {}) {
    for (int i = (int)threadIdx.x; i < count * BN; i += team.threads()) {
        const int row = row0 + i / BN, column = column0 + i % BN;
        if (row < rows && column < columns)
            out[(int64_t)row * columns + column] += scale * d[i / BN * LD + i % BN];
    }
}

} // namespace tw
