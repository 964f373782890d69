#include "jobs.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <cuda_runtime_api.h>

namespace bench {
namespace {

// Device memory that lives as long as the job.
struct Memory {
    std::vector<void *> all;
    std::function<double()> error; // of the first set
    bool failed = false;
    ~Memory() {
        for (void *p : all) cudaFree(p);
    }
    void *raw(size_t bytes) {
        void *p = nullptr;
        if (cudaMalloc(&p, std::max<size_t>(bytes, 16)) != cudaSuccess) {
            failed = true;
            return nullptr;
        }
        all.push_back(p);
        return p;
    }
    void *zeros(size_t bytes) {
        void *p = raw(bytes);
        if (p) cudaMemset(p, 0, bytes);
        return p;
    }
    // Normals: never zeros, which compress and switch fewer transistors.
    void *noise(twk_format f, int64_t n, float scale = 0.5f) {
        void *p = raw((size_t)n * bytes_of(f));
        twk_noise_fill_args a = {};
        a.batch = (n + (1 << 20) - 1) >> 20;
        a.elements = std::min<int64_t>(n, 1 << 20);
        a.out = p;
        a.format = f;
        a.scale = scale;
        a.purpose = TWK_NOISE_GOLDEN;
        a.noise.seed = all.size();
        // Whole samples of 2^20 elements, then the rest.
        a.batch = n / a.elements;
        if (p && twk_noise_fill(&a, nullptr) != TWK_OK) failed = true;
        const int64_t done = a.batch * a.elements;
        if (p && done < n) {
            a.out = static_cast<char *>(p) + (size_t)done * bytes_of(f);
            a.batch = 1;
            a.elements = n - done;
            if (twk_noise_fill(&a, nullptr) != TWK_OK) failed = true;
        }
        return p;
    }
    template <typename T> T *values(const std::vector<T> &v) {
        void *p = raw(v.size() * sizeof(T));
        if (p) cudaMemcpy(p, v.data(), v.size() * sizeof(T), cudaMemcpyHostToDevice);
        return static_cast<T *>(p);
    }
    float *f32(int64_t n, float scale = 0.5f) {
        return static_cast<float *>(noise(TWK_F32, n, scale));
    }
};

using Call = std::function<twk_status(twk_stream)>;

double decode(twk_format f, const unsigned char *p) {
    if (f == TWK_F32) {
        float v;
        memcpy(&v, p, 4);
        return v;
    }
    uint16_t b;
    memcpy(&b, p, 2);
    if (f == TWK_BF16) {
        const uint32_t bits = (uint32_t)b << 16;
        float v;
        memcpy(&v, &bits, 4);
        return v;
    }
    const int e = b >> 10 & 31, m = b & 1023;
    const double v = e == 31 ? NAN : e ? std::ldexp(1024 + m, e - 25) : std::ldexp(m, -24);
    return b & 0x8000 ? -v : v;
}

std::vector<double> fetch(twk_format f, const void *p, int64_t n) {
    std::vector<unsigned char> raw((size_t)n * bytes_of(f));
    cudaMemcpy(raw.data(), p, raw.size(), cudaMemcpyDeviceToHost);
    std::vector<double> v((size_t)n);
    for (int64_t i = 0; i < n; i++) v[(size_t)i] = decode(f, raw.data() + (size_t)i * bytes_of(f));
    return v;
}

// Largest |got - want(a, b)| over n elements; NaN stays NaN.
double largest_error(twk_format fa, const void *a, twk_format fb, const void *b, twk_format fo,
                     const void *out, int64_t n, double (*want)(double, double)) {
    const std::vector<double> x = fetch(fa, a, n), y = fetch(fb, b, n), got = fetch(fo, out, n);
    double worst = 0;
    for (size_t i = 0; i < got.size(); i++) {
        const double error = std::fabs(got[i] - want(x[i], y[i]));
        if (!(error <= worst) && !std::isnan(worst)) worst = error;
    }
    return worst;
}

constexpr int64_t checked = 65536;

twk_ddim_args ddim_args(const Row &r, Memory *m) {
    twk_ddim_row row = {0.6f, 0.4f, 0.25f, 0.8f, 0.2f, r.noisy ? 1.0f : 0.0f, 1, 0};
    const int64_t total = r.n * r.h * r.w * r.c;
    twk_ddim_args a = {};
    a.batch = r.n;
    a.elements = total / r.n;
    a.x = m->f32(total);
    a.m = m->noise(r.format, total);
    a.m_format = r.format;
    a.rows = m->values(std::vector<twk_ddim_row>{row});
    a.n_rows = 1;
    return a;
}

Call sampler_call(const Row &r, Memory *m) {
    const int64_t total = r.n * r.h * r.w * r.c;
    if (r.kind == Kind::ddim) {
        twk_ddim_args a = ddim_args(r, m);
        a.x_out = m->raw((size_t)total * 4);
        if (!r.noisy)
            m->error = [a] {
                return largest_error(TWK_F32, a.x, a.m_format, a.m, TWK_F32, a.x_out, checked,
                                     [](double x, double e) {
                                         const double at = 0.6, ap = 0.8;
                                         const double x0 =
                                             (x - std::sqrt(1 - at) * e) / std::sqrt(at);
                                         return std::sqrt(ap) * x0 + std::sqrt(1 - ap) * e;
                                     });
            };
        return [a](twk_stream s) { return twk_ddim_update(&a, s); };
    }
    if (r.kind == Kind::threshold) {
        const twk_ddim_args a = ddim_args(r, m);
        float *out = m->f32(r.n);
        return [a, out](twk_stream s) { return twk_dynamic_threshold(&a, 0.995f, 10, out, s); };
    }
    if (r.kind == Kind::update) {
        twk_update_row row = {};
        row.dx = row.cx = row.cy = 0.5f;
        row.dp[0] = row.cp[0] = row.ch[0] = row.ch[1] = 0.25f;
        twk_update_args a = {};
        a.batch = r.n;
        a.elements = total / r.n;
        a.x = m->f32(total);
        a.x_out = static_cast<float *>(m->raw((size_t)total * 4));
        a.p_format = r.format;
        a.p[0] = m->noise(r.format, total);
        a.h[0] = m->f32(total);
        a.h[1] = m->f32(total);
        a.rows = m->values(std::vector<twk_update_row>{row});
        a.n_rows = 1;
        return [a](twk_stream s) { return twk_sampler_update(&a, s); };
    }
    if (r.kind == Kind::noising) {
        twk_noising_args a = {};
        a.batch = r.n;
        a.elements = total / r.n;
        a.xt_format = r.format;
        a.x0 = m->f32(total);
        a.x_t = m->raw((size_t)total * bytes_of(r.format));
        a.target = static_cast<float *>(m->raw((size_t)total * 4));
        a.time = m->values(std::vector<int32_t>((size_t)r.n, 0));
        a.a = m->values(std::vector<float>{0.6f});
        a.one_minus_a = m->values(std::vector<float>{0.4f});
        a.n_times = 1;
        a.purpose = TWK_NOISE_TRAIN_NOISE;
        return [a](twk_stream s) { return twk_forward_noising(&a, s); };
    }
    twk_noise_fill_args a = {};
    a.batch = r.n;
    a.elements = total / r.n;
    a.out = m->raw((size_t)total * bytes_of(r.format));
    a.format = r.format;
    a.scale = 1;
    return [a](twk_stream s) { return twk_noise_fill(&a, s); };
}

// The first sample, whole.
double norm_error(const twk_group_norm_args &a) {
    const int64_t n = a.pixels * a.channels, per = a.channels / a.groups;
    const std::vector<double> x = fetch(a.format, a.x, n), y = fetch(a.format, a.y, n);
    const std::vector<double> gamma = fetch(TWK_F32, a.gamma, a.channels);
    const std::vector<double> beta = fetch(TWK_F32, a.beta, a.channels);
    std::vector<double> mean((size_t)a.groups), squares((size_t)a.groups);
    const double size = (double)(per * a.pixels);
    for (int64_t i = 0; i < n; i++) mean[i % a.channels / per] += x[i] / size;
    for (int64_t i = 0; i < n; i++)
        squares[i % a.channels / per] += std::pow(x[i] - mean[i % a.channels / per], 2);
    double worst = 0;
    for (int64_t i = 0; i < n; i++) {
        const int64_t c = i % a.channels, g = c / per;
        const double rstd = 1 / std::sqrt(squares[g] / size + a.epsilon);
        const double u = (x[i] - mean[g]) * rstd * gamma[c] + beta[c];
        const double error = std::fabs(y[i] - u / (1 + std::exp(-u)));
        if (!(error <= worst) && !std::isnan(worst)) worst = error;
    }
    return worst;
}

Call norm_call(const Row &r, Memory *m) {
    const int64_t total = r.n * r.h * r.w * r.c;
    twk_group_norm_args a = {};
    a.batch = r.n;
    a.pixels = r.h * r.w;
    a.channels = (int)r.c;
    a.groups = r.groups;
    a.epsilon = 1e-5f;
    a.silu = 1;
    a.format = r.format;
    a.x = m->noise(r.format, total);
    a.gamma = m->f32(r.c);
    a.beta = m->f32(r.c);
    a.mean = m->f32(r.n * r.groups, 0.01f);
    a.rstd = m->f32(r.n * r.groups);
    const bool forward = r.kind == Kind::norm_forward;
    a.workspace_bytes =
        forward ? twk_group_norm_workspace(&a) : twk_group_norm_backward_workspace(&a);
    a.workspace = m->raw(a.workspace_bytes);
    if (forward) {
        a.y = m->raw((size_t)total * bytes_of(r.format));
        m->error = [a] { return norm_error(a); };
        return [a](twk_stream s) { return twk_group_norm_forward(&a, s); };
    }
    a.dy = m->noise(r.format, total);
    a.dx = m->raw((size_t)total * bytes_of(r.format));
    a.dgamma = m->f32(r.c);
    a.dbeta = m->f32(r.c);
    return [a](twk_stream s) { return twk_group_norm_backward(&a, s); };
}

Call moving_call(const Row &r, Memory *m) {
    const int64_t total = r.n * r.h * r.w * r.c;
    const twk_format f = r.format;
    void *out = m->raw((size_t)total * bytes_of(f));
    if (r.kind == Kind::concat) {
        const void *a = m->noise(f, total / 2), *b = m->noise(f, total / 2);
        const int64_t rows = r.n * r.h * r.w, half = r.c / 2;
        return [=](twk_stream s) { return twk_concat(f, rows, half, half, a, b, out, s); };
    }
    if (r.kind == Kind::spread || r.kind == Kind::pool) {
        const bool pool = r.kind == Kind::pool;
        const void *in = m->noise(f, pool ? total : total / 4);
        const twk_blocks_args a = {r.n, r.h, r.w, r.c, 2, 1.0f, f, in, out};
        return [a, pool](twk_stream s) { return pool ? twk_pool(&a, s) : twk_spread(&a, s); };
    }
    if (r.kind == Kind::image) {
        twk_image_args a = {};
        a.batch = a.n_images = r.n;
        a.h = r.h;
        a.w = r.w;
        a.channels = r.c;
        a.in = static_cast<uint8_t *>(m->noise(TWK_F32, (total + 3) / 4));
        a.format = f;
        a.out = out;
        a.flip = 0.5f;
        return [a](twk_stream s) { return twk_image_to_tensor(&a, s); };
    }
    const twk_convert_args a = {r.n,      r.h * r.w,          r.c, f, f, TWK_NHWC,
                                TWK_NCHW, m->noise(f, total), out};
    return [a](twk_stream s) { return twk_convert(&a, s); };
}

Call small_call(const Row &r, Memory *m) {
    const int64_t total = r.n * r.h * r.w * r.c;
    const twk_format f = r.format;
    if (r.kind == Kind::mse) {
        twk_mse_args a = {};
        a.batch = r.n;
        a.elements = total / r.n;
        a.format = f;
        a.p = m->noise(f, total);
        a.target = m->f32(total);
        a.gradient_scale = 1;
        a.dp = m->raw((size_t)total * bytes_of(f));
        a.sample_loss = m->f32(r.n);
        a.loss = m->f32(1);
        a.workspace_bytes = twk_mse_workspace(a.batch, a.elements);
        a.workspace = m->raw(a.workspace_bytes);
        return [a](twk_stream s) { return twk_mse(&a, s); };
    }
    const void *x = m->noise(f, total);
    if (r.kind == Kind::column_sums) {
        twk_column_sums_args a = {1, r.n * r.h * r.w, r.c, f, x, m->f32(r.c), 0, nullptr, 0};
        a.workspace_bytes = twk_column_sums_workspace(a.batch, a.pixels, a.channels);
        a.workspace = m->raw(a.workspace_bytes);
        return [a](twk_stream s) { return twk_column_sums(&a, s); };
    }
    void *y = m->raw((size_t)total * bytes_of(f));
    if (r.kind == Kind::dropout) {
        twk_dropout_args a = {};
        a.batch = r.n;
        a.elements = total / r.n;
        a.format = f;
        a.x = x;
        a.y = y;
        a.probability = 0.1f;
        return [a](twk_stream s) { return twk_dropout(&a, s); };
    }
    if (r.kind == Kind::add) {
        const void *b = m->noise(f, total);
        m->error = [=] {
            return largest_error(f, x, f, b, f, y, checked,
                                 [](double u, double v) { return u + v; });
        };
        return [=](twk_stream s) { return twk_add(f, total, 1, x, 1, b, y, s); };
    }
    m->error = [=] {
        return largest_error(f, x, f, x, f, y, checked,
                             [](double u, double) { return u / (1 + std::exp(-u)); });
    };
    return [=](twk_stream s) { return twk_activation_forward(TWK_SILU, f, total, x, y, s); };
}

Call adamw_call(const Row &r, Memory *m) {
    // As many tensors as a UNet has, of uneven sizes.
    const int count = 300;
    std::vector<twk_parameter> table;
    int64_t left = r.c;
    for (int i = 0; i < count; i++) {
        twk_parameter p = {};
        p.n = i + 1 == count ? left : std::max<int64_t>(1, left / (count - i) * (1 + i % 3) / 2);
        left -= p.n;
        p.master = m->f32(p.n);
        p.m = m->f32(p.n, 0.01f);
        p.v = static_cast<float *>(m->zeros((size_t)p.n * 4));
        p.ema = m->f32(p.n);
        p.copy = m->raw((size_t)p.n * 2);
        p.gradient = m->f32(p.n, 0.01f);
        p.decay = 0.01f;
        table.push_back(p);
    }
    twk_adamw_args a = {};
    a.n_chunks = twk_adamw_plan(table.data(), count);
    a.parameters = m->values(table);
    a.n_parameters = count;
    a.copy_format = TWK_BF16;
    a.hyper =
        m->values(std::vector<twk_adamw_hyper>{{1e-4f, 0.9f, 0.999f, 1e-8f, 1, 1, 0.999f, 0}});
    a.n_hyper = 1;
    a.state = static_cast<twk_adamw_state *>(m->zeros(sizeof(twk_adamw_state)));
    a.workspace_bytes = twk_adamw_workspace(a.n_chunks);
    a.workspace = m->raw(a.workspace_bytes);
    return [a](twk_stream s) { return twk_adamw(&a, s); };
}

Call make_call(const Row &r, Memory *m) {
    switch (r.kind) {
    case Kind::ddim:
    case Kind::update:
    case Kind::noising:
    case Kind::threshold:
    case Kind::noise:
        return sampler_call(r, m);
    case Kind::norm_forward:
    case Kind::norm_backward:
        return norm_call(r, m);
    case Kind::concat:
    case Kind::spread:
    case Kind::pool:
    case Kind::convert:
    case Kind::image:
        return moving_call(r, m);
    case Kind::adamw:
        return adamw_call(r, m);
    default:
        return small_call(r, m);
    }
}

} // namespace

Job make_job(const Row &row) {
    // Several times the cache in all; at least two sets, so that none is still there.
    const double wanted = 512e6;
    Job job;
    auto memory = std::make_shared<Memory>();
    auto calls = std::make_shared<std::vector<Call>>();
    const int sets = std::clamp((int)(wanted / row.bytes) + 1, 2, 64);
    for (int i = 0; i < sets; i++) {
        calls->push_back(make_call(row, memory.get()));
        if (i == 0) job.error.swap(memory->error);
    }
    if (memory->failed) return job;
    job.sets = sets;
    job.memory = memory;
    job.run = [calls](int set, twk_stream stream) { return (*calls)[(size_t)set](stream); };
    return job;
}

} // namespace bench
