// Every allocation of loading, sampling and training may fail: a status, nothing leaked, and the
// handle then does what it would have done.
#include <sys/stat.h>
#include <unistd.h>
#include <zlib.h>

#include "support/scarce.h"
#include "support/tempdir.h"

extern "C" {
#include "backend/backend.h"
#include "io/npy.h"
#include "io/png.h"
#include "models/model.h"
#include "train/internal.h"
}

namespace {

using tw_test::Outcome;
using tw_test::Scarce;
using tw_test::TempDir;

const char *const kMlp = R"({"_class_name": "TweedieMLP", "in_features": 2, "hidden": 4,
    "layers": 1, "act_fn": "silu"})";
const char *const kUnet = R"({"_class_name": "UNet2DModel", "sample_size": 4, "in_channels": 1,
    "out_channels": 1, "block_out_channels": [4], "layers_per_block": 1,
    "down_block_types": ["DownBlock2D"], "up_block_types": ["UpBlock2D"], "norm_num_groups": 2,
    "attention_head_dim": null, "num_class_embeds": 3})";
const char *const kSchedule = R"({"_class_name": "DDPMScheduler", "num_train_timesteps": 20,
    "beta_start": 0.001, "beta_end": 0.2})";

// Hundreds of saves want no disk that is waited for.
const bool kInMemory = access("/dev/shm", W_OK) == 0 && setenv("TMPDIR", "/dev/shm", 0) == 0;

std::string bytes(const std::vector<float> &v) {
    return std::string(reinterpret_cast<const char *>(v.data()), v.size() * sizeof v[0]);
}

tw_model *make_model(tw_context *ctx, const char *config) {
    tw_model *m = nullptr;
    EXPECT_EQ(tw_model_create(ctx, config, kSchedule, nullptr, 0, 5, &m), TW_OK)
        << tw_context_error(ctx);
    // Fresh output weights are zero and would hide the rest.
    for (int64_t i = 0; m && i < m->weights.count; i++) {
        const tw_weight &w = m->weights.items[i];
        std::vector<float> values((size_t)w.count);
        for (size_t k = 0; k < values.size(); k++)
            values[k] = 0.3f * std::sin(float(i) + 0.7f * float(k));
        EXPECT_EQ(tw_model_set_weight(m, w.name, values.data(), w.count), TW_OK);
    }
    return m;
}

// --- Models ---

Outcome answer_of(tw_model *m, tw_status s) {
    std::vector<float> x(32, 0.5f), out(32, 0.0f);
    const float t[2] = {5, 7};
    const int32_t labels[2] = {1, 2};
    tw_model_info info = {};
    info.size = sizeof info;
    if (s == TW_OK) s = tw_model_get_info(m, &info);
    if (s == TW_OK)
        s = tw_model_forward(m, 2, x.data(), t, info.classes ? labels : nullptr, out.data());
    return {s, bytes(out)};
}

TEST(Memory, MakingAModel) {
    (void)kInMemory;
    Scarce scarce;
    for (const char *config : {kMlp, kUnet}) {
        tw_test::fail_everywhere(scarce, [&]() -> Outcome {
            tw_model *m = nullptr;
            tw_status s = tw_model_create(scarce.ctx(), config, kSchedule, nullptr, 0, 3, &m);
            EXPECT_EQ(m != nullptr, s == TW_OK);
            const Outcome o = answer_of(m, s);
            tw_model_free(m);
            return o;
        });
    }
}

TEST(Memory, SavingAndLoadingAModel) {
    Scarce scarce;
    TempDir dir;
    for (const char *config : {kMlp, kUnet}) {
        tw_model *made = make_model(scarce.ctx(), config);
        tw_test::fail_everywhere(scarce, [&]() -> Outcome {
            const tw_status s = tw_model_save(made, dir.path().c_str());
            return {s, s == TW_OK ? tw_test::read_file(
                                        dir.file("unet/diffusion_pytorch_model.safetensors"))
                                  : ""};
        });
        tw_test::fail_everywhere(scarce, [&]() -> Outcome {
            tw_model *m = nullptr;
            const tw_status s = tw_model_load(scarce.ctx(), dir.path().c_str(), nullptr, &m);
            EXPECT_EQ(m != nullptr, s == TW_OK);
            const Outcome o = answer_of(m, s);
            tw_model_free(m);
            return o;
        });
        tw_model_free(made);
        EXPECT_EQ(dir.entries(), 3u) << "a temporary file was left";
    }
}

