// For tests on a GPU: one that does not end, or that leaves a device which does nothing any more,
// ends the program at once, so that bench/go_on.sh can begin again with the next.
#include <gtest/gtest.h>

#include <cuda_runtime_api.h>

#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <unistd.h>

namespace {

enum { lost = 70, hangs = 71 }; // exit statuses

void give_up(int) {
    static const char text[] = "error: the test does not end, perhaps a kernel waits for ever\n";
    (void)!write(STDOUT_FILENO, text, sizeof text - 1);
    _exit(hangs);
}

class Watch : public testing::EmptyTestEventListener {
  public:
    explicit Watch(unsigned seconds) : seconds_(seconds) { signal(SIGALRM, give_up); }

  private:
    void OnTestStart(const testing::TestInfo &) override { alarm(seconds_); }
    void OnTestEnd(const testing::TestInfo &test) override {
        int devices = 0;
        const bool there = cudaGetDeviceCount(&devices) == cudaSuccess && devices;
        const cudaError_t error = there ? cudaDeviceSynchronize() : cudaSuccess;
        alarm(0);
        if (error == cudaSuccess) return;
        printf("error: %s.%s lost the device: %s\n", test.test_suite_name(), test.name(),
               cudaGetErrorString(error));
        fflush(stdout);
        _exit(lost);
    }
    const unsigned seconds_;
};

// TW_TEST_SECONDS is what a test may take; without it none is watched.
const bool watched = [] {
    const char *const text = getenv("TW_TEST_SECONDS");
    const int seconds = text ? atoi(text) : 0;
    if (seconds > 0)
        testing::UnitTest::GetInstance()->listeners().Append(new Watch((unsigned)seconds));
    return seconds > 0;
}();

} // namespace
