// The S-curve, trained and sampled by the command as a user would, held against fresh data.
#include <gtest/gtest.h>

#include <chrono>
#include <cmath>
#include <cstdlib>
#include <string>
#include <vector>

#include <tweedie/tweedie.h>
extern "C" {
#include "io/npy.h"
}

namespace {

using Points = std::vector<float>; // x0, y0, x1, y1 ...

double mean_distance(const Points &a, const Points &b) {
    double sum = 0;
    for (size_t i = 0; i < a.size(); i += 2)
        for (size_t j = 0; j < b.size(); j += 2)
            sum += std::hypot(a[i] - b[j], a[i + 1] - b[j + 1]);
    return sum / ((double)a.size() / 2 * (double)b.size() / 2);
}

// Szekely & Rizzo's energy distance.
double energy_distance(const Points &a, const Points &b) {
    return 2 * mean_distance(a, b) - mean_distance(a, a) - mean_distance(b, b);
}

Points fresh(tw_context *ctx, uint64_t seed, int64_t count) {
    tw_dataset_options o = TW_DATASET_OPTIONS_INIT;
    o.seed = seed;
    o.count = count;
    tw_dataset *d = nullptr;
    EXPECT_EQ(tw_dataset_open(ctx, "scurve", &o, &d), TW_OK) << tw_context_error(ctx);
    Points p((size_t)count * 2);
    for (int64_t i = 0; i < count; i++)
        EXPECT_EQ(tw_dataset_get(d, i, &p[(size_t)i * 2], nullptr), TW_OK);
    tw_dataset_free(d);
    return p;
}

TEST(SCurve, SamplesAreAsCloseToTheDataAsTheIssueAsks) {
    char name[] = "/tmp/tweedie-scurve-XXXXXX";
    ASSERT_NE(mkdtemp(name), nullptr);
    const std::string dir = name, command = TW_BUILD_DIR "/host/tweedie ";
    auto start = std::chrono::steady_clock::now();
    ASSERT_EQ(std::system((command + "train --preset scurve --out " + dir + "/run").c_str()), 0);
    std::chrono::duration<double> seconds = std::chrono::steady_clock::now() - start;
    std::printf("trained in %.1f s\n", seconds.count());
    ASSERT_EQ(std::system((command + "sample --model " + dir +
                           "/run --n 3000 --steps 50 --seed 3 --out " + dir + "/points.npy")
                              .c_str()),
              0);
    tw_context *ctx = nullptr;
    ASSERT_EQ(tw_context_create(nullptr, &ctx), TW_OK);
    tw_npy npy = {};
    ASSERT_EQ(tw_npy_open(ctx, (dir + "/points.npy").c_str(), &npy), TW_OK)
        << tw_context_error(ctx);
    ASSERT_EQ(npy.rank, 2);
    ASSERT_EQ(npy.shape[0], 3000);
    Points samples(6000), a = fresh(ctx, 101, 3000), b = fresh(ctx, 102, 3000);
    tw_npy_to_f32(&npy, 0, 6000, samples.data());
    tw_npy_close(&npy);
    for (float v : samples) ASSERT_TRUE(std::isfinite(v));
    for (int axis = 0; axis < 2; axis++) { /* each axis by the data's deviation */
        double sum = 0, square = 0;
        for (size_t i = (size_t)axis; i < a.size(); i += 2)
            sum += a[i], square += (double)a[i] * a[i];
        const double n = (double)a.size() / 2;
        const float scale = (float)(1 / std::sqrt(square / n - sum / n * (sum / n)));
        for (Points *p : {&samples, &a, &b})
            for (size_t i = (size_t)axis; i < p->size(); i += 2) (*p)[i] *= scale;
    }
    const double between = energy_distance(a, b), found = energy_distance(a, samples);
    std::printf("energy distance: samples to data %.6f, data to data %.6f\n", found, between);
    EXPECT_LE(found, 4 * between + 2e-3);
    tw_context_free(ctx);
    EXPECT_EQ(std::system(("rm -rf '" + dir + "'").c_str()), 0);
}

} // namespace
