// Training on real digits: the loss falls as PyTorch's does with the same configuration, and the
// memory is what the trainer says.
#include <gtest/gtest.h>

#include <jansson.h>

#include <cmath>
#include <cstdio>
#include <string>
#include <vector>

#include <tweedie/tweedie.h>

namespace {

// Peak resident bytes of this process.
double peak_bytes() {
    FILE *f = fopen("/proc/self/status", "r");
    char line[256];
    double kib = 0;
    while (f && fgets(line, sizeof line, f)) sscanf(line, "VmHWM: %lf", &kib);
    if (f) fclose(f);
    return kib * 1024;
}

json_t *load(const char *name) {
    json_error_t e;
    json_t *j = json_load_file((std::string(TW_TEST_DIR "/golden/") + name).c_str(), 0, &e);
    EXPECT_NE(j, nullptr) << e.text;
    return j;
}

TEST(Digits, LossFallsAsPyTorchsAndMemoryIsAsSaid) {
    json_t *golden = load("model_digits.json"), *reference = load("digits_loss.json");
    char *config = json_dumps(json_object_get(golden, "config"), 0);
    tw_context *ctx = nullptr;
    ASSERT_EQ(tw_context_create(nullptr, &ctx), TW_OK);
    const double before = peak_bytes();

    tw_model *model = nullptr;
    ASSERT_EQ(tw_model_create(ctx, config, nullptr, nullptr, 0, 0, &model), TW_OK)
        << tw_context_error(ctx);
    tw_dataset *data = nullptr;
    ASSERT_EQ(tw_dataset_open(ctx, TW_TEST_DIR "/../host/examples/digits/t10k-images-idx3-ubyte.gz",
                              nullptr, &data),
              TW_OK)
        << tw_context_error(ctx);
    tw_trainer_options o = TW_TRAINER_OPTIONS_INIT; /* as digits_loss.json's settings */
    o.steps = 125;
    o.batch_size = 64;
    o.lr = 1e-3;
    o.lr_warmup = 100;
    o.cond_dropout = 0.1;
    o.clip_norm = 1;
    o.holdout = 0.1;
    tw_trainer *trainer = nullptr;
    ASSERT_EQ(tw_trainer_create(model, data, &o, &trainer), TW_OK) << tw_context_error(ctx);

    json_t *curve = json_object_get(reference, "curve");
    for (size_t window = 0; window < 5; window++) {
        double loss = 0;
        for (int i = 0; i < 25; i++) {
            tw_train_metrics m = {};
            m.size = sizeof m;
            ASSERT_EQ(tw_trainer_step(trainer, &m), TW_OK) << tw_context_error(ctx);
            loss += m.loss / 25;
        }
        if (window == 0) {
            tw_trainer_memory memory = {};
            memory.size = sizeof memory;
            ASSERT_EQ(tw_trainer_get_memory(trainer, &memory), TW_OK);
            const double said = (double)(memory.weights + memory.gradients + memory.optimizer +
                                         memory.ema + memory.arena + memory.staging);
            const double took = peak_bytes() - before;
            std::printf("memory: said %.1f MiB, took %.1f MiB\n", said / 1048576, took / 1048576);
            EXPECT_NEAR(took, said, 0.1 * said);
        }
        const double want =
            json_number_value(json_object_get(json_array_get(curve, window), "loss"));
        std::printf("steps %zu-%zu: loss %.4f, PyTorch %.4f\n", window * 25 + 1, window * 25 + 25,
                    loss, want);
        /* Other random numbers and one run each: the falling part is steep, the rest close. */
        EXPECT_NEAR(loss, want, (window < 3 ? 0.6 : 0.3) * want) << "window " << window;
    }
    tw_trainer_free(trainer);
    tw_dataset_free(data);
    tw_model_free(model);
    tw_context_free(ctx);
    free(config);
    json_decref(golden);
    json_decref(reference);
}

} // namespace
