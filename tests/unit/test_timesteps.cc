#include "support/diffusion.h"

#include <vector>

namespace {

std::vector<int64_t> list(tw_context *ctx, tw_spacing spacing, int64_t T, int64_t S,
                          int64_t offset = 0) {
    std::vector<int64_t> out((size_t)S, -7);
    int64_t count = -1;
    EXPECT_EQ(TW_OK, tw_timesteps(ctx, spacing, T, S, offset, out.data(), &count))
        << tw_context_error(ctx);
    EXPECT_LE(count, S);
    out.resize((size_t)count);
    return out;
}

TEST(Timesteps, MatchesGoldenLists) {
    Context ctx = cpu_context();
    Json golden = load_golden("schedulers.json");
    json_t *rows = json_object_get(golden.get(), "timesteps"), *row;
    size_t i, checked = 0;
    json_array_foreach(rows, i, row) {
        const std::string scheduler = text(row, "scheduler");
        if (scheduler != "ddim" && scheduler != "ddpm" && scheduler != "pndm") continue;
        if (!json_is_true(json_object_get(row, "same_as_ours"))) continue;
        tw_spacing spacing;
        ASSERT_EQ(TW_OK, tw_spacing_parse(text(row, "spacing").c_str(), &spacing));
        const int64_t S = (int64_t)number(row, "steps"), offset = (int64_t)number(row, "offset");
        if (offset && S == 1000) continue; // beyond the last training step
        SCOPED_TRACE(scheduler + " " + text(row, "spacing") + " " + std::to_string(S));
        const std::vector<int64_t> got = list(ctx.get(), spacing, 1000, S, offset);
        ASSERT_EQ((size_t)number(row, "count"), got.size());
        double sum = 0;
        for (int64_t t : got) sum += (double)t;
        EXPECT_EQ(number(row, "sum"), sum);
        json_t *first = json_object_get(row, "first"), *last = json_object_get(row, "last");
        for (size_t k = 0; k < json_array_size(first); k++)
            EXPECT_EQ(json_number_value(json_array_get(first, k)), (double)got[k]);
        const size_t n = json_array_size(last);
        for (size_t k = 0; k < n; k++)
            EXPECT_EQ(json_number_value(json_array_get(last, k)), (double)got[got.size() - n + k]);
        checked++;
    }
    EXPECT_GE(checked, 80u);
}

TEST(Timesteps, ByHand) {
    Context ctx = cpu_context();
    using L = std::vector<int64_t>;
    EXPECT_EQ((L{75, 50, 25, 0}), list(ctx.get(), TW_SPACING_LEADING, 100, 4));
    EXPECT_EQ((L{76, 51, 26, 1}), list(ctx.get(), TW_SPACING_LEADING, 100, 4, 1));
    EXPECT_EQ((L{99, 74, 49, 24}), list(ctx.get(), TW_SPACING_TRAILING, 100, 4));
    // 10, 7.5, 5, 2.5: halves go to the even neighbour, 8 and 2.
    EXPECT_EQ((L{9, 7, 4, 1}), list(ctx.get(), TW_SPACING_TRAILING, 10, 4));
    // 0, 2.5, 5 and 0, 4.5, 9
    EXPECT_EQ((L{5, 2, 0}), list(ctx.get(), TW_SPACING_LINSPACE, 6, 3));
    EXPECT_EQ((L{9, 4, 0}), list(ctx.get(), TW_SPACING_LINSPACE, 10, 3));
    // range(0, 10, 2) has five entries, four are wanted.
    EXPECT_EQ((L{6, 4, 2, 0}), list(ctx.get(), TW_SPACING_UNIFORM, 10, 4));
    // (0, 2.98, 5.96, 8.94)^2 for T = 100: 0, 8, 35, 80
    EXPECT_EQ((L{80, 35, 8, 0}), list(ctx.get(), TW_SPACING_QUADRATIC, 100, 4));
    EXPECT_EQ((L{99, 74, 49, 24}), list(ctx.get(), TW_SPACING_DDPM, 100, 4));
    EXPECT_EQ((L{9, 5, 2}), list(ctx.get(), TW_SPACING_DDPM, 10, 3));
    // 0, 0, 0, 0, 1, 2, 3, 4, 6, 8: each entry once.
    EXPECT_EQ((L{8, 6, 4, 3, 2, 1, 0}), list(ctx.get(), TW_SPACING_QUADRATIC, 10, 10));
    for (int spacing = TW_SPACING_LEADING; spacing <= TW_SPACING_DDPM; spacing++)
        EXPECT_EQ((L{0}), list(ctx.get(), (tw_spacing)spacing, 1, 1)) << spacing;
}

TEST(Timesteps, FallWithinTheTrainingSteps) {
    Context ctx = cpu_context();
    for (int64_t T : {1, 2, 7, 100, 1000})
        for (int spacing = TW_SPACING_LEADING; spacing <= TW_SPACING_DDPM; spacing++)
            for (int64_t S = 1; S <= T; S++) {
                const std::vector<int64_t> got = list(ctx.get(), (tw_spacing)spacing, T, S);
                SCOPED_TRACE(tw_spacing_name((tw_spacing)spacing) + std::to_string(S));
                if (spacing != TW_SPACING_QUADRATIC) {
                    ASSERT_EQ((size_t)S, got.size());
                }
                ASSERT_FALSE(got.empty());
                ASSERT_LT(got.front(), T);
                ASSERT_GE(got.back(), 0);
                for (size_t i = 1; i < got.size(); i++) ASSERT_LT(got[i], got[i - 1]);
            }
}

TEST(Timesteps, RefusesImpossibleCounts) {
    Context ctx = cpu_context();
    int64_t out[10], count;
    tw_context *c = ctx.get();
    const auto call = [&](int spacing, int64_t T, int64_t S, int64_t offset) {
        return tw_timesteps(c, (tw_spacing)spacing, T, S, offset, out, &count);
    };
    EXPECT_REFUSED(TW_ERROR_ARGUMENT, c, call(TW_SPACING_LEADING, 10, 0, 0), "expected 1 to 10");
    EXPECT_REFUSED(TW_ERROR_ARGUMENT, c, call(TW_SPACING_LEADING, 10, 11, 0), "expected 1 to 10");
    EXPECT_REFUSED(TW_ERROR_ARGUMENT, c, call(TW_SPACING_LEADING, 0, 1, 0), "training steps");
    EXPECT_REFUSED(TW_ERROR_ARGUMENT, c, call(TW_SPACING_LEADING, 10, 5, 2), "expected 0 to 1");
    EXPECT_REFUSED(TW_ERROR_ARGUMENT, c, call(TW_SPACING_LEADING, 10, 5, -1), "expected 0 to 1");
    EXPECT_EQ(TW_OK, call(TW_SPACING_LEADING, 10, 5, 1));
    EXPECT_EQ(TW_OK, call(TW_SPACING_TRAILING, 10, 5, 9)); // others take no offset
    EXPECT_REFUSED(TW_ERROR_ARGUMENT, c, call(TW_SPACING_CUSTOM, 10, 5, 0), "makes no list");
    EXPECT_REFUSED(TW_ERROR_ARGUMENT, c, call(-1, 10, 5, 0), "makes no list");
    EXPECT_REFUSED(TW_ERROR_ARGUMENT, c,
                   tw_timesteps(c, TW_SPACING_LEADING, 10, 5, 0, nullptr, &count), "no place");
}

} // namespace
