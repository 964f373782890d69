#include "support.h"

#include "fake/formats.h"

#include <random>

namespace vnd {

namespace {

fake::Format format_of(twk_format f) {
    return f == TWK_F32    ? fake::Format::f32
           : f == TWK_BF16 ? fake::Format::bf16
                           : fake::Format::f16;
}

twk_status convert(const twk_convert_args *a, twk_stream) {
    launched++;
    const int64_t n = a->batch * a->pixels * a->channels;
    for (int64_t i = 0; i < n; i++)
        fake::write(format_of(a->out_format), a->out, i,
                    fake::read(format_of(a->in_format), a->in, i));
    return TWK_OK;
}

twk_status add(twk_format f, int64_t n, float ca, const void *a, float cb, const void *b, void *y,
               twk_stream) {
    launched++;
    const fake::Format format = format_of(f);
    for (int64_t i = 0; i < n; i++)
        fake::write(format, y, i,
                    (double)ca * fake::read(format, a, i) + (double)cb * fake::read(format, b, i));
    return TWK_OK;
}

size_t column_sums_workspace(int64_t batch, int64_t, int64_t channels) {
    return (size_t)(batch * channels) * 4;
}

twk_status column_sums(const twk_column_sums_args *a, twk_stream) {
    launched++;
    const size_t wanted = column_sums_workspace(a->batch, a->pixels, a->channels);
    if (!a->workspace || a->workspace_bytes < wanted || a->batch != 1) return TWK_BAD_ARGUMENT;
    memset(a->workspace, 0xff, wanted);
    float *out = static_cast<float *>(a->out);
    for (int64_t c = 0; c < a->channels; c++) {
        double sum = a->accumulate ? out[c] : 0;
        for (int64_t p = 0; p < a->pixels; p++)
            sum += fake::read(format_of(a->format), a->x, p * a->channels + c);
        out[c] = (float)sum;
    }
    return TWK_OK;
}

const char *error_text() {
    return "a launcher refuses";
}

std::mt19937_64 &generator() {
    static std::mt19937_64 g(20);
    return g;
}

} // namespace

int launched = 0;

size_t bytes_of(twk_format f) {
    return f == TWK_F32 ? 4 : 2;
}
double eps_of(twk_format f) {
    return f == TWK_F32 ? 0x1p-24 : f == TWK_BF16 ? 0x1p-8 : 0x1p-11;
}
const char *name_of(twk_format f) {
    return f == TWK_F32 ? "fp32" : f == TWK_BF16 ? "bf16" : "fp16";
}

Tensor::Tensor(twk_format f, int64_t count, size_t shift)
    : n(count), f_(f), shift_(shift), memory_((size_t)count * bytes_of(f) + shift + 256, 0xff) {}

void *Tensor::data() const {
    if (!n) return nullptr;
    unsigned char *const p = const_cast<unsigned char *>(memory_.data());
    return p + (256 - reinterpret_cast<uintptr_t>(p) % 256) % 256 + shift_;
}

void Tensor::fill() {
    std::uniform_real_distribution<double> d(-1, 1);
    for (int64_t i = 0; i < n; i++) fake::write(format_of(f_), data(), i, d(generator()));
}

double Tensor::at(int64_t i) const {
    return fake::read(format_of(f_), data(), i);
}

std::vector<double> Tensor::all() const {
    std::vector<double> v((size_t)n);
    for (int64_t i = 0; i < n; i++) v[(size_t)i] = at(i);
    return v;
}

Tensor random_tensor(twk_format f, int64_t n, size_t shift) {
    Tensor t(f, n, shift);
    t.fill();
    return t;
}

int64_t count_bad(const std::vector<double> &got, const std::vector<Expected> &want, twk_format f) {
    EXPECT_EQ(got.size(), want.size());
    int64_t bad = 0;
    for (size_t i = 0; i < got.size(); i++) {
        const Expected &e = want[i];
        const double bound = 1.2 * eps_of(f) * (std::fabs(e.value) + e.rounded) + 0x1p-22 * e.terms;
        bad += !(std::fabs(got[i] - e.value) <= bound);
    }
    return bad;
}

tw_vendor_kernels launchers() {
    return {convert, add, column_sums_workspace, column_sums, error_text};
}

tw_vendor_options options() {
    tw_vendor_options o = {};
#ifdef HAVE_CUDNN
    o.cudnn = FAKE_CUDNN;
#endif
#ifdef HAVE_CUBLASLT
    o.cublaslt = FAKE_CUBLASLT;
#endif
    o.driver = FAKE_DRIVER;
    o.kernels = launchers();
    return o;
}

twk_conv_args small_conv() {
    twk_conv_args a = {};
    a.batch = 1;
    a.h = a.w = 4;
    a.channels = 3;
    a.out_channels = 5;
    a.kernel_h = a.kernel_w = 3;
    a.stride = 1;
    a.pad_top = a.pad_left = a.pad_bottom = a.pad_right = 1;
    return a;
}

tw_vendor_call call_of(const twk_conv_args &a, tw_vendor_op op) {
    tw_vendor_call c = {};
    c.op = op;
    c.args.conv = &a;
    return c;
}
tw_vendor_call call_of(const twk_gemm_args &a) {
    tw_vendor_call c = {};
    c.op = TW_VENDOR_GEMM;
    c.args.gemm = &a;
    return c;
}
tw_vendor_call call_of(const twk_attention_args &a, tw_vendor_op op) {
    tw_vendor_call c = {};
    c.op = op;
    c.args.attention = &a;
    return c;
}

fake::Engine engine(int64_t index, float milliseconds, size_t workspace) {
    fake::Engine e;
    e.index = index;
    e.milliseconds = milliseconds;
    e.workspace = workspace;
    return e;
}

VendorTest::VendorTest() {
    *fake_state() = fake::State();
    engines({engine(1)});
    launched = 0;
}

VendorTest::~VendorTest() {
    EXPECT_EQ(fake_state()->live, 0) << "descriptors, handles or memory left";
}

void VendorTest::engines(const std::vector<fake::Engine> &e) {
    fake_state()->n_engines = (int)e.size();
    for (size_t i = 0; i < e.size(); i++) fake_state()->engines[i] = e[i];
}

} // namespace vnd
