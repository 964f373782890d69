// Every fusion can be turned off: there are more calls then, and the numbers are the same up to
// rounding, those of a network and of its gradients.
#include "networks.h"

extern "C" {
#include "core/halfs.h"
#include "graph/internal.h"
#include "models/rounded.h"
}

namespace {

// Has all that can be fused; the joint tensors' groups lie across the seam.
const char *const kAll =
    R"({"_class_name": "UNet2DModel", "sample_size": 8, "in_channels": 1,
    "out_channels": 1, "block_out_channels": [8, 16], "layers_per_block": 1,
    "down_block_types": ["DownBlock2D", "AttnDownBlock2D"],
    "up_block_types": ["AttnUpBlock2D", "UpBlock2D"], "attention_head_dim": 8,
    "norm_num_groups": 4, "num_class_embeds": 4})";

struct Numbers {
    Floats out, gradients;
    int forward, training; // calls a run
    size_t stored;         // of tensors, in training
};

class Network {
  public:
    Network(tw_model *m, unsigned off, tw_dtype precision) : m_(m), precision_(precision) {
        tw_plan_options o = TW_PLAN_OPTIONS_INIT;
        o.precision = precision;
        o.no_fusion = off;
        Check(tw_plan_create(m->ctx, &o, &plan_));
        const int64_t shape[] = {2, 8, 8, 1};
        in_ = {.x = tw_plan_input(plan_, "x", precision, 4, shape),
               .t = tw_plan_input(plan_, "t", TW_F32, 1, shape),
               .labels = tw_plan_input(plan_, "labels", TW_I32, 1, shape),
               .rng = TW_NONE};
        target_ = tw_plan_input(plan_, "target", TW_F32, 4, shape);
        Check(tw_model_build(m, plan_, &in_, &network_));
        Check(tw_rounded_make(m, precision, m->storage, &rounded_));
        Check(tw_rounded_refresh(&rounded_));
    }
    ~Network() {
        tw_plan_free(plan_);
        tw_rounded_free(m_->ctx, &rounded_);
        tw_free(m_->ctx, network_.parameters);
        m_->ctx->backend->release(m_->ctx->backend, gradients_);
    }
    Network(const Network &) = delete;
    Network &operator=(const Network &) = delete;

    Floats Forward() {
        const tw_value out = tw_plan_convert(plan_, network_.out, TW_F32);
        tw_plan_keep(plan_, out);
        Run();
        Floats y(128);
        Check(tw_plan_read(plan_, out, y.data(), y.size() * sizeof(float)));
        return y;
    }
    Floats Gradients() {
        tw_backend *b = m_->ctx->backend;
        const size_t bytes = (size_t)m_->weights.total * sizeof(float);
        Check(b->allocate(b, bytes, &gradients_));
        Check(b->fill(b, gradients_, 0, bytes));
        const tw_value loss = tw_plan_mse(plan_, network_.out, target_, TW_NONE, nullptr);
        Check(tw_plan_backward(plan_, loss, 1));
        Run();
        return Storage(m_, gradients_);
    }
    // Bytes of all tensors in the arena, as if none shared its memory with another.
    size_t Stored() const {
        size_t sum = 0;
        for (int v = 0; v < plan_->n_values; v++)
            if (tw_value_in_arena(&plan_->values[v])) sum += tw_desc_bytes(&plan_->values[v].desc);
        return sum;
    }
    tw_plan_stats Stats() const {
        tw_plan_stats s = {};
        s.size = sizeof s;
        Check(tw_plan_get_stats(plan_, &s));
        return s;
    }

  private:
    void Check(tw_status s) const { EXPECT_EQ(s, TW_OK) << tw_context_error(m_->ctx); }
    void Run() {
        Check(tw_model_bind(m_, plan_, &network_, m_->storage, rounded_.weights, gradients_));
        Check(tw_plan_compile(plan_));
        Write(in_.x, 0.7f);
        Write(target_, 1.3f);
        const float t[] = {3, 700};
        const int32_t labels[] = {1, 3};
        Check(tw_plan_write(plan_, in_.t, t, sizeof t));
        Check(tw_plan_write(plan_, in_.labels, labels, sizeof labels));
        Check(tw_plan_run(plan_));
    }
    void Write(tw_value v, float step) {
        Floats x(128);
        for (size_t i = 0; i < x.size(); i++) x[i] = std::sin(step * (float)i);
        if (tw_plan_desc(plan_, v)->dtype == TW_F32) {
            Check(tw_plan_write(plan_, v, x.data(), x.size() * sizeof(float)));
            return;
        }
        std::vector<uint16_t> half;
        for (float f : x) half.push_back(tw_f32_to_bf16(f));
        Check(tw_plan_write(plan_, v, half.data(), half.size() * sizeof(uint16_t)));
    }
    tw_model *m_;
    tw_dtype precision_;
    tw_rounded rounded_ = {};
    tw_plan *plan_ = nullptr;
    tw_network_inputs in_ = {};
    tw_network network_ = {};
    tw_value target_ = TW_NONE;
    void *gradients_ = nullptr;
};

