// Convolutions from and to very few channels.
#include "conv_few.cuh"

namespace tw {
namespace {

constexpr int few_threads = 128;

template <typename MATH, int M> TW_DEVICE void round_words(uint32_t (&word)[M]) {
    if constexpr (std::is_same<MATH, tf32>::value) {
#pragma unroll
        for (int i = 0; i < M; i++) word[i] = to_tf32(word[i]);
    }
}

// ---- from few channels --------------------------------------------------------------------------

// Where an element along K lies beside the first tap's first, and its tap.
struct Along {
    int offset, tap;
};

template <typename T> TW_DEVICE uint32_t bits_of(const T *p) {
    using Bits = std::conditional_t<sizeof(T) == 4, uint32_t, uint16_t>;
    return *reinterpret_cast<const Bits *>(p);
}

// The words of a row of A: steps along K of 8 words each, and 4 more, so that eight rows start in
// different banks.
TW_BOTH int few_steps(int k, int per_word) {
    return ceil_div(k, 8 * per_word);
}
TW_BOTH int few_row_words(int k, int per_word) {
    return 8 * few_steps(k, per_word) + 4;
}

// Brings what pixel m sees under its taps to `row`.
template <typename MATH>
TW_DEVICE void fetch_few_row(const ConvInput &in, const Along *along, int m, uint32_t *row) {
    using T = typename StorageOf<MATH>::Type;
    constexpr int per_word = 4 / (int)sizeof(T);
    int64_t first = 0; // element under the first tap, where there is one
    uint32_t taps = 0; // that lie in the image
    if (m < in.rows) {
        const int line = m / in.out_w, sample = line / in.out_h;
        const int top = (line - sample * in.out_h) * in.stride - in.pad_top;
        const int left = (m - line * in.out_w) * in.stride - in.pad_left;
        first = (((int64_t)sample * in.h + top) * in.w + left) * in.channels;
        uint32_t columns = 0;
        for (int s = 0; s < in.kernel_w; s++)
            if ((unsigned)(left + s) < (unsigned)in.w) columns |= 1u << s;
        for (int r = 0; r < in.kernel_h; r++)
            if ((unsigned)(top + r) < (unsigned)in.h) taps |= columns << r * in.kernel_w;
    }
    const T *const x = static_cast<const T *>(in.x);
    const int words = 8 * few_steps(in.k, per_word);
#pragma unroll 8
    for (int w = 0; w < words; w++) {
        uint32_t word[1] = {};
#pragma unroll
        for (int e = 0; e < per_word; e++) {
            const Along at = along[w * per_word + e];
            if (taps >> at.tap & 1u) word[0] |= bits_of(x + first + at.offset) << 16 * e;
        }
        round_words<MATH>(word);
        row[w] = word[0];
    }
}

// Lays down the weights of few_inputs_bn channels out as rows like those, zeros where none are.
template <typename MATH>
TW_DEVICE void lay_few_columns(const ConvInput &in, int column0, uint32_t *to) {
    using T = typename StorageOf<MATH>::Type;
    static_assert(2 * few_inputs_bn == few_threads, "two threads a row");
    constexpr int per_word = 4 / (int)sizeof(T);
    const int own = (int)threadIdx.x / 2, row_words = few_row_words(in.k, per_word);
    const int words = 8 * few_steps(in.k, per_word);
    const int there = column0 + own < in.out_channels ? in.k : 0;
    const T *const from = static_cast<const T *>(in.weight) + (int64_t)(column0 + own) * in.k;
#pragma unroll 4
    for (int w = (int)threadIdx.x % 2; w < words; w += 2) {
        uint32_t word[1] = {};
#pragma unroll
        for (int e = 0; e < per_word; e++)
            if (w * per_word + e < there) word[0] |= bits_of(from + w * per_word + e) << 16 * e;
        round_words<MATH>(word);
        to[own * row_words + w] = word[0];
    }
}

constexpr int few_inputs_ld = few_inputs_bn + 8;

// D of a warp's 32 rows, of which `rows` and `d` are the first; `weights` as laid down.
template <typename MATH> struct FewProduct {
    static constexpr int n = few_inputs_bn / 8;
    FragmentC c[2][n] = {};

    TW_DEVICE void add(const uint32_t *rows, const uint32_t *weights, int row_words, int step) {
        const int lane = (int)threadIdx.x % 32;
        const uint32_t *const a_from = rows + lane % 16 * row_words + lane / 16 * 4 + 8 * step;
        const uint32_t *const b_from =
            weights + (lane % 8 + lane / 16 * 8) * row_words + lane / 8 % 2 * 4 + 8 * step;
        FragmentA a[2];
        FragmentB b[n];
#pragma unroll
        for (int i = 0; i < 2; i++) load_matrices(a[i].word, a_from + 16 * i * row_words);
#pragma unroll
        for (int j = 0; j < n; j += 2) {
            uint32_t two[4];
            load_matrices(two, b_from + 8 * j * row_words);
            b[j] = FragmentB{{two[0], two[1]}};
            b[j + 1] = FragmentB{{two[2], two[3]}};
        }
        multiply_tile<MATH>(c, a, b);
    }

    TW_DEVICE void lay_down(float *d) const {
        const int lane = (int)threadIdx.x % 32;
        float *const to = d + lane / 4 * few_inputs_ld + lane % 4 * 2;
#pragma unroll
        for (int i = 0; i < 4; i++)
#pragma unroll
            for (int j = 0; j < n; j++) {
                to[8 * i * few_inputs_ld + 8 * j] = c[i / 2][j].c[i % 2 * 2];
                to[8 * i * few_inputs_ld + 8 * j + 1] = c[i / 2][j].c[i % 2 * 2 + 1];
            }
    }
};

// In exact fp32 a thread has every fourth row and every eighth column; k ascends in every sum.
template <> struct FewProduct<float> {
    static_assert(few_inputs_bn == 64, "8 x 8 elements a thread");
    float c[8][8] = {};

    TW_DEVICE void add(const uint32_t *rows, const uint32_t *weights, int row_words, int step) {
        const int row = (int)threadIdx.x % 32 / 8, column = (int)threadIdx.x % 8;
#pragma unroll 1
        for (int at = 8 * step; at < 8 * step + 8; at += 4) {
            Bytes16 b[8];
#pragma unroll
            for (int j = 0; j < 8; j++)
                b[j] =
                    *reinterpret_cast<const Bytes16 *>(weights + (column + 8 * j) * row_words + at);
#pragma unroll
            for (int i = 0; i < 8; i++) {
                const Bytes16 a =
                    *reinterpret_cast<const Bytes16 *>(rows + (row + 4 * i) * row_words + at);
#pragma unroll
                for (int w = 0; w < 4; w++)
#pragma unroll
                    for (int j = 0; j < 8; j++)
                        c[i][j] =
                            fma_rn(bits_to_float(a.word[w]), bits_to_float(b[j].word[w]), c[i][j]);
            }
        }
    }

    TW_DEVICE void lay_down(float *d) const {
        const int row = (int)threadIdx.x % 32 / 8, column = (int)threadIdx.x % 8;
#pragma unroll
        for (int i = 0; i < 8; i++)
#pragma unroll
            for (int j = 0; j < 8; j++) d[(row + 4 * i) * few_inputs_ld + column + 8 * j] = c[i][j];
    }
};

// Work: a block owns 128 pixels and all output channels, 64 at a time. A thread gathers what one
// pixel sees, element by element but once; a warp multiplies its 32 rows. The next weights are laid
// down while the channels before them are written.
// Limit: device memory, which takes y; instructions are close behind.
template <typename MATH, typename E>
__global__ void __launch_bounds__(few_threads, 4) few_inputs_kernel(const ConvInput in, const E e) {
    using T = typename StorageOf<MATH>::Type;
    constexpr int per_word = 4 / (int)sizeof(T);
    const int row_words = few_row_words(in.k, per_word), steps = few_steps(in.k, per_word);
    TW_SHARED(arena);
    float *const d = arena.take<float>(few_inputs_bm * few_inputs_ld);
    uint32_t *const weights = arena.take<uint32_t>((size_t)few_inputs_bn * (size_t)row_words);
    uint32_t *const rows = arena.take<uint32_t>((size_t)few_inputs_bm * (size_t)row_words);
    Along *const along = arena.take<Along>(few_inputs_k);
    const int own = (int)threadIdx.x;
    if (own < few_inputs_k) {
        const int tap = own / in.channels, channel = own % in.channels;
        const int r = tap / in.kernel_w, s = tap % in.kernel_w;
        along[own] = own < in.k ? Along{(r * in.w + s) * in.channels + channel, tap}
                                : Along{0, few_inputs_taps};
    }
    lay_few_columns<MATH>(in, 0, weights);
    sync_block();
    const int row0 = (int)blockIdx.x * few_inputs_bm, first = own / 32 * 32; // the warp's
    fetch_few_row<MATH>(in, along, row0 + own, rows + own * row_words);
    for (int column0 = 0; column0 < in.out_channels; column0 += few_inputs_bn) {
        sync_block(); // rows and weights are there, and d is free again
        FewProduct<MATH> product;
#pragma unroll 1
        for (int step = 0; step < steps; step++)
            product.add(rows + first * row_words, weights, row_words, step);
        product.lay_down(d + first * few_inputs_ld);
        sync_block();
        if (column0 + few_inputs_bn < in.out_channels)
            lay_few_columns<MATH>(in, column0 + few_inputs_bn, weights);
        finish_tile<T, few_inputs_bn, few_inputs_ld>(e, d, few_inputs_bm, row0, column0);
    }
}

size_t few_inputs_shared(int k, int element_bytes) {
    const size_t row_words = (size_t)few_row_words(k, 4 / element_bytes);
    return shared_bytes<float>(few_inputs_bm * few_inputs_ld) +
           shared_bytes<uint32_t>(few_inputs_bn * row_words) +
           shared_bytes<uint32_t>(few_inputs_bm * row_words) + shared_bytes<Along>(few_inputs_k);
}

// ---- to few channels ----------------------------------------------------------------------------

// Of pixels out, and of pixels in with their margin; of what a block keeps in shared memory.
struct Patch {
    int h, w, in_h, in_w, tiles_y, tiles_x;
    int columns, ld;             // taps * channels out; floats from one pixel in to the next
    int weight_row, weight_rows; // bytes; whole fragments
};

constexpr int patch_h = 8, patch_w = 32;

Patch patch_of(const ConvInput &in, int element_bytes) {
    Patch p;
    p.h = smaller(in.out_h, patch_h);
    p.w = smaller(in.out_w, patch_w);
    p.in_h = p.h + in.kernel_h - 1;
    p.in_w = p.w + in.kernel_w - 1;
    p.tiles_y = ceil_div(in.out_h, p.h);
    p.tiles_x = ceil_div(in.out_w, p.w);
    p.columns = in.kernel_h * in.kernel_w * in.out_channels;
    p.ld = p.columns | 1;
    p.weight_rows = ceil_div(p.columns, 8) * 8;
    // Half a line more than whole ones: two neighbouring rows are read at once.
    p.weight_row = ceil_div(in.channels * element_bytes, 128) * 128 + 64;
    return p;
}

// Weights as rows of [tap][channel out], whole chunks of 64 bytes, zeros where nothing is.
template <typename MATH>
TW_DEVICE void lay_few_weights(const ConvInput &in, const Patch &p, unsigned char *to) {
    using T = typename StorageOf<MATH>::Type;
    const int chunks = p.weight_row / 16;
    for (int i = (int)threadIdx.x; i < p.weight_rows * chunks; i += few_threads) {
        const int row = i / chunks, channel = i % chunks * per_16<T>;
        const int tap = row / in.out_channels, o = row % in.out_channels;
        Bytes16 v = {};
        if (row < p.columns && channel < in.channels)
            v = *reinterpret_cast<const Bytes16 *>(static_cast<const T *>(in.weight) +
                                                   (int64_t)o * in.k_row +
                                                   (int64_t)tap * in.channels + channel);
        round_words<MATH>(v.word);
        *reinterpret_cast<Bytes16 *>(to + row * p.weight_row + i % chunks * 16) = v;
    }
}

// 16 bytes at a time of each of this lane's four pixels of 32. LANES neighbours share a pixel's
// piece of 16 LANES bytes.
template <typename T, int LANES> struct PatchRows {
    const T *from[4]; // NULL outside the image
    int left;         // elements of a pixel from there on

    TW_DEVICE PatchRows(const ConvInput &in, const Patch &p, int sample, int top, int left_most,
                        int first) {
        const int g = (int)threadIdx.x % 32 / 4, skipped = (int)threadIdx.x % LANES * per_16<T>;
        left = in.channels - skipped;
#pragma unroll
        for (int i = 0; i < 4; i++) {
            const int at = first + g + 8 * i, line = at / p.in_w;
            const int y = top + line, x = left_most + at - line * p.in_w;
            const bool there =
                line < p.in_h && (unsigned)y < (unsigned)in.h && (unsigned)x < (unsigned)in.w;
            from[i] = there ? static_cast<const T *>(in.x) +
                                  (((int64_t)sample * in.h + y) * in.w + x) * in.channels + skipped
                            : nullptr;
        }
    }

    TW_DEVICE void load(int piece, Bytes16 (&v)[4]) const {
        const int at = piece * LANES * per_16<T>;
#pragma unroll
        for (int i = 0; i < 4; i++) {
            v[i] = Bytes16{};
            if (from[i] && at < left) v[i] = *reinterpret_cast<const Bytes16 *>(from[i] + at);
        }
    }
};

// What 32 pixels contribute, a column for every tap and channel out. A lane's 16 bytes of a piece
// are words of two steps along K, whose order does not matter as long as the weights have the same.
template <typename MATH> struct PatchProduct {
    static constexpr int n = few_outputs_columns / 8, lanes = 4;
    FragmentC c[2][n] = {};

    TW_DEVICE void add(const Patch &p, const unsigned char *weights, int piece, Bytes16 (&v)[4]) {
        const int g = (int)threadIdx.x % 32 / 4, t = (int)threadIdx.x % 4;
        const unsigned char *const from = weights + g * p.weight_row + piece * 64 + t * 16;
        Bytes16 w[n];
#pragma unroll
        for (int i = 0; i < 4; i++) round_words<MATH>(v[i].word);
#pragma unroll
        for (int j = 0; j < n; j++)
            w[j] = 8 * j < p.columns
                       ? *reinterpret_cast<const Bytes16 *>(from + 8 * j * p.weight_row)
                       : Bytes16{};
#pragma unroll
        for (int step = 0; step < 2; step++) {
            FragmentA a[2];
            FragmentB b[n];
#pragma unroll
            for (int i = 0; i < 4; i++) {
                a[i / 2].word[i % 2] = v[i].word[2 * step];
                a[i / 2].word[i % 2 + 2] = v[i].word[2 * step + 1];
            }
#pragma unroll
            for (int j = 0; j < n; j++)
                b[j] = FragmentB{{w[j].word[2 * step], w[j].word[2 * step + 1]}};
            multiply_tile<MATH>(c, a, b);
        }
    }

    // To the pixels `first` and following of z.
    TW_DEVICE void lay_down(const Patch &p, float *z, int first) const {
        const int g = (int)threadIdx.x % 32 / 4, t = (int)threadIdx.x % 4;
#pragma unroll
        for (int i = 0; i < 4; i++)
#pragma unroll
            for (int j = 0; j < n; j++)
#pragma unroll
                for (int q = 0; q < 2; q++) {
                    const int at = first + g + 8 * i, column = 8 * j + 2 * t + q;
                    if (at < p.in_h * p.in_w && column < p.columns)
                        z[at * p.ld + column] = c[i / 2][j].c[i % 2 * 2 + q];
                }
    }
};

// In exact fp32 a lane multiplies whole pixels by every fourth column; k ascends in every sum.
template <> struct PatchProduct<float> {
    static constexpr int n = few_outputs_columns / 4, lanes = 1;
    float c[4][n] = {};

    TW_DEVICE void add(const Patch &p, const unsigned char *weights, int piece,
                       const Bytes16 (&v)[4]) {
        const unsigned char *const from =
            weights + (int)threadIdx.x % 4 * p.weight_row + piece * 16;
#pragma unroll
        for (int j = 0; j < n; j++) {
            if (4 * j >= p.columns) break;
            const Bytes16 w = *reinterpret_cast<const Bytes16 *>(from + 4 * j * p.weight_row);
#pragma unroll
            for (int k = 0; k < 4; k++)
#pragma unroll
                for (int i = 0; i < 4; i++)
                    c[i][j] =
                        fma_rn(bits_to_float(v[i].word[k]), bits_to_float(w.word[k]), c[i][j]);
        }
    }

    TW_DEVICE void lay_down(const Patch &p, float *z, int first) const {
        const int g = (int)threadIdx.x % 32 / 4, t = (int)threadIdx.x % 4;
#pragma unroll
        for (int i = 0; i < 4; i++)
#pragma unroll
            for (int j = 0; j < n; j++) {
                const int at = first + g + 8 * i, column = 4 * j + t;
                if (at < p.in_h * p.in_w && column < p.columns) z[at * p.ld + column] = c[i][j];
            }
    }
};

// Work: a block owns a patch of at most 8 x 32 pixels of one image. What each pixel of x
// contributes to its neighbours, one column for every tap and channel out, is a matrix product that
// reads x once, straight into registers. The contributions meet in shared memory, where each pixel
// out collects its taps.
// Limit: device memory; the margins, up to a third of the patch, come from L2. In exact fp32 the
// fp32 units take as long.
template <typename MATH, typename E>
__global__ void __launch_bounds__(few_threads, 4)
    few_outputs_kernel(const ConvInput in, const Patch p, const E e) {
    using T = typename StorageOf<MATH>::Type;
    constexpr int lanes = PatchProduct<MATH>::lanes;
    TW_SHARED(arena);
    unsigned char *const weights =
        arena.take<unsigned char>((size_t)p.weight_rows * (size_t)p.weight_row);
    const int pixels = p.in_h * p.in_w;
    float *const z = arena.take<float>((size_t)pixels * (size_t)p.ld);
    lay_few_weights<MATH>(in, p, weights);
    const int y0 = (int)blockIdx.x / p.tiles_x % p.tiles_y * p.h;
    const int x0 = (int)blockIdx.x % p.tiles_x * p.w;
    const int sample = (int)blockIdx.x / p.tiles_x / p.tiles_y;
    const int pieces = ceil_div(in.channels, lanes * per_16<T>);
    sync_block();
    for (int first = (int)threadIdx.x / 32 * 32; first < pixels; first += few_threads) {
        const PatchRows<T, lanes> rows(in, p, sample, y0 - in.pad_top, x0 - in.pad_left, first);
        PatchProduct<MATH> product;
        Bytes16 v[4], next[4];
        rows.load(0, next);
#pragma unroll 1
        for (int piece = 0; piece < pieces; piece++) {
#pragma unroll
            for (int i = 0; i < 4; i++) v[i] = next[i];
            rows.load(piece + 1, next);
            product.add(p, weights, piece, v);
        }
        product.lay_down(p, z, first);
    }
    sync_block();
    for (int i = (int)threadIdx.x; i < p.h * p.w; i += few_threads) {
        const int y = i / p.w, x = i - y * p.w;
        if (y0 + y >= in.out_h || x0 + x >= in.out_w) continue;
        float sum[per_16<T>] = {};
        for (int r = 0; r < in.kernel_h; r++)
            for (int s = 0; s < in.kernel_w; s++) {
                const float *const from =
                    z + ((y + r) * p.in_w + x + s) * p.ld + (r * in.kernel_w + s) * in.out_channels;
#pragma unroll
                for (int o = 0; o < few_channels; o++)
                    if (o < in.out_channels) sum[o] += from[o];
            }
        const int row = (sample * in.out_h + y0 + y) * in.out_w + x0 + x;
        finish_vector<false, T>(e, sum, row, 0, in.out_channels);
    }
}

size_t few_outputs_shared(const Patch &p) {
    return shared_bytes<unsigned char>((size_t)p.weight_rows * (size_t)p.weight_row) +
           shared_bytes<float>((size_t)p.in_h * (size_t)p.in_w * (size_t)p.ld);
}

// Common to both: what the caller leaves to choose, from one tensor as it is.
bool may_be_few(const twk_conv_args &a, const ConvInput &in) {
    return a.tile == TWK_TILE_AUTO && a.splits <= 0 && !in.up && in.channels1 == in.channels &&
           in.k_row == in.k;
}

template <typename F> twk_status with_math(const twk_conv_args &a, const F &f) {
    if (a.format == TWK_BF16) return f(bf16{});
    if (a.format == TWK_F16) return f(f16{});
    if (a.tf32) return f(tf32{});
    return f(float{});
}

} // namespace

bool takes_few_inputs(const twk_conv_args &a, const ConvInput &in) {
    return may_be_few(a, in) && in.channels <= few_channels && in.k > 0 && in.k <= few_inputs_k &&
           in.kernel_h * in.kernel_w <= few_inputs_taps &&
           (int64_t)in.w * in.kernel_h * in.channels < 0x40000000 &&
           few_inputs_shared(in.k, (int)format_bytes(a.format)) <= device_limits().shared;
}

template <typename E>
twk_status launch_few_inputs(const twk_conv_args &a, const ConvInput &in, const E &e,
                             twk_stream stream) {
    LaunchConfig config;
    if (!grid_for(in.rows, few_inputs_bm, &config.grid))
        return fail(TWK_UNSUPPORTED, "convolution: more tiles than a grid can hold");
    config.block = dim3(few_threads);
    config.shared = few_inputs_shared(in.k, (int)format_bytes(a.format));
    config.stream = stream;
    return with_math(a, [&](auto math) {
        return TW_LAUNCH((few_inputs_kernel<decltype(math), E>), config, in, e);
    });
}

bool takes_few_outputs(const twk_conv_args &a, const ConvInput &in, bool wide) {
    if (!may_be_few(a, in) || !wide || in.out_channels > few_channels || in.stride != 1 ||
        in.k < 1 || in.channels > 4096 ||
        (int64_t)(in.k / in.channels) * in.out_channels > few_outputs_columns)
        return false;
    const Patch p = patch_of(in, (int)format_bytes(a.format));
    return few_outputs_shared(p) <= device_limits().shared;
}

template <typename E>
twk_status launch_few_outputs(const twk_conv_args &a, const ConvInput &in, const E &e,
                              twk_stream stream) {
    LaunchConfig config;
    const Patch p = patch_of(in, (int)format_bytes(a.format));
    const int64_t samples = in.rows / in.out_h / in.out_w;
    if (!grid_for(samples * p.tiles_y * p.tiles_x, 1, &config.grid))
        return fail(TWK_UNSUPPORTED, "convolution: more tiles than a grid can hold");
    config.block = dim3(few_threads);
    config.shared = few_outputs_shared(p);
    config.stream = stream;
    return with_math(a, [&](auto math) {
        return TW_LAUNCH((few_outputs_kernel<decltype(math), E>), config, in, p, e);
    });
}

template twk_status launch_few_inputs(const twk_conv_args &, const ConvInput &, const Epilogue &,
                                      twk_stream);
template twk_status launch_few_inputs(const twk_conv_args &, const ConvInput &,
                                      const ImageGradient &, twk_stream);
template twk_status launch_few_outputs(const twk_conv_args &, const ConvInput &, const Epilogue &,
                                       twk_stream);
template twk_status launch_few_outputs(const twk_conv_args &, const ConvInput &,
                                       const ImageGradient &, twk_stream);

} // namespace tw
