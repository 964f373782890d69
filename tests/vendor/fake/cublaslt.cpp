// cuBLASLt: d = alpha op(a) op(b) + beta c + bias, matrices column by column.
#include "fake.h"
#include "formats.h"

#include <cublasLt.h>

#include <map>
#include <vector>

extern "C" fake::State *fake_state();

namespace {

using fake::Format;
using Attributes = std::map<int, std::vector<unsigned char>>;

template <typename T> T get(const Attributes &a, int name, T otherwise) {
    const auto at = a.find(name);
    if (at == a.end() || at->second.size() < sizeof(T)) return otherwise;
    T value;
    memcpy(&value, at->second.data(), sizeof value);
    return value;
}

struct Desc {
    cublasComputeType_t compute;
    cudaDataType_t scale;
    Attributes set;
};
struct Layout {
    cudaDataType type;
    uint64_t rows, columns;
    int64_t ld;
    Attributes set;
    int64_t batch() const { return get<int32_t>(set, CUBLASLT_MATRIX_LAYOUT_BATCH_COUNT, 1); }
    int64_t apart() const {
        return get<int64_t>(set, CUBLASLT_MATRIX_LAYOUT_STRIDED_BATCH_OFFSET, 0);
    }
    Format format() const {
        return type == CUDA_R_32F ? Format::f32 : type == CUDA_R_16F ? Format::f16 : Format::bf16;
    }
};

void keep(Attributes &a, int name, const void *value, size_t bytes) {
    const unsigned char *const p = static_cast<const unsigned char *>(value);
    a[name] = std::vector<unsigned char>(p, p + bytes);
}

template <typename T> cublasStatus_t drop(T *object) {
    delete object;
    fake_state()->live--;
    return CUBLAS_STATUS_SUCCESS;
}

const fake::Engine *engine_of(const cublasLtMatmulAlgo_t *algo) {
    for (int i = 0; i < fake_state()->n_engines; i++)
        if ((uint64_t)fake_state()->engines[i].index == algo->data[0])
            return &fake_state()->engines[i];
    return nullptr;
}

// False where the shapes do not fit each other.
bool multiply(const Desc &d, const Layout &a, const Layout &b, const Layout &c, const Layout &out,
              const void *pa, const void *pb, const void *pc, void *pd, double alpha, double beta,
              double factor) {
    const bool turn_a = get(d.set, CUBLASLT_MATMUL_DESC_TRANSA, CUBLAS_OP_N) == CUBLAS_OP_T;
    const bool turn_b = get(d.set, CUBLASLT_MATMUL_DESC_TRANSB, CUBLAS_OP_N) == CUBLAS_OP_T;
    const int64_t m = (int64_t)(turn_a ? a.columns : a.rows);
    const int64_t k = (int64_t)(turn_a ? a.rows : a.columns);
    const int64_t n = (int64_t)(turn_b ? b.rows : b.columns);
    const void *const bias = get<const void *>(d.set, CUBLASLT_MATMUL_DESC_BIAS_POINTER, nullptr);
    const bool with_bias = get(d.set, CUBLASLT_MATMUL_DESC_EPILOGUE, CUBLASLT_EPILOGUE_DEFAULT) ==
                           CUBLASLT_EPILOGUE_BIAS;
    if ((int64_t)(turn_b ? b.columns : b.rows) != k || (int64_t)out.rows != m ||
        (int64_t)out.columns != n || c.rows != out.rows || c.columns != out.columns ||
        a.ld < (int64_t)a.rows || b.ld < (int64_t)b.rows || out.ld < m || a.type != b.type ||
        a.batch() != out.batch() || b.batch() != out.batch() || c.type != out.type ||
        (with_bias && !bias))
        return false;
    for (int64_t p = 0; p < out.batch(); p++)
        for (int64_t j = 0; j < n; j++)
            for (int64_t i = 0; i < m; i++) {
                double sum = 0;
                for (int64_t l = 0; l < k; l++)
                    sum += fake::read(a.format(), pa,
                                      p * a.apart() + (turn_a ? l + i * a.ld : i + l * a.ld)) *
                           fake::read(b.format(), pb,
                                      p * b.apart() + (turn_b ? j + l * b.ld : l + j * b.ld));
                sum *= alpha * factor;
                if (beta != 0)
                    sum += beta * fake::read(c.format(), pc, p * c.apart() + i + j * c.ld);
                if (with_bias) sum += fake::read(out.format(), bias, i);
                fake::write(out.format(), pd, p * out.apart() + i + j * out.ld, sum);
            }
    return true;
}

template <typename T> T *as(const void *p) {
    return static_cast<T *>(const_cast<void *>(p));
}

} // namespace

