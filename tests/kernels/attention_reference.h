// Attention's tensors, its call, and what it should give: plain sums in double.
#pragma once

#include "support.h"

namespace tst {

struct AttentionCase {
    int64_t batch = 1, q_tokens = 1, k_tokens = 1;
    int heads = 1, head_size = 1;
    twk_format format = TWK_F32;
    bool tf32 = false;
    float scale = 0;
    double size = 1;     // of q and k
    bool packed = false; // q, k and v in one tensor
    int64_t gap = 0;     // elements between rows, and twice as many between samples
    size_t shift = 0;    // elements by which every tensor is off its alignment
};

inline std::string str(const AttentionCase &z) {
    char text[200];
    snprintf(text, sizeof text, "%lldx%dx%d, %lld to %lld tokens, gap %lld, shift %zu%s, %s",
             (long long)z.batch, z.heads, z.head_size, (long long)z.q_tokens, (long long)z.k_tokens,
             (long long)z.gap, z.shift, z.packed ? ", packed" : "",
             z.tf32 ? "tf32" : name_of(z.format));
    return text;
}

// [batch, heads, tokens, head_size] in double.
struct Heads {
    int64_t batch, tokens;
    int heads, size;
    std::vector<double> v;
    Heads(int64_t n, int h, int64_t t, int d)
        : batch(n), tokens(t), heads(h), size(d), v((size_t)(n * h * t * d)) {}
    double *row(int64_t pair, int64_t i) { return &v[(size_t)((pair * tokens + i) * size)]; }
    const double *row(int64_t pair, int64_t i) const {
        return &v[(size_t)((pair * tokens + i) * size)];
    }
};

inline double dot(const double *a, const double *b, int n, double *terms = nullptr) {
    double sum = 0, size = 0;
    for (int i = 0; i < n; i++) {
        sum += a[i] * b[i];
        size += std::fabs(a[i] * b[i]);
    }
    if (terms) *terms = size;
    return sum;
}

// The attention of every pair of sample and head, and how far a kernel may be off it, as terms of
// eps |value| + 8 2^-24 terms.
//
// A score s = scale q k is off by 2^-24 times a small number and a = scale sum |q k|, so that a
// probability is off by that much relative to itself. On the tensor cores it is then rounded to the
// format: eps relative, or 2^-25 where it is small in fp16. o = sum p v is off by the sum of
// |v| times that; the division by the sum of p brings the same relative error once more.
class AttentionMath {
  public:
    AttentionMath(const Heads &q, const Heads &k, const Heads &v, double scale, twk_format format,
                  bool tf32)
        : q_(q), k_(k), v_(v), scale_(scale), eps_(tf32                ? 0x1p-11
                                                   : format == TWK_F32 ? 0
                                                                       : eps_of(format)),
          least_(format == TWK_F16 ? 0x1p-25 : 0) {}

    // Without key `without`.
    void forward(std::vector<Expected> *o, std::vector<Expected> *lse, int64_t without = -1) const {
        const int64_t pairs = q_.batch * q_.heads;
        for (int64_t pair = 0; pair < pairs; pair++)
            for (int64_t i = 0; i < q_.tokens; i++) {
                std::vector<double> p((size_t)k_.tokens);
                double most = 0, largest = -INFINITY, sum = 0;
                for (int64_t j = 0; j < k_.tokens; j++) {
                    double a;
                    p[(size_t)j] = scale_ * dot(q_.row(pair, i), k_.row(pair, j), q_.size, &a);
                    most = std::max(most, scale_ * a);
                    if (j != without) largest = std::max(largest, p[(size_t)j]);
                }
                for (int64_t j = 0; j < k_.tokens; j++) {
                    p[(size_t)j] = j == without ? 0 : std::exp(p[(size_t)j] - largest);
                    sum += p[(size_t)j];
                }
                const double off = 1 + 2 * most;
                const double l = largest + std::log(sum);
                if (lse) lse->push_back(Expected{l, std::fabs(l) + off});
                for (int c = 0; c < q_.size; c++) {
                    Expected e;
                    double all = 0;
                    for (int64_t j = 0; j < k_.tokens; j++) {
                        e.add(p[(size_t)j] / sum * v_.row(pair, j)[c]);
                        all += std::fabs(v_.row(pair, j)[c]);
                    }
                    e.terms *= off + in_terms(eps_);
                    e.terms += in_terms(least_) * all;
                    o->push_back(e);
                }
            }
    }

