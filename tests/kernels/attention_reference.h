// Attention's tensors, its call, and what it should give: plain sums in double.
#pragma once

#include "support.h"

namespace tst {

struct AttentionCase {
    int64_t batch = 1, q_tokens = 1, k_tokens = 1;
    int heads = 1, head_size = 1;
    twk_format format = TWK_F32;
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
             (long long)z.gap, z.shift, z.packed ? ", packed" : "", name_of(z.format));
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
    AttentionMath(const Heads &q, const Heads &k, const Heads &v, double scale, twk_format rounded)
        : q_(q), k_(k), v_(v), scale_(scale), eps_(rounded == TWK_F32 ? 0 : eps_of(rounded)),
          least_(rounded == TWK_F16 ? 0x1p-25 : 0) {}

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
        a.scale = z.scale;
        a.q_row = a.k_row = a.v_row = (z.packed ? 3 * width : width) + z.gap;
        a.o_row = width + z.gap;
        a.q_batch = z.q_tokens * a.q_row + 2 * z.gap;
        a.k_batch = a.v_batch = z.k_tokens * a.k_row + 2 * z.gap;
        a.o_batch = z.q_tokens * a.o_row + 2 * z.gap;
        inputs_[0] = random_tensor(z.format, z.batch * a.q_batch, z.size, z.shift);
        if (!z.packed) {
            inputs_[1] = random_tensor(z.format, z.batch * a.k_batch, z.size, z.shift);
            inputs_[2] = random_tensor(z.format, z.batch * a.v_batch, 2, z.shift);
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
        inputs_[1] = Tensor(z.format, values);
        a.k = inputs_[1].data();
        take(&k, inputs_[1].v, a.k_row, a.k_batch, 0);
    }

    double scale() const { return z.scale != 0 ? (double)z.scale : 1 / std::sqrt(z.head_size); }
    AttentionMath math() const { return AttentionMath(q, k, v, scale(), z.format); }
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

  private:
    static void take(Heads *h, const std::vector<double> &from, int64_t row, int64_t sample,
                     int64_t first) {
        for (int64_t n = 0; n < h->batch; n++)
            for (int64_t i = 0; i < h->tokens; i++)
                for (int c = 0; c < h->heads * h->size; c++)
                    h->row(n * h->heads + c / h->size, i)[c % h->size] =
                        from[(size_t)(first + n * sample + i * row + c)];
    }
    Tensor inputs_[3];
};

} // namespace tst
