#include "cli/command.h"
#include "support/gif.h"

#include <cmath>

class Sample : public CommandTest {
  protected:
    void SetUp() override {
        CommandTest::SetUp();
        make_model("points", kPoints, kSchedule);
        make_model("images", kImages, kSchedule);
        make_model("classes", kClasses, kSchedule);
    }
    // `tweedie sample` with the fewest options.
    static std::vector<std::string> with(const std::string &model,
                                         const std::vector<std::string> &more) {
        std::vector<std::string> args = {"sample", "--model", model, "--threads", "1"};
        args.insert(args.end(), more.begin(), more.end());
        return args;
    }
    Array sampled(const std::string &model, const std::vector<std::string> &more) {
        std::vector<std::string> args = with(model, more);
        args.insert(args.end(), {"--out", "sampled.npy"});
        works(args);
        return load("sampled.npy");
    }
    static void expect_close(const Array &a, const Array &b, double tolerance) {
        ASSERT_EQ(a.shape, b.shape);
        for (size_t i = 0; i < a.values.size(); i++)
            ASSERT_LE(std::fabs(a.values[i] - b.values[i]),
                      tolerance * (1 + std::fabs(b.values[i])))
                << "element " << i;
    }
};

TEST_F(Sample, WritesAGridOfImages) {
    const Result r = works(with("images", {"--out", "a.png", "--n", "5", "--steps", "2"}));
    EXPECT_EQ(r.out.rfind("tweedie 0.1 ", 0), 0u) << r.out;
    EXPECT_NE(r.out.find("\n  chosen     cpu-"), std::string::npos) << r.out;
    EXPECT_NE(r.out.find("ddim  2 steps  5 images"), std::string::npos) << r.out;
    EXPECT_EQ(r.out.substr(r.out.size() - 6), "a.png\n") << r.out;
    // Three columns and two rows of 8 pixels with 2 between and around.
    EXPECT_EQ(picture("a.png"), (std::vector<int64_t>{32, 22, 1}));
}

TEST_F(Sample, WritesAScatterOfPoints) {
    const Result r = works(with("points", {"--out", "a.png", "--n", "100", "--steps", "2"}));
    EXPECT_NE(r.out.find("100 points"), std::string::npos) << r.out;
    EXPECT_EQ(picture("a.png"), (std::vector<int64_t>{512, 512, 3}));
}

TEST_F(Sample, WritesAFolderOfImages) {
    works(with("classes", {"--out", "all/new", "--n", "3", "--steps", "2"}));
    EXPECT_EQ(list("all/new").size(), 3u);
    for (const char *name : {"all/new/00000.png", "all/new/00001.png", "all/new/00002.png"})
        EXPECT_EQ(picture(name), (std::vector<int64_t>{8, 8, 3}));
    fails(2, with("points", {"--out", "folder", "--n", "3"}), {"--out", ".png or .npy"});
}

TEST_F(Sample, WritesTheLibrarysNumbers) {
    tw_model *model = nullptr;
    tw_sampler *sampler = nullptr;
    tw_sampler_options o = TW_SAMPLER_OPTIONS_INIT;
    o.steps = 7;
    o.eta = 0.5;
    o.seed = 3;
    o.first_sample = 2;
    o.spacing = TW_SPACING_TRAILING;
    Array want = {{4, 8, 8, 1}, std::vector<float>(4 * 64)};
    tw_context *one = nullptr;
    tw_context_options co = TW_CONTEXT_OPTIONS_INIT;
    co.threads = 1;
    ASSERT_EQ(tw_context_create(&co, &one), TW_OK);
    ASSERT_EQ(tw_model_load(one, path("images").c_str(), nullptr, &model), TW_OK);
    ASSERT_EQ(tw_sampler_create(model, &o, &sampler), TW_OK) << tw_context_error(one);
    ASSERT_EQ(tw_sampler_run(sampler, 4, nullptr, nullptr, want.values.data()), TW_OK);
    tw_sampler_free(sampler);
    tw_model_free(model);
    tw_context_free(one);
    const Array got = sampled("images", {"--n", "4", "--steps", "7", "--eta", "0.5", "--seed", "3",
                                         "--first-sample", "2", "--spacing", "trailing"});
    EXPECT_EQ(got.shape, want.shape);
    EXPECT_EQ(got.values, want.values);
}

