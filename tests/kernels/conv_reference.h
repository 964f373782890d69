// A convolution's tensors, its call, and what it should give: a plain sum over taps in double.
#pragma once

#include "support.h"

#include <functional>

namespace tst {

enum class Math { fp32, tf32, bf16, f16 };

#ifdef TW_EMU_TSAN
constexpr Math every_math[] = {Math::fp32, Math::bf16}; // which have all indices between them
#else
constexpr Math every_math[] = {Math::fp32, Math::tf32, Math::bf16, Math::f16};
#endif

struct Pad {
    int top, left, bottom, right;
};

struct ConvCase {
    int64_t n = 1, h = 1, w = 1;
    int c = 1, c2 = 0, o = 1, kh = 1, kw = 1, stride = 1;
    Pad pad = {0, 0, 0, 0};
    bool upsample = false, fold = false;
    bool bias = false, vector = false, residual = false, silu = false;
    float scale = 0;
    int groups = 0; // of the statistics; 0 for none
    int splits = 0;
    twk_tile tile = TWK_TILE_AUTO;
    Math math = Math::fp32;
    size_t shift = 0; // elements by which every tensor is off its alignment
};

// A square kernel, padded so that the image keeps its size.
inline ConvCase same_size(int64_t n, int64_t h, int64_t w, int c, int o, int kernel = 3) {
    ConvCase z;
    z.n = n;
    z.h = h;
    z.w = w;
    z.c = c;
    z.o = o;
    z.kh = z.kw = kernel;
    z.pad = {kernel / 2, kernel / 2, kernel / 2, kernel / 2};
    return z;
}

// Everything that an epilogue adds and does.
inline ConvCase with_everything(ConvCase z) {
    z.bias = z.vector = z.residual = z.silu = true;
    z.scale = 0.7f;
    return z;
}

inline std::string str(const ConvCase &z) {
    static const char *const names[] = {"fp32", "tf32", "bf16", "fp16"};
    char text[200];
    snprintf(
        text, sizeof text,
        "%lldx%lldx%lldx%d+%d -> %d, %dx%d stride %d pad %d %d %d %d%s, %d splits, tile %d, %s",
        (long long)z.n, (long long)z.h, (long long)z.w, z.c, z.c2, z.o, z.kh, z.kw, z.stride,
        z.pad.top, z.pad.left, z.pad.bottom, z.pad.right,
        z.fold       ? " folded"
        : z.upsample ? " upsampled"
                     : "",
        z.splits, (int)z.tile, names[(int)z.math]);
    return text;
}

// Whether TWK_TILE_128X256_TMA runs here.
inline bool boxes_here() {
    static const bool here = [] {
        const Tensor x = random_tensor(TWK_BF16, 64), weight = random_tensor(TWK_BF16, 64);
        const Tensor y(TWK_BF16, 64);
        twk_conv_args a = {};
        a.batch = a.h = a.kernel_h = a.kernel_w = a.stride = 1;
        a.w = a.channels = a.out_channels = 8;
        a.format = TWK_BF16;
        a.x = x.data();
        a.weight = weight.data();
        a.y = y.data();
        a.tile = TWK_TILE_128X256_TMA;
        const bool served = twk_conv_forward(&a, nullptr) != TWK_UNSUPPORTED;
        synchronize();
        return served;
    }();
    return here;
}

// Whether a tile multiplies in this arithmetic, here.
inline bool serves(twk_tile tile, Math math) {
    if (tile != TWK_TILE_128X128_WGMMA && tile != TWK_TILE_128X256_TMA) return true;
    if (math != Math::bf16 && math != Math::f16) return false;
    return tile == TWK_TILE_128X256_TMA ? boxes_here() : wgmma_here();
}

// Multiples of 2^-24 times the terms: fp32 sums; and where weights are added before they are
// multiplied, their rounding to the format.
inline double bound_of(Math math, bool folded) {
    static const double rounding[] = {4, 0x1p13, 0x1p16, 0x1p13}; // unit roundoffs
    return 8 + (folded ? rounding[(int)math] : 0);
}

// Whether the last kernel is of this name.
inline bool was_launched(const char *kernel) {
    twk_launch_info info;
    twk_last_launch(&info);
    return std::string(info.kernel).find(kernel) != std::string::npos;
}

class Conv {
  public:
    explicit Conv(const ConvCase &shape) : z(shape) {
        const twk_format f = z.math == Math::bf16  ? TWK_BF16
                             : z.math == Math::f16 ? TWK_F16
                                                   : TWK_F32;
        const int64_t k = (int64_t)z.kh * z.kw * (z.c + z.c2);
        x = inputs(f, z.n * z.h * z.w * z.c, 2);
        if (z.c2) x2 = inputs(f, z.n * z.h * z.w * z.c2, 2);
        weight = inputs(f, z.o * k, 2 / std::sqrt((double)k));
        a.batch = z.n;
        a.h = z.h;
        a.w = z.w;
        a.channels = z.c;
        a.channels2 = z.c2;
        a.upsample = z.upsample;
        a.fold = z.fold;
        a.out_channels = z.o;
        a.kernel_h = z.kh;
        a.kernel_w = z.kw;
        a.stride = z.stride;
        a.pad_top = z.pad.top;
        a.pad_left = z.pad.left;
        a.pad_bottom = z.pad.bottom;
        a.pad_right = z.pad.right;
        a.format = f;
        a.tf32 = z.math == Math::tf32;
        a.x = x.data();
        if (z.c2) a.x2 = x2.data();
        a.weight = weight.data();
        oh = twk_conv_out_h(&a);
        ow = twk_conv_out_w(&a);
        if (z.bias) {
            bias = random_tensor(TWK_F32, z.o);
            a.bias = bias.f32();
        }
        if (z.vector) { // rows further apart than they are long
            a.vector_stride = z.o + 8;
            vector = random_tensor(f, z.n * a.vector_stride, 2, z.shift);
            a.vector = vector.data();
        }
        if (z.residual) {
            residual = random_tensor(f, z.n * oh * ow * z.o, 2, z.shift);
            a.residual = residual.data();
        }
        a.scale = z.scale;
        a.silu = z.silu;
        y = Tensor(f, z.n * oh * ow * z.o, z.shift);
        a.y = y.data();
        a.tile = z.math == Math::fp32 ? TWK_TILE_AUTO : z.tile;
        a.splits = z.splits;
        workspace = Buffer(twk_conv_workspace(&a));
        a.workspace = workspace.data();
        a.workspace_bytes = workspace.size();
        if (!z.groups) return;
        a.groups = z.groups;
        partial =
            Buffer((size_t)(z.n * twk_conv_partials(&a, nullptr) * z.groups) * sizeof(twk_moments));
        a.partial = static_cast<twk_moments *>(partial.data());
    }

