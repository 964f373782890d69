#include "cli/command.h"

#include <jansson.h>

class Options : public CommandTest {};

TEST_F(Options, HelpAndVersionGoToStdout) {
    EXPECT_EQ(works({"--version"}).out, std::string("tweedie ") + tw_version() + "\n");
    const std::string overview = works({"help"}).out;
    EXPECT_EQ(works({"--help"}).out, overview);
    for (const char *command : {"info", "train", "sample"}) {
        EXPECT_NE(overview.find(std::string("\n  ") + command + " "), std::string::npos);
        const std::string help = works({"help", command}).out;
        EXPECT_NE(help.find(std::string("Usage: tweedie ") + command), std::string::npos);
        EXPECT_EQ(works({command, "--help"}).out, help);
    }
    EXPECT_NE(works({"help", "sample"}).out.find("--max-batch N"), std::string::npos);
}

TEST_F(Options, CommandsAreNamedWhole) {
    fails(2, {}, {"expected a command"});
    fails(2, {"smaple"}, {"unknown command \"smaple\"", "did you mean sample?"});
    fails(2, {"sam"}, {"unknown command \"sam\"", "did you mean sample?"});
    fails(2, {"denoise"}, {"unknown command \"denoise\"; `tweedie help` lists them"});
    fails(2, {"help", "tarin"}, {"did you mean train?"});
    fails(2, {"help", "info", "train"}, {"help: expected one COMMAND", "\"train\""});
    fails(2, {"--versoin"}, {"unknown command"});
    fails(2, {"line\nbreak"}, {"line break"});
}

TEST_F(Options, UnknownOnesAreRefusedWithTheClosest) {
    fails(2, {"sample", "--step", "5"}, {"unknown option --step", "did you mean --steps?"});
    fails(2, {"train", "--batchsize=5"}, {"did you mean --batch-size?"});
    fails(2, {"info", "--colour"}, {"unknown option --colour", "tweedie help info"});
    // No abbreviations, though only one option begins so.
    fails(2, {"sample", "--guid", "2"}, {"unknown option --guid", "mean --guidance?"});
    fails(2, {"sample", "-n", "2"}, {"got \"-n\""});
    fails(2, {"sample", "cats.png"}, {"expected an option", "\"cats.png\""});
    fails(2, {"sample", "--"}, {"expected an option"});
    fails(2, {"sample", "--=3"}, {"unknown option"});
}

TEST_F(Options, ValuesAreGivenOnceAndWhole) {
    fails(2, {"sample", "--seed"}, {"--seed: a value is missing"});
    fails(2, {"sample", "--seed", "--n", "3"}, {"--seed: a value is missing"});
    fails(2, {"sample", "--out="}, {"--out: the value is empty"});
    fails(2, {"sample", "--seed", "1", "--seed=2"}, {"--seed: given twice"});
    fails(2, {"info", "--json=yes"}, {"--json: takes no value", "\"yes\""});
}

TEST_F(Options, WholeNumbersAreStrict) {
    for (const char *text :
         {"fast", "1.5", "1e3", "0x10", " 5", "5 ", "-1", "0", "+", "nan", "99999999999999999999"})
        fails(2, {"train", "--steps", text},
              {"--steps: expected a whole number from 1 to 1000000000, got \"" + std::string(text) +
               "\""});
    fails(2, {"sample", "--seed", "-1"}, {"--seed: expected a whole number from 0 up"});
    fails(2, {"sample", "--seed", "9999999999999999999"}, {"--seed"});
}

TEST_F(Options, RealNumbersAreStrict) {
    for (const char *text : {"nan", "inf", "1,5", "0x1p3", "1e999", "--1", " 1", "-0.1", "1.1"})
        fails(2, {"sample", "--eta=" + std::string(text)},
              {"--eta: expected a number from 0 to 1, got \"" + std::string(text) + "\""});
    fails(2, {"train", "--clip-norm", "-1"}, {"--clip-norm: expected a number from 0 up"});
}

TEST_F(Options, ChoicesAreListed) {
    fails(2, {"sample", "--sampler", "ddmi"}, {"--sampler: expected ddim or ddpm, got \"ddmi\""});
    fails(2, {"train", "--lr-schedule", "cos"}, {"expected constant, cosine or linear"});
    fails(2, {"train", "--preset", "m"},
          {"--preset: expected scurve, shapes, images, mnist or cifar10"});
    fails(2, {"train", "--precision", "fp16"}, {"--precision: expected fp32, tf32 or bf16"});
}

TEST_F(Options, AFullStdoutIsAnError) {
    RunOptions options;
    options.stdout_path = "/dev/full";
    fails(1, {"help"}, {"standard output: cannot be written"}, options);
    fails(1, {"info"}, {"standard output: cannot be written"}, options);
}