TEST_F(Sample, BatchesDoNotMatter) {
    const Array all = sampled("images", {"--n", "7", "--steps", "5", "--eta", "1", "--seed", "9"});
    for (const char *batch : {"1", "3", "64"})
        expect_close(sampled("images", {"--n", "7", "--steps", "5", "--eta", "1", "--seed", "9",
                                        "--max-batch", batch}),
                     all, 1e-4);
    // The noise itself is the same to the bit.
    for (const char *batch : {"1", "3", "64"})
        works(
            with("images", {"--n", "7", "--steps", "2", "--seed", "9", "--max-batch", batch,
                            "--trajectory", std::string("t") + batch + ".npy", "--out", "a.npy"}));
    const Array first = load("t1.npy");
    for (const char *name : {"t3.npy", "t64.npy"}) {
        const Array other = load(name);
        ASSERT_EQ(other.shape, first.shape);
        EXPECT_EQ(memcmp(other.values.data(), first.values.data(), 7 * 64 * sizeof(float)), 0);
    }
}

TEST_F(Sample, EqualRunsGiveEqualBits) {
    const Array a = sampled("points", {"--n", "50", "--steps", "10", "--sampler", "ddpm"});
    EXPECT_EQ(sampled("points", {"--n", "50", "--steps", "10", "--sampler", "ddpm"}).values,
              a.values);
    EXPECT_NE(sampled("points", {"--n", "50", "--steps", "10", "--sampler", "ddpm", "--seed", "1"})
                  .values,
              a.values);
}

TEST_F(Sample, TheTrajectoryLeadsFromNoiseToTheSamples) {
    works(with("points", {"--n", "20", "--steps", "6", "--seed", "4", "--max-batch", "8", "--out",
                          "a.npy", "--trajectory", "t.npy"}));
    const Array a = load("a.npy"), t = load("t.npy");
    ASSERT_EQ(t.shape, (std::vector<int64_t>{7, 20, 2}));
    for (int i = 0; i < 20; i++) {
        float noise[2];
        ASSERT_EQ(tw_noise_initial(4, uint64_t(i), 2, noise), TW_OK);
        EXPECT_EQ(memcmp(noise, &t.values[size_t(2 * i)], sizeof noise), 0);
    }
    EXPECT_EQ(std::vector<float>(t.values.end() - 40, t.values.end()), a.values);
    // Frames in between differ from both.
    for (size_t f = 1; f < 6; f++)
        EXPECT_NE(std::vector<float>(&t.values[f * 40], &t.values[f * 40] + 40), a.values);
}

TEST_F(Sample, TheTrajectoryIsAStrip) {
    works(with("images", {"--n", "9", "--steps", "30", "--out", "a.npy", "--trajectory", "t.png"}));
    // Six rows of eleven images.
    EXPECT_EQ(picture("t.png"), (std::vector<int64_t>{11 * 10 + 2, 6 * 10 + 2, 1}));
    works(with("images", {"--n", "2", "--steps", "3", "--out", "a.npy", "--trajectory", "t.png"}));
    EXPECT_EQ(picture("t.png"), (std::vector<int64_t>{4 * 10 + 2, 2 * 10 + 2, 1}));
    works(
        with("points", {"--n", "50", "--steps", "30", "--out", "a.npy", "--trajectory", "t.png"}));
    EXPECT_EQ(picture("t.png"), (std::vector<int64_t>{7 * 193 - 1, 192, 3}));
    fails(2, with("points", {"--out", "a.npy", "--trajectory", "folder"}), {"--trajectory"});
}

