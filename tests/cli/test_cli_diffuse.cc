#include "cli/command.h"
#include "support/gif.h"

namespace {

class Diffuse : public CommandTest {
  protected:
    void SetUp() override {
        CommandTest::SetUp();
        Array images = {{10, 8, 8, 1}, std::vector<float>(640)};
        for (size_t i = 0; i < 640; i++) images.values[i] = float(std::sin(0.37 * double(i)));
        save("images.npy", images);
        Array colours = {{3, 6, 9, 3}, std::vector<float>(3 * 162)};
        for (size_t i = 0; i < colours.values.size(); i++)
            colours.values[i] = float(std::sin(0.2 * double(i)));
        save("colours.npy", colours);
    }
    static std::vector<std::string> with(const std::string &data,
                                         const std::vector<std::string> &more) {
        std::vector<std::string> args = {"diffuse", "--data", data};
        args.insert(args.end(), more.begin(), more.end());
        return args;
    }
    Array numbers(const std::string &data, const std::vector<std::string> &more) {
        std::vector<std::string> args = with(data, more);
        args.insert(args.end(), {"--out", "numbers.npy"});
        works(args);
        return load("numbers.npy");
    }
    // alphas_cumprod of a linear schedule, by its definition.
    static std::vector<double> kept(int64_t T, double first, double last) {
        std::vector<double> a;
        double product = 1;
        for (int64_t t = 0; t < T; t++) {
            product *= 1 - (first + (last - first) * double(t) / double(T - 1));
            a.push_back(product);
        }
        return a;
    }
    static uint8_t level(float v) {
        const double scaled = (double(v) + 1) * 127.5 + 0.5;
        return scaled <= 0 ? 0 : scaled >= 255 ? 255 : uint8_t(scaled);
    }
};

// From one point, many times: x_t is normal with mean sqrt(A) x_0 and variance 1 - A.
TEST_F(Diffuse, MeanAndVarianceAreTheSchedules) {
    const int64_t n = 20000;
    const float x0[2] = {1.5f, -0.75f};
    Array same = {{n, 2}, std::vector<float>(size_t(2 * n))};
    for (size_t i = 0; i < same.values.size(); i++) same.values[i] = x0[i % 2];
    save("same.npy", same);
    const Array a = numbers("same.npy", {"--n", "20000", "--frames", "6", "--seed", "5"});
    ASSERT_EQ(a.shape, (std::vector<int64_t>{6, n, 2}));
    const std::vector<double> bar = kept(1000, 1e-4, 0.02);
    const int64_t t[] = {-1, 199, 399, 599, 799, 999};
    for (size_t f = 0; f < 6; f++) {
        const double A = t[f] < 0 ? 1 : bar[size_t(t[f])];
        double sum[2] = {0, 0}, squares[2] = {0, 0}, product = 0;
        for (size_t i = 0; i < size_t(n); i++) {
            double d[2];
            for (size_t k = 0; k < 2; k++) {
                d[k] = a.values[(f * size_t(n) + i) * 2 + k] - std::sqrt(A) * x0[k];
                sum[k] += d[k];
                squares[k] += d[k] * d[k];
            }
            product += d[0] * d[1];
        }
        const double N = double(n), deviation = std::sqrt(1 - A);
        for (size_t k = 0; k < 2; k++) {
            // Five standard errors of each estimate.
            EXPECT_NEAR(sum[k] / N, 0, 5 * deviation / std::sqrt(N) + 1e-6) << t[f];
            EXPECT_NEAR(squares[k] / N, 1 - A, 5 * (1 - A) * std::sqrt(2 / N) + 1e-9) << t[f];
        }
        EXPECT_NEAR(product / N, 0, 5 * (1 - A) / std::sqrt(N) + 1e-9) << t[f];
    }
}

// One noise for all t: the one that `sample` starts from.
TEST_F(Diffuse, EveryNumberIsTheFormulas) {
    make_model("model", kPoints, kSchedule);
    const Array a = numbers("images.npy", {"--model", "model", "--frames", "5", "--n", "4",
                                           "--first-sample", "3", "--seed", "8"});
    ASSERT_EQ(a.shape, (std::vector<int64_t>{5, 4, 8, 8, 1}));
    const std::vector<double> bar = kept(100, 0.001, 0.2);
    const int64_t t[] = {-1, 24, 49, 74, 99};
    const Array data = load("images.npy");
    for (size_t i = 0; i < 4; i++) {
        float noise[64];
        ASSERT_EQ(tw_noise_initial(8, 3 + i, 64, noise), TW_OK);
        for (size_t f = 0; f < 5; f++)
            for (size_t j = 0; j < 64; j++) {
                const double A = t[f] < 0 ? 1 : bar[size_t(t[f])];
                const double want =
                    std::sqrt(A) * data.values[(3 + i) * 64 + j] + std::sqrt(1 - A) * noise[j];
                ASSERT_NEAR(a.values[(f * 4 + i) * 64 + j], want, 1e-6)
                    << f << " " << i << " " << j;
            }
    }
    // Without signal what is left is the noise, to the bit.
    const Array last = numbers("images.npy", {"--rescale-zero-snr", "--frames", "2", "--n", "1"});
    float noise[64];
    ASSERT_EQ(tw_noise_initial(0, 0, 64, noise), TW_OK);
    EXPECT_EQ(memcmp(noise, &last.values[64], sizeof noise), 0);
}

TEST_F(Diffuse, TheScheduleIsTheOneAskedFor) {
    const std::vector<std::string> few = {"--n", "3", "--frames", "4"};
    auto at = [&](std::vector<std::string> more) {
        more.insert(more.end(), few.begin(), few.end());
        return numbers("images.npy", more).values;
    };
    const std::vector<float> base = at({});
    EXPECT_EQ(at({"--schedule", "linear", "--beta-end", "0.02"}), base);
    EXPECT_EQ(at({"--schedule", "cosine"}), at({"--schedule", "squaredcos_cap_v2"}));
    for (const std::vector<std::string> &more : {std::vector<std::string>{"--schedule", "cosine"},
                                                 {"--schedule", "sigmoid"},
                                                 {"--schedule", "scaled_linear"},
                                                 {"--beta-start", "0.001"},
                                                 {"--beta-end", "0.03"},
                                                 {"--rescale-zero-snr"},
                                                 {"--training-steps", "400"},
                                                 {"--seed", "1"},
                                                 {"--first-sample", "1"}})
        EXPECT_NE(at(more), base) << more[0];
    write("s.json", "{\"num_train_timesteps\": 400}");
    EXPECT_EQ(at({"--scheduler", "s.json"}), at({"--training-steps", "400"}));
}

TEST_F(Diffuse, PointsGetPanelsWithAxes) {
    works(with("scurve", {"--out", "a.png", "--n", "500"}));
    const auto size = picture("a.png");
    EXPECT_EQ(size, (std::vector<int64_t>{2 * (34 + 7 * 126), 2 * (118 + 24 + 38), 3}));
    EXPECT_GT(drawn("a.png"), 0.02);
    EXPECT_LT(drawn("a.png"), 0.3);
    // Nine frames are two rows of five.
    works(with("scurve", {"--out", "a.png", "--n", "50", "--frames", "9"}));
    EXPECT_EQ(picture("a.png"), (std::vector<int64_t>{2 * (34 + 5 * 126), 2 * (2 * 142 + 38), 3}));
    works(with("scurve", {"--out", "a.svg", "--n", "50", "--frames", "3"}));
    const std::string svg = read("a.svg");
    for (const char *word : {">data<", ">t = 499<", ">t = 999<", ">x<", ">y<"})
        EXPECT_NE(svg.find(word), std::string::npos) << word;
}

// The strip of images: pixels enlarged but not changed, with t below.
TEST_F(Diffuse, ImagesGetAStrip) {
    for (const auto &[data, height, width, channels, n, first] :
         std::vector<std::tuple<std::string, int64_t, int64_t, int64_t, int64_t, int64_t>>{
             {"images.npy", 8, 8, 1, 6, 2}, {"colours.npy", 6, 9, 3, 2, 1}}) {
        SCOPED_TRACE(data);
        const int64_t F = 4, larger = std::max(width, height), scale = 2 * ((47 + larger) / larger);
        const std::vector<std::string> more = {"--n", std::to_string(n), "--frames",
                                               "4",   "--first-sample",  std::to_string(first)};
        const Array a = numbers(data, more);
        std::vector<std::string> args = with(data, more);
        args.insert(args.end(), {"--out", "a.png"});
        works(args);
        tw_image image = {};
        ASSERT_EQ(tw_png_read(ctx, path("a.png").c_str(), &image), TW_OK);
        EXPECT_EQ(image.width, scale * (F * (width + 2) + 2) + 40);
        EXPECT_EQ(image.height, scale * (n * (height + 2) + 2) + 92);
        for (int64_t f = 0; f < F; f++)
            for (int64_t i = 0; i < n; i++)
                for (int64_t y = 0; y < height; y++)
                    for (int64_t x = 0; x < width; x++)
                        for (int64_t k = 0; k < 3; k++) {
                            const int64_t row = 20 + scale * (2 + i * (height + 2) + y) + scale / 2;
                            const int64_t column =
                                20 + scale * (2 + f * (width + 2) + x) + scale / 2;
                            const int64_t from =
                                (((f * n + i) * height + y) * width + x) * channels +
                                (channels == 3 ? k : 0);
                            ASSERT_EQ(image.pixels[(row * image.width + column) * 3 + k],
                                      level(a.values[size_t(from)]))
                                << f << " " << i << " " << y << " " << x << " " << k;
                        }
        tw_image_free(ctx, &image);
    }
    works(with("images.npy", {"--out", "a.svg"}));
    const std::string svg = read("a.svg");
    for (const char *word : {">data<", ">99<", ">499<", ">999<", ">t<"})
        EXPECT_NE(svg.find(word), std::string::npos) << word;
    works(with("images.npy", {"--out", "a.pdf"}));
    EXPECT_EQ(read("a.pdf").rfind("%PDF", 0), 0u);
}

TEST_F(Diffuse, AnimationsMoveFromDataToNoise) {
    const std::vector<std::string> more = {"--n", "4", "--frames", "5"};
    const Array a = numbers("images.npy", more);
    works(with("images.npy",
               {"--n", "4", "--frames", "5", "--out", "a.gif", "--fps", "10", "--pause", "1.5"}));
    const tw_test::Animation gif = tw_test::decode_gif(path("a.gif"));
    // Two rows of two, with two black pixels between, times 15.
    const int scale = 15;
    ASSERT_EQ(gif.width, 22 * scale);
    ASSERT_EQ(gif.height, 22 * scale);
    EXPECT_TRUE(gif.forever);
    ASSERT_EQ(gif.frames.size(), 5u);
    for (size_t f = 0; f < 5; f++) {
        EXPECT_EQ(gif.frames[f].delay, f < 4 ? 10 : 160);
        for (int y = 0; y < 22 * scale; y++)
            for (int x = 0; x < 22 * scale; x++) {
                const int r = y / scale % 10 - 2, c = x / scale % 10 - 2;
                const int i = y / scale / 10 * 2 + x / scale / 10;
                const bool gap = r < 0 || c < 0;
                const uint8_t want =
                    gap ? 0 : level(a.values[(f * 4 + size_t(i)) * 64 + size_t(r * 8 + c)]);
                for (int k = 0; k < 3; k++)
                    ASSERT_EQ(gif.frames[f].rgb[size_t((y * 22 * scale + x) * 3 + k)], want)
                        << f << " " << y << " " << x;
            }
    }
    works(with("scurve", {"--out", "a.gif", "--n", "300"}));
    const tw_test::Animation points = tw_test::decode_gif(path("a.gif"));
    EXPECT_EQ(points.width, 400);
    ASSERT_EQ(points.frames.size(), 40u);
    EXPECT_EQ(points.frames[0].delay, 5);
    EXPECT_EQ(points.frames[39].delay, 205);
    // White is white, and the points spread.
    auto ink = [&](size_t f) {
        int64_t n = 0;
        const std::vector<uint8_t> &rgb = points.frames[f].rgb;
        for (size_t i = 0; i < rgb.size(); i += 3) n += rgb[i] != 255;
        return double(n) / (400.0 * 400);
    };
    EXPECT_GT(ink(0), 0.005);
    EXPECT_GT(ink(39), 1.1 * ink(0));
    EXPECT_LT(ink(39), 0.2);
    works(with("colours.npy", {"--out", "a.gif", "--frames", "3"}));
    EXPECT_EQ(tw_test::decode_gif(path("a.gif")).frames.size(), 3u);
}

TEST_F(Diffuse, EqualCallsGiveEqualFiles) {
    for (const std::string out : {"a.gif", "a.png", "a.npy"}) {
        works(with("scurve", {"--out", out, "--n", "200", "--frames", "3", "--seed", "7"}));
        const std::string first = read(out);
        works(with("scurve", {"--out", out, "--n", "200", "--frames", "3", "--seed", "7"}));
        EXPECT_EQ(read(out), first) << out;
    }
}

TEST_F(Diffuse, WhatCannotBeIsRefused) {
    const std::vector<std::string> out = {"--out", "a.png"};
    auto args = [&](std::vector<std::string> more) {
        more.insert(more.end(), out.begin(), out.end());
        return with("images.npy", more);
    };
    fails(2, {"diffuse", "--out", "a.png"}, {"--data SOURCE is missing"});
    fails(2, {"diffuse", "--data", "scurve"}, {"--out PATH is missing"});
    fails(1, with("absent", {"--out", "a.png"}), {"absent"});
    fails(2, with("scurve", {"--out", "a.jpg"}), {"--out", ".png, .gif, .svg, .pdf or .npy"});
    fails(2, with("scurve", {"--out", "folder"}), {"--out", ".png, .gif, .svg, .pdf or .npy"});
    fails(1, with("scurve", {"--out", "absent/a.png"}), {"--out: there is no folder absent"});
    fails(2, args({"--n", "11"}), {"--n: images.npy has 10 samples from 0 on, got 11"});
    fails(2, args({"--n", "3", "--first-sample", "8"}), {"--n: images.npy has 2 samples from 8"});
    fails(2, args({"--first-sample", "10"}), {"--first-sample: images.npy has the samples 0 to 9"});
    fails(2, args({"--frames", "1002"}), {"--frames", "from 2 to 1001"});
    fails(2, args({"--frames", "1"}), {"--frames"});
    fails(1, args({"--frames", "1001"}), {"a.png: a strip of 1001 frames", ".gif"});
    fails(1, with("scurve", {"--out", "a.png", "--frames", "1001", "--n", "2"}),
          {"a.png: a strip of 1001 frames", ".gif"});
    fails(2, args({"--fps", "10"}), {"--fps: belongs to an --out that ends in .gif"});
    fails(2, args({"--pause", "1"}), {"--pause: belongs to an --out that ends in .gif"});
    fails(2, args({"--schedule", "quadratic"}), {"--schedule: expected linear"});
    fails(2, args({"--schedule", "cosine", "--beta-end", "0.1"}),
          {"--beta-end: belongs to linear"});
    write("s.json", "{}");
    make_model("model", kPoints, kSchedule);
    fails(2, args({"--model", "model", "--scheduler", "s.json"}), {"--model and --scheduler"});
    fails(2, args({"--model", "model", "--schedule", "linear"}),
          {"--schedule: belongs to a named"});
    fails(2, args({"--scheduler", "s.json", "--training-steps", "9"}), {"--training-steps"});
    const Array flat = {{4, 3}, std::vector<float>(12, 0.5f)};
    save("flat.npy", flat);
    fails(2, with("flat.npy", {"--out", "a.gif"}),
          {"neither grey or RGB images nor points", ".npy"});
    EXPECT_EQ(numbers("flat.npy", {"--frames", "2"}).shape, (std::vector<int64_t>{2, 4, 3}));
    EXPECT_FALSE(exists("a.png"));
}

TEST_F(Diffuse, FailuresLeaveTheOldFile) {
    RunOptions options;
    options.file_limit = 1000;
    for (const char *out : {"a.png", "a.gif", "a.npy"}) {
        write(out, "old");
        fails(1, with("images.npy", {"--out", out}), {out, "cannot write"}, options);
        EXPECT_EQ(read(out), "old");
        ASSERT_EQ(unlink(path(out).c_str()), 0);
        EXPECT_EQ(list(".").size(), 2u) << out; // the two data sets
    }
    options.file_limit = 0;
    options.search_path = folder + "/empty";
    for (const char *data : {"images.npy", "scurve"}) {
        fails(1, with(data, {"--out", "a.png"}), {"gnuplot-nox"}, options);
        works(with(data, {"--out", "a.gif", "--frames", "2"}), options); // needs no gnuplot
    }
}

TEST_F(Diffuse, ASignalEndsIt) {
    ASSERT_EQ(mkdir(path("out").c_str(), 0777), 0);
    RunOptions options;
    bool sent = false;
    options.watch = [&](pid_t pid, const std::string &) {
        // At work for three tenths of a second.
        std::ifstream stat("/proc/" + std::to_string(pid) + "/stat");
        std::string word;
        for (int i = 0; i < 14; i++) stat >> word; // the command's name is one word
        if (sent || !stat || std::stol(word) * 10 < 3 * sysconf(_SC_CLK_TCK)) return;
        kill(pid, SIGINT);
        sent = true;
    };
    fails(130, with("scurve", {"--out", "out/a.gif", "--frames", "1001", "--n", "10000"}),
          {"interrupted", "nothing was written"}, options);
    EXPECT_TRUE(sent);
    EXPECT_EQ(list("out").size(), 0u);
}

} // namespace
