// Who is asked first: the table of "auto" beside the page of predictions, the order that follows
// from it, and what is recorded of choices and refusals.
#include "libraries.h"
#include "networks.h"

#include <fstream>
#include <sstream>

extern "C" {
#include "backend/cuda/heuristics.h"
#include "backend/cuda/vendor/vendor.h"
}

namespace {

// --- the page -----------------------------------------------------------------------------------

struct Row {
    std::string kernel, shape, format;
    double gflop = 0, own = 0, library = 0; // percent; library 0: it has none
    std::string name() const { return kernel + " | " + shape + " | " + format; }
    bool has(const char *word) const { return (" " + shape + " ").find(word) != std::string::npos; }
};

std::vector<Row> Page() {
    std::ifstream file(TW_TEST_DIR "/../bench/results/plan.md");
    std::vector<Row> rows;
    for (std::string line; std::getline(file, line);) {
        std::vector<std::string> cells;
        std::istringstream in(line);
        for (std::string cell; std::getline(in, cell, '|');) {
            const size_t from = cell.find_first_not_of(' '), to = cell.find_last_not_of(' ');
            cells.push_back(from == std::string::npos ? "" : cell.substr(from, to - from + 1));
        }
        if (cells.size() < 12) continue;
        rows.push_back({cells[1], cells[2], cells[3], std::atof(cells[6].c_str()),
                        std::atof(cells[9].c_str()), std::atof(cells[11].c_str())});
    }
    return rows;
}

tw_op_kind KindOf(const Row &r) {
    const auto is = [&](const char *text) { return r.kernel.find(text) != std::string::npos; };
    const bool conv = is("conv"), linear = is("linear");
    if (is("attention")) return is("backward") ? TW_OP_ATTENTION_BWD : TW_OP_ATTENTION;
    if (is("input gradient")) return conv ? TW_OP_CONV2D_BWD_DATA : TW_OP_LINEAR_BWD_DATA;
    if (is("weight gradient")) return conv ? TW_OP_CONV2D_BWD_WEIGHT : TW_OP_LINEAR_BWD_WEIGHT;
    return conv ? TW_OP_CONV2D : linear ? TW_OP_LINEAR : TW_OP_COUNT;
}

tw_product_class ClassOf(const Row &r) {
    if (r.kernel.find("conv") == std::string::npos) return TW_PRODUCT_WIDE;
    // The engine enlarges an image before the weights' gradient.
    if (r.has(" up ") && KindOf(r) != TW_OP_CONV2D_BWD_WEIGHT) return TW_PRODUCT_ENLARGED;
    if (r.has("x3 ") || r.has("-> 3 ")) return TW_PRODUCT_NARROW;
    const bool weights = KindOf(r) == TW_OP_CONV2D_BWD_WEIGHT && r.format != "fp32";
    return weights && r.gflop * 1e9 < TW_SMALL_FLOPS ? TW_PRODUCT_SMALL : TW_PRODUCT_WIDE;
}

const tw_heuristic *Find(const Row &r) {
    for (int i = 0; i < tw_heuristic_count; i++) {
        const tw_heuristic *h = &tw_heuristics[i];
        const char *format = h->format == TW_BF16 ? "bf16" : h->format == TW_F16 ? "fp16" : "fp32";
        if (h->kind == KindOf(r) && h->shape == ClassOf(r) && r.format == format &&
            h->tf32 == r.has(" tf32 "))
            return h;
    }
    return nullptr;
}

TEST(Heuristics, AreThePagesPredictions) {
    const std::vector<Row> page = Page();
    ASSERT_GT(page.size(), 100u);
    for (int i = 0; i < tw_heuristic_count; i++) {
        const tw_heuristic &h = tw_heuristics[i];
        int found = 0;
        EXPECT_FALSE(h.measured) << h.row << ": no GPU has been measured yet";
        for (const Row &r : page) {
            if (r.name() != h.row) continue;
            found++;
            EXPECT_EQ(Find(r), &h) << h.row << " stands for another class";
            EXPECT_EQ(h.own, r.own) << h.row;
            EXPECT_EQ(h.library, r.library) << h.row;
        }
        EXPECT_EQ(found, 1) << h.row;
    }
}

TEST(Heuristics, DecideAllRowsOfAClassAlike) {
    int seen = 0;
    for (const Row &r : Page()) {
        if (KindOf(r) == TW_OP_COUNT || r.library == 0) continue;
        const tw_heuristic *h = Find(r);
        ASSERT_NE(h, nullptr) << r.name() << " has no row in the table";
        EXPECT_EQ(tw_heuristic_library_first(h), r.library > 1.15 * r.own) << r.name();
        seen++;
    }
    EXPECT_GT(seen, 100);
    EXPECT_FALSE(tw_heuristic_library_first(nullptr));
}

// --- the order ----------------------------------------------------------------------------------

using Describe = void (*)(tw_plan *);

tw_value Input(tw_plan *p, tw_dtype format, std::vector<int64_t> shape) {
    return tw_plan_input(p, "x", format, (int)shape.size(), shape.data());
}

tw_value Weights(tw_plan *p, std::vector<int64_t> shape) {
    return tw_plan_parameter(p, "w", (int)shape.size(), shape.data());
}

tw_value Convolve(tw_plan *p, tw_dtype format, int64_t c, int64_t o) {
    const tw_value x = Input(p, format, {2, 4, 4, c});
    tw_plan_want_gradient(p, x);
    return tw_plan_conv2d(p, x, Weights(p, {o, 3, 3, c}), Weights(p, {o}), {1, 1, 1, 1, 1});
}

tw_value Multiply(tw_plan *p) {
    return tw_plan_linear(p, Input(p, TW_F32, {6, 8}), Weights(p, {16, 8}), Weights(p, {16}));
}

struct Case {
    const char *what;
    tw_dtype format;
    bool tf32, backward;
    tw_value (*build)(tw_plan *);
    tw_op_kind kind;
    const char *first; // who should do it
};

const Case kCases[] = {
    {"fp32", TW_F32, false, false, [](tw_plan *p) { return Convolve(p, TW_F32, 8, 8); },
     TW_OP_CONV2D, "cudnn"},
    {"tf32", TW_F32, true, false, [](tw_plan *p) { return Convolve(p, TW_F32, 8, 8); },
     TW_OP_CONV2D, "cudnn"},
    {"bf16", TW_BF16, false, false, [](tw_plan *p) { return Convolve(p, TW_BF16, 8, 8); },
     TW_OP_CONV2D, "cudnn"},
    {"fp16", TW_F16, false, false, [](tw_plan *p) { return Convolve(p, TW_F16, 8, 8); },
     TW_OP_CONV2D, "cudnn"},
    {"few channels in", TW_BF16, false, false,
     [](tw_plan *p) { return Convolve(p, TW_BF16, 3, 8); }, TW_OP_CONV2D, "own"},
    {"few channels out", TW_BF16, false, false,
     [](tw_plan *p) { return Convolve(p, TW_BF16, 8, 4); }, TW_OP_CONV2D, "own"},
    {"few channels", TW_BF16, false, true, [](tw_plan *p) { return Convolve(p, TW_BF16, 8, 4); },
     TW_OP_CONV2D_BWD_WEIGHT, "cudnn"},
    {"unpredicted", TW_F16, false, false, [](tw_plan *p) { return Convolve(p, TW_F16, 8, 1); },
     TW_OP_CONV2D, "own"},
    {"fp32", TW_F32, false, true, [](tw_plan *p) { return Convolve(p, TW_F32, 8, 8); },
     TW_OP_CONV2D_BWD_DATA, "cudnn"},
    {"a small lead", TW_F32, false, true, [](tw_plan *p) { return Convolve(p, TW_F32, 8, 8); },
     TW_OP_CONV2D_BWD_WEIGHT, "own"},
    {"tf32", TW_F32, true, true, [](tw_plan *p) { return Convolve(p, TW_F32, 8, 8); },
     TW_OP_CONV2D_BWD_WEIGHT, "cudnn"},
    {"fp32", TW_F32, false, false, Multiply, TW_OP_LINEAR, "cudnn"},
    {"fp32", TW_F32, false, true, Multiply, TW_OP_LINEAR_BWD_WEIGHT, "cudnn"},
    {"with a sum", TW_F32, false, false,
     [](tw_plan *p) {
         return tw_plan_add(p, Multiply(p), Input(p, TW_F32, {6, 16}), 1, 1);
     },
     TW_OP_LINEAR, "cudnn"},
    {"with silu, which cuBLASLt has not", TW_F32, false, false,
     [](tw_plan *p) { return tw_plan_activation(p, Multiply(p), TW_SILU); }, TW_OP_LINEAR, "own"},
    {"enlarged", TW_F32, false, false,
     [](tw_plan *p) {
         const tw_value x = tw_plan_upsample_nearest(p, Input(p, TW_F32, {2, 2, 2, 8}), 2);
         return tw_plan_conv2d(p, x, Weights(p, {8, 3, 3, 8}), TW_NONE, {1, 1, 1, 1, 1});
     },
     TW_OP_CONV2D, "own"},
};

tw_status Compile(tw_context *ctx, const Case &c) {
    tw_plan_options o = TW_PLAN_OPTIONS_INIT;
    tw_plan *p = nullptr;
    o.precision = c.format;
    o.tf32 = c.tf32;
    EXPECT_EQ(tw_plan_create(ctx, &o, &p), TW_OK);
    const tw_value y = c.build(p);
    tw_plan_keep(p, y);
    if (c.backward) {
        int64_t shape[TW_MAX_RANK];
        const int rank = tw_plan_shape(p, y, shape);
        const tw_value t = tw_plan_input(p, "t", TW_F32, rank, shape);
        EXPECT_EQ(tw_plan_backward(p, tw_plan_mse(p, y, t, TW_NONE, nullptr), 1), TW_OK);
    }
    ctx->backend->choices = {};
    const tw_status s = tw_plan_compile(p);
    tw_plan_free(p);
    return s;
}

int Done(tw_context *ctx, const char *provider, tw_op_kind kind) {
    for (int i = 0; ctx->backend->providers[i]; i++)
        if (strcmp(ctx->backend->providers[i]->name, provider) == 0)
            return ctx->backend->choices.operations[i][kind];
    return 0;
}

// The cases that somebody else does than should.
std::string Mistakes(tw_context *ctx) {
    std::string wrong;
    for (const Case &c : kCases) {
        if (Compile(ctx, c) != TW_OK)
            wrong += std::string(c.what) + ": " + tw_context_error(ctx) + "\n";
        else if (Done(ctx, c.first, c.kind) != 1)
            wrong += std::string(tw_op_name(c.kind)) + " " + c.what + ": not by " + c.first + "\n";
    }
    return wrong;
}

tw_status Reversed(tw_backend *b, const tw_region *region, const tw_provider *const **out) {
    static const tw_provider *order[TW_PROVIDERS_MAX];
    const tw_provider *const *right = nullptr;
    const tw_status s = tw_cuda_order(b, region, &right);
    if (s != TW_OK) return s;
    order[0] = right[1];
    order[1] = right[0];
    *out = order;
    return s;
}

class CudaChoices : public Cuda {
  protected:
    void SetUp() override {
        if (!kHaveLibraries) GTEST_SKIP() << "built without the headers of cuDNN or cuBLASLt";
    }
};

TEST_F(CudaChoices, AutoFollowsTheTable) {
    const Libraries libraries;
    const Context c(TW_DEVICE_CUDA);
    ASSERT_EQ(c.status(), TW_OK);
    EXPECT_EQ(Mistakes(c.get()), "");
}

TEST_F(CudaChoices, AWrongOrderIsNoticed) {
    const Libraries libraries;
    const Context c(TW_DEVICE_CUDA);
    ASSERT_EQ(c.status(), TW_OK);
    c.get()->backend->order = Reversed;
    const std::string wrong = Mistakes(c.get());
    EXPECT_NE(wrong.find("conv2d bf16: not by cudnn"), std::string::npos) << wrong;
    EXPECT_NE(wrong.find("conv2d few channels out: not by own"), std::string::npos) << wrong;
    EXPECT_NE(wrong.find("linear fp32: not by cudnn"), std::string::npos) << wrong;
}

// A wish goes before the table.
TEST_F(CudaChoices, AWishIsFollowed) {
    const Libraries libraries;
    for (const char *wish : {"own", "cudnn"}) {
        tw_context_options o = TW_CONTEXT_OPTIONS_INIT;
        o.provider = wish;
        const Context c(TW_DEVICE_CUDA, &o);
        ASSERT_EQ(c.status(), TW_OK);
        for (const Case &k : kCases) {
            ASSERT_EQ(Compile(c.get(), k), TW_OK) << tw_context_error(c.get());
            const bool can = strcmp(wish, "own") == 0 || strcmp(k.what, "enlarged") != 0;
            EXPECT_EQ(Done(c.get(), wish, k.kind), can ? 1 : 0) << wish << " " << k.what;
        }
    }
}

// --- what is recorded ---------------------------------------------------------------------------

TEST_F(CudaChoices, WithoutLibrariesTheKernelsDoAllAndItIsSaidWhy) {
    const Context c(TW_DEVICE_CUDA);
    ASSERT_EQ(c.status(), TW_OK);
    const tw_choices &got = c.get()->backend->choices;
    for (const Case &k : kCases) {
        ASSERT_EQ(Compile(c.get(), k), TW_OK) << tw_context_error(c.get());
        EXPECT_EQ(Done(c.get(), "own", k.kind), 1) << k.what;
        if (strcmp(k.first, "own") == 0) continue;
        ASSERT_GE(got.n_refusals, 1) << k.what;
        EXPECT_STREQ(got.refusals[0].provider, "cudnn");
        EXPECT_NE(std::string(got.refusals[0].reason).find("/no/lib"), std::string::npos)
            << got.refusals[0].reason;
    }
    EXPECT_STREQ(tw_context_error(c.get()), "") << "a refusal is no failure";
}

TEST_F(CudaChoices, RefusalsOfPlansAreCounted) {
    fake::Engine none;
    none.refused = true;
    const Libraries libraries({none});
    const Context c(TW_DEVICE_CUDA);
    ASSERT_EQ(c.status(), TW_OK);
    const Case both = {"", TW_F32, false, true, kCases[0].build, TW_OP_CONV2D, "cudnn"};
    ASSERT_EQ(Compile(c.get(), both), TW_OK) << tw_context_error(c.get());
    const tw_choices &got = c.get()->backend->choices;
    EXPECT_EQ(Done(c.get(), "own", TW_OP_CONV2D), 1);
    EXPECT_EQ(Done(c.get(), "own", TW_OP_CONV2D_BWD_DATA), 1);
    int regions = 0;
    for (int i = 0; i < got.n_refusals; i++) regions += got.refusals[i].count;
    EXPECT_EQ(regions, 2) << "forward and one gradient; the other's order begins with ours";
}

// What of a claim the library leaves is the reason why it was not asked.
TEST_F(CudaChoices, SaysWhatOfAClaimALibraryLeaves) {
    const Libraries libraries;
    const Context c(TW_DEVICE_CUDA);
    ASSERT_EQ(c.status(), TW_OK);
    for (const Case &k : kCases) {
        if (strncmp(k.what, "with silu", 9) != 0) continue;
        ASSERT_EQ(Compile(c.get(), k), TW_OK);
        const tw_choices &got = c.get()->backend->choices;
        ASSERT_EQ(got.n_refusals, 1);
        EXPECT_EQ(got.refusals[0].count, 1);
        EXPECT_EQ(Done(c.get(), "own", TW_OP_ACT), 1) << "in the same claim";
    }
}

TEST_F(CudaChoices, LibrariesAreNamed) {
    char text[512] = "";
    {
        const Libraries libraries;
        const Context c(TW_DEVICE_CUDA);
        tw_backend *b = c.get()->backend;
        b->libraries(b, text, sizeof text);
        const std::string all = text;
        EXPECT_EQ(all.rfind("cuDNN 9.", 0), 0u) << all;
        EXPECT_NE(all.find(", cuBLASLt 1"), std::string::npos) << all;
        b->libraries(b, text, 9);
        EXPECT_EQ(std::string(text), all.substr(0, 8));
    }
    const Context c(TW_DEVICE_CUDA);
    c.get()->backend->libraries(c.get()->backend, text, sizeof text);
    EXPECT_NE(std::string(text).find("/no/libcudnn"), std::string::npos) << text;
    EXPECT_NE(std::string(text).find("/no/libcublasLt"), std::string::npos) << text;
    tw_context_options o = TW_CONTEXT_OPTIONS_INIT;
    o.provider = "own";
    const Context own(TW_DEVICE_CUDA, &o);
    EXPECT_EQ(own.get()->backend->libraries, nullptr);
}

TEST(Choices, KeepReasonsApartAndCountThem) {
    tw_choices c = {};
    tw_choices_refused(&c, "cudnn", "");
    EXPECT_EQ(c.n_refusals, 0);
    tw_choices_refused(&c, "cudnn", "conv2d: no plan");
    tw_choices_refused(&c, "cudnn", "conv2d_bwd_data: no plan");
    tw_choices_refused(&c, "own", "conv2d: no plan");
    ASSERT_EQ(c.n_refusals, 2);
    EXPECT_STREQ(c.refusals[0].reason, "no plan");
    EXPECT_EQ(c.refusals[0].count, 2);
    for (int i = 0; i < TW_REFUSALS_MAX + 3; i++)
        tw_choices_refused(&c, "cudnn", ("reason " + std::to_string(i)).c_str());
    EXPECT_EQ(c.n_refusals, TW_REFUSALS_MAX);
    EXPECT_EQ(c.others, 5);
    tw_choices_refused(&c, "own", std::string(1000, 'x').c_str());
    EXPECT_EQ(c.others, 6);
}

} // namespace