TEST_F(Sample, TheTrajectoryIsAnAnimation) {
    works(with("images", {"--n", "9", "--steps", "5", "--out", "a.png", "--trajectory", "t.gif"}));
    const tw_test::Animation gif = tw_test::decode_gif(path("t.gif"));
    const int times = 10; // three rows of three of 8 pixels, made larger
    ASSERT_EQ(gif.width, 32 * times);
    ASSERT_EQ(gif.height, 32 * times);
    ASSERT_EQ(gif.frames.size(), 6u);
    EXPECT_EQ(gif.frames[0].delay, 5);
    EXPECT_EQ(gif.frames[5].delay, 205);
    // It ends in the samples.
    tw_image image = {};
    ASSERT_EQ(tw_png_read(ctx, path("a.png").c_str(), &image), TW_OK);
    for (int y = 0; y < 32 * times; y++)
        for (int x = 0; x < 32 * times; x++)
            ASSERT_EQ(gif.frames[5].rgb[size_t((y * 32 * times + x) * 3)],
                      image.pixels[y / times * 32 + x / times])
                << y << " " << x;
    tw_image_free(ctx, &image);
    EXPECT_NE(gif.frames[4].rgb, gif.frames[5].rgb);
    // Many steps become a hundred frames, many images sixty-four in the labels' columns.
    works(with("classes", {"--n", "80", "--class", "0-1", "--steps", "100", "--out", "a.npy",
                           "--trajectory", "t.gif"}));
    const tw_test::Animation large = tw_test::decode_gif(path("t.gif"));
    EXPECT_EQ(large.frames.size(), 100u);
    EXPECT_EQ(large.width, 2 * 10 + 2);
    EXPECT_EQ(large.height, 32 * 10 + 2);
    works(with("points", {"--n", "50", "--steps", "3", "--out", "a.npy", "--trajectory", "t.gif"}));
    EXPECT_EQ(tw_test::decode_gif(path("t.gif")).width, 400);
}

TEST_F(Sample, TheTrajectoryIsDrawnWithAxes) {
    works(
        with("points", {"--n", "50", "--steps", "30", "--out", "a.npy", "--trajectory", "t.svg"}));
    for (const char *word : {">step 0<", ">step 5<", ">step 30<", ">x<", ">y<"})
        EXPECT_NE(read("t.svg").find(word), std::string::npos) << word;
    works(with("images", {"--n", "9", "--steps", "30", "--out", "a.npy", "--trajectory", "t.svg"}));
    for (const char *word : {">0<", ">3<", ">30<", ">step<"})
        EXPECT_NE(read("t.svg").find(word), std::string::npos) << word;
    works(with("images", {"--n", "2", "--steps", "3", "--out", "a.npy", "--trajectory", "t.pdf"}));
    EXPECT_EQ(read("t.pdf").rfind("%PDF", 0), 0u);
    RunOptions options;
    options.search_path = folder + "/empty";
    fails(1,
          with("images", {"--n", "2", "--steps", "1", "--out", "b.npy", "--trajectory", "u.svg"}),
          {"gnuplot-nox"}, options);
}

TEST_F(Sample, GivenNoiseIsTheStart) {
    Array noise = {{6, 8, 8, 1}, std::vector<float>(6 * 64)};
    for (size_t i = 0; i < 6; i++)
        ASSERT_EQ(tw_noise_initial(5, i, 64, &noise.values[i * 64]), TW_OK);
    save("noise.npy", noise);
    const Array drawn = sampled("images", {"--n", "6", "--steps", "5", "--seed", "5"});
    const Array given = sampled("images", {"--noise", "noise.npy", "--steps", "5"});
    EXPECT_EQ(given.shape, drawn.shape);
    EXPECT_EQ(given.values, drawn.values);
}

TEST_F(Sample, NoiseThatDoesNotFitIsRefused) {
    save("noise.npy", {{6, 8, 8, 1}, std::vector<float>(6 * 64)});
    fails(1, with("images", {"--noise", "noise.npy", "--n", "5", "--out", "a.npy"}),
          {"--noise: noise.npy: expected the shape (5, 8, 8, 1), got (6, 8, 8, 1)"});
    fails(1, with("classes", {"--noise", "noise.npy", "--out", "a.npy"}), {"8, 8, 3)"});
    fails(1, with("points", {"--noise", "noise.npy", "--out", "a.npy"}), {"got (6, 8, 8, 1)"});
    fails(1, with("images", {"--noise", "absent.npy", "--out", "a.npy"}), {"absent.npy"});
    write("noise.npy", "no array");
    fails(1, with("images", {"--noise", "noise.npy", "--out", "a.npy"}), {"noise.npy"});
    const int32_t whole[128] = {0};
    const int64_t shape[4] = {2, 8, 8, 1};
    ASSERT_EQ(tw_npy_write(ctx, path("noise.npy").c_str(), TW_I32, 4, shape, whole), TW_OK);
    fails(1, with("images", {"--noise", "noise.npy", "--out", "a.npy"}), {"float32", "int32"});
    EXPECT_FALSE(exists("a.npy"));
}

