// Multi-tensor AdamW: several steps against float64, clipping, EMA, copies, skipped updates.
#include "support.h"

#include <cstring>

using namespace tst;

namespace {

class OptimizerTest : public KernelTest {};

struct Parameter {
    Tensor master, m, v, ema, copy, gradient;
    std::vector<double> w, dm, dv, de; // float64
    double decay;
};

struct Plan {
    twk_format gradient, copy;
    std::vector<int64_t> sizes;
    double max_norm;
    bool with_ema, with_copy;
    size_t shift;
};

struct Fixture {
    std::vector<Parameter> all;
    std::vector<twk_parameter> table;
    Buffer table_on, hyper_on, state_on, workspace;
    twk_adamw_args args = {};
    std::vector<twk_adamw_hyper> hyper;
};

void prepare(const Plan &r, Fixture *f) {
    for (const int64_t n : r.sizes) {
        Parameter p;
        p.master = random_tensor(TWK_F32, n, 2, r.shift);
        p.m = Tensor(TWK_F32, std::vector<double>((size_t)n, 0.0), r.shift);
        p.v = Tensor(TWK_F32, std::vector<double>((size_t)n, 0.0), r.shift);
        p.ema = Tensor(TWK_F32, p.master.v, r.shift);
        p.copy = Tensor(r.copy, n, r.shift);
        p.gradient = random_tensor(r.gradient, n, 2, r.shift);
        p.w = p.de = p.master.v;
        p.dm = p.dv = std::vector<double>((size_t)n, 0.0);
        p.decay = (double)(float)(pick(2) ? 0.01 : 0.0);
        f->all.push_back(std::move(p));
    }
    for (Parameter &p : f->all) {
        twk_parameter t = {};
        t.n = (int64_t)p.w.size();
        t.master = p.master.f32();
        t.m = p.m.f32();
        t.v = p.v.f32();
        t.ema = r.with_ema ? p.ema.f32() : nullptr;
        t.copy = r.with_copy ? p.copy.data() : nullptr;
        t.gradient = p.gradient.data();
        t.decay = (float)p.decay;
        f->table.push_back(t);
    }
    f->args.n_chunks = twk_adamw_plan(f->table.data(), (int32_t)f->table.size());
    ASSERT_GT(f->args.n_chunks, 0);
    f->table_on = upload(f->table);
    f->hyper = {{1e-2f, 0.9f, 0.999f, 1e-8f, (float)r.max_norm, 0.5f, 0.99f, 0}};
    f->hyper_on = upload(f->hyper);
    f->state_on = upload(std::vector<twk_adamw_state>(1));
    f->workspace = Buffer(twk_adamw_workspace(f->args.n_chunks));
    f->args.parameters = static_cast<twk_parameter *>(f->table_on.data());
    f->args.n_parameters = (int32_t)f->table.size();
    f->args.gradient_format = r.gradient;
    f->args.copy_format = r.copy;
    f->args.hyper = static_cast<twk_adamw_hyper *>(f->hyper_on.data());
    f->args.n_hyper = 1;
    f->args.state = static_cast<twk_adamw_state *>(f->state_on.data());
    f->args.workspace = f->workspace.data();
    f->args.workspace_bytes = f->workspace.size();
}

twk_adamw_state state_of(const Fixture &f) {
    return fetch<twk_adamw_state>(f.state_on)[0];
}

// One step in float64; gives the norm.
double step_reference(const Plan &r, Fixture *f, int step, int mistake) {
    const twk_adamw_hyper &h = f->hyper[0];
    double sum = 0;
    for (Parameter &p : f->all)
        for (double g : p.gradient.v) sum += g * g;
    const double norm = std::sqrt(sum) * h.gradient_scale;
    double factor = h.gradient_scale;
    if (r.max_norm > 0 && norm > r.max_norm) factor *= (double)h.max_norm / norm;
    const double c1 = 1 - std::pow((double)h.beta1, step), c2 = 1 - std::pow((double)h.beta2, step);
    for (Parameter &p : f->all)
        for (size_t i = 0; i < p.w.size(); i++) {
            const double g = p.gradient.v[i] * factor;
            p.dm[i] = h.beta1 * p.dm[i] + (1 - (double)h.beta1) * g;
            p.dv[i] = h.beta2 * p.dv[i] + (1 - (double)h.beta2) * g * g;
            const double shrink = mistake == 1 ? 1 : 1 - (double)h.lr * 0.01;
            p.w[i] *= p.decay > 0 ? shrink : 1;
            p.w[i] -= (double)h.lr * (p.dm[i] / c1) / (std::sqrt(p.dv[i] / c2) + h.epsilon);
            p.de[i] += (1 - (double)h.ema_decay) * (p.w[i] - p.de[i]);
        }
    return norm;
}

int64_t compare(const Plan &r, const Fixture &f, std::string *what) {
    int64_t bad = 0;
    auto check = [&](const Tensor &t, const std::vector<double> &want, double extra, double c) {
        std::vector<Expected> e;
        for (double w : want) e.push_back({w, std::fabs(w) + extra});
        bad += count_bad(t.read(), e, t.format, c, what);
    };
    for (const Parameter &p : f.all) {
        check(p.master, p.w, 0.05, 32); // lr times a quotient of size one, five steps
        check(p.m, p.dm, 0.2, 32);
        check(p.v, p.dv, 1e-4, 64);
        if (r.with_ema) check(p.ema, p.de, 0.05, 32);
        if (r.with_copy) check(p.copy, p.w, 0.05, 32);
    }
    return bad;
}

TEST_F(OptimizerTest, FiveStepsStayWithFloat64) {
    for (twk_format gradient : formats)
        for (twk_format copy : formats)
            for (const double max_norm : {0.0, 1.0}) {
                const Plan r = {gradient,       copy,        {1, 7, 8192, 3, 8193, 300, 64},
                                max_norm,       pick(3) > 0, pick(3) > 0,
                                (size_t)pick(2)};
                Fixture f;
                prepare(r, &f);
                for (int step = 1; step <= 5; step++) {
                    LAUNCH_OK(twk_adamw(&f.args, nullptr));
                    const double norm = step_reference(r, &f, step, 0);
                    EXPECT_NEAR(state_of(f).norm / norm, 1, 1e-5);
                    EXPECT_EQ(state_of(f).step, (uint32_t)step);
                    for (Parameter &p : f.all) {
                        std::vector<double> g(p.w.size());
                        for (double &v : g) v = tst::uniform(-2, 2);
                        p.gradient.write(g);
                    }
                }
                std::string what;
                EXPECT_EQ(compare(r, f, &what), 0) << name_of(gradient) << ": " << what;
            }
}

TEST_F(OptimizerTest, NoticesPlantedMistakes) {
    const Plan r = {TWK_F32, TWK_BF16, {400, 500, 600, 700}, 0, true, true, 0};
    Fixture f;
    prepare(r, &f);
    for (Parameter &p : f.all) p.decay = 0.01;
    for (size_t i = 0; i < f.all.size(); i++) f.table[i].decay = 0.01f;
    f.table_on.upload(f.table.data());
    LAUNCH_OK(twk_adamw(&f.args, nullptr));
    step_reference(r, &f, 1, 1); // decay forgotten
    EXPECT_GT(compare(r, f, nullptr), 0);
}

TEST_F(OptimizerTest, ANormThatIsNotFiniteSkipsTheUpdate) {
    for (const double poison : {(double)INFINITY, (double)NAN}) {
        const Plan r = {TWK_BF16, TWK_BF16, {10, 9000}, 1, true, true, 0};
        Fixture f;
        prepare(r, &f);
        LAUNCH_OK(twk_adamw(&f.args, nullptr));
        step_reference(r, &f, 1, 0);
        std::vector<double> g = f.all[1].gradient.v, spoiled = g;
        spoiled[8999] = poison;
        f.all[1].gradient.write(spoiled);
        std::vector<std::vector<uint32_t>> before;
        for (const Parameter &p : f.all)
            for (const Tensor *t : {&p.master, &p.m, &p.v, &p.ema})
                before.push_back(fetch<uint32_t>(t->buffer));
        LAUNCH_OK(twk_adamw(&f.args, nullptr));
        LAUNCH_OK(twk_adamw(&f.args, nullptr));
        EXPECT_EQ(state_of(f).skipped, 2u);
        EXPECT_EQ(state_of(f).step, 1u);
        size_t k = 0;
        for (const Parameter &p : f.all)
            for (const Tensor *t : {&p.master, &p.m, &p.v, &p.ema})
                EXPECT_EQ(fetch<uint32_t>(t->buffer), before[k++]);
        // And it goes on as if nothing had been.
        f.all[1].gradient.write(g);
        LAUNCH_OK(twk_adamw(&f.args, nullptr));
        step_reference(r, &f, 2, 0);
        std::string what;
        EXPECT_EQ(compare(r, f, &what), 0) << what;
        EXPECT_EQ(state_of(f).step, 2u);
    }
}

TEST_F(OptimizerTest, RepeatsToTheBit) {
    const Plan r = {TWK_F32, TWK_BF16, {5000, 20000, 33}, 1, true, true, 0};
    std::vector<uint32_t> first;
    std::vector<double> weights, gradients;
    for (int run = 0; run < 2; run++) {
        Fixture f;
        prepare(r, &f);
        if (run == 0) {
            weights = f.all[1].master.v;
            gradients = f.all[1].gradient.v;
        }
        f.all[1].master.write(weights);
        f.all[1].gradient.write(gradients);
        f.all[0].gradient.write(std::vector<double>(5000, 0.5));
        f.all[2].gradient.write(std::vector<double>(33, 0.25));
        f.all[1].ema.write(weights);
        f.table[1].decay = 0;
        f.table_on.upload(f.table.data());
        LAUNCH_OK(twk_adamw(&f.args, nullptr));
        const std::vector<uint32_t> got = fetch<uint32_t>(f.all[1].master.buffer);
        if (run == 0)
            first = got;
        else
            EXPECT_EQ(got, first);
    }
}

TEST_F(OptimizerTest, RefusesWhatIsWrong) {
    const Plan r = {TWK_F32, TWK_F32, {4}, 0, false, false, 0};
    Fixture f;
    prepare(r, &f);
    twk_adamw_args a = f.args;
    a.workspace_bytes = 0;
    EXPECT_EQ(twk_adamw(&a, nullptr), TWK_BAD_ARGUMENT);
    a = f.args;
    a.n_chunks = 0;
    EXPECT_EQ(twk_adamw(&a, nullptr), TWK_BAD_ARGUMENT);
    a = f.args;
    a.state = nullptr;
    EXPECT_EQ(twk_adamw(&a, nullptr), TWK_BAD_ARGUMENT);
    EXPECT_EQ(twk_adamw_plan(nullptr, 1), -1);
    f.table[0].n = 0;
    EXPECT_EQ(twk_adamw_plan(f.table.data(), 1), -1);
}

} // namespace