// A batch of another size makes a new plan; when that fails the old one is not used in its place.
TEST(Memory, AModelsPlanFollowsTheBatch) {
    Scarce scarce;
    tw_model *m = make_model(scarce.ctx(), kMlp);
    std::vector<float> x(8, 0.5f), out(8);
    const float t[4] = {1, 2, 3, 4};
    ASSERT_EQ(tw_model_forward(m, 4, x.data(), t, nullptr, out.data()), TW_OK);
    const std::vector<float> four = out;
    for (int64_t k = 0;; k++) {
        scarce.fail_at(k, k % 2 ? Scarce::kDry : Scarce::kOnce);
        const tw_status s = tw_model_forward(m, 2, x.data(), t, nullptr, out.data());
        const bool failed = scarce.failed();
        scarce.plenty();
        if (!failed) break;
        EXPECT_EQ(s, TW_ERROR_MEMORY);
        std::fill(out.begin(), out.end(), -7.0f);
        ASSERT_EQ(tw_model_forward(m, 4, x.data(), t, nullptr, out.data()), TW_OK);
        EXPECT_EQ(out, four) << k;
    }
    tw_model_free(m);
}

// --- Pictures ---

TEST(Memory, ReadingAndWritingPictures) {
    Scarce scarce;
    TempDir dir;
    uint8_t pixels[27];
    for (int i = 0; i < 27; i++) pixels[i] = (uint8_t)(9 * i);
    const tw_image image = {3, 3, 3, pixels};
    const std::string path = dir.file("a.png");
    tw_test::fail_everywhere(
        scarce,
        [&]() -> Outcome {
            const tw_status s = tw_png_write(scarce.ctx(), path.c_str(), &image);
            return {s, s == TW_OK ? tw_test::read_file(path) : ""};
        },
        5);
    tw_test::fail_everywhere(
        scarce,
        [&]() -> Outcome {
            tw_image got = {};
            const tw_status s = tw_png_read(scarce.ctx(), path.c_str(), &got);
            const std::string read = s == TW_OK ? std::string((const char *)got.pixels, 27) : "";
            tw_image_free(scarce.ctx(), &got);
            return {s, read};
        },
        5);
    EXPECT_EQ(dir.entries(), 1u);
}

// libpng would ask for as many bytes as a chunk says that it has.
TEST(Memory, APicturesChunkDoesNotSayHowMuchIsAllocated) {
    Scarce scarce;
    TempDir dir;
    const uint8_t pixel = 7;
    const tw_image image = {1, 1, 1, const_cast<uint8_t *>(&pixel)};
    ASSERT_EQ(tw_png_write(scarce.ctx(), dir.file("a.png").c_str(), &image), TW_OK);
    const std::string good = tw_test::read_file(dir.file("a.png"));
    for (const char *kind : {"tEXt", "zTXt", "iTXt", "iCCP", "sPLT", "eXIf", "PLTE", "IDAT"}) {
        const std::string chunk = std::string("\x6f\x6f\x6f\x6f", 4) + kind + "Title";
        tw_test::write_file(dir.file("b.png"), good.substr(0, 33) + chunk);
        tw_image got = {};
        EXPECT_EQ(tw_png_read(scarce.ctx(), dir.file("b.png").c_str(), &got), TW_ERROR_FORMAT)
            << kind;
        EXPECT_LT(scarce.largest(), (size_t)1 << 20) << kind;
    }
}

// --- Data ---

std::string gzipped(const std::string &plain, const std::string &path) {
    gzFile f = gzopen(path.c_str(), "wb");
    EXPECT_EQ(gzwrite(f, plain.data(), (unsigned)plain.size()), (int)plain.size());
    EXPECT_EQ(gzclose(f), Z_OK);
    return path;
}

Outcome open_and_read(Scarce &scarce, const std::string &source, const std::string &labels) {
    tw_dataset_options options = TW_DATASET_OPTIONS_INIT;
    options.labels = labels.empty() ? nullptr : labels.c_str();
    options.count = 20;
    tw_dataset *d = nullptr;
    const tw_status s = tw_dataset_open(scarce.ctx(), source.c_str(), &options, &d);
    EXPECT_EQ(d != nullptr, s == TW_OK);
    std::string numbers;
    tw_dataset_info info = {};
    info.size = sizeof info;
    if (d) {
        EXPECT_EQ(tw_dataset_get_info(d, &info), TW_OK);
        int64_t elements = 1;
        for (int i = 0; i < info.rank; i++) elements *= info.shape[i];
        std::vector<float> x((size_t)elements);
        for (int64_t i = 0; i < info.count; i++) {
            int32_t label = -2;
            EXPECT_EQ(tw_dataset_get(d, i, x.data(), &label), TW_OK);
            numbers += bytes(x) + tw_test::bytes_of(label);
        }
    }
    tw_dataset_free(d);
    return {s, numbers};
}

