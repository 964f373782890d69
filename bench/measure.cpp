#include "measure.h"

#include "jobs.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <cuda_runtime_api.h>
#include <dlfcn.h>

namespace bench {
namespace {

struct Times {
    double median = 0, p10 = 0, p90 = 0;
    int n = 0;
};

Times summary(std::vector<double> t) {
    std::sort(t.begin(), t.end());
    auto at = [&](double q) { return t[(size_t)std::lround(q * (double)(t.size() - 1))]; };
    return {at(0.5), at(0.1), at(0.9), (int)t.size()};
}

twk_stream as_stream(cudaStream_t s) {
    return reinterpret_cast<twk_stream>(s);
}

using Run = std::function<bool(int set, cudaStream_t stream)>;

// Seconds a call, from events around `inner` calls captured in one graph; sets rotate through the
// calls (cold), or set 0 is taken each time (hot).
class Timer {
  public:
    Timer() {
        cudaStreamCreate(&stream_);
        cudaEventCreate(&begin_);
        cudaEventCreate(&end_);
    }
    ~Timer() {
        cudaEventDestroy(begin_);
        cudaEventDestroy(end_);
        cudaStreamDestroy(stream_);
    }
    cudaStream_t stream() const { return stream_; }

    // One sample: the graph of `inner` calls.
    struct Graph {
        cudaGraphExec_t exec = nullptr;
        int inner = 0;
        ~Graph() {
            if (exec) cudaGraphExecDestroy(exec);
        }
    };
    bool capture(const Run &run, int sets, bool cold, int inner, Graph *out) {
        cudaGraph_t graph = nullptr;
        if (cudaStreamBeginCapture(stream_, cudaStreamCaptureModeThreadLocal) != cudaSuccess)
            return false;
        bool ok = true;
        for (int i = 0; i < inner && ok; i++) ok = run(cold ? i % sets : 0, stream_);
        if (cudaStreamEndCapture(stream_, &graph) != cudaSuccess || !ok) return false;
        out->inner = inner;
        const bool made = cudaGraphInstantiate(&out->exec, graph, 0) == cudaSuccess;
        cudaGraphDestroy(graph);
        return made;
    }
    double sample(const Graph &g) {
        cudaEventRecord(begin_, stream_);
        cudaGraphLaunch(g.exec, stream_);
        cudaEventRecord(end_, stream_);
        if (cudaEventSynchronize(end_) != cudaSuccess) return NAN;
        float ms = 0;
        cudaEventElapsedTime(&ms, begin_, end_);
        return ms * 1e-3 / g.inner;
    }

