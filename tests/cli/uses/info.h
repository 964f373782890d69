#include "cli/uses/uses.h"

static const std::vector<Use> info_uses = {
    {"info",
     {"model", "variant"},
     [](EveryOption &t) {
         t.make_models();
         EXPECT_EQ(t.works({"info", "--model", "points"}).out.rfind("TweedieMLP\n", 0), 0u);
         const std::string file = "points/unet/diffusion_pytorch_model";
         t.write(file + ".half.safetensors", t.read(file + ".safetensors"));
         ASSERT_EQ(unlink(t.path(file + ".safetensors").c_str()), 0);
         t.fails(1, {"info", "--model", "points"}, {"diffusion_pytorch_model.safetensors"});
         t.works({"info", "--model", "points", "--variant", "half"});
     }},
    {"info",
     {"json", "device", "provider", "no-fusion", "threads"},
     [](EveryOption &t) {
         const Result r = t.works({"info", "--json", "--device", "cpu", "--provider", "auto",
                                   "--no-fusion", "norm-silu", "--threads", "3"});
         json_t *j = json_loads(r.out.c_str(), 0, nullptr);
         ASSERT_NE(j, nullptr) << r.out;
         EXPECT_STREQ(json_string_value(json_object_get(j, "device")), "CPU, 3 threads");
         EXPECT_EQ(json_integer_value(json_object_get(j, "threads")), 3);
         json_decref(j);
     }},
    {"info",
     {"plan", "preset", "memory"},
     [](EveryOption &t) {
         const EveryOption::Words plan = {"info", "--plan", "--preset", "scurve", "--threads", "1"};
         const Result r = t.works(EveryOption::joined(plan, {"--memory", "8G"}));
         for (const char *row :
              {"weights", "activations kept", "in all", "chosen            cpu-", "8.0 GiB: "})
             EXPECT_NE(r.out.find(row), std::string::npos) << row << r.out;
         EXPECT_NE(t.works(EveryOption::joined(plan, {"--memory", "1M"})).out.find("not even"),
                   std::string::npos);
         // It is what a run takes.
         json_t *planned = t.json(EveryOption::joined(plan, {"--json"}));
         json_t *run = t.json({"train", "--preset", "scurve", "--dry-run", "--log-json"});
         const json_t *bytes = json_object_get(planned, "bytes"),
                      *memory = json_object_get(run, "memory");
         auto of = [](const json_t *object, const char *key) {
             return json_integer_value(json_object_get(object, key));
         };
         for (const char *same : {"weights", "gradients", "optimizer", "average"})
             EXPECT_EQ(of(bytes, same), of(memory, same)) << same;
         EXPECT_EQ(of(bytes, "kept") + of(bytes, "passing") + of(bytes, "workspace") +
                       of(bytes, "gaps"),
                   of(memory, "arena"));
         EXPECT_EQ(of(bytes, "inputs"), of(memory, "staging"));
         EXPECT_GT(of(bytes, "kept"), 0);
         EXPECT_TRUE(
             json_is_object(json_object_get(json_object_get(planned, "providers"), "chosen")));
         json_decref(planned);
         json_decref(run);
     }},
    {"info",
     {"data"},
     [](EveryOption &t) {
         t.make_models();
         t.make_configs(); /* images.npy */
         const EveryOption::Words plan = {"info",    "--plan", "--model",
                                          "classes", "--data", "images.npy"};
         const Result r = t.works(plan);
         EXPECT_NE(r.out.find("  the data             9.0 KiB more of the host's memory\n"),
                   std::string::npos)
             << r.out;
         json_t *j = t.json(EveryOption::joined(plan, {"--json"}));
         EXPECT_EQ(json_integer_value(json_object_get(j, "host_data")), 12 * 8 * 8 * 3 * 4);
         json_decref(j);
     }},
    {"info",
     {"recompute"},
     [](EveryOption &t) {
         double last = 1e18;
         for (const char *what : {"none", "norms", "blocks"}) {
             json_t *j =
                 t.json({"info", "--plan", "--preset", "cifar10", "--json", "--recompute", what});
             const double total = json_number_value(json_object_get(j, "total"));
             EXPECT_LT(total, last) << what;
             EXPECT_STREQ(json_string_value(json_object_get(j, "recompute")), what);
             last = total;
             json_decref(j);
         }
     }},
    {"info",
     {"precision"},
     [](EveryOption &t) {
         const auto part = [&](const char *purpose, const char *precision, const char *key) {
             json_t *j = t.json({"info", "--plan", "--preset", "mnist", "--json", "--for", purpose,
                                 "--precision", precision});
             EXPECT_STREQ(json_string_value(json_object_get(j, "precision")), precision);
             const json_int_t bytes =
                 json_integer_value(json_object_get(json_object_get(j, "bytes"), key));
             json_decref(j);
             return bytes;
         };
         EXPECT_EQ(2 * part("train", "bf16", "rounded"), part("train", "fp32", "weights"));
         EXPECT_EQ(2 * part("sample", "fp16", "rounded"), part("sample", "fp32", "weights"));
         EXPECT_LT(part("train", "bf16", "kept"), part("train", "fp32", "kept") * 6 / 10);
     }},
    {"info",
     {"for", "batch-size"},
     [](EveryOption &t) {
         t.make_models();
         for (const char *what : {"train", "sample"}) {
             const EveryOption::Words plan = {"info",  "--plan", "--model", "images",
                                              "--for", what,     "--json",  "--memory"};
             auto total = [&](int64_t batch) {
                 json_t *j = t.json(
                     EveryOption::joined(plan, {"1G", "--batch-size", std::to_string(batch)}));
                 EXPECT_STREQ(json_string_value(json_object_get(j, "for")), what);
                 EXPECT_EQ(json_integer_value(json_object_get(j, "batch_size")), batch);
                 const double bytes = json_number_value(json_object_get(j, "total"));
                 json_decref(j);
                 return bytes;
             };
             json_t *j = t.json(EveryOption::joined(plan, {"3M"}));
             const int64_t largest = json_integer_value(json_object_get(j, "largest_batch"));
             EXPECT_EQ(json_number_value(json_object_get(j, "largest_total")), total(largest));
             EXPECT_LE(total(largest), 3.0 * 1024 * 1024);
             EXPECT_GT(total(largest + 1), 3.0 * 1024 * 1024);
             EXPECT_GT(largest, 1);
             json_decref(j);
         }
     }},
};

