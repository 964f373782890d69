// A residual block put together from the launchers, forward, against diffusers in float64
// (tests/golden/blocks.h).
#include "support.h"
#include "../golden/blocks.h"

#include <cstring>

using namespace tst;

namespace {

constexpr int64_t batch = golden::batch, area = golden::height * golden::width;
constexpr int groups = 8;

struct Arithmetic {
    const char *name;
    twk_format format;
    int tf32;
    double tolerance; // of the output's root mean square, after some six roundings in a row
};
constexpr Arithmetic arithmetics[] = {{"fp32", TWK_F32, 0, 1e-5},
                                      {"tf32", TWK_F32, 1, 4e-3},
                                      {"bf16", TWK_BF16, 0, 3e-2},
                                      {"fp16", TWK_F16, 0, 4e-3}};

uint64_t stream_of(const std::string &name) { // FNV-1a
    uint32_t h = 0x811c9dc5u;
    for (const char c : name) h = (h ^ (unsigned char)c) * 0x01000193u;
    return h;
}

std::vector<double> normals(uint64_t sample, uint32_t step, int64_t n) {
    std::vector<double> v((size_t)n);
    for (int64_t i = 0; i < n; i++)
        v[(size_t)i] =
            (double)(float)noise_normal({golden::seed, sample, TWK_NOISE_GOLDEN, step}, i);
    return v;
}

std::vector<double> of_samples(uint32_t step, int64_t elements) {
    std::vector<double> all;
    for (int64_t n = 0; n < batch; n++) {
        const std::vector<double> one = normals((uint64_t)n, step, elements);
        all.insert(all.end(), one.begin(), one.end());
    }
    return all;
}

// A parameter by the goldens' rule: first + scale z.
std::vector<double> parameter(const std::string &name, int64_t n, double first, double scale) {
    std::vector<double> v = normals(stream_of("res." + name), 0, n);
    for (double &z : v) z = (double)(float)(first + scale * z);
    return v;
}

class BlockTest : public KernelTest {
  protected:
    Arithmetic kind = arithmetics[0];

    // O,I,K,K as PyTorch has it, to O,K,K,I.
    Tensor weight(const std::string &name, int64_t out, int64_t in, int64_t window = 1) const {
        const std::vector<double> v =
            parameter(name, out * in * window, 0, 1 / std::sqrt((double)(in * window)));
        std::vector<double> last(v.size());
        for (int64_t at = 0; at < (int64_t)v.size(); at++)
            last[(size_t)((at / in / window * window + at % window) * in + at / window % in)] =
                v[(size_t)at];
        return Tensor(kind.format, last);
    }
    Tensor bias(const std::string &name, int64_t n) const {
        return Tensor(TWK_F32, parameter(name, n, 0, 0.1));
    }
    Tensor gain(const std::string &name, int64_t n) const {
        return Tensor(TWK_F32, parameter(name, n, 1, 0.1));
    }

    template <typename Args, typename Size, typename Call>
    void launch(Args a, Size size, Call call) const {
        const Buffer workspace(size(&a));
        a.workspace = workspace.data();
        a.workspace_bytes = workspace.size();
        LAUNCH_OK(call(&a, nullptr));
    }

    twk_conv_args conv(const Tensor &x, const Tensor &w, const Tensor &b, int in, int out,
                       int kernel, const Tensor &y) const {
        twk_conv_args a = {};
        a.batch = batch;
        a.h = golden::height;
        a.w = golden::width;
        a.channels = in;
        a.out_channels = out;
        a.kernel_h = a.kernel_w = kernel;
        a.stride = 1;
        a.pad_top = a.pad_left = a.pad_bottom = a.pad_right = kernel / 2;
        a.format = kind.format;
        a.tf32 = kind.tf32;
        a.x = x.data();
        a.weight = w.data();
        a.bias = b.f32();
        a.y = y.data();
        return a;
    }

    // The norm and its SiLU; from the statistics that `from` has left, where it is given.
    void norm(const std::string &name, const Tensor &x, int channels, const Tensor &y,
              const twk_conv_args *from = nullptr) const {
        const Tensor gamma = gain(name + ".weight", channels),
                     beta = bias(name + ".bias", channels);
        const Tensor mean(TWK_F32, batch * groups), rstd(TWK_F32, batch * groups);
        twk_group_norm_args a = {};
        a.batch = batch;
        a.pixels = area;
        a.channels = channels;
        a.groups = groups;
        a.epsilon = 1e-5f;
        a.silu = 1;
        a.format = kind.format;
        a.x = x.data();
        a.gamma = gamma.f32();
        a.beta = beta.f32();
        a.mean = mean.f32();
        a.rstd = rstd.f32();
        a.y = y.data();
        if (from) {
            a.partial = from->partial;
            a.n_partials = twk_conv_partials(from, &a.pixels_per_partial);
        }
        launch(a, twk_group_norm_workspace, twk_group_norm_forward);
    }

