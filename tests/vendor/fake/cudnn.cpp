// cuDNN's graph interface: descriptors as they are set, and the operations that the tests use.
#include "fake.h"
#include "formats.h"

#include <cudnn_graph.h>

#include <map>
#include <memory>
#include <vector>

extern "C" fake::State *fake_state();

namespace {

using fake::Format;

struct Descriptor {
    cudnnBackendDescriptorType_t type = CUDNN_BACKEND_TENSOR_DESCRIPTOR;
    bool finished = false;
    std::map<int, std::vector<unsigned char>> values;
    std::map<int, std::vector<std::shared_ptr<Descriptor>>> parts;
    const fake::Engine *engine = nullptr;

    template <typename T> std::vector<T> all(int name) const {
        const auto at = values.find(name);
        if (at == values.end()) return {};
        std::vector<T> out(at->second.size() / sizeof(T));
        memcpy(out.data(), at->second.data(), out.size() * sizeof(T));
        return out;
    }
    template <typename T> T one(int name, T otherwise) const {
        const std::vector<T> v = all<T>(name);
        return v.empty() ? otherwise : v[0];
    }
    const Descriptor *part(int name) const {
        const auto at = parts.find(name);
        return at == parts.end() ? nullptr : at->second[0].get();
    }
};

Descriptor *as(cudnnBackendDescriptor_t d) {
    return static_cast<Descriptor *>(d);
}

const char *last_error = "";
cudnnStatus_t fail(cudnnStatus_t status, const char *text) {
    last_error = text;
    return status;
}

size_t bytes_of(cudnnBackendAttributeType_t type) {
    switch (type) {
    case CUDNN_TYPE_CHAR:
    case CUDNN_TYPE_BOOLEAN:
        return 1;
    case CUDNN_TYPE_INT64:
    case CUDNN_TYPE_DOUBLE:
    case CUDNN_TYPE_VOID_PTR:
    case CUDNN_TYPE_HANDLE:
        return 8;
    default:
        return 4;
    }
}

// --- execution ----------------------------------------------------------------------------------

struct Tensor {
    explicit Tensor(const Descriptor *d)
        : uid(d->one<int64_t>(CUDNN_ATTR_TENSOR_UNIQUE_ID, 0)),
          dim(d->all<int64_t>(CUDNN_ATTR_TENSOR_DIMENSIONS)),
          stride(d->all<int64_t>(CUDNN_ATTR_TENSOR_STRIDES)),
          inside(d->one<unsigned char>(CUDNN_ATTR_TENSOR_IS_VIRTUAL, 0) != 0),
          alignment(d->one<int64_t>(CUDNN_ATTR_TENSOR_BYTE_ALIGNMENT, 16)) {
        const cudnnDataType_t t = d->one(CUDNN_ATTR_TENSOR_DATA_TYPE, CUDNN_DATA_FLOAT);
        format = t == CUDNN_DATA_FLOAT  ? Format::f32
                 : t == CUDNN_DATA_HALF ? Format::f16
                                        : Format::bf16;
    }
    int64_t count() const { return dim[0] * dim[1] * dim[2] * dim[3]; }
    int64_t place(int64_t i) const {
        int64_t at = 0;
        for (int axis = 3; axis >= 0; i /= dim[axis--]) at += i % dim[axis] * stride[axis];
        return at;
    }
    int64_t uid;
    std::vector<int64_t> dim, stride;
    bool inside;
    int64_t alignment;
    Format format;
};

// A graph's run: what lies at which address, and what never leaves the processor.
struct Run {
    std::map<int64_t, void *> address;
    std::map<int64_t, std::vector<double>> inside;
    double factor = 1;
    bool ok = true;

