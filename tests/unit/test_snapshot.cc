// Snapshots: what they write is what the trainer would have written at their step, whatever has
// happened to the trainer since.
#include <gtest/gtest.h>

#include <sys/stat.h>
#include <unistd.h>

#include <atomic>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <random>
#include <sstream>
#include <string>
#include <thread>
#include <vector>

#include <tweedie/tweedie.h>

namespace {

const char *const kUnet = R"({"_class_name": "UNet2DModel", "sample_size": 8, "in_channels": 1,
    "out_channels": 1, "block_out_channels": [8], "layers_per_block": 1,
    "down_block_types": ["DownBlock2D"], "up_block_types": ["UpBlock2D"], "norm_num_groups": 4})";

// Counts what is allocated and fails from a chosen allocation on.
struct Counting {
    std::atomic<int> live{0}, left{1 << 30};
    tw_allocator allocator() {
        return {[](void *user, size_t bytes, size_t alignment) -> void * {
                    auto *c = static_cast<Counting *>(user);
                    if (c->left-- <= 0) return nullptr;
                    c->live++;
                    return aligned_alloc(alignment,
                                         (bytes + alignment - 1) / alignment * alignment);
                },
                [](void *user, void *memory) {
                    static_cast<Counting *>(user)->live--;
                    free(memory);
                },
                this};
    }
};

class Snapshot : public ::testing::Test {
  protected:
    void SetUp() override {
        const tw_allocator allocator = counting.allocator();
        tw_context_options o = TW_CONTEXT_OPTIONS_INIT;
        o.threads = 1;
        o.allocator = &allocator;
        ASSERT_EQ(tw_context_create(&o, &ctx), TW_OK) << tw_context_error(nullptr);
        char name[] = "/tmp/tweedie-snapshot-XXXXXX";
        ASSERT_NE(mkdtemp(name), nullptr);
        dir = name;
    }
    void TearDown() override {
        close();
        EXPECT_EQ(counting.live, 0);
        if (std::system(("rm -rf '" + dir + "'").c_str()) != 0) ADD_FAILURE() << dir;
    }
    void open(double ema) {
        std::mt19937 gen(5);
        std::uniform_real_distribution<float> uniform(-1, 1);
        std::vector<float> x(20 * 64);
        for (float &v : x) v = uniform(gen);
        const int64_t shape[] = {8, 8, 1};
        ASSERT_EQ(tw_dataset_from_memory(ctx, 20, 3, shape, x.data(), nullptr, &data), TW_OK);
        ASSERT_EQ(tw_model_create(ctx, kUnet, nullptr, nullptr, 0, 3, &model), TW_OK)
            << tw_context_error(ctx);
        tw_trainer_options o = TW_TRAINER_OPTIONS_INIT;
        o.steps = 50;
        o.batch_size = 4;
        o.lr_warmup = 0;
        o.ema_decay = ema;
        ASSERT_EQ(tw_trainer_create(model, data, &o, &trainer), TW_OK) << tw_context_error(ctx);
    }
    void close() {
        tw_trainer_free(trainer);
        tw_model_free(model);
        tw_dataset_free(data);
        tw_context_free(ctx);
        trainer = nullptr;
        model = nullptr;
        data = nullptr;
        ctx = nullptr;
    }
    void steps(int n) {
        for (int i = 0; i < n; i++) ASSERT_EQ(tw_trainer_step(trainer, nullptr), TW_OK);
    }
    std::string read(const std::string &name) const {
        std::ifstream file(dir + "/" + name, std::ios::binary);
        EXPECT_TRUE(file) << name;
        std::stringstream text;
        text << file.rdbuf();
        return text.str();
    }
    std::string at(const char *name) const { return dir + "/" + name; }

    Counting counting;
    tw_context *ctx = nullptr;
    tw_model *model = nullptr;
    tw_dataset *data = nullptr;
    tw_trainer *trainer = nullptr;
    std::string dir;
};

const char *const kFiles[] = {"unet/diffusion_pytorch_model.safetensors", "unet/config.json",
                              "scheduler/scheduler_config.json", "model_index.json"};

TEST_F(Snapshot, WritesItsStepWhileTrainingGoesOn) {
    open(0.9);
    steps(3);
    tw_model *averaged = nullptr;
    ASSERT_EQ(tw_trainer_save(trainer, at("state").c_str()), TW_OK);
    ASSERT_EQ(tw_trainer_ema_model(trainer, &averaged), TW_OK);
    ASSERT_EQ(tw_model_save(averaged, at("averaged").c_str()), TW_OK);
    ASSERT_EQ(tw_model_save(model, at("plain").c_str()), TW_OK);
    tw_model_free(averaged);
    tw_snapshot *snapshot = nullptr;
    ASSERT_EQ(tw_trainer_snapshot(trainer, &snapshot), TW_OK) << tw_context_error(ctx);
    EXPECT_EQ(tw_snapshot_step(snapshot), 3);
    tw_status status[3] = {TW_ERROR_INTERNAL, TW_ERROR_INTERNAL, TW_ERROR_INTERNAL};
    std::thread writer([&] {
        status[0] = tw_snapshot_save_state(snapshot, at("state2").c_str());
        status[1] = tw_snapshot_save_model(snapshot, 1, at("averaged2").c_str());
        status[2] = tw_snapshot_save_model(snapshot, 0, at("plain2").c_str());
    });
    steps(5);
    writer.join();
    for (tw_status s : status) EXPECT_EQ(s, TW_OK);
    EXPECT_EQ(read("state2/trainer.safetensors"), read("state/trainer.safetensors"));
    for (const std::string file : kFiles) {
        EXPECT_EQ(read("averaged2/" + file), read("averaged/" + file)) << file;
        EXPECT_EQ(read("plain2/" + file), read("plain/" + file)) << file;
    }
    EXPECT_NE(read(std::string("plain/") + kFiles[0]), read(std::string("averaged/") + kFiles[0]));
    // The trainer has gone on; it can go back to what the snapshot wrote.
    EXPECT_EQ(tw_trainer_step_count(trainer), 8);
    ASSERT_EQ(tw_trainer_save(trainer, at("later").c_str()), TW_OK);
    EXPECT_NE(read("later/trainer.safetensors"), read("state/trainer.safetensors"));
    ASSERT_EQ(tw_trainer_resume(trainer, at("state2").c_str()), TW_OK);
    steps(5);
    ASSERT_EQ(tw_trainer_save(trainer, at("again").c_str()), TW_OK);
    EXPECT_EQ(read("again/trainer.safetensors"), read("later/trainer.safetensors"));
    tw_snapshot_free(snapshot);
}

