// Libraries that are not there, or are not what they should be. None of it is an error: the answer
// is "cannot", with what is missing.
#include "support.h"

using namespace vnd;

namespace {

class LoadingTest : public VendorTest {
  protected:
    tw_vendor_options o = options();
    tw_vendor_choice choice = {};
    twk_conv_args conv = small_conv();
    twk_gemm_args gemm = {};
    LoadingTest() {
        gemm.batch = 1;
        gemm.m = gemm.n = gemm.k = gemm.a_row = gemm.b_row = 4;
    }
    twk_status choose_conv(tw_vendor *v) {
        const tw_vendor_call c = call_of(conv);
        return tw_vendor_choose(v, &c, &choice);
    }
    twk_status choose_gemm(tw_vendor *v) {
        const tw_vendor_call c = call_of(gemm);
        return tw_vendor_choose(v, &c, &choice);
    }
};

TEST_F(LoadingTest, NothingIsOpenedBeforeItIsWanted) {
    o.cudnn = o.cublaslt = o.driver = "/nowhere/lib.so";
    Vendor v(o);
    tw_vendor_destroy(nullptr);
}

TEST_F(LoadingTest, WithoutOptions) {
    tw_vendor *v = nullptr;
    ASSERT_EQ(tw_vendor_create(nullptr, &v), TWK_OK);
    tw_vendor_destroy(v);
}

TEST_F(LoadingTest, NoArguments) {
    Vendor v;
    const tw_vendor_call none = {};
    tw_vendor_call wrong = call_of(conv);
    wrong.op = (tw_vendor_op)77;
    EXPECT_BAD(tw_vendor_choose(v, &none, &choice), "no arguments");
    EXPECT_BAD(tw_vendor_choose(v, &wrong, &choice), "no arguments");
    EXPECT_BAD(tw_vendor_choose(v, nullptr, &choice), "no arguments");
    EXPECT_BAD(tw_vendor_choose(nullptr, &none, &choice), "no arguments");
}

#ifdef HAVE_CUDNN

TEST_F(LoadingTest, NoCudnn) {
    o.cudnn = "/nowhere/libcudnn.so.9";
    Vendor v(o);
    for (int i = 0; i < 2; i++) EXPECT_CANNOT(choose_conv(v), "/nowhere/libcudnn.so.9");
}

TEST_F(LoadingTest, CudnnLacksAFunction) {
    o.cudnn = FAKE_LACKING;
    Vendor v(o);
    EXPECT_CANNOT(choose_conv(v), "has no cudnnGetVersion");
    EXPECT_CANNOT(choose_conv(v), FAKE_LACKING);
}

TEST_F(LoadingTest, OtherCudnn) {
    for (size_t version : {size_t(8907), size_t(100000)}) {
        fake_state()->version = version;
        Vendor v(o);
        EXPECT_CANNOT(choose_conv(v), std::to_string(version));
        EXPECT_CANNOT(choose_conv(v), "built for 9.x");
    }
    EXPECT_EQ(fake_state()->asked, 0);
}

TEST_F(LoadingTest, NoDevice) {
    fake_state()->no_handle = true;
    Vendor v(o);
    EXPECT_CANNOT(choose_conv(v), "no handle: failure: no device");
    fake_state()->no_handle = false; // it is not asked again
    EXPECT_CANNOT(choose_conv(v), "no handle");
}

TEST_F(LoadingTest, DescribedDevice) {
    o.device = "{}";
    Vendor v(o);
    ASSERT_RUNS(choose_conv(v));
    EXPECT_CANNOT(tw_vendor_conv_forward(v, &conv, nullptr), "described device");
    EXPECT_EQ(fake_state()->executed, 0);
}

TEST_F(LoadingTest, ADescriptionThatIsNone) {
    o.device = "a GPU";
    Vendor v(o);
    EXPECT_CANNOT(choose_conv(v), "no JSON");
}

TEST_F(LoadingTest, CudnnTooOldForADescription) {
    o.device = "{}";
    fake_state()->version = 90700;
    Vendor v(o);
    EXPECT_CANNOT(choose_conv(v), "from 9.8 on only");
}

#else

TEST_F(LoadingTest, BuiltWithoutCudnn) {
    Vendor v(o);
    EXPECT_CANNOT(choose_conv(v), "without the headers of cuDNN");
    EXPECT_CANNOT(tw_vendor_conv_forward(v, &conv, nullptr), "without the headers of cuDNN");
}

#endif

#ifdef HAVE_CUBLASLT

TEST_F(LoadingTest, NoCublaslt) {
    o.cublaslt = "/nowhere/libcublasLt.so.13";
    Vendor v(o);
    EXPECT_CANNOT(choose_gemm(v), "/nowhere/libcublasLt.so.13");
#ifdef HAVE_CUDNN
    EXPECT_EQ(choose_conv(v), TWK_OK); // one library does without the other
#endif
}

TEST_F(LoadingTest, CublasltLacksAFunction) {
    o.cublaslt = FAKE_LACKING;
    Vendor v(o);
    EXPECT_CANNOT(choose_gemm(v), "has no cublasLtGetVersion");
}

TEST_F(LoadingTest, OtherCublaslt) {
    fake_state()->version = 111103;
    Vendor v(o);
    EXPECT_CANNOT(choose_gemm(v), "12.x and 13.x");
}

TEST_F(LoadingTest, NoDeviceForCublaslt) {
    fake_state()->no_handle = true;
    Vendor v(o);
    EXPECT_CANNOT(choose_gemm(v), "no handle");
}

#else

TEST_F(LoadingTest, BuiltWithoutCublaslt) {
    Vendor v(o);
    EXPECT_CANNOT(choose_gemm(v), "without the headers of cuBLASLt");
}

#endif

} // namespace
