// Columns of one matrix in many operations: numbers and gradients are those of its parts.
#include <gtest/gtest.h>

#include <cmath>
#include <string>
#include <vector>

#include <tweedie/tweedie.h>
extern "C" {
#include "graph/builder.h"
}

namespace {

using Shape = std::vector<int64_t>;
using Values = std::vector<double>;

const Shape kMatrix{2, 20}; // columns 2..5, 7..14 and 0..1 are read one by one
constexpr int kPixels = 3;

class Columns : public ::testing::Test {
  protected:
    Columns() {
        tw_context_options o = TW_CONTEXT_OPTIONS_INIT;
        o.device = TW_DEVICE_CPU;
        o.poison = 1;
        EXPECT_EQ(tw_context_create(&o, &ctx_), TW_OK);
        Reset();
    }
    ~Columns() override {
        tw_plan_free(p_);
        tw_context_free(ctx_);
    }
    void Reset() {
        tw_plan_options o = TW_PLAN_OPTIONS_INIT;
        o.precision = TW_F64;
        tw_plan_free(p_);
        p_ = nullptr;
        EXPECT_EQ(tw_plan_create(ctx_, &o, &p_), TW_OK);
    }
    tw_value Tensor(const char *name, const Shape &s) {
        return tw_plan_input(p_, name, TW_F64, (int)s.size(), s.data());
    }
    void Fill(tw_value v, double step) {
        int64_t shape[TW_MAX_RANK], n = 1;
        const int rank = tw_plan_shape(p_, v, shape);
        for (int i = 0; i < rank; i++) n *= shape[i];
        Values x((size_t)n);
        for (size_t i = 0; i < x.size(); i++) x[i] = std::sin(step * (double)(i + 1));
        EXPECT_EQ(tw_plan_write(p_, v, x.data(), x.size() * sizeof(double)), TW_OK);
    }
    // Adds, scales and shifts by columns of the matrix, or by parts of it; `whole`: something else
    // reads all of it, too. The loss and the gradient.
    Values Calculate(bool columns, bool parameter, bool whole) {
        Reset();
        const tw_value source =
            parameter ? tw_plan_parameter(p_, "m", 2, kMatrix.data()) : Tensor("m", kMatrix);
        const tw_value m = parameter ? source : tw_plan_scale(p_, source, 1.5, 0.25);
        const tw_value x = Tensor("x", {2, kPixels, 4}), zero = Tensor("zero", {2, kPixels, 4}),
                       y = Tensor("y", {2, kPixels, 2}), nothing = Tensor("nothing", {2, 20});
        const tw_value gamma = Tensor("gamma", {4}), beta = Tensor("beta", {4});
        if (!parameter) tw_plan_want_gradient(p_, m);
        tw_value added, normal, small;
        const tw_norm_options norm = {2, 1e-5, 1};
        if (columns) {
            added = tw_build_add_columns(p_, x, {m, 2});
            normal = tw_build_group_norm(p_, added, gamma, beta, {m, 7}, norm);
            small = tw_build_add_columns(p_, y, {m, 0});
        } else {
            tw_value part[5];
            EXPECT_EQ(tw_plan_split(p_, m, Shape{2, 4, 1, 8, 5}.data(), 5, part), TW_OK);
            added = tw_plan_add_vector(p_, x, part[1]);
            normal = tw_plan_group_norm(p_, added, gamma, beta, part[3], norm);
            small = tw_plan_add_vector(p_, y, part[0]);
        }
        const tw_value zeros = Tensor("zeros", {2, kPixels, 2});
        tw_value loss = tw_plan_add(p_, tw_plan_mse(p_, normal, zero, TW_NONE, nullptr),
                                    tw_plan_mse(p_, small, zeros, TW_NONE, nullptr), 1, 1);
        if (whole) {
            const tw_value all = tw_plan_activation(p_, m, TW_GELU);
            loss = tw_plan_add(p_, loss, tw_plan_mse(p_, all, nothing, TW_NONE, nullptr), 1, 1);
        }
        tw_plan_keep(p_, loss);
        EXPECT_EQ(tw_plan_backward(p_, loss, 1), TW_OK) << tw_context_error(ctx_);
        EXPECT_EQ(tw_plan_compile(p_), TW_OK) << tw_context_error(ctx_);
        Fill(x, 0.7);
        Fill(y, 0.3);
        Fill(gamma, 1.1);
        Fill(beta, 1.9);
        Fill(source, 0.37);
        EXPECT_EQ(tw_plan_run(p_), TW_OK) << tw_context_error(ctx_);
        Values out(41, NAN);
        EXPECT_EQ(tw_plan_read(p_, tw_plan_gradient(p_, m), out.data(), 40 * sizeof(double)),
                  TW_OK);
        EXPECT_EQ(tw_plan_read(p_, loss, &out[40], sizeof(double)), TW_OK);
        return out;
    }

    tw_context *ctx_ = nullptr;
    tw_plan *p_ = nullptr;
};

TEST_F(Columns, GiveTheGradientsOfParts) {
    for (const bool parameter : {false, true})
        for (const bool whole : {false, true}) {
            SCOPED_TRACE(std::to_string(parameter) + std::to_string(whole));
            const Values want = Calculate(false, parameter, whole),
                         got = Calculate(true, parameter, whole);
            ASSERT_EQ(got.size(), want.size());
            double largest = 0;
            for (size_t i = 0; i < want.size(); i++) {
                EXPECT_NEAR(got[i], want[i], 1e-14) << i;
                largest = std::max(largest, std::fabs(want[i]));
            }
            EXPECT_GT(largest, 1e-2);
            for (const size_t unread : {6u, 15u, 39u})
                EXPECT_EQ(want[unread] == 0, !whole) << unread;
        }
}

TEST_F(Columns, AreReadOnce) {
    const struct {
        int64_t first;
        bool norm;
        const char *says;
    } cases[] = {{2, false, ""},
                 {6, false, "add_vector: columns 6 to 10 of 20: not free"},
                 {16, false, ""},
                 {-1, false, "add_vector: columns -1 to 3 of 20: not free"},
                 {17, false, "add_vector: columns 17 to 21 of 20: not free"},
                 {0, true, "group_norm: columns 0 to 8 of 20: not free"},
                 {13, true, "group_norm: columns 13 to 21 of 20: not free"},
                 {12, true, ""}};
    for (const auto &c : cases) {
        SCOPED_TRACE(c.first);
        Reset();
        const tw_value m = Tensor("m", kMatrix), x = Tensor("x", {2, kPixels, 4}),
                       gamma = Tensor("gamma", {4});
        ASSERT_NE(tw_build_add_columns(p_, x, {m, 7}), TW_NONE);
        const tw_value y =
            c.norm ? tw_build_group_norm(p_, x, gamma, gamma, {m, c.first}, {2, 1e-5, 0})
                   : tw_build_add_columns(p_, x, {m, c.first});
        EXPECT_EQ(y == TW_NONE, *c.says != '\0');
        if (!*c.says) continue;
        EXPECT_EQ(tw_plan_compile(p_), TW_ERROR_ARGUMENT);
        EXPECT_EQ(tw_context_error(ctx_), "plan: " + std::string(c.says));
    }
}

} // namespace
