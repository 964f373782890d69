// The call of a convolution's input gradient and what it should give: every product that the
// forward pass takes from a pixel is scattered back to it, in double.
#pragma once

#include "conv_reference.h"

namespace tst {

inline bool every_tap(int, int, int) {
    return true;
}

struct InputGradient {
    explicit InputGradient(const ConvCase &shape, bool add = false) : conv(shape), z(shape) {
        const twk_format f = conv.a.format;
        a = conv.a;
        a.x = a.x2 = nullptr; // not read
        dy = inputs(f, z.n * conv.oh * conv.ow * z.o);
        dx = Tensor(f, z.n * z.h * z.w * z.c, z.shift);
        dx2 = Tensor(f, z.n * z.h * z.w * z.c2, z.shift);
        a.dy = dy.data();
        a.dx = dx.data();
        if (z.c2) a.dx2 = dx2.data();
        if (add) {
            dx_add = random_tensor(f, (int64_t)(z.n * z.h * z.w * z.c), 2, z.shift);
            a.dx_add = dx_add.data();
            dx2_add = random_tensor(f, (int64_t)(z.n * z.h * z.w * z.c2), 2, z.shift);
            if (z.c2) a.dx2_add = dx2_add.data();
        }
        find_workspace();
    }

    Tensor inputs(twk_format f, int64_t n) const {
        Tensor t = random_tensor(f, n, 2, z.shift);
        if (z.math != Math::tf32) return t;
        std::vector<double> rounded = t.v;
        for (double &v : rounded) v = tf32_of(v);
        t.write(rounded);
        return t;
    }

    void find_workspace() {
        workspace = Buffer(twk_conv_input_gradient_workspace(&a));
        a.workspace = workspace.data();
        a.workspace_bytes = workspace.size();
    }

    void launch() { LAUNCH_OK(twk_conv_input_gradient(&a, nullptr)); }

    double bound() const { return bound_of(z.math, z.upsample); }

    // The taps and output channels that `taken` says of.
    std::vector<Expected> expected(bool second = false,
                                   const std::function<bool(int, int, int)> &taken = every_tap) {
        const int channels = z.c + z.c2, up = z.upsample ? 2 : 1;
        const int from = second ? z.c : 0, count = second ? z.c2 : z.c;
        std::vector<Expected> want((size_t)(z.n * z.h * z.w * count));
        for (int64_t m = 0; m < z.n * conv.oh * conv.ow; m++)
            for (int r = 0; r < z.kh; r++)
                for (int s = 0; s < z.kw; s++) {
                    const int64_t n = m / (conv.oh * conv.ow);
                    const int64_t row = m / conv.ow % conv.oh * z.stride + r - z.pad.top;
                    const int64_t column = m % conv.ow * z.stride + s - z.pad.left;
                    if (row < 0 || column < 0 || row >= z.h * up || column >= z.w * up) continue;
                    const int64_t pixel = (n * z.h + row / up) * z.w + column / up;
                    for (int o = 0; o < z.o; o++) {
                        if (!taken(r, s, o)) continue;
                        const double v = dy.v[(size_t)(m * z.o + o)];
                        const size_t w = (size_t)(((o * z.kh + r) * z.kw + s) * channels + from);
                        for (int k = 0; k < count; k++)
                            want[(size_t)(pixel * count + k)].add(v * conv.weight.v[w + (size_t)k]);
                    }
                }
        const Tensor &add = second ? dx2_add : dx_add;
        for (size_t i = 0; i < want.size(); i++) {
            const double scale = z.scale == 0 ? 1 : (double)z.scale;
            want[i].value *= scale;
            want[i].terms *= std::fabs(scale);
            if (!add.v.empty()) want[i].add(add.v[i]);
        }
        return want;
    }

    Conv conv;
    ConvCase z;
    twk_conv_args a = {};
    Tensor dy, dx, dx2, dx_add, dx2_add;
    Buffer workspace;
};

} // namespace tst