TEST(Memory, OpeningData) {
    Scarce scarce;
    TempDir dir;
    const std::string images =
        std::string("\0\0\x08\x03\0\0\0\x03\0\0\0\x02\0\0\0\x02", 16) + "abcdefghijkl";
    const std::string labels = std::string("\0\0\x08\x01\0\0\0\x03\x02\0\x01", 11);
    tw_test::write_file(dir.file("a-images-idx3"), images);
    tw_test::write_file(dir.file("a-labels-idx1"), labels);
    gzipped(images, dir.file("b-images-idx3.gz"));
    gzipped(labels, dir.file("b-labels-idx1.gz"));
    const float points[6] = {1, 2, 3, 4, 5, 6};
    const int64_t two[] = {3, 2}, four[] = {3, 1, 1, 3}, one[] = {3};
    const int64_t kinds[] = {0, 1, 1};
    tw_context *ctx = scarce.ctx();
    ASSERT_EQ(tw_npy_write(ctx, dir.file("p.npy").c_str(), TW_F32, 2, two, points), TW_OK);
    ASSERT_EQ(tw_npy_write(ctx, dir.file("i.npy").c_str(), TW_U8, 4, four, "abcdefghi"), TW_OK);
    ASSERT_EQ(tw_npy_write(ctx, dir.file("l.npy").c_str(), TW_I64, 1, one, kinds), TW_OK);
    // A folder of one picture for each of two classes, and CIFAR-10's of two batches.
    uint8_t pixels[12] = {1, 20, 30, 4, 50, 60, 7, 80, 90, 10, 11, 120};
    const tw_image picture = {2, 2, 3, pixels};
    ASSERT_EQ(mkdir(dir.file("one").c_str(), 0777), 0);
    ASSERT_EQ(tw_png_write(ctx, dir.file("one/a.png").c_str(), &picture), TW_OK);
    ASSERT_EQ(mkdir(dir.file("two").c_str(), 0777), 0);
    for (const char *kind : {"x", "y"}) {
        ASSERT_EQ(mkdir(dir.file(std::string("two/") + kind).c_str(), 0777), 0);
        ASSERT_EQ(
            tw_png_write(ctx, dir.file(std::string("two/") + kind + "/a.png").c_str(), &picture),
            TW_OK);
    }
    ASSERT_EQ(mkdir(dir.file("cifar").c_str(), 0777), 0);
    for (const char *batch : {"1", "4"})
        tw_test::write_file(dir.file(std::string("cifar/data_batch_") + batch + ".bin"),
                            std::string(1, '\7') + std::string(3072, batch[0]));
    const std::vector<std::pair<std::string, std::string>> sources = {
        {dir.file("one"), ""},
        {dir.file("two"), ""},
        {dir.file("cifar"), ""},
        {"shapes", ""},
        {"scurve", ""},
        {dir.file("a-images-idx3"), ""},
        {dir.file("b-images-idx3.gz"), ""},
        {dir.file("p.npy"), ""},
        {dir.file("i.npy"), dir.file("l.npy")}};
    for (const auto &[source, label_file] : sources) {
        SCOPED_TRACE(source);
        tw_test::fail_everywhere(
            scarce, [&, &s = source, &l = label_file] { return open_and_read(scarce, s, l); }, 2);
    }
    const int32_t whole[3] = {0, 1, 1};
    tw_test::fail_everywhere(scarce, [&]() -> Outcome {
        tw_dataset *d = nullptr;
        float x[2] = {};
        tw_status s = tw_dataset_from_memory(ctx, 3, 1, two + 1, points, whole, &d);
        if (s == TW_OK) s = tw_dataset_get(d, 2, x, nullptr);
        tw_dataset_free(d);
        return {s, tw_test::bytes_of(x)};
    });
}

// --- Samplers ---

tw_sampler_options sampling(tw_sampler_kind kind) {
    tw_sampler_options o = TW_SAMPLER_OPTIONS_INIT;
    o.kind = kind;
    o.steps = 2;
    o.seed = 4;
    o.max_batch = 2;
    return o;
}

Outcome draw(tw_sampler *sampler, int64_t n, size_t elements, bool labelled) {
    const int32_t labels[3] = {0, 1, 0};
    std::vector<float> out((size_t)n * elements, 0.0f);
    const tw_status s =
        tw_sampler_run(sampler, n, labelled ? labels : nullptr, nullptr, out.data());
    return {s, bytes(out)};
}