static const std::vector<Misuse> info_misuses = {
    {"info", "plan", {"--plan"}, 2, "--preset NAME or of --model DIR"},
    {"info", "plan", {"--plan", "--preset", "scurve", "--model", "points"}, 2, "or of --model DIR"},
    {"info", "preset", {"--preset", "scurve"}, 2, "belongs to --plan"},
    {"info", "for", {"--for", "sample"}, 2, "belongs to --plan"},
    {"info", "batch-size", {"--batch-size", "8"}, 2, "belongs to --plan"},
    {"info", "precision", {"--precision", "bf16"}, 2, "belongs to --plan"},
    {"info",
     "precision",
     {"--plan", "--preset", "scurve", "--precision", "fp16"},
     2,
     "belongs to --for sample"},
    {"info", "recompute", {"--recompute", "norms"}, 2, "belongs to --plan"},
    {"info",
     "recompute",
     {"--plan", "--preset", "scurve", "--for", "sample", "--recompute", "norms"},
     2,
     "belongs to --for train"},
    {"info", "data", {"--data", "scurve"}, 2, "belongs to --plan"},
    {"info",
     "data",
     {"--plan", "--preset", "scurve", "--for", "sample", "--data", "scurve"},
     2,
     "belongs to --for train"},
    {"info", "data", {"--plan", "--preset", "images", "--data", "absent"}, 1, "absent"},
    {"info", "data", {"--plan", "--preset", "scurve", "--data", "images.npy"}, 2, "another shape"},
    {"info", "memory", {"--plan", "--preset", "scurve", "--memory", "8Q"}, 2, "such as 8G or 500M"},
    {"info", "memory", {"--plan", "--preset", "scurve", "--memory", "0"}, 2, "such as 8G or 500M"},
    {"info", "model", {"--model", "absent"}, 1, "absent"},
    {"info", "model", {"--model", "."}, 1, "the directory of a model"},
    {"info", "variant", {"--variant", "half"}, 2, "no --model"},
    {"info", "json", {"--json=yes"}, 2, "takes no value"},
    {"info", "device", {"--device", "gpu"}, 2, "auto, cpu or cuda"},
    {"info", "no-fusion", {"--no-fusion", "norm"}, 2, "norm-statistics"},
    {"info", "provider", {"--provider", "onednn"}, 2, "auto, own or cudnn"},
    {"info",
     "provider",
     {"--device", "cpu", "--provider", "own"},
     2,
     "expected auto with --device cpu"},
    {"info", "threads", {"--threads", "1025"}, 2, "a whole number from 0 to 1024"},
};
