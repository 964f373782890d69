// Stands in for NVML: the emulated GPU, which draws 100 watts and is at work 73 % of the time.
#include <chrono>
#include <cstring>

namespace {
int opened;
char the_gpu;
} // namespace

extern "C" {

struct Utilization {
    unsigned gpu, memory;
};

int nvmlInit_v2() {
    opened++;
    return 0;
}
int nvmlShutdown() {
    return --opened < 0;
}
int nvmlDeviceGetHandleByPciBusId_v2(const char *pci, void **device) {
    *device = &the_gpu;
    return opened > 0 && std::strcmp(pci, "0000:ec:00.0") == 0 ? 0 : 6;
}
int nvmlDeviceGetTotalEnergyConsumption(void *device, unsigned long long *millijoules) {
    using std::chrono::milliseconds;
    const auto now = std::chrono::steady_clock::now().time_since_epoch();
    *millijoules =
        100ULL * (unsigned long long)std::chrono::duration_cast<milliseconds>(now).count();
    return device != &the_gpu;
}
int nvmlDeviceGetUtilizationRates(void *device, Utilization *out) {
    *out = Utilization{73, 20};
    return device != &the_gpu;
}

} // extern "C"