TEST(Memory, MakingASampler) {
    Scarce scarce;
    tw_model *m = make_model(scarce.ctx(), kMlp);
    const tw_sampler_options o = sampling(TW_SAMPLER_DDPM);
    tw_test::fail_everywhere(scarce, [&]() -> Outcome {
        tw_sampler *sampler = nullptr;
        tw_status s = tw_sampler_create(m, &o, &sampler);
        EXPECT_EQ(sampler != nullptr, s == TW_OK);
        const Outcome drawn = s == TW_OK ? draw(sampler, 3, 2, false) : Outcome{s, ""};
        tw_sampler_free(sampler);
        return drawn;
    });
    tw_model_free(m);
}

// One sampler goes on after each failure; 3 samples in chunks of 2 need two plans.
TEST(Memory, RunningASampler) {
    Scarce scarce;
    tw_model *m = make_model(scarce.ctx(), kUnet);
    tw_sampler_options o = sampling(TW_SAMPLER_DDIM);
    o.guidance = 2;
    tw_sampler *fresh = nullptr;
    ASSERT_EQ(tw_sampler_create(m, &o, &fresh), TW_OK);
    const Outcome right = draw(fresh, 3, 16, true);
    ASSERT_EQ(right.status, TW_OK) << tw_context_error(scarce.ctx());
    tw_sampler_free(fresh);
    for (Scarce::Mode mode : {Scarce::kOnce, Scarce::kDry}) {
        tw_sampler *sampler = nullptr;
        ASSERT_EQ(tw_sampler_create(m, &o, &sampler), TW_OK);
        int64_t failures = 0;
        for (int64_t k = 0;; k += k < 200 ? 1 : 1 + k % 17) {
            scarce.fail_at(k, mode);
            const Outcome got = draw(sampler, 3, 16, true);
            const bool failed = scarce.failed();
            scarce.plenty();
            if (!failed) {
                EXPECT_EQ(got.status, TW_OK);
                EXPECT_EQ(got.numbers, right.numbers);
                // What it has made it keeps: a run allocates no more plans.
                break;
            }
            failures++;
            ASSERT_EQ(got.status, TW_ERROR_MEMORY) << k << tw_context_error(scarce.ctx());
        }
        EXPECT_GT(failures, 20);
        EXPECT_EQ(draw(sampler, 3, 16, true).numbers, right.numbers);
        tw_sampler_free(sampler);
    }
    tw_model_free(m);
}

// --- Training ---

class Training : public testing::Test {
  protected:
    void open(const char *config) {
        const int64_t plane[] = {2}, image[] = {4, 4, 1};
        const bool images = config == kUnet;
        std::vector<float> x(10 * (images ? 16 : 2));
        for (size_t i = 0; i < x.size(); i++) x[i] = std::sin(0.37f * float(i));
        const int32_t labels[10] = {0, 1, 0, 1, 0, 1, 0, 1, 0, 1};
        ASSERT_EQ(tw_dataset_from_memory(ctx, 10, images ? 3 : 1, images ? image : plane, x.data(),
                                         images ? labels : nullptr, &dataset),
                  TW_OK);
        model = make_model(ctx, config);
        options.steps = 6;
        options.batch_size = 2;
        options.accumulate = 2;
        options.lr_warmup = 2;
        options.holdout = 0.3;
        options.cond_dropout = images ? 0.2 : 0;
        options.seed = 8;
    }
    void TearDown() override {
        tw_dataset_free(dataset);
        tw_model_free(model);
    }
    tw_trainer *make() {
        tw_trainer *t = nullptr;
        EXPECT_EQ(tw_trainer_create(model, dataset, &options, &t), TW_OK) << tw_context_error(ctx);
        return t;
    }
    // Weights, moments, average and counters.
    std::string state(tw_trainer *t) {
        EXPECT_EQ(tw_trainer_save(t, dir.file("probe").c_str()), TW_OK) << tw_context_error(ctx);
        return tw_test::read_file(dir.file("probe/trainer.safetensors"));
    }
    // Calls `call` with each of its allocations failing, until it needs no more.
    int64_t until_it_works(Scarce::Mode mode, const std::function<tw_status()> &call) {
        for (int64_t k = 0;; k += k < 300 ? 1 : 1 + k % 29) {
            scarce.fail_at(k, mode);
            const tw_status s = call();
            const bool failed = scarce.failed();
            scarce.plenty();
            if (!failed) {
                EXPECT_EQ(s, TW_OK) << k << ": " << tw_context_error(ctx);
                return k;
            }
            EXPECT_EQ(s, TW_ERROR_MEMORY) << k << ": " << tw_context_error(ctx);
            if (testing::Test::HasFailure()) return k;
        }
    }