#define EXPORT extern "C" __attribute__((visibility("default")))

EXPORT size_t cublasLtGetVersion() {
    return fake_state()->version ? fake_state()->version : 139900;
}
EXPORT const char *cublasLtGetStatusString(cublasStatus_t status) {
    return status == CUBLAS_STATUS_SUCCESS         ? "success"
           : status == CUBLAS_STATUS_NOT_SUPPORTED ? "not supported"
                                                   : "failure";
}
EXPORT cublasStatus_t cublasLtCreate(cublasLtHandle_t *handle) {
    if (fake_state()->no_handle) return CUBLAS_STATUS_NOT_INITIALIZED;
    *handle = reinterpret_cast<cublasLtHandle_t>(new int(0));
    fake_state()->live++;
    return CUBLAS_STATUS_SUCCESS;
}
EXPORT cublasStatus_t cublasLtDestroy(cublasLtHandle_t handle) {
    return drop(reinterpret_cast<int *>(handle));
}
EXPORT cublasStatus_t cublasLtMatmulDescCreate(cublasLtMatmulDesc_t *out, cublasComputeType_t type,
                                               cudaDataType_t scale) {
    *out = reinterpret_cast<cublasLtMatmulDesc_t>(new Desc{type, scale, {}});
    fake_state()->live++;
    return CUBLAS_STATUS_SUCCESS;
}
EXPORT cublasStatus_t cublasLtMatmulDescDestroy(cublasLtMatmulDesc_t d) {
    return drop(as<Desc>(d));
}
EXPORT cublasStatus_t cublasLtMatmulDescSetAttribute(cublasLtMatmulDesc_t d,
                                                     cublasLtMatmulDescAttributes_t name,
                                                     const void *value, size_t bytes) {
    keep(as<Desc>(d)->set, name, value, bytes);
    return CUBLAS_STATUS_SUCCESS;
}
EXPORT cublasStatus_t cublasLtMatrixLayoutCreate(cublasLtMatrixLayout_t *out, cudaDataType type,
                                                 uint64_t rows, uint64_t columns, int64_t ld) {
    *out = reinterpret_cast<cublasLtMatrixLayout_t>(new Layout{type, rows, columns, ld, {}});
    fake_state()->live++;
    return CUBLAS_STATUS_SUCCESS;
}
EXPORT cublasStatus_t cublasLtMatrixLayoutDestroy(cublasLtMatrixLayout_t l) {
    return drop(as<Layout>(l));
}
EXPORT cublasStatus_t cublasLtMatrixLayoutSetAttribute(cublasLtMatrixLayout_t l,
                                                       cublasLtMatrixLayoutAttribute_t name,
                                                       const void *value, size_t bytes) {
    keep(as<Layout>(l)->set, name, value, bytes);
    return CUBLAS_STATUS_SUCCESS;
}
// A preference is made by the header around these two.
EXPORT cublasStatus_t cublasLtMatmulPreferenceCreate(cublasLtMatmulPreference_t *out) {
    *out = reinterpret_cast<cublasLtMatmulPreference_t>(new Attributes);
    fake_state()->live++;
    return CUBLAS_STATUS_SUCCESS;
}
EXPORT cublasStatus_t cublasLtMatmulPreferenceDestroy(cublasLtMatmulPreference_t p) {
    return drop(as<Attributes>(p));
}
EXPORT cublasStatus_t cublasLtMatmulPreferenceSetAttribute(
    cublasLtMatmulPreference_t p, cublasLtMatmulPreferenceAttributes_t name, const void *value,
    size_t bytes) {
    keep(*as<Attributes>(p), name, value, bytes);
    return CUBLAS_STATUS_SUCCESS;
}
EXPORT cublasStatus_t cublasLtMatmulAlgoGetHeuristic(cublasLtHandle_t, cublasLtMatmulDesc_t,
                                                     cublasLtMatrixLayout_t, cublasLtMatrixLayout_t,
                                                     cublasLtMatrixLayout_t, cublasLtMatrixLayout_t,
                                                     cublasLtMatmulPreference_t wish, int most,
                                                     cublasLtMatmulHeuristicResult_t results[],
                                                     int *n) {
    const Attributes &w = *as<Attributes>(wish);
    fake::State &s = *fake_state();
    s.asked++;
    s.limit = get<uint64_t>(w, CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, 0);
    s.sums = get<uint32_t>(w, CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK,
                           CUBLASLT_REDUCTION_SCHEME_MASK);
    const int names[] = {
        CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES,
        CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES};
    for (int i = 0; i < 4; i++) s.alignment[i] = get<uint32_t>(w, names[i], 256);
    *n = 0;
    for (int i = 0; i < s.n_engines && *n < most; i++) {
        cublasLtMatmulHeuristicResult_t &r = results[(*n)++];
        memset(&r, 0, sizeof r);
        r.algo.data[0] = (uint64_t)s.engines[i].index;
        r.workspaceSize = s.engines[i].workspace;
        r.state = s.engines[i].refused ? CUBLAS_STATUS_NOT_SUPPORTED : CUBLAS_STATUS_SUCCESS;
    }
    return *n ? CUBLAS_STATUS_SUCCESS : CUBLAS_STATUS_NOT_SUPPORTED;
}
EXPORT cublasStatus_t cublasLtMatmulAlgoConfigGetAttribute(const cublasLtMatmulAlgo_t *algo,
                                                           cublasLtMatmulAlgoConfigAttributes_t,
                                                           void *value, size_t, size_t *written) {
    *static_cast<int32_t *>(value) = (int32_t)algo->data[0];
    *written = sizeof(int32_t);
    return CUBLAS_STATUS_SUCCESS;
}
EXPORT cublasStatus_t cublasLtMatmul(cublasLtHandle_t, cublasLtMatmulDesc_t desc, const void *alpha,
                                     const void *a, cublasLtMatrixLayout_t la, const void *b,
                                     cublasLtMatrixLayout_t lb, const void *beta, const void *c,
                                     cublasLtMatrixLayout_t lc, void *d, cublasLtMatrixLayout_t ld,
                                     const cublasLtMatmulAlgo_t *algo, void *workspace,
                                     size_t bytes, cudaStream_t stream) {
    const fake::Engine *const e = engine_of(algo);
    if (!e || e->breaks || bytes < e->workspace || (e->workspace && !workspace))
        return CUBLAS_STATUS_EXECUTION_FAILED;
    fake::State &s = *fake_state();
    s.executed++;
    s.engine = e->index;
    s.stream = stream;
    s.clock += e->milliseconds;
    const auto call = [=, of = *as<Desc>(desc), fa = *as<Layout>(la), fb = *as<Layout>(lb),
                       fc = *as<Layout>(lc), fd = *as<Layout>(ld), by = *e,
                       times = *static_cast<const float *>(alpha),
                       plus = *static_cast<const float *>(beta)] {
        if (by.workspace) memset(workspace, 0xff, by.workspace);
        return multiply(of, fa, fb, fc, fd, a, b, c, d, times, plus, by.wrong ? 1.5 : 1);
    };
    const bool ok = s.later ? s.later(stream, call) : call();
    return ok ? CUBLAS_STATUS_SUCCESS : CUBLAS_STATUS_INVALID_VALUE;
}