Numbers Calculate(tw_model *m, unsigned off, tw_dtype precision = TW_F32) {
    Numbers r;
    Network forward(m, off, precision), training(m, off, precision);
    r.out = forward.Forward();
    r.gradients = training.Gradients();
    r.forward = forward.Stats().launches;
    r.training = training.Stats().launches;
    r.stored = training.Stored();
    return r;
}

// Of the whole: single elements of 16 bits may be off by many times the rms of all.
double Relative(const Floats &got, const Floats &want) {
    double error = 0, sum = 0;
    for (size_t i = 0; i < want.size(); i++) {
        error += std::pow((double)got[i] - (double)want[i], 2);
        sum += std::pow((double)want[i], 2);
    }
    return std::sqrt(error / sum);
}

class CudaSwitches : public Cuda {};

TEST_F(CudaSwitches, EachChangesTheCallsAndNotTheNumbers) {
    struct {
        tw_fusion fusion;
        bool forward, training; // there is something to fuse
        bool memory;            // and less to store in training
    } const table[] = {
        {TW_FUSION_NORM_SILU, true, true, true},
        {TW_FUSION_EPILOGUE, true, true, true},
        {TW_FUSION_NORM_STATISTICS, true, true, false},
        {TW_FUSION_CONCAT, true, true, true},
        {TW_FUSION_UPSAMPLE, true, true, true},
        {TW_FUSION_QKV, true, true, false},
        {TW_FUSION_GRADIENTS, false, true, false},
        {TW_FUSION_TIME, true, true, false},
        {TW_FUSION_ALL, true, true, true},
    };
    Context cuda(TW_DEVICE_CUDA);
    ASSERT_EQ(cuda.status(), TW_OK);
    tw_model *all = MakeModel(cuda.get(), kAll), *measured = MakeModel(cuda.get(), kMeasured);
    for (const tw_dtype precision : {TW_F32, TW_BF16}) {
        const Numbers all_on = Calculate(all, 0, precision),
                      measured_on = Calculate(measured, 0, precision);
        const double bound = precision == TW_F32 ? 4e-6 : 6e-2;
        for (const auto &row : table) {
            SCOPED_TRACE(std::to_string(row.fusion) + " " + tw_dtype_name(precision));
            const bool statistics = row.fusion == TW_FUSION_NORM_STATISTICS;
            const Numbers &on = statistics ? measured_on : all_on;
            const Numbers off = Calculate(statistics ? measured : all, row.fusion, precision);
            const double out = Relative(off.out, on.out),
                         gradients = Relative(off.gradients, on.gradients);
            EXPECT_LT(out, bound);
            EXPECT_LT(gradients, bound);
            EXPECT_EQ(off.forward > on.forward, row.forward) << off.forward << " " << on.forward;
            EXPECT_EQ(off.training > on.training, row.training)
                << off.training << " " << on.training;
            if (row.memory && precision == TW_F32) {
                EXPECT_GT(off.stored, on.stored);
            }
        }
    }
    tw_model_free(all);
    tw_model_free(measured);
}

TEST_F(CudaSwitches, AContextTurnsThemOffForAllItsPlans) {
    tw_context_options o = TW_CONTEXT_OPTIONS_INIT;
    o.no_fusion = TW_FUSION_ALL;
    Context without(TW_DEVICE_CUDA, &o), with(TW_DEVICE_CUDA);
    ASSERT_EQ(without.status(), TW_OK);
    tw_model *a = MakeModel(without.get(), kAll), *b = MakeModel(with.get(), kAll);
    EXPECT_EQ(Calculate(a, 0).training, Calculate(b, TW_FUSION_ALL).training);
    EXPECT_EQ(Calculate(a, 0).gradients, Calculate(b, TW_FUSION_ALL).gradients);
    tw_model_free(a);
    tw_model_free(b);
    o.no_fusion = 256;
    Context wrong(TW_DEVICE_CUDA, &o);
    EXPECT_EQ(wrong.status(), TW_ERROR_ARGUMENT);
}

