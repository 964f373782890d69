// Attention against a plain double softmax, where the options allow engines that are compiled.
#include "support.h"

#include <cudnn_graph.h>

using namespace vnd;

namespace {

// q, k and v lie side by side, as one projection leaves them.
struct Attention {
    Attention(int64_t batch, int64_t q_tokens, int64_t k_tokens, int heads, int size, twk_format f)
        : width((int64_t)heads * size), q(random_tensor(f, batch * q_tokens * width)),
          kv(random_tensor(f, batch * k_tokens * 2 * width)), o(f, batch * q_tokens * width),
          lse(TWK_F32, batch * heads * q_tokens) {
        a.batch = batch;
        a.q_tokens = q_tokens;
        a.k_tokens = k_tokens;
        a.heads = heads;
        a.head_size = size;
        a.format = f;
        a.q = q.data();
        a.k = kv.data();
        a.v = static_cast<const char *>(kv.data()) + width * (int64_t)bytes_of(f);
        a.q_row = a.o_row = width;
        a.k_row = a.v_row = 2 * width;
        a.q_batch = a.o_batch = q_tokens * width;
        a.k_batch = a.v_batch = k_tokens * 2 * width;
        a.o = o.data();
        a.lse = lse.f32();
    }
    void expected(std::vector<Expected> *out, std::vector<Expected> *logs) const {
        const double scale = a.scale == 0 ? 1 / std::sqrt((double)a.head_size) : (double)a.scale;
        out->assign((size_t)o.n, {});
        for (int64_t n = 0; n < a.batch; n++)
            for (int64_t h = 0; h < a.heads; h++)
                for (int64_t i = 0; i < a.q_tokens; i++) {
                    std::vector<double> e;
                    double sum = 0;
                    const int64_t qi = n * a.q_batch + i * a.q_row + h * a.head_size;
                    for (int64_t j = 0; j < a.k_tokens; j++) {
                        const int64_t kj = n * a.k_batch + j * a.k_row + h * a.head_size;
                        double s = 0;
                        for (int64_t d = 0; d < a.head_size; d++) s += q.at(qi + d) * kv.at(kj + d);
                        e.push_back(std::exp(scale * s));
                        sum += e.back();
                    }
                    logs->emplace_back();
                    logs->back().add(std::log(sum));
                    for (int64_t j = 0; j < a.k_tokens; j++)
                        for (int64_t d = 0; d < a.head_size; d++)
                            (*out)[(size_t)(qi + d)].add(
                                e[(size_t)j] / sum *
                                kv.at(n * a.v_batch + j * a.v_row + width + h * a.head_size + d));
                }
    }

    int64_t width;
    Tensor q, kv, o, lse;
    twk_attention_args a = {};
};

class AttentionTest : public VendorTest {
  protected:
    tw_vendor_choice choice = {};
    static tw_vendor_options compiling() {
        tw_vendor_options o = options();
        o.compile = true;
        return o;
    }
    static twk_status choose(tw_vendor *v, const twk_attention_args &a, tw_vendor_choice *choice,
                             tw_vendor_op op = TW_VENDOR_ATTENTION_FORWARD) {
        const tw_vendor_call c = call_of(a, op);
        return tw_vendor_choose(v, &c, choice);
    }
};

TEST_F(AttentionTest, EnginesThatWouldBeCompiled) {
    Vendor v;
    const Attention c(1, 4, 4, 1, 8, TWK_BF16);
    EXPECT_CANNOT(choose(v, c.a, &choice), "compiled at run time");
    EXPECT_CANNOT(choose(v, c.a, &choice, TW_VENDOR_ATTENTION_BACKWARD), "compiled at run time");
}

#if CUDNN_VERSION >= 91301

TEST_F(AttentionTest, Forward) {
    Vendor v(compiling());
    for (twk_format f : {TWK_BF16, TWK_F16})
        for (int mode = 0; mode < 3; mode++) {
            Attention c(2, 5, mode ? 7 : 5, mode + 1, 8, f);
            if (mode == 1) c.a.scale = 0.5f;
            if (mode == 2) c.a.lse = nullptr;
            std::vector<Expected> o, lse;
            c.expected(&o, &lse);
            ASSERT_RUNS(tw_vendor_attention_forward(v, &c.a, nullptr));
            EXPECT_EQ(count_bad(c.o.all(), o, f), 0);
            if (c.a.lse) {
                EXPECT_EQ(count_bad(c.lse.all(), lse, TWK_F32), 0);
            }
        }
}

TEST_F(AttentionTest, Tuned) {
    engines({engine(1, 3), engine(2, 1)});
    Vendor v(compiling());
    Attention c(2, 5, 5, 2, 8, TWK_BF16);
    const tw_vendor_call call = call_of(c.a, TW_VENDOR_ATTENTION_FORWARD);
    ASSERT_RUNS(tw_vendor_tune(v, &call, nullptr, &choice));
    EXPECT_EQ(choice.engine, 2);
    EXPECT_TRUE(std::isnan(c.o.at(0)));
    std::vector<Expected> o, lse;
    c.expected(&o, &lse);
    ASSERT_RUNS(tw_vendor_attention_forward(v, &c.a, nullptr));
    EXPECT_EQ(count_bad(c.o.all(), o, TWK_BF16), 0);
}

TEST_F(AttentionTest, PlansAreKept) {
    Vendor v(compiling());
    Attention c(1, 4, 4, 1, 8, TWK_BF16);
    ASSERT_RUNS(choose(v, c.a, &choice));
    const uint64_t first = choice.plan;
    ASSERT_RUNS(choose(v, c.a, &choice));
    EXPECT_EQ(choice.plan, first);
    c.a.k_tokens = 3;
    ASSERT_RUNS(choose(v, c.a, &choice));
    EXPECT_NE(choice.plan, first);
}

#endif

TEST_F(AttentionTest, LibrariesThatDoNotOfferIt) {
    fake_state()->version = 90800;
    Vendor v(compiling());
    const Attention c(1, 4, 4, 1, 8, TWK_BF16);
    EXPECT_CANNOT(choose(v, c.a, &choice), "not offered");
    EXPECT_CANNOT(choose(v, c.a, &choice, TW_VENDOR_ATTENTION_BACKWARD), "not offered");
}

TEST_F(AttentionTest, BackwardWithoutEngines) {
    engines({});
    Vendor v(compiling());
    const Attention c(1, 4, 4, 1, 8, TWK_BF16);
    EXPECT_CANNOT(choose(v, c.a, &choice, TW_VENDOR_ATTENTION_BACKWARD), "attention, gradients");
}

TEST_F(AttentionTest, CannotAndBadArguments) {
    Vendor v(compiling());
    Attention c(1, 4, 4, 1, 8, TWK_F32);
    EXPECT_CANNOT(choose(v, c.a, &choice), "fp32");
    c.a.format = TWK_BF16;
    c.a.o = nullptr;
    EXPECT_BAD(tw_vendor_attention_forward(v, &c.a, nullptr), "NULL");
    c.a.o = c.o.data();
    EXPECT_BAD(tw_vendor_attention_backward(v, &c.a, nullptr), "NULL");
    c.a.d_o = c.a.dq = c.o.data();
    EXPECT_CANNOT(tw_vendor_attention_backward(v, &c.a, nullptr), "some of the gradients");
    c.a.heads = 0;
    EXPECT_BAD(choose(v, c.a, &choice), "positive");
    c.a.heads = INT32_MAX;
    c.a.q_tokens = INT64_MAX / 2;
    EXPECT_CANNOT(choose(v, c.a, &choice), "2^40");
}

} // namespace
