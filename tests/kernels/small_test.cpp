// Elementwise operations, shape operations, embeddings, losses and sums.
#include "support.h"

#include <algorithm>
#include <cstring>

using namespace tst;

namespace {

class SmallTest : public KernelTest {};

double sigmoid(double v) {
    return 1 / (1 + std::exp(-v));
}
double normal_cdf(double v) {
    return 0.5 * std::erfc(-v / std::sqrt(2.0));
}

// f(x) and f'(x), with magnitudes that bound their rounding.
Expected value_of(twk_activation f, double x) {
    switch (f) {
    case TWK_SILU:
        return {x * sigmoid(x), std::fabs(x) * (1 + std::fabs(x))};
    case TWK_RELU:
        return {std::max(x, 0.0), std::fabs(x)};
    default:
        return {x * normal_cdf(x), std::fabs(x)};
    }
}
Expected slope_of(twk_activation f, double x) {
    const double s = sigmoid(x);
    switch (f) {
    case TWK_SILU:
        return {s * (1 + x * (1 - s)), 1 + std::fabs(x) * (1 + std::fabs(x))};
    case TWK_RELU:
        return {x > 0 ? 1.0 : 0.0, 1};
    default:
        return {normal_cdf(x) + x * std::exp(-x * x / 2) / std::sqrt(2 * M_PI), 1 + std::fabs(x)};
    }
}

TEST_F(SmallTest, Activations) {
    for (twk_activation f : {TWK_SILU, TWK_RELU, TWK_GELU})
        for (twk_format format : formats)
            for (int64_t n : {1, 3, 7, 8, 33, 2047, 2048, 2049, 5000}) {
                const size_t shift = (size_t)pick(2);
                Tensor x = random_tensor(format, n, 6, shift),
                       dy = random_tensor(format, n, 2, shift);
                Tensor y(format, n, shift), dx(format, n, shift);
                LAUNCH_OK(twk_activation_forward(f, format, n, x.data(), y.data(), nullptr));
                LAUNCH_OK(
                    twk_activation_backward(f, format, n, x.data(), dy.data(), dx.data(), nullptr));
                std::vector<Expected> want((size_t)n), want_dx((size_t)n), wrong((size_t)n);
                for (int64_t i = 0; i < n; i++) {
                    want[i] = value_of(f, x.v[i]);
                    want_dx[i] = slope_of(f, x.v[i]);
                    want_dx[i].value *= dy.v[i];
                    want_dx[i].terms *= std::fabs(dy.v[i]);
                    wrong[i] = {want_dx[i].value * (1 + 0.01), want_dx[i].terms};
                }
                const std::string label =
                    "activation " + std::to_string(f) + " n " + std::to_string(n);
                expect_close(y.read(), want, format, 8, label);
                expect_close(dx.read(), want_dx, format, 8, label + " backward");
                if (n > 1000) {
                    EXPECT_GT(count_bad(dx.read(), wrong, format, 8), 0);
                }
            }
    EXPECT_EQ(twk_activation_forward(TWK_SILU, TWK_F32, 0, nullptr, nullptr, nullptr),
              TWK_BAD_ARGUMENT);
}

TEST_F(SmallTest, AddInPlaceAndScaled) {
    for (twk_format format : formats)
        for (int64_t n : {1, 5, 1024, 2049}) {
            Tensor a = random_tensor(format, n), b = random_tensor(format, n), y(format, n);
            LAUNCH_OK(twk_add(format, n, 0.5f, a.data(), -2, b.data(), y.data(), nullptr));
            std::vector<Expected> want((size_t)n), copy((size_t)n);
            for (int64_t i = 0; i < n; i++) {
                want[i].add(0.5 * a.v[i]);
                want[i].add(-2 * b.v[i]);
                copy[i].add(3 * a.v[i]);
            }
            expect_close(y.read(), want, format, 4, "add");
            LAUNCH_OK(twk_add(format, n, 3, a.data(), 0, nullptr, a.data(), nullptr));
            expect_close(a.read(), copy, format, 4, "scale in place");
        }
}

TEST_F(SmallTest, AddVector) {
    for (const Shape &s : shapes())
        for (twk_format format : formats) {
            const int64_t pixels = s.h * s.w, stride = pick(2) ? s.c + 8 : 0;
            Tensor x = random_tensor(format, s.total()), y(format, s.total());
            Tensor v = random_tensor(format, stride ? s.n * stride : s.c);
            LAUNCH_OK(twk_add_vector(format, s.n, pixels, s.c, x.data(), v.data(), stride, y.data(),
                                     nullptr));
            std::vector<Expected> want((size_t)s.total());
            for (int64_t i = 0; i < s.total(); i++) {
                want[i].add(x.v[i]);
                want[i].add(v.v[i / s.elements() * stride + i % s.c]);
            }
            expect_close(y.read(), want, format, 4, tst::str(s));
        }
}

TEST_F(SmallTest, DropoutIsTheSameForwardAndBackward) {
    for (const Shape &s : shapes())
        for (twk_format format : formats) {
            Tensor x = random_tensor(format, s.total(), 2, (size_t)pick(2)), y(format, s.total());
            Buffer step = upload(std::vector<uint32_t>{8});
            twk_dropout_args a = {};
            a.batch = s.n;
            a.elements = s.elements();
            a.format = format;
            a.x = x.data();
            a.y = y.data();
            a.probability = 0.3f;
            a.layer = 12;
            a.step = 7;
            a.device_step = pick(2) ? static_cast<uint32_t *>(step.data()) : nullptr;
            a.noise.seed = 5;
            a.noise.first_sample = uint64_t(1) << 33;
            LAUNCH_OK(twk_dropout(&a, nullptr));
            std::vector<Expected> want((size_t)s.total());
            for (int64_t i = 0; i < s.total(); i++) {
                const Key key = {5, (uint64_t(1) << 33) + (uint64_t)(i / s.elements()),
                                 TWK_NOISE_DROPOUT + 12, a.device_step ? 8u : 7u};
                if (noise_uniform(key, i % s.elements()) >= (double)0.3f)
                    want[i].add(x.v[i] / (1 - (double)0.3f));
            }
            expect_close(y.read(), want, format, 4, tst::str(s));
        }
}

TEST_F(SmallTest, ConcatAndSplit) {
    const int64_t sizes[][3] = {{1, 1, 1},     {5, 3, 4},    {7, 8, 16}, {35, 32, 33},
                                {2, 128, 256}, {9, 384, 96}, {300, 8, 8}};
    for (const auto &z : sizes)
        for (twk_format format : formats) {
            const int64_t rows = z[0], ca = z[1], cb = z[2], c = ca + cb;
            const size_t shift = (size_t)pick(2);
            Tensor a = random_tensor(format, rows * ca, 2, shift),
                   b = random_tensor(format, rows * cb);
            Tensor joined(format, rows * c), a2(format, rows * ca), b2(format, rows * cb);
            LAUNCH_OK(twk_concat(format, rows, ca, cb, a.data(), b.data(), joined.data(), nullptr));
            const std::vector<double> got = joined.read();
            for (int64_t i = 0; i < rows * c; i++) {
                const int64_t r = i / c, k = i % c;
                ASSERT_EQ(got[i], k < ca ? a.v[r * ca + k] : b.v[r * cb + k - ca]) << i;
            }
            LAUNCH_OK(
                twk_split(format, rows, ca, cb, joined.data(), a2.data(), b2.data(), nullptr));
            EXPECT_EQ(a2.read(), a.v);
            EXPECT_EQ(b2.read(), b.v);
            b2.buffer.poison();
            LAUNCH_OK(twk_split(format, rows, ca, cb, joined.data(), nullptr, b2.data(), nullptr));
            EXPECT_EQ(b2.read(), b.v);
        }
}

TEST_F(SmallTest, PoolAndSpread) {
    const struct {
        Shape large;
        int k;
    } sizes[] = {{{1, 2, 2, 1}, 2},   {{2, 7, 5, 3}, 2}, {{3, 4, 4, 32}, 2},  {{1, 6, 9, 33}, 3},
                 {{2, 4, 4, 128}, 1}, {{1, 5, 4, 8}, 4}, {{1, 16, 16, 40}, 2}};
    for (const auto &z : sizes)
        for (twk_format format : formats) {
            const Shape &s = z.large;
            const int64_t h = s.h / z.k, w = s.w / z.k, small = s.n * h * w * s.c;
            Tensor in = random_tensor(format, s.total()), out(format, small);
            Tensor low = random_tensor(format, small), high(format, s.total());
            twk_blocks_args a = {s.n,    s.h,       s.w,       s.c, z.k, 1.0f / (float)(z.k * z.k),
                                 format, in.data(), out.data()};
            LAUNCH_OK(twk_pool(&a, nullptr));
            a.in = low.data();
            a.out = high.data();
            LAUNCH_OK(twk_spread(&a, nullptr));
            std::vector<Expected> want((size_t)small), want_high((size_t)s.total());
            for (int64_t i = 0; i < s.total(); i++) {
                const int64_t c = i % s.c, x = i / s.c % s.w, y = i / s.c / s.w % s.h;
                const int64_t n = i / s.elements();
                if (x / z.k >= w || y / z.k >= h) continue;
                const int64_t o = ((n * h + y / z.k) * w + x / z.k) * s.c + c;
                want[o].add(in.v[i] * a.scale);
                want_high[i].add(low.v[o] * a.scale);
            }
            expect_close(out.read(), want, format, 8, "pool " + tst::str(s));
            expect_close(high.read(), want_high, format, 4, "spread " + tst::str(s));
        }
}

TEST_F(SmallTest, ConvertLayoutsAndFormats) {
    for (const Shape &s : {Shape{1, 1, 1, 1},
                           {2, 7, 5, 3},
                           {1, 4, 4, 33},
                           {2, 5, 13, 96},
                           {3, 8, 8, 4},
                           {2, 3, 22, 70}, // just above a tile of 16-bit pairs, both ways
                           {1, 8, 8, 64},
                           {2, 1, 2, 2}})
        for (twk_format from : formats)
            for (twk_format to : formats)
                for (int way = 0; way < 4; way++) {
                    const int64_t pixels = s.h * s.w;
                    const size_t shift = (size_t)pick(2);
                    Tensor in = random_tensor(from, s.total(), 2, shift),
                           out(to, s.total(), (size_t)pick(2));
                    const twk_convert_args a = {s.n,
                                                pixels,
                                                s.c,
                                                from,
                                                to,
                                                way & 1 ? TWK_NCHW : TWK_NHWC,
                                                way & 2 ? TWK_NCHW : TWK_NHWC,
                                                in.data(),
                                                out.data()};
                    LAUNCH_OK(twk_convert(&a, nullptr));
                    const std::vector<double> got = out.read();
                    for (int64_t n = 0; n < s.n; n++)
                        for (int64_t p = 0; p < pixels; p++)
                            for (int64_t c = 0; c < s.c; c++) {
                                const int64_t hwc = (n * pixels + p) * s.c + c;
                                const int64_t chw = (n * s.c + c) * pixels + p;
                                ASSERT_EQ(got[way & 2 ? chw : hwc],
                                          round_to(to, in.v[way & 1 ? chw : hwc]))
                                    << tst::str(s) << " way " << way;
                            }
                }
    // Rounding at the edges of the 16-bit formats.
    for (twk_format to : {TWK_BF16, TWK_F16}) {
        const std::vector<double> edge = {0,          -0.0,          0x1p-24,       0x1p-25,
                                          0x1.8p-25,  0x1.8p-24,     0x1p-14,       65504,
                                          65519.9,    -1.0009765625, 1.00048828125, 1.00146484375,
                                          0x1.fep-15, 3.14159,       1 + 0x1p-8,    1 + 0x1.8p-7};
        Tensor in(TWK_F32, edge), out(to, (int64_t)edge.size());
        const twk_convert_args a = {
            1, (int64_t)edge.size(), 1, TWK_F32, to, TWK_NHWC, TWK_NHWC, in.data(), out.data()};
        LAUNCH_OK(twk_convert(&a, nullptr));
        const std::vector<double> got = out.read();
        for (size_t i = 0; i < edge.size(); i++) EXPECT_EQ(got[i], round_to(to, in.v[i])) << i;
    }
    Tensor in(TWK_F32, std::vector<double>{INFINITY, -INFINITY, NAN, 1e30}), out(TWK_F16, 4);
    const twk_convert_args a = {1,        4,        1,         TWK_F32,   TWK_F16,
                                TWK_NHWC, TWK_NHWC, in.data(), out.data()};
    LAUNCH_OK(twk_convert(&a, nullptr));
    EXPECT_EQ(out.read()[0], INFINITY);
    EXPECT_EQ(out.read()[1], -INFINITY);
    EXPECT_TRUE(std::isnan(out.read()[2]));
    EXPECT_EQ(out.read()[3], INFINITY);
}

TEST_F(SmallTest, ImagesWithFlip) {
    for (const Shape &s : {Shape{4, 5, 7, 3}, {3, 4, 4, 1}, {20, 2, 3, 4}})
        for (twk_format format : formats) {
            const int64_t images = s.n + 5;
            std::vector<uint8_t> raw((size_t)(images * s.elements()));
            for (uint8_t &v : raw) v = (uint8_t)pick(256);
            std::vector<int64_t> index((size_t)s.n);
            for (int64_t &i : index) i = pick(images);
            Buffer raw_on = upload(raw), index_on = upload(index);
            Tensor out(format, s.total());
            twk_image_args a = {};
            a.batch = s.n;
            a.h = s.h;
            a.w = s.w;
            a.channels = s.c;
            a.in = static_cast<uint8_t *>(raw_on.data());
            a.index = pick(2) ? static_cast<int64_t *>(index_on.data()) : nullptr;
            a.n_images = images;
            a.format = format;
            a.out = out.data();
            a.flip = 0.5f;
            a.step = 3;
            a.noise.seed = 21;
            LAUNCH_OK(twk_image_to_tensor(&a, nullptr));
            std::vector<Expected> want((size_t)s.total());
            for (int64_t i = 0; i < s.total(); i++) {
                const int64_t n = i / s.elements(), c = i % s.c, y = i / s.c / s.w % s.h;
                int64_t x = i / s.c % s.w;
                if (noise_uniform({21, (uint64_t)n, TWK_NOISE_FLIP, 3}, 0) < 0.5) x = s.w - 1 - x;
                const int64_t image = a.index ? index[n] : n;
                want[i].add(raw[((image * s.h + y) * s.w + x) * s.c + c] / 127.5);
                want[i].add(-1);
            }
            expect_close(out.read(), want, format, 4, tst::str(s));
        }
}

TEST_F(SmallTest, Embedding) {
    const int64_t n = 37, rows = 11, width = 13;
    for (twk_format format : formats) {
        Tensor table = random_tensor(format, rows * width), out(format, n * width);
        Tensor dout = random_tensor(format, n * width),
               dtable = random_tensor(TWK_F32, rows * width);
        std::vector<int32_t> index((size_t)n);
        for (int32_t &i : index) i = (int32_t)pick(rows + 2) - 1; // two of them outside
        Buffer index_on = upload(index);
        const int32_t *const idx = static_cast<int32_t *>(index_on.data());
        LAUNCH_OK(twk_embedding(format, n, rows, width, table.data(), idx, out.data(), nullptr));
        LAUNCH_OK(twk_embedding_backward(format, n, rows, width, dout.data(), idx, dtable.f32(),
                                         nullptr));
        const std::vector<double> got = out.read();
        std::vector<Expected> want((size_t)(rows * width));
        for (int64_t i = 0; i < rows * width; i++) want[i].add(dtable.v[i]);
        for (int64_t i = 0; i < n; i++)
            for (int64_t k = 0; k < width; k++) {
                const bool inside = index[i] >= 0 && index[i] < rows;
                if (inside)
                    ASSERT_EQ(got[i * width + k], table.v[index[i] * width + k]);
                else
                    ASSERT_TRUE(std::isnan(got[i * width + k]));
                if (inside) want[index[i] * width + k].add(dout.v[i * width + k]);
            }
        expect_close(dtable.read(), want, TWK_F32, 8, "embedding gradient");
    }
}

TEST_F(SmallTest, TimeEmbeddings) {
    for (int width : {2, 7, 32, 128, 129})
        for (twk_format format : formats)
            for (int trial = 0; trial < 4; trial++) {
                const int64_t batch = 9;
                const int half = width / 2;
                std::vector<double> times((size_t)batch);
                for (double &t : times) t = trial < 2 ? (double)pick(1000) : tst::uniform(0, 1);
                Tensor t(TWK_F32, times), weights = random_tensor(TWK_F32, half, 32);
                Tensor out(format, batch * width);
                Buffer counter = upload(std::vector<uint32_t>{4});
                twk_time_embedding_args a = {};
                a.batch = batch;
                a.width = width;
                a.t = t.f32();
                a.counter = trial == 1 ? static_cast<uint32_t *>(counter.data()) : nullptr;
                a.weights = trial == 3 ? weights.f32() : nullptr;
                a.max_period = 10000;
                a.shift = trial == 0 && half > 1 ? 1.0f : 0.0f;
                a.scale = trial == 2 ? 1000.0f : 1.0f;
                a.cosine_first = (int)pick(2);
                a.format = format;
                a.out = out.data();
                LAUNCH_OK(twk_time_embedding(&a, nullptr));
                std::vector<Expected> want((size_t)(batch * width));
                for (int64_t i = 0; i < batch * width; i++) {
                    const int column = (int)(i % width), k = column % half;
                    if (column >= 2 * half) continue;
                    const double time = t.v[a.counter ? 4 : i / width];
                    const double rate = std::exp(-std::log(10000.0) * k / (half - a.shift));
                    const double angle =
                        a.weights ? 2 * M_PI * time * weights.v[k] : a.scale * time * rate;
                    const bool sine = (column < half) != (a.cosine_first != 0);
                    // Fourier's turns are float32.
                    want[i] = {sine ? std::sin(angle) : std::cos(angle),
                               1 + (a.weights ? std::fabs(angle) : 2)};
                }
                expect_close(out.read(), want, format, 4, "width " + std::to_string(width));
            }
}

TEST_F(SmallTest, MeanSquaredError) {
    for (const Shape &s : std::vector<Shape>{{1, 1, 1, 1},
                                             {3, 7, 5, 3},
                                             {2, 32, 32, 3},
                                             {1, 1, 1, 8193},
                                             {2, 1, 1, 16384},
                                             {9, 4, 4, 4}})
        for (twk_format format : formats) {
            const int64_t n = s.total(), e = s.elements();
            Tensor p = random_tensor(format, n), target = random_tensor(TWK_F32, n);
            Tensor weight = random_tensor(TWK_F32, s.n), dp(format, n), losses(TWK_F32, s.n),
                   loss(TWK_F32, 1);
            const bool weighted = pick(2);
            Buffer workspace(twk_mse_workspace(s.n, e));
            twk_mse_args a = {};
            a.batch = s.n;
            a.elements = e;
            a.format = format;
            a.p = p.data();
            a.target = target.f32();
            a.weight = weighted ? weight.f32() : nullptr;
            a.gradient_scale = 128;
            a.dp = dp.data();
            a.sample_loss = losses.f32();
            a.loss = loss.f32();
            a.workspace = workspace.data();
            a.workspace_bytes = workspace.size();
            LAUNCH_OK(twk_mse(&a, nullptr));
            std::vector<Expected> want_dp((size_t)n), want((size_t)s.n), mean(1);
            for (int64_t i = 0; i < n; i++) {
                const double w = weighted ? weight.v[i / e] : 1, d = p.v[i] - target.v[i];
                const double size = std::fabs(p.v[i]) + std::fabs(target.v[i]);
                const double k = 2 * 128 * w / (double)n;
                want_dp[i] = {k * d, std::fabs(k) * size};
                want[i / e].value += w * d * d / (double)e;
                want[i / e].terms += std::fabs(w) * (std::fabs(d) * size) / (double)e;
            }
            for (const Expected &v : want) {
                mean[0].value += v.value / (double)s.n;
                mean[0].terms += v.terms / (double)s.n;
            }
            expect_close(dp.read(), want_dp, format, 8, "mse gradient " + tst::str(s));
            expect_close(losses.read(), want, TWK_F32, 16, "mse " + tst::str(s));
            expect_close(loss.read(), mean, TWK_F32, 16, "mse mean " + tst::str(s));
            const std::vector<uint32_t> first = fetch<uint32_t>(loss.buffer);
            LAUNCH_OK(twk_mse(&a, nullptr));
            EXPECT_EQ(fetch<uint32_t>(loss.buffer), first) << "not the same twice";
        }
}

TEST_F(SmallTest, ColumnSums) {
    std::vector<Shape> all = shapes();
    all.push_back({1, 70, 30, 8}); // several chunks
    all.push_back({2, 1, 3, 2100});
    for (const Shape &s : all)
        for (twk_format format : formats) {
            const bool bias = pick(2), accumulate = pick(2);
            const twk_format out_format = accumulate ? TWK_F32 : formats[(size_t)pick(3)];
            const int64_t batch = bias ? 1 : s.n, pixels = bias ? s.n * s.h * s.w : s.h * s.w;
            const int64_t row = s.c + 5 * pick(2); // with columns that stay
            Tensor x = random_tensor(format, s.total(), 2, (size_t)pick(2));
            Tensor out = random_tensor(out_format, batch * row);
            std::vector<Expected> want((size_t)(batch * row)), wrong;
            for (int64_t i = 0; i < batch * row; i++)
                if (accumulate || i % row >= s.c) want[i].add(out.v[i]);
            for (int64_t i = 0; i < s.total(); i++)
                want[i / (pixels * s.c) * row + i % s.c].add(x.v[i]);
            Buffer workspace(twk_column_sums_workspace(batch, pixels, s.c));
            twk_column_sums_args a = {};
            a.batch = batch;
            a.pixels = pixels;
            a.channels = s.c;
            a.format = format;
            a.x = x.data();
            a.out = out.data();
            a.out_format = out_format;
            a.out_stride = row > s.c || pick(2) ? row : 0;
            a.accumulate = accumulate;
            a.workspace = workspace.data();
            a.workspace_bytes = workspace.size();
            if (!accumulate && row == s.c) out.buffer.poison();
            LAUNCH_OK(twk_column_sums(&a, nullptr));
            EXPECT_TRUE(workspace.guards_intact());
            expect_close(out.read(), want, out_format, 16, "column sums " + tst::str(s));
            wrong = want; // one pixel left out; in 16 bits rounding may hide a small one
            const double more = out_format == TWK_F32 ? 0 : 8;
            for (int64_t c = 0; c < s.c; c++) wrong[c].value -= more + x.v[c];
            EXPECT_GT(count_bad(out.read(), wrong, out_format, 16), 0);
            if (row > s.c) {
                wrong = want; // and a column that was to stay
                wrong[s.c].value += 1;
                EXPECT_GT(count_bad(out.read(), wrong, out_format, 16), 0);
                a.out_stride = -1;
                EXPECT_EQ(twk_column_sums(&a, nullptr), batch > 1 ? TWK_BAD_ARGUMENT : TWK_OK);
            }
            a.accumulate = 1;
            a.out_format = TWK_BF16;
            EXPECT_EQ(twk_column_sums(&a, nullptr), TWK_BAD_ARGUMENT);
        }
}

} // namespace
