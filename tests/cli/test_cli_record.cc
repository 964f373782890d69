// run.json: what it says of a run, and that it is enough to train the same again.
#include "cli/train_runs.h"

class Record : public Train {
  protected:
    json_t *record(const std::string &run) {
        json_t *j = json_loads(read(run + "/run.json").c_str(), 0, nullptr);
        EXPECT_NE(j, nullptr) << read(run + "/run.json");
        documents.push_back(j);
        return j;
    }
    void TearDown() override {
        for (json_t *j : documents) json_decref(j);
        Train::TearDown();
    }
    static std::string text(const json_t *object, const char *key) {
        const char *s = json_string_value(json_object_get(object, key));
        return s ? s : "";
    }
    // images.npy and labels.npy.
    void make_data(float first = 0.0f) {
        Array images = {{12, 8, 8, 3}, std::vector<float>(12 * 192)};
        for (size_t i = 0; i < images.values.size(); i++)
            images.values[i] = float(std::sin(0.1 * double(i)));
        images.values[0] = first;
        save("images.npy", images);
        const int64_t n = 12;
        int32_t labels[12];
        for (int i = 0; i < 12; i++) labels[i] = i % 3;
        ASSERT_EQ(tw_npy_write(ctx, path("labels.npy").c_str(), TW_I32, 1, &n, labels), TW_OK);
        write("c.json",
              std::string("{\"model\": ") + kClasses + ", \"scheduler\": " + kSchedule + "}");
    }
    std::vector<json_t *> documents;
};

// Everything that bears on the numbers is in it: fields, options, data and threads.
TEST_F(Record, TrainsTheSameAgainToTheBit) {
    make_data();
    works({"train",
           "--config",
           "c.json",
           "--data",
           "images.npy",
           "--labels",
           "labels.npy",
           "--out",
           "a",
           "--steps",
           "12",
           "--batch-size",
           "4",
           "--accumulate",
           "2",
           "--flip",
           "0.5",
           "--holdout",
           "0.25",
           "--cond-dropout",
           "0.2",
           "--ema",
           "0.9",
           "--seed",
           "7",
           "--lr-schedule",
           "cosine",
           "--lr-warmup",
           "2",
           "--loss-weight",
           "min-snr",
           "--set",
           "model.dropout=0.1",
           "--set",
           "scheduler.beta_schedule=scaled_linear",
           "--set",
           "options.clip-norm=0.5",
           "--validate-every",
           "6",
           "--preview-every",
           "6",
           "--preview-steps",
           "3",
           "--keep-last",
           "1",
           "--keep-best"});
    works({"train", "--config", "a/run.json", "--out", "b"});
    expect_same_run("a", "b");
    EXPECT_EQ(read("a/previews/latest.png"), read("b/previews/latest.png"));
    EXPECT_EQ(read("a/best/unet/diffusion_pytorch_model.safetensors"),
              read("b/best/unet/diffusion_pytorch_model.safetensors"));
    const json_t *a = record("a"), *b = record("b");
    for (const char *key : {"model", "scheduler", "options", "data", "commit", "device"})
        EXPECT_TRUE(json_equal(json_object_get(a, key), json_object_get(b, key))) << key;
    EXPECT_NE(text(a, "id"), text(b, "id"));
    EXPECT_EQ(text(a, "id").size(), 16u);
    // The number of threads is what it was, not what was asked for.
    EXPECT_EQ(json_integer_value(json_object_get(json_object_get(a, "options"), "threads")),
              tw_context_threads(ctx));
}

