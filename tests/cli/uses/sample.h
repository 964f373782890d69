#include "cli/uses/uses.h"
#include "support/gif.h"

static float largest(const EveryOption::Array &a) {
    float most = 0;
    for (float v : a.values) most = std::max(most, std::fabs(v));
    return most;
}

static const std::vector<Use> sample_uses = {
    {"sample",
     {"fps", "pause"},
     [](EveryOption &t) {
         t.make_models();
         t.sampled("points", {"--trajectory", "t.gif", "--fps", "10", "--pause", "0"});
         const tw_test::Animation gif = tw_test::decode_gif(t.path("t.gif"));
         ASSERT_EQ(gif.frames.size(), 6u);
         EXPECT_EQ(gif.frames[5].delay, 10);
     }},
    {"sample",
     {"model", "out", "n", "steps"},
     [](EveryOption &t) {
         t.make_models();
         const Result r =
             t.works({"sample", "--model", "images", "--out", "a.png", "--n", "5", "--steps", "2"});
         EXPECT_NE(r.out.find("ddim  2 steps  5 images"), std::string::npos) << r.out;
         // Three columns and two rows of 8 pixels with 2 between and around.
         EXPECT_EQ(t.picture("a.png"), (std::vector<int64_t>{32, 22, 1}));
     }},
    {"sample",
     {"variant"},
     [](EveryOption &t) {
         t.make_models();
         const auto before = t.sampled("points", {});
         const std::string file = "points/unet/diffusion_pytorch_model";
         t.write(file + ".half.safetensors", t.read(file + ".safetensors"));
         ASSERT_EQ(unlink(t.path(file + ".safetensors").c_str()), 0);
         EXPECT_EQ(t.sampled("points", {"--variant", "half"}).values, before.values);
     }},
    {"sample",
     {"trajectory"},
     [](EveryOption &t) {
         t.make_models();
         const auto a = t.sampled("points", {"--trajectory", "t.npy"});
         const auto states = t.load("t.npy");
         ASSERT_EQ(states.shape, (std::vector<int64_t>{6, 4, 2}));
         EXPECT_EQ(std::vector<float>(states.values.end() - 8, states.values.end()), a.values);
     }},
    {"sample",
     {"sampler", "eta", "variance", "spacing"},
     [](EveryOption &t) {
         t.make_models();
         const Result r = t.works({"sample", "--model", "points", "--out", "a.npy", "--steps", "3",
                                   "--sampler", "ddpm", "--variance", "fixed_large"});
         EXPECT_NE(r.out.find("ddpm  3 steps"), std::string::npos) << r.out;
         t.changes_samples("points", {}, {"--sampler", "ddpm"});
         t.changes_samples("points", {}, {"--eta", "0.5"});
         t.changes_samples("points", {"--sampler", "ddpm", "--variance", "fixed_small"},
                           {"--spacing", "trailing"});
         EXPECT_NE(t.sampled("points", {"--sampler", "ddpm", "--variance", "fixed_small"}).values,
                   t.sampled("points", {"--sampler", "ddpm", "--variance", "fixed_large"}).values);
     }},
    {"sample",
     {"class", "guidance"},
     [](EveryOption &t) {
         t.make_models();
         const auto one = t.sampled("classes", {"--class", "1"});
         EXPECT_NE(t.sampled("classes", {"--class", "2"}).values, one.values);
         // Samples 0 and 2 are of class 1, the others of class 2.
         const auto mixed = t.sampled("classes", {"--class", "1-2"});
         const size_t size = 8 * 8 * 3;
         EXPECT_TRUE(
             std::equal(&one.values[2 * size], &one.values[3 * size], &mixed.values[2 * size]));
         EXPECT_FALSE(std::equal(&one.values[size], &one.values[2 * size], &mixed.values[size]));
         t.changes_samples("classes", {"--class", "1"}, {"--guidance", "3"});
     }},
    {"sample",
     {"clip", "clip-range", "clip-quantile", "clip-max", "rederive-epsilon"},
     [](EveryOption &t) {
         t.make_models();
         // The last step returns the clipped x0.
         EXPECT_GT(largest(t.sampled("images", {"--clip", "none"})), 1.0f);
         EXPECT_EQ(largest(t.sampled("images", {"--clip", "range"})), 1.0f);
         EXPECT_EQ(largest(t.sampled("images", {"--clip", "range", "--clip-range", "0.5"})), 0.5f);
         // With a bound of 1 the threshold has nowhere to go; with 100 the quantile decides.
         const EveryOption::Words dynamic = {"--clip", "dynamic", "--clip-max", "100"};
         t.changes_samples("images", {"--clip", "dynamic"}, {"--clip-max", "100"});
         t.changes_samples("images", dynamic, {"--clip-quantile", "0.6"});
         t.changes_samples("images", {"--clip", "range"}, {"--rederive-epsilon"});
     }},
    {"sample",
     {"seed", "first-sample"},
     [](EveryOption &t) {
         t.make_models();
         const EveryOption::Words one = {"--max-batch", "1", "--eta", "1"};
         const auto all = t.sampled("points", one);
         t.changes_samples("points", one, {"--seed", "1"});
         const auto last =
             t.sampled("points", EveryOption::joined(one, {"--n", "2", "--first-sample", "2"}));
         EXPECT_EQ(last.values, std::vector<float>(all.values.begin() + 4, all.values.end()));
     }},
    {"sample",
     {"noise"},
     [](EveryOption &t) {
         t.make_models();
         EveryOption::Array noise = {{4, 2}, std::vector<float>(8)};
         for (size_t i = 0; i < 4; i++)
             ASSERT_EQ(tw_noise_initial(5, i, 2, &noise.values[i * 2]), TW_OK);
         t.save("noise.npy", noise);
         EXPECT_EQ(t.sampled("points", {"--noise", "noise.npy", "--steps", "5"}).values,
                   t.sampled("points", {"--seed", "5"}).values);
     }},
    {"sample",
     {"no-fusion"},
     [](EveryOption &t) {
         t.make_models();
         const auto fused = t.sampled("images", {}),
                    apart = t.sampled("images", {"--no-fusion", "all"});
         for (const char *names :
              {"norm-silu", "epilogue,norm-statistics", "concat,upsample,qkv"}) {
             const auto some = t.sampled("images", {"--no-fusion", names});
             ASSERT_EQ(some.values.size(), fused.values.size());
             for (size_t i = 0; i < some.values.size(); i++) {
                 ASSERT_NEAR(some.values[i], fused.values[i], 1e-3) << names;
                 ASSERT_NEAR(some.values[i], apart.values[i], 1e-3) << names;
             }
         }
     }},
    {"sample",
     {"max-batch", "device", "provider", "threads"},
     [](EveryOption &t) {
         t.make_models();
         auto head = [&](const char *batch) {
             const Result r = t.works({"sample", "--model", "images", "--out", "a.npy", "--steps",
                                       "2", "--n", "8", "--max-batch", batch, "--device", "cpu",
                                       "--provider", "auto", "--threads", "3"});
             return r.out.substr(0, r.out.find('\n'));
         };
         EXPECT_NE(head("1").find("CPU, 3 threads"), std::string::npos) << head("1");
         // The line ends with the size of the arena.
         EXPECT_NE(head("1"), head("8"));
         EXPECT_EQ(head("8"), head("64"));
     }},
    {"sample",
     {"tune"},
     [](EveryOption &t) {
         t.make_models();
         t.fails(1, {"sample", "--model", "points", "--out", "a.npy", "--device", "cpu", "--tune"},
                 {"CPU", "a GPU's providers"});
         EXPECT_EQ(access(t.path("a.npy").c_str(), F_OK), -1);
     }},
    {"sample",
     {"precision"},
     [](EveryOption &t) {
         t.make_models();
         for (const char *model : {"images", "points"})
             for (const char *precision : {"bf16", "fp16"}) {
                 t.changes_samples(model, {}, {"--precision", precision});
                 const Result r = t.works({"sample", "--model", model, "--out", "a.npy", "--n", "2",
                                           "--steps", "2", "--precision", precision});
                 EXPECT_NE(r.out.find(std::string(", ") + precision), std::string::npos) << r.out;
             }
     }},
};

