// The compute plan: shapes, gradients, memory, regions, and the rules that a caller relies on.
#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <functional>
#include <limits>
#include <random>
#include <string>
#include <vector>

extern "C" {
#include "backend/backend.h"
#include "core/context.h"
#include "graph/builder.h"
#include "graph/internal.h"
#include "graph/times.h"
}

namespace {

using Shape = std::vector<int64_t>;

class PlanTest : public ::testing::Test {
  protected:
    void SetUp() override {
        tw_context_options options = TW_CONTEXT_OPTIONS_INIT;
        options.device = TW_DEVICE_CPU;
        options.poison = 1;
        ASSERT_EQ(tw_context_create(&options, &ctx), TW_OK) << tw_context_error(nullptr);
    }
    void TearDown() override { tw_context_free(ctx); }

    tw_plan *make(tw_dtype precision = TW_F64, bool regions = true) {
        tw_plan_options options = TW_PLAN_OPTIONS_INIT;
        options.precision = precision;
        options.no_fusion = regions ? 0 : TW_FUSION_ALL;
        tw_plan *plan = nullptr;
        EXPECT_EQ(tw_plan_create(ctx, &options, &plan), TW_OK);
        return plan;
    }
    std::string error() const { return tw_context_error(ctx); }

    tw_context *ctx = nullptr;
};

int64_t count(const Shape &shape) {
    int64_t n = 1;
    for (int64_t d : shape) n *= d;
    return n;
}

std::vector<double> random_values(int64_t n, unsigned seed, double scale = 1) {
    std::mt19937 gen(seed);
    std::normal_distribution<double> normal(0, scale);
    std::vector<double> v(n);
    for (double &x : v) x = normal(gen);
    return v;
}

tw_value input(tw_plan *p, const char *name, const Shape &s, tw_dtype type = TW_F64) {
    return tw_plan_input(p, name, type, (int)s.size(), s.data());
}
tw_value parameter(tw_plan *p, const char *name, const Shape &s) {
    return tw_plan_parameter(p, name, (int)s.size(), s.data());
}

template <typename T> void write(tw_plan *p, tw_value v, const std::vector<T> &data) {
    ASSERT_EQ(tw_plan_write(p, v, data.data(), data.size() * sizeof(T)), TW_OK);
}
template <typename T> std::vector<T> read(tw_plan *p, tw_value v, int64_t n) {
    std::vector<T> out(n, std::numeric_limits<T>::quiet_NaN());
    EXPECT_EQ(tw_plan_read(p, v, out.data(), n * sizeof(T)), TW_OK);
    return out;
}

TEST_F(PlanTest, LinearReluByHand) {
    tw_plan *p = make(TW_F32);
    tw_value x = input(p, "x", {2, 2}, TW_F32), w = parameter(p, "w", {3, 2}),
             b = parameter(p, "b", {3});
    tw_value y = tw_plan_activation(p, tw_plan_linear(p, x, w, b), TW_RELU);
    tw_plan_keep(p, y);
    ASSERT_EQ(tw_plan_compile(p), TW_OK) << error();
    write<float>(p, x, {1, 2, -1, 0.5});
    write<float>(p, w, {1, 1, -1, 0, 0, 2});
    write<float>(p, b, {0, 0.5, -5});
    ASSERT_EQ(tw_plan_run(p), TW_OK);
    EXPECT_EQ(read<float>(p, y, 6), (std::vector<float>{3, 0, 0, 0, 1.5, 0}));
    tw_plan_free(p);
}

// A network in which values are used twice, seen through views, split, and partly ignored.
struct Tangle {
    tw_value x, index, rng, loss;
    std::vector<std::pair<tw_value, Shape>> learned;
};

Tangle build_tangle(tw_plan *p) {
    Tangle t;
    auto learn = [&](const char *name, const Shape &shape) {
        tw_value v = parameter(p, name, shape);
        t.learned.push_back({v, shape});
        return v;
    };
    t.x = input(p, "x", {2, 4, 4, 3});
    t.index = input(p, "index", {2}, TW_I32);
    t.rng = tw_plan_state(p, "rng", TW_I64, 1, Shape{4}.data());
    tw_plan_want_gradient(p, t.x);
    tw_value w1 = learn("w1", {8, 3, 3, 3}), b1 = learn("b1", {8});
    tw_value h = tw_plan_conv2d(p, t.x, w1, b1, {1, 1, 1, 1, 1});
    tw_value table = learn("table", {5, 8});
    tw_value e = tw_plan_embedding(p, table, t.index);
    h = tw_plan_add_vector(p, h, e);
    tw_value gamma = learn("gamma", {8}), beta = learn("beta", {8}), ss = learn("ss", {2, 16});
    tw_value n = tw_plan_group_norm(p, h, gamma, beta, ss, {2, 1e-5, 1});
    tw_value d = tw_plan_conv2d(p, n, learn("w2", {8, 3, 3, 8}), TW_NONE, {2, 0, 0, 1, 1});
    tw_value flat = tw_plan_reshape(p, d, 3, Shape{2, 4, 8}.data());
    tw_value q = tw_plan_linear(p, flat, learn("wq", {8, 8}), learn("bq", {8}));
    tw_value a = tw_plan_attention(p, q, flat, q, TW_NONE, 2, 0);
    a = tw_plan_dropout(p, a, t.rng, 0.25, 3);
    tw_value back = tw_plan_reshape(p, a, 4, Shape{2, 2, 2, 8}.data());
    tw_value up = tw_plan_upsample_nearest(p, tw_plan_add(p, back, d, 0.5, 2.0), 2);
    tw_value both[] = {up, h, n};
    tw_value cat = tw_plan_concat(p, both, 3);
    tw_value part[3];
    EXPECT_EQ(tw_plan_split(p, cat, Shape{5, 9, 10}.data(), 3, part), TW_OK);
    tw_value pooled = tw_plan_average_pool(p, tw_plan_activation(p, part[0], TW_GELU), 2);
    tw_value twice = tw_plan_repeat_batch(p, part[2]);
    tw_value s = tw_plan_mse(p, pooled, tw_plan_scale(p, pooled, -0.5, 0.1), TW_NONE, nullptr);
    tw_value r = tw_plan_mse(p, twice, tw_plan_scale(p, twice, 0.0, 0.3), TW_NONE, nullptr);
    /* A parameter that is reached without an accumulating operation. */
    tw_value extra = learn("extra", {1});
    t.loss = tw_plan_add(p, tw_plan_add(p, s, r, 1.0, 1.0), extra, 1.0, 0.7);
    tw_plan_keep(p, t.loss);
    return t;
}

void fill_tangle(tw_plan *p, const Tangle &t, unsigned seed) {
    write(p, t.x, random_values(96, seed));
    write<int32_t>(p, t.index, {1, 4});
    write<int64_t>(p, t.rng, {11, 5, 2, 0});
    for (size_t i = 0; i < t.learned.size(); i++)
        write(p, t.learned[i].first,
              random_values(count(t.learned[i].second), seed + 1 + (unsigned)i, 0.4));
}

TEST_F(PlanTest, GradientsMatchFiniteDifferences) {
    const unsigned seed = 20261122;
    RecordProperty("seed", (int)seed);
    tw_plan *p = make();
    Tangle t = build_tangle(p);
    ASSERT_EQ(tw_plan_backward(p, t.loss, 1.0), TW_OK) << error();
    ASSERT_EQ(tw_plan_compile(p), TW_OK) << error();
    fill_tangle(p, t, seed);
    ASSERT_EQ(tw_plan_run(p), TW_OK) << error();
    std::vector<std::pair<tw_value, int64_t>> checked = {{t.x, 96}};
    for (auto &l : t.learned) checked.push_back({l.first, count(l.second)});
    std::vector<std::vector<double>> gradients;
    for (auto &c : checked) {
        ASSERT_NE(tw_plan_gradient(p, c.first), TW_NONE);
        gradients.push_back(read<double>(p, tw_plan_gradient(p, c.first), c.second));
    }
    for (size_t k = 0; k < checked.size(); k++) {
        std::vector<double> at = read<double>(p, checked[k].first, checked[k].second);
        double scale = 0;
        for (double g : gradients[k]) scale = std::max(scale, std::fabs(g));
        EXPECT_GT(scale, 0) << "value " << k;
        for (int64_t i = 0; i < checked[k].second; i += 1 + checked[k].second / 23) {
            const double h = 1e-5;
            double side[2];
            for (int s = 0; s < 2; s++) {
                std::vector<double> moved = at;
                moved[i] += s ? h : -h;
                write(p, checked[k].first, moved);
                ASSERT_EQ(tw_plan_run(p), TW_OK);
                side[s] = read<double>(p, t.loss, 1)[0];
            }
            double numeric = (side[1] - side[0]) / (2 * h);
            EXPECT_LE(std::fabs(numeric - gradients[k][i]), 1e-6 * scale + 1e-8)
                << "value " << k << " element " << i << " seed " << seed;
        }
        write(p, checked[k].first, at);
    }
    tw_plan_free(p);
}

TEST_F(PlanTest, ParameterGradientsAccumulateAndOthersAreOverwritten) {
    tw_plan *p = make();
    Tangle t = build_tangle(p);
    ASSERT_EQ(tw_plan_backward(p, t.loss, 0.5), TW_OK);
    ASSERT_EQ(tw_plan_compile(p), TW_OK);
    fill_tangle(p, t, 3);
    std::vector<std::vector<double>> first;
    for (int run = 0; run < 2; run++) {
        ASSERT_EQ(tw_plan_run(p), TW_OK);
        for (size_t k = 0; k < t.learned.size(); k++) {
            auto g = read<double>(p, tw_plan_gradient(p, t.learned[k].first),
                                  count(t.learned[k].second));
            if (run == 0)
                first.push_back(g);
            else
                for (size_t i = 0; i < g.size(); i++)
                    EXPECT_NEAR(g[i], 2 * first[k][i], 1e-12 * (1 + std::fabs(g[i])));
        }
        auto gx = read<double>(p, tw_plan_gradient(p, t.x), 96);
        if (run == 0)
            first.push_back(gx);
        else
            EXPECT_EQ(gx, first[t.learned.size()]);
    }
    tw_plan_free(p);
}

TEST_F(PlanTest, RegionsAndSingleOperationsAgree) {
    double loss[2];
    for (int regions = 0; regions < 2; regions++) {
        tw_plan *p = make(TW_F64, regions != 0);
        Tangle t = build_tangle(p);
        ASSERT_EQ(tw_plan_backward(p, t.loss, 1.0), TW_OK);
        ASSERT_EQ(tw_plan_compile(p), TW_OK) << error();
        fill_tangle(p, t, 4);
        ASSERT_EQ(tw_plan_run(p), TW_OK);
        loss[regions] = read<double>(p, t.loss, 1)[0];
        tw_plan_free(p);
    }
    EXPECT_NEAR(loss[0], loss[1], 1e-12 * std::fabs(loss[0]));
}

TEST_F(PlanTest, MemoryIsSharedAndUnneededWorkDropped) {
    tw_plan *p = make(TW_F32);
    tw_value x = input(p, "x", {64, 64}, TW_F32), h = x;
    for (int i = 0; i < 20; i++) h = tw_plan_scale(p, h, 1.5, 0.0);
    tw_plan_activation(p, x, TW_GELU); /* nobody reads it */
    tw_plan_keep(p, h);
    ASSERT_EQ(tw_plan_compile(p), TW_OK);
    tw_plan_stats stats = {};
    stats.size = sizeof stats;
    ASSERT_EQ(tw_plan_get_stats(p, &stats), TW_OK);
    EXPECT_EQ(stats.operations, 20);
    EXPECT_LE(stats.arena_bytes, 3u * 64 * 64 * 4);
    EXPECT_EQ(stats.owned_bytes, 64u * 64 * 4);
    tw_plan_free(p);
}

TEST_F(PlanTest, BuilderFailuresStickAndSayWhy) {
    tw_plan *p = make();
    tw_value x = input(p, "x", {2, 3}), w = parameter(p, "w", {4, 5});
    EXPECT_EQ(tw_plan_linear(p, x, w, TW_NONE), TW_NONE);
    EXPECT_EQ(tw_plan_activation(p, x, TW_RELU), TW_NONE);
    EXPECT_EQ(tw_plan_compile(p), TW_ERROR_ARGUMENT);
    EXPECT_EQ(error(), "plan: linear: x's last extent is 3, expected 5");
    tw_plan_free(p);
}

TEST_F(PlanTest, EveryBuilderRefusesWhatDoesNotFit) {
    using Build = std::function<void(tw_plan *, tw_value, tw_value)>; // x[2,4,4,6], v[2,6]
    const std::vector<std::pair<const char *, Build>> bad = {
        {"conv2d: x has rank 2",
         [](tw_plan *p, tw_value x, tw_value v) {
             tw_plan_conv2d(p, v, x, TW_NONE, {1, 0, 0, 0, 0});
         }},
        {"conv2d: stride",
         [](tw_plan *p, tw_value x, tw_value) {
             tw_plan_conv2d(p, x, x, TW_NONE, {0, 0, 0, 0, 0});
         }},
        {"does not fit the padded",
         [](tw_plan *p, tw_value x, tw_value) {
             tw_plan_conv2d(p, x, parameter(p, "w", {1, 5, 5, 6}), TW_NONE, {1, 0, 0, 0, 0});
         }},
        {"cannot be split into 4 groups",
         [](tw_plan *p, tw_value x, tw_value) {
             tw_value g = parameter(p, "g", {6});
             tw_plan_group_norm(p, x, g, g, TW_NONE, {4, 1e-5, 0});
         }},
        {"scale_shift's width is 6",
         [](tw_plan *p, tw_value x, tw_value v) {
             tw_value g = parameter(p, "g", {6});
             tw_plan_group_norm(p, x, g, g, v, {3, 1e-5, 0});
         }},
        {"shapes differ", [](tw_plan *p, tw_value x, tw_value v) { tw_plan_add(p, x, v, 1, 1); }},
        {"concat: expected 2 to 8",
         [](tw_plan *p, tw_value x, tw_value) { tw_plan_concat(p, &x, 1); }},
        {"sum of the extents is 5",
         [](tw_plan *p, tw_value x, tw_value) {
             int64_t e[] = {2, 3};
             tw_value o[2];
             tw_plan_split(p, x, e, 2, o);
         }},
        {"a factor of 5", [](tw_plan *p, tw_value x, tw_value) { tw_plan_average_pool(p, x, 5); }},
        {"attention: q has rank 2",
         [](tw_plan *p, tw_value, tw_value v) { tw_plan_attention(p, v, v, v, TW_NONE, 1, 0); }},
        {"dropout: rng",
         [](tw_plan *p, tw_value x, tw_value) { tw_plan_dropout(p, x, x, 0.5, 0); }},
        {"same 192 elements",
         [](tw_plan *p, tw_value x, tw_value) { tw_plan_reshape(p, x, 1, Shape{191}.data()); }},
        {"samples 1 to 2 of 2",
         [](tw_plan *p, tw_value x, tw_value) { tw_plan_slice_batch(p, x, 1, 2); }},
        {"no value of this plan",
         [](tw_plan *p, tw_value, tw_value) { tw_plan_scale(p, 12345, 1, 0); }},
        {"unknown kind",
         [](tw_plan *p, tw_value x, tw_value) { tw_plan_activation(p, x, (tw_activation_kind)9); }},
        {"expected a known format",
         [](tw_plan *p, tw_value, tw_value) {
             input(p, "huge", {1LL << 31, 1LL << 31, 4});
         }},
        {"expected a state to update",
         [](tw_plan *p, tw_value x, tw_value) {
             tw_op_attr a = {};
             tw_build_sampler_update(p, x, x, TW_NONE, x, x, TW_NONE, &a, nullptr);
         }},
        {"the loss has 192", [](tw_plan *p, tw_value x, tw_value) { tw_plan_backward(p, x, 1.0); }},
    };
    for (auto &b : bad) {
        tw_plan *p = make();
        tw_value x = input(p, "x", {2, 4, 4, 6}), v = input(p, "v", {2, 6});
        b.second(p, x, v);
        EXPECT_EQ(tw_plan_compile(p), TW_ERROR_ARGUMENT) << b.first;
        EXPECT_NE(error().find(b.first), std::string::npos) << b.first << " / " << error();
        tw_plan_free(p);
    }
}

TEST_F(PlanTest, StorageRules) {
    tw_plan *p = make(TW_F32);
    tw_value x = input(p, "x", {4}, TW_F32), y = tw_plan_scale(p, x, 2.0, 1.0),
             z = tw_plan_scale(p, y, 2.0, 0);
    tw_plan_keep(p, z);
    std::vector<float> mine = {1, 2, 3, 4};
    EXPECT_EQ(tw_plan_run(p), TW_ERROR_ARGUMENT);
    ASSERT_EQ(tw_plan_bind(p, x, mine.data()), TW_OK);
    EXPECT_EQ(tw_plan_bind(p, y, mine.data()), TW_ERROR_ARGUMENT);
    ASSERT_EQ(tw_plan_compile(p), TW_OK);
    EXPECT_EQ(tw_plan_compile(p), TW_ERROR_ARGUMENT);
    EXPECT_EQ(tw_plan_scale(p, x, 1, 0), TW_NONE);
    ASSERT_EQ(tw_plan_run(p), TW_OK);
    EXPECT_EQ(read<float>(p, z, 4), (std::vector<float>{6, 10, 14, 18}));
    float one;
    EXPECT_EQ(tw_plan_read(p, z, &one, sizeof one), TW_ERROR_ARGUMENT);
    EXPECT_EQ(error(), "plan: read: expected 16 bytes, got 4");
    EXPECT_EQ(tw_plan_read(p, y, &one, 16), TW_ERROR_ARGUMENT);
    tw_plan_free(p);
}

TEST(Memory, RandomLivesNeverOverlap) {
    for (unsigned seed = 0; seed < 50; seed++) {
        std::mt19937 gen(seed);
        std::vector<tw_memory_item> items(120);
        for (auto &i : items) {
            i = {1 + gen() % 5000, 0, (int)(gen() % 60), 0};
            i.last = i.first + (int)(gen() % 12);
        }
        size_t total = 0, sum = 0, peak = 0;
        ASSERT_EQ(tw_memory_place(nullptr, items.data(), (int)items.size(), &total), TW_OK);
        for (int step = 0; step < 72; step++) {
            size_t live = 0;
            for (auto &i : items)
                if (i.first <= step && step <= i.last) live += i.bytes;
            peak = std::max(peak, live);
        }
        for (size_t a = 0; a < items.size(); a++) {
            sum += items[a].bytes;
            EXPECT_EQ(items[a].offset % 256, 0u);
            EXPECT_LE(items[a].offset + items[a].bytes, total);
            for (size_t b = 0; b < a; b++) {
                bool together = items[a].first <= items[b].last && items[b].first <= items[a].last;
                bool apart = items[a].offset + items[a].bytes <= items[b].offset ||
                             items[b].offset + items[b].bytes <= items[a].offset;
                EXPECT_TRUE(!together || apart) << "seed " << seed;
            }
        }
        EXPECT_GE(total, peak);
        EXPECT_LE((double)total, 1.35 * (double)peak) << "seed " << seed;
        EXPECT_LT(total, sum);
    }
}

// A provider that claims scale + scale as one, to see what a region promises.
int pair_launches, pair_null_seen;

tw_status run_pair(const tw_kernel *k, tw_backend *, void *const *slots, void *) {
    const auto *region = static_cast<const tw_region *>(k->state);
    const auto &a = region->ops[0], &b = region->ops[1];
    const double *x = static_cast<const double *>(slots[a.in[0]]);
    double *y = static_cast<double *>(slots[b.out[0]]);
    pair_launches++;
    pair_null_seen += slots[a.out[0]] == nullptr;
    for (int64_t i = 0; i < tw_desc_count(&region->slots[b.out[0]].desc); i++)
        y[i] = (x[i] * a.attr.axpby.alpha + a.attr.axpby.beta) * b.attr.axpby.alpha +
               b.attr.axpby.beta;
    return TW_OK;
}
void destroy_pair(tw_kernel *k, tw_backend *) {
    delete static_cast<tw_region *>(k->state);
}
tw_status prepare_pair(tw_backend *, const tw_region *r, tw_kernel *k) {
    if (r->n_ops < 2 || r->ops[0].kind != TW_OP_AXPBY || r->ops[1].kind != TW_OP_AXPBY ||
        r->ops[0].in[1] >= 0 || r->ops[1].in[1] >= 0 || r->slots[r->ops[0].out[0]].needed)
        return TW_ERROR_UNSUPPORTED;
    k->run = run_pair;
    k->destroy = destroy_pair;
    k->state = new tw_region(*r);
    k->claimed = 2;
    return TW_OK;
}

TEST_F(PlanTest, AProviderMayClaimPartOfARegion) {
    const tw_provider pair = {"pair", prepare_pair};
    const tw_provider *const *original = ctx->backend->providers;
    std::vector<const tw_provider *> providers = {&pair};
    for (int i = 0; original[i]; i++) providers.push_back(original[i]);
    providers.push_back(nullptr);
    ctx->backend->providers = providers.data();
    pair_launches = pair_null_seen = 0;
    tw_plan *p = make();
    tw_value x = input(p, "x", {3});
    tw_value a = tw_plan_scale(p, x, 2, 1), b = tw_plan_scale(p, a, 3, 0); /* a pair */
    tw_value c = tw_plan_scale(p, b, 1, -1); /* the rest: used twice */
    tw_value d = tw_plan_scale(p, c, 5, 0);
    tw_value e = tw_plan_add(p, c, d, 1, 1);
    tw_plan_keep(p, e);
    ASSERT_EQ(tw_plan_compile(p), TW_OK) << error();
    EXPECT_EQ(tw_plan_provider_launches(p, "pair"), 1);
    write<double>(p, x, {1, 2, 3});
    ASSERT_EQ(tw_plan_run(p), TW_OK);
    EXPECT_EQ(read<double>(p, e, 3), (std::vector<double>{48, 84, 120}));
    EXPECT_EQ(pair_launches, 1);
    EXPECT_EQ(pair_null_seen, 1);
    tw_plan_free(p);
    ctx->backend->providers = original;
}

TEST_F(PlanTest, NoProviderIsAnErrorThatNamesTheOperation) {
    const tw_provider *const *original = ctx->backend->providers;
    const tw_provider *const none[] = {nullptr};
    ctx->backend->providers = none;
    tw_plan *p = make();
    tw_plan_keep(p, tw_plan_scale(p, input(p, "x", {3}), 2, 1));
    EXPECT_EQ(tw_plan_compile(p), TW_ERROR_UNSUPPORTED);
    EXPECT_EQ(error(), "plan: no provider of the cpu backend runs axpby with these shapes");
    tw_plan_free(p);
    ctx->backend->providers = original;
}

// The table of times names what one call executes, with the provider, and nothing before a run.
TEST_F(PlanTest, TimesByOperation) {
    tw_plan *p = make(TW_F32);
    tw_value x = input(p, "x", {3, 5}, TW_F32);
    tw_plan_keep(p, tw_plan_activation(p, tw_plan_activation(p, x, TW_SILU), TW_SILU));
    EXPECT_EQ(tw_plan_start_times(p), TW_ERROR_ARGUMENT);
    ASSERT_EQ(tw_plan_compile(p), TW_OK) << error();
    ASSERT_EQ(tw_plan_run(p), TW_OK);
    EXPECT_EQ(tw_plan_write_times(p, 9, stdout), TW_ERROR_ARGUMENT);
    ASSERT_EQ(tw_plan_start_times(p), TW_OK);
    EXPECT_EQ(tw_plan_write_times(p, 9, stdout), TW_ERROR_ARGUMENT);
    for (int i = 0; i < 3; i++) ASSERT_EQ(tw_plan_run(p), TW_OK);
    char *text = nullptr;
    size_t size = 0;
    FILE *file = open_memstream(&text, &size);
    EXPECT_EQ(tw_plan_write_times(p, 9, file), TW_OK) << error();
    std::fclose(file);
    const std::string table(text, size);
    std::free(text);
    /* Two calls of the same kind and shape are one row. */
    EXPECT_NE(table.find("      2 "), std::string::npos) << table;
    EXPECT_NE(table.find("  act 3x5 3x5 ("), std::string::npos) << table;
    EXPECT_EQ(table.find("  act", table.find("  act ") + 1), std::string::npos) << table;
    EXPECT_NE(table.find(" ms in all\n"), std::string::npos) << table;
    tw_plan_free(p);
}

// Every call counts once, in the class of its arithmetic, and the classes' sums are the plan's.
TEST_F(PlanTest, CostsByClass) {
    tw_plan *p = make(TW_F32);
    tw_value x = input(p, "x", {2, 4, 4, 4}, TW_F32), w = parameter(p, "w", {8, 3, 3, 4});
    tw_value gamma = parameter(p, "gamma", {8}), beta = parameter(p, "beta", {8});
    tw_value y = tw_plan_conv2d(p, x, w, TW_NONE, {1, 1, 1, 1, 1});
    y = tw_plan_group_norm(p, y, gamma, beta, TW_NONE, {2, 1e-5, 1});
    y = tw_plan_reshape(p, y, 3, Shape{2, 16, 8}.data());
    y = tw_plan_attention(p, y, y, y, TW_NONE, 1, 0);
    y = tw_plan_linear(p, y, parameter(p, "v", {4, 8}), TW_NONE);
    tw_plan_keep(p, tw_plan_activation(p, y, TW_RELU));
    tw_class_cost costs[TW_CLASS_COUNT];
    EXPECT_EQ(tw_plan_get_classes(p, costs), TW_ERROR_ARGUMENT);
    ASSERT_EQ(tw_plan_compile(p), TW_OK) << error();
    ASSERT_EQ(tw_plan_get_classes(p, costs), TW_OK);
    EXPECT_EQ(costs[TW_CLASS_CONVOLUTION].seconds, 0);
    ASSERT_EQ(tw_plan_start_times(p), TW_OK);
    const double before = tw_times_clock(ctx);
    for (int i = 0; i < 3; i++) ASSERT_EQ(tw_plan_run(p), TW_OK);
    const double whole = tw_times_clock(ctx) - before;
    ASSERT_EQ(tw_plan_get_classes(p, costs), TW_OK);
    tw_plan_stats stats = {};
    stats.size = sizeof stats;
    ASSERT_EQ(tw_plan_get_stats(p, &stats), TW_OK);
    int calls = 0;
    double flops = 0, seconds = 0;
    for (const tw_class_cost &c : costs) {
        calls += c.calls;
        flops += c.flops;
        seconds += c.seconds;
    }
    EXPECT_EQ(calls, stats.launches);
    EXPECT_DOUBLE_EQ(flops, stats.flops);
    EXPECT_GT(seconds, 0);
    EXPECT_LE(seconds, whole);
    EXPECT_EQ(costs[TW_CLASS_CONVOLUTION].flops, 2.0 * 2 * 16 * 8 * 36);
    EXPECT_EQ(costs[TW_CLASS_LINEAR].flops, 2.0 * 2 * 16 * 4 * 8);
    EXPECT_EQ(costs[TW_CLASS_ATTENTION].flops, 2.0 * 2 * (2 * 16 * 8) * 16);
    for (int c : {TW_CLASS_CONVOLUTION, TW_CLASS_LINEAR, TW_CLASS_ATTENTION, TW_CLASS_NORM})
        EXPECT_GE(costs[c].calls, 1) << tw_op_class_name(tw_op_class(c));
    EXPECT_EQ(costs[TW_CLASS_OPTIMIZER].calls, 0);
    tw_plan_free(p);
}

} // namespace
