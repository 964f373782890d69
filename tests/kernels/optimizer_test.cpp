// The norm over many tensors and AdamW: several steps against float64, clipping, the average of the
// weights and its warm-up, copies, skipped updates.
#include "support.h"

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
    bool with_ema, with_copy, warmup;
    size_t shift;
};

struct Fixture {
    std::vector<Parameter> all;
    std::vector<twk_parameter> table;
    Buffer table_on, hyper_on, norm_on, count_on, workspace;
    twk_adamw_args args = {};
    twk_adamw_hyper hyper;

    double norm() const { return (double)fetch<float>(norm_on)[0]; }
    std::vector<int64_t> counted() const { return fetch<int64_t>(count_on); }
    void step() {
        LAUNCH_OK(twk_gradient_norm(&args, nullptr));
        LAUNCH_OK(twk_adamw(&args, nullptr));
    }
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
        p.decay = (double)(float)(pick(2) ? 0.02 : 0.0);
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
    f->hyper = {1e-2f, 0.9f, 0.999f, 1e-8f, 0.01f, (float)r.max_norm, 0.99f, (float)r.warmup};
    f->hyper_on = upload(std::vector<twk_adamw_hyper>{f->hyper});
    f->norm_on = upload(std::vector<float>{NAN});
    f->count_on = upload(std::vector<int64_t>{0, 0});
    f->workspace = Buffer(twk_adamw_workspace(f->args.n_chunks));
    f->args.parameters = static_cast<twk_parameter *>(f->table_on.data());
    f->args.n_parameters = (int32_t)f->table.size();
    f->args.gradient_format = r.gradient;
    f->args.copy_format = r.copy;
    f->args.hyper = static_cast<twk_adamw_hyper *>(f->hyper_on.data());
    f->args.norm = static_cast<float *>(f->norm_on.data());
    f->args.count = static_cast<int64_t *>(f->count_on.data());
    f->args.workspace = f->workspace.data();
    f->args.workspace_bytes = f->workspace.size();
}

enum Mistake { NONE, NO_DECAY, NO_DECAY_OF_ONE, NO_CORRECTION, WITHOUT_ONE };

