// A residual block and attention blocks put together from the launchers, forward and backward,
// against diffusers in float64 (tests/golden/blocks.h).
#include "support.h"
#include "../golden/blocks.h"

#include <cstring>

using namespace tst;

namespace {

constexpr int64_t batch = golden::batch, area = golden::height * golden::width;

struct Arithmetic {
    const char *name;
    twk_format format;
    int tf32;
    double tolerance; // of a tensor's root mean square, after some ten roundings in a row
};
constexpr Arithmetic arithmetics[] = {{"fp32", TWK_F32, 0, 3e-5},
                                      {"tf32", TWK_F32, 1, 8e-3},
                                      {"bf16", TWK_BF16, 0, 6e-2},
                                      {"fp16", TWK_F16, 0, 8e-3}};

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

std::vector<double> images(uint32_t step, int64_t elements) {
    std::vector<double> all;
    for (int64_t n = 0; n < batch; n++) {
        const std::vector<double> one = normals((uint64_t)n, step, elements);
        all.insert(all.end(), one.begin(), one.end());
    }
    return all;
}

// O,I,K,K as PyTorch has it to O,K,K,I.
std::vector<double> channels_last(const std::vector<double> &v, int64_t in, int64_t window) {
    std::vector<double> out(v.size());
    for (size_t at = 0; at < v.size(); at++) {
        const int64_t o = (int64_t)at / in / window, i = (int64_t)at / window % in;
        out[(size_t)((o * window + (int64_t)at % window) * in + i)] = v[at];
    }
    return out;
}

const golden::Summary *summary(const std::string &name) {
    for (const golden::Summary &s : golden::blocks)
        if (name == s.name) return &s;
    return nullptr;
}

double norm_of(const std::vector<double> &v) {
    double sum = 0;
    for (const double x : v) sum += x * x;
    return std::sqrt(sum);
}

Tensor zeros(int64_t n) {
    return Tensor(TWK_F32, std::vector<double>((size_t)n, 0.0));
}

class BlockTest : public KernelTest {
  protected:
    Arithmetic kind = arithmetics[0];
    std::string prefix;
    bool forget_time = false; // a planted mistake: nothing is reported, only counted
    mutable int off = 0;      // norms and entries that differ from the goldens

    double value(const char *what, int64_t fan_in, double z) const {
        if (!strcmp(what, "weight")) return (double)(float)(z / std::sqrt((double)fan_in));
        return (double)(float)(!strcmp(what, "norm") ? 1 + 0.1 * z : 0.1 * z);
    }
    std::vector<double> values(const std::string &name, const char *what, int64_t n,
                               int64_t fan_in) const {
        std::vector<double> v = normals(stream_of(prefix + "." + name), 0, n);
        for (double &z : v) z = value(what, fan_in, z);
        return v;
    }
    Tensor weight(const std::string &name, int64_t out, int64_t in, int64_t window = 1) const {
        return Tensor(
            kind.format,
            channels_last(values(name, "weight", out * in * window, in * window), in, window));
    }
    Tensor vector(const std::string &name, const char *what, int64_t n) const {
        return Tensor(TWK_F32, values(name, what, n, 1));
    }
    Tensor output(int64_t n) const { return Tensor(kind.format, n); }
    Tensor input(const std::vector<double> &v) const { return Tensor(kind.format, v); }

    // `at` maps the golden's index to the tensor's; `like` names the tensor whose size a rounding
    // error is measured by, where the right value is zero.
    void expect(
        const std::string &name, const std::vector<double> &got,
        const std::function<int64_t(int64_t)> &at = [](int64_t i) { return i; },
        const char *like = nullptr) const {
        const golden::Summary *want = summary(prefix + "." + name);
        const golden::Summary *scale = like ? summary(prefix + "." + like) : want;
        ASSERT_TRUE(want && scale) << name;
        const double rms = scale->norm / std::sqrt((double)got.size());
        compare(name + "'s norm", norm_of(got), want->norm, kind.tolerance * scale->norm);
        for (int i = 0; i < want->count; i++) {
            const golden::Sample &s = want->sample[i];
            compare(name + "[" + std::to_string(s.at) + "]", got[(size_t)at(s.at)], s.value,
                    kind.tolerance * (rms + std::fabs(s.value)));
        }
    }
    void compare(const std::string &what, double got, double want, double tolerance) const {
        if (std::fabs(got - want) <= tolerance) return;
        off++;
        EXPECT_TRUE(forget_time) << kind.name << " " << prefix << "." << what << ": " << got
                                 << ", expected " << want;
    }
    void expect_weight(const std::string &name, const Tensor &got, int64_t in,
                       int64_t window) const {
        expect("d." + name, got.read(), [=](int64_t i) {
            return (i / in / window * window + i % window) * in + i / window % in;
        });
    }

