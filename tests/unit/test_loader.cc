#include <gtest/gtest.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstring>
#include <set>
#include <string>
#include <thread>
#include <vector>

extern "C" {
#include "data/loader.h"
#include "data/order.h"
}

namespace {

std::string error() {
    return tw_context_error(nullptr);
}

// Sample i holds (i, -i) and has the label 2 i.
class Numbers {
  public:
    explicit Numbers(int64_t n) {
        const int64_t shape[1] = {2};
        std::vector<float> values;
        std::vector<int32_t> labels;
        for (int64_t i = 0; i < n; i++) {
            values.push_back(static_cast<float>(i));
            values.push_back(static_cast<float>(-i));
            labels.push_back(static_cast<int32_t>(2 * i));
        }
        EXPECT_EQ(tw_dataset_from_memory(nullptr, n, 1, shape, values.data(), labels.data(), &set),
                  TW_OK);
    }
    ~Numbers() { tw_dataset_free(set); }
    tw_dataset *set = nullptr;
};

class Loader {
  public:
    Loader(const Numbers &numbers, int64_t batch, uint64_t seed = 1, double holdout = 0,
           bool validation = false)
        : batch_(batch) {
        tw_loader_options o{};
        o.batch = batch;
        o.seed = seed;
        o.holdout = holdout;
        o.validation = validation;
        status = tw_loader_create(nullptr, numbers.set, &o, &loader);
    }
    ~Loader() { tw_loader_free(loader); }
    // The samples of the next batches, one after the other.
    std::vector<int> take(int batches) {
        std::vector<int> out;
        for (int b = 0; b < batches; b++) {
            const float *x = nullptr;
            const int32_t *labels = nullptr;
            EXPECT_EQ(tw_loader_next(loader, &x, &labels), TW_OK) << error();
            for (int64_t i = 0; i < batch_; i++) {
                EXPECT_EQ(x[2 * i + 1], -x[2 * i]);
                EXPECT_EQ(labels[i], 2 * static_cast<int>(x[2 * i]));
                out.push_back(static_cast<int>(x[2 * i]));
            }
        }
        return out;
    }
    tw_status status;
    tw_loader *loader = nullptr;

