// Runs operations through a provider, outside of any plan, and compares the results.
#ifndef TW_TESTS_SUPPORT_OPS_H
#define TW_TESTS_SUPPORT_OPS_H

#include <gtest/gtest.h>

#include <cmath>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <limits>
#include <memory>
#include <random>
#include <string>
#include <vector>

extern "C" {
#include "backend/backend.h"
#include "core/context.h"
}

namespace ops {

using Values = std::vector<double>;
using Shape = std::vector<int64_t>;

constexpr double kNaN = std::numeric_limits<double>::quiet_NaN();
constexpr double kUlp = 0x1p-24;

inline int64_t Count(const Shape &shape) {
    int64_t n = 1;
    for (int64_t d : shape) n *= d;
    return n;
}

// The seed of a test's inputs; TW_TEST_SEED changes it. Failures print it.
inline uint64_t BaseSeed() {
    const char *text = std::getenv("TW_TEST_SEED");
    return text ? std::strtoull(text, nullptr, 10) : 20240917;
}

class Random {
  public:
    explicit Random(uint64_t salt = 0) : engine_(BaseSeed() * 1000003 + salt) {}
    // Normals that float32 can hold.
    Values Normal(const Shape &shape, double scale = 1, double shift = 0) {
        std::normal_distribution<double> d(shift, scale);
        Values v((size_t)Count(shape));
        for (double &x : v) x = (double)(float)d(engine_);
        return v;
    }
    int64_t Below(int64_t n) { return std::uniform_int_distribution<int64_t>(0, n - 1)(engine_); }

  private:
    std::mt19937_64 engine_;
};

// One operand. REAL takes the precision of the run; the others are what they say.
struct Arg {
    enum Kind { REAL, FIXED, ABSENT, PREVIOUS } kind = ABSENT;
    tw_dtype dtype = TW_F64;
    Shape shape;
    Values v;
    bool hidden = false; // of an output: nobody but the next operation reads it
    int output = 0;      // PREVIOUS: which one
};

inline Arg Real(const Shape &shape, const Values &v) {
    return {Arg::REAL, TW_F64, shape, v, false, 0};
}
inline Arg Fixed(tw_dtype dtype, const Shape &shape, const Values &v) {
    return {Arg::FIXED, dtype, shape, v, false, 0};
}
inline Arg Absent() {
    return {};
}
// An output, the first if not said otherwise, of the operation before.
inline Arg Previous(int output = 0) {
    Arg a;
    a.kind = Arg::PREVIOUS;
    a.output = output;
    return a;
}
// An output, poisoned.
inline Arg Out(const Shape &shape) {
    return Real(shape, Values((size_t)Count(shape), kNaN));
}
inline Arg Zeros(const Shape &shape) {
    return Real(shape, Values((size_t)Count(shape), 0.0));
}
inline Arg Rng(uint64_t seed, int64_t sample, int64_t step) {
    return Fixed(TW_I64, {4}, {(double)seed, (double)sample, (double)step, 0});
}

struct Op {
    tw_op_kind kind;
    tw_op_attr attr;
    std::vector<Arg> in, out;
};

inline tw_op_attr NoAttr() {
    tw_op_attr a;
    std::memset(&a, 0, sizeof a);
    return a;
}

// "own" and "cudnn" are a GPU's providers, all others are the CPU's.
class Backend {
  public:
    explicit Backend(const char *provider = "cpu-reference", int threads = 2) {
        tw_context_options o = TW_CONTEXT_OPTIONS_INIT;
        const std::string name = provider;
        o.device = name == "own" || name == "cudnn" ? TW_DEVICE_CUDA : TW_DEVICE_CPU;
        o.provider = provider;
        o.threads = threads;
        if (tw_context_create(&o, &ctx_) != TW_OK) ADD_FAILURE() << tw_context_error(nullptr);
    }
    ~Backend() { tw_context_free(ctx_); }
    Backend(const Backend &) = delete;
    Backend &operator=(const Backend &) = delete;
    tw_backend *get() const { return ctx_->backend; }
    const char *error() const { return tw_context_error(ctx_); }

