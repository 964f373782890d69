// What the command on the emulated device finds there. With TW_EMULATED_LIBRARIES there are
// libraries that stand in for cuDNN and cuBLASLt; TW_EMULATED_COSTS="KERNEL LIBRARY" are the
// milliseconds that a launch of either is said to take.
#include <cstdio>
#include <cstdlib>

#include "emulated.h"
#include "vendor/fake/fake.h"

extern "C" fake::State *fake_state();

namespace {

[[maybe_unused]] const bool ready = [] {
    const char *const costs = std::getenv("TW_EMULATED_COSTS");
    double kernel = 1, library = 1;
    if (costs && std::sscanf(costs, "%lf %lf", &kernel, &library) == 2)
        emulated::set_costs(kernel, library);
#if defined(FAKE_CUDNN) && defined(FAKE_CUBLASLT)
    if (std::getenv("TW_EMULATED_LIBRARIES")) {
        fake::State &s = *fake_state();
        s.later = emulated::later;
        s.n_engines = 1;
        emulated::set_libraries(FAKE_CUDNN, FAKE_CUBLASLT);
    }
#endif
    return true;
}();

} // namespace
