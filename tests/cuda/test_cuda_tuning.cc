// Choices by the clock: who is taken, who is refused, and what of it a file keeps.
#include "libraries.h"
#include "networks.h"

#include <fstream>
#include <sstream>
#include <unistd.h>

extern "C" {
#include "backend/cuda/tuning.h"
}

namespace {

class CudaTuning : public Cuda {
  protected:
    void SetUp() override {
        if (!kHaveLibraries) GTEST_SKIP() << "built without the headers of cuDNN or cuBLASLt";
        char name[] = "/tmp/tweedie-tuning-XXXXXX";
        ASSERT_NE(mkdtemp(name), nullptr);
        folder = name;
        file = folder + "/providers.json";
    }
    void TearDown() override {
        if (!file.empty()) unlink(file.c_str());
        if (!folder.empty()) rmdir(folder.c_str());
        Cuda::TearDown();
    }
    std::string read() const {
        std::ifstream in(file);
        std::stringstream s;
        s << in.rdbuf();
        return s.str();
    }
    void write(const std::string &text) const { std::ofstream(file) << text; }
    void replace(const std::string &what, const std::string &with) const {
        std::string text = read();
        const size_t at = text.find(what);
        ASSERT_NE(at, std::string::npos) << text;
        write(text.replace(at, what.size(), with));
    }
    std::string folder, file;
};

// Everything is a parameter, which is of the plan's format.
tw_value Linear(tw_plan *p, bool silu) {
    const int64_t x[] = {6, 8}, w[] = {16, 8}, b[] = {16};
    const tw_value y =
        tw_plan_linear(p, tw_plan_parameter(p, "x", 2, x), tw_plan_parameter(p, "w", 2, w),
                       tw_plan_parameter(p, "b", 1, b));
    return silu ? tw_plan_activation(p, y, TW_SILU) : y;
}

tw_value Convolution(tw_plan *p) {
    const int64_t x[] = {2, 4, 4, 8}, w[] = {8, 3, 3, 8}, b[] = {8};
    const tw_value in = tw_plan_parameter(p, "x", 4, x);
    tw_plan_want_gradient(p, in);
    const tw_value y = tw_plan_conv2d(p, in, tw_plan_parameter(p, "w", 4, w),
                                      tw_plan_parameter(p, "b", 1, b), {1, 1, 1, 1, 1});
    return tw_plan_add(p, y, in, 0.5, 0.5);
}

struct Plan {
    tw_plan *p = nullptr;
    tw_value y = TW_NONE;
    tw_status status = TW_OK;
    Plan(tw_context *ctx, tw_dtype format, const std::function<tw_value(tw_plan *)> &build,
         bool backward = false) {
        tw_plan_options o = TW_PLAN_OPTIONS_INIT;
        o.precision = format;
        EXPECT_EQ(tw_plan_create(ctx, &o, &p), TW_OK);
        y = build(p);
        tw_plan_keep(p, y);
        if (backward) {
            int64_t shape[TW_MAX_RANK];
            const int rank = tw_plan_shape(p, y, shape);
            const tw_value t = tw_plan_input(p, "t", TW_F32, rank, shape);
            EXPECT_EQ(tw_plan_backward(p, tw_plan_mse(p, y, t, TW_NONE, nullptr), 1), TW_OK);
        }
        ctx->backend->choices = {};
        status = tw_plan_compile(p);
    }
    ~Plan() { tw_plan_free(p); }
    Plan(const Plan &) = delete;
    Plan &operator=(const Plan &) = delete;
};

tw_value Product(tw_plan *p) {
    return Linear(p, false);
}

const tw_choices &Choices(const Context &c) {
    return c.get()->backend->choices;
}

int Done(const Context &c, const char *provider, tw_op_kind kind) {
    tw_backend *b = c.get()->backend;
    for (int i = 0; b->providers[i]; i++)
        if (strcmp(b->providers[i]->name, provider) == 0) return b->choices.operations[i][kind];
    return 0;
}

size_t Lines(const std::string &text, const std::string &word) {
    size_t n = 0;
    std::istringstream in(text);
    for (std::string line; std::getline(in, line);) n += line.find(word) != std::string::npos;
    return n;
}

TEST_F(CudaTuning, TakesTheQuickest) {
    const Libraries libraries;
    for (const bool library : {false, true}) {
        emulated::set_costs(library ? 5 : 1, library ? 1 : 5);
        const Context c(TW_DEVICE_CUDA);
        ASSERT_EQ(tw_context_tune(c.get(), nullptr), TW_OK) << tw_context_error(c.get());
        const Plan plan(c.get(), TW_F32, Product);
        ASSERT_EQ(plan.status, TW_OK) << tw_context_error(c.get());
        EXPECT_EQ(Done(c, library ? "cudnn" : "own", TW_OP_LINEAR), 1);
        EXPECT_EQ(Choices(c).timed, 1);
        EXPECT_EQ(Choices(c).tuned, 1);
        EXPECT_EQ(Choices(c).n_refusals, 0);
        const Plan again(c.get(), TW_F32, Product);
        EXPECT_EQ(Choices(c).timed, 0) << "it is known";
        EXPECT_EQ(Choices(c).tuned, 1);
    }
}

// What one kernel of ours does together is timed together: with what a library leaves to us.
TEST_F(CudaTuning, TimesTheWholeClaim) {
    const Libraries libraries;
    emulated::set_costs(2, 1); // alone the library would be quicker
    const Context c(TW_DEVICE_CUDA);
    ASSERT_EQ(tw_context_tune(c.get(), nullptr), TW_OK);
    const Plan alone(c.get(), TW_F32, Product);
    ASSERT_EQ(alone.status, TW_OK) << tw_context_error(c.get());
    EXPECT_EQ(Done(c, "cudnn", TW_OP_LINEAR), 1);
    const Plan both(c.get(), TW_F32, [](tw_plan *p) { return Linear(p, true); });
    ASSERT_EQ(both.status, TW_OK) << tw_context_error(c.get());
    EXPECT_EQ(Done(c, "own", TW_OP_LINEAR), 1);
    EXPECT_EQ(Done(c, "own", TW_OP_ACT), 1);
    EXPECT_EQ(Choices(c).timed, 1);
    EXPECT_NE(c.logged().find("own 2.0000 ms, cudnn 3.0000 ms: linear("), std::string::npos)
        << c.logged();
}

// Gradients that are added to, and rounded results; a claim of which the library leaves a part.
TEST_F(CudaTuning, ProvidersAgree) {
    const Libraries libraries;
    const Context c(TW_DEVICE_CUDA);
    ASSERT_EQ(tw_context_tune(c.get(), nullptr), TW_OK);
    for (const tw_dtype format : {TW_F32, TW_BF16, TW_F16}) {
        const Plan conv(c.get(), format, Convolution, true);
        ASSERT_EQ(conv.status, TW_OK) << tw_context_error(c.get());
        EXPECT_EQ(Choices(c).timed, 3);
        EXPECT_EQ(Choices(c).n_refusals, 0) << Choices(c).refusals[0].reason;
        const Plan silu(
            c.get(), format, [](tw_plan *p) { return Linear(p, true); }, true);
        ASSERT_EQ(silu.status, TW_OK) << tw_context_error(c.get());
        EXPECT_GE(Choices(c).timed, 2);
        EXPECT_EQ(Choices(c).n_refusals, 0) << Choices(c).refusals[0].reason;
    }
}

TEST_F(CudaTuning, RefusesAProviderThatDisagrees) {
    fake::Engine wrong;
    wrong.wrong = true;
    const Libraries libraries({wrong});
    emulated::set_costs(5, 1);
    for (const bool from_file : {false, true}) {
        const Context c(TW_DEVICE_CUDA);
        ASSERT_EQ(tw_context_tune(c.get(), file.c_str()), TW_OK);
        const Plan plan(c.get(), TW_F32, Product);
        ASSERT_EQ(plan.status, TW_OK) << tw_context_error(c.get());
        EXPECT_EQ(Done(c, "own", TW_OP_LINEAR), 1) << "however quick the other is";
        EXPECT_EQ(Choices(c).timed, from_file ? 0 : 1);
        ASSERT_EQ(Choices(c).n_refusals, 1);
        EXPECT_STREQ(Choices(c).refusals[0].provider, "cudnn");
        EXPECT_NE(std::string(Choices(c).refusals[0].reason).find("disagrees with own: element"),
                  std::string::npos);
        EXPECT_EQ(Lines(c.logged(), "cudnn is refused for linear("), from_file ? 0u : 1u)
            << c.logged();
        ASSERT_EQ(tw_context_save_tuning(c.get(), file.c_str()), TW_OK);
    }
    // Without tuning nobody would notice.
    const Context c(TW_DEVICE_CUDA);
    const Plan plan(c.get(), TW_F32, Product);
    EXPECT_EQ(Done(c, "cudnn", TW_OP_LINEAR), 1);
}

TEST_F(CudaTuning, RefusesAProviderThatDoesNotRun) {
    fake::Engine broken;
    broken.breaks = true;
    const Libraries libraries({broken});
    const Context c(TW_DEVICE_CUDA);
    ASSERT_EQ(tw_context_tune(c.get(), nullptr), TW_OK);
    const Plan plan(c.get(), TW_F32, Product);
    ASSERT_EQ(plan.status, TW_OK) << tw_context_error(c.get());
    EXPECT_EQ(Done(c, "own", TW_OP_LINEAR), 1);
    ASSERT_EQ(Choices(c).n_refusals, 1);
    EXPECT_EQ(std::string(Choices(c).refusals[0].reason).rfind("it does not run: ", 0), 0u)
        << Choices(c).refusals[0].reason;
    EXPECT_STREQ(tw_context_error(c.get()), "");
}

Floats Result(const Context &c) {
    const Plan plan(c.get(), TW_F32, [](tw_plan *p) {
        const int64_t x[] = {6, 256}, w[] = {16, 256};
        const tw_value in = tw_plan_input(p, "x", TW_F32, 2, x);
        return tw_plan_linear(p, in, tw_plan_parameter(p, "w", 2, w), TW_NONE);
    });
    EXPECT_EQ(plan.status, TW_OK) << tw_context_error(c.get());
    Floats values(16 * 256), y(6 * 16);
    for (size_t i = 0; i < values.size(); i++) values[i] = std::sin(0.37f * (float)i);
    EXPECT_EQ(tw_plan_write(plan.p, 0, values.data(), 6 * 256 * 4), TW_OK);
    EXPECT_EQ(tw_plan_write(plan.p, 1, values.data(), 16 * 256 * 4), TW_OK);
    EXPECT_EQ(tw_plan_run(plan.p), TW_OK);
    EXPECT_EQ(tw_plan_read(plan.p, plan.y, y.data(), y.size() * 4), TW_OK);
    return y;
}

// The clock says something else the second time; the file repeats the first.
TEST_F(CudaTuning, AFileRepeatsARunToTheBit) {
    const Libraries libraries;
    Floats results[3];
    std::string kept;
    for (int i = 0; i < 3; i++) {
        emulated::set_costs(i ? 1 : 5, i ? 5 : 1);
        const Context c(TW_DEVICE_CUDA);
        ASSERT_EQ(tw_context_tune(c.get(), i < 2 ? file.c_str() : nullptr), TW_OK);
        results[i] = Result(c);
        EXPECT_EQ(Done(c, i < 2 ? "cudnn" : "own", TW_OP_LINEAR), 1);
        EXPECT_EQ(Choices(c).timed, i == 1 ? 0 : 1);
        EXPECT_EQ(Choices(c).tuned, 1);
        if (i == 2) continue;
        ASSERT_EQ(tw_context_save_tuning(c.get(), file.c_str()), TW_OK);
        if (i == 0) kept = read();
        EXPECT_EQ(read(), kept);
    }
    EXPECT_EQ(memcmp(results[0].data(), results[1].data(), results[0].size() * 4), 0);
    EXPECT_NE(memcmp(results[0].data(), results[2].data(), results[0].size() * 4), 0)
        << "the two sum in another order, or this test shows nothing";
}

TEST_F(CudaTuning, AFileIsOfItsDeviceAndLibraries) {
    const Libraries libraries;
    const std::pair<const char *, std::function<void()>> changes[] = {
        {"not JSON", [&] { write("{\"tweedie\": "); }},
        {"nothing of ours", [&] { write("{}"); }},
        {"its device is \"Another GPU\", this one's is \"Emulated GPU\"",
         [&] { replace("Emulated GPU", "Another GPU"); }},
        {"its capability is \"8.0\"", [&] { replace("\"9.0\"", "\"8.0\""); }},
        {"its libraries is \"cuDNN 8", [&] { replace("cuDNN 9", "cuDNN 8"); }},
        {"expected own or cudnn, got \"abacus\"", [&] { replace("\"own\"", "\"abacus\""); }},
        {"provider", [&] { replace("\"own\"", "7"); }},
    };
    std::string right;
    {
        const Context c(TW_DEVICE_CUDA);
        ASSERT_EQ(tw_context_tune(c.get(), file.c_str()), TW_OK);
        EXPECT_EQ(c.logged(), "") << "a file that is not there is no mistake";
        emulated::set_costs(1, 2);
        const Plan plan(c.get(), TW_F32, Product);
        ASSERT_EQ(tw_context_save_tuning(c.get(), file.c_str()), TW_OK);
        right = read();
    }
    for (const auto &[what, change] : changes) {
        SCOPED_TRACE(what);
        write(right);
        change();
        const Context c(TW_DEVICE_CUDA);
        ASSERT_EQ(tw_context_tune(c.get(), file.c_str()), TW_OK) << tw_context_error(c.get());
        EXPECT_EQ(Lines(c.logged(), "choices of providers are not taken up"), 1u) << c.logged();
        EXPECT_EQ(Lines(c.logged(), ""), 1u) << "one line: " << c.logged();
        EXPECT_NE(c.logged().find(file), std::string::npos) << c.logged();
        if (std::string(what).find("its ") == 0 || std::string(what).find("exp") == 0) {
            EXPECT_NE(c.logged().find(what), std::string::npos) << c.logged();
        }
        EXPECT_STREQ(tw_context_error(c.get()), "");
        const Plan plan(c.get(), TW_F32, Product);
        EXPECT_EQ(Choices(c).timed, 1);
        ASSERT_EQ(tw_context_save_tuning(c.get(), file.c_str()), TW_OK);
        EXPECT_EQ(read(), right) << "it is made again";
    }
}

TEST_F(CudaTuning, AFileThatCannotBeWrittenIsAnError) {
    const Libraries libraries;
    const Context c(TW_DEVICE_CUDA);
    ASSERT_EQ(tw_context_tune(c.get(), nullptr), TW_OK);
    const std::string nowhere = folder + "/absent/providers.json";
    EXPECT_EQ(tw_context_save_tuning(c.get(), nowhere.c_str()), TW_OK) << "nothing to write";
    const Plan plan(c.get(), TW_F32, Product);
    EXPECT_EQ(tw_context_save_tuning(c.get(), nowhere.c_str()), TW_ERROR_IO);
    EXPECT_NE(std::string(tw_context_error(c.get())).find(nowhere), std::string::npos);
}

// Without the memory for an operand the table decides, and nothing is left behind.
TEST_F(CudaTuning, WantOfMemoryIsNoFailure) {
    const Libraries libraries;
    int failures = 0, untimed = 0;
    for (int64_t n = 0; n < 100; n++) {
        const Context c(TW_DEVICE_CUDA);
        ASSERT_EQ(tw_context_tune(c.get(), nullptr), TW_OK);
        emulated::fail_at(n);
        const Plan plan(c.get(), TW_F32, Convolution);
        const bool failed = emulated::failed();
        emulated::plenty();
        if (!failed) {
            EXPECT_EQ(plan.status, TW_OK);
            break;
        }
        failures++;
        untimed += plan.status == TW_OK && Choices(c).timed == 0;
        EXPECT_TRUE(plan.status == TW_OK || plan.status == TW_ERROR_MEMORY)
            << tw_context_error(c.get());
    }
    EXPECT_GT(failures, 5);
    EXPECT_GT(untimed, 3);
}

TEST_F(CudaTuning, BelongsToAuto) {
    const Libraries libraries;
    for (const char *wish : {"own", "cudnn"}) {
        tw_context_options o = TW_CONTEXT_OPTIONS_INIT;
        o.provider = wish;
        const Context c(TW_DEVICE_CUDA, &o);
        EXPECT_EQ(tw_context_tune(c.get(), nullptr), TW_ERROR_ARGUMENT);
        EXPECT_NE(std::string(tw_context_error(c.get())).find(wish), std::string::npos);
    }
    const Context cpu(TW_DEVICE_CPU);
    EXPECT_EQ(tw_context_tune(cpu.get(), nullptr), TW_ERROR_ARGUMENT);
    EXPECT_NE(std::string(tw_context_error(cpu.get())).find("this is CPU, 1 thread"),
              std::string::npos)
        << tw_context_error(cpu.get());
    EXPECT_EQ(tw_context_save_tuning(cpu.get(), "nowhere"), TW_OK);
    EXPECT_EQ(tw_context_tune(nullptr, nullptr), TW_ERROR_ARGUMENT);
}

// Without libraries there is nothing to try.
TEST_F(CudaTuning, NeedsTwo) {
    const Context c(TW_DEVICE_CUDA);
    ASSERT_EQ(tw_context_tune(c.get(), file.c_str()), TW_OK);
    const Plan plan(c.get(), TW_F32, Product);
    ASSERT_EQ(plan.status, TW_OK);
    EXPECT_EQ(Choices(c).timed, 0);
    EXPECT_EQ(Done(c, "own", TW_OP_LINEAR), 1);
    EXPECT_GE(Choices(c).n_refusals, 1);
    ASSERT_EQ(tw_context_save_tuning(c.get(), file.c_str()), TW_OK);
    EXPECT_EQ(read(), "");
}

// A plan that is only laid out takes up what is kept, and tries nothing.
TEST_F(CudaTuning, PlanningTriesNothing) {
    const Libraries libraries;
    emulated::set_costs(1, 5);
    {
        const Context c(TW_DEVICE_CUDA);
        ASSERT_EQ(tw_context_tune(c.get(), nullptr), TW_OK);
        const Plan plan(c.get(), TW_F32, Product);
        ASSERT_EQ(tw_context_save_tuning(c.get(), file.c_str()), TW_OK);
    }
    const Context c(TW_DEVICE_CUDA);
    ASSERT_EQ(tw_context_tune(c.get(), file.c_str()), TW_OK);
    tw_backend_plan_only(c.get()->backend);
    const Plan known(c.get(), TW_F32, Product);
    EXPECT_EQ(Done(c, "own", TW_OP_LINEAR), 1);
    EXPECT_EQ(Choices(c).tuned, 1);
    const Plan other(c.get(), TW_F32, [](tw_plan *p) { return Linear(p, true); });
    EXPECT_EQ(Choices(c).timed, 0);
    EXPECT_EQ(Choices(c).tuned, 0);
}

// --- the text -----------------------------------------------------------------------------------

std::string Text(const tw_region &r) {
    char text[1024];
    EXPECT_TRUE(tw_region_text(&r, text, sizeof text));
    char little[16];
    EXPECT_FALSE(tw_region_text(&r, little, sizeof little));
    return text;
}

TEST(RegionText, SaysAllThatMatters) {
    tw_region r;
    memset(&r, 0, sizeof r);
    r.n_slots = 5;
    for (int i = 0; i < 5; i++) r.slots[i] = {{TW_F32, 4, {2, 4, 4, 8}}, true, false, 64};
    r.n_ops = 2;
    r.ops[0].kind = TW_OP_CONV2D;
    r.ops[0].attr.conv = {1, 1, 1, 1, 1};
    r.ops[0].n_in = 3;
    r.ops[0].n_out = 1;
    r.ops[0].in[0] = 3;
    r.ops[0].in[1] = 1;
    r.ops[0].in[2] = -1;
    r.ops[0].out[0] = 2;
    r.ops[1].kind = TW_OP_AXPBY;
    r.ops[1].attr.axpby = {1, 1};
    r.ops[1].n_in = 2;
    r.ops[1].n_out = 1;
    r.ops[1].in[0] = 2;
    r.ops[1].in[1] = 3;
    r.ops[1].out[0] = 4;
    const std::string text = Text(r);
    const std::string name = tw_dtype_name(TW_F32);
    EXPECT_EQ(text, "conv2d( #1:" + name + "[2x4x4x8]/64 #2:" + name + "[2x4x4x8]/64 - -> #3:" +
                        name + "[2x4x4x8]/64 stride 1 pad 1 1 1 1), axpby( #3 #1 -> #4:" + name +
                        "[2x4x4x8]/64 1 1)");
    const std::function<void(tw_region &)> changes[] = {
        [](tw_region &x) { x.tf32 = true; },
        [](tw_region &x) { x.n_ops = 1; },
        [](tw_region &x) { x.slots[3].desc.dim[0] = 3; },
        [](tw_region &x) { x.slots[3].desc.dtype = TW_BF16; },
        [](tw_region &x) { x.slots[3].desc.rank = 3; },
        [](tw_region &x) { x.slots[1].alignment = 4; },
        [](tw_region &x) { x.slots[2].needed = false; },
        [](tw_region &x) { x.slots[1].constant = true; },
        [](tw_region &x) { x.ops[0].attr.conv.stride = 2; },
        [](tw_region &x) { x.ops[0].attr.conv.pad_right = 0; },
        [](tw_region &x) { x.ops[1].attr.axpby.beta = 0.5; },
        [](tw_region &x) { x.ops[1].in[1] = 0; },
        [](tw_region &x) { x.ops[0].kind = TW_OP_CONV2D_BWD_DATA; },
    };
    for (const auto &change : changes) {
        tw_region other = r;
        change(other);
        EXPECT_NE(Text(other), text);
    }
    tw_region same = r; // the same under other numbers
    same.ops[0].in[0] = same.ops[1].in[1] = 0;
    EXPECT_EQ(Text(same), text);
}

} // namespace