    std::vector<double> load(const Tensor &t) {
        if (t.inside) return inside[t.uid];
        std::vector<double> v((size_t)t.count());
        const void *const p = address[t.uid];
        if (!p || reinterpret_cast<uintptr_t>(p) % (uintptr_t)t.alignment) {
            ok = false;
            return v;
        }
        for (size_t i = 0; i < v.size(); i++) v[i] = fake::read(t.format, p, t.place((int64_t)i));
        return v;
    }
    void store(const Tensor &t, const std::vector<double> &v) {
        if (t.inside) {
            inside[t.uid] = v;
            return;
        }
        void *const p = address[t.uid];
        if (!p || reinterpret_cast<uintptr_t>(p) % (uintptr_t)t.alignment)
            ok = false;
        else
            for (size_t i = 0; i < v.size(); i++)
                fake::write(t.format, p, t.place((int64_t)i), v[i]);
    }
};

enum class Sum { y, x, w };

// y, dx or dw: each is a sum of products of the other two over the taps.
void convolve(Run &run, const Descriptor *op, Sum sum, int name_x, int name_w, int name_y,
              int name_geometry, int name_alpha, int name_beta) {
    const Tensor tx(op->part(name_x)), tw(op->part(name_w)), ty(op->part(name_y));
    const Descriptor *const g = op->part(name_geometry);
    const std::vector<int64_t> pad = g->all<int64_t>(CUDNN_ATTR_CONVOLUTION_PRE_PADDINGS);
    const std::vector<int64_t> end = g->all<int64_t>(CUDNN_ATTR_CONVOLUTION_POST_PADDINGS);
    const std::vector<int64_t> step = g->all<int64_t>(CUDNN_ATTR_CONVOLUTION_FILTER_STRIDES);
    const auto &X = tx.dim, &W = tw.dim, &Y = ty.dim;
    run.ok = run.ok && X[0] == Y[0] && X[1] == W[1] && Y[1] == W[0] &&
             Y[2] == (X[2] + pad[0] + end[0] - W[2]) / step[0] + 1 &&
             Y[3] == (X[3] + pad[1] + end[1] - W[3]) / step[1] + 1;
    if (!run.ok) return;
    const Tensor &to = sum == Sum::y ? ty : sum == Sum::x ? tx : tw;
    const double alpha = op->one<float>(name_alpha, 1) * run.factor;
    const double beta = op->one<float>(name_beta, 0);
    std::vector<double> x = sum == Sum::x ? std::vector<double>() : run.load(tx);
    std::vector<double> w = sum == Sum::w ? std::vector<double>() : run.load(tw);
    std::vector<double> y = sum == Sum::y ? std::vector<double>() : run.load(ty);
    std::vector<double> out((size_t)to.count());
    for (int64_t n = 0; n < Y[0]; n++)
        for (int64_t o = 0; o < Y[1]; o++)
            for (int64_t p = 0; p < Y[2] * Y[3]; p++)
                for (int64_t t = 0; t < W[1] * W[2] * W[3]; t++) {
                    const int64_t c = t / (W[2] * W[3]), r = t / W[3] % W[2], s = t % W[3];
                    const int64_t row = p / Y[3] * step[0] - pad[0] + r;
                    const int64_t column = p % Y[3] * step[1] - pad[1] + s;
                    if (row < 0 || column < 0 || row >= X[2] || column >= X[3]) continue;
                    const size_t ix = (size_t)(((n * X[1] + c) * X[2] + row) * X[3] + column);
                    const size_t iw = (size_t)(o * W[1] * W[2] * W[3] + t);
                    const size_t iy = (size_t)((n * Y[1] + o) * Y[2] * Y[3] + p);
                    if (sum == Sum::y)
                        out[iy] += x[ix] * w[iw];
                    else if (sum == Sum::x)
                        out[ix] += y[iy] * w[iw];
                    else
                        out[iw] += y[iy] * x[ix];
                }
    const std::vector<double> before =
        beta != 0 ? run.load(to) : std::vector<double>((size_t)to.count());
    for (size_t i = 0; i < out.size(); i++) out[i] = alpha * out[i] + beta * before[i];
    run.store(to, out);
}

void pointwise(Run &run, const Descriptor *op) {
    const Descriptor *const f = op->part(CUDNN_ATTR_OPERATION_POINTWISE_PW_DESCRIPTOR);
    const Tensor tx(op->part(CUDNN_ATTR_OPERATION_POINTWISE_XDESC));
    const Tensor ty(op->part(CUDNN_ATTR_OPERATION_POINTWISE_YDESC));
    std::vector<double> y = run.load(tx);
    if (f->one(CUDNN_ATTR_POINTWISE_MODE, CUDNN_POINTWISE_ADD) == CUDNN_POINTWISE_ADD) {
        const Tensor tb(op->part(CUDNN_ATTR_OPERATION_POINTWISE_BDESC));
        const double alpha2 = op->one<float>(CUDNN_ATTR_OPERATION_POINTWISE_ALPHA2, 1);
        const std::vector<double> b = run.load(tb);
        for (size_t i = 0; i < y.size(); i++) { // axes of extent 1 are repeated
            int64_t rest = (int64_t)i, at = 0, unit = 1;
            for (int axis = 3; axis >= 0; axis--) {
                const int64_t here = rest % ty.dim[axis];
                rest /= ty.dim[axis];
                at += (tb.dim[axis] == 1 ? 0 : here) * unit;
                unit *= tb.dim[axis];
            }
            y[i] += alpha2 * b[(size_t)at];
        }
    } else {
        for (double &v : y) v /= 1 + std::exp(-v);
    }
    run.store(ty, y);
}

#if CUDNN_VERSION >= 91301
void attend(Run &run, const Descriptor *op) {
    const Tensor tq(op->part(CUDNN_ATTR_OPERATION_SDPA_FWD_QDESC));
    const Tensor tk(op->part(CUDNN_ATTR_OPERATION_SDPA_FWD_KDESC));
    const Tensor tv(op->part(CUDNN_ATTR_OPERATION_SDPA_FWD_VDESC));
    const Tensor to(op->part(CUDNN_ATTR_OPERATION_SDPA_FWD_ODESC));
    const Tensor ts(op->part(CUDNN_ATTR_OPERATION_SDPA_FWD_SCALEDESC));
    const std::vector<double> q = run.load(tq), k = run.load(tk), v = run.load(tv);
    const double scale = run.load(ts)[0];
    if (!run.ok) return;
    const int64_t heads = tq.dim[0] * tq.dim[1], rows = tq.dim[2], keys = tk.dim[2], d = tq.dim[3];
    std::vector<double> o(q.size()), lse((size_t)(heads * rows));
    for (int64_t h = 0; h < heads; h++)
        for (int64_t i = 0; i < rows; i++) {
            std::vector<double> e((size_t)keys);
            double sum = 0;
            for (int64_t j = 0; j < keys; j++) {
                double s = 0;
                for (int64_t l = 0; l < d; l++)
                    s += q[(size_t)((h * rows + i) * d + l)] * k[(size_t)((h * keys + j) * d + l)];
                sum += e[(size_t)j] = std::exp(scale * s);
            }
            lse[(size_t)(h * rows + i)] = std::log(sum);
            for (int64_t j = 0; j < keys; j++)
                for (int64_t l = 0; l < d; l++)
                    o[(size_t)((h * rows + i) * d + l)] +=
                        e[(size_t)j] / sum * v[(size_t)((h * keys + j) * d + l)];
        }
    run.store(to, o);
    if (const Descriptor *stats = op->part(CUDNN_ATTR_OPERATION_SDPA_FWD_STATSDESC))
        run.store(Tensor(stats), lse);
}
#endif

void execute(Run &run, const Descriptor *op) {
    switch ((int)op->type) {
    case CUDNN_BACKEND_OPERATION_CONVOLUTION_FORWARD_DESCRIPTOR:
        return convolve(run, op, Sum::y, CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_X,
                        CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_W,
                        CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_Y,
                        CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_CONV_DESC,
                        CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_ALPHA,
                        CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_BETA);
    case CUDNN_BACKEND_OPERATION_CONVOLUTION_BACKWARD_DATA_DESCRIPTOR:
        return convolve(run, op, Sum::x, CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_DX,
                        CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_W,
                        CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_DY,
                        CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_CONV_DESC,
                        CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_ALPHA,
                        CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_BETA);
    case CUDNN_BACKEND_OPERATION_CONVOLUTION_BACKWARD_FILTER_DESCRIPTOR:
        return convolve(run, op, Sum::w, CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_X,
                        CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_DW,
                        CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_DY,
                        CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_CONV_DESC,
                        CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_ALPHA,
                        CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_BETA);
    case CUDNN_BACKEND_OPERATION_POINTWISE_DESCRIPTOR:
        return pointwise(run, op);
#if CUDNN_VERSION >= 91301
    case CUDNN_BACKEND_OPERATION_SDPA_FWD_DESCRIPTOR:
        return attend(run, op);
#endif
    default:
        run.ok = false;
    }
}

// --- heuristics ---------------------------------------------------------------------------------

std::vector<const fake::Engine *> proposals(const Descriptor *heuristics) {
    std::vector<const fake::Engine *> out;
    const int mode = heuristics->one<int>(CUDNN_ATTR_ENGINEHEUR_MODE, -1);
    for (int i = 0; i < fake_state()->n_engines; i++)
        if (fake_state()->engines[i].mode == mode) out.push_back(&fake_state()->engines[i]);
    return out;
}

cudnnStatus_t give_notes(int note, int64_t *n, void *out) {
    *n = note < 0 ? 0 : 1;
    if (note >= 0) memcpy(out, &note, sizeof note);
    return CUDNN_STATUS_SUCCESS;
}

} // namespace