  private:
    tw_context *ctx_ = nullptr;
};

// Memory of exactly one operand, so that AddressSanitizer sees a step beyond it.
class Buffer {
  public:
    Buffer(const Arg &arg, tw_dtype dtype) : dtype_(dtype), count_(arg.v.size()) {
        const size_t bytes = count_ * tw_dtype_size(dtype);
        data_ = std::malloc(bytes ? bytes : 1);
        for (size_t i = 0; i < count_; i++) Put(i, arg.v[i]);
    }
    ~Buffer() { std::free(data_); }
    Buffer(const Buffer &) = delete;
    Buffer &operator=(const Buffer &) = delete;
    void *data() const { return data_; }
    size_t bytes() const { return count_ * tw_dtype_size(dtype_); }
    Values Get() const {
        Values v(count_);
        for (size_t i = 0; i < count_; i++) {
            if (dtype_ == TW_F32) v[i] = (double)((float *)data_)[i];
            if (dtype_ == TW_F64) v[i] = ((double *)data_)[i];
            if (dtype_ == TW_I32) v[i] = (double)((int32_t *)data_)[i];
            if (dtype_ == TW_I64) v[i] = (double)((int64_t *)data_)[i];
            if (dtype_ == TW_U8) v[i] = (double)((uint8_t *)data_)[i];
            if (dtype_ == TW_BF16 || dtype_ == TW_F16) v[i] = (double)((uint16_t *)data_)[i];
        }
        return v;
    }

  private:
    void Put(size_t i, double x) {
        if (dtype_ == TW_F32) ((float *)data_)[i] = (float)x;
        if (dtype_ == TW_F64) ((double *)data_)[i] = x;
        if (dtype_ == TW_I32) ((int32_t *)data_)[i] = std::isnan(x) ? -7777 : (int32_t)x;
        if (dtype_ == TW_I64) ((int64_t *)data_)[i] = std::isnan(x) ? -7777 : (int64_t)x;
        if (dtype_ == TW_U8) ((uint8_t *)data_)[i] = std::isnan(x) ? 77 : (uint8_t)x;
        if (dtype_ == TW_BF16 || dtype_ == TW_F16)
            ((uint16_t *)data_)[i] = std::isnan(x) ? 0x7fff : (uint16_t)x;
    }
    tw_dtype dtype_;
    size_t count_;
    void *data_;
};

// Operations of which each takes the first output of the one before (PREVIOUS).
class Chain {
  public:
    Chain(std::vector<Op> list, tw_dtype precision) : list_(std::move(list)) {
        std::memset(&region_, 0, sizeof region_);
        for (const Op &op : list_) {
            tw_region_op &r = region_.ops[region_.n_ops++];
            r.kind = op.kind;
            r.attr = op.attr;
            r.n_in = (int)op.in.size();
            r.n_out = (int)op.out.size();
            for (size_t i = 0; i < op.in.size(); i++) r.in[i] = Slot(op.in[i], precision);
            for (size_t i = 0; i < op.out.size(); i++) r.out[i] = Slot(op.out[i], precision);
            previous_ = region_.n_ops - 1;
        }
    }
    const tw_region &region() const { return region_; }
    // GroupNorm may take its statistics from what is before it.
    void Measure() { region_.measures = true; }

    // Runs everything, the first provider that accepts first. Outputs by operation and position.
    tw_status Run(tw_backend *b, std::string *used = nullptr, int *claimed_first = nullptr) {
        tw_region rest = region_;
        tw_status s = b->begin(b);
        bool first = true;
        while (s == TW_OK && rest.n_ops > 0) {
            tw_kernel kernel;
            s = TW_ERROR_UNSUPPORTED;
            for (int i = 0; b->providers[i] && s == TW_ERROR_UNSUPPORTED; i++) {
                std::memset(&kernel, 0, sizeof kernel);
                s = b->providers[i]->prepare(b, &rest, &kernel);
                if (s == TW_OK && first && used) *used = b->providers[i]->name;
            }
            if (s != TW_OK) break;
            if (first && claimed_first) *claimed_first = kernel.claimed;
            first = false;
            s = RunKernel(b, rest, kernel);
            const int left = rest.n_ops - kernel.claimed;
            std::memmove(rest.ops, rest.ops + kernel.claimed, sizeof rest.ops[0] * (size_t)left);
            rest.n_ops = left;
        }
        b->end(b);
        return s;
    }

    std::vector<Values> Outputs(size_t op) const {
        std::vector<Values> all;
        for (int i = 0; i < region_.ops[op].n_out; i++) {
            const int slot = region_.ops[op].out[i];
            all.push_back(slot < 0 ? Values() : buffers_[(size_t)slot]->Get());
        }
        return all;
    }

  private:
    int Slot(const Arg &arg, tw_dtype precision) {
        if (arg.kind == Arg::ABSENT) return -1;
        if (arg.kind == Arg::PREVIOUS) return region_.ops[previous_].out[arg.output];
        tw_slot &slot = region_.slots[region_.n_slots];
        slot.needed = !arg.hidden;
        slot.desc.dtype = arg.kind == Arg::REAL ? precision : arg.dtype;
        slot.desc.rank = (int)arg.shape.size();
        for (size_t i = 0; i < arg.shape.size(); i++) slot.desc.dim[i] = arg.shape[i];
        buffers_.push_back(std::make_unique<Buffer>(arg, slot.desc.dtype));
        return region_.n_slots++;
    }