// Attention's projections lie so that they can be one, and have the names of three.
TEST_F(CudaSwitches, ProjectionsAreStacked) {
    for (const tw_device device : {TW_DEVICE_CPU, TW_DEVICE_CUDA}) {
        Context c(device);
        tw_model *m = MakeModel(c.get(), kAll);
        int stacks = 0;
        for (int64_t i = 0; i + 4 < m->weights.count; i++) {
            const tw_weight *q = &m->weights.items[i], *k = q + 2, *v = q + 4;
            const std::string name = q->name;
            if (name.find(".to_q.") == std::string::npos) continue;
            EXPECT_NE(std::string(k->name).find(".to_k."), std::string::npos) << k->name;
            EXPECT_EQ(k->offset, q->offset + q->count) << name;
            EXPECT_EQ(v->offset, k->offset + k->count) << name;
            EXPECT_EQ(q->offset % 64, 0) << name;
            stacks++;
        }
        EXPECT_EQ(stacks, 8); // of weights and of biases
        tw_model_free(m);
    }
}

// The projections of the time lie behind each other where they are one product; what is saved has
// the order of a device without it.
TEST_F(CudaSwitches, TheTimesProjectionsAreStacked) {
    tw_context_options o = TW_CONTEXT_OPTIONS_INIT;
    Context cuda(TW_DEVICE_CUDA), cpu(TW_DEVICE_CPU);
    o.no_fusion = TW_FUSION_TIME;
    Context apart(TW_DEVICE_CUDA, &o);
    tw_model *m = MakeModel(cuda.get(), kAll);
    for (Context *c : {&cpu, &apart}) {
        tw_model *other = MakeModel(c->get(), kAll);
        ASSERT_EQ(other->weights.count, m->weights.count);
        EXPECT_EQ(other->weights.saved, other->weights.total);
        EXPECT_EQ(other->weights.saved, m->weights.saved);
        for (int64_t i = 0; i < m->weights.count; i++) {
            EXPECT_STREQ(other->weights.items[i].name, m->weights.items[i].name);
            EXPECT_EQ(other->weights.items[i].offset, other->weights.items[i].saved);
            EXPECT_EQ(other->weights.items[i].offset, m->weights.items[i].saved);
        }
        tw_model_free(other);
    }
    for (const char *suffix : {".time_emb_proj.weight", ".time_emb_proj.bias"}) {
        int64_t end = -1;
        int layers = 0;
        for (int64_t i = 0; i < m->weights.count; i++) {
            const tw_weight &w = m->weights.items[i];
            if (std::string(w.name).find(suffix) == std::string::npos) continue;
            if (layers++) {
                EXPECT_EQ(w.offset, end) << w.name;
            }
            end = w.offset + w.count;
        }
        EXPECT_EQ(layers, 8);
    }
    tw_model_free(m);
}

// Scales and shifts come from the product as well, and every row is a part of it.
TEST_F(CudaSwitches, TheTimeAlsoScalesAndShifts) {
    std::string config = kAll;
    config.insert(config.rfind('}'), R"(, "resnet_time_scale_shift": "scale_shift")");
    Context cuda(TW_DEVICE_CUDA);
    tw_model *m = MakeModel(cuda.get(), config.c_str());
    for (const tw_dtype precision : {TW_F32, TW_BF16}) {
        SCOPED_TRACE(tw_dtype_name(precision));
        const Numbers on = Calculate(m, 0, precision),
                      off = Calculate(m, TW_FUSION_TIME, precision);
        const double bound = precision == TW_F32 ? 4e-6 : 6e-2;
        EXPECT_LT(Relative(off.out, on.out), bound);
        EXPECT_LT(Relative(off.gradients, on.gradients), bound);
        EXPECT_EQ(off.forward - on.forward, 7);
        EXPECT_EQ(off.training - on.training, 3 * 7 - 1); // one call clears the gradient
    }
    tw_model_free(m);
}

TEST_F(CudaSwitches, HaveNames) {
    EXPECT_STREQ(tw_fusion_name(0), "norm-silu");
    EXPECT_STREQ(tw_fusion_name(6), "gradients");
    EXPECT_STREQ(tw_fusion_name(7), "time");
    EXPECT_EQ(tw_fusion_name(8), nullptr);
    EXPECT_EQ(tw_fusion_name(-1), nullptr);
}

} // namespace