  private:
    cudaStream_t stream_;
    cudaEvent_t begin_, end_;
};

// A and B, sample about, so that a change of clocks meets both.
bool compare(Timer *t, const Run &a, int a_sets, const Run &b, int b_sets, bool cold, double guess,
             int samples, Times *ta, Times *tb) {
    // Kernels under 10 us: a hundred or more in a graph. Long ones: a few.
    const int inner = guess < 10e-6 ? 128 : guess < 200e-6 ? 32 : 4;
    Timer::Graph ga, gb;
    if (!t->capture(a, a_sets, cold, inner, &ga) || !t->capture(b, b_sets, cold, inner, &gb))
        return false;
    std::vector<double> va, vb;
    for (int i = 0; i < samples + 3; i++) { // three to warm up
        const double sa = t->sample(ga), sb = t->sample(gb);
        if (!(sa > 0) || !(sb > 0)) return false;
        if (i < 3) continue;
        va.push_back(sa);
        vb.push_back(sb);
    }
    *ta = summary(va);
    *tb = summary(vb);
    return true;
}

// Device copy of the same bytes, read plus write.
struct Copy {
    std::vector<char *> buffers;
    size_t bytes;
    explicit Copy(double total) : bytes((size_t)(total / 2) / 16 * 16) {
        const int sets = std::clamp((int)(512e6 / total) + 1, 2, 64);
        for (int i = 0; i < 2 * sets; i++) {
            void *p = nullptr;
            if (cudaMalloc(&p, bytes + 16) != cudaSuccess) break;
            cudaMemset(p, 37 + i, bytes);
            buffers.push_back(static_cast<char *>(p));
        }
    }
    ~Copy() {
        for (char *p : buffers) cudaFree(p);
    }
    int sets() const { return (int)buffers.size() / 2; }
    bool run(int set, cudaStream_t s) const {
        return cudaMemcpyAsync(buffers[2 * set], buffers[2 * set + 1], bytes,
                               cudaMemcpyDeviceToDevice, s) == cudaSuccess;
    }
};

// bf16 matmul rate from the vendor's library, where it can be loaded; else 0.
double matmul_rate(Timer *timer) {
    void *lib = nullptr;
    for (const char *name : {"libcublas.so.13", "libcublas.so.12", "libcublas.so"})
        if (!lib) lib = dlopen(name, RTLD_NOW);
    if (!lib) return 0;
    using Create = int (*)(void **);
    using SetStream = int (*)(void *, cudaStream_t);
    using Gemm = int (*)(void *, int, int, int, int, int, const void *, const void *, int, int,
                         const void *, int, int, const void *, void *, int, int, int, int);
    const auto create = reinterpret_cast<Create>(dlsym(lib, "cublasCreate_v2"));
    const auto set_stream = reinterpret_cast<SetStream>(dlsym(lib, "cublasSetStream_v2"));
    const auto gemm = reinterpret_cast<Gemm>(dlsym(lib, "cublasGemmEx"));
    void *handle = nullptr;
    if (!create || !set_stream || !gemm || create(&handle) != 0) return 0;
    const int n = 8192, bf16 = 14, compute_32f = 68;
    void *m[3] = {};
    for (void *&p : m) {
        if (cudaMalloc(&p, (size_t)n * n * 2) != cudaSuccess) return 0;
        twk_noise_fill_args a = {};
        a.batch = n;
        a.elements = n;
        a.out = p;
        a.format = TWK_BF16;
        a.scale = 1;
        twk_noise_fill(&a, nullptr);
    }
    cudaDeviceSynchronize();
    set_stream(handle, timer->stream());
    const float one = 1, zero = 0;
    cudaEvent_t begin, end;
    cudaEventCreate(&begin);
    cudaEventCreate(&end);
    double best = 0;
    for (int i = 0; i < 10; i++) {
        cudaEventRecord(begin, timer->stream());
        const int status = gemm(handle, 0, 0, n, n, n, &one, m[0], bf16, n, m[1], bf16, n, &zero,
                                m[2], bf16, n, compute_32f, -1);
        cudaEventRecord(end, timer->stream());
        if (status != 0 || cudaEventSynchronize(end) != cudaSuccess) break;
        float ms = 0;
        cudaEventElapsedTime(&ms, begin, end);
        best = std::max(best, 2.0 * n * n * n / (ms * 1e-3));
    }
    for (void *p : m) cudaFree(p);
    cudaEventDestroy(begin);
    cudaEventDestroy(end);
    return best;
}

// Reads 16 MB again and again: what the L2 gives.
double l2_read_rate(Timer *timer) {
    Row r = {};
    r.kind = Kind::column_sums;
    r.format = TWK_BF16;
    r.n = 64;
    r.h = r.w = 32;
    r.c = 128;
    r.bytes = 2.0 * 64 * 32 * 32 * 128;
    const Job job = make_job(r);
    if (!job.sets) return 0;
    Times a, b;
    const Run run = [&](int set, cudaStream_t s) { return job.run(set, as_stream(s)) == TWK_OK; };
    if (!compare(timer, run, job.sets, run, job.sets, false, 10e-6, 20, &a, &b)) return 0;
    return r.bytes / a.median;
}

struct Result {
    Times cold, hot, copy_cold, copy_hot;
    twk_launch_info info = {};
    double error = -1; // below zero: this row has no check of its own
};

bool measure_row(const Row &r, const Options &o, Timer *timer, Result *out) {
    const Job job = make_job(r);
    const Copy copy(r.bytes);
    if (!job.sets || copy.sets() < 1) return false;
    const Run run = [&](int set, cudaStream_t s) { return job.run(set, as_stream(s)) == TWK_OK; };
    const Run peer = [&](int set, cudaStream_t s) { return copy.run(set, s); };
    if (!run(0, timer->stream()) || cudaStreamSynchronize(timer->stream()) != cudaSuccess)
        return false;
    twk_last_launch(&out->info);
    if (job.error) out->error = job.error();
    const int samples = o.quick ? 15 : 60;
    const double guess = predicted_seconds(r);
    return compare(timer, run, job.sets, peer, copy.sets(), true, guess, samples, &out->cold,
                   &out->copy_cold) &&
           compare(timer, run, job.sets, peer, copy.sets(), false, guess, samples, &out->hot,
                   &out->copy_hot);
}

void print_row(const Row &r, const Result &m, FILE *json) {
    const double rate = r.bytes / m.cold.median, percent = 100 * m.copy_cold.median / m.cold.median;
    printf("%-28s %-18s %s  %9.2f us (%.2f-%.2f, n %d)  %7.0f GB/s  %5.1f %% of copy (predicted "
           "%.0f)  hot %.2f us  %s  %d regs %zu B shared\n",
           r.name.c_str(), shape_of(r).c_str(), name_of(r.format), m.cold.median * 1e6,
           m.cold.p10 * 1e6, m.cold.p90 * 1e6, m.cold.n, rate / 1e9, percent, r.percent,
           m.hot.median * 1e6, r.limit.c_str(), m.info.registers, m.info.shared);
    fflush(stdout);
    if (!json) return;
    char error[32] = "null";
    if (m.error >= 0)
        snprintf(error, sizeof error, "%.3g", m.error);
    else if (std::isnan(m.error))
        snprintf(error, sizeof error, "\"nan\"");
    fprintf(
        json,
        "{\"kernel\":\"%s\",\"shape\":\"%s\",\"format\":\"%s\",\"layout\":\"nhwc\","
        "\"provider\":\"own\",\"bytes\":%.0f,\"byte_formula\":\"%s\",\"cold_us\":%.3f,"
        "\"cold_p10_us\":%.3f,\"cold_p90_us\":%.3f,\"n\":%d,\"hot_us\":%.3f,\"gb_per_s\":%.1f,"
        "\"percent_of_copy\":%.2f,\"predicted_percent\":%.0f,\"limit\":\"%s\",\"peer\":\"device "
        "copy of the same bytes\",\"peer_cold_us\":%.3f,\"peer_hot_us\":%.3f,\"launched\":\"%s\","
        "\"registers\":%d,\"local_bytes\":%d,\"shared_bytes\":%zu,\"blocks\":%u,\"cluster\":%u,"
        "\"error_float64\":%s}\n",
        r.name.c_str(), shape_of(r).c_str(), name_of(r.format), r.bytes, r.formula.c_str(),
        m.cold.median * 1e6, m.cold.p10 * 1e6, m.cold.p90 * 1e6, m.cold.n, m.hot.median * 1e6,
        rate / 1e9, percent, r.percent, r.limit.c_str(), m.copy_cold.median * 1e6,
        m.copy_hot.median * 1e6, m.info.kernel, m.info.registers, m.info.local_bytes, m.info.shared,
        m.info.blocks, m.info.cluster, error);
    fflush(json);
}

void print_header(Timer *timer, FILE *json) {
    cudaDeviceProp p;
    int driver = 0, runtime = 0;
    cudaGetDeviceProperties(&p, 0);
    cudaDriverGetVersion(&driver);
    cudaRuntimeGetVersion(&runtime);
    const Copy copy(1e9);
    const Run run = [&](int set, cudaStream_t s) { return copy.run(set, s); };
    Times a, b;
    double rate = 0;
    if (copy.sets() > 0 &&
        compare(timer, run, copy.sets(), run, copy.sets(), true, 1e-3, 20, &a, &b))
        rate = 2.0 * (double)copy.bytes / a.median;
    const double matmul = matmul_rate(timer), l2 = l2_read_rate(timer);
    auto shown = [](double v, double unit) {
        char text[32];
        snprintf(text, sizeof text, "%.0f", v / unit);
        return v > 0 ? std::string(text) : std::string("null");
    };
    printf("%s, sm_%d%d, driver %d, runtime %d, copy %s GB/s, L2 read %s GB/s, bf16 matmul %s "
           "TFLOP/s (null: not measured)\n",
           p.name, p.major, p.minor, driver, runtime, shown(rate, 1e9).c_str(),
           shown(l2, 1e9).c_str(), shown(matmul, 1e12).c_str());
    if (!json) return;
    fprintf(json,
            "{\"gpu\":\"%s\",\"sm\":\"%d.%d\",\"driver\":%d,\"runtime\":%d,\"copy_gb_per_s\":%s,"
            "\"l2_read_gb_per_s\":%s,\"bf16_matmul_tflop_per_s\":%s}\n",
            p.name, p.major, p.minor, driver, runtime, shown(rate, 1e9).c_str(),
            shown(l2, 1e9).c_str(), shown(matmul, 1e12).c_str());
}

} // namespace

int measure(const std::vector<Row> &rows, const Options &options) {
    int count = 0;
    const cudaError_t error = cudaGetDeviceCount(&count);
    if (error != cudaSuccess || count == 0) {
        fprintf(stderr, "kernel_bench: no CUDA device (%s): the plan only\n",
                cudaGetErrorString(error));
        return 2;
    }
    FILE *json = nullptr;
    if (!options.json.empty() && !(json = fopen(options.json.c_str(), "w"))) {
        fprintf(stderr, "kernel_bench: --json: cannot write %s\n", options.json.c_str());
        return 1;
    }
    Timer timer;
    print_header(&timer, json);
    int failed = 0;
    for (const Row &r : rows) {
        Result result;
        if (measure_row(r, options, &timer, &result)) {
            print_row(r, result, json);
            continue;
        }
        failed = 1;
        printf("%-28s %-18s %s  failed: %s %s\n", r.name.c_str(), shape_of(r).c_str(),
               name_of(r.format), twk_error_text(), cudaGetErrorString(cudaGetLastError()));
    }
    if (json) fclose(json);
    return failed;
}

} // namespace bench
