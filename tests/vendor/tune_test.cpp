// Choosing by time, on a clock that stands between executions.
#include "support.h"

using namespace vnd;

namespace {

fake::Engine wrong(fake::Engine e) {
    e.wrong = true;
    return e;
}
fake::Engine broken(fake::Engine e) {
    e.breaks = true;
    return e;
}

class TuneTest : public VendorTest {
  protected:
    twk_conv_args conv = small_conv();
    Tensor x = random_tensor(TWK_F32, 48), w = random_tensor(TWK_F32, 135);
    Tensor y = Tensor(TWK_F32, 80), room = Tensor(TWK_F32, 4096);
    tw_vendor_choice choice = {};
    tw_vendor_call call = call_of(conv);
    TuneTest() {
        conv.x = x.data();
        conv.weight = w.data();
        conv.y = y.data();
        conv.workspace = room.data();
        conv.workspace_bytes = 4096;
    }
    int64_t engine_that_runs(tw_vendor *v) {
        EXPECT_EQ(tw_vendor_run(v, &call, nullptr), TWK_OK) << tw_vendor_text();
        return fake_state()->engine;
    }
};

TEST_F(TuneTest, TheQuickest) {
    engines({engine(1, 3), engine(2, 1, 512), engine(3, 2)});
    Vendor v;
    EXPECT_EQ(engine_that_runs(v), 1);
    y = Tensor(TWK_F32, 80);
    conv.y = y.data();
    ASSERT_RUNS(tw_vendor_tune(v, &call, nullptr, &choice));
    EXPECT_EQ(choice.engine, 2);
    EXPECT_EQ(choice.tried, 3);
    EXPECT_EQ(choice.disagreed, 0);
    EXPECT_FLOAT_EQ(choice.milliseconds, 1);
    EXPECT_GE(choice.workspace, size_t(512));
    EXPECT_TRUE(std::isnan(y.at(0))); // the call's own output was left alone
    const int asked = fake_state()->asked;
    EXPECT_EQ(engine_that_runs(v), 2); // kept
    ASSERT_RUNS(tw_vendor_choose(v, &call, &choice));
    EXPECT_EQ(choice.engine, 2);
    EXPECT_EQ(choice.tried, 3);
    EXPECT_EQ(fake_state()->asked, asked);
}

TEST_F(TuneTest, TheSameAgain) {
    engines({engine(1, 2), engine(2, 1), engine(3, 1)});
    for (int i = 0; i < 3; i++) {
        Vendor v;
        ASSERT_RUNS(tw_vendor_tune(v, &call, nullptr, &choice));
        EXPECT_EQ(choice.engine, 2); // of equals, the first
    }
}

TEST_F(TuneTest, OtherShapesKeepTheirs) {
    engines({engine(1, 2), engine(2, 1)});
    Vendor v;
    ASSERT_RUNS(tw_vendor_tune(v, &call, nullptr, &choice));
    twk_conv_args other = conv;
    other.h = 3;
    const tw_vendor_call c = call_of(other);
    ASSERT_RUNS(tw_vendor_choose(v, &c, &choice));
    EXPECT_EQ(choice.engine, 1);
}

TEST_F(TuneTest, WhatDisagreesIsNotChosen) {
    engines({engine(1, 3), wrong(engine(2, 1)), engine(3, 2)});
    Vendor v;
    ASSERT_RUNS(tw_vendor_tune(v, &call, nullptr, &choice));
    EXPECT_EQ(choice.engine, 3);
    EXPECT_EQ(choice.tried, 3);
    EXPECT_EQ(choice.disagreed, 1);
}

TEST_F(TuneTest, WhereNoTwoAgreeNothingChanges) {
    engines({wrong(engine(1, 3)), engine(2, 1), engine(3, 2)});
    Vendor v;
    EXPECT_CANNOT(tw_vendor_tune(v, &call, nullptr, &choice), "no two agree");
    EXPECT_EQ(engine_that_runs(v), 1);
}

TEST_F(TuneTest, WhatBreaksIsNotChosen) {
    engines({engine(1, 3), broken(engine(2, 1)), engine(3, 2)});
    Vendor v;
    ASSERT_RUNS(tw_vendor_tune(v, &call, nullptr, &choice));
    EXPECT_EQ(choice.engine, 3);
    EXPECT_EQ(choice.tried, 2);
    engines({broken(engine(1)), broken(engine(2))});
    Vendor none;
    EXPECT_CANNOT(tw_vendor_tune(none, &call, nullptr, &choice), "no plan runs");
}

TEST_F(TuneTest, NotWhileTheStreamIsCaptured) {
    Vendor v;
    fake_state()->capturing = true;
    EXPECT_BAD(tw_vendor_tune(v, &call, nullptr, &choice), "captured");
    EXPECT_EQ(fake_state()->executed, 0);
}

TEST_F(TuneTest, WithoutMemoryOrDriver) {
    Vendor v;
    fake_state()->no_memory = true;
    EXPECT_CANNOT(tw_vendor_tune(v, &call, nullptr, &choice), "device memory");
    EXPECT_EQ(engine_that_runs(v), 1); // the plan is still there
    tw_vendor_options o = options();
    o.driver = "/nowhere/libcuda.so.1";
    Vendor without(o);
    EXPECT_CANNOT(tw_vendor_tune(without, &call, nullptr, &choice), "/nowhere/libcuda.so.1");
    o.driver = FAKE_LACKING;
    Vendor lacking(o);
    EXPECT_CANNOT(tw_vendor_tune(lacking, &call, nullptr, &choice), "has no cuEventCreate");
}

TEST_F(TuneTest, NotForADescribedDevice) {
    tw_vendor_options o = options();
    o.device = "{}";
    Vendor v(o);
    EXPECT_CANNOT(tw_vendor_tune(v, &call, nullptr, &choice), "described device");
}

// Gradients that are added stay as they are.
TEST_F(TuneTest, Gradients) {
    engines({engine(1, 2), engine(2, 1)});
    for (twk_format f : formats) {
        Vendor v;
        conv.format = f;
        const Tensor dy = random_tensor(f, 80), xf = random_tensor(f, 48),
                     wf = random_tensor(f, 135);
        const Tensor dw = random_tensor(TWK_F32, 135), dx = random_tensor(f, 48);
        const std::vector<double> dw_before = dw.all(), dx_before = dx.all();
        conv.x = xf.data();
        conv.weight = wf.data();
        conv.dy = dy.data();
        conv.dx = dx.data();
        conv.dx_add = dx.data();
        conv.dweight = dw.f32();
        for (tw_vendor_op op : {TW_VENDOR_CONV_INPUT_GRADIENT, TW_VENDOR_CONV_WEIGHT_GRADIENT}) {
            call = call_of(conv, op);
            ASSERT_RUNS(tw_vendor_tune(v, &call, nullptr, &choice));
            EXPECT_EQ(choice.engine, 2);
        }
        EXPECT_EQ(dw.all(), dw_before);
        EXPECT_EQ(dx.all(), dx_before);
    }
}

} // namespace