    // The gradients; what the probabilities are off by is as above, and those of the scores, p (dp
    // - delta), are rounded too. delta comes from o as it was rounded to `stored`. Without key
    // `no_key` in dq and without query `no_query` in dk and dv.
    void backward(const Heads &d_o, twk_format stored, std::vector<Expected> *dq,
                  std::vector<Expected> *dk, std::vector<Expected> *dv, int64_t no_key = -1,
                  int64_t no_query = -1) const {
        const int d = q_.size;
        std::vector<Expected> o, lse;
        forward(&o, &lse);
        dq->assign(q_.v.size(), Expected());
        dk->assign(k_.v.size(), Expected());
        dv->assign(k_.v.size(), Expected());
        for (int64_t pair = 0; pair < q_.batch * q_.heads; pair++)
            for (int64_t i = 0; i < q_.tokens; i++) {
                const double *const up = d_o.row(pair, i);
                const Expected *const out = &o[(size_t)((pair * q_.tokens + i) * d)];
                const Expected l = lse[(size_t)(pair * q_.tokens + i)];
                double delta = 0, off_delta = 0;
                for (int c = 0; c < d; c++) {
                    delta += up[c] * out[c].value;
                    off_delta += std::fabs(up[c]) * (out[c].terms + (1 + in_terms(eps_of(stored))) *
                                                                        std::fabs(out[c].value));
                }
                for (int64_t j = 0; j < k_.tokens; j++) {
                    double a, off_dp;
                    const double s = scale_ * dot(q_.row(pair, i), k_.row(pair, j), d, &a);
                    const double dp = dot(up, v_.row(pair, j), d, &off_dp);
                    const double p = std::exp(s - l.value), ds = p * (dp - delta);
                    const double off = 2 * l.terms; // of p, relative; a is part of it
                    const double off_ds = p * (off * std::fabs(dp - delta) + off_dp + off_delta) +
                                          in_terms(eps_) * std::fabs(ds) + in_terms(least_);
                    const double off_p = p * (off + in_terms(eps_)) + in_terms(least_);
                    const auto add = [](Expected *to, double w, double off_w, double z) {
                        to->value += w * z;
                        to->terms += (std::fabs(w) + off_w) * std::fabs(z);
                    };
                    const size_t qi = (size_t)((pair * q_.tokens + i) * d);
                    const size_t kj = (size_t)((pair * k_.tokens + j) * d);
                    for (int c = 0; c < d; c++) {
                        if (j != no_key)
                            add(&(*dq)[qi + (size_t)c], scale_ * ds, scale_ * off_ds, k_.v[kj + c]);
                        if (i == no_query) continue;
                        add(&(*dk)[kj + (size_t)c], scale_ * ds, scale_ * off_ds, q_.v[qi + c]);
                        add(&(*dv)[kj + (size_t)c], p, off_p, up[c]);
                    }
                }
            }
    }

  private:
    static double in_terms(double bound) { return bound * 0x1p24 / 8; }
    const Heads &q_, &k_, &v_;
    double scale_, eps_, least_;
};

class Attention {
  public:
    explicit Attention(const AttentionCase &shape)
        : z(shape), q(z.batch, z.heads, z.q_tokens, z.head_size),
          k(z.batch, z.heads, z.k_tokens, z.head_size), v(k), d_o(q) {
        const int64_t width = (int64_t)z.heads * z.head_size;
        a.batch = z.batch;
        a.q_tokens = z.q_tokens;
        a.k_tokens = z.k_tokens;
        a.heads = z.heads;
        a.head_size = z.head_size;
        a.format = z.format;
        a.tf32 = z.tf32;
        a.scale = z.scale;
        a.q_row = a.k_row = a.v_row = (z.packed ? 3 * width : width) + z.gap;
        a.o_row = width + z.gap;
        a.q_batch = z.q_tokens * a.q_row + 2 * z.gap;
        a.k_batch = a.v_batch = z.k_tokens * a.k_row + 2 * z.gap;
        a.o_batch = z.q_tokens * a.o_row + 2 * z.gap;
        inputs_[0] = input(z.batch * a.q_batch, z.size);
        if (!z.packed) {
            inputs_[1] = input(z.batch * a.k_batch, z.size);
            inputs_[2] = input(z.batch * a.v_batch, 2);
        }
        const auto place = [&](const Tensor &t, int64_t first) {
            return static_cast<char *>(t.data()) + first * (int64_t)bytes_of(z.format);
        };
        a.q = inputs_[0].data();
        a.k = z.packed ? place(inputs_[0], width) : inputs_[1].data();
        a.v = z.packed ? place(inputs_[0], 2 * width) : inputs_[2].data();
        take(&q, inputs_[0].v, a.q_row, a.q_batch, 0);
        take(&k, inputs_[z.packed ? 0 : 1].v, a.k_row, a.k_batch, z.packed ? width : 0);
        take(&v, inputs_[z.packed ? 0 : 2].v, a.v_row, a.v_batch, z.packed ? 2 * width : 0);
        o = Tensor(z.format, z.batch * a.o_batch, z.shift);
        lse = Tensor(TWK_F32, z.batch * z.heads * z.q_tokens);
        a.o = o.data();
        a.lse = lse.f32();
    }

