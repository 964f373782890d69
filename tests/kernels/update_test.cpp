// The general sampler update and the forward noising.
#include "schedule.h"
#include "support.h"

#include <algorithm>

using namespace tst;

namespace {

class UpdateTest : public KernelTest {};

TEST_F(UpdateTest, GeneralUpdate) {
    for (const Shape &s : shapes()) {
        for (int trial = 0; trial < 4; trial++) {
            const int64_t n = s.total(), e = s.elements();
            const size_t shift = (size_t)pick(2);
            const twk_format pf = formats[trial % 3];
            Tensor x = random_tensor(TWK_F32, n, 2, shift), p[2], h[3], out(TWK_F32, n, shift),
                   y_out(TWK_F32, n, shift), error(TWK_F32, s.n);
            bool have_p[2], have_h[3];
            for (int k = 0; k < 2; k++) {
                p[k] = random_tensor(pf, n, 2, shift);
                have_p[k] = pick(4) > 0;
            }
            for (int k = 0; k < 3; k++) {
                h[k] = random_tensor(TWK_F32, n, 2, shift);
                have_h[k] = pick(2);
            }
            twk_update_row r = {};
            float *const coefficients = &r.dx;
            for (int k = 0; k < 18; k++) coefficients[k] = (float)tst::uniform(-1, 1);
            r.clip = pick(2) ? 0.5f : 0;
            if (pick(2)) r.cz = 0;
            r.noise_step = (uint32_t)pick(100);
            r.log_large = (float)tst::uniform(-4, -1);
            r.log_small = (float)tst::uniform(-8, -4);
            Tensor variance = random_tensor(pf, n, 2, shift);
            const bool learned = pick(3) == 0;
            Buffer rows_on = upload(std::vector<twk_update_row>{twk_update_row{}, r});
            Buffer counter = upload(std::vector<uint32_t>{1});
            Buffer workspace(twk_sampler_update_workspace(s.n, e));
            twk_update_args a = {};
            a.batch = s.n;
            a.elements = e;
            a.x = x.f32();
            a.x_out = out.f32();
            a.y_out = pick(2) ? y_out.f32() : nullptr;
            a.p_format = pf;
            for (int k = 0; k < 2; k++) a.p[k] = have_p[k] ? p[k].data() : nullptr;
            for (int k = 0; k < 3; k++) a.h[k] = have_h[k] ? h[k].f32() : nullptr;
            a.variance = learned ? variance.data() : nullptr;
            a.rows = static_cast<twk_update_row *>(rows_on.data());
            a.n_rows = 2;
            a.counter = static_cast<uint32_t *>(counter.data());
            a.noise.seed = 3;
            a.error_out = pick(2) ? error.f32() : nullptr;
            a.atol = 1e-3f;
            a.rtol = 1e-2f;
            a.workspace = workspace.data();
            a.workspace_bytes = workspace.size();
            LAUNCH_OK(twk_sampler_update(&a, nullptr));
            std::vector<Expected> want((size_t)n), want_y((size_t)n), want_error((size_t)s.n);
            for (int64_t i = 0; i < n; i++) {
                Expected y, err, o;
                y.add((double)r.dx * x.v[i]);
                o.add((double)r.cx * x.v[i]);
                err.add((double)r.ex * x.v[i]);
                for (int k = 0; k < 2; k++) {
                    if (!have_p[k]) continue;
                    y.add((double)r.dp[k] * p[k].v[i]);
                    o.add((double)r.cp[k] * p[k].v[i]);
                    err.add((double)r.ep[k] * p[k].v[i]);
                }
                for (int k = 0; k < 3; k++) {
                    if (!have_h[k]) continue;
                    o.add((double)r.ch[k] * h[k].v[i]);
                    err.add((double)r.eh[k] * h[k].v[i]);
                }
                if (r.clip > 0) y.value = std::clamp(y.value, -(double)r.clip, (double)r.clip);
                want_y[i] = y;
                o.value += (double)r.cy * y.value;
                o.terms += std::fabs(r.cy) * y.terms;
                err.value += (double)r.ey * y.value;
                err.terms += std::fabs(r.ey) * y.terms;
                if (r.cz != 0) {
                    const double z = noise_normal(
                        {3, (uint64_t)(i / e), TWK_NOISE_SAMPLER, r.noise_step}, i % e);
                    double k = r.cz, slack = 1;
                    if (learned) {
                        const double f = (variance.v[i] + 1) / 2;
                        const double log_variance = f * r.log_large + (1 - f) * r.log_small;
                        k *= std::exp(log_variance / 2);
                        slack += std::fabs(variance.v[i]) * 2 + 4; // of the exponent's terms
                    }
                    o.value += k * z;
                    o.terms += std::fabs(k) * std::max(1.0, std::fabs(z)) * slack;
                }
                want[i] = o;
                const double size = std::max(std::fabs(x.v[i]), std::fabs(o.value));
                const double part = err.value / (a.atol + (double)a.rtol * size);
                want_error[i / e].value += part * part;
                // Relative errors of err and of the size, carried through the quotient.
                want_error[i / e].terms +=
                    2 * std::fabs(part) * (err.terms / (a.atol + a.rtol * size)) +
                    2 * part * part * (1 + a.rtol * o.terms / (a.atol + a.rtol * size));
            }
            const std::string label = tst::str(s) + " trial " + std::to_string(trial);
            expect_close(out.read(), want, TWK_F32, 32, label);
            if (a.y_out) expect_close(y_out.read(), want_y, TWK_F32, 8, label);
            if (!a.error_out) continue;
            for (Expected &v : want_error) {
                const double norm = std::sqrt(v.value / (double)e);
                v = {norm, norm > 0 ? v.terms / (double)e / norm : 1};
            }
            expect_close(error.read(), want_error, TWK_F32, 64, label + " error norm");
        }
    }
}

TEST_F(UpdateTest, GeneralUpdateRefusesTooLittleWorkspace) {
    Tensor x = random_tensor(TWK_F32, 16), error(TWK_F32, 1);
    Buffer rows_on = upload(std::vector<twk_update_row>{twk_update_row{}});
    twk_update_args a = {};
    a.batch = 1;
    a.elements = 16;
    a.x = a.x_out = x.f32();
    a.rows = static_cast<twk_update_row *>(rows_on.data());
    a.n_rows = 1;
    a.error_out = error.f32();
    a.atol = 1;
    EXPECT_EQ(twk_sampler_update(&a, nullptr), TWK_BAD_ARGUMENT);
    EXPECT_EQ(twk_sampler_update_workspace(0, 5), 0u);
}

TEST_F(UpdateTest, ForwardNoising) {
    const Schedule schedule(100);
    std::vector<float> table_a, table_b;
    for (double v : schedule.a) {
        table_a.push_back((float)v);
        table_b.push_back((float)(1 - v));
    }
    Buffer a_on = upload(table_a), b_on = upload(table_b);
    for (const Shape &s : shapes()) {
        for (int trial = 0; trial < 9; trial++) {
            const int64_t n = s.total(), e = s.elements();
            const twk_format f0 = formats[trial / 3], ft = formats[trial % 3];
            const size_t shift = (size_t)pick(2);
            Tensor x0 = random_tensor(f0, n, 2, shift), xt(ft, n, shift), target(TWK_F32, n, shift);
            std::vector<int32_t> time((size_t)s.n);
            for (int32_t &t : time) t = (int32_t)pick(100);
            Buffer time_on = upload(time), step_on = upload(std::vector<uint32_t>{17});
            twk_noising_args a = {};
            a.batch = s.n;
            a.elements = e;
            a.x0_format = f0;
            a.xt_format = ft;
            a.x0 = x0.data();
            a.x_t = xt.data();
            a.target = pick(4) ? target.f32() : nullptr;
            a.prediction = (twk_prediction)pick(4);
            a.time = static_cast<int32_t *>(time_on.data());
            a.a = static_cast<float *>(a_on.data());
            a.one_minus_a = static_cast<float *>(b_on.data());
            a.n_times = 100;
            a.purpose = TWK_NOISE_TRAIN_NOISE;
            a.step = 5;
            const bool on_device = pick(2);
            a.device_step = on_device ? static_cast<uint32_t *>(step_on.data()) : nullptr;
            a.noise.seed = 99;
            LAUNCH_OK(twk_forward_noising(&a, nullptr));
            std::vector<Expected> want((size_t)n), want_target((size_t)n);
            for (int64_t i = 0; i < n; i++) {
                const double at = schedule.a[time[i / e]], ca = std::sqrt(at),
                             cb = std::sqrt(1 - at);
                const double z = noise_normal(
                    {99, (uint64_t)(i / e), TWK_NOISE_TRAIN_NOISE, on_device ? 17u : 5u}, i % e);
                const double zs = std::max(1.0, std::fabs(z)), x = x0.v[i];
                want[i] = {ca * x + cb * z, ca * std::fabs(x) + cb * zs};
                switch (a.prediction) {
                case TWK_PREDICT_EPSILON:
                    want_target[i] = {z, zs};
                    break;
                case TWK_PREDICT_SAMPLE:
                    want_target[i] = {x, std::fabs(x)};
                    break;
                case TWK_PREDICT_V:
                    want_target[i] = {ca * z - cb * x, ca * zs + cb * std::fabs(x)};
                    break;
                case TWK_PREDICT_SCORE:
                    want_target[i] = {-z / cb, zs / cb};
                    break;
                }
            }
            const std::string label = tst::str(s) + " trial " + std::to_string(trial);
            expect_close(xt.read(), want, ft, 32, label);
            if (a.target) expect_close(target.read(), want_target, TWK_F32, 32, label + " target");
            if (trial == 0 && n > 8) { // a planted mistake: a wrong time step
                for (int64_t i = 0; i < n; i++) want[i].value += 1e-4 * want[i].terms;
                EXPECT_GT(count_bad(xt.read(), want, ft, 32), 0);
            }
        }
    }
}

} // namespace
