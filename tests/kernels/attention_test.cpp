// Attention against plain double sums.
#include "attention_reference.h"

#include <algorithm>
#include <cstring>

using namespace tst;

namespace {

class AttentionTest : public KernelTest {};

struct Arithmetic {
    twk_format format;
    bool tf32;
};
constexpr Arithmetic everything[] = {
    {TWK_F32, false},
    {TWK_F32, true},
    {TWK_BF16, false},
#ifndef TW_EMU_TSAN
    {TWK_F16, false}, // its indices are bf16's
#endif
};

AttentionCase with(AttentionCase z, Arithmetic how) {
    z.format = how.format;
    z.tf32 = how.tf32;
    return z;
}

AttentionCase shape(int64_t batch, int64_t q, int64_t k, int heads, int size) {
    AttentionCase z;
    z.batch = batch;
    z.q_tokens = q;
    z.k_tokens = k;
    z.heads = heads;
    z.head_size = size;
    return z;
}

void expect_right(Attention *t) {
    t->forward();
    if (::testing::Test::HasFatalFailure()) return;
    std::vector<Expected> o, lse;
    t->math().forward(&o, &lse);
    expect_close(t->read_o(), o, t->z.format, 8, str(t->z));
    expect_close(t->lse.read(), lse, TWK_F32, 8, "lse of " + str(t->z));
}

void expect_everywhere(AttentionCase z) {
    for (Arithmetic how : everything) {
        z = with(z, how);
        Attention t(z);
        expect_right(&t);
    }
}

TEST_F(AttentionTest, Forward) {
    for (int size : {8, 32, 40, 64, 96, 128}) {
        if (for_races && size != 40 && size != 128) continue;
        SCOPED_TRACE(size);
        expect_everywhere(shape(1, 1, 1, 1, size));
        expect_everywhere(shape(1, 33, 77, 3, size));
    }
    expect_everywhere(shape(3, 16, 16, 2, 32));
    expect_everywhere(shape(1, 64, 64, 1, 64));
    expect_everywhere(shape(1, 100, 100, 2, 128));
    expect_everywhere(shape(2, 130, 1, 1, 8));
}

TEST_F(AttentionTest, ForwardOfWideHeads) {
    expect_everywhere(shape(1, 1, 1, 1, 256));
    expect_everywhere(shape(1, 33, 77, 1, 256));
    expect_everywhere(shape(2, 100, 70, 1, 256)); // 128 rows a block
    expect_everywhere(shape(1, 16, 100, 1, 512));
    expect_everywhere(shape(1, 77, 33, 1, 512));
    expect_everywhere(shape(1, 20, 20, 2, 136));
    expect_everywhere(shape(1, 17, 81, 1, 392));
}

TEST_F(AttentionTest, StridesPackingAndAlignment) {
    for (int size : {40, 64, 136}) {
        if (for_races && size != 136) continue;
        AttentionCase z = shape(2, 20, 20, 2, size);
        z.packed = true;
        expect_everywhere(z);
        z.gap = 8;
        expect_everywhere(z);
        z.packed = false;
        z.k_tokens = 33;
        z.scale = 0.3f;
        expect_everywhere(z);
        z.gap = 3; // rows off their alignment
        expect_everywhere(z);
        z.gap = 0;
        z.shift = 1;
        expect_everywhere(z);
    }
    for (int size : {1, 3, 33, 65}) expect_everywhere(shape(2, 5, 7, 2, size));
}

// Scores that grow from tile to tile and spread far, so that what has been summed is scaled down,
// or vanishes.
TEST_F(AttentionTest, LargeAndGrowingScores) {
    NOT_FOR_RACES();
    for (int size : {16, 64, 128, 200, 512}) {
        AttentionCase z = shape(1, 20, 200, 1, size);
        z.size = 6;
        expect_everywhere(z);
        for (Arithmetic how : everything) {
            z = with(z, how);
            z.size = 2;
            Attention t(z);
            t.grow_keys();
            expect_right(&t);
        }
    }
}

void expect_gradients(const AttentionCase &z) {
    Attention t(z);
    t.prepare_backward();
    t.forward();
    t.backward();
    if (::testing::Test::HasFatalFailure()) return;
    std::vector<Expected> want[3];
    t.math().backward(t.d_o, z.format, &want[0], &want[1], &want[2]);
    for (int i = 0; i < 3; i++)
        expect_close(t.read_gradient(i), want[i], z.format, 8,
                     std::string(i == 0   ? "dq"
                                 : i == 1 ? "dk"
                                          : "dv") +
                         " of " + str(z));
}

void expect_gradients_everywhere(AttentionCase z) {
    for (Arithmetic how : everything) {
        z = with(z, how);
        expect_gradients(z);
    }
}

TEST_F(AttentionTest, Backward) {
    for (int size : {8, 32, 40, 64, 128}) {
        if (for_races && size != 40 && size != 128) continue;
        expect_gradients_everywhere(shape(1, 1, 1, 1, size));
        expect_gradients_everywhere(shape(1, 33, 77, 2, size));
    }
    expect_gradients_everywhere(shape(2, 77, 33, 1, 96));
    expect_gradients_everywhere(shape(1, 130, 20, 1, 64));
    expect_gradients_everywhere(shape(1, 20, 130, 1, 32));
}

TEST_F(AttentionTest, BackwardOfWideHeads) {
    expect_gradients_everywhere(shape(1, 1, 1, 1, 256));
    expect_gradients_everywhere(shape(1, 33, 77, 1, 256));
    expect_gradients_everywhere(shape(1, 20, 33, 1, 512));
    expect_gradients_everywhere(shape(1, 66, 17, 1, 136));
}

TEST_F(AttentionTest, BackwardStridesPackingAndAlignment) {
    for (int size : {40, 136}) {
        AttentionCase z = shape(2, 9, 9, 2, size);
        z.packed = true;
        expect_gradients_everywhere(z);
        z.packed = false;
        z.gap = 8;
        z.scale = 0.3f;
        expect_gradients_everywhere(z);
    }
    AttentionCase z = shape(2, 9, 20, 2, 40);
    z.gap = 3; // rows off their alignment
    expect_gradients_everywhere(z);
    z.gap = 0;
    z.shift = 1;
    expect_gradients_everywhere(z);
    z = shape(1, 70, 20, 1, 64);
    z.size = 6; // nearly one key a query
    expect_gradients_everywhere(z);
    expect_gradients_everywhere(shape(2, 5, 7, 2, 3));
}

// The reference itself, against differences of sum(do o).
TEST_F(AttentionTest, GradientsAreDifferences) {
    NOT_FOR_RACES();
    Attention t(shape(1, 3, 4, 2, 5));
    t.prepare_backward();
    std::vector<Expected> want[3];
    t.math().backward(t.d_o, TWK_F32, &want[0], &want[1], &want[2]);
    const auto value = [&] {
        std::vector<Expected> o;
        t.math().forward(&o, nullptr);
        double sum = 0;
        for (size_t i = 0; i < o.size(); i++) sum += o[i].value * t.d_o.v[i];
        return sum;
    };
    Heads *const inputs[3] = {&t.q, &t.k, &t.v};
    for (int n = 0; n < 3; n++)
        for (size_t i = 0; i < inputs[n]->v.size(); i++) {
            double &x = inputs[n]->v[i];
            const double x0 = x, h = 1e-5;
            x = x0 + h;
            const double above = value();
            x = x0 - h;
            const double below = value();
            x = x0;
            EXPECT_NEAR((above - below) / (2 * h), want[n][i].value, 1e-7) << n << ' ' << i;
        }
}

TEST_F(AttentionTest, PlantedMistakesInGradientsAreSeen) {
    NOT_FOR_RACES();
    for (Arithmetic how : everything)
        for (int size : {40, 64, 160}) {
            AttentionCase z = shape(1, 40, 40, 1, size);
            z = with(z, how);
            z.scale = 0.02f;
            Attention t(z);
            t.prepare_backward();
            t.forward();
            t.backward();
            for (int64_t left_out : {0, 31, 32, 39}) {
                std::vector<Expected> want[3];
                t.math().backward(t.d_o, z.format, &want[0], &want[1], &want[2], left_out,
                                  left_out);
                for (int i = 0; i < 3; i++)
                    EXPECT_GT(count_bad(t.read_gradient(i), want[i], z.format, 8),
                              (int64_t)want[i].size() / 40)
                        << i << ' ' << left_out << " of " << str(z);
            }
        }
}

TEST_F(AttentionTest, PlantedMistakesAreSeen) {
    NOT_FOR_RACES();
    for (Arithmetic how : everything)
        for (int size : {40, 128, 160, 320}) {
            AttentionCase z = shape(1, 20, 70, 2, size);
            z = with(z, how);
            z.scale = 0.02f; // every key counts
            Attention t(z);
            t.forward();
            const std::vector<double> got = t.read_o();
            const auto bad = [&](const std::vector<Expected> &want) {
                return count_bad(got, want, z.format, 8);
            };
            std::vector<Expected> want;
            t.math().forward(&want, nullptr);
            EXPECT_EQ(bad(want), 0) << str(z);
            std::rotate(want.begin(), want.begin() + size, want.end()); // another row's
            EXPECT_GT(bad(want), (int64_t)got.size() / 4) << str(z);
            for (int64_t key : {0, 31, 32, 63, 64, 69}) {
                want.clear();
                t.math().forward(&want, nullptr, key);
                EXPECT_GT(bad(want), (int64_t)got.size() / 4) << key << " of " << str(z);
            }
        }
}

TEST_F(AttentionTest, EqualToTheBit) {
    NOT_FOR_RACES();
    for (Arithmetic how : everything)
        for (int size : {64, 256}) {
            AttentionCase z = shape(1, 33, 40, 2, size);
            z = with(z, how);
            Attention t(z);
            t.forward();
            const std::vector<double> o = t.o.read(), lse = t.lse.read();
            t.o.buffer.poison();
            t.lse.buffer.poison();
            t.forward();
            EXPECT_EQ(t.o.read(), o) << str(z);
            EXPECT_EQ(t.lse.read(), lse) << str(z);
            t.prepare_backward();
            t.backward();
            std::vector<double> gradients[3];
            for (int i = 0; i < 3; i++) gradients[i] = t.read_gradient(i);
            t.poison_gradients();
            t.backward();
            for (int i = 0; i < 3; i++) EXPECT_EQ(t.read_gradient(i), gradients[i]) << str(z);
            t.poison_gradients(); // each alone
            void *const dk = t.a.dk, *const dv = t.a.dv;
            t.a.dk = nullptr;
            t.backward();
            EXPECT_EQ(t.read_gradient(2), gradients[2]) << str(z);
            EXPECT_TRUE(std::isnan(t.read_gradient(1)[0])) << str(z);
            t.a.dk = dk;
            t.a.dv = nullptr;
            t.backward();
            EXPECT_EQ(t.read_gradient(1), gradients[1]) << str(z);
            t.a.dv = dv;
            t.a.lse = nullptr; // the same without it
            t.o.buffer.poison();
            t.forward();
            EXPECT_EQ(t.o.read(), o) << str(z);
        }
}

std::string kernel_of(const Attention &t) {
    EXPECT_EQ(twk_attention_forward(&t.a, nullptr), TWK_OK) << twk_error_text();
    synchronize();
    twk_launch_info info;
    twk_last_launch(&info);
    const std::string name = info.kernel;
    return name.substr(0, name.find("_kernel"));
}

TEST_F(AttentionTest, Choices) {
    NOT_FOR_RACES();
    AttentionCase z = shape(1, 8, 8, 1, 128);
    z.format = TWK_BF16;
    EXPECT_EQ(kernel_of(Attention(z)), "(attention_narrow");
    z.head_size = 136;
    EXPECT_EQ(kernel_of(Attention(z)), "(attention_wide");
    z.head_size = 132;
    EXPECT_EQ(kernel_of(Attention(z)), "(attention_plain");
    z.head_size = 128;
    z.shift = 1;
    EXPECT_EQ(kernel_of(Attention(z)), "(attention_plain");
    z.shift = 0;
    z.format = TWK_F32;
    EXPECT_EQ(kernel_of(Attention(z)), "(attention_plain");
    z.tf32 = true;
    EXPECT_EQ(kernel_of(Attention(z)), "(attention_narrow");
    z.head_size = 132;
    EXPECT_EQ(kernel_of(Attention(z)), "(attention_wide");
#ifdef TW_EMULATOR
    const size_t limit = tw::emu::shared_limit();
    tw::emu::set_shared_limit(99 * 1024); // GPUs of the gaming line
    for (Arithmetic how : everything)
        for (int size : {32, 64, 128, 256, 512}) {
            z = shape(1, 65, 8, 1, size);
            z = with(z, how);
            Attention t(z);
            tw::emu::set_block_filter(0, 1);
            EXPECT_EQ(twk_attention_forward(&t.a, nullptr), TWK_OK) << twk_error_text();
            t.prepare_backward();
            EXPECT_EQ(twk_attention_backward(&t.a, nullptr), TWK_OK) << twk_error_text();
            t.a.batch = 200; // enough for the largest tiles
            EXPECT_EQ(twk_attention_forward(&t.a, nullptr), TWK_OK) << twk_error_text();
            tw::emu::set_block_filter(0, 0);
        }
    tw::emu::set_shared_limit(8 * 1024);
    const Attention t(z);
    EXPECT_EQ(twk_attention_forward(&t.a, nullptr), TWK_UNSUPPORTED);
    tw::emu::set_shared_limit(limit);
#endif
}

TEST_F(AttentionTest, Errors) {
    AttentionCase z = shape(2, 8, 9, 2, 16);
    z.format = TWK_BF16;
    Attention t(z);
    const auto refused = [&](twk_status status, auto change) {
        twk_attention_args a = t.a;
        change(a);
        return twk_attention_forward(&a, nullptr) == status &&
               std::string(twk_error_text()).find("attention") == 0;
    };
    EXPECT_EQ(twk_attention_forward(nullptr, nullptr), TWK_BAD_ARGUMENT);
    EXPECT_TRUE(refused(TWK_BAD_ARGUMENT, [](auto &a) { a.tf32 = 1; }));
    EXPECT_TRUE(refused(TWK_BAD_ARGUMENT, [](auto &a) { a.batch = 0; }));
    EXPECT_TRUE(refused(TWK_BAD_ARGUMENT, [](auto &a) { a.k_tokens = 0; }));
    EXPECT_TRUE(refused(TWK_BAD_ARGUMENT, [](auto &a) { a.heads = -1; }));
    EXPECT_TRUE(refused(TWK_BAD_ARGUMENT, [](auto &a) { a.scale = -1; }));
    EXPECT_TRUE(refused(TWK_BAD_ARGUMENT, [](auto &a) { a.v = nullptr; }));
    EXPECT_TRUE(refused(TWK_BAD_ARGUMENT, [](auto &a) { a.k_row = -8; }));
    EXPECT_TRUE(refused(TWK_BAD_ARGUMENT, [](auto &a) { a.o_row = 31; }));
    EXPECT_TRUE(refused(TWK_BAD_ARGUMENT, [](auto &a) { a.o_batch = 8; }));
    EXPECT_TRUE(refused(TWK_UNSUPPORTED, [](auto &a) { a.head_size = 513, a.o_row = 2000; }));
    EXPECT_TRUE(refused(TWK_UNSUPPORTED, [](auto &a) { a.k_tokens = int64_t(1) << 31; }));
    EXPECT_TRUE(refused(TWK_UNSUPPORTED, [](auto &a) {
        a.batch = int64_t(1) << 29;
        a.heads = 1 << 10;
        a.o_row = 1 << 14;
        a.o_batch = 1 << 17;
    }));

    t.prepare_backward();
    const auto no_gradients = [&](auto change) {
        twk_attention_args a = t.a;
        change(a);
        return twk_attention_backward(&a, nullptr) == TWK_BAD_ARGUMENT &&
               std::string(twk_error_text()).find("attention") == 0;
    };
    EXPECT_EQ(twk_attention_backward(nullptr, nullptr), TWK_BAD_ARGUMENT);
    EXPECT_EQ(twk_attention_backward_workspace(nullptr), 0u);
    EXPECT_EQ(twk_attention_backward_workspace(&t.a), 2u * 2 * 128 * 8);
    EXPECT_TRUE(no_gradients([](auto &a) { a.q_tokens = 0; }));
    EXPECT_TRUE(no_gradients([](auto &a) { a.lse = nullptr; }));
    EXPECT_TRUE(no_gradients([](auto &a) { a.d_o = nullptr; }));
    EXPECT_TRUE(no_gradients([](auto &a) { a.workspace_bytes--; }));
    EXPECT_TRUE(no_gradients([](auto &a) { a.workspace = nullptr; }));
    EXPECT_TRUE(no_gradients([](auto &a) { a.q_batch = 0; }));
    EXPECT_TRUE(no_gradients([](auto &a) { a.k_batch = 0; }));
    EXPECT_TRUE(no_gradients([](auto &a) { a.v_row = 31; }));
}

#ifdef TW_EMULATOR
// Samples past 2^32 elements, of which the last is looked at.
TEST_F(AttentionTest, LargeTensors) {
    for (int size : {64, 256}) {
        AttentionCase z = shape(1, 8, 8, 1, size);
        z.format = TWK_BF16;
        Attention one(z);
        const int64_t far = (int64_t(1) << 32) + 8;
        Hollow q((size_t)far * 2 + 65536), o((size_t)far * 2 + 65536);
        twk_attention_args a = one.a;
        const size_t bytes = (size_t)(8 * size) * 2;
        memcpy(q.data + far * 2, a.q, bytes);
        a.batch = 2;
        a.q = q.data;
        a.o = o.data;
        a.lse = nullptr;
        a.q_batch = a.o_batch = far;
        a.k_batch = a.v_batch = 0; // the same keys
        ASSERT_EQ(twk_attention_forward(&a, nullptr), TWK_OK) << twk_error_text();
        std::vector<Expected> want;
        one.math().forward(&want, nullptr);
        memcpy(one.a.o, o.data + far * 2, bytes);
        expect_close(one.read_o(), want, TWK_BF16, 8, "the last sample");

        one.prepare_backward();
        Hollow d_o((size_t)far * 2 + 65536), d_x((size_t)far * 2 + 65536);
        memcpy(d_o.data + far * 2, one.a.d_o, bytes);
        Tensor lse(TWK_F32, 16);
        Buffer workspace(2 * one.a.workspace_bytes);
        a.lse = lse.f32();
        a.d_o = d_o.data;
        a.workspace = workspace.data();
        a.workspace_bytes = workspace.size();
        const auto last = [&](int i, void *to) {
            ASSERT_EQ(twk_attention_forward(&a, nullptr), TWK_OK) << twk_error_text();
            ASSERT_EQ(twk_attention_backward(&a, nullptr), TWK_OK) << twk_error_text();
            memcpy(to, d_x.data + far * 2, bytes);
            std::vector<Expected> gradients[3];
            one.math().backward(one.d_o, TWK_BF16, &gradients[0], &gradients[1], &gradients[2]);
            expect_close(one.read_gradient(i), gradients[i], TWK_BF16, 8, "the last gradients");
        };
        a.dq = d_x.data;
        last(0, one.a.dq);
        a.dq = nullptr;
        a.k = q.data; // the keys far out
        memcpy(q.data + far * 2, one.a.k, bytes);
        a.k_batch = far;
        a.v = one.a.v;
        a.q = one.a.q;
        a.q_batch = 0;
        a.dk = d_x.data;
        last(1, one.a.dk);
    }
}
#endif

} // namespace
