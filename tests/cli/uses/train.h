#include "cli/uses/uses.h"

static const std::vector<Use> train_uses = {
    {"train",
     {"preset", "out", "data", "steps"},
     [](EveryOption &t) {
         const Result r = t.works({"train", "--preset", "scurve", "--data", "scurve", "--out",
                                   "runs/a", "--steps", "2", "--preview-every", "0"});
         EXPECT_NE(r.out.find("scurve: 10,000 points"), std::string::npos) << r.out;
         EXPECT_NE(t.read("runs/a/run.json").find("\"preset\": \"scurve\""), std::string::npos);
         EXPECT_EQ(t.logged("runs/a", "loss").size(), 2u);
     }},
    {"train",
     {"config", "labels", "limit"},
     [](EveryOption &t) {
         t.make_configs();
         const std::string run = t.trained("classes.json", {"--limit", "7"});
         EXPECT_NE(t.last.out.find("images.npy: 7 images, 3 classes"), std::string::npos)
             << t.last.out;
         t.make_labels("one.npy", 1);
         EXPECT_NE(
             t.logged(t.trained("classes.json", {"--labels", "one.npy", "--limit", "7"}), "loss"),
             t.logged(run, "loss"));
     }},
    {"train",
     {"image-size", "channels", "crop"},
     [](EveryOption &t) {
         const Result r = t.works({"train", "--preset", "shapes", "--dry-run", "--out", "a",
                                   "--image-size", "16", "--channels", "grey", "--crop", "pad"});
         EXPECT_NE(r.out.find("to 16x16 pixels, grey"), std::string::npos) << r.out;
         // Pictures of 16x8, cut or padded to the network's 8x8.
         t.write("pictures.json", std::string("{\"model\": ") + kImages + ", \"scheduler\": " +
                                      kSchedule + ", \"options\": {\"data\": \"photos\", " +
                                      "\"batch-size\": 4, \"steps\": 2, \"threads\": 1}}");
         ASSERT_EQ(tw_directory_make(t.ctx, t.path("photos").c_str()), TW_OK);
         std::vector<uint8_t> pixels(16 * 8);
         for (size_t i = 0; i < pixels.size(); i++) pixels[i] = uint8_t(13 * i);
         const tw_image image = {16, 8, 1, pixels.data()};
         for (const char *name : {"photos/a.png", "photos/b.png"})
             ASSERT_EQ(tw_png_write(t.ctx, t.path(name).c_str(), &image), TW_OK);
         t.changes_losses("pictures.json", {"--crop", "pad"}, "crop", "\"pad\"");
     }},
    {"train",
     {"set"},
     [](EveryOption &t) {
         t.make_configs();
         const std::string run =
             t.trained("points.json", {"--set", "model.hidden=24", "--set", "options.steps=3"});
         EXPECT_NE(t.read(run + "/unet/config.json").find("\"hidden\": 24"), std::string::npos);
         EXPECT_EQ(t.logged(run, "loss").size(), 3u);
     }},
    {"train",
     {"flip", "cond-dropout"},
     [](EveryOption &t) {
         t.make_configs();
         t.changes_losses("classes.json", {"--flip", "1"}, "flip", "1.0");
         t.changes_losses("classes.json", {"--cond-dropout", "1"}, "cond-dropout", "1.0");
     }},
    {"train",
     {"holdout", "validate-every"},
     [](EveryOption &t) {
         t.make_configs();
         const std::string run =
             t.trained("points.json", {"--holdout", "0.25", "--validate-every", "5"});
         EXPECT_NE(t.last.out.find("about 2,500 of them held out"), std::string::npos)
             << t.last.out;
         EXPECT_EQ(t.logged(run, "validation_loss").size(), 4u);
     }},
    {"train",
     {"resume"},
     [](EveryOption &t) {
         t.make_configs();
         const std::string run = t.trained("points.json");
         t.works({"train", "--out", run, "--resume", "--steps", "25"});
         EXPECT_EQ(t.logged(run, "loss").size(), 25u);
     }},
    {"train",
     {"dry-run"},
     [](EveryOption &t) {
         t.make_configs();
         const Result r =
             t.works({"train", "--config", "points.json", "--out", "dry", "--dry-run"});
         EXPECT_NE(r.out.find("timed"), std::string::npos) << r.out;
         EXPECT_FALSE(t.exists("dry"));
     }},
    {"train",
     {"seed", "batch-size", "accumulate", "antithetic"},
     [](EveryOption &t) {
         t.make_configs();
         t.changes_losses("points.json", {"--seed", "9"}, "seed", "9");
         t.changes_losses("points.json", {"--antithetic"}, "antithetic", "true");
         t.changes_losses("points.json", {"--batch-size", "6", "--accumulate", "3"}, "accumulate",
                          "3");
         t.trained("points.json", {"--batch-size", "6", "--accumulate", "3"});
         EXPECT_NE(t.last.out.find("20 of 18 points (3 micro-steps of 6)"), std::string::npos)
             << t.last.out;
     }},
    {"train",
     {"lr", "lr-schedule", "lr-warmup"},
     [](EveryOption &t) {
         t.make_configs();
         const auto lr = t.logged(t.trained("points.json", {"--lr", "0.5", "--lr-warmup", "2",
                                                            "--lr-schedule", "linear"}),
                                  "lr");
         ASSERT_EQ(lr.size(), 20u);
         EXPECT_LT(lr[0], 0.5);
         EXPECT_EQ(*std::max_element(lr.begin(), lr.end()), 0.5);
         EXPECT_LT(lr[19], 0.1);
         const auto constant =
             t.logged(t.trained("points.json", {"--lr", "0.5", "--lr-warmup", "0"}), "lr");
         EXPECT_EQ(constant, std::vector<double>(20, 0.5));
     }},
    {"train",
     {"weight-decay", "clip-norm", "ema", "ema-warmup"},
     [](EveryOption &t) {
         t.make_configs();
         t.changes_weights("points.json", {"--weight-decay", "0.5"}, "weight-decay", "0.5");
         t.changes_weights("points.json", {"--clip-norm", "1e-6"}, "clip-norm", "1e-6");
         t.changes_weights("points.json", {"--ema", "0.5"}, "ema", "0.5", {"--ema-warmup", "off"});
         t.changes_weights("points.json", {"--ema-warmup", "off"}, "ema-warmup", "\"off\"");
     }},
    {"train",
     {"loss-weight", "snr-gamma"},
     [](EveryOption &t) {
         t.make_configs();
         const EveryOption::Words weighted = {"--loss-weight", "min-snr"};
         t.changes_losses("points.json", weighted, "loss-weight", "\"min-snr\"");
         t.changes_losses("points.json", {"--snr-gamma", "0.5"}, "snr-gamma", "0.5", weighted);
     }},
    {"train",
     {"save-every"},
     [](EveryOption &t) {
         t.make_configs();
         // The log outgrows its limit before the end; what was saved until then is there.
         RunOptions limited;
         limited.file_limit = 30000;
         for (const char *every : {"0", "50"}) {
             const std::string out = std::string("every") + every;
             t.fails(1,
                     {"train", "--config", "points.json", "--out", out, "--steps", "400",
                      "--save-every", every, "--log-json"},
                     {"metrics.jsonl"}, limited);
             EXPECT_EQ(t.exists(out + "/state/trainer.safetensors"), every[0] == '5');
         }
     }},
    {"train",
     {"keep-last", "keep-best"},
     [](EveryOption &t) {
         t.make_configs();
         const std::string run =
             t.trained("points.json", {"--save-every", "5", "--keep-last", "2", "--keep-best",
                                       "--holdout", "0.1", "--validate-every", "10"});
         EXPECT_EQ(t.list(run + "/checkpoints").size(), 2u);
         EXPECT_TRUE(t.exists(run + "/checkpoints/step-000020/model_index.json"));
         EXPECT_TRUE(t.exists(run + "/best/model_index.json"));
     }},
    {"train",
     {"preview-every"},
     [](EveryOption &t) {
         t.make_configs();
         const std::string run = t.trained("points.json", {"--preview-every", "10"});
         EXPECT_EQ(t.list(run + "/previews").size(), 3u);
         EXPECT_EQ(t.picture(run + "/previews/step-000010.png")[2], 3);
         EXPECT_EQ(t.read(run + "/previews/latest.png"), t.read(run + "/previews/step-000020.png"));
     }},
    {"train",
     {"preview-steps", "preview-guidance"},
     [](EveryOption &t) {
         t.make_configs();
         const EveryOption::Words base = {"--preview-every", "4", "--cond-dropout", "0.5"};
         auto picture = [&](const EveryOption::Words &more) {
             return t.read(t.trained("classes.json", EveryOption::joined(base, more)) +
                           "/previews/latest.png");
         };
         const std::string plain = picture({});
         EXPECT_EQ(picture({"--preview-steps", "25", "--preview-guidance", "1"}), plain);
         EXPECT_NE(picture({"--preview-steps", "2"}), plain);
         EXPECT_NE(picture({"--preview-guidance", "300"}), plain);
     }},
    {"train",
     {"tensorboard"},
     [](EveryOption &t) {
         t.make_configs();
         for (const char *on : {"on", "off"}) {
             const std::string run = t.trained("points.json", {"--tensorboard", on});
             size_t events = 0;
             for (const std::string &name : t.list(run))
                 events += name.rfind("events.out.tfevents.", 0) == 0;
             EXPECT_EQ(events, on[1] == 'n' ? 1u : 0u);
         }
     }},
    {"train",
     {"recompute"},
     [](EveryOption &t) {
         t.make_configs();
         const std::string none = t.trained("classes.json");
         auto arena = [&](const char *what) {
             json_t *j = t.json({"train", "--config", "classes.json", "--dry-run", "--log-json",
                                 "--recompute", what});
             const json_int_t bytes =
                 json_integer_value(json_object_get(json_object_get(j, "memory"), "arena"));
             json_decref(j);
             return bytes;
         };
         json_int_t last = arena("none");
         for (const char *what : {"norms", "blocks"}) {
             const std::string again = t.trained("classes.json", {"--recompute", what});
             EXPECT_NE(t.last.out.find(std::string("; ") + what + " are made again\n"),
                       std::string::npos)
                 << t.last.out;
             EXPECT_EQ(t.kept(again, "recompute"), std::string("\"") + what + "\"");
             EXPECT_EQ(t.logged(again, "loss"), t.logged(none, "loss"));
             EXPECT_EQ(t.weights(again), t.weights(none));
             const json_int_t now = arena(what);
             EXPECT_LT(now, last) << what;
             last = now;
         }
         // A run may go on with less memory.
         const std::string run = t.trained("classes.json", {"--steps", "2"});
         t.works({"train", "--out", run, "--resume", "--steps", "4", "--recompute", "blocks"});
         EXPECT_EQ(t.weights(run), t.weights(none));
     }},
    {"train",
     {"max-skipped", "check-finite"},
     [](EveryOption &t) {
         t.make_configs();
         t.save("far.npy", {{16, 2}, std::vector<float>(32, 3e38f)});
         for (const int64_t limit : {0, 3}) {
             const std::string run = "stopped" + std::to_string(limit);
             const Result r =
                 t.fails(3,
                         {"train", "--config", "points.json", "--data", "far.npy", "--out", run,
                          "--check-finite", "--max-skipped", std::to_string(limit)},
                         {"--max-skipped", run});
             EXPECT_EQ(t.logged(run, "skipped").back(), double(limit + 1));
             EXPECT_NE(r.out.find("first not finite: loss"), std::string::npos) << r.out;
             EXPECT_TRUE(t.exists(run + "/state/trainer.safetensors"));
         }
     }},
    {"train",
     {"log-json"},
     [](EveryOption &t) {
         t.make_configs();
         const std::string run = t.trained("points.json", {"--log-json"});
         EXPECT_EQ(t.last.out, t.read(run + "/metrics.jsonl"));
     }},
    {"train",
     {"precision"},
     [](EveryOption &t) {
         t.make_configs();
         const std::string wide = t.trained("classes.json");
         const Result tf32 =
             t.run({"train", "--config", "classes.json", "--out", "tf32", "--precision", "tf32"});
         EXPECT_EQ(tf32.err, "tweedie: precision tf32: the CPU computes in float32\n");
         EXPECT_EQ(t.weights("tf32"), t.weights(wide));
         const EveryOption::Words bf16 = {"--precision", "bf16"};
         const std::string half = t.trained("classes.json", bf16);
         EXPECT_NE(t.last.out.find(", bf16"), std::string::npos) << t.last.out;
         EXPECT_NE(t.last.out.find(", in bf16 "), std::string::npos) << t.last.out;
         EXPECT_EQ(t.kept(half, "precision"), "\"bf16\"");
         EXPECT_NE(t.weights(half), t.weights(wide));
         EXPECT_EQ(t.weights(half).size(), t.weights(wide).size()) << "saved as float32";
         const auto loss = t.logged(half, "loss"), exact = t.logged(wide, "loss");
         for (size_t i = 0; i < exact.size(); i++) EXPECT_NEAR(loss[i], exact[i], 0.02 * exact[i]);
         const std::string run =
             t.trained("classes.json", EveryOption::joined(bf16, {"--steps", "2"}));
         t.works({"train", "--out", run, "--resume", "--steps", "4"});
         EXPECT_EQ(t.weights(run), t.weights(half));
     }},
    {"train",
     {"device", "provider", "no-fusion", "precision", "threads"},
     [](EveryOption &t) {
         t.make_configs();
         const std::string run =
             t.trained("points.json", {"--device", "cpu", "--provider", "auto", "--no-fusion",
                                       "gradients", "--precision", "fp32", "--threads", "2"});
         const std::string head = t.last.out.substr(0, t.last.out.find('\n'));
         EXPECT_NE(head.find("CPU, 2 threads, fp32"), std::string::npos) << head;
         EXPECT_EQ(t.kept(run, "threads"), "2");
         EXPECT_EQ(t.kept(run, "provider"), "\"auto\"");
         EXPECT_EQ(t.kept(run, "no-fusion"), "\"gradients\"");
     }},
    {"train",
     {"tune"},
     [](EveryOption &t) {
         // A run that was begun with it on a GPU goes on where there is nothing to choose.
         t.make_configs();
         std::string config = t.read("points.json");
         config.insert(config.find("\"lr\""), "\"tune\": true, ");
         t.write("points.json", config);
         const std::string run = t.trained("points.json", {"--device", "cpu", "--steps", "2"});
         EXPECT_EQ(t.kept(run, "tune"), "true");
         t.works({"train", "--out", run, "--resume", "--steps", "4"});
         EXPECT_EQ(access(t.path(run + "/providers.json").c_str(), F_OK), -1);
     }},
};