  private:
    int64_t batch_;
};

std::vector<int> piece(const std::vector<int> &v, size_t first, size_t n) {
    return {v.begin() + static_cast<long>(first), v.begin() + static_cast<long>(first + n)};
}

// The numbers of the samples that a loader of samples would give, over several epochs.
TEST(Loader, OfIndices) {
    const Numbers numbers(10);
    for (bool validation : {false, true}) {
        Loader samples(numbers, 4, 7, 0.3, validation);
        tw_loader_options o{};
        o.batch = 4;
        o.seed = 7;
        o.holdout = 0.3;
        o.validation = validation;
        o.indices = true;
        tw_loader *loader = nullptr;
        ASSERT_EQ(tw_loader_create(nullptr, numbers.set, &o, &loader), TW_OK) << error();
        std::vector<int> got;
        for (int b = 0; b < 6; b++) {
            const int64_t *index = nullptr;
            const int32_t *labels = nullptr;
            ASSERT_EQ(tw_loader_next_indices(loader, &index, &labels), TW_OK) << error();
            for (int64_t i = 0; i < 4; i++) {
                EXPECT_EQ(labels[i], 2 * index[i]);
                got.push_back(static_cast<int>(index[i]));
            }
        }
        EXPECT_EQ(got, samples.take(6));
        tw_loader_free(loader);
    }
}

TEST(Loader, EveryEpochIsAnotherPermutation) {
    Numbers numbers(50);
    Loader l(numbers, 7);
    ASSERT_EQ(l.status, TW_OK) << error();
    EXPECT_EQ(tw_loader_size(l.loader), 50);
    const std::vector<int> stream = l.take(50); // seven epochs; batches straddle them
    std::set<std::vector<int>> orders;
    for (size_t e = 0; e < 7; e++) {
        std::vector<int> epoch = piece(stream, 50 * e, 50);
        orders.insert(epoch);
        std::sort(epoch.begin(), epoch.end());
        for (int i = 0; i < 50; i++) EXPECT_EQ(epoch[static_cast<size_t>(i)], i);
    }
    EXPECT_EQ(orders.size(), 7u);
    EXPECT_EQ(tw_loader_position(l.loader), 350);
}

TEST(Loader, TheStreamDoesNotDependOnTheBatch) {
    Numbers numbers(23);
    const std::vector<int> ones = Loader(numbers, 1).take(240);
    EXPECT_EQ(Loader(numbers, 60).take(4), ones); // a batch of more than two epochs
    EXPECT_EQ(Loader(numbers, 8).take(30), ones);
    EXPECT_NE(Loader(numbers, 8, 2).take(30), ones);
}

TEST(Loader, SeekingGivesTheSameBatches) {
    Numbers numbers(23);
    const std::vector<int> stream = Loader(numbers, 1).take(300);
    Loader l(numbers, 5);
    for (size_t at : {0, 7, 150, 22, 23, 0, 295}) {
        ASSERT_EQ(tw_loader_seek(l.loader, static_cast<int64_t>(at)), TW_OK);
        EXPECT_EQ(tw_loader_position(l.loader), static_cast<int64_t>(at));
        EXPECT_EQ(l.take(1), piece(stream, at, 5));
        if (at < 200) {
            EXPECT_EQ(l.take(4), piece(stream, at + 5, 20));
        }
    }
    // Far positions are as near as any.
    ASSERT_EQ(tw_loader_seek(l.loader, (int64_t(1) << 61) + 3), TW_OK);
    const std::vector<int> far = l.take(2);
    ASSERT_EQ(tw_loader_seek(l.loader, (int64_t(1) << 61) + 8), TW_OK);
    EXPECT_EQ(l.take(1), piece(far, 5, 5));
    EXPECT_EQ(tw_loader_seek(l.loader, -1), TW_ERROR_ARGUMENT);
}

TEST(Loader, PartsShareNothingAndMissNothing) {
    Numbers numbers(100);
    Loader train(numbers, 1, 9, 0.2), held(numbers, 1, 9, 0.2, true),
        other(numbers, 1, 10, 0.2, true);
    ASSERT_EQ(tw_loader_size(train.loader), 80);
    ASSERT_EQ(tw_loader_size(held.loader), 20);
    const std::vector<int> a = train.take(160), b = held.take(40);
    EXPECT_EQ(piece(b, 0, 20), piece(b, 20, 20)); // over and over
    std::vector<int> ascending = piece(b, 0, 20);
    EXPECT_TRUE(std::is_sorted(ascending.begin(), ascending.end()));
    std::set<int> all(a.begin(), a.end());
    EXPECT_EQ(all.size(), 80u);
    for (int i : ascending) EXPECT_EQ(all.count(i), 0u);
    EXPECT_NE(other.take(20), ascending);
}

TEST(Loader, SmallAndBadHoldouts) {
    Numbers two(2), one(1);
    Loader train(two, 1, 1, 0.01), held(two, 1, 1, 0.01, true);
    EXPECT_EQ(tw_loader_size(train.loader), 1);
    EXPECT_EQ(tw_loader_size(held.loader), 1);
    EXPECT_EQ(Loader(one, 1, 1, 0.5).status, TW_ERROR_ARGUMENT);
    EXPECT_EQ(error(), "loader: holdout: 0.5 of 1 samples leaves a part empty");
    EXPECT_EQ(Loader(two, 1, 1, 0, true).status, TW_ERROR_ARGUMENT);
    EXPECT_EQ(Loader(two, 1, 1, 0.6).status, TW_ERROR_ARGUMENT);
    EXPECT_EQ(error(), "loader: holdout: expected 0 to 0.5, got 0.6");
    EXPECT_EQ(Loader(two, 1, 1, NAN).status, TW_ERROR_ARGUMENT);
    EXPECT_EQ(Loader(two, 0).status, TW_ERROR_ARGUMENT);
    EXPECT_EQ(error(), "loader: batch: expected at least 1, got 0");
    EXPECT_EQ(Loader(two, INT64_MAX).status, TW_ERROR_ARGUMENT);
}

TEST(Loader, IsFreedAtAnyMoment) {
    Numbers numbers(1000);
    for (int i = 0; i < 200; i++) {
        Loader l(numbers, 1 + i % 64, static_cast<uint64_t>(i));
        if (i % 3) l.take(i % 7);
        if (i % 5 == 0) tw_loader_seek(l.loader, i);
        if (i % 50 == 0) std::this_thread::sleep_for(std::chrono::milliseconds(2));
    }
    tw_loader_free(nullptr);
}

TEST(Loader, TheCallersBatchIsNotOverwritten) {
    Numbers numbers(64);
    Loader l(numbers, 16);
    const float *x = nullptr;
    for (int i = 0; i < 20; i++) {
        ASSERT_EQ(tw_loader_next(l.loader, &x, nullptr), TW_OK);
        const std::vector<float> before(x, x + 32);
        std::this_thread::sleep_for(std::chrono::milliseconds(1)); // the thread runs ahead
        EXPECT_EQ(std::vector<float>(x, x + 32), before);
    }
}

tw_status (*read_memory)(const tw_dataset *, int64_t, float *, int32_t *, char *);

tw_status fail_at_13(const tw_dataset *d, int64_t index, float *out, int32_t *label, char *text) {
    if (index == 13) {
        snprintf(text, TW_DATASET_ERROR_TEXT, "sample %d cannot be read", static_cast<int>(index));
        return TW_ERROR_IO;
    }
    return read_memory(d, index, out, label, text);
}

TEST(Loader, ErrorsOfTheThreadComeOutOfNext) {
    Numbers numbers(20);
    read_memory = numbers.set->read;
    const std::vector<int> stream = Loader(numbers, 1).take(20);
    const size_t at =
        static_cast<size_t>(std::find(stream.begin(), stream.end(), 13) - stream.begin());
    numbers.set->read = fail_at_13;
    Loader l(numbers, 1);
    EXPECT_EQ(l.take(static_cast<int>(at)), piece(stream, 0, at)); // all before it are there
    for (int i = 0; i < 3; i++) {
        EXPECT_EQ(tw_loader_next(l.loader, nullptr, nullptr), TW_ERROR_IO);
        EXPECT_EQ(error(), "loader: sample 13 cannot be read");
        EXPECT_EQ(tw_loader_position(l.loader), static_cast<int64_t>(at));
    }
    ASSERT_EQ(tw_loader_seek(l.loader, static_cast<int64_t>(at) + 1), TW_OK);
    EXPECT_EQ(l.take(static_cast<int>(19 - at)), piece(stream, at + 1, 19 - at));
}

TEST(Order, PermutationsAreUniform) {
    // Each of the 24 orders of four things about equally often: chi-square with 23 degrees.
    int counts[256] = {0};
    const int n = 24000;
    for (int e = 0; e < n; e++) {
        uint32_t order[4];
        tw_order_permute(3, 5, static_cast<uint64_t>(e), 4, order);
        counts[order[0] << 6 | order[1] << 4 | order[2] << 2 | order[3]]++;
    }
    double chi = 0;
    int seen = 0;
    for (int c : counts) {
        if (!c) continue;
        seen++;
        chi += std::pow(c - n / 24.0, 2) / (n / 24.0);
    }
    EXPECT_EQ(seen, 24);
    EXPECT_LT(chi, 65); // chance below 1e-5
    EXPECT_GT(chi, 4);
}

} // namespace
