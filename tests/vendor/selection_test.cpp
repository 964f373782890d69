// cuDNN's own choice for an H200 that is described to it, where cuDNN is installed; no GPU is
// needed. What it chooses may change with its version, that there is a choice may not.
#include "support.h"

#include <dlfcn.h>

#ifdef __SANITIZE_ADDRESS__
#include <sanitizer/lsan_interface.h>
#else
static void __lsan_disable() {}
static void __lsan_enable() {}
#endif

using namespace vnd;

namespace {

const char h200[] =
    R"({"deviceVer":900,"cudaDeviceId":0,"driverVer":13000,"totalGlobalMem":150754820096,)"
    R"("maxGridSize":[2147483647,65535,65535],"maxBlockSize":[1024,1024,64],"regsPerBlock":65536,)"
    R"("multiProcessorCount":132,"warpSize":32,"maxSharedMemoryPerBlock":49152,)"
    R"("maxSharedMemoryPerBlockOptin":232448,"reservedSharedMemoryPerBlock":1024,)"
    R"("maxSharedMemoryPerSM":233472,"maxRegistersPerSM":65536,"maxCtasPerSM":32,)"
    R"("maxThreadsPerBlock":1024,"maxThreadsPerSM":2048,"pciDeviceId":0,"isTccDriver":0,)"
    R"("supportCoopLaunch":1,"smClockRateKHz":1980000,"memClockRateKHz":3201000,)"
    R"("l2CacheSize":62914560,"deviceName":"NVIDIA H200"})";

struct Shape {
    int64_t size;
    int c, o, kernel, stride;
};
// Layers of a U-Net for 32 x 32 pixels: into it, through it, down, and out.
constexpr Shape shapes[] = {
    {32, 3, 128, 3, 1},   {32, 128, 128, 3, 1}, {32, 384, 128, 1, 1},
    {32, 128, 128, 3, 2}, {4, 256, 256, 3, 1},  {32, 128, 3, 3, 1},
};

twk_conv_args conv_of(const Shape &s, twk_format f, bool tf32) {
    twk_conv_args a = {};
    a.batch = 64;
    a.h = a.w = s.size;
    a.channels = s.c;
    a.out_channels = s.o;
    a.kernel_h = a.kernel_w = s.kernel;
    a.stride = s.stride;
    a.pad_bottom = a.pad_right = s.kernel / 2;
    a.pad_top = a.pad_left = s.stride == 1 ? s.kernel / 2 : 0;
    a.format = f;
    a.tf32 = tf32;
    return a;
}

class SelectionTest : public ::testing::Test {
  protected:
    tw_vendor_options o = {};
    tw_vendor_choice choice = {};
    // The libraries leave memory behind. What this project does is seen with the stand-ins.
    SelectionTest() { __lsan_disable(); }
    ~SelectionTest() override { __lsan_enable(); }
    void SetUp() override {
        void *const library = dlopen("libcudnn.so.9", RTLD_NOW | RTLD_NODELETE);
        if (!library) GTEST_SKIP() << "no cuDNN here: " << dlerror();
        size_t (*version)() = nullptr;
        *reinterpret_cast<void **>(&version) = dlsym(library, "cudnnGetVersion");
        if (!version || version() < 90800)
            GTEST_SKIP() << "cuDNN chooses for a described device from 9.8 on only";
        o.device = h200;
        o.kernels = launchers();
    }
};

// Every convolution has plans that are compiled already, within the workspace.
TEST_F(SelectionTest, Convolutions) {
    o.workspace_limit = size_t(512) << 20;
    Vendor v(o), again(o);
    static const float some = 0;
    for (const Shape &s : shapes)
        for (int math = 0; math < 4; math++)
            for (int op = 0; op < 4; op++) { // forward, with a bias, and the gradients
                twk_conv_args a = conv_of(s, math < 3 ? formats[math] : TWK_F32, math == 3);
                if (op == 1) a.bias = &some;
                const tw_vendor_call c =
                    call_of(a, op < 2 ? TW_VENDOR_CONV_FORWARD : (tw_vendor_op)(op - 1));
                ASSERT_RUNS(tw_vendor_choose(v, &c, &choice)) << s.c << "->" << s.o << " " << op;
                EXPECT_EQ(std::string(choice.text).compare(0, 7, "cuDNN 9"), 0) << choice.text;
                EXPECT_LT(choice.workspace, size_t(520) << 20);
                const tw_vendor_choice first = choice;
                ASSERT_RUNS(tw_vendor_choose(again, &c, &choice));
                EXPECT_EQ(choice.engine, first.engine);
                EXPECT_EQ(choice.workspace, first.workspace);
            }
}

TEST_F(SelectionTest, TheBiasIsPartOfTheCall) {
    Vendor v(o);
    const Tensor some(TWK_BF16, 64);
    twk_conv_args a = conv_of(shapes[1], TWK_BF16, false);
    a.bias = some.f32();
    a.residual = some.data();
    const tw_vendor_call c = call_of(a);
    EXPECT_EQ(tw_vendor_choose(v, &c, &choice), TWK_OK) << tw_vendor_text();
}

// Other terms would be compiled at run time.
TEST_F(SelectionTest, CannotWithoutCompilation) {
    Vendor v(o);
    const Tensor some(TWK_BF16, 64);
    twk_conv_args a = conv_of(shapes[1], TWK_BF16, false);
    a.silu = 1;
    const tw_vendor_call silu = call_of(a);
    EXPECT_CANNOT(tw_vendor_choose(v, &silu, &choice), "compiled");
    twk_conv_args b = conv_of(shapes[1], TWK_BF16, false);
    b.vector = some.data();
    b.vector_stride = 128;
    const tw_vendor_call vector = call_of(b);
    EXPECT_CANNOT(tw_vendor_choose(v, &vector, &choice), "compiled");
}

TEST_F(SelectionTest, WithinTheWorkspace) {
    const twk_conv_args a = conv_of(shapes[1], TWK_F32, false);
    const tw_vendor_call c = call_of(a);
    for (size_t limit : {size_t(1) << 20, size_t(1)}) {
        o.workspace_limit = limit;
        Vendor v(o);
        if (tw_vendor_choose(v, &c, &choice) == TWK_OK)
            EXPECT_LE(choice.workspace, limit + 512);
        else
            EXPECT_CANNOT(tw_vendor_choose(v, &c, &choice), "too much workspace");
    }
}

TEST_F(SelectionTest, ADescriptionThatIsNone) {
    o.device = R"({"deviceVer":900})";
    Vendor v(o);
    const twk_conv_args a = conv_of(shapes[1], TWK_F32, false);
    const tw_vendor_call c = call_of(a);
    EXPECT_CANNOT(tw_vendor_choose(v, &c, &choice), "description of a device");
}

TEST_F(SelectionTest, Attention) {
    Vendor v(o);
    twk_attention_args a = {};
    a.batch = 64;
    a.q_tokens = a.k_tokens = 256;
    a.heads = 4;
    a.head_size = 64;
    a.format = TWK_BF16;
    a.q_row = a.k_row = a.v_row = 768;
    a.q_batch = a.k_batch = a.v_batch = 768 * 256;
    a.o_row = 256;
    a.o_batch = 65536;
    const tw_vendor_call c = call_of(a, TW_VENDOR_ATTENTION_FORWARD);
    EXPECT_CANNOT(tw_vendor_choose(v, &c, &choice), "compiled at run time");
}

} // namespace
