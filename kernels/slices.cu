// The parts of split sums, added up in one order.
#include "slices.cuh"
#include "device/vec.cuh"

namespace tw {
namespace {

constexpr int slice_threads = 256, slice_warps = slice_threads / 32;
constexpr int slice_elements = 128; // a block's: a vector of four for every lane

struct SliceWork {
    SliceSum sum[2];
    int wide[2]; // every slice starts at a multiple of 16 bytes
    int64_t first_blocks;
    float scale;
};

template <bool WIDE>
TW_DEVICE void add_every_eighth(const SliceSum &sum, const float *from, int64_t at, float (&v)[4]) {
    const int count = (int)smaller<int64_t>(4, sum.elements - at);
    if (count <= 0) return;
#pragma unroll 4
    for (int s = (int)threadIdx.x / 32; s < sum.splits; s += slice_warps) {
        float part[4];
        load<WIDE>(from + s * sum.elements + at, count, part);
#pragma unroll
        for (int i = 0; i < 4; i++) v[i] += part[i];
    }
}

// Work: a block owns 128 elements of one sum. Its warps add every eighth slice each, then the
// threads those eight sums, first to last. Limit: L2, which holds the slices; latency where they
// are small.
__global__ void __launch_bounds__(slice_threads) slices_kernel(const SliceWork work) {
    TW_SHARED(arena);
    float *parts = arena.take<float>(slice_warps * slice_elements);
    const bool second = blockIdx.x >= work.first_blocks;
    const SliceSum sum = second ? work.sum[1] : work.sum[0]; // no index: it would be copied
    const int64_t block = (int64_t)blockIdx.x - (second ? work.first_blocks : 0);
    const int64_t first = block * slice_elements, batch = blockIdx.y;
    const int64_t at = first + threadIdx.x % 32 * 4;
    const float *const from = sum.slices + batch * sum.splits * sum.elements;
    float v[4] = {};
    if (second ? work.wide[1] : work.wide[0])
        add_every_eighth<true>(sum, from, at, v);
    else
        add_every_eighth<false>(sum, from, at, v);
#pragma unroll
    for (int i = 0; i < 4; i++) parts[threadIdx.x * 4 + i] = v[i];
    sync_block();
    const int64_t mine = first + threadIdx.x;
    if (threadIdx.x >= slice_elements || mine >= sum.elements) return;
    float total = parts[threadIdx.x];
    for (int w = 1; w < slice_warps; w++) total += parts[w * slice_elements + threadIdx.x];
    sum.out[batch * sum.out_batch + mine] += work.scale * total;
}

} // namespace

twk_status add_slices(const SliceSum &first, const SliceSum &second, float scale, int64_t batch,
                      twk_stream stream) {
    SliceWork work = {
        {first, second}, {}, ceil_div<int64_t>(first.elements, slice_elements), scale};
    for (int i = 0; i < 2; i++)
        work.wide[i] = work.sum[i].elements % 4 == 0 && aligned_16(work.sum[i].slices);
    LaunchConfig config;
    const int64_t blocks = work.first_blocks + ceil_div<int64_t>(second.elements, slice_elements);
    if (batch > 65535 || !grid_for(blocks, 1, &config.grid))
        return fail(TWK_UNSUPPORTED, "split sum: more elements than a grid can hold");
    config.grid.y = (unsigned)batch;
    config.block = dim3(slice_threads);
    config.shared = shared_bytes<float>(slice_warps * slice_elements);
    config.stream = stream;
    return TW_LAUNCH(slices_kernel, config, work);
}

} // namespace tw
