// Training on pictures of the user's own: folders, presets that adapt, and what is refused.
#include <jansson.h>

#include "cli/train_runs.h"

extern "C" {
#include "io/file.h"
}

class TrainPictures : public Train {
  protected:
    void add(const std::string &name, int64_t height, int64_t width, int seed) {
        std::vector<uint8_t> pixels(size_t(height * width * 3));
        for (size_t i = 0; i < pixels.size(); i++) pixels[i] = uint8_t(size_t(seed) * 40 + i / 7);
        const tw_image image = {width, height, 3, pixels.data()};
        const std::string full = path(name);
        ASSERT_EQ(tw_directory_make(ctx, full.substr(0, full.rfind('/')).c_str()), TW_OK);
        ASSERT_EQ(tw_png_write(ctx, full.c_str(), &image), TW_OK) << tw_context_error(ctx);
    }
    static std::vector<std::string> joined(std::vector<std::string> a,
                                           const std::vector<std::string> &b) {
        a.insert(a.end(), b.begin(), b.end());
        return a;
    }
    std::vector<std::string> on(const std::string &data, const std::string &out,
                                const std::vector<std::string> &more = {},
                                const std::string &steps = "2") {
        const std::vector<std::string> small = {
            "--threads",       "1",  "--batch-size",    "2",
            "--image-size",    "16", "--set",           "model.layers_per_block=1",
            "--preview-every", "2",  "--preview-steps", "2"};
        return joined(
            joined({"train", "--preset", "images", "--data", data, "--out", out, "--steps", steps},
                   small),
            more);
    }
    json_t *run_json(const std::string &run) {
        json_t *j = json_loads(read(run + "/run.json").c_str(), 0, nullptr);
        EXPECT_NE(j, nullptr);
        return j;
    }
};

TEST_F(TrainPictures, AFolderOfClassesFromEndToEnd) {
    for (int i = 0; i < 6; i++)
        add(std::string("photos/") +
                (i % 3 == 0   ? "cat/"
                 : i % 3 == 1 ? "dog/"
                              : "owl/") +
                std::to_string(i) + ".png",
            20 + i, 30 - i, i);
    write("photos/dog/broken.png", "no picture");
    const Result r = run(on("photos", "a"));
    ASSERT_EQ(r.status, 0) << r.err;
    EXPECT_EQ(r.err, "tweedie: photos/dog/broken.png: neither a PNG nor a JPEG file; left out\n");
    EXPECT_NE(r.out.find("photos: 6 images, 3 classes, 1 unreadable left out"), std::string::npos)
        << r.out;
    EXPECT_NE(r.out.find("the preset's network to 16x16 pixels, 3 classes and the empty one"),
              std::string::npos)
        << r.out;
    EXPECT_FALSE(picture("a/previews/step-000002.png").empty());
    json_t *j = run_json("a");
    const json_t *model = json_object_get(j, "model");
    EXPECT_EQ(json_integer_value(json_object_get(model, "num_class_embeds")), 4);
    EXPECT_EQ(json_integer_value(json_object_get(model, "sample_size")), 16);
    json_decref(j);
    // What was adapted is kept: the run goes on, also with the preset named again.
    const Result again = run({"train", "--out", "a", "--resume", "--steps", "3"});
    EXPECT_EQ(again.status, 0) << again.err;
    const Result named =
        run({"train", "--preset", "images", "--out", "a", "--resume", "--steps", "4"});
    EXPECT_EQ(named.status, 0) << named.err;
    const Result whole = run(on("photos", "b", {}, "4"));
    EXPECT_EQ(whole.status, 0) << whole.err;
    EXPECT_TRUE(weights("a") == weights("b"));
    works(
        {"sample", "--model", "a", "--out", "s.png", "--n", "3", "--class", "0-2", "--steps", "2"});
    fails(2, {"train", "--preset", "mnist", "--out", "a", "--resume"}, {"describes another model"});
}

TEST_F(TrainPictures, AFolderWithoutClasses) {
    for (int i = 0; i < 3; i++) add("flat/" + std::to_string(i) + ".png", 16, 16, i);
    const Result r = works(on("flat", "a", {"--channels", "grey"}));
    EXPECT_NE(r.out.find("to 16x16 pixels, grey, no classes"), std::string::npos) << r.out;
    json_t *j = run_json("a");
    EXPECT_TRUE(json_is_null(json_object_get(json_object_get(j, "model"), "num_class_embeds")));
    EXPECT_EQ(json_number_value(json_object_get(json_object_get(j, "options"), "cond-dropout")), 0);
    json_decref(j);
    works({"train", "--out", "a", "--resume", "--steps", "3"});
    works({"train", "--config", "a/run.json", "--out", "b"});
    // What was asked for and cannot be is not dropped quietly.
    fails(1, on("flat", "c", {"--cond-dropout", "0.2"}), {"condition dropout"});
    fails(2, {"train", "--out", "a", "--resume", "--crop", "pad"}, {"--crop: cannot change"});
    EXPECT_FALSE(exists("c"));
}

TEST_F(TrainPictures, AConfigurationIsTakenAtItsWord) {
    for (int i = 0; i < 4; i++)
        add(std::string(i % 2 ? "photos/a/" : "photos/b/") + std::to_string(i) + ".png", 9, 12, i);
    // Five classes where the network has room for four.
    write("classes.json", std::string("{\"model\": ") + kClasses + ", \"scheduler\": " + kSchedule +
                              ", \"options\": {\"batch-size\": 2, \"steps\": 2, \"threads\": 1}}");
    works({"train", "--config", "classes.json", "--data", "photos", "--out", "a"});
    for (int i = 0; i < 5; i++) add("five/" + std::to_string(i) + "/0.png", 8, 8, i);
    fails(1, {"train", "--config", "classes.json", "--data", "five", "--out", "b"},
          {"5 classes", "room for 4"});
    // A set with a size of its own keeps it, unless another is asked for.
    std::string record(3073, '\1');
    write("data.bin", record + record);
    fails(1, {"train", "--config", "classes.json", "--data", "data.bin", "--out", "b"}, {"32"});
    EXPECT_FALSE(exists("b"));
}

TEST_F(TrainPictures, WhatIsRefused) {
    add("photos/a.png", 8, 8, 1);
    fails(1, on("photos", "a", {"--labels", "labels.npy"}),
          {"labels: photos: the classes of a folder are its sub-folders"});
    ASSERT_EQ(tw_directory_make(ctx, path("empty").c_str()), TW_OK);
    fails(1, on("empty", "a"), {"empty: no pictures: expected .png, .jpg or .jpeg files"});
    fails(1, {"train", "--preset", "scurve", "--image-size", "8", "--out", "a"},
          {"scurve holds vectors, not pictures"});
    EXPECT_FALSE(exists("a"));
}

TEST_F(TrainPictures, EveryPresetIsANetwork) {
    for (const char *preset : {"shapes", "cifar10", "images"}) {
        const Result r = works({"train", "--preset", preset, "--data", "shapes", "--dry-run",
                                "--batch-size", "2", "--set", "model.layers_per_block=1"});
        EXPECT_NE(r.out.find("shapes: 50,000 images, 6 classes"), std::string::npos) << r.out;
    }
    works({"train", "--preset", "shapes", "--out", "a", "--steps", "1", "--batch-size", "2",
           "--threads", "1", "--preview-steps", "2"});
    EXPECT_TRUE(exists("a/previews/step-000001.png"));
}