    // silu(time) times the projection, [batch, out].
    void project_time(int out, const Tensor &y) const {
        constexpr int64_t wide = golden::time_width;
        const Tensor time(kind.format, of_samples(3, wide)), active(kind.format, batch * wide);
        const Tensor w = weight("time_emb_proj.weight", out, wide);
        const Tensor b = bias("time_emb_proj.bias", out);
        LAUNCH_OK(twk_activation_forward(TWK_SILU, kind.format, batch * wide, time.data(),
                                         active.data(), nullptr));
        twk_gemm_args g = {};
        g.batch = 1;
        g.m = batch;
        g.n = out;
        g.k = g.a_row = g.b_row = wide;
        g.format = kind.format;
        g.tf32 = kind.tf32;
        g.a = active.data();
        g.b = w.data();
        g.bias = b.f32();
        g.d = y.data();
        LAUNCH_OK(twk_gemm(&g, nullptr));
    }

    // The block's output; without the time's share if that is asked for.
    std::vector<double> residual(bool with_time) const;

    // Of the sampled entries and the norm, how many are off.
    int count_off(const std::vector<double> &got) const {
        const golden::Summary *want = nullptr;
        for (const golden::Summary &s : golden::blocks)
            if (!strcmp(s.name, "res.y")) want = &s;
        if (!want) return -1;
        double sum = 0;
        for (const double v : got) sum += v * v;
        int off = !(std::fabs(std::sqrt(sum) - want->norm) <= kind.tolerance * want->norm);
        const double rms = want->norm / std::sqrt((double)got.size());
        for (int i = 0; i < want->count; i++) {
            const golden::Sample &s = want->sample[i];
            const double error = std::fabs(got[(size_t)s.at] - s.value);
            off += !(error <= kind.tolerance * (rms + std::fabs(s.value)));
        }
        return off;
    }
};

std::vector<double> BlockTest::residual(bool with_time) const {
    constexpr int in = 32, out = 64;
    const Tensor x(kind.format, of_samples(1, area * in));
    const Tensor w1 = weight("conv1.weight", out, in, 9), b1 = bias("conv1.bias", out);
    const Tensor w2 = weight("conv2.weight", out, out, 9), b2 = bias("conv2.bias", out);
    const Tensor ws = weight("conv_shortcut.weight", out, in), bs = bias("conv_shortcut.bias", out);
    const Tensor time(kind.format, batch * out), h1(kind.format, batch * area * in);
    const Tensor h2(kind.format, batch * area * out), h3(kind.format, batch * area * out);
    const Tensor y(kind.format, batch * area * out);

    project_time(out, time);
    norm("norm1", x, in, h1);
    twk_conv_args conv1 = conv(h1, w1, b1, in, out, 3, h2);
    if (with_time) conv1.vector = time.data();
    conv1.vector_stride = out;
    conv1.groups = groups;
    const int64_t parts = twk_conv_partials(&conv1, nullptr);
    EXPECT_GT(parts, 0);
    const Buffer partial((size_t)(batch * parts * groups) * sizeof(twk_moments));
    conv1.partial = static_cast<twk_moments *>(partial.data());
    launch(conv1, twk_conv_workspace, twk_conv_forward);
    norm("norm2", h2, out, h3, &conv1);
    launch(conv(x, ws, bs, in, out, 1, y), twk_conv_workspace, twk_conv_forward);
    twk_conv_args conv2 = conv(h3, w2, b2, out, out, 3, y);
    conv2.residual = y.data(); // the shortcut, over which the sum is written
    launch(conv2, twk_conv_workspace, twk_conv_forward);
    return y.read();
}

TEST_F(BlockTest, ResidualForward) {
    for (const Arithmetic &a : arithmetics) {
        kind = a;
        EXPECT_EQ(count_off(residual(true)), 0) << a.name;
    }
}

TEST_F(BlockTest, AForgottenTermIsSeen) {
    kind = arithmetics[2]; // the coarsest
    EXPECT_GT(count_off(residual(false)), 8);
}

} // namespace