    Scarce scarce;
    tw_context *ctx = scarce.ctx();
    TempDir dir;
    tw_model *model = nullptr;
    tw_dataset *dataset = nullptr;
    tw_trainer_options options = TW_TRAINER_OPTIONS_INIT;
};

TEST_F(Training, MakingATrainer) {
    for (const char *config : {kMlp, kUnet}) {
        open(config);
        options.recompute = config == kUnet ? TW_RECOMPUTE_BLOCKS : TW_RECOMPUTE_NORMS;
        tw_test::fail_everywhere(
            scarce,
            [&]() -> Outcome {
                tw_trainer *t = nullptr;
                const tw_status s = tw_trainer_create(model, dataset, &options, &t);
                EXPECT_EQ(t != nullptr, s == TW_OK);
                tw_trainer_free(t);
                return {s, ""};
            },
            50, 200);
        TearDown();
    }
    open(kMlp);
}

// A run whose every step, validation, save, resumption and average meets failures first ends at the
// numbers of one that met none.
TEST_F(Training, FailuresLeaveNoTrace) {
    for (const char *config : {kMlp, kUnet}) {
        open(config);
        tw_trainer *whole = make();
        double loss[2] = {0, 0};
        for (int64_t i = 0; i < options.steps; i++)
            ASSERT_EQ(tw_trainer_step(whole, nullptr), TW_OK);
        ASSERT_EQ(tw_trainer_validate(whole, 1, 0, &loss[0]), TW_OK);
        const std::string right = state(whole);
        tw_trainer_free(whole);

        for (Scarce::Mode mode : {Scarce::kOnce, Scarce::kDry}) {
            tw_model_free(model);
            model = make_model(ctx, config);
            tw_trainer *t = make();
            const std::string saved = dir.file("saved");
            for (int64_t i = 0; i < options.steps; i++) {
                // A step in progress allocates nothing.
                EXPECT_EQ(until_it_works(mode, [&] { return tw_trainer_step(t, nullptr); }), 0);
                if (i == 1) {
                    EXPECT_GT(until_it_works(
                                  mode, [&] { return tw_trainer_validate(t, 1, 0, &loss[1]); }),
                              20);
                }
                if (i == 3) {
                    EXPECT_GT(
                        until_it_works(mode, [&] { return tw_trainer_save(t, saved.c_str()); }), 2);
                    const std::string before = state(t);
                    EXPECT_GT(
                        until_it_works(mode, [&] { return tw_trainer_resume(t, saved.c_str()); }),
                        2);
                    EXPECT_EQ(state(t), before);
                }
            }
            EXPECT_GT(until_it_works(mode,
                                     [&] {
                                         tw_model *average = nullptr;
                                         const tw_status s = tw_trainer_ema_model(t, &average);
                                         EXPECT_EQ(average != nullptr, s == TW_OK);
                                         tw_model_free(average);
                                         return s;
                                     }),
                      20);
            ASSERT_EQ(tw_trainer_validate(t, 1, 0, &loss[1]), TW_OK);
            EXPECT_EQ(loss[1], loss[0]);
            EXPECT_EQ(state(t), right);
            tw_trainer_free(t);
        }
        TearDown();
    }
    open(kMlp);
}

// A resumption that fails leaves the trainer where it was.
TEST_F(Training, AFailedResumptionChangesNothing) {
    open(kMlp);
    tw_trainer *t = make();
    const std::string saved = dir.file("saved");
    ASSERT_EQ(tw_trainer_step(t, nullptr), TW_OK);
    ASSERT_EQ(tw_trainer_save(t, saved.c_str()), TW_OK);
    ASSERT_EQ(tw_trainer_step(t, nullptr), TW_OK);
    const std::string there = state(t);
    for (int64_t k = 0;; k++) {
        scarce.fail_at(k, Scarce::kOnce);
        const tw_status s = tw_trainer_resume(t, saved.c_str());
        const bool failed = scarce.failed();
        scarce.plenty();
        if (!failed) break;
        EXPECT_EQ(s, TW_ERROR_MEMORY) << k;
        ASSERT_EQ(tw_trainer_step_count(t), 2) << k;
        ASSERT_EQ(state(t), there) << k;
    }
    EXPECT_EQ(tw_trainer_step_count(t), 1);
    tw_trainer_free(t);
}

} // namespace