TEST_F(Sample, ClassesAreChecked) {
    const std::vector<std::string> few = {"--n", "4", "--steps", "2"};
    auto args = [&](std::vector<std::string> more) {
        more.insert(more.end(), few.begin(), few.end());
        return more;
    };
    const Array one = sampled("classes", args({"--class", "1"}));
    const Array two = sampled("classes", args({"--class", "2"}));
    const Array mixed = sampled("classes", args({"--class", "1-2"}));
    EXPECT_NE(one.values, two.values);
    // Samples 0 and 2 are of class 1, samples 1 and 3 of class 2.
    const size_t size = 8 * 8 * 3;
    for (size_t i = 0; i < 4; i++) {
        const Array &want = i % 2 ? two : one;
        EXPECT_EQ(memcmp(&mixed.values[i * size], &want.values[i * size], size * sizeof(float)), 0)
            << i;
    }
    EXPECT_NE(sampled("classes", args({"--class", "1", "--guidance", "3"})).values, one.values);
    // The last class is the empty one, which "all" leaves out.
    EXPECT_EQ(sampled("classes", args({"--class", "0-2"})).values,
              sampled("classes", args({"--class", "all"})).values);
    for (const char *text :
         {"4", "-1", "2-1", "1-4", "one", "1-", "1,2", "99999999999999999999999"})
        fails(2, with("classes", {"--class", text, "--out", "a.npy"}),
              {"--class: expected a label from 0 to 3", "got \"" + std::string(text) + "\""});
    fails(2, with("images", {"--class", "1", "--out", "a.npy"}), {"--class", "no classes"});
    fails(2, with("images", {"--guidance", "2", "--out", "a.npy"}), {"--guidance", "no classes"});
}

TEST_F(Sample, StepsAreThoseOfTheModel) {
    for (const char *text : {"fast", "0", "101", "-3"})
        fails(
            2, with("points", {"--steps", text, "--out", "a.npy"}),
            {"--steps: expected a whole number from 1 to 100, got \"" + std::string(text) + "\""});
    EXPECT_EQ(sampled("points", {"--steps", "100", "--n", "2"}).values.size(), 4u);
    EXPECT_EQ(sampled("points", {"--steps", "1", "--n", "2"}).values.size(), 4u);
}

TEST_F(Sample, EverySamplerAndSpacingRuns) {
    for (const char *spacing : {"leading", "trailing", "linspace", "uniform", "quadratic", "ddpm"})
        for (const char *sampler : {"ddim", "ddpm"}) {
            const Array a = sampled("points", {"--n", "3", "--steps", "10", "--spacing", spacing,
                                               "--sampler", sampler});
            for (float v : a.values) EXPECT_TRUE(std::isfinite(v)) << spacing << " " << sampler;
        }
    for (const char *variance : {"fixed_small", "fixed_large"})
        sampled("points",
                {"--n", "3", "--steps", "9", "--sampler", "ddpm", "--variance", variance});
}

TEST_F(Sample, ClippingHolds) {
    const Array a = sampled("images", {"--n", "3", "--steps", "4", "--clip", "range",
                                       "--clip-range", "0.5", "--spacing", "trailing"});
    // The last step returns the clipped x0.
    for (float v : a.values) EXPECT_LE(std::fabs(v), 0.5f);
    sampled("images", {"--n", "3", "--steps", "4", "--clip", "dynamic", "--clip-quantile", "0.9",
                       "--clip-max", "2", "--rederive-epsilon"});
    sampled("images", {"--n", "3", "--steps", "4", "--clip", "none"});
}

TEST_F(Sample, OptionsThatSayNothingAreRefused) {
    fails(2, {"sample", "--out", "a.png"}, {"--model DIR is missing"});
    fails(2, {"sample", "--model", "points"}, {"--out PATH is missing"});
    fails(2, with("points", {"--out", "a.npy", "--sampler", "ddpm", "--eta", "1"}), {"--eta"});
    fails(2, with("points", {"--out", "a.npy", "--variance", "fixed_large"}), {"--variance"});
    fails(2, with("points", {"--out", "a.npy", "--clip-range", "2"}), {"--clip-range"});
    fails(2, with("points", {"--out", "a.npy", "--clip", "range", "--clip-max", "2"}),
          {"--clip-max"});
    fails(2, with("images", {"--out", "a.jpg"}), {"--out", "\"a.jpg\""});
}

