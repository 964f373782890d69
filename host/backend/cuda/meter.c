#include "backend/cuda/meter.h"

#include <dlfcn.h>
#include <math.h>
#include <stddef.h>

#include "backend/cuda/vendor/library.h"

/* As nvml.h declares them; a status of 0 is success. */
typedef struct nvml_device *nvml_device;
typedef struct nvml_utilization {
    unsigned gpu, memory; /* per cent */
} nvml_utilization;

struct tw_cuda_meter {
    void *library;
    nvml_device device;
    int (*init)(void);
    int (*shutdown)(void);
    int (*find)(const char *pci, nvml_device *out);
    int (*energy)(nvml_device device, unsigned long long *millijoules);
    int (*utilization)(nvml_device device, nvml_utilization *out);
};

static const tw_library_symbol symbols[] = {
    {"nvmlInit_v2", offsetof(tw_cuda_meter, init)},
    {"nvmlShutdown", offsetof(tw_cuda_meter, shutdown)},
    {"nvmlDeviceGetHandleByPciBusId_v2", offsetof(tw_cuda_meter, find)},
    {"nvmlDeviceGetTotalEnergyConsumption", offsetof(tw_cuda_meter, energy)},
    {"nvmlDeviceGetUtilizationRates", offsetof(tw_cuda_meter, utilization)},
};

tw_cuda_meter *tw_cuda_meter_open(tw_context *ctx, const char *file, const char *pci) {
    static const char *const names[] = {"libnvidia-ml.so.1", NULL};
    char why[256];
    tw_cuda_meter *m = tw_allocate(ctx, 1, sizeof *m);
    if (!m) return NULL;
    m->library = tw_library_open(file, names, symbols, (int)(sizeof symbols / sizeof *symbols), m,
                                 why, sizeof why);
    if (m->library && m->init() == 0) {
        if (m->find(pci, &m->device) == 0) return m;
        m->shutdown();
    }
    if (m->library) dlclose(m->library);
    tw_free(ctx, m);
    return NULL;
}

double tw_cuda_meter_joules(const tw_cuda_meter *m) {
    unsigned long long millijoules = 0;
    return m->energy(m->device, &millijoules) == 0 ? 1e-3 * (double)millijoules : (double)NAN;
}

double tw_cuda_meter_busy(const tw_cuda_meter *m) {
    nvml_utilization u = {0, 0};
    return m->utilization(m->device, &u) == 0 ? 0.01 * (double)u.gpu : (double)NAN;
}

void tw_cuda_meter_close(tw_context *ctx, tw_cuda_meter *m) {
    if (!m) return;
    m->shutdown();
    dlclose(m->library);
    tw_free(ctx, m);
}
