// The command on a GPU that is emulated: what it says of providers, and --tune.
#include "cli/command.h"

namespace {

class CudaProviders : public CommandTest {
  protected:
    void SetUp() override {
        CommandTest::SetUp();
        make_model("points", kPoints, kSchedule);
        write("points.json",
              std::string("{\"model\": ") + kPoints + ", \"scheduler\": " + kSchedule +
                  ", \"options\": {\"data\": \"scurve\", \"batch-size\": 8, \"lr\": 2e-3, " +
                  "\"lr-warmup\": 1, \"steps\": 4}}");
        setenv("XDG_CACHE_HOME", path("cache").c_str(), 1);
        setenv("TW_EMULATED_LIBRARIES", "1", 1);
        library_is_quick(true);
    }
    void TearDown() override {
        unsetenv("TW_EMULATED_COSTS");
        unsetenv("TW_EMULATED_LIBRARIES");
        CommandTest::TearDown();
    }
    static void library_is_quick(bool quick) {
        setenv("TW_EMULATED_COSTS", quick ? "5 1" : "1 9", 1);
    }
    std::string train(const std::string &out, const std::vector<std::string> &more) {
        std::vector<std::string> args = {"train", "--config", "points.json", "--out", out};
        args.insert(args.end(), more.begin(), more.end());
        return works(args).out;
    }
    std::string sample(const std::string &out, bool quiet = true) {
        last = run(
            {"sample", "--model", "points", "--tune", "--out", out, "--n", "4", "--steps", "3"});
        EXPECT_EQ(last.status, 0) << last.err;
        EXPECT_EQ(last.err.empty(), quiet) << last.err;
        return last.out;
    }
    std::string weights(const std::string &out) {
        return read(out + "/unet/diffusion_pytorch_model.safetensors");
    }
    static bool has(const std::string &text, const std::string &what) {
        return text.find(what) != std::string::npos;
    }
    Result last;
};

TEST_F(CudaProviders, SaysWhoDoesWhatAndWhatWasRefused) {
    EXPECT_TRUE(has(works({"info"}).out, "libraries  cuDNN 9.")) << works({"info"}).out;
    const std::string plan = works({"info", "--plan", "--model", "points", "--memory", "1G"}).out;
    EXPECT_TRUE(has(plan, "chosen            own: ")) << plan;
    EXPECT_TRUE(has(plan, "                  cudnn: linear")) << plan;
    const std::string table = train("a", {"--dry-run"});
    EXPECT_TRUE(has(table, "chosen     own: ")) << table;
    EXPECT_TRUE(has(table, "           cudnn: linear")) << table;
    EXPECT_FALSE(has(table, "tuned")) << table;
    EXPECT_FALSE(has(table, "refused")) << table;
    unsetenv("TW_EMULATED_LIBRARIES");
    const std::string alone = train("a", {"--dry-run"});
    EXPECT_FALSE(has(alone, "cudnn: linear")) << alone;
    EXPECT_TRUE(has(alone, "refused    cudnn, 12 regions: ")) << alone;
    EXPECT_TRUE(has(alone, "/no/libcublasLt")) << alone;
    EXPECT_TRUE(has(works({"info"}).out, "/no/libcudnn"));
}

// What the clock says when a run goes on does not count.
TEST_F(CudaProviders, ARunThatWasTunedGoesOnToTheSameBits) {
    const std::string table = train("a", {"--tune", "--steps", "2"});
    EXPECT_TRUE(has(table, "tuned      ")) << table;
    const std::string kept = read("a/providers.json");
    EXPECT_TRUE(has(kept, "\"cudnn\"")) << kept;
    library_is_quick(false);
    const std::string later = works({"train", "--out", "a", "--resume", "--steps", "4"}).out;
    EXPECT_TRUE(has(later, ", 0 of them timed now")) << later;
    EXPECT_EQ(read("a/providers.json"), kept);
    // Another run repeats it with the file, and without it does what the clock says.
    ASSERT_EQ(mkdir(path("b").c_str(), 0755), 0);
    write("b/providers.json", kept);
    train("b", {"--tune"});
    EXPECT_EQ(weights("b"), weights("a"));
    train("c", {"--tune"});
    EXPECT_FALSE(has(read("c/providers.json"), "\"provider\": \"cudnn\""));
    train("d", {"--tune", "--dry-run"});
    EXPECT_FALSE(exists("d"));
}

TEST_F(CudaProviders, SamplesKeepTheirChoicesInTheCache) {
    EXPECT_FALSE(has(sample("a.npy"), " 0 of them timed now")) << last.out;
    const std::string kept = read("cache/tweedie/providers.json");
    EXPECT_TRUE(has(kept, "\"provider\": \"cudnn\"")) << kept;
    library_is_quick(false);
    EXPECT_TRUE(has(sample("b.npy"), " 0 of them timed now")) << last.out;
    EXPECT_EQ(read("a.npy"), read("b.npy"));
    write("cache/tweedie/providers.json", "{");
    sample("c.npy", false);
    EXPECT_EQ(std::count(last.err.begin(), last.err.end(), '\n'), 1) << last.err;
    EXPECT_TRUE(has(last.err, "cache/tweedie/providers.json")) << last.err;
    EXPECT_FALSE(has(read("cache/tweedie/providers.json"), "\"provider\": \"cudnn\""));
    fails(2, {"sample", "--model", "points", "--out", "d.npy", "--tune", "--provider", "own"},
          {"--tune", "--provider own has chosen"});
}

} // namespace