    twk_conv_args conv_args(const Tensor &x, const Tensor &w, const Tensor &bias, int in, int out,
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
        a.bias = bias.f32();
        a.y = y.data();
        return a;
    }
    template <typename Args, typename Size, typename Call>
    void launch(Args a, Size size, Call call) const {
        const Buffer workspace(size(&a));
        a.workspace = workspace.data();
        a.workspace_bytes = workspace.size();
        LAUNCH_OK(call(&a, nullptr));
    }
    void forward(const twk_conv_args &a) const { launch(a, twk_conv_workspace, twk_conv_forward); }
    // The gradients of everything that the call has; a.dx may stay NULL.
    void backward(const twk_conv_args &a) const {
        launch(a, twk_conv_weight_gradient_workspace, twk_conv_weight_gradient);
        launch(a, twk_conv_input_gradient_workspace, twk_conv_input_gradient);
    }
    void column_sums(const Tensor &x, int64_t samples, int64_t pixels, int64_t channels,
                     const Tensor &out) const {
        twk_column_sums_args a = {};
        a.batch = samples;
        a.pixels = pixels;
        a.channels = channels;
        a.format = x.format;
        a.x = x.data();
        a.out = out.f32();
        launch(
            a,
            [](const twk_column_sums_args *c) {
                return twk_column_sums_workspace(c->batch, c->pixels, c->channels);
            },
            twk_column_sums);
    }
    twk_gemm_args gemm_args(int64_t m, int64_t n, int64_t k, const Tensor &a, const Tensor &b,
                            const Tensor &d) const {
        twk_gemm_args g = {};
        g.batch = 1;
        g.m = m;
        g.n = n;
        g.k = k;
        g.format = kind.format;
        g.tf32 = kind.tf32;
        g.a = a.data();
        g.b = b.data();
        g.a_row = g.b_row = k;
        g.d = d.data();
        return g;
    }
    void multiply(const twk_gemm_args &g) const { launch(g, twk_gemm_workspace, twk_gemm); }
    // Of y[m, n] = x[m, k] w[n, k]^T + bias: dx, dw and dbias from dy.
    void linear_backward(int64_t m, int64_t n, int64_t k, const Tensor &dy, const Tensor &x,
                         const Tensor &w, const Tensor &dx, const Tensor &dw,
                         const Tensor &dbias) const {
        twk_gemm_args g = gemm_args(m, k, n, dy, w, dx);
        g.b_columns = 1;
        g.b_row = k;
        multiply(g);
        g = gemm_args(n, k, m, dy, x, dw);
        g.a_columns = g.b_columns = 1;
        g.a_row = n;
        g.b_row = k;
        g.add_f32 = 1;
        multiply(g);
        column_sums(dy, 1, m, n, dbias);
    }

    // A norm, what it keeps for its gradient, and its gradients.
    struct Norm {
        twk_group_norm_args a = {};
        Tensor gamma, beta, mean, rstd, dgamma, dbeta;
    };
    Norm norm(const std::string &name, const Tensor &x, int channels, bool silu,
              const Tensor &y) const {
        Norm n;
        n.gamma = vector(name + ".weight", "norm", channels);
        n.beta = vector(name + ".bias", "bias", channels);
        n.mean = Tensor(TWK_F32, batch * 8);
        n.rstd = Tensor(TWK_F32, batch * 8);
        n.dgamma = zeros(channels);
        n.dbeta = zeros(channels);
        n.a.batch = batch;
        n.a.pixels = area;
        n.a.channels = channels;
        n.a.groups = 8;
        n.a.epsilon = 1e-5f;
        n.a.silu = silu;
        n.a.format = kind.format;
        n.a.x = x.data();
        n.a.gamma = n.gamma.f32();
        n.a.beta = n.beta.f32();
        n.a.mean = n.mean.f32();
        n.a.rstd = n.rstd.f32();
        n.a.y = y.data();
        n.a.dgamma = n.dgamma.f32();
        n.a.dbeta = n.dbeta.f32();
        return n;
    }
    void forward(const Norm &n) const {
        launch(n.a, twk_group_norm_workspace, twk_group_norm_forward);
    }
    void backward(Norm &n, const Tensor &dy, const Tensor &dx) const {
        n.a.dy = dy.data();
        n.a.dx = dx.data();
        launch(n.a, twk_group_norm_backward_workspace, twk_group_norm_backward);
    }