TEST_F(Snapshot, OutlivesTheTrainerAndItsContext) {
    open(0.9);
    steps(1);
    ASSERT_EQ(tw_trainer_save(trainer, at("state").c_str()), TW_OK);
    tw_snapshot *snapshot = nullptr;
    ASSERT_EQ(tw_trainer_snapshot(trainer, &snapshot), TW_OK);
    close();
    EXPECT_GT(counting.live, 0);
    EXPECT_EQ(tw_snapshot_save_state(snapshot, at("state2").c_str()), TW_OK);
    EXPECT_EQ(read("state2/trainer.safetensors"), read("state/trainer.safetensors"));
    tw_snapshot_free(snapshot);
}

TEST_F(Snapshot, SaysWhatIsWrongToItsOwnThread) {
    open(0.0);
    tw_snapshot *snapshot = nullptr;
    ASSERT_EQ(tw_trainer_snapshot(trainer, &snapshot), TW_OK);
    EXPECT_EQ(tw_snapshot_save_model(snapshot, 1, at("a").c_str()), TW_ERROR_ARGUMENT);
    EXPECT_STREQ(tw_context_error(nullptr), "snapshot: save: there is no EMA");
    EXPECT_EQ(tw_snapshot_save_model(snapshot, 0, at("a").c_str()), TW_OK);
    std::ofstream(at("file")) << "x";
    EXPECT_EQ(tw_snapshot_save_state(snapshot, at("file/b").c_str()), TW_ERROR_IO);
    EXPECT_NE(std::string(tw_context_error(nullptr)).find("file"), std::string::npos);
    EXPECT_EQ(tw_snapshot_save_model(snapshot, 0, at("file/b").c_str()), TW_ERROR_IO);
    EXPECT_STREQ(tw_context_error(ctx), ""); // the trainer's context knows nothing of it
    EXPECT_EQ(tw_snapshot_save_model(snapshot, 0, ""), TW_ERROR_ARGUMENT);
    EXPECT_EQ(tw_snapshot_save_state(snapshot, nullptr), TW_ERROR_ARGUMENT);
    EXPECT_EQ(tw_snapshot_save_state(nullptr, "a"), TW_ERROR_ARGUMENT);
    EXPECT_EQ(tw_snapshot_save_model(nullptr, 0, "a"), TW_ERROR_ARGUMENT);
    EXPECT_EQ(tw_trainer_snapshot(trainer, nullptr), TW_ERROR_ARGUMENT);
    tw_snapshot_free(snapshot);
    EXPECT_EQ(tw_trainer_snapshot(nullptr, &snapshot), TW_ERROR_ARGUMENT);
    EXPECT_EQ(snapshot, nullptr);
    EXPECT_EQ(tw_snapshot_step(nullptr), 0);
    tw_snapshot_free(nullptr);
}

TEST_F(Snapshot, LeaksNothingWhereverMemoryEnds) {
    open(0.9);
    const int before = counting.live;
    tw_snapshot *snapshot = nullptr;
    int failures = 0;
    for (;; failures++) {
        counting.left = failures;
        const tw_status status = tw_trainer_snapshot(trainer, &snapshot);
        counting.left = 1 << 30;
        if (status == TW_OK) break;
        ASSERT_EQ(status, TW_ERROR_MEMORY) << failures;
        ASSERT_EQ(snapshot, nullptr);
        ASSERT_EQ(counting.live, before) << failures;
        ASSERT_LT(failures, 1000);
    }
    EXPECT_GT(failures, 10);
    tw_snapshot_free(snapshot);
    EXPECT_EQ(counting.live, before);
}

TEST_F(Snapshot, ItsMemoryIsToldBefore) {
    open(0.9);
    tw_trainer_memory memory = {};
    memory.size = sizeof memory;
    ASSERT_EQ(tw_trainer_get_memory(trainer, &memory), TW_OK);
    EXPECT_EQ(memory.snapshot, 4 * memory.weights + 16);
}

TEST_F(Snapshot, ATrainersPlansCanBeLookedAt) {
    open(0.9);
    for (int i = 0; i < 2; i++) {
        tw_plan_stats stats = {};
        stats.size = sizeof stats;
        ASSERT_EQ(tw_plan_get_stats(tw_trainer_plan(trainer, i), &stats), TW_OK);
        EXPECT_GT(stats.operations, 2);
        EXPECT_EQ(stats.flops > 0, i == 0);
        int launches = 0;
        for (int p = 0; tw_context_provider(ctx, p); p++)
            launches +=
                tw_plan_provider_launches(tw_trainer_plan(trainer, i), tw_context_provider(ctx, p));
        EXPECT_EQ(launches, stats.launches);
    }
    EXPECT_EQ(tw_trainer_plan(trainer, 2), nullptr);
    EXPECT_EQ(tw_trainer_plan(nullptr, 0), nullptr);
}

} // namespace