    tw_status RunKernel(tw_backend *b, const tw_region &rest, tw_kernel &kernel) {
        const bool host = b->device == TW_DEVICE_CPU; // its memory is the backend's
        std::vector<void *> address, copies;
        tw_status s = TW_OK;
        for (const auto &buffer : buffers_) {
            copies.push_back(nullptr);
            if (!host && s == TW_OK) s = b->allocate(b, buffer->bytes(), &copies.back());
            if (!host && s == TW_OK)
                s = b->upload(b, copies.back(), buffer->data(), buffer->bytes());
            address.push_back(host ? buffer->data() : copies.back());
        }
        for (int k = 0; k + 1 < kernel.claimed; k++)
            for (int i = 0; i < rest.ops[k].n_out; i++) {
                const int slot = rest.ops[k].out[i];
                if (slot >= 0 && !rest.slots[slot].needed) address[(size_t)slot] = nullptr;
            }
        void *workspace = nullptr;
        if (s == TW_OK) s = b->allocate(b, kernel.workspace, &workspace);
        if (s == TW_OK) s = b->fill(b, workspace, 0xff, kernel.workspace);
        if (s == TW_OK) s = kernel.run(&kernel, b, address.data(), workspace);
        b->release(b, workspace);
        for (size_t i = 0; i < copies.size(); i++) {
            if (s == TW_OK && copies[i])
                s = b->download(b, buffers_[i]->data(), copies[i], buffers_[i]->bytes());
            b->release(b, copies[i]);
        }
        if (kernel.destroy) kernel.destroy(&kernel, b);
        return s;
    }

    std::vector<Op> list_;
    tw_region region_;
    std::vector<std::unique_ptr<Buffer>> buffers_;
    int previous_ = 0; // operation
};

// Those that compute more than products. What one leaves out, the reference computes.
constexpr const char *kFloatProviders[] = {"cpu-reference", "cpu-fast"};

// Outputs of one operation.
inline std::vector<Values> RunOp(const Op &op, tw_dtype precision, int threads = 2,
                                 const char *provider = "cpu-reference") {
    Backend backend(provider, threads);
    Chain chain({op}, precision);
    const tw_status s = chain.Run(backend.get());
    EXPECT_EQ(s, TW_OK) << backend.error();
    return chain.Outputs(0);
}

// A normalisation again, from what its first run left.
inline Op FromStatistics(const Op &norm, const std::vector<Values> &first) {
    Op again = norm;
    again.in.resize(4, Absent());
    again.in.push_back(Real(norm.out[1].shape, first[1]));
    again.in.push_back(Real(norm.out[2].shape, first[2]));
    again.out.resize(1);
    return again;
}

// Why an operation is refused; "" if it is not.
inline std::string Refusal(const Op &op, tw_dtype precision = TW_F32,
                           const char *provider = "cpu-reference") {
    Backend backend(provider);
    Chain chain({op}, precision);
    tw_kernel kernel;
    std::memset(&kernel, 0, sizeof kernel);
    tw_backend *b = backend.get();
    const tw_status s = b->providers[0]->prepare(b, &chain.region(), &kernel);
    if (s != TW_OK) return backend.error();
    if (kernel.destroy) kernel.destroy(&kernel, b);
    return "";
}

inline Values Abs(Values v) {
    for (double &x : v) x = std::fabs(x);
    return v;
}

// Number of elements with |got - ref| > relative |ref| + absolute * scale, or that are NaN.
inline int64_t CountBad(const Values &got, const Values &ref, const Values &scale, double relative,
                        double absolute, std::string *first = nullptr) {
    int64_t bad = 0;
    if (got.size() != ref.size()) return -1;
    for (size_t i = 0; i < got.size(); i++) {
        const double s = scale.empty() ? 0 : scale[i];
        const double bound = relative * std::fabs(ref[i]) + absolute * s;
        if (std::fabs(got[i] - ref[i]) <= bound) continue;
        if (bad++ == 0 && first)
            *first = "element " + std::to_string(i) + ": got " + std::to_string(got[i]) +
                     ", expected " + std::to_string(ref[i]) + ", bound " + std::to_string(bound) +
                     ", off by " + std::to_string(std::fabs(got[i] - ref[i]) / bound) + " bounds";
    }
    return bad;
}

inline void ExpectClose(const Values &got, const Values &ref, const Values &scale, double relative,
                        double absolute, const std::string &what) {
    std::string first;
    EXPECT_EQ(CountBad(got, ref, scale, relative, absolute, &first), 0)
        << what << ": " << first << " (seed " << BaseSeed() << ")";
}

inline double Norm(const Values &v) {
    double s = 0;
    for (double x : v) s += x * x;
    return std::sqrt(s);
}

} // namespace ops

#endif