#define EXPORT extern "C" __attribute__((visibility("default")))

EXPORT size_t cudnnGetVersion() {
    return fake_state()->version ? fake_state()->version : CUDNN_VERSION;
}
EXPORT const char *cudnnGetErrorString(cudnnStatus_t status) {
    return status == CUDNN_STATUS_SUCCESS ? "success" : "failure";
}
EXPORT void cudnnGetLastErrorString(char *message, size_t bytes) {
    strncpy(message, last_error, bytes - 1);
    message[bytes - 1] = 0;
}
EXPORT cudnnStatus_t cudnnCreate(cudnnHandle_t *handle) {
    if (fake_state()->no_handle) return fail(CUDNN_STATUS_NOT_INITIALIZED, "no device");
    *handle = reinterpret_cast<cudnnHandle_t>(new int(0));
    fake_state()->live++;
    return CUDNN_STATUS_SUCCESS;
}
EXPORT cudnnStatus_t cudnnDestroy(cudnnHandle_t handle) {
    delete reinterpret_cast<int *>(handle);
    fake_state()->live--;
    return CUDNN_STATUS_SUCCESS;
}
EXPORT cudnnStatus_t cudnnSetStream(cudnnHandle_t, cudaStream_t stream) {
    fake_state()->stream = stream;
    return CUDNN_STATUS_SUCCESS;
}
EXPORT cudnnStatus_t cudnnBackendCreateDescriptor(cudnnBackendDescriptorType_t type,
                                                  cudnnBackendDescriptor_t *out) {
    Descriptor *const d = new Descriptor;
    d->type = type;
    *out = d;
    fake_state()->live++;
    return CUDNN_STATUS_SUCCESS;
}
EXPORT cudnnStatus_t cudnnBackendDestroyDescriptor(cudnnBackendDescriptor_t d) {
    delete as(d);
    fake_state()->live--;
    return CUDNN_STATUS_SUCCESS;
}
// What is set is copied, as the library does it.
EXPORT cudnnStatus_t cudnnBackendSetAttribute(cudnnBackendDescriptor_t d,
                                              cudnnBackendAttributeName_t name,
                                              cudnnBackendAttributeType_t type, int64_t n,
                                              const void *values) {
    if (as(d)->finished) return fail(CUDNN_STATUS_BAD_PARAM, "it is finished already");
    if (type == CUDNN_TYPE_BACKEND_DESCRIPTOR) {
        auto &parts = as(d)->parts[name];
        parts.clear();
        for (int64_t i = 0; i < n; i++) {
            const Descriptor *const part =
                static_cast<const Descriptor *>(static_cast<void *const *>(values)[i]);
            if (!part || !part->finished) return fail(CUDNN_STATUS_BAD_PARAM, "an unfinished part");
            parts.push_back(std::make_shared<Descriptor>(*part));
        }
        return CUDNN_STATUS_SUCCESS;
    }
    const unsigned char *const from = static_cast<const unsigned char *>(values);
    as(d)->values[name] = std::vector<unsigned char>(from, from + (size_t)n * bytes_of(type));
    return CUDNN_STATUS_SUCCESS;
}
EXPORT cudnnStatus_t cudnnBackendFinalize(cudnnBackendDescriptor_t d) {
    Descriptor *const p = as(d);
    if (p->type == CUDNN_BACKEND_EXECUTION_PLAN_DESCRIPTOR) {
        p->engine = p->part(CUDNN_ATTR_EXECUTION_PLAN_ENGINE_CONFIG)->engine;
        if (p->engine->refused) return fail(CUDNN_STATUS_NOT_SUPPORTED, "the engine refuses");
    }
#if CUDNN_VERSION >= 90800
    if ((int)p->type == CUDNN_BACKEND_DEVICEPROP_DESCRIPTOR &&
        p->one<char>(CUDNN_ATTR_DEVICEPROP_JSON_REPRESENTATION, 0) != '{')
        return fail(CUDNN_STATUS_BAD_PARAM, "no JSON");
#endif
    p->finished = true;
    return CUDNN_STATUS_SUCCESS;
}
EXPORT cudnnStatus_t cudnnBackendGetAttribute(cudnnBackendDescriptor_t const d,
                                              cudnnBackendAttributeName_t name,
                                              cudnnBackendAttributeType_t, int64_t wanted,
                                              int64_t *n, void *out) {
    const Descriptor *const p = as(d);
    switch ((int)name) {
    case CUDNN_ATTR_ENGINEHEUR_RESULTS: {
        const auto found = proposals(p);
        fake_state()->asked++;
        *n = (int64_t)found.size();
        for (int64_t i = 0; i < *n && i < wanted; i++) {
            Descriptor *const config = as(static_cast<cudnnBackendDescriptor_t *>(out)[i]);
            config->engine = found[(size_t)i];
            config->parts = p->parts; // the graph
            config->finished = true;
        }
        return CUDNN_STATUS_SUCCESS;
    }
    case CUDNN_ATTR_ENGINECFG_ENGINE:
        as(*static_cast<cudnnBackendDescriptor_t *>(out))->engine = p->engine;
        *n = 1;
        return CUDNN_STATUS_SUCCESS;
    case CUDNN_ATTR_ENGINE_GLOBAL_INDEX:
        *static_cast<int64_t *>(out) = p->engine->index;
        return CUDNN_STATUS_SUCCESS;
    case CUDNN_ATTR_ENGINE_BEHAVIOR_NOTE:
        return give_notes(p->engine->behaviour, n, out);
    case CUDNN_ATTR_ENGINE_NUMERICAL_NOTE:
        return give_notes(p->engine->numerical, n, out);
    case CUDNN_ATTR_EXECUTION_PLAN_WORKSPACE_SIZE:
        *static_cast<int64_t *>(out) = (int64_t)p->engine->workspace;
        return CUDNN_STATUS_SUCCESS;
    default:
        return fail(CUDNN_STATUS_BAD_PARAM, "an attribute that the tests do not know");
    }
}
EXPORT cudnnStatus_t cudnnBackendExecute(cudnnHandle_t, cudnnBackendDescriptor_t plan,
                                         cudnnBackendDescriptor_t pack) {
    const fake::Engine &e = *as(plan)->engine;
    const auto uids = as(pack)->all<int64_t>(CUDNN_ATTR_VARIANT_PACK_UNIQUE_IDS);
    const auto addresses = as(pack)->all<void *>(CUDNN_ATTR_VARIANT_PACK_DATA_POINTERS);
    void *const workspace = as(pack)->one<void *>(CUDNN_ATTR_VARIANT_PACK_WORKSPACE, nullptr);
    if (e.breaks || uids.size() != addresses.size() || (e.workspace && !workspace))
        return fail(CUDNN_STATUS_EXECUTION_FAILED, "it does not run");
    fake::State &s = *fake_state();
    s.executed++;
    s.engine = e.index;
    s.clock += e.milliseconds;
    Run made;
    made.factor = e.wrong ? 1.5 : 1;
    for (size_t i = 0; i < uids.size(); i++) made.address[uids[i]] = addresses[i];
    const Descriptor *const graph = as(plan)
                                        ->part(CUDNN_ATTR_EXECUTION_PLAN_ENGINE_CONFIG)
                                        ->part(CUDNN_ATTR_ENGINEHEUR_OPERATION_GRAPH);
    const auto ops = graph->parts.at(CUDNN_ATTR_OPERATIONGRAPH_OPS);
    const auto call = [=, bytes = e.workspace] {
        if (bytes) memset(workspace, 0xff, bytes);
        Run run = made;
        for (const auto &op : ops) execute(run, op.get());
        return run.ok;
    };
    const bool ok = s.later ? s.later(s.stream, call) : call();
    return ok ? CUDNN_STATUS_SUCCESS : fail(CUDNN_STATUS_BAD_PARAM, "operands do not fit");
}