    // Key j towards q's first row, and longer the later it comes.
    void grow_keys() {
        std::vector<double> values = inputs_[1].v;
        for (int64_t j = 0; j < z.k_tokens; j++)
            for (int c = 0; c < z.head_size; c++)
                values[(size_t)(j * a.k_row + c)] = q.row(0, 0)[c] * (double)j * 0.04;
        inputs_[1] = Tensor(z.format, rounded(values));
        a.k = inputs_[1].data();
        take(&k, inputs_[1].v, a.k_row, a.k_batch, 0);
    }

    // Upstream gradients and room for the results.
    void prepare_backward() {
        const int64_t width = (int64_t)z.heads * z.head_size;
        up_ = input(z.batch * a.o_batch, 2);
        a.d_o = up_.data();
        take(&d_o, up_.v, a.o_row, a.o_batch, 0);
        gradients_[0] = Tensor(z.format, z.batch * a.q_batch, z.shift);
        for (int i = 1; i < 3 && !z.packed; i++)
            gradients_[i] = Tensor(z.format, z.batch * a.k_batch, z.shift);
        const int64_t bytes = (int64_t)bytes_of(z.format);
        const auto place = [&](int i) -> void * {
            if (!z.packed) return gradients_[i].data();
            return static_cast<char *>(gradients_[0].data()) + i * width * bytes;
        };
        a.dq = place(0);
        a.dk = place(1);
        a.dv = place(2);
        a.workspace_bytes = twk_attention_backward_workspace(&a);
        workspace = Buffer(a.workspace_bytes);
        a.workspace = workspace.data();
    }
    void backward() { LAUNCH_OK(twk_attention_backward(&a, nullptr)); }
    // [batch, heads, tokens, head_size]; i: 0 dq, 1 dk, 2 dv.
    std::vector<double> read_gradient(int i) const {
        const int64_t width = (int64_t)z.heads * z.head_size, tokens = i ? z.k_tokens : z.q_tokens;
        const int64_t row = i ? a.k_row : a.q_row, sample = i ? a.k_batch : a.q_batch;
        if (!z.packed) return read(gradients_[i], tokens, row, sample);
        Heads h(z.batch, z.heads, tokens, z.head_size);
        take(&h, gradients_[0].read(), row, sample, i * width);
        return h.v;
    }
    void poison_gradients() {
        for (Tensor &t : gradients_)
            if (t.data()) t.buffer.poison();
        workspace.poison();
    }

    double scale() const { return z.scale != 0 ? (double)z.scale : 1 / std::sqrt(z.head_size); }
    AttentionMath math() const { return AttentionMath(q, k, v, scale(), z.format, z.tf32); }
    void forward() { LAUNCH_OK(twk_attention_forward(&a, nullptr)); }

    // What a strided output holds, [batch, heads, tokens, head_size]; its gaps are still poisoned.
    std::vector<double> read(const Tensor &t, int64_t tokens, int64_t row, int64_t sample) const {
        const std::vector<double> all = t.read();
        Heads h(z.batch, z.heads, tokens, z.head_size);
        take(&h, all, row, sample, 0);
        int64_t written = 0;
        for (double x : all) written += !std::isnan(x);
        EXPECT_LE(written, (int64_t)h.v.size()) << "a gap was written to, " << str(z);
        return h.v;
    }
    std::vector<double> read_o() const { return read(o, z.q_tokens, a.o_row, a.o_batch); }

    AttentionCase z;
    twk_attention_args a = {};
    Heads q, k, v, d_o;
    Tensor o, lse;
    Buffer workspace;

  private:
    std::vector<double> rounded(std::vector<double> values) const {
        if (z.tf32)
            for (double &v : values) v = tf32_of(v);
        return values;
    }
    Tensor input(int64_t n, double size) const {
        return Tensor(z.format, rounded(random_tensor(z.format, n, size).v), z.shift);
    }
    static void take(Heads *h, const std::vector<double> &from, int64_t row, int64_t sample,
                     int64_t first) {
        for (int64_t n = 0; n < h->batch; n++)
            for (int64_t i = 0; i < h->tokens; i++)
                for (int c = 0; c < h->heads * h->size; c++)
                    h->row(n * h->heads + c / h->size, i)[c % h->size] =
                        from[(size_t)(first + n * sample + i * row + c)];
    }
    Tensor inputs_[3], up_, gradients_[3];
};

} // namespace tst
