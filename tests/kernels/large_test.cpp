// Index arithmetic past 2^31 elements for every family: tensors in address space that no memory
// stands behind until it is touched, of which only a few blocks are executed. Emulator only.
#include "support.h"

#include <algorithm>
#include <cstring>

using namespace tst;

namespace {

class LargeTest : public KernelTest {};

#ifdef TW_EMULATOR

constexpr int64_t big = (int64_t(1) << 31) + (int64_t(1) << 20); // elements, a multiple of 2^20

// Runs `call` with only the blocks [first, first + count).
twk_status only(uint64_t first, uint64_t count, const std::function<twk_status()> &call) {
    tw::emu::set_block_filter(first, count);
    const twk_status status = call();
    tw::emu::set_block_filter(0, 0);
    return status;
}

float *floats(const Hollow &h) {
    return reinterpret_cast<float *>(h.data);
}

void randomize(float *p, int64_t n) {
    for (int64_t i = 0; i < n; i++) p[i] = (float)tst::uniform(-1, 1);
}

TEST_F(LargeTest, Elementwise) {
    Hollow a((size_t)big * 4), out((size_t)big * 4);
    const int64_t tail = 4096, at = big - tail;
    randomize(floats(a) + at, tail);
    ASSERT_EQ(only((uint64_t)(at / 1024), 4,
                   [&] { return twk_add(TWK_F32, big, 2, a.data, 0, nullptr, out.data, nullptr); }),
              TWK_OK);
    for (int64_t i = at; i < big; i++) ASSERT_EQ(floats(out)[i], 2 * floats(a)[i]) << i;
}

TEST_F(LargeTest, DropoutNoiseAndNoising) {
    const int64_t elements = 3072, batch = big / elements, total = batch * elements;
    const int64_t block = total / 1024 - 1, at = block * 1024;
    Hollow x((size_t)big * 4), out((size_t)big * 4), target((size_t)big * 4);
    randomize(floats(x) + at, 1024);
    twk_dropout_args d = {};
    d.batch = batch;
    d.elements = elements;
    d.x = x.data;
    d.y = out.data;
    d.probability = 0.5f;
    ASSERT_EQ(only((uint64_t)block, 1, [&] { return twk_dropout(&d, nullptr); }), TWK_OK);
    for (int64_t i = at; i < at + 1024; i++) {
        const Key key = {0, (uint64_t)(i / elements), TWK_NOISE_DROPOUT, 0};
        const bool dropped = noise_uniform(key, i % elements) < 0.5;
        ASSERT_EQ(floats(out)[i], dropped ? 0 : 2 * floats(x)[i]) << i;
    }
    twk_noise_fill_args f = {};
    f.batch = batch;
    f.elements = elements;
    f.out = out.data;
    f.kind = TWK_FILL_WORDS;
    ASSERT_EQ(only((uint64_t)block, 1, [&] { return twk_noise_fill(&f, nullptr); }), TWK_OK);
    for (int64_t i = at; i < at + 1024; i++) {
        uint32_t word;
        memcpy(&word, floats(out) + i, 4);
        ASSERT_EQ(word, noise_word({0, (uint64_t)(i / elements), 0, 0}, i % elements)) << i;
    }
    Hollow time((size_t)batch * 4);
    Buffer a_on = upload(std::vector<float>{0.36f}), b_on = upload(std::vector<float>{0.64f});
    twk_noising_args n = {};
    n.batch = batch;
    n.elements = elements;
    n.x0 = x.data;
    n.x_t = out.data;
    n.target = floats(target);
    n.time = reinterpret_cast<int32_t *>(time.data);
    n.a = static_cast<float *>(a_on.data());
    n.one_minus_a = static_cast<float *>(b_on.data());
    n.n_times = 1;
    ASSERT_EQ(only((uint64_t)block, 1, [&] { return twk_forward_noising(&n, nullptr); }), TWK_OK);
    for (int64_t i = at; i < at + 1024; i++) {
        const double z = noise_normal({0, (uint64_t)(i / elements), 0, 0}, i % elements);
        ASSERT_NEAR(floats(out)[i], 0.6 * floats(x)[i] + 0.8 * z, 1e-5) << i;
        ASSERT_NEAR(floats(target)[i], z, 1e-5) << i;
    }
}

TEST_F(LargeTest, SamplerUpdateWithErrorNorm) {
    const int64_t elements = 1 << 20, batch = big / elements;
    Hollow x((size_t)big * 4), out((size_t)big * 4), workspace(size_t(1) << 26);
    twk_update_row row = {};
    row.cx = 3;
    row.ex = 1;
    Buffer rows = upload(std::vector<twk_update_row>{row});
    Buffer error((size_t)batch * 4);
    twk_update_args a = {};
    a.batch = batch;
    a.elements = elements;
    a.x = floats(x);
    a.x_out = floats(out);
    a.rows = static_cast<twk_update_row *>(rows.data());
    a.n_rows = 1;
    a.error_out = static_cast<float *>(error.data());
    a.atol = 1;
    a.workspace = workspace.data;
    a.workspace_bytes = twk_sampler_update_workspace(batch, elements);
    ASSERT_LE(a.workspace_bytes, size_t(1) << 26);
    const int64_t block = big / 1024 - 1, at = block * 1024;
    randomize(floats(x) + at, 1024);
    // The second launch, the sum, has fewer blocks than the filter begins at.
    ASSERT_EQ(only((uint64_t)block, 1, [&] { return twk_sampler_update(&a, nullptr); }), TWK_OK);
    double sum = 0;
    for (int64_t i = at; i < big; i++) {
        ASSERT_EQ(floats(out)[i], 3 * floats(x)[i]) << i;
        sum += (double)floats(x)[i] * floats(x)[i];
    }
    EXPECT_NEAR(floats(workspace)[block] / sum, 1, 1e-5);
}

TEST_F(LargeTest, ConcatAndSpread) {
    const int64_t c = 64, rows = big / (2 * c);
    Hollow a((size_t)big * 2), b((size_t)big * 2), out((size_t)big * 4);
    const int64_t tail = 8; // rows of the last block: 8 * 128 elements
    randomize(floats(a) + (rows - tail) * c, tail * c);
    randomize(floats(b) + (rows - tail) * c, tail * c);
    ASSERT_EQ(
        only((uint64_t)(rows * 2 * c / 1024 - 1), 1,
             [&] { return twk_concat(TWK_F32, rows, c, c, a.data, b.data, out.data, nullptr); }),
        TWK_OK);
    for (int64_t r = rows - tail; r < rows; r++)
        for (int64_t k = 0; k < 2 * c; k++)
            ASSERT_EQ(floats(out)[r * 2 * c + k],
                      k < c ? floats(a)[r * c + k] : floats(b)[r * c + k - c]);
    // 2^31 + 2^20 elements of the large image: n x 32 x 32 x 64.
    const int64_t n = big / (32 * 32 * 64), small = n * 16 * 16 * 64;
    randomize(floats(a) + small - 64 * 256, 64 * 256);
    const twk_blocks_args s = {n, 32, 32, 64, 2, 0.5f, TWK_F32, a.data, out.data};
    ASSERT_EQ(only((uint64_t)(big / 1024 - 1), 1, [&] { return twk_spread(&s, nullptr); }), TWK_OK);
    for (int64_t i = big - 1024; i < big; i++) {
        const int64_t ch = i % 64, x = i / 64 % 32, y = i / 2048 % 32, image = i / 65536;
        const int64_t from = ((image * 16 + y / 2) * 16 + x / 2) * 64 + ch;
        ASSERT_EQ(floats(out)[i], 0.5f * floats(a)[from]) << i;
    }
    const twk_blocks_args p = {n, 32, 32, 64, 2, 1, TWK_F32, out.data, a.data};
    ASSERT_EQ(only((uint64_t)(small / 1024 - 1), 1, [&] { return twk_pool(&p, nullptr); }), TWK_OK);
    for (int64_t ch = 0; ch < 64; ch++) {
        const int64_t o = small - 64 + ch, corner = big - 64 + ch;
        const float want = floats(out)[corner - 2048 - 64] + floats(out)[corner - 2048] +
                           floats(out)[corner - 64] + floats(out)[corner];
        ASSERT_NEAR(floats(a)[o], want, 1e-6);
    }
}

TEST_F(LargeTest, ConvertLayout) {
    const int64_t c = 64, pixels = 1024, n = big / (c * pixels);
    Hollow in((size_t)big * 4), out((size_t)big * 4);
    randomize(floats(in) + big - 32 * c, 32 * c);
    const twk_convert_args a = {n,        pixels,   c,       TWK_F32, TWK_F32,
                                TWK_NHWC, TWK_NCHW, in.data, out.data};
    ASSERT_EQ(only((uint64_t)(n * 32 * 2 - 2), 2, [&] { return twk_convert(&a, nullptr); }),
              TWK_OK);
    for (int64_t p = pixels - 32; p < pixels; p++)
        for (int64_t k = 0; k < c; k++)
            ASSERT_EQ(floats(out)[((n - 1) * c + k) * pixels + p],
                      floats(in)[((n - 1) * pixels + p) * c + k]);
    // In pairs of 16-bit elements: a tile is 64 x 64, a sample 16 of them.
    uint16_t *const from = reinterpret_cast<uint16_t *>(in.data);
    const uint16_t *const to = reinterpret_cast<uint16_t *>(out.data);
    for (int64_t i = big - 64 * c; i < big; i++) from[i] = (uint16_t)pick(65536);
    twk_convert_args b = a;
    b.in_format = b.out_format = TWK_BF16;
    ASSERT_EQ(only((uint64_t)(n * 16 - 1), 1, [&] { return twk_convert(&b, nullptr); }), TWK_OK);
    for (int64_t p = pixels - 64; p < pixels; p++)
        for (int64_t k = 0; k < c; k++)
            ASSERT_EQ(to[((n - 1) * c + k) * pixels + p], from[((n - 1) * pixels + p) * c + k]);
}

// The last sample of a batch: forward and backward, on chip and in two passes.
TEST_F(LargeTest, GroupNorm) {
    const size_t shared = tw::emu::shared_limit();
    for (const bool chip : {true, false}) {
        tw::emu::set_shared_limit(chip ? shared : 48 * 1024);
        tw::emu::set_max_cluster(chip ? 8 : 1);
        const int64_t c = 32, pixels = 1024, n = big / (c * pixels);
        Hollow x((size_t)big * 4), y((size_t)big * 4), dy((size_t)big * 4);
        Hollow stats((size_t)n * 2 * 4 * 4), workspace(size_t(1) << 30);
        const int64_t at = (n - 1) * pixels * c;
        randomize(floats(x) + at, pixels * c);
        randomize(floats(dy) + at, pixels * c);
        twk_group_norm_args a = {};
        a.batch = n;
        a.pixels = pixels;
        a.channels = (int)c;
        a.groups = 2;
        a.epsilon = 1e-5f;
        a.x = x.data;
        a.y = y.data;
        a.mean = floats(stats);
        a.rstd = floats(stats) + n * 2;
        a.workspace = workspace.data;
        a.workspace_bytes = twk_group_norm_workspace(&a);
        ASSERT_LE(a.workspace_bytes, size_t(1) << 30);
        // A sample is two slices on chip, four chunks of 256 pixels in two passes; the statistics
        // of eight (sample, group) pairs share a block.
        struct Guard {
            ~Guard() { tw::emu::set_block_filter(0, 0); }
        } guard;
        if (chip) {
            tw::emu::set_block_filter((uint64_t)(n * 2 - 2), 2);
            ASSERT_EQ(twk_group_norm_forward(&a, nullptr), TWK_OK);
        } else {
            // The statistics by themselves, since their launches have other grids.
            twk_group_norm_args one = a; // the same sample as a batch of one, by virtual base
            one.batch = 1;
            one.x = floats(x) + at;
            one.y = floats(y) + at;
            one.mean = a.mean + (n - 1) * 2;
            one.rstd = a.rstd + (n - 1) * 2;
            ASSERT_EQ(twk_group_norm_forward(&one, nullptr), TWK_OK);
            memset(floats(y) + at, 0xff, (size_t)(pixels * c) * 4);
            // Then what is made of them, in its place in the batch.
            a.given = 1;
            tw::emu::set_block_filter((uint64_t)(n * 4 - 4), 4);
            ASSERT_EQ(twk_group_norm_forward(&a, nullptr), TWK_OK);
        }
        for (int64_t g = 0; g < 2; g++) {
            double sum = 0, squares = 0;
            for (int64_t i = at; i < at + pixels * c; i++)
                if (i % c / 16 == g) sum += floats(x)[i];
            const double mean = sum / (double)(pixels * 16);
            for (int64_t i = at; i < at + pixels * c; i++)
                if (i % c / 16 == g) squares += std::pow(floats(x)[i] - mean, 2);
            const double rstd = 1 / std::sqrt(squares / (double)(pixels * 16) + 1e-5);
            ASSERT_NEAR(a.mean[(n - 1) * 2 + g], mean, 1e-6);
            for (int64_t i = at; i < at + pixels * c; i++)
                if (i % c / 16 == g) {
                    ASSERT_NEAR(floats(y)[i], (floats(x)[i] - mean) * rstd, 1e-5);
                }
        }
        a.given = 0;
        if (!chip) continue;
        a.dy = dy.data;
        a.dx = y.data;
        a.workspace_bytes = twk_group_norm_backward_workspace(&a);
        ASSERT_LE(a.workspace_bytes, size_t(1) << 30);
        // x and dy together: two slices, each on two blocks.
        tw::emu::set_block_filter((uint64_t)(n * 4 - 4), 4);
        ASSERT_EQ(twk_group_norm_backward(&a, nullptr), TWK_OK);
        for (int64_t g = 0; g < 2; g++) {
            const double mean = a.mean[(n - 1) * 2 + g], rstd = a.rstd[(n - 1) * 2 + g];
            double s1 = 0, s2 = 0;
            for (int64_t i = at; i < at + pixels * c; i++)
                if (i % c / 16 == g) {
                    s1 += floats(dy)[i];
                    s2 += floats(dy)[i] * (floats(x)[i] - mean) * rstd;
                }
            const double m = (double)(pixels * 16);
            for (int64_t i = at; i < at + pixels * c; i++)
                if (i % c / 16 == g) {
                    const double h = (floats(x)[i] - mean) * rstd;
                    ASSERT_NEAR(floats(y)[i], rstd * (floats(dy)[i] - s1 / m - h * s2 / m), 1e-5);
                }
        }
    }
    tw::emu::set_shared_limit(shared);
    tw::emu::set_max_cluster(8);
}

TEST_F(LargeTest, LossAndColumnSums) {
    const int64_t elements = 1 << 20, batch = big / elements;
    Hollow p((size_t)big * 4), target((size_t)big * 4), dp((size_t)big * 4);
    Hollow workspace(size_t(1) << 28);
    Buffer losses((size_t)batch * 4);
    twk_mse_args a = {};
    a.batch = batch;
    a.elements = elements;
    a.p = p.data;
    a.target = floats(target);
    a.gradient_scale = (float)big;
    a.dp = dp.data;
    a.sample_loss = static_cast<float *>(losses.data());
    a.workspace = workspace.data;
    a.workspace_bytes = twk_mse_workspace(batch, elements);
    randomize(floats(p) + big - 8192, 8192);
    ASSERT_EQ(only((uint64_t)(big / 8192 - 1), 1, [&] { return twk_mse(&a, nullptr); }), TWK_OK);
    for (int64_t i = big - 8192; i < big; i++) ASSERT_NEAR(floats(dp)[i], 2 * floats(p)[i], 1e-5);
    // 64 KiB a block: 128 channels of fp32 are 128 pixels.
    const int64_t c = 128, pixels = big / c;
    Buffer out((size_t)c * 4);
    twk_column_sums_args s = {1,
                              pixels,
                              c,
                              TWK_F32,
                              p.data,
                              out.data(),
                              TWK_F32,
                              0,
                              0,
                              workspace.data,
                              twk_column_sums_workspace(1, pixels, c)};
    ASSERT_LE(s.workspace_bytes, size_t(1) << 28);
    const int64_t chunks = pixels / 128;
    ASSERT_EQ(only((uint64_t)(chunks - 1), 1, [&] { return twk_column_sums(&s, nullptr); }),
              TWK_OK);
    for (int64_t k = 0; k < c; k++) {
        double sum = 0;
        for (int64_t i = pixels - 128; i < pixels; i++) sum += floats(p)[i * c + k];
        ASSERT_NEAR(floats(workspace)[(chunks - 1) * c + k], sum, 1e-4);
    }
}

TEST_F(LargeTest, SplitAndAddVector) {
    const int64_t c = 64, rows = big / (2 * c), tail = 8; // rows of the last block
    Hollow a((size_t)big * 4), b((size_t)big * 4), joined((size_t)big * 4);
    randomize(floats(joined) + (rows - tail) * 2 * c, tail * 2 * c);
    ASSERT_EQ(
        only((uint64_t)(rows * 2 * c / 1024 - 1), 1,
             [&] { return twk_split(TWK_F32, rows, c, c, joined.data, a.data, b.data, nullptr); }),
        TWK_OK);
    for (int64_t r = rows - tail; r < rows; r++)
        for (int64_t k = 0; k < 2 * c; k++)
            ASSERT_EQ(k < c ? floats(a)[r * c + k] : floats(b)[r * c + k - c],
                      floats(joined)[r * 2 * c + k]);
    // One pixel a sample: the rows of v, too, lie past 2^31.
    const int64_t n = big / c, stride = c;
    randomize(floats(a) + big - 1024, 1024);
    randomize(floats(b) + big - 1024, 1024);
    ASSERT_EQ(only((uint64_t)(big / 1024 - 1), 1,
                   [&] {
                       return twk_add_vector(TWK_F32, n, 1, c, a.data, b.data, stride, joined.data,
                                             nullptr);
                   }),
              TWK_OK);
    for (int64_t i = big - 1024; i < big; i++)
        ASSERT_EQ(floats(joined)[i], floats(a)[i] + floats(b)[i]) << i;
}

TEST_F(LargeTest, Images) {
    const int64_t w = 1024, elements = w * w, n = big / elements;
    Hollow in((size_t)big), out((size_t)big * 4), index((size_t)n * 8);
    for (int64_t i = big - 512; i < big; i++) in.data[i] = (char)pick(256);
    int64_t *const which = reinterpret_cast<int64_t *>(index.data);
    which[n - 1] = n - 1;
    twk_image_args a = {};
    a.batch = a.n_images = n;
    a.h = a.w = w;
    a.channels = 1;
    a.in = reinterpret_cast<uint8_t *>(in.data);
    a.out = out.data;
    for (const bool indexed : {false, true}) {
        a.index = indexed ? which : nullptr;
        memset(floats(out) + big - 512, 0xff, 512 * 4);
        ASSERT_EQ(
            only((uint64_t)(big / 256 - 2), 2, [&] { return twk_image_to_tensor(&a, nullptr); }),
            TWK_OK);
        for (int64_t i = big - 512; i < big; i++)
            ASSERT_NEAR(floats(out)[i], a.in[i] / 127.5 - 1, 1e-6) << i;
    }
}

TEST_F(LargeTest, ClassAndTimeEmbedding) {
    const int64_t width = 1 << 20, n = big / width, at = big - 256; // the last block
    Hollow table((size_t)big * 4), out((size_t)big * 4), index((size_t)n * 4);
    int32_t *const which = reinterpret_cast<int32_t *>(index.data);
    which[n - 1] = (int32_t)(n - 1);
    randomize(floats(table) + at, 256);
    const uint64_t block = (uint64_t)(big / 256 - 1);
    ASSERT_EQ(only(block, 1,
                   [&] {
                       return twk_embedding(TWK_F32, n, n, width, table.data, which, out.data,
                                            nullptr);
                   }),
              TWK_OK);
    for (int64_t i = at; i < big; i++) ASSERT_EQ(floats(out)[i], floats(table)[i]) << i;
    // The last row's gradient is added to what the table holds.
    const std::vector<float> before(floats(table) + at, floats(table) + big);
    ASSERT_EQ(only(block, 1,
                   [&] {
                       return twk_embedding_backward(TWK_F32, n, n, width, out.data, which,
                                                     floats(table), nullptr);
                   }),
              TWK_OK);
    for (int64_t i = at; i < big; i++)
        ASSERT_EQ(floats(table)[i], 2 * before[(size_t)(i - at)]) << i;
    Hollow times((size_t)n * 4);
    floats(times)[n - 1] = 700;
    twk_time_embedding_args a = {};
    a.batch = n;
    a.width = (int)width;
    a.t = floats(times);
    a.max_period = 100;
    a.scale = 1;
    a.out = out.data;
    ASSERT_EQ(only(block, 1, [&] { return twk_time_embedding(&a, nullptr); }), TWK_OK);
    const int64_t half = width / 2;
    for (int64_t i = at; i < big; i++) {
        const double k = (double)(i % width - half) / (double)half;
        ASSERT_NEAR(floats(out)[i], std::cos(700 * std::exp(-std::log(100.0) * k)), 1e-4) << i;
    }
}

TEST_F(LargeTest, DynamicThreshold) {
    const int64_t elements = 4096, batch = big / elements, at = big - elements;
    Hollow x((size_t)big * 4), m((size_t)big * 2), thresholds((size_t)batch * 4);
    std::vector<double> sizes;
    randomize(floats(x) + at, elements);
    for (int64_t i = at; i < big; i++) {
        floats(x)[i] *= 8;
        sizes.push_back(std::fabs(floats(x)[i]) / std::sqrt(0.64)); // m is 0
    }
    std::sort(sizes.begin(), sizes.end());
    twk_ddim_row row = {0.64f, 0.36f, 0.2f, 0.8f, 0.2f, 0, 0, 0};
    Buffer rows = upload(std::vector<twk_ddim_row>{row});
    twk_ddim_args a = {};
    a.batch = batch;
    a.elements = elements;
    a.x = x.data;
    a.x_out = x.data;
    a.m = m.data;
    a.m_format = TWK_BF16;
    a.rows = static_cast<twk_ddim_row *>(rows.data());
    a.n_rows = 1;
    ASSERT_EQ(
        only((uint64_t)batch - 1, 1,
             [&] { return twk_dynamic_threshold(&a, 0.75f, 100, floats(thresholds), nullptr); }),
        TWK_OK);
    const double want = sizes[3071] + 0.25 * (sizes[3072] - sizes[3071]); // of 0.75 * 4095
    ASSERT_NEAR(floats(thresholds)[batch - 1], want, 1e-5 * want);
}

// Both operands with k outermost, the last part of a split sum; then rows, the last tile.
TEST_F(LargeTest, MatrixProducts) {
    const int64_t width = 64, k = big / width, part = 64 * 16; // 64 tiles of 16 along k
    Hollow a((size_t)big * 4), b((size_t)big * 4), d((size_t)big * 4);
    Hollow workspace((size_t)(k / part) * width * width * 4);
    randomize(floats(a) + big - part * width, part * width);
    randomize(floats(b) + big - part * width, part * width);
    twk_gemm_args g = {};
    g.batch = 1;
    g.m = g.n = width;
    g.k = k;
    g.a = a.data;
    g.b = b.data;
    g.d = d.data;
    g.a_row = g.b_row = width;
    g.a_columns = g.b_columns = g.add_f32 = 1;
    g.splits = (int)(k / part);
    g.workspace = workspace.data;
    g.workspace_bytes = twk_gemm_workspace(&g);
    ASSERT_EQ(g.workspace_bytes, (size_t)(k / part) * width * width * 4);
    ASSERT_EQ(only((uint64_t)(k / part - 1), 1, [&] { return twk_gemm(&g, nullptr); }), TWK_OK);
    for (int64_t i = 0; i < width * width; i += 7) {
        double sum = 0;
        for (int64_t r = k - part; r < k; r++)
            sum += (double)floats(a)[r * width + i / width] * floats(b)[r * width + i % width];
        ASSERT_NEAR(floats(workspace)[(k / part - 1) * width * width + i], sum, 1e-3) << i;
    }
    g.m = k;
    g.k = width;
    g.a_columns = g.b_columns = g.add_f32 = 0;
    g.splits = 1;
    ASSERT_EQ(only((uint64_t)(k / 128 - 1), 1, [&] { return twk_gemm(&g, nullptr); }), TWK_OK);
    for (int64_t i = 0; i < 128 * width; i += 7) {
        const int64_t row = k - 128 + i / width;
        double sum = 0;
        for (int64_t c = 0; c < width; c++)
            sum += (double)floats(a)[row * width + c] * floats(b)[i % width * width + c];
        ASSERT_NEAR(floats(d)[row * width + i % width], sum, 1e-4) << i;
    }
}

TEST_F(LargeTest, Optimizer) {
    Hollow w((size_t)big * 4), m((size_t)big * 4), v((size_t)big * 4), g((size_t)big * 4);
    twk_parameter p = {};
    p.n = big;
    p.master = floats(w);
    p.m = floats(m);
    p.v = floats(v);
    p.gradient = g.data;
    std::vector<twk_parameter> table = {p};
    twk_adamw_args a = {};
    a.n_chunks = twk_adamw_plan(table.data(), 1);
    ASSERT_EQ(a.n_chunks, big / 8192);
    Buffer table_on = upload(table);
    Buffer hyper = upload(std::vector<twk_adamw_hyper>{{0.5f, 0.9f, 0.999f, 1e-8f, 0, 0, 0, 0}});
    Buffer norm = upload(std::vector<float>{1});
    Buffer count = upload(std::vector<int64_t>{0, 0});
    // As the decision would leave them: that kernel's block is not among those run.
    std::vector<twk_adamw_factors> factors(
        twk_adamw_workspace(a.n_chunks) / sizeof(twk_adamw_factors) + 1);
    factors[0] = {1, 10, 1000, 1, 0};
    Buffer workspace = upload(factors);
    a.parameters = static_cast<twk_parameter *>(table_on.data());
    a.n_parameters = 1;
    a.hyper = static_cast<twk_adamw_hyper *>(hyper.data());
    a.norm = static_cast<float *>(norm.data());
    a.count = static_cast<int64_t *>(count.data());
    a.workspace = workspace.data();
    a.workspace_bytes = workspace.size();
    for (int64_t i = big - 8192; i < big; i++) // well above epsilon
        floats(g)[i] = (float)(pick(2) ? tst::uniform(0.1, 1) : tst::uniform(-1, -0.1));
    ASSERT_EQ(only((uint64_t)a.n_chunks - 1, 1, [&] { return twk_adamw(&a, nullptr); }), TWK_OK);
    for (int64_t i = big - 8192; i < big; i++)
        ASSERT_NEAR(floats(w)[i], floats(g)[i] > 0 ? -0.5 : 0.5, 1e-4) << floats(g)[i];
}

#else
TEST_F(LargeTest, OnlyUnderTheEmulator) {
    GTEST_SKIP() << "block filters are the emulator's";
}
#endif

} // namespace
