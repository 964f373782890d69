#include "cli/uses/uses.h"
#include "support/gif.h"

// The numbers of five samples of the S-curve in three frames.
inline EveryOption::Array diffused(EveryOption &t, const EveryOption::Words &more) {
    EveryOption::Words words = {"diffuse", "--data", "scurve", "--out", "a.npy"};
    if (std::find(more.begin(), more.end(), "--frames") == more.end())
        words = EveryOption::joined(words, {"--frames", "3"});
    if (std::find(more.begin(), more.end(), "--n") == more.end())
        words = EveryOption::joined(words, {"--n", "5"});
    t.works(EveryOption::joined(words, more));
    return t.load("a.npy");
}

static const std::vector<Use> diffuse_uses = {
    {"diffuse",
     {"data", "out", "n", "frames"},
     [](EveryOption &t) {
         EXPECT_EQ(diffused(t, {"--n", "7", "--frames", "4"}).shape,
                   (std::vector<int64_t>{4, 7, 2}));
     }},
    {"diffuse",
     {"seed", "first-sample", "schedule", "training-steps", "beta-start", "beta-end",
      "rescale-zero-snr"},
     [](EveryOption &t) {
         const auto base = diffused(t, {});
         for (const EveryOption::Words &more : {EveryOption::Words{"--seed", "1"},
                                                {"--first-sample", "1"},
                                                {"--schedule", "sigmoid"},
                                                {"--training-steps", "500"},
                                                {"--beta-start", "0.001"},
                                                {"--beta-end", "0.03"},
                                                {"--rescale-zero-snr"}})
             EXPECT_NE(diffused(t, more).values, base.values) << more[0];
     }},
    {"diffuse",
     {"model", "scheduler"},
     [](EveryOption &t) {
         t.make_models();
         const auto a = diffused(t, {"--model", "points"});
         EXPECT_NE(a.values, diffused(t, {}).values);
         EXPECT_EQ(a.values,
                   diffused(t, {"--scheduler", "points/scheduler/scheduler_config.json"}).values);
     }},
    {"diffuse",
     {"image-size", "crop"},
     [](EveryOption &t) {
         // A picture that is wider than high: cut to its middle, or squeezed.
         std::vector<uint8_t> pixels(8 * 4);
         for (size_t i = 0; i < pixels.size(); i++) pixels[i] = uint8_t(i * i);
         const tw_image image = {8, 4, 1, pixels.data()};
         mkdir(t.path("photos").c_str(), 0777);
         ASSERT_EQ(tw_png_write(t.ctx, t.path("photos/a.png").c_str(), &image), TW_OK);
         const EveryOption::Words words = {"--data", "photos", "--image-size", "4", "--n", "1"};
         auto numbers = [&](const EveryOption::Words &more) {
             t.works(EveryOption::joined(
                 EveryOption::joined({"diffuse", "--out", "a.npy", "--frames", "2"}, words), more));
             return t.load("a.npy");
         };
         const auto cut = numbers({});
         ASSERT_EQ(cut.shape, (std::vector<int64_t>{2, 1, 4, 4, 3}));
         for (size_t y = 0; y < 4; y++)
             for (size_t x = 0; x < 4; x++)
                 EXPECT_NEAR((cut.values[3 * (4 * y + x)] + 1) * 127.5, pixels[8 * y + x + 2],
                             0.01);
         EXPECT_NE(numbers({"--crop", "stretch"}).values, cut.values);
     }},
    {"diffuse",
     {"fps", "pause"},
     [](EveryOption &t) {
         t.works({"diffuse", "--data", "scurve", "--out", "a.gif", "--n", "5", "--frames", "3",
                  "--fps", "4", "--pause", "0.5"});
         const tw_test::Animation gif = tw_test::decode_gif(t.path("a.gif"));
         ASSERT_EQ(gif.frames.size(), 3u);
         EXPECT_EQ(gif.frames[1].delay, 25);
         EXPECT_EQ(gif.frames[2].delay, 75);
     }},
};

static const std::vector<Misuse> diffuse_misuses = {
    {"diffuse", "data", {"--data", "absent", "--out", "a.npy"}, 1, "absent"},
    {"diffuse", "out", {"--data", "scurve", "--out", "a.jpg"}, 2, ".gif, .svg, .pdf or .npy"},
    {"diffuse",
     "n",
     {"--data", "scurve", "--out", "a.npy", "--n", "10001"},
     2,
     "10000 samples from 0"},
    {"diffuse",
     "first-sample",
     {"--data", "scurve", "--out", "a.npy", "--first-sample", "10000"},
     2,
     "0 to 9999"},
    {"diffuse", "image-size", {"--image-size", "4097"}, 2, "from 0 to 4096"},
    {"diffuse",
     "crop",
     {"--data", "shapes", "--out", "a.npy", "--crop", "pad"},
     2,
     "belongs to an --image-size"},
    {"diffuse", "seed", {"--seed", "-1"}, 2, "from 0 up"},
    {"diffuse",
     "frames",
     {"--data", "scurve", "--out", "a.npy", "--frames", "9", "--training-steps", "7"},
     2,
     "from 2 to 8"},
    {"diffuse", "fps", {"--data", "scurve", "--out", "a.npy", "--fps", "9"}, 2, "ends in .gif"},
    {"diffuse", "pause", {"--data", "scurve", "--out", "a.npy", "--pause", "9"}, 2, "ends in .gif"},
    {"diffuse", "schedule", {"--schedule", "cubic"}, 2, "squaredcos_cap_v2"},
    {"diffuse", "training-steps", {"--training-steps", "1"}, 2, "from 2 to 1000000"},
    {"diffuse",
     "beta-start",
     {"--data", "scurve", "--out", "a.npy", "--beta-start", "0.5"},
     2,
     "at most --beta-end"},
    {"diffuse",
     "beta-end",
     {"--data", "scurve", "--out", "a.npy", "--schedule", "cosine", "--beta-end", "0.5"},
     2,
     "belongs to linear"},
    {"diffuse",
     "rescale-zero-snr",
     {"--data", "scurve", "--out", "a.npy", "--model", "points", "--rescale-zero-snr"},
     2,
     "belongs to a named schedule"},
    {"diffuse",
     "model",
     {"--data", "scurve", "--out", "a.npy", "--model", "absent"},
     1,
     "no folder absent"},
    {"diffuse",
     "scheduler",
     {"--data", "scurve", "--out", "a.npy", "--scheduler", "absent"},
     1,
     "absent"},
};
