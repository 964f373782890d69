// The building blocks of TMA, one a test and in the order in which they rest on each other, against
// plain host code: the first that fails on a GPU is what was understood wrongly.
#include "support.h"
#include "tma_wrappers.h"

#include <cstring>
#include <numeric>

using namespace tst;

namespace {

class TmaTest : public KernelTest {
  protected:
    void SetUp() override {
        KernelTest::SetUp();
        if (!IsSkipped() && !tma_here()) GTEST_SKIP() << "no TMA here, or no code for it";
    }
};

int64_t box_bytes(const BoxCall &b) {
    int64_t n = (int64_t)bytes_of(b.format);
    for (int i = 0; i < b.rank; i++) n *= b.box[i];
    return n;
}

// A tensor whose elements are all different for a while; strides past the dense ones where asked.
struct Source {
    std::vector<unsigned char> bytes;
    BoxCall call = {};
    Buffer on;

    Source(twk_format f, std::vector<uint64_t> size, uint64_t padding = 0) {
        call.format = f;
        call.rank = (int)size.size();
        uint64_t stride = bytes_of(f);
        for (int i = 0; i < 5; i++) {
            call.size[i] = (size_t)i < size.size() ? size[(size_t)i] : 1;
            call.step[i] = 1;
            call.box[i] = 1;
            if (i && i < call.rank)
                call.stride_bytes[i] = stride = (stride + 15) / 16 * 16 + padding;
            stride *= call.size[i];
        }
        bytes.resize(stride);
        for (unsigned char &b : bytes) b = (unsigned char)rng()();
        on = upload(bytes);
        call.base = on.data();
    }
    // What the tile must hold, byte for byte.
    std::vector<unsigned char> expected() const {
        std::vector<unsigned char> tile(box_tile_bytes, 0xee);
        const unsigned element = (unsigned)bytes_of(call.format);
        const unsigned n = (unsigned)box_bytes(call) / element;
        const unsigned mask = (unsigned)call.swizzle_bytes / 16 - (call.swizzle_bytes ? 1 : 0);
        for (unsigned i = 0; i < n; i++) {
            unsigned left = i;
            int64_t from = 0;
            bool inside = true;
            for (int d = 0; d < call.rank; d++) {
                const int64_t c = call.at[d] + (int64_t)(left % call.box[d]) * call.step[d];
                left /= call.box[d];
                inside = inside && c >= 0 && c < (int64_t)call.size[d];
                from += c * (int64_t)(d ? call.stride_bytes[d] : element);
            }
            unsigned at = i * element;
            at ^= (at >> 7 & mask) << 4;
            for (unsigned b = 0; b < element; b++)
                tile[at + b] = inside ? bytes[(size_t)from + b] : 0;
        }
        return tile;
    }
};

// Where the two differ first, or nothing.
std::string difference(const std::vector<unsigned char> &got,
                       const std::vector<unsigned char> &want) {
    size_t n = 0, first = 0;
    for (size_t i = got.size(); i-- > 0;)
        if (got[i] != want[i]) n++, first = i;
    if (!n) return "";
    return std::to_string(n) + " bytes differ, the first at " + std::to_string(first) + ": " +
           std::to_string(got[first]) + " instead of " + std::to_string(want[first]);
}

void expect_box(const Source &s, const std::string &what) {
    Buffer tile(box_tile_bytes), ended(4);
    LAUNCH_OK(wrappers_box(s.call, (unsigned)box_bytes(s.call),
                           static_cast<unsigned char *>(tile.data()),
                           static_cast<uint32_t *>(ended.data()), nullptr));
    EXPECT_EQ(fetch<uint32_t>(ended)[0], 1u) << what << ": not as many bytes as were expected";
    EXPECT_EQ(difference(fetch<unsigned char>(tile), s.expected()), "") << what;
}

void place(BoxCall *c, std::vector<uint32_t> box, std::vector<int> at) {
    for (size_t i = 0; i < box.size(); i++) {
        c->box[i] = box[i];
        c->at[i] = at[i];
    }
}

TEST_F(TmaTest, ABoxInsideATensor) {
    for (twk_format f : formats) {
        Source two(f, {80, 40});
        place(&two.call, {16, 10}, {16, 7});
        expect_box(two, "2d");
        place(&two.call, {8, 40}, {3, 0}); // begins at no multiple of 16 bytes
        expect_box(two, "2d, not aligned");
        Source three(f, {24, 9, 7}, 32);
        place(&three.call, {24, 4, 5}, {0, 2, 1});
        expect_box(three, "3d");
        Source four(f, {16, 9, 7, 3}, 16);
        place(&four.call, {16, 4, 5, 2}, {0, 2, 1, 1});
        expect_box(four, "4d");
        Source five(f, {8, 4, 5, 3, 3});
        place(&five.call, {8, 2, 3, 2, 2}, {0, 2, 1, 1, 0});
        expect_box(five, "5d");
    }
    Source tall(TWK_BF16, {64, 300});
    place(&tall.call, {64, 256}, {0, 44});
    expect_box(tall, "256 rows");
}

TEST_F(TmaTest, ABoxOverTheEdges) {
    for (twk_format f : formats) {
        Source s(f, {24, 9, 7});
        for (int c0 : {-8, -3, 0, 13, 23, 24, 1000})
            for (int c1 : {-2, 0, 7, -1000})
                for (int c2 : {-1, 5}) {
                    place(&s.call, {16, 4, 3}, {c0, c1, c2});
                    expect_box(s, "at " + std::to_string(c0) + " " + std::to_string(c1) + " " +
                                      std::to_string(c2));
                }
        Source odd(f, {5, 9, 7}, 16); // the row's last bytes lie past the tensor
        place(&odd.call, {8, 4, 3}, {0, 7, -1});
        expect_box(odd, "rows shorter than the box's");
    }
}

TEST_F(TmaTest, SwizzledBytes) {
    for (int width : {32, 64, 128})
        for (twk_format f : {TWK_BF16, TWK_F32}) {
            const uint32_t across = (uint32_t)width / (uint32_t)bytes_of(f);
            Source s(f, {2 * across, 50});
            s.call.swizzle_bytes = width;
            place(&s.call, {across, 40}, {(int)across, 5});
            expect_box(s, "swizzle of " + std::to_string(width));
            place(&s.call, {across, 40}, {(int)across + 8, -5});
            expect_box(s, "over the edges, swizzle of " + std::to_string(width));
            Source four(f, {across, 6, 5, 3});
            four.call.swizzle_bytes = width;
            place(&four.call, {across, 6, 3, 2}, {0, -1, 3, 1});
            expect_box(four, "4d, swizzle of " + std::to_string(width));
        }
}

TEST_F(TmaTest, EverySecondElement) {
    for (uint32_t step : {2u, 3u}) {
        Source s(TWK_BF16, {64, 17, 15, 3});
        s.call.swizzle_bytes = 128;
        s.call.step[1] = s.call.step[2] = step;
        place(&s.call, {64, 8, 5, 2}, {0, 0, 0, 1});
        expect_box(s, "inside, step " + std::to_string(step));
        place(&s.call, {64, 8, 5, 2}, {0, -1, 3, 2});
        expect_box(s, "over the edges, step " + std::to_string(step));
    }
}

TEST_F(TmaTest, WhatCannotBeDescribedIsRefused) {
    Buffer tile(box_tile_bytes), ended(4);
    const auto refused = [&](const char *what, const std::function<void(BoxCall *)> &change) {
        Source s(TWK_BF16, {80, 40});
        place(&s.call, {16, 10}, {0, 0});
        change(&s.call);
        EXPECT_EQ(wrappers_box(s.call, 320, static_cast<unsigned char *>(tile.data()),
                               static_cast<uint32_t *>(ended.data()), nullptr),
                  TWK_UNSUPPORTED)
            << what;
        EXPECT_STRNE(twk_error_text(), "");
    };
    refused("base", [](BoxCall *c) { c->base = static_cast<const char *>(c->base) + 8; });
    refused("stride", [](BoxCall *c) { c->stride_bytes[1] += 8; });
    refused("long stride", [](BoxCall *c) { c->stride_bytes[1] = 1ull << 40; });
    refused("box", [](BoxCall *c) { c->box[1] = 257; });
    refused("span", [](BoxCall *c) { c->box[1] = 129, c->step[1] = 2; });
    refused("row", [](BoxCall *c) { c->box[0] = 12; });
    refused("empty box", [](BoxCall *c) { c->box[1] = 0; });
    refused("step", [](BoxCall *c) { c->step[1] = 9; });
    refused("size", [](BoxCall *c) { c->size[1] = 0; });
    refused("swizzle", [](BoxCall *c) { c->swizzle_bytes = 64; });
}

std::vector<double> small_numbers(int64_t n) { // products and sums are exact
    std::vector<double> v((size_t)n);
    for (double &x : v) x = (double)pick(33) - 16;
    return v;
}

void expect_wide_products(bool by_tma) {
    for (twk_format f : {TWK_BF16, TWK_F16})
        for (int form = 0; form < 4; form++) {
            const bool ac = form & 1, bc = form & 2;
            const Tensor a(f, small_numbers(64 * 64)), b(f, small_numbers(256 * 64));
            Tensor d(TWK_F32, 64 * 256);
            Buffer ended(4);
            LAUNCH_OK(wrappers_wide_product(f, ac, bc, by_tma, a.data(), b.data(), d.f32(),
                                            static_cast<uint32_t *>(ended.data()), nullptr));
            EXPECT_EQ(fetch<uint32_t>(ended)[0], 1u);
            std::vector<double> want(64 * 256);
            for (size_t i = 0; i < want.size(); i++)
                for (size_t k = 0; k < 64; k++)
                    want[i] += a.v[ac ? k * 64 + i / 256 : i / 256 * 64 + k] *
                               b.v[bc ? k * 256 + i % 256 : i % 256 * 64 + k];
            EXPECT_EQ(d.read(), want) << name_of(f) << " form " << form;
        }
}

TEST_F(TmaTest, ProductsOf256ColumnsFromStores) {
    expect_wide_products(false);
}

TEST_F(TmaTest, ProductsOf256Columns) {
    expect_wide_products(true);
}

TEST_F(TmaTest, Multicast) {
    std::vector<unsigned char> numbers(4 * 1024);
    for (unsigned char &b : numbers) b = (unsigned char)rng()();
    const Buffer on = upload(numbers);
    const MulticastMasks all2 = {{3, 3, 0, 0}}, own2 = {{1, 2, 0, 0}}, other2 = {{2, 1, 0, 0}},
                         all4 = {{15, 15, 15, 15}}, some4 = {{5, 0, 10, 15}};
    const auto expect = [&](unsigned cluster, const MulticastMasks &masks, const char *what) {
        const unsigned blocks = 2 * cluster;
        Buffer tiles(blocks * 4096), ended(blocks * 4);
        LAUNCH_OK(wrappers_multicast(cluster, masks, on.data(),
                                     static_cast<unsigned char *>(tiles.data()),
                                     static_cast<uint32_t *>(ended.data()), nullptr));
        EXPECT_EQ(fetch<uint32_t>(ended), std::vector<uint32_t>(blocks, 1)) << what;
        std::vector<unsigned char> want(blocks * 4096, 0xee);
        for (unsigned b = 0; b < blocks; b++)
            for (unsigned i = 0; i < cluster * 1024; i++)
                if (masks.of[i / 1024] >> b % cluster & 1)
                    want[b * 4096 + (i ^ (i >> 7 & 7) << 4)] = numbers[i];
        EXPECT_EQ(difference(fetch<unsigned char>(tiles), want), "") << what;
    };
    expect(2, own2, "two, each its own");
    expect(2, other2, "two, each the other's");
    expect(2, all2, "two, to both");
    expect(4, all4, "four, to all");
    expect(4, some4, "four, to some");
}

TEST_F(TmaTest, ArrivalsFromTheCluster) {
    for (unsigned cluster : {1u, 2u, 4u, 8u}) {
        const unsigned blocks = 2 * cluster;
        Buffer sums(blocks * 32 * 4), ended(blocks * 4);
        LAUNCH_OK(wrappers_remote(cluster, static_cast<uint32_t *>(sums.data()),
                                  static_cast<uint32_t *>(ended.data()), nullptr));
        EXPECT_EQ(fetch<uint32_t>(ended), std::vector<uint32_t>(blocks, 1)) << cluster;
        const std::vector<uint32_t> got = fetch<uint32_t>(sums);
        for (unsigned i = 0; i < blocks * 32; i++) {
            const unsigned block = i / 32, rank = block % cluster;
            uint32_t want = 0;
            for (unsigned r = 0; r < cluster; r++)
                want += 1000 * (block - rank + r) + 32 * rank + 31 - i % 32;
            EXPECT_EQ(got[i], want) << cluster << " " << i;
        }
    }
}

TEST_F(TmaTest, PartsOfABlockMeet) {
    Buffer numbers(192 * 4);
    LAUNCH_OK(wrappers_groups(static_cast<uint32_t *>(numbers.data()), nullptr));
    const std::vector<uint32_t> got = fetch<uint32_t>(numbers);
    for (unsigned t = 0; t < 192; t++)
        EXPECT_EQ(got[t], t < 64 ? (t + 33) % 64 : 3000 + 64 + (t - 64 + 33) % 128) << t;
}

TEST_F(TmaTest, APipelineOfThreeWarpgroups) {
    for (int64_t k : {64, 128, 200, 1024}) {
        const Tensor a(TWK_BF16, small_numbers(128 * k)), b(TWK_BF16, small_numbers(256 * k));
        Tensor d(TWK_F32, 128 * 256);
        Buffer ended(3 * 4);
        LAUNCH_OK(wrappers_pipeline(k, a.data(), b.data(), d.f32(),
                                    static_cast<uint32_t *>(ended.data()), nullptr));
        EXPECT_EQ(fetch<uint32_t>(ended), std::vector<uint32_t>(3, 1)) << k;
        std::vector<double> want(128 * 256);
        for (int64_t i = 0; i < 128 * 256; i++)
            for (int64_t q = 0; q < k; q++)
                want[(size_t)i] += a.v[(size_t)(i / 256 * k + q)] * b.v[(size_t)(i % 256 * k + q)];
        EXPECT_EQ(d.read(), want) << k;
    }
}

} // namespace