    void residual_block();
    void attention_block(const char *name, int heads);
};

void BlockTest::residual_block() {
    constexpr int in = 32, out = 64, wide = (int)golden::time_width;
    prefix = "res";
    const Tensor x = input(images(1, area * in)), dy = input(images(2, area * out));
    const Tensor time = input(images(3, wide)), active = output(batch * wide);
    const Tensor wt = weight("time_emb_proj.weight", out, wide);
    const Tensor bt = vector("time_emb_proj.bias", "bias", out);
    const Tensor w1 = weight("conv1.weight", out, in, 9), b1 = vector("conv1.bias", "bias", out);
    const Tensor w2 = weight("conv2.weight", out, out, 9), b2 = vector("conv2.bias", "bias", out);
    const Tensor ws = weight("conv_shortcut.weight", out, in);
    const Tensor bs = vector("conv_shortcut.bias", "bias", out);
    const Tensor projected = output(batch * out), h1 = output(x.v.size());
    const Tensor h2 = output(batch * area * out), h3 = output(batch * area * out);
    const Tensor y = output(batch * area * out);

    LAUNCH_OK(twk_activation_forward(TWK_SILU, kind.format, batch * wide, time.data(),
                                     active.data(), nullptr));
    twk_gemm_args g = gemm_args(batch, out, wide, active, wt, projected);
    g.bias = bt.f32();
    multiply(g);
    Norm first = norm("norm1", x, in, true, h1);
    forward(first);
    twk_conv_args conv1 = conv_args(h1, w1, b1, in, out, 3, h2);
    conv1.vector = forget_time ? nullptr : projected.data();
    conv1.vector_stride = out;
    conv1.groups = 8; // the second norm's statistics come from the convolution
    Norm second = norm("norm2", h2, out, true, h3);
    second.a.n_partials = twk_conv_partials(&conv1, &second.a.pixels_per_partial);
    ASSERT_GT(second.a.n_partials, 0);
    const Buffer partial((size_t)(batch * second.a.n_partials * 8) * sizeof(twk_moments));
    conv1.partial = static_cast<twk_moments *>(partial.data());
    forward(conv1);
    second.a.partial = conv1.partial;
    forward(second);
    const twk_conv_args shortcut = conv_args(x, ws, bs, in, out, 1, y);
    forward(shortcut);
    twk_conv_args conv2 = conv_args(h3, w2, b2, out, out, 3, y);
    conv2.residual = y.data();
    forward(conv2);
    expect("y", y.read());

    const Tensor dh3 = output(h3.read().size()), dh2 = output(h2.read().size());
    const Tensor dh1 = output(x.v.size()), dx = output(x.v.size());
    const Tensor dw1 = zeros(w1.v.size()), db1 = zeros(out), dw2 = zeros(w2.v.size());
    const Tensor db2 = zeros(out), dws = zeros(ws.v.size()), dbs = zeros(out);
    conv2.residual = nullptr;
    conv2.dy = dy.data();
    conv2.dx = dh3.data();
    conv2.dweight = dw2.f32();
    conv2.dbias = db2.f32();
    backward(conv2);
    backward(second, dh3, dh2);
    conv1.partial = nullptr;
    conv1.dy = dh2.data();
    conv1.dx = dh1.data();
    conv1.dweight = dw1.f32();
    conv1.dbias = db1.f32();
    backward(conv1);
    backward(first, dh1, dx);
    twk_conv_args back = shortcut; // adds its share to what came through the norm
    back.dy = dy.data();
    back.dx = dx.data();
    back.dx_add = dx.data();
    back.dweight = dws.f32();
    back.dbias = dbs.f32();
    backward(back);
    const Tensor sums(TWK_F32, batch * out), dactive = output(batch * wide);
    const Tensor dtime = output(batch * wide), dwt = zeros(wt.v.size()), dbt = zeros(out);
    column_sums(dh2, batch, area, out, sums);
    const Tensor dprojected = input(sums.read());
    linear_backward(batch, out, wide, dprojected, active, wt, dactive, dwt, dbt);
    LAUNCH_OK(twk_activation_backward(TWK_SILU, kind.format, batch * wide, time.data(),
                                      dactive.data(), dtime.data(), nullptr));

    expect("dx", dx.read());
    expect("dtime", dtime.read());
    expect("d.norm1.weight", first.dgamma.read());
    expect("d.norm1.bias", first.dbeta.read());
    expect_weight("conv1.weight", dw1, in, 9);
    expect("d.conv1.bias", db1.read());
    expect("d.time_emb_proj.weight", dwt.read());
    expect("d.time_emb_proj.bias", dbt.read());
    expect("d.norm2.weight", second.dgamma.read());
    expect("d.norm2.bias", second.dbeta.read());
    expect_weight("conv2.weight", dw2, out, 9);
    expect("d.conv2.bias", db2.read());
    expect_weight("conv_shortcut.weight", dws, in, 1);
    expect("d.conv_shortcut.bias", dbs.read());
}

void BlockTest::attention_block(const char *name, int heads) {
    constexpr int width = 64;
    prefix = name;
    const int64_t rows = batch * area;
    const size_t step = bytes_of(kind.format);
    // The three projections are one product.
    std::vector<double> all_weights, all_biases;
    for (const char *one : {"to_q", "to_k", "to_v"}) {
        const std::string base = one;
        const std::vector<double> w = values(base + ".weight", "weight", width * width, width);
        const std::vector<double> b = values(base + ".bias", "bias", width, 1);
        all_weights.insert(all_weights.end(), w.begin(), w.end());
        all_biases.insert(all_biases.end(), b.begin(), b.end());
    }
    const Tensor x = input(images(1, area * width)), dy = input(images(2, area * width));
    const Tensor wqkv = input(all_weights), bqkv(TWK_F32, all_biases);
    const Tensor wo = weight("to_out.0.weight", width, width);
    const Tensor bo = vector("to_out.0.bias", "bias", width);
    const Tensor normed = output(rows * width), qkv = output(rows * 3 * width);
    const Tensor o = output(rows * width), y = output(rows * width);

    Norm n = norm("group_norm", x, width, false, normed);
    forward(n);
    twk_gemm_args g = gemm_args(rows, 3 * width, width, normed, wqkv, qkv);
    g.bias = bqkv.f32();
    multiply(g);
    const Tensor lse(TWK_F32, batch * heads * area), dqkv = output(rows * 3 * width);
    const Tensor d_o = output(rows * width);
    const auto third = [&](const Tensor &t, int i) {
        return static_cast<void *>(static_cast<char *>(t.data()) + (size_t)(i * width) * step);
    };
    twk_attention_args a = {};
    a.batch = batch;
    a.q_tokens = a.k_tokens = area;
    a.heads = heads;
    a.head_size = width / heads;
    a.format = kind.format;
    a.q = third(qkv, 0);
    a.k = third(qkv, 1);
    a.v = third(qkv, 2);
    a.q_row = a.k_row = a.v_row = 3 * width;
    a.q_batch = a.k_batch = a.v_batch = 3 * width * area;
    a.o = o.data();
    a.o_row = width;
    a.o_batch = width * area;
    a.lse = lse.f32();
    LAUNCH_OK(twk_attention_forward(&a, nullptr));
    g = gemm_args(rows, width, width, o, wo, y);
    g.bias = bo.f32();
    g.residual = x.data();
    multiply(g);
    expect("y", y.read());

    const Tensor dwo = zeros(width * width), dbo = zeros(width);
    const Tensor dwqkv = zeros(3 * width * width), dbqkv = zeros(3 * width);
    const Tensor dnormed = output(rows * width), dx = output(rows * width);
    linear_backward(rows, width, width, dy, o, wo, d_o, dwo, dbo);
    a.d_o = d_o.data();
    a.dq = third(dqkv, 0);
    a.dk = third(dqkv, 1);
    a.dv = third(dqkv, 2);
    launch(a, twk_attention_backward_workspace, twk_attention_backward);
    linear_backward(rows, 3 * width, width, dqkv, normed, wqkv, dnormed, dwqkv, dbqkv);
    backward(n, dnormed, dx);
    LAUNCH_OK(twk_add(kind.format, rows * width, 1, dx.data(), 1, dy.data(), dx.data(), nullptr));

    expect("dx", dx.read());
    expect("d.group_norm.weight", n.dgamma.read());
    expect("d.group_norm.bias", n.dbeta.read());
    expect("d.to_out.0.weight", dwo.read());
    expect("d.to_out.0.bias", dbo.read());
    const std::vector<double> dw = dwqkv.read(), db = dbqkv.read();
    for (int i = 0; i < 3; i++) {
        const std::string base = std::string("d.to_") + "qkv"[i];
        const int64_t w = i * width * width, b = i * width;
        expect(base + ".weight", {dw.begin() + w, dw.begin() + w + width * width});
        // The softmax does not see what all keys have in common.
        expect(
            base + ".bias", {db.begin() + b, db.begin() + b + width}, [](int64_t at) { return at; },
            i == 1 ? "d.to_v.bias" : nullptr);
    }
}

TEST_F(BlockTest, Residual) {
    for (const Arithmetic &a : arithmetics) {
        kind = a;
        residual_block();
    }
}

TEST_F(BlockTest, AForgottenTermIsSeen) {
    kind = arithmetics[2]; // the coarsest
    forget_time = true;
    residual_block();
    EXPECT_GT(off, 8);
}

TEST_F(BlockTest, Attention) {
    for (const Arithmetic &a : arithmetics) {
        kind = a;
        attention_block("one", 1);
        attention_block("two", 2);
    }
}

} // namespace
