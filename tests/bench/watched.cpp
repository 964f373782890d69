// Tests for go_on.sh, one of which ends the program: PLANT names how. The runtime is a stand-in.
#include <gtest/gtest.h>

#include <cuda_runtime_api.h>

#include <cstdlib>
#include <string>
#include <unistd.h>

namespace {

bool lost;
bool planted(const char *what) {
    const char *const p = getenv("PLANT");
    return p && std::string(p) == what;
}

TEST(Parts, First) {
    EXPECT_FALSE(planted("failure"));
}
TEST(Parts, Planted) {
    while (planted("hang")) pause();
    if (planted("crash")) abort();
    lost = planted("loss");
}
TEST(Parts, Last) {
    EXPECT_FALSE(lost);
}

} // namespace

cudaError_t cudaGetDeviceCount(int *count) {
    *count = 1;
    return cudaSuccess;
}
cudaError_t cudaDeviceSynchronize(void) {
    return lost ? cudaErrorIllegalAddress : cudaSuccess;
}
const char *cudaGetErrorString(cudaError_t) {
    return "an illegal address";
}