TEST_F(Record, SaysWhenWhereAndHow) {
    works(with({"--out", "a", "--steps", "4"}));
    works({"train", "--out", "a", "--resume", "--steps=6"});
    const json_t *j = record("a"), *history = json_object_get(j, "history");
    ASSERT_EQ(json_array_size(history), 2u);
    const char *const what[] = {"start", "resume"};
    for (size_t i = 0; i < 2; i++) {
        const json_t *call = json_array_get(history, i);
        EXPECT_EQ(text(call, "what"), what[i]);
        EXPECT_EQ(json_integer_value(json_object_get(call, "step")), i ? 4 : 0);
        EXPECT_EQ(text(call, "tweedie"), tw_version());
        EXPECT_FALSE(text(call, "commit").empty());
        const std::string time = text(call, "time");
        ASSERT_EQ(time.size(), 20u) << time;
        EXPECT_EQ(time[10], 'T');
        EXPECT_EQ(time[19], 'Z');
        const json_t *host = json_object_get(call, "host");
        EXPECT_FALSE(text(host, "name").empty());
        EXPECT_FALSE(text(host, "cpu").empty());
        EXPECT_GE(json_integer_value(json_object_get(host, "processors")), 1);
        EXPECT_GT(json_integer_value(json_object_get(host, "memory")), 1 << 20);
    }
    char *words = json_dumps(json_object_get(json_array_get(history, 1), "command"), JSON_COMPACT);
    EXPECT_STREQ(words, "[\"tweedie\",\"train\",\"--out\",\"a\",\"--resume\",\"--steps=6\"]");
    free(words);
    EXPECT_EQ(json_integer_value(json_object_get(json_object_get(j, "options"), "steps")), 6);
}

TEST_F(Record, KnowsItsDataAgain) {
    make_data();
    const std::vector<std::string> args = {
        "train", "--config", "c.json",  "--data", "images.npy",   "--labels", "labels.npy",
        "--out", "a",        "--steps", "1",      "--batch-size", "4"};
    works(args);
    const json_t *data = json_object_get(json_object_get(record("a"), "data"), "data");
    EXPECT_EQ(json_integer_value(json_object_get(data, "files")), 1);
    EXPECT_EQ(json_integer_value(json_object_get(data, "bytes")),
              int64_t(read("images.npy").size()));
    EXPECT_EQ(text(data, "hash").rfind("fnv1a64:", 0), 0u);
    // Elsewhere it is the same.
    ASSERT_EQ(rename(path("images.npy").c_str(), path("moved.npy").c_str()), 0);
    works({"train", "--out", "a", "--resume", "--steps", "2", "--data", "moved.npy"});
    // One byte is another set, of the same size.
    make_data(0.5f);
    fails(1, {"train", "--out", "a", "--resume", "--steps", "3", "--data", "images.npy"},
          {"--data: images.npy is not what the run was trained on"});
    ASSERT_EQ(rename(path("images.npy").c_str(), path("moved.npy").c_str()), 0);
    const Result again = run({"train", "--config", "a/run.json", "--out", "b"});
    EXPECT_EQ(again.status, 0);
    EXPECT_NE(again.err.find("warning: --data: "), std::string::npos) << again.err;
    EXPECT_NE(again.err.find("moved.npy has changed since a/run.json was written"),
              std::string::npos)
        << again.err;
    works({"train", "--config", "a/run.json", "--data", "moved.npy", "--out", "c"});
}

TEST_F(Record, KnowsAFolderAgain) {
    ASSERT_EQ(mkdir(path("photos").c_str(), 0777), 0);
    for (int i = 0; i < 4; i++) {
        uint8_t pixels[8 * 8 * 3];
        for (int k = 0; k < 192; k++) pixels[k] = uint8_t(40 * i + k);
        const tw_image image = {8, 8, 3, pixels};
        const std::string name = path("photos/") + std::to_string(i) + ".png";
        ASSERT_EQ(tw_png_write(ctx, name.c_str(), &image), TW_OK);
    }
    write("c.json", std::string("{\"model\": ") + kClasses + "}");
    works({"train", "--config", "c.json", "--set", "model.num_class_embeds=null", "--data",
           "photos", "--out", "a", "--steps", "1", "--batch-size", "2"});
    EXPECT_EQ(json_integer_value(json_object_get(
                  json_object_get(json_object_get(record("a"), "data"), "data"), "files")),
              4);
    write("photos/.thumbnails", "what a file manager leaves");
    works({"train", "--out", "a", "--resume", "--steps", "2"});
    write("photos/3.png", read("photos/2.png") + " ");
    fails(1, {"train", "--out", "a", "--resume", "--steps", "3"}, {"--data: ", "photos is not"});
}

// A folder of the name of a set that is made on the spot is not that set.
TEST_F(Record, NamesOfMadeSetsStay) {
    ASSERT_EQ(mkdir(path("scurve").c_str(), 0777), 0);
    works(with({"--out", "a", "--steps", "1"}));
    EXPECT_EQ(text(json_object_get(record("a"), "options"), "data"), "scurve");
    EXPECT_EQ(json_object_size(json_object_get(record("a"), "data")), 0u);
}