// One step in float64; gives the norm.
double step_reference(Fixture *f, int step, Mistake mistake) {
    const twk_adamw_hyper &h = f->hyper;
    double sum = 0;
    for (const Parameter &p : f->all)
        for (double g : p.gradient.v)
            if (mistake != WITHOUT_ONE || &p != &f->all[1]) sum += g * g;
    const double norm = std::sqrt(sum), warm = step / (9.0 + step);
    const double factor = h.max_norm > 0 && norm > h.max_norm ? (double)h.max_norm / norm : 1;
    const double c1 = mistake == NO_CORRECTION ? 1 : 1 - std::pow((double)h.beta1, step);
    const double c2 = 1 - std::pow((double)h.beta2, step);
    const double keep = h.ema_warmup != 0 && warm < h.ema_decay ? warm : (double)h.ema_decay;
    for (Parameter &p : f->all) {
        const double own = mistake == NO_DECAY_OF_ONE && &p == &f->all[1] ? 0 : p.decay;
        const double decay = mistake == NO_DECAY ? own : own + (double)h.decay;
        for (size_t i = 0; i < p.w.size(); i++) {
            const double g = p.gradient.v[i] * factor;
            p.dm[i] = h.beta1 * p.dm[i] + (1 - (double)h.beta1) * g;
            p.dv[i] = h.beta2 * p.dv[i] + (1 - (double)h.beta2) * g * g;
            p.w[i] *= 1 - (double)h.lr * decay;
            p.w[i] -= (double)h.lr * (p.dm[i] / c1) / (std::sqrt(p.dv[i] / c2) + h.epsilon);
            p.de[i] += (1 - keep) * (p.w[i] - p.de[i]);
        }
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
    int trial = 0;
    for (twk_format gradient : formats)
        for (twk_format copy : formats)
            for (const double max_norm : {0.0, 1.0}) {
                const Plan r = {gradient,         copy,           {1, 7, 8192, 3, 8193, 300, 64},
                                max_norm,         pick(3) > 0,    pick(3) > 0,
                                trial++ % 2 == 0, (size_t)pick(2)};
                Fixture f;
                prepare(r, &f);
                for (int step = 1; step <= 5; step++) {
                    f.step();
                    const double norm = step_reference(&f, step, NONE);
                    EXPECT_NEAR(f.norm() / norm, 1, 1e-6);
                    EXPECT_EQ(f.counted(), (std::vector<int64_t>{step, 0}));
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

// Without a table on the device: the launch's own parameter.
TEST_F(OptimizerTest, OneTensorNeedsNoTable) {
    for (const int64_t n : {1, 8191, 20000}) {
        const Plan r = {TWK_F32, TWK_BF16, {n}, 1, true, true, true, 0};
        Fixture f;
        prepare(r, &f);
        f.args.one = f.table[0];
        f.args.parameters = nullptr;
        f.args.n_parameters = 0;
        f.args.n_chunks = 0;
        for (int step = 1; step <= 2; step++) {
            f.step();
            EXPECT_NEAR(f.norm() / step_reference(&f, step, NONE), 1, 1e-6);
        }
        std::string what;
        EXPECT_EQ(compare(r, f, &what), 0) << n << ": " << what;
    }
}

TEST_F(OptimizerTest, NoticesPlantedMistakes) {
    NOT_FOR_RACES();
    for (Mistake mistake : {NO_DECAY, NO_DECAY_OF_ONE, NO_CORRECTION, WITHOUT_ONE}) {
        const Plan r = {TWK_F32, TWK_BF16, {400, 500, 600, 700}, 1, true, true, false, 0};
        Fixture f;
        prepare(r, &f);
        for (Parameter &p : f.all) p.decay = (double)0.02f;
        for (twk_parameter &p : f.table) p.decay = 0.02f;
        f.table_on.upload(f.table.data());
        f.step();
        const double norm = step_reference(&f, 1, mistake);
        EXPECT_GT(compare(r, f, nullptr), 0) << mistake;
        EXPECT_EQ(std::fabs(f.norm() / norm - 1) > 1e-3, mistake == WITHOUT_ONE) << mistake;
    }
}

TEST_F(OptimizerTest, ANormThatIsNotFiniteSkipsTheUpdate) {
    for (const double poison : {(double)INFINITY, (double)NAN}) {
        const Plan r = {TWK_BF16, TWK_BF16, {10, 9000}, 1, true, true, false, 0};
        Fixture f;
        prepare(r, &f);
        f.step();
        step_reference(&f, 1, NONE);
        std::vector<double> g = f.all[1].gradient.v, spoiled = g;
        spoiled[8999] = poison;
        f.all[1].gradient.write(spoiled);
        std::vector<std::vector<uint32_t>> before;
        for (const Parameter &p : f.all)
            for (const Tensor *t : {&p.master, &p.m, &p.v, &p.ema})
                before.push_back(fetch<uint32_t>(t->buffer));
        f.step();
        f.step();
        EXPECT_EQ(f.counted(), (std::vector<int64_t>{1, 2}));
        size_t k = 0;
        for (const Parameter &p : f.all)
            for (const Tensor *t : {&p.master, &p.m, &p.v, &p.ema})
                EXPECT_EQ(fetch<uint32_t>(t->buffer), before[k++]);
        // And it goes on as if nothing had been.
        f.all[1].gradient.write(g);
        f.step();
        step_reference(&f, 2, NONE);
        std::string what;
        EXPECT_EQ(compare(r, f, &what), 0) << what;
        EXPECT_EQ(f.counted(), (std::vector<int64_t>{2, 2}));
    }
}

TEST_F(OptimizerTest, RepeatsToTheBit) {
    NOT_FOR_RACES();
    const Plan r = {TWK_F32, TWK_BF16, {5000, 20000, 33}, 1, true, true, false, 0};
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
        f.step();
        const std::vector<uint32_t> got = fetch<uint32_t>(f.all[1].master.buffer);
        if (run == 0)
            first = got;
        else
            EXPECT_EQ(got, first);
    }
}

TEST_F(OptimizerTest, RefusesWhatIsWrong) {
    const Plan r = {TWK_F32, TWK_F32, {4}, 0, false, false, false, 0};
    Fixture f;
    prepare(r, &f);
    using Change = void (*)(twk_adamw_args *);
    const Change both[] = {
        [](twk_adamw_args *a) { a->workspace_bytes = 0; },
        [](twk_adamw_args *a) { a->n_chunks = 0; },
        [](twk_adamw_args *a) { a->n_parameters = 0; },
        [](twk_adamw_args *a) { a->norm = nullptr; },
        [](twk_adamw_args *a) { a->parameters = nullptr; }, // and no tensor of its own
    };
    for (const Change change : both) {
        twk_adamw_args a = f.args;
        change(&a);
        EXPECT_EQ(twk_gradient_norm(&a, nullptr), TWK_BAD_ARGUMENT);
        EXPECT_EQ(twk_adamw(&a, nullptr), TWK_BAD_ARGUMENT);
    }
    twk_adamw_args a = f.args;
    a.hyper = nullptr;
    EXPECT_EQ(twk_adamw(&a, nullptr), TWK_BAD_ARGUMENT);
    a = f.args;
    a.count = nullptr;
    EXPECT_EQ(twk_adamw(&a, nullptr), TWK_BAD_ARGUMENT);
    EXPECT_EQ(twk_adamw_workspace(0), 0u);
    EXPECT_EQ(twk_adamw_plan(nullptr, 1), -1);
    f.table[0].n = 0;
    EXPECT_EQ(twk_adamw_plan(f.table.data(), 1), -1);
}

} // namespace