static const std::vector<Misuse> train_misuses = {
    {"train", "preset", {"--preset", "digits"}, 2, "scurve"},
    {"train",
     "preset",
     {"--preset", "scurve", "--config", "points.json", "--out", "a"},
     2,
     "expected one of them"},
    {"train", "config", {"--config", "absent.json", "--out", "a"}, 1, "absent.json"},
    {"train",
     "set",
     {"--config", "points.json", "--out", "a", "--set", "model.hidden=many"},
     2,
     "expected a whole number"},
    {"train", "data", {"--preset", "mnist", "--out", "a"}, 2, "SOURCE is missing"},
    {"train",
     "labels",
     {"--config", "classes.json", "--labels", "images.npy", "--out", "a"},
     1,
     "label"},
    {"train", "limit", {"--limit", "-1"}, 2, "a whole number from 0 up"},
    {"train", "image-size", {"--image-size", "big"}, 2, "a whole number from 0 to 4096"},
    {"train", "channels", {"--channels", "4"}, 2, "auto, grey or rgb"},
    {"train", "crop", {"--crop", "middle"}, 2, "center, random, stretch or pad"},
    {"train", "flip", {"--flip", "1.5"}, 2, "a number from 0 to 1"},
    {"train", "holdout", {"--holdout", "0.75"}, 2, "a number from 0 to 0.5"},
    {"train", "out", {"--config", "points.json"}, 2, "--out DIR is missing"},
    {"train", "out", {"--config", "points.json", "--out", "points.json"}, 1, "expected a folder"},
    {"train", "resume", {"--out", "absent", "--resume"}, 1, "holds no run"},
    {"train", "dry-run", {"--dry-run=yes"}, 2, "takes no value"},
    {"train", "steps", {"--steps", "0"}, 2, "a whole number from 1 to 1000000000"},
    {"train", "seed", {"--seed", "x"}, 2, "a whole number from 0 up"},
    {"train", "batch-size", {"--batch-size", "0"}, 2, "a whole number from 1 to 65536"},
    {"train", "accumulate", {"--accumulate", "0"}, 2, "a whole number from 1 to 65536"},
    {"train", "lr", {"--lr", "fast"}, 2, "a number from 0 to 1000"},
    {"train", "lr-schedule", {"--lr-schedule", "cos"}, 2, "constant, cosine or linear"},
    {"train", "lr-warmup", {"--lr-warmup", "0.1"}, 2, "a whole number from 0"},
    {"train", "weight-decay", {"--weight-decay", "-0.1"}, 2, "a number from 0 to 1000"},
    {"train", "clip-norm", {"--clip-norm", "-1"}, 2, "a number from 0 up"},
    {"train", "ema", {"--ema", "1"}, 2, "a number from 0 to 0.9999999"},
    {"train", "ema-warmup", {"--ema-warmup", "yes"}, 2, "on or off"},
    {"train", "loss-weight", {"--loss-weight", "snr"}, 2, "simple or min-snr"},
    {"train", "snr-gamma", {"--snr-gamma", "0"}, 2, "a number from 1e-06 to 1000000"},
    {"train", "antithetic", {"--antithetic=true"}, 2, "takes no value"},
    {"train", "cond-dropout", {"--cond-dropout", "2"}, 2, "a number from 0 to 1"},
    {"train", "save-every", {"--save-every", "-1"}, 2, "a whole number from 0"},
    {"train", "keep-last", {"--keep-last", "all"}, 2, "a whole number from 0"},
    {"train",
     "keep-best",
     {"--config", "points.json", "--keep-best", "--out", "a"},
     2,
     "--validate-every and --holdout"},
    {"train", "preview-every", {"--preview-every", "often"}, 2, "a whole number from 0"},
    {"train", "preview-steps", {"--preview-steps", "0"}, 2, "a whole number from 1"},
    {"train",
     "preview-guidance",
     {"--config", "points.json", "--preview-guidance", "2", "--out", "a"},
     2,
     "only a model with classes"},
    {"train", "tensorboard", {"--tensorboard", "yes"}, 2, "on or off"},
    {"train",
     "validate-every",
     {"--config", "points.json", "--validate-every", "5", "--out", "a"},
     2,
     "--holdout"},
    {"train", "max-skipped", {"--max-skipped", "-1"}, 2, "a whole number from 0"},
    {"train", "check-finite", {"--check-finite=yes"}, 2, "takes no value"},
    {"train", "log-json", {"--log-json=1"}, 2, "takes no value"},
    {"train", "device", {"--device", "gpu"}, 2, "auto, cpu or cuda"},
    {"train", "precision", {"--precision", "fp8"}, 2, "expected fp32, tf32 or bf16"},
    {"train", "recompute", {"--recompute", "all"}, 2, "none, norms or blocks"},
    {"train",
     "no-fusion",
     {"--preset", "scurve", "--out", "a", "--no-fusion", "groupnorm"},
     2,
     "norm-statistics"},
    {"train", "provider", {"--provider", "onednn"}, 2, "auto, own or cudnn"},
    {"train",
     "tune",
     {"--config", "points.json", "--out", "a", "--device", "cpu", "--tune"},
     1,
     "it times a GPU's providers"},
    {"train",
     "provider",
     {"--config", "points.json", "--out", "a", "--device", "cpu", "--provider", "own"},
     2,
     "expected auto with --device cpu"},
    {"train", "threads", {"--threads", "two"}, 2, "a whole number from 0 to 1024"},
};
