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
     {"json", "device", "threads"},
     [](EveryOption &t) {
         const Result r = t.works({"info", "--json", "--device", "cpu", "--threads", "3"});
         json_t *j = json_loads(r.out.c_str(), 0, nullptr);
         ASSERT_NE(j, nullptr) << r.out;
         EXPECT_STREQ(json_string_value(json_object_get(j, "device")), "CPU, 3 threads");
         EXPECT_EQ(json_integer_value(json_object_get(j, "threads")), 3);
         json_decref(j);
     }},
};

static const std::vector<Misuse> info_misuses = {
    {"info", "model", {"--model", "absent"}, 1, "absent"},
    {"info", "variant", {"--variant", "half"}, 2, "no --model"},
    {"info", "json", {"--json=yes"}, 2, "takes no value"},
    {"info", "device", {"--device", "gpu"}, 2, "auto, cpu or cuda"},
    {"info", "threads", {"--threads", "1025"}, 2, "a whole number from 0 to 1024"},
};