    void launch() { LAUNCH_OK(twk_conv_forward(&a, nullptr)); }
    double bound() const { return bound_of(z.math, z.fold); }

    void shift_bias(double by) {
        std::vector<double> moved = bias.v;
        for (double &v : moved) v += by;
        bias.write(moved);
    }

    // The terms that `taken` says of (row of the kernel, column, channel).
    std::vector<Expected> expected(const std::function<bool(int, int, int)> &taken =
                                       [](int, int, int) { return true; }) const {
        std::vector<Expected> want((size_t)(z.n * oh * ow * z.o));
        const int channels = z.c + z.c2, up = z.upsample ? 2 : 1;
        std::vector<char> used((size_t)(z.kh * z.kw * channels));
        for (size_t i = 0; i < used.size(); i++) {
            const int tap = (int)i / channels;
            used[i] = taken(tap / z.kw, tap % z.kw, (int)i % channels);
        }
        size_t at = 0;
        for (int64_t n = 0; n < z.n; n++)
            for (int64_t p = 0; p < oh * ow; p++)
                for (int o = 0; o < z.o; o++, at++) {
                    Expected e;
                    for (int tap = 0; tap < z.kh * z.kw; tap++) {
                        const int64_t row = p / ow * z.stride - z.pad.top + tap / z.kw;
                        const int64_t column = p % ow * z.stride - z.pad.left + tap % z.kw;
                        if (row < 0 || column < 0 || row >= z.h * up || column >= z.w * up)
                            continue;
                        const int64_t pixel = (n * z.h + row / up) * z.w + column / up;
                        const double *const w =
                            &weight.v[(size_t)((o * z.kh * z.kw + tap) * channels)];
                        for (int k = 0; k < channels; k++)
                            if (used[(size_t)(tap * channels + k)])
                                e.add(w[k] * (k < z.c ? x.v[(size_t)(pixel * z.c + k)]
                                                      : x2.v[(size_t)(pixel * z.c2 + k - z.c)]));
                    }
                    if (z.bias) e.add(bias.v[(size_t)o]);
                    if (z.vector) e.add(vector.v[(size_t)(n * a.vector_stride + o)]);
                    if (z.residual) e.add(residual.v[at]);
                    const double scale = z.scale == 0 ? 1 : (double)z.scale;
                    e.value *= scale;
                    e.terms *= scale;
                    if (z.silu) { // its slope is at most 1.1; the exponential's own error
                        const double v = e.value;
                        e.value = v / (1 + std::exp(-v));
                        e.terms = 1.1 * e.terms + (1 + std::fabs(v)) * std::fabs(e.value);
                    }
                    want[at] = e;
                }
        return want;
    }

    ConvCase z;
    twk_conv_args a = {};
    int64_t oh = 0, ow = 0;
    Tensor x, x2, weight, bias, vector, residual, y;
    Buffer workspace, partial;

  private:
    Tensor inputs(twk_format f, int64_t n, double scale) const {
        Tensor t = random_tensor(f, n, scale, z.shift);
        if (z.math != Math::tf32) return t;
        std::vector<double> rounded = t.v;
        for (double &v : rounded) v = tf32_of(v);
        t.write(rounded);
        return t;
    }
};

} // namespace tst