class Info : public CommandTest {
  protected:
    void write_model() { make_model("m", kImages, kSchedule); }
};

TEST_F(Info, DescribesTheBuild) {
    const Result r = works({"info", "--threads", "1", "--device", "cpu"});
    EXPECT_NE(r.out.find("CPU, 1 thread\n"), std::string::npos) << r.out;
    EXPECT_NE(r.out.find("cpu-reference"), std::string::npos) << r.out;
    json_t *j = json_loads(works({"info", "--json", "--threads=1"}).out.c_str(), 0, nullptr);
    ASSERT_NE(j, nullptr);
    EXPECT_STREQ(json_string_value(json_object_get(j, "version")), tw_version());
    EXPECT_EQ(json_integer_value(json_object_get(j, "threads")), 1);
    EXPECT_GE(json_array_size(json_object_get(j, "providers")), 1u);
    EXPECT_TRUE(json_is_object(json_object_get(j, "build")));
    json_decref(j);
}

TEST_F(Info, DescribesAModel) {
    write_model();
    tw_model *model = nullptr;
    tw_model_info info = {};
    info.size = sizeof info;
    ASSERT_EQ(tw_model_load(ctx, path("m").c_str(), nullptr, &model), TW_OK);
    ASSERT_EQ(tw_model_get_info(model, &info), TW_OK);
    tw_model_free(model);
    const std::string text = works({"info", "--model", "m"}).out;
    EXPECT_EQ(text.rfind("UNet2DModel\n", 0), 0u) << text;
    EXPECT_NE(text.find("8 x 8 x 1 (height, width, channels)"), std::string::npos) << text;
    EXPECT_NE(text.find("100 steps"), std::string::npos) << text;
    json_t *j = json_loads(works({"info", "--model", "m", "--json"}).out.c_str(), 0, nullptr);
    ASSERT_NE(j, nullptr);
    EXPECT_EQ(json_integer_value(json_object_get(j, "parameters")), info.parameters);
    EXPECT_EQ(json_integer_value(json_object_get(j, "tensors")), info.tensors);
    EXPECT_EQ(json_array_size(json_object_get(j, "shape")), 3u);
    EXPECT_STREQ(json_string_value(json_object_get(j, "prediction")), "epsilon");
    EXPECT_EQ(json_integer_value(json_object_get(json_object_get(j, "schedule"), "steps")), 100);
    EXPECT_TRUE(json_is_object(json_object_get(j, "config")));
    json_decref(j);
}

TEST_F(Info, NamesWhatIsWrongWithAModel) {
    fails(1, {"info", "--model", "absent"}, {"absent"});
    fails(2, {"info", "--variant", "fp16"}, {"--variant"});
    write_model();
    fails(1, {"info", "--model", "m", "--variant", "fp16"}, {"fp16"});
    const std::string file = "m/unet/diffusion_pytorch_model.safetensors";
    const std::string whole = read(file);
    ASSERT_GT(whole.size(), 1000u);
    write(file, whole.substr(0, whole.size() - 100));
    fails(1, {"info", "--model", "m"}, {"diffusion_pytorch_model.safetensors"});
    write(file, std::string("\xff\xff\xff\xff\xff\xff\xff\x7f", 8) + whole.substr(8));
    fails(1, {"info", "--model", "m"}, {"diffusion_pytorch_model.safetensors"});
    write(file, whole);
    works({"info", "--model", "m"});
    write("m/unet/config.json",
          "{\"_class_name\": \"UNet2DModel\", \"sample_size\": 8, \"act_fn\": \"sine\"}");
    fails(1, {"info", "--model", "m"}, {"act_fn"});
    write("m/unet/config.json", "{");
    fails(1, {"info", "--model", "m"}, {"config.json"});
}

#ifndef __SANITIZE_ADDRESS__ // which takes all addresses
// OpenMP's library would end the process when the first plan runs.
TEST_F(Info, RefusesThreadsThatCannotBeHad) {
    RunOptions options;
    options.address_limit = rlim_t(3) << 29; // their stacks would take more
    fails(1, {"info", "--threads", "1024"}, {"threads: 1024 are wanted, and ", "fewer"}, options);
    EXPECT_EQ(run({"info", "--threads", "4"}, options).status, 0);
}
#endif

TEST_F(Info, RefusesADeviceThatIsNotThere) {
    if (tw_context_device(ctx) == TW_DEVICE_CUDA) GTEST_SKIP() << "there is a GPU";
    fails(1, {"info", "--device", "cuda"}, {"device cuda", "use auto or cpu"});
    fails(1, {"info", "--provider", "own"}, {"provider own", "use auto"});
}
