// Which of the proposed engines becomes the plan, and that it is kept.
#include "support.h"

#include <cudnn_graph.h>

#include <thread>

using namespace vnd;

namespace {

class PlanTest : public VendorTest {
  protected:
    tw_vendor_choice choice = {};
    twk_conv_args conv = small_conv();
    twk_status choose(tw_vendor *v, tw_vendor_op op = TW_VENDOR_CONV_FORWARD) {
        const tw_vendor_call c = call_of(conv, op);
        return tw_vendor_choose(v, &c, &choice);
    }
    static fake::Engine with(fake::Engine e, int numerical, int behaviour = -1) {
        e.numerical = numerical;
        e.behaviour = behaviour;
        return e;
    }
    static fake::Engine by(cudnnBackendHeurMode_t mode, fake::Engine e) {
        e.mode = mode;
        return e;
    }
    static fake::Engine refused(fake::Engine e) {
        e.refused = true;
        return e;
    }
    static fake::Engine compiled(fake::Engine e) {
        return with(e, -1, CUDNN_BEHAVIOR_NOTE_RUNTIME_COMPILATION);
    }
};

TEST_F(PlanTest, TheFirstThatServes) {
    engines({compiled(engine(60)), with(engine(61), CUDNN_NUMERICAL_NOTE_NONDETERMINISTIC),
             with(engine(62), CUDNN_NUMERICAL_NOTE_WINOGRAD), engine(63, 1, size_t(1) << 40),
             refused(engine(64)), engine(65, 1, 100), engine(66)});
    Vendor v;
    ASSERT_RUNS(choose(v));
    EXPECT_EQ(choice.engine, 65);
    EXPECT_EQ(choice.rank, 5);
    EXPECT_EQ(choice.tried, 0);
    EXPECT_GE(choice.workspace, size_t(100));
    EXPECT_NE(std::string(choice.text).find("engine 65, heuristic A"), std::string::npos);
}

TEST_F(PlanTest, EveryNoteThatChangesResults) {
    for (int note : {CUDNN_NUMERICAL_NOTE_DOWN_CONVERT_INPUTS,
                     CUDNN_NUMERICAL_NOTE_REDUCED_PRECISION_REDUCTION, CUDNN_NUMERICAL_NOTE_FFT,
                     CUDNN_NUMERICAL_NOTE_NONDETERMINISTIC, CUDNN_NUMERICAL_NOTE_WINOGRAD,
                     CUDNN_NUMERICAL_NOTE_WINOGRAD_TILE_4x4, CUDNN_NUMERICAL_NOTE_WINOGRAD_TILE_6x6,
                     CUDNN_NUMERICAL_NOTE_WINOGRAD_TILE_13x13}) {
        engines({with(engine(1), note)});
        Vendor v;
        EXPECT_CANNOT(choose(v), "of 1 engines 0 would be compiled at run time, 1 are not exact");
    }
    engines({with(engine(1), 9)}); // one that does not
    Vendor v;
    ASSERT_RUNS(choose(v));
}

TEST_F(PlanTest, TensorCoresAreNotForExactFp32) {
    engines({with(engine(1), CUDNN_NUMERICAL_NOTE_TENSOR_CORE), engine(2)});
    Vendor v;
    ASSERT_RUNS(choose(v));
    EXPECT_EQ(choice.engine, 2);
    conv.tf32 = 1;
    ASSERT_RUNS(choose(v));
    EXPECT_EQ(choice.engine, 1);
    conv.tf32 = 0;
    conv.format = TWK_BF16;
    ASSERT_RUNS(choose(v));
    EXPECT_EQ(choice.engine, 1);
}

TEST_F(PlanTest, HeuristicsInTurn) {
    engines({by(CUDNN_HEUR_MODE_FALLBACK, engine(1)), by(CUDNN_HEUR_MODE_B, engine(2)),
             by(CUDNN_HEUR_MODE_A, compiled(engine(3)))});
    Vendor v;
    ASSERT_RUNS(choose(v));
    EXPECT_EQ(choice.engine, 2);
    EXPECT_NE(std::string(choice.text).find("heuristic B"), std::string::npos);
    engines({by(CUDNN_HEUR_MODE_FALLBACK, engine(1)), by(CUDNN_HEUR_MODE_A, compiled(engine(3)))});
    Vendor w;
    ASSERT_RUNS(choose(w));
    EXPECT_EQ(choice.engine, 1);
    EXPECT_NE(std::string(choice.text).find("fallback"), std::string::npos);
}

TEST_F(PlanTest, CompilationWhereItIsAllowed) {
    engines({compiled(engine(1)), engine(2)});
    tw_vendor_options o = options();
    o.compile = true;
    Vendor v(o);
    ASSERT_RUNS(choose(v));
    EXPECT_EQ(choice.engine, 1);
}

TEST_F(PlanTest, CannotSaysWhatBecameOfTheEngines) {
    engines({compiled(engine(1)), with(engine(2), CUDNN_NUMERICAL_NOTE_FFT), engine(3, 1, 1025),
             refused(engine(4)), refused(engine(5))});
    tw_vendor_options o = options();
    o.workspace_limit = 1024;
    Vendor v(o);
    EXPECT_CANNOT(choose(v), "of 5 engines 1 would be compiled at run time, 1 are not exact or "
                             "repeatable, 1 ask for too much workspace, 2 fail");
    engines({});
    Vendor none;
    EXPECT_CANNOT(choose(none), "no engine that is compiled already");
}

TEST_F(PlanTest, PlansAreKept) {
    Vendor v;
    ASSERT_RUNS(choose(v));
    const uint64_t first = choice.plan;
    const int asked = fake_state()->asked;
    ASSERT_RUNS(choose(v));
    EXPECT_EQ(choice.plan, first);
    EXPECT_EQ(fake_state()->asked, asked);

    // Everything that the library is told makes another plan.
    std::vector<uint64_t> plans = {first};
    const auto another = [&](tw_vendor_op op = TW_VENDOR_CONV_FORWARD) {
        ASSERT_RUNS(choose(v, op));
        for (uint64_t p : plans) EXPECT_NE(choice.plan, p);
        plans.push_back(choice.plan);
        conv = small_conv();
    };
    conv.batch = 2;
    another();
    conv.w = 5;
    another();
    conv.stride = 2;
    another();
    conv.pad_bottom = 0;
    another();
    conv.format = TWK_F16;
    another();
    conv.tf32 = 1;
    another();
    conv.scale = 0.5f;
    another();
    conv.silu = 1;
    another();
    const Tensor some(TWK_F32, 4096, 4);
    conv.x = some.data();
    another();
    conv.bias = some.f32();
    another();
    conv.residual = some.data();
    another();
    another(TW_VENDOR_CONV_INPUT_GRADIENT);
    another(TW_VENDOR_CONV_WEIGHT_GRADIENT);

    // What it is not told makes none: a scale of 0 counts as 1.
    conv.scale = 1;
    conv.splits = 4;
    ASSERT_RUNS(choose(v));
    EXPECT_EQ(choice.plan, first);
}

TEST_F(PlanTest, SoAreReasons) {
    engines({});
    Vendor v;
    EXPECT_CANNOT(choose(v), "no engine");
    const std::string reason = tw_vendor_text();
    const int asked = fake_state()->asked;
    engines({engine(1)});
    EXPECT_CANNOT(choose(v), reason);
    EXPECT_EQ(fake_state()->asked, asked);
}

TEST_F(PlanTest, WorkspaceIsTheCallers) {
    engines({engine(1, 1, 1000)});
    Vendor v;
    conv.format = TWK_BF16;
    const Tensor x = random_tensor(TWK_BF16, 48), w = random_tensor(TWK_BF16, 135),
                 bias = random_tensor(TWK_F32, 5);
    Tensor y(TWK_BF16, 80), room(TWK_BF16, 4096, 2);
    conv.x = x.data();
    conv.weight = w.data();
    conv.bias = bias.f32();
    conv.y = y.data();
    ASSERT_RUNS(choose(v));
    EXPECT_BAD(tw_vendor_conv_forward(v, &conv, nullptr), "bytes of workspace");
    conv.workspace = room.data();
    conv.workspace_bytes = choice.workspace - 1;
    EXPECT_BAD(tw_vendor_conv_forward(v, &conv, nullptr), "bytes of workspace");
    EXPECT_EQ(launched + fake_state()->executed, 0); // nothing was begun
    conv.workspace_bytes = choice.workspace;
    ASSERT_RUNS(tw_vendor_conv_forward(v, &conv, nullptr));
    EXPECT_EQ(fake_state()->executed, 1);
}

TEST_F(PlanTest, AFailureOfTheLibraryIsNotCannot) {
    fake::Engine e = engine(1);
    e.breaks = true;
    engines({e});
    Vendor v;
    const Tensor x = random_tensor(TWK_F32, 48), w = random_tensor(TWK_F32, 135);
    Tensor y(TWK_F32, 80);
    conv.x = x.data();
    conv.weight = w.data();
    conv.y = y.data();
    EXPECT_EQ(tw_vendor_conv_forward(v, &conv, nullptr), TWK_LAUNCH_FAILED);
    EXPECT_NE(std::string(tw_vendor_text()).find("does not run"), std::string::npos);
}

TEST_F(PlanTest, TheStreamIsTheCallers) {
    Vendor v;
    const Tensor x = random_tensor(TWK_F32, 48), w = random_tensor(TWK_F32, 135);
    Tensor y(TWK_F32, 80);
    conv.x = x.data();
    conv.weight = w.data();
    conv.y = y.data();
    int some = 0;
    ASSERT_RUNS(tw_vendor_conv_forward(v, &conv, reinterpret_cast<twk_stream>(&some)));
    EXPECT_EQ(fake_state()->stream, &some);
}

TEST_F(PlanTest, ThreadsTakeTurns) {
    Vendor v;
    std::vector<std::thread> threads;
    std::vector<uint64_t> plans(8);
    for (size_t i = 0; i < plans.size(); i++)
        threads.emplace_back([&, i] {
            for (int64_t size = 4; size < 24; size++) {
                twk_conv_args a = small_conv();
                tw_vendor_choice mine = {};
                a.h = size;
                const tw_vendor_call c = call_of(a);
                ASSERT_RUNS(tw_vendor_choose(v, &c, &mine));
                plans[i] += mine.plan;
            }
        });
    for (std::thread &t : threads) t.join();
    for (uint64_t p : plans) EXPECT_EQ(p, plans[0]);
}

} // namespace