static const std::vector<Misuse> sample_misuses = {
    {"sample", "fps", {"--model", "points", "--out", "a.npy", "--fps", "9"}, 2, "ends in .gif"},
    {"sample", "pause", {"--model", "points", "--out", "a.npy", "--pause", "9"}, 2, "ends in .gif"},
    {"sample", "model", {"--out", "a.npy"}, 2, "--model DIR is missing"},
    {"sample", "out", {"--model", "points"}, 2, "--out PATH is missing"},
    {"sample", "out", {"--model", "points", "--out", "a.jpg"}, 2, ".png or .npy, or a folder"},
    {"sample", "variant", {"--model", "points", "--variant", "half", "--out", "a.npy"}, 1, "half"},
    {"sample",
     "trajectory",
     {"--model", "points", "--out", "a.npy", "--trajectory", "folder"},
     2,
     ".png, .gif, .svg, .pdf or .npy"},
    {"sample", "n", {"--n", "0"}, 2, "a whole number from 1 to 1000000000"},
    {"sample", "sampler", {"--sampler", "euler"}, 2, "ddim or ddpm"},
    {"sample",
     "steps",
     {"--model", "points", "--out", "a.npy", "--steps", "101"},
     2,
     "a whole number from 1 to 100"},
    {"sample", "eta", {"--eta", "1.1"}, 2, "a number from 0 to 1"},
    {"sample",
     "eta",
     {"--model", "points", "--out", "a.npy", "--sampler", "ddpm", "--eta", "1"},
     2,
     "--sampler ddim"},
    {"sample",
     "variance",
     {"--model", "points", "--out", "a.npy", "--variance", "fixed_small"},
     2,
     "--sampler ddpm"},
    {"sample", "spacing", {"--spacing", "log"}, 2, "leading, trailing, linspace"},
    {"sample",
     "class",
     {"--model", "classes", "--out", "a.npy", "--class", "4"},
     2,
     "a label from 0 to 3"},
    {"sample",
     "guidance",
     {"--model", "points", "--out", "a.npy", "--guidance", "2"},
     2,
     "expected 1"},
    {"sample", "clip", {"--clip", "on"}, 2, "none, range or dynamic"},
    {"sample",
     "clip-range",
     {"--model", "points", "--out", "a.npy", "--clip-range", "2"},
     2,
     "--clip range"},
    {"sample",
     "clip-quantile",
     {"--model", "points", "--out", "a.npy", "--clip-quantile", "0.9"},
     2,
     "--clip dynamic"},
    {"sample",
     "clip-max",
     {"--model", "points", "--out", "a.npy", "--clip-max", "2"},
     2,
     "--clip dynamic"},
    {"sample", "rederive-epsilon", {"--rederive-epsilon=1"}, 2, "takes no value"},
    {"sample", "seed", {"--seed", "-1"}, 2, "a whole number from 0 up"},
    {"sample", "first-sample", {"--first-sample", "1.5"}, 2, "a whole number from 0 up"},
    {"sample",
     "noise",
     {"--model", "points", "--out", "a.npy", "--noise", "images.npy"},
     1,
     "expected the shape"},
    {"sample", "max-batch", {"--max-batch", "0"}, 2, "a whole number from 1 to 1048576"},
    {"sample", "device", {"--device", "tpu"}, 2, "auto, cpu or cuda"},
    {"sample",
     "no-fusion",
     {"--model", "points", "--out", "a.npy", "--no-fusion", "qkv,"},
     2,
     "norm-statistics"},
    {"sample", "provider", {"--provider", "onednn"}, 2, "auto, own or cudnn"},
    {"sample", "tune", {"--tune=yes"}, 2, "takes no value"},
    {"sample",
     "provider",
     {"--model", "points", "--out", "a.npy", "--device", "cpu", "--provider", "own"},
     2,
     "expected auto with --device cpu"},
    {"sample", "precision", {"--precision", "fp8"}, 2, "fp32, tf32, bf16 or fp16"},
    {"sample", "threads", {"--threads", "-2"}, 2, "a whole number from 0 to 1024"},
};
