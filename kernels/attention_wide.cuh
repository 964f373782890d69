// Heads of more than 128 channels, whose sums do not fit beside the scores into the registers of a
// warp that owns whole rows. Four or eight warps share BM rows: for the scores, 64 columns at a
// time, each owns some rows and columns; for the sums, each owns channels of many rows. The weights
// go from one to the other through shared memory, a slice of 16 columns (tf32: 8) at a time, as the
// fragments that the second product wants.
//
// x stays in shared memory. All else passes through a ring of stages of 8 KB, one barrier each:
//
//      for every 64 columns:   y, a panel of channels at a time       (64 rows of 128 bytes)
//                              z, a slice, 256 channels at a time     (16 rows of 512 bytes, or 8
//                                                                      of 1024)
#pragma once

#include "attention.cuh"

namespace tw {

template <typename MATH, int D_, int BM_> struct Wide {
    static constexpr int d = D_, bm = BM_, bn = 64;
    // 128 sums a thread, or 64.
    static constexpr int warps = larger(4, bm *d / 4096), threads = 32 * warps;
    static constexpr int blocks = 8 / warps; // a processor
    // Scores: warps beside each other, fragments a warp.
    static constexpr int s_across = 16 * warps > 2 * bm || (warps == 8 && bm == 64) ? 4 : 2;
    static constexpr int s_rows = bm * s_across / warps;
    static constexpr int s_m = s_rows / 16, s_n = bn / s_across / 8;
    // Sums: the same in each slab of 256 channels.
    static constexpr int slabs = d / 256, o_down = bm == 128 ? 2 : 1, o_across = warps / o_down;
    static constexpr int o_rows = bm / o_down, o_m = o_rows / 16, o_n = 256 / o_across / 8;
    static constexpr int stages = 3, stage_bytes = 8192;
    static constexpr int slice = step_elements<MATH>, slice_bytes = bm * 32; // columns at a time
    static constexpr int tile_bytes = TokenTile<MATH, d>::bytes(bm);
    // Of y and z in a stage: channels of a panel, bytes between the panels of a slice.
    static constexpr int per_panel = TokenTile<MATH, d>::per_panel, slice_panel = slice * 128;
    // A warp's sums in a slab, those of one panel together.
    static constexpr int part_n = smaller(o_n, per_panel / 8), parts = o_n / part_n;

    static TW_DEVICE int warp() { return (int)threadIdx.x / 32; }
    static TW_DEVICE int s_row() { return warp() / s_across * s_rows; }
    static TW_DEVICE int s_column() { return warp() % s_across * s_n * 8; }
    static TW_DEVICE int o_row() { return warp() / o_across * o_rows; }
    static TW_DEVICE int o_column(int part) { // of a slab
        return (warp() % o_across * o_n + part * part_n) * 8;
    }
};

// The stages in the order they are used: per 64 columns, panels of y1, panels of y2 where `second`,
// slices of z, each as many as there are.
template <typename T, typename WIDE> class WideRing {
    using S = Stored<T>;

  public:
    TW_DEVICE WideRing(unsigned char *memory, HeadRows<S> y1, HeadRows<S> y2, HeadRows<S> z,
                       bool second, int columns, int channels)
        : memory_(memory), y1_(y1), y2_(y2), z_(z), columns_(columns), channels_(channels),
          panels_(ceil_div(channels, WIDE::per_panel)), scores_(second ? 2 * panels_ : panels_) {}

    // Once, after whatever else is to arrive with the first stage.
    TW_DEVICE void start() {
        for (int i = 0; i < WIDE::stages - 1; i++) fetch();
    }
    // The next stage. Everyone is done with the one before it, which is filled again.
    TW_DEVICE const unsigned char *next() {
        copy_async_wait<WIDE::stages - 2>();
        sync_block();
        fetch();
        const unsigned char *const stage = memory_ + from_ * WIDE::stage_bytes;
        from_ = from_ == WIDE::stages - 1 ? 0 : from_ + 1;
        return stage;
    }
    TW_DEVICE int panels() const { return panels_; }
    // Slices of the 64 columns from `first` on.
    TW_DEVICE int slices(int first) const {
        return smaller(WIDE::bn / WIDE::slice, ceil_div(columns_ - first, WIDE::slice));
    }

  private:
    TW_DEVICE void fetch() {
        if (first_ < columns_) {
            unsigned char *const stage = memory_ + to_ * WIDE::stage_bytes;
            if (step_ < panels_)
                fetch_panel(stage, y1_, step_);
            else if (step_ < scores_)
                fetch_panel(stage, y2_, step_ - panels_);
            else
                fetch_slice(stage, step_ - scores_);
            if (++step_ == scores_ + slices(first_) * WIDE::slabs) {
                step_ = 0;
                first_ += WIDE::bn;
            }
        }
        to_ = to_ == WIDE::stages - 1 ? 0 : to_ + 1;
        copy_async_commit(); // empty ones keep the count
    }
    TW_DEVICE void fetch_panel(unsigned char *stage, const HeadRows<S> &y, int panel) const {
        const int row = (int)threadIdx.x / 8, chunk = (int)threadIdx.x % 8;
        const int channel = panel * WIDE::per_panel + chunk * per_16<S>;
#pragma unroll
        for (int r = row; r < row + 64; r += WIDE::threads / 8)
            copy_async_16(stage + swizzled<128>((unsigned)r, (unsigned)chunk),
                          y.data + (first_ + r) * y.row + channel,
                          first_ + r < columns_ && channel < channels_ ? 16 : 0);
    }
    TW_DEVICE void fetch_slice(unsigned char *stage, int step) const {
        constexpr int across = 256 / per_16<S>;
        const int row = (int)threadIdx.x / across, chunk = (int)threadIdx.x % across;
        const int first = first_ + step / WIDE::slabs * WIDE::slice;
        const int channel = step % WIDE::slabs * 256 + chunk * per_16<S>;
#pragma unroll
        for (int r = row; r < row + WIDE::slice; r += WIDE::threads / across)
            copy_async_16(stage + chunk / 8 * WIDE::slice_panel +
                              swizzled<128>((unsigned)r, (unsigned)chunk % 8),
                          z_.data + (first + r) * z_.row + channel,
                          first + r < columns_ && channel < channels_ ? 16 : 0);
    }

    unsigned char *memory_;
    const HeadRows<S> y1_, y2_, z_;
    const int columns_, channels_, panels_, scores_;
    int first_ = 0, step_ = 0, to_ = 0, from_ = 0; // of the columns and of the ring
};

// The sums of a warp over its channels.
template <typename WIDE>
using WideSums = FragmentC[WIDE::slabs * WIDE::parts][WIDE::o_m][WIDE::part_n];

// s += x y^T over all channels.
template <typename T, typename WIDE>
TW_DEVICE void add_wide_scores(FragmentC (&s)[WIDE::s_m][WIDE::s_n], const unsigned char *x,
                               WideRing<T, WIDE> &ring, const LaneRows<128> &at) {
#pragma unroll 1
    for (int p = 0; p < ring.panels(); p++) {
        const unsigned char *const y = ring.next() + WIDE::s_column() * 128;
        add_scores<T, WIDE::per_panel, WIDE::bm, WIDE::bn>(
            s, x + (p * WIDE::bm + WIDE::s_row()) * 128, y, at);
    }
}

// sums += w z for the weights of the 64 columns from `first` on. `shared` holds two slices.
template <typename T, typename WIDE>
TW_DEVICE void add_wide_weighted(WideSums<WIDE> &sums, const FragmentC (&w)[WIDE::s_m][WIDE::s_n],
                                 int first, unsigned char *shared, WideRing<T, WIDE> &ring,
                                 const LaneRows<128> &at) {
    constexpr int mine = WIDE::s_n * 8 / WIDE::slice; // slices whose weights this warp has
    const int lane = (int)threadIdx.x % 32, slices = ring.slices(first);
    FragmentA packed[mine][WIDE::s_m];
#pragma unroll
    for (int b = 0; b < mine; b++) pack_weights<T>(packed[b], w, b);
    const auto fragment = [&](int slice, int row, int i) {
        return reinterpret_cast<Bytes16 *>(shared + slice % 2 * WIDE::slice_bytes) +
               (row / 16 + i) * 32 + lane;
    };
    const auto share = [&](int slice) {
#pragma unroll
        for (int b = 0; b < mine; b++)
            if (WIDE::warp() % WIDE::s_across * mine + b == slice) {
#pragma unroll
                for (int i = 0; i < WIDE::s_m; i++) {
                    const uint32_t *const a = packed[b][i].word;
                    *fragment(slice, WIDE::s_row(), i) = Bytes16{{a[0], a[1], a[2], a[3]}};
                }
            }
    };
    share(0);
#pragma unroll 1
    for (int slice = 0; slice < slices; slice++) {
#pragma unroll
        for (int slab = 0; slab < WIDE::slabs; slab++) {
            const unsigned char *const z = ring.next();
            if (slab == 0 && slice + 1 < slices) share(slice + 1);
            FragmentA a[WIDE::o_m];
#pragma unroll
            for (int i = 0; i < WIDE::o_m; i++) {
                const Bytes16 v = *fragment(slice, WIDE::o_row(), i);
                a[i] = FragmentA{{v.word[0], v.word[1], v.word[2], v.word[3]}};
            }
#pragma unroll
            for (int part = 0; part < WIDE::parts; part++) {
                const int column = WIDE::o_column(part);
                FragmentB b[WIDE::part_n];
                load_turned<T>(b, z + column / WIDE::per_panel * WIDE::slice_panel, at,
                               column % WIDE::per_panel / 8);
                multiply_tile<T>(sums[slab * WIDE::parts + part], a, b);
            }
        }
    }
}

// Writes the block's rows, each times its factor, through the tile of x. Everyone is done with
// that.
template <typename T, typename WIDE>
TW_DEVICE void leave_wide(Stored<T> *to, int64_t stride, unsigned char *tile,
                          const WideSums<WIDE> &sums, const float (&factor)[WIDE::o_m][2], int rows,
                          int channels) {
#pragma unroll
    for (int i = 0; i < WIDE::slabs * WIDE::parts; i++) {
        const int column = i / WIDE::parts * 256 + WIDE::o_column(i % WIDE::parts);
        lay_down<T, 128>(tile + (column / WIDE::per_panel * WIDE::bm + WIDE::o_row()) * 128,
                         column % WIDE::per_panel / 8, sums[i], factor);
    }
    sync_block();
    write_tokens<T, WIDE::d, WIDE::bm, WIDE::bm>(to, stride, tile, rows, channels, (int)threadIdx.x,
                                                 WIDE::threads);
}

} // namespace tw
