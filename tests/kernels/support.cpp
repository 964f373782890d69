#include "support.h"

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <sys/mman.h>

#ifdef TW_TEST_DEVICE
#include <cuda_runtime_api.h>
#endif

#if defined(__SANITIZE_ADDRESS__)
#define WITH_ASAN 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define WITH_ASAN 1
#endif
#endif
#ifdef WITH_ASAN
#include <sanitizer/asan_interface.h>
#endif

namespace tst {

// ---- memory -------------------------------------------------------------------------------------

static constexpr size_t guard = 256;
static constexpr unsigned char guard_byte = 0xc7;

#ifdef TW_TEST_DEVICE

std::string no_device() {
    int count = 0;
    const cudaError_t error = cudaGetDeviceCount(&count);
    if (error != cudaSuccess) return std::string("no CUDA device: ") + cudaGetErrorString(error);
    return count ? "" : "no CUDA device";
}
static void *raw_alloc(size_t n) {
    void *p = nullptr;
    return cudaMalloc(&p, n) == cudaSuccess ? p : nullptr;
}
static void raw_free(void *p) {
    cudaFree(p);
}
static void raw_copy(void *to, const void *from, size_t n) {
    cudaMemcpy(to, from, n, cudaMemcpyDefault);
}
static void raw_set(void *p, int v, size_t n) {
    cudaMemset(p, v, n);
}
void synchronize() {
    ASSERT_EQ(cudaDeviceSynchronize(), cudaSuccess);
}

#else

std::string no_device() {
    return "";
}
static void *raw_alloc(size_t n) {
    void *p = nullptr;
    return posix_memalign(&p, 256, n) ? nullptr : p;
}
static void raw_free(void *p) {
    free(p);
}
static void raw_copy(void *to, const void *from, size_t n) {
    memcpy(to, from, n);
}
static void raw_set(void *p, int v, size_t n) {
    memset(p, v, n);
}
void synchronize() {}

#endif

bool wgmma_here() {
    static const bool here = [] {
        Buffer a(8 * 8 * 2), b(8 * 8 * 2), d(8 * 8 * 2);
        twk_gemm_args z = {};
        z.batch = 1;
        z.m = z.n = z.k = z.a_row = z.b_row = 8;
        z.format = TWK_BF16;
        z.a = a.data();
        z.b = b.data();
        z.d = d.data();
        z.tile = TWK_TILE_128X128_WGMMA;
        const bool served = twk_gemm(&z, nullptr) != TWK_UNSUPPORTED;
        synchronize();
        return served;
    }();
    return here;
}

// Under AddressSanitizer the guards cannot even be read.
static void close_guards(unsigned char *base, unsigned char *data, size_t bytes) {
#ifdef WITH_ASAN
    __asan_poison_memory_region(base, data - base);
    __asan_poison_memory_region(data + bytes, guard);
#else
    (void)base, (void)data, (void)bytes;
#endif
}
static void open_guards(unsigned char *base, unsigned char *data, size_t bytes) {
#ifdef WITH_ASAN
    __asan_unpoison_memory_region(base, data - base + bytes + guard);
#else
    (void)base, (void)data, (void)bytes;
#endif
}

Buffer::Buffer(size_t bytes, size_t shift) : bytes_(bytes) {
    base_ = static_cast<unsigned char *>(raw_alloc(bytes + shift + 2 * guard));
    if (!base_) {
        fprintf(stderr, "no memory for a test tensor\n");
        abort();
    }
    data_ = base_ + guard + shift;
    raw_set(base_, guard_byte, guard + shift);
    raw_set(data_ + bytes, guard_byte, guard);
    if (bytes) raw_set(data_, 0xff, bytes);
    close_guards(base_, data_, bytes_);
}

void Buffer::release() {
    if (!base_) return;
    open_guards(base_, data_, bytes_);
    raw_free(base_);
    base_ = nullptr;
}
Buffer::~Buffer() {
    release();
}
Buffer::Buffer(Buffer &&o) noexcept : base_(o.base_), data_(o.data_), bytes_(o.bytes_) {
    o.base_ = nullptr;
}
Buffer &Buffer::operator=(Buffer &&o) noexcept {
    if (this == &o) return *this;
    release();
    base_ = o.base_;
    data_ = o.data_;
    bytes_ = o.bytes_;
    o.base_ = nullptr;
    return *this;
}
void Buffer::upload(const void *from) {
    if (bytes_) raw_copy(data_, from, bytes_);
}
void Buffer::download(void *to) const {
    if (bytes_) raw_copy(to, data_, bytes_);
}
void Buffer::poison() {
    if (bytes_) raw_set(data_, 0xff, bytes_);
}
bool Buffer::guards_intact() const {
    const size_t before = data_ - base_;
    std::vector<unsigned char> all(before + bytes_ + guard);
    open_guards(base_, data_, bytes_);
    raw_copy(all.data(), base_, all.size());
    close_guards(base_, data_, bytes_);
    for (size_t i = 0; i < all.size(); i++)
        if ((i < before || i >= before + bytes_) && all[i] != guard_byte) return false;
    return true;
}

Hollow::Hollow(size_t bytes) : bytes_(bytes) {
    void *p = mmap(nullptr, bytes, PROT_READ | PROT_WRITE,
                   MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    data = p == MAP_FAILED ? nullptr : static_cast<char *>(p);
}
Hollow::~Hollow() {
    if (data) munmap(data, bytes_);
}

// ---- formats ------------------------------------------------------------------------------------

size_t bytes_of(twk_format f) {
    return f == TWK_F32 ? 4 : 2;
}
double eps_of(twk_format f) {
    return f == TWK_F32 ? 0x1p-24 : f == TWK_BF16 ? 0x1p-8 : 0x1p-11;
}
const char *name_of(twk_format f) {
    return f == TWK_F32 ? "fp32" : f == TWK_BF16 ? "bf16" : "fp16";
}

double tf32_of(double v) {
    int e;
    const double m = std::frexp(v, &e);
    return std::ldexp(std::round(std::ldexp(m, 11)), e - 11);
}

double round_to(twk_format f, double v) {
    if (f == TWK_F32) return (float)v;
    if (v == 0 || !std::isfinite(v)) return v;
    int e;
    std::frexp(v, &e); // |v| in [2^(e-1), 2^e)
    const int digits = f == TWK_BF16 ? 8 : 11, lowest = f == TWK_BF16 ? -133 : -24;
    const int unit = std::max(e - digits, lowest);
    return std::ldexp(std::nearbyint(std::ldexp(v, -unit)), unit);
}

static uint16_t encode_16(twk_format f, double v) {
    if (f == TWK_BF16) {
        const float x = (float)v;
        uint32_t bits;
        memcpy(&bits, &x, 4);
        return (uint16_t)(bits >> 16);
    }
    const uint16_t sign = std::signbit(v) ? 0x8000 : 0;
    v = std::fabs(v);
    if (std::isnan(v)) return 0x7fff;
    if (v >= 65520) return sign | 0x7c00;
    if (v < 0x1p-14) return sign | (uint16_t)(v * 0x1p24);
    int e;
    const double m = std::frexp(v, &e); // v = m 2^e, m in [1/2, 1)
    return sign | (uint16_t)((e + 14) << 10) | (uint16_t)((2 * m - 1) * 1024);
}

static double decode_16(twk_format f, uint16_t b) {
    if (f == TWK_BF16) {
        const uint32_t bits = (uint32_t)b << 16;
        float x;
        memcpy(&x, &bits, 4);
        return x;
    }
    const int e = b >> 10 & 31, m = b & 1023;
    const double v = e == 31 ? (m ? NAN : INFINITY)
                     : e     ? std::ldexp(1024 + m, e - 25)
                             : std::ldexp(m, -24);
    return b & 0x8000 ? -v : v;
}

// ---- tensors ------------------------------------------------------------------------------------

std::mt19937_64 &rng() {
    static std::mt19937_64 engine = [] {
        const char *text = getenv("TW_TEST_SEED");
        const uint64_t seed = text ? strtoull(text, nullptr, 0) : std::random_device{}();
        printf("TW_TEST_SEED=%llu\n", (unsigned long long)seed);
        return std::mt19937_64(seed);
    }();
    return engine;
}
double uniform(double low, double high) {
    return std::uniform_real_distribution<double>(low, high)(rng());
}
int64_t pick(int64_t n) {
    return std::uniform_int_distribution<int64_t>(0, n - 1)(rng());
}

Tensor::Tensor(twk_format f, int64_t n, size_t shift)
    : format(f), v((size_t)n), buffer((size_t)n * bytes_of(f), shift * bytes_of(f)) {}

Tensor::Tensor(twk_format f, std::vector<double> values, size_t shift)
    : Tensor(f, (int64_t)values.size(), shift) {
    write(values);
}

void Tensor::write(const std::vector<double> &values) {
    for (size_t i = 0; i < v.size(); i++) v[i] = round_to(format, values[i]);
    if (format == TWK_F32) {
        std::vector<float> raw(v.begin(), v.end());
        buffer.upload(raw.data());
    } else {
        std::vector<uint16_t> raw(v.size());
        for (size_t i = 0; i < v.size(); i++) raw[i] = encode_16(format, v[i]);
        buffer.upload(raw.data());
    }
}

std::vector<double> Tensor::read() const {
    EXPECT_TRUE(buffer.guards_intact()) << "written outside the tensor";
    if (format == TWK_F32) {
        std::vector<float> raw(v.size());
        buffer.download(raw.data());
        return std::vector<double>(raw.begin(), raw.end());
    }
    std::vector<uint16_t> raw(v.size());
    buffer.download(raw.data());
    std::vector<double> out(v.size());
    for (size_t i = 0; i < v.size(); i++) out[i] = decode_16(format, raw[i]);
    return out;
}

Tensor random_tensor(twk_format f, int64_t n, double scale, size_t shift) {
    std::vector<double> values((size_t)n);
    std::normal_distribution<double> normal(0.0, scale / 2);
    for (double &x : values) x = normal(rng());
    return Tensor(f, std::move(values), shift);
}

// ---- comparison ---------------------------------------------------------------------------------

int64_t count_bad(const std::vector<double> &got, const std::vector<Expected> &want, twk_format f,
                  double c, std::string *what) {
    int64_t bad = 0;
    const double tiny = f == TWK_F16 ? 0x1p-25 : 0x1p-133;
    for (size_t i = 0; i < want.size(); i++) {
        const double bound =
            eps_of(f) * std::fabs(want[i].value) + c * 0x1p-24 * want[i].terms + tiny;
        if (std::fabs(got[i] - want[i].value) <= bound) continue;
        if (bad++ || !what) continue;
        char text[200];
        snprintf(text, sizeof text, "element %zu of %zu: got %.9g, expected %.9g, bound %.3g", i,
                 want.size(), got[i], want[i].value, bound);
        *what = text;
    }
    return bad;
}

void expect_close(const std::vector<double> &got, const std::vector<Expected> &want, twk_format f,
                  double c, const std::string &label) {
    ASSERT_EQ(got.size(), want.size()) << label;
    std::string what;
    const int64_t bad = count_bad(got, want, f, c, &what);
    EXPECT_EQ(bad, 0) << label << " (" << name_of(f) << "): " << what;
}

// ---- noise --------------------------------------------------------------------------------------

void philox(const uint32_t counter[4], const uint32_t key[2], uint32_t out[4]) {
    uint32_t c[4] = {counter[0], counter[1], counter[2], counter[3]}, k[2] = {key[0], key[1]};
    for (int round = 0; round < 10; round++) {
        const uint64_t p0 = 0xD2511F53ull * c[0], p1 = 0xCD9E8D57ull * c[2];
        const uint32_t next[4] = {(uint32_t)(p1 >> 32) ^ c[1] ^ k[0], (uint32_t)p1,
                                  (uint32_t)(p0 >> 32) ^ c[3] ^ k[1], (uint32_t)p0};
        memcpy(c, next, sizeof c);
        k[0] += 0x9E3779B9;
        k[1] += 0xBB67AE85;
    }
    memcpy(out, c, sizeof c);
}

static void words_of(const Key &k, int64_t element, uint32_t out[4]) {
    const uint32_t counter[4] = {(uint32_t)(element / 4), k.step, (uint32_t)k.sample,
                                 k.purpose << 16 | (uint32_t)(k.sample >> 32 & 0xffff)};
    const uint32_t key[2] = {(uint32_t)k.seed, (uint32_t)(k.seed >> 32)};
    philox(counter, key, out);
}

uint32_t noise_word(const Key &key, int64_t element) {
    uint32_t r[4];
    words_of(key, element, r);
    return r[element % 4];
}

double noise_uniform(const Key &key, int64_t element) {
    return (noise_word(key, element) >> 8) * 0x1p-24;
}

double noise_normal(const Key &key, int64_t element) {
    uint32_t r[4];
    words_of(key, element, r);
    const int pair = element % 4 / 2 * 2;
    const double u = std::fma((float)r[pair], 0x1p-32f, 0x1p-33f);
    const double radius = std::sqrt(-2 * std::log(u));
    const double angle = 2 * M_PI * (double)((float)r[pair + 1] * 0x1p-32f);
    return element % 2 ? radius * std::sin(angle) : radius * std::cos(angle);
}

// ---- shapes -------------------------------------------------------------------------------------

std::string str(const Shape &s) {
    return std::to_string(s.n) + "x" + std::to_string(s.h) + "x" + std::to_string(s.w) + "x" +
           std::to_string(s.c);
}

const std::vector<Shape> &shapes() {
    static const std::vector<Shape> all = {
        {1, 1, 1, 1},    {3, 1, 1, 3},    {5, 1, 1, 4},    {2, 7, 5, 1},    {3, 7, 5, 3},
        {2, 7, 5, 33},   {1, 4, 4, 384},  {2, 4, 4, 32},   {2, 7, 5, 96},   {1, 32, 32, 3},
        {2, 32, 32, 4},  {1, 4, 4, 128},  {33, 1, 1, 2},   {1, 1, 1, 1023}, {1, 1, 1, 1024},
        {1, 1, 1, 1025}, {2, 1, 1, 2047}, {1, 1, 1, 2048}, {1, 1, 1, 2049},
    };
    return all;
}

} // namespace tst