TEST_F(Sample, PlacesThatCannotBeWrittenAreNamed) {
    fails(1, with("images", {"--out", "absent/a.png"}), {"--out: there is no folder absent"});
    write("file", "");
    fails(1, with("images", {"--out", "file"}), {"--out: file is a file"});
    fails(1, with("images", {"--out", "file/a.npy"}), {"--out", "file"});
    ASSERT_EQ(mkdir(path("d.png").c_str(), 0777), 0);
    fails(1, with("images", {"--out", "d.png"}), {"--out: d.png is a folder"});
    fails(1, with("images", {"--out", "a.npy", "--trajectory", "absent/t.npy"}),
          {"--trajectory: there is no folder absent"});
    fails(1, with("absent", {"--out", "a.npy"}), {"absent"});
    EXPECT_FALSE(exists("a.npy"));
}

// A full disk, by a limit on the size of files.
TEST_F(Sample, AFullDiskLeavesNothing) {
    RunOptions options;
    options.file_limit = 2048;
    for (const char *out : {"full/a.npy", "full/a.png", "full/folder"}) {
        ASSERT_EQ(mkdir(path("full").c_str(), 0777), 0);
        if (std::string(out) == "full/folder") options.file_limit = 64;
        fails(1, with("images", {"--out", out, "--n", "64", "--steps", "1"}), {out}, options);
        EXPECT_EQ(list("full"), std::vector<std::string>());
        ASSERT_EQ(rmdir(path("full").c_str()), 0);
    }
    // What was there before stays as it was.
    write("a.npy", "old");
    options.file_limit = 2048;
    fails(1, with("images", {"--out", "a.npy", "--n", "64", "--steps", "1"}), {"a.npy"}, options);
    EXPECT_EQ(read("a.npy"), "old");
}

TEST_F(Sample, ASignalEndsIt) {
    RunOptions options;
    bool sent = false;
    options.watch = [&](pid_t pid, const std::string &out) {
        if (sent || out.find('\n') == std::string::npos) return; // the first line is out
        usleep(50000);
        kill(pid, SIGINT);
        sent = true;
    };
    const Result r = fails(
        130,
        with("images", {"--out", "a.npy", "--n", "20000", "--steps", "100", "--max-batch", "4"}),
        {"interrupted", "nothing was written"}, options);
    EXPECT_TRUE(sent);
    EXPECT_FALSE(exists("a.npy"));
}

TEST_F(Sample, NumbersThatAreNotFiniteAreNoticed) {
    Array noise = sampled("points", {"--n", "3", "--steps", "2"});
    noise.values[3] = NAN; // of sample 1
    save("noise.npy", noise);
    fails(1, with("points", {"--noise", "noise.npy", "--out", "a.npy"}),
          {"--noise: noise.npy: sample 1: ", "finite"});
    EXPECT_FALSE(exists("a.npy"));
    // Weights that are none.
    const std::string file = "points/unet/diffusion_pytorch_model.safetensors";
    std::string bytes = read(file);
    uint64_t header = 0;
    memcpy(&header, bytes.data(), sizeof header);
    for (size_t i = 8 + header; i < bytes.size(); i++) bytes[i] = char(0xff); // NaN
    write(file, bytes);
    fails(3, with("points", {"--n", "5", "--steps", "2", "--clip", "none", "--out", "a.npy"}),
          {"5 of 5 points", "not finite"});
    EXPECT_EQ(load("a.npy").values.size(), 10u);
    fails(3,
          with("points", {"--n", "1", "--steps", "2", "--clip", "none", "--precision", "bf16",
                          "--out", "a.npy"}),
          {"1 of 1 point", "--precision fp32"});
}

TEST_F(Sample, ATerminalGetsABar) {
    const std::string shown =
        on_terminal(with("points", {"--out", "a.npy", "--n", "4", "--steps", "3"}), 80);
    EXPECT_NE(shown.find("\rddim  1/3  "), std::string::npos) << shown;
    EXPECT_NE(shown.find("\rddim  3/3  "), std::string::npos) << shown;
    EXPECT_NE(shown.find("4 points"), std::string::npos) << shown;
}
