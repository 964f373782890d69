// GroupNorm forward and backward: every path (on chip, clustered, two passes, foreign statistics),
// odd groups, and data whose mean is far from zero.
#include "support.h"

#include <cstring>

using namespace tst;

namespace {

class GroupNormTest : public KernelTest {};

struct Case {
    Shape shape;
    int groups;
    twk_format format;
    bool silu, affine, scaled, partial;
    double mean; // of x, in standard deviations
    size_t shift;
    int64_t second = 0;   // channels of x2
    bool added = false;   // another gradient to dx
    bool split_dx = true; // where there is x2: dx has two parts, too
    bool summed = false;  // dx over the pixels, too, where nothing is added
};

std::string str(const Case &c) {
    return tst::str(c.shape) + " groups " + std::to_string(c.groups) + " " + name_of(c.format) +
           (c.silu ? " silu" : "") + (c.affine ? " affine" : "") + (c.scaled ? " scaled" : "") +
           (c.partial ? " partial" : "") + " mean " + std::to_string(c.mean) + " shift " +
           std::to_string(c.shift) + " second " + std::to_string(c.second) +
           (c.added ? " added" : "") + (c.split_dx ? " split" : "") + (c.summed ? " summed" : "");
}

// Channels [from, to) of every pixel.
std::vector<double> part(const std::vector<double> &all, int64_t c, int64_t from, int64_t to) {
    std::vector<double> v;
    for (size_t i = 0; i < all.size(); i++)
        if ((int64_t)i % c >= from && (int64_t)i % c < to) v.push_back(all[i]);
    return v;
}

struct Data {
    int64_t n, pixels, c, stride;
    Tensor x, dy, gamma, beta, scale, shift, first, second, add; // x's parts where it has two
    std::vector<double> mean, rstd;                              // double
};

Data make_data(const Case &k) {
    Data d;
    d.n = k.shape.n;
    d.pixels = k.shape.h * k.shape.w;
    d.c = k.shape.c;
    d.stride = 2 * d.c + 3;
    std::vector<double> x((size_t)k.shape.total());
    std::normal_distribution<double> normal(0, 1);
    for (double &v : x) v = normal(rng()) + k.mean;
    d.x = Tensor(k.format, x, k.shift);
    d.dy = random_tensor(k.format, k.shape.total(), 2, k.shift);
    d.add = random_tensor(k.format, k.shape.total(), 2, k.shift);
    if (k.second) {
        d.first = Tensor(k.format, part(d.x.v, d.c, 0, d.c - k.second), k.shift);
        d.second = Tensor(k.format, part(d.x.v, d.c, d.c - k.second, d.c), k.shift);
    }
    d.gamma = random_tensor(TWK_F32, d.c);
    d.beta = random_tensor(TWK_F32, d.c);
    d.scale = random_tensor(k.format, d.n * d.stride, 1);
    d.shift = random_tensor(k.format, d.n * d.stride, 1);
    const int64_t per = d.c / k.groups;
    for (int64_t n = 0; n < d.n; n++)
        for (int64_t g = 0; g < k.groups; g++) {
            double sum = 0, squares = 0;
            for (int pass = 0; pass < 2; pass++)
                for (int64_t p = 0; p < d.pixels; p++)
                    for (int64_t i = 0; i < per; i++) {
                        const double v = d.x.v[(n * d.pixels + p) * d.c + g * per + i];
                        if (pass == 0)
                            sum += v;
                        else
                            squares += std::pow(v - sum / (double)(per * d.pixels), 2);
                    }
            d.mean.push_back(sum / (double)(per * d.pixels));
            d.rstd.push_back(1 / std::sqrt(squares / (double)(per * d.pixels) + 1e-5));
        }
    return d;
}

twk_group_norm_args make_args(const Case &k, const Data &d) {
    twk_group_norm_args a = {};
    a.batch = d.n;
    a.pixels = d.pixels;
    a.channels = (int)d.c;
    a.groups = k.groups;
    a.epsilon = 1e-5f;
    a.silu = k.silu;
    a.format = k.format;
    a.x = k.second ? d.first.data() : d.x.data();
    a.x2 = k.second ? d.second.data() : nullptr;
    a.channels2 = (int)k.second;
    a.gamma = k.affine ? d.gamma.f32() : nullptr;
    a.beta = k.affine ? d.beta.f32() : nullptr;
    a.scale = k.scaled ? d.scale.data() : nullptr;
    a.shift = k.scaled ? d.shift.data() : nullptr;
    a.scale_stride = d.stride;
    return a;
}

// What the parameters of a channel make of h = (x - mean) rstd.
struct Channel {
    double gamma, beta, scale, shift; // scale is 1 + scale
};
Channel channel_of(const Case &k, const Data &d, int64_t n, int64_t c) {
    return {k.affine ? d.gamma.v[c] : 1, k.affine ? d.beta.v[c] : 0,
            k.scaled ? 1 + d.scale.v[n * d.stride + c] : 1,
            k.scaled ? d.shift.v[n * d.stride + c] : 0};
}

double sigmoid(double v) {
    return 1 / (1 + std::exp(-v));
}

std::vector<Expected> expected_forward(const Case &k, const Data &d, int mistake) {
    std::vector<Expected> want((size_t)k.shape.total());
    const int64_t per = d.c / k.groups;
    for (int64_t i = 0; i < k.shape.total(); i++) {
        const int64_t c = i % d.c, n = i / d.c / d.pixels;
        const size_t g = (size_t)(n * k.groups + (mistake == 1 && c > 0 ? c - 1 : c) / per);
        const Channel ch = channel_of(k, d, n, c);
        const double h = (d.x.v[i] - d.mean[g]) * d.rstd[g], f = ch.gamma * ch.scale;
        const double u = h * f + ch.beta * ch.scale + (mistake == 2 ? 0 : ch.shift);
        // The mean is off by a few units of its own size and of the deviation.
        const double terms =
            (std::fabs(d.x.v[i]) + std::fabs(d.mean[g])) * d.rstd[g] * std::fabs(f) +
            std::fabs(h * f) + std::fabs(f) + std::fabs(ch.beta * ch.scale) + std::fabs(ch.shift);
        // The slope of SiLU is at most 1.1.
        want[i] =
            k.silu ? Expected{u * sigmoid(u), 1.1 * terms + std::fabs(u)} : Expected{u, terms};
    }
    return want;
}

// Moments of chunks of pixels, as another kernel would leave them.
Buffer make_partial(const Case &k, const Data &d, twk_group_norm_args *a) {
    const int64_t per = d.c / k.groups;
    a->pixels_per_partial = std::min<int64_t>(d.pixels, 6);
    a->n_partials = (d.pixels + a->pixels_per_partial - 1) / a->pixels_per_partial;
    std::vector<twk_moments> all;
    for (int64_t n = 0; n < d.n; n++)
        for (int64_t p = 0; p < a->n_partials; p++)
            for (int64_t g = 0; g < k.groups; g++) {
                std::vector<double> v;
                for (int64_t q = p * a->pixels_per_partial;
                     q < std::min(d.pixels, (p + 1) * a->pixels_per_partial); q++)
                    for (int64_t i = 0; i < per; i++)
                        v.push_back(d.x.v[(n * d.pixels + q) * d.c + g * per + i]);
                double mean = 0, m2 = 0;
                for (double x : v) mean += x / (double)v.size();
                for (double x : v) m2 += (x - mean) * (x - mean);
                all.push_back({(float)mean, (float)m2});
            }
    return upload(all);
}

int64_t run_forward(const Case &k, int mistake, std::string *what) {
    const Data d = make_data(k);
    twk_group_norm_args a = make_args(k, d);
    Tensor y(k.format, k.shape.total(), k.shift), mean(TWK_F32, d.n * k.groups),
        rstd(TWK_F32, d.n * k.groups);
    Buffer workspace(twk_group_norm_workspace(&a)), partial;
    if (k.partial) {
        partial = make_partial(k, d, &a);
        a.partial = static_cast<twk_moments *>(partial.data());
    }
    a.y = y.data();
    a.mean = mean.f32();
    a.rstd = rstd.f32();
    a.workspace = workspace.data();
    a.workspace_bytes = workspace.size();
    EXPECT_EQ(twk_group_norm_forward(&a, nullptr), TWK_OK) << twk_error_text();
    synchronize();
    EXPECT_TRUE(workspace.guards_intact());
    std::vector<Expected> want_mean, want_rstd;
    for (size_t i = 0; i < d.mean.size(); i++) {
        want_mean.push_back({d.mean[i], std::fabs(d.mean[i]) + 1 / d.rstd[i]});
        want_rstd.push_back({d.rstd[i], d.rstd[i] * (1 + std::fabs(d.mean[i]) * d.rstd[i])});
    }
    // From mean and rstd the same bits again.
    Tensor again(k.format, k.shape.total(), k.shift);
    a.partial = nullptr;
    a.given = 1;
    a.y = again.data();
    a.workspace = nullptr;
    EXPECT_EQ(twk_group_norm_forward(&a, nullptr), TWK_OK) << twk_error_text();
    synchronize();
    EXPECT_EQ(again.read(), y.read()) << str(k);
    int64_t bad = count_bad(y.read(), expected_forward(k, d, mistake), k.format, 16, what);
    if (!bad) bad += count_bad(mean.read(), want_mean, TWK_F32, 8, what);
    if (!bad) bad += count_bad(rstd.read(), want_rstd, TWK_F32, 16, what);
    return bad;
}

struct Sums {
    Expected s1, s2; // of d and of d h over the pixels
};

// The gradient before SiLU of element i, and h.
Expected gradient_before(const Case &k, const Data &d, int64_t i, double *h) {
    const int64_t c = i % d.c, n = i / d.c / d.pixels, per = d.c / k.groups;
    const size_t g = (size_t)(n * k.groups + c / per);
    const Channel ch = channel_of(k, d, n, c);
    *h = (d.x.v[i] - d.mean[g]) * d.rstd[g];
    if (!k.silu) return {d.dy.v[i], std::fabs(d.dy.v[i])};
    const double u = (*h * ch.gamma + ch.beta) * ch.scale + ch.shift, s = sigmoid(u);
    const double size =
        1 + std::fabs(u) +
        (std::fabs(*h) + std::fabs(d.mean[g]) * d.rstd[g]) * std::fabs(ch.gamma * ch.scale);
    return {d.dy.v[i] * s * (1 + u * (1 - s)), std::fabs(d.dy.v[i]) * size};
}

int64_t run_backward(const Case &k, int mistake, std::string *what) {
    const Data d = make_data(k);
    twk_group_norm_args a = make_args(k, d);
    const int64_t per = d.c / k.groups, total = k.shape.total();
    const bool split = k.second && k.split_dx;
    const int64_t rows_of_x = d.n * d.pixels;
    Tensor dx(k.format, split ? rows_of_x * (d.c - k.second) : total, k.shift),
        dx2(k.format, split ? rows_of_x * k.second : 1, k.shift), mean(TWK_F32, d.mean),
        rstd(TWK_F32, d.rstd);
    Tensor dgamma = random_tensor(TWK_F32, d.c), dbeta = random_tensor(TWK_F32, d.c);
    Tensor dscale(k.format, d.n * d.stride), dshift(k.format, d.n * d.stride),
        dvector = random_tensor(k.format, d.n * d.stride);
    Buffer workspace(twk_group_norm_backward_workspace(&a));
    a.mean = mean.f32();
    a.rstd = rstd.f32();
    a.dy = d.dy.data();
    a.dx = dx.data();
    a.dx2 = split ? dx2.data() : nullptr;
    a.dx_add = k.added ? d.add.data() : nullptr;
    a.dgamma = dgamma.f32();
    a.dbeta = dbeta.f32();
    a.dscale = dscale.data();
    a.dshift = dshift.data();
    a.dvector = k.summed && !k.added ? dvector.data() : nullptr;
    a.dvector_stride = d.stride;
    a.workspace = workspace.data();
    a.workspace_bytes = workspace.size();
    EXPECT_EQ(twk_group_norm_backward(&a, nullptr), TWK_OK) << twk_error_text();
    synchronize();
    EXPECT_TRUE(workspace.guards_intact());
    // Sums over pixels of each channel, then over channels of each group and over samples.
    std::vector<Sums> sums((size_t)(d.n * d.c));
    std::vector<Expected> m1((size_t)(d.n * k.groups)),
        m2 = m1, want_gamma((size_t)d.c), want_beta = want_gamma, want_scale((size_t)(d.n * d.c)),
        want_shift = want_scale, want_dx((size_t)total), want_vector((size_t)(d.n * d.stride));
    for (int64_t i = 0; i < d.n * d.stride; i++) // the columns behind stay
        if (i % d.stride >= d.c) want_vector[i].add(dvector.v[i]);
    for (int64_t i = 0; i < total; i++) {
        const int64_t c = i % d.c, n = i / d.c / d.pixels;
        const size_t g = (size_t)(n * k.groups + c / per);
        double h;
        const Expected e = gradient_before(k, d, i, &h);
        // h carries the cancellation of x - mean.
        const double hs = std::fabs(h) + std::fabs(d.mean[g]) * d.rstd[g];
        Sums &s = sums[n * d.c + c];
        s.s1.value += e.value;
        s.s1.terms += e.terms;
        s.s2.value += e.value * h;
        s.s2.terms += e.terms * hs;
    }
    for (int64_t n = 0; n < d.n; n++)
        for (int64_t c = 0; c < d.c; c++) {
            const Channel ch = channel_of(k, d, n, c);
            const Sums &s = sums[n * d.c + c];
            const size_t g = (size_t)(n * k.groups + c / per);
            const double f = ch.gamma * ch.scale, m = (double)(per * d.pixels);
            m1[g].value += f * s.s1.value / m;
            m1[g].terms += std::fabs(f) * s.s1.terms / m;
            m2[g].value += f * s.s2.value / m;
            m2[g].terms += std::fabs(f) * s.s2.terms / m;
            want_beta[c].value += ch.scale * s.s1.value;
            want_beta[c].terms += std::fabs(ch.scale) * s.s1.terms;
            want_gamma[c].value += ch.scale * s.s2.value;
            want_gamma[c].terms += std::fabs(ch.scale) * s.s2.terms;
            want_shift[n * d.c + c] = s.s1;
            want_scale[n * d.c + c] = {ch.gamma * s.s2.value + ch.beta * s.s1.value,
                                       std::fabs(ch.gamma) * s.s2.terms +
                                           std::fabs(ch.beta) * s.s1.terms};
        }
    for (int64_t c = 0; c < d.c; c++) { // parameters accumulate
        want_gamma[c].add(dgamma.v[c]);
        want_beta[c].add(dbeta.v[c]);
    }
    for (int64_t i = 0; i < total; i++) {
        const int64_t c = i % d.c, n = i / d.c / d.pixels;
        const size_t g = (size_t)(n * k.groups + c / per);
        const Channel ch = channel_of(k, d, n, c);
        double h;
        const Expected e = gradient_before(k, d, i, &h);
        const double f = ch.gamma * ch.scale, hs = std::fabs(h) + std::fabs(d.mean[g]) * d.rstd[g];
        const double second = mistake == 1 ? 0 : h * m2[g].value;
        want_dx[i] = {d.rstd[g] * (f * e.value - m1[g].value - second),
                      d.rstd[g] * (std::fabs(f) * e.terms + m1[g].terms + hs * m2[g].terms)};
        Expected &sum = want_vector[n * d.stride + c];
        if (mistake != 3 || i / d.c % d.pixels) sum.value += want_dx[i].value;
        sum.terms += want_dx[i].terms;
        if (k.added && mistake != 2) want_dx[i].add(d.add.v[i]);
    }
    auto rows = [&](const Tensor &t) { // the rows of dscale and dshift, which are strided
        const std::vector<double> all = t.read();
        std::vector<double> v;
        for (int64_t n = 0; n < d.n; n++)
            for (int64_t c = 0; c < d.c; c++) v.push_back(all[n * d.stride + c]);
        return v;
    };
    std::vector<double> got = dx.read();
    if (split) {
        got.resize((size_t)total);
        const std::vector<double> one = dx.read(), two = dx2.read();
        const int64_t before = d.c - k.second;
        for (int64_t r = 0; r < rows_of_x; r++)
            for (int64_t c = 0; c < d.c; c++)
                if (c < before)
                    got[(size_t)(r * d.c + c)] = one[(size_t)(r * before + c)];
                else
                    got[(size_t)(r * d.c + c)] = two[(size_t)(r * k.second + c - before)];
    }
    int64_t bad = count_bad(got, want_dx, k.format, 16, what);
    if (!bad) bad += count_bad(dgamma.read(), want_gamma, TWK_F32, 16, what);
    if (!bad) bad += count_bad(dbeta.read(), want_beta, TWK_F32, 16, what);
    if (!bad) bad += count_bad(rows(dscale), want_scale, k.format, 16, what);
    if (!bad) bad += count_bad(rows(dshift), want_shift, k.format, 16, what);
    if (!bad && a.dvector) bad += count_bad(dvector.read(), want_vector, k.format, 16, what);
    return bad;
}

struct Grid {
    Shape shape;
    int groups;
};
const std::vector<Grid> grid = {
    {{1, 1, 1, 1}, 1},    {{2, 1, 1, 4}, 2},    {{3, 4, 4, 3}, 3},    {{2, 7, 5, 3}, 1},
    {{2, 7, 5, 33}, 11},  {{1, 7, 5, 33}, 1},   {{2, 4, 4, 32}, 32},  {{1, 4, 4, 96}, 32},
    {{2, 7, 5, 96}, 8},   {{2, 4, 4, 128}, 32}, {{1, 7, 5, 384}, 32}, {{2, 8, 8, 64}, 4},
    {{1, 32, 32, 32}, 8}, {{2, 1, 1, 128}, 32}, {{1, 2, 2, 2056}, 1}, {{1, 2, 3, 2100}, 7},
    {{1, 16, 17, 40}, 5}, {{3, 5, 5, 192}, 8},  {{2, 8, 8, 1024}, 1}, {{2, 3, 3, 1032}, 1},
};

constexpr int trials = for_races ? 1 : 2;

Case random_case(const Grid &g, twk_format f) {
    Case k;
    k.shape = g.shape;
    k.groups = g.groups;
    k.format = f;
    k.silu = pick(2);
    k.affine = pick(3) > 0;
    k.scaled = pick(2);
    k.partial = pick(3) == 0;
    k.mean = pick(2) ? 0 : 30;
    k.shift = pick(4) == 0;
    k.added = pick(2);
    k.summed = pick(2);
    return k;
}

TEST_F(GroupNormTest, Forward) {
    for (const Grid &g : grid)
        for (twk_format f : formats)
            for (int trial = 0; trial < trials; trial++) {
                const Case k = random_case(g, f);
                std::string what;
                EXPECT_EQ(run_forward(k, 0, &what), 0) << str(k) << ": " << what;
            }
}

TEST_F(GroupNormTest, Backward) {
    for (const Grid &g : grid)
        for (twk_format f : formats)
            for (int trial = 0; trial < trials; trial++) {
                Case k = random_case(g, f);
                // With one value a group everything is decided by epsilon.
                if (g.shape.h * g.shape.w * g.shape.c == g.groups) continue;
                k.partial = false;
                std::string what;
                EXPECT_EQ(run_backward(k, 0, &what), 0) << str(k) << ": " << what;
            }
}

// Two tensors in the place of one: the seam between groups, inside one, and between a block's
// tiles.
TEST_F(GroupNormTest, TwoParts) {
    const struct {
        Shape shape;
        int groups;
        int64_t second;
    } parts[] = {
        {{2, 7, 5, 32}, 4, 16},   {{2, 4, 4, 48}, 4, 16},  {{1, 7, 5, 384}, 32, 128},
        {{2, 1, 1, 96}, 8, 8},    {{1, 3, 2, 2080}, 4, 8}, {{1, 16, 17, 40}, 5, 24},
        {{1, 40, 41, 64}, 8, 16},
    };
    for (const auto &p : parts)
        for (twk_format f : formats)
            for (const bool split : {false, true}) {
                Case k = random_case({p.shape, p.groups}, f);
                k.second = p.second;
                k.split_dx = split;
                std::string what;
                EXPECT_EQ(run_forward(k, 0, &what), 0) << str(k) << ": " << what;
                k.partial = false;
                EXPECT_EQ(run_backward(k, 0, &what), 0) << str(k) << ": " << what;
            }
}

TEST_F(GroupNormTest, NoticesPlantedMistakes) {
    NOT_FOR_RACES();
    Case k = random_case({{2, 7, 5, 32}, 8}, TWK_BF16);
    k.scaled = k.affine = k.silu = true;
    k.mean = 0;
    EXPECT_GT(run_forward(k, 1, nullptr), 0);
    EXPECT_GT(run_forward(k, 2, nullptr), 0);
    k.format = TWK_F32;
    EXPECT_GT(run_backward(k, 1, nullptr), 0);
    k.added = true;
    k.second = 8;
    EXPECT_GT(run_backward(k, 2, nullptr), 0);
    k.added = false;
    k.summed = true;
    EXPECT_EQ(run_backward(k, 0, nullptr), 0);
    EXPECT_GT(run_backward(k, 3, nullptr), 0);
}

#ifdef TW_EMULATOR
// Each way through the kernels, by what the pretended device offers.
TEST_F(GroupNormTest, EveryPath) {
    const size_t shared = tw::emu::shared_limit();
    const unsigned cluster = tw::emu::max_cluster();
    const struct {
        size_t shared;
        unsigned cluster;
        uint64_t forward, backward; // launches
        Grid grid;
    } paths[] = {
        {227 * 1024, 8, 1, 2, {{1, 32, 32, 32}, 8}}, // one block, or two
        {227 * 1024, 8, 1, 2, {{1, 48, 48, 32}, 4}}, // a cluster
        {227 * 1024, 8, 1, 2, {{1, 40, 41, 64}, 8}}, // a cluster with an uneven share
        {99 * 1024, 1, 1, 2, {{1, 26, 26, 32}, 8}},  // the smallest device; SiLU's slope twice
        {99 * 1024, 1, 1, 3, {{1, 32, 32, 32}, 8}},  // forward still on chip
        {99 * 1024, 1, 3, 3, {{1, 48, 48, 32}, 4}},  // too large: two passes
    };
    for (const auto &p : paths) {
        tw::emu::set_shared_limit(p.shared);
        tw::emu::set_max_cluster(p.cluster);
        Case k = random_case(p.grid, TWK_BF16);
        k.partial = false;
        k.shift = 0;
        std::string what;
        uint64_t before = tw::emu::launches();
        EXPECT_EQ(run_forward(k, 0, &what), 0) << str(k) << ": " << what;
        EXPECT_EQ(tw::emu::launches() - before, p.forward + 1) << str(k); // and from its statistics
        for (const bool summed : {false, true}) {
            k.summed = summed;
            k.added = k.added && !summed;
            before = tw::emu::launches();
            EXPECT_EQ(run_backward(k, 0, &what), 0) << str(k) << ": " << what;
            EXPECT_EQ(tw::emu::launches() - before, p.backward) << str(k);
        }
    }
    tw::emu::set_shared_limit(shared);
    tw::emu::set_max_cluster(cluster);
}
#endif

// A sample with one huge value: sums about a fixed origin would lose the rest.
TEST_F(GroupNormTest, OutliersAndConstants) {
    NOT_FOR_RACES();
    for (const double outlier : {1e4, 0.0}) {
        const int64_t pixels = 300, c = 8;
        std::vector<double> x((size_t)(pixels * c));
        for (double &v : x) v = outlier != 0 ? tst::uniform(-1, 1) : 3;
        x[0] += outlier;
        Tensor xs(TWK_F32, x), y(TWK_F32, pixels * c), mean(TWK_F32, 1), rstd(TWK_F32, 1);
        twk_group_norm_args a = {};
        a.batch = 1;
        a.pixels = pixels;
        a.channels = (int)c;
        a.groups = 1;
        a.epsilon = 1e-5f;
        a.x = xs.data();
        a.y = y.data();
        a.mean = mean.f32();
        a.rstd = rstd.f32();
        Buffer workspace(twk_group_norm_workspace(&a));
        a.workspace = workspace.data();
        a.workspace_bytes = workspace.size();
        LAUNCH_OK(twk_group_norm_forward(&a, nullptr));
        double sum = 0, squares = 0;
        for (double v : xs.v) sum += v / (double)(pixels * c);
        for (double v : xs.v) squares += (v - sum) * (v - sum) / (double)(pixels * c);
        const double want = 1 / std::sqrt(squares + 1e-5);
        EXPECT_NEAR(rstd.read()[0] / want, 1, 1e-6);
        EXPECT_NEAR(mean.read()[0], sum, 1e-6 * (1 + std::fabs(outlier) / 100));
    }
}

TEST_F(GroupNormTest, RefusesWhatIsWrong) {
    Tensor x = random_tensor(TWK_F32, 24), y(TWK_F32, 24), stat(TWK_F32, 8);
    twk_group_norm_args good = {};
    good.batch = 1;
    good.pixels = 4;
    good.channels = 6;
    good.groups = 3;
    good.x = x.data();
    good.y = y.data();
    good.mean = good.rstd = stat.f32();
    Buffer workspace(twk_group_norm_workspace(&good));
    good.workspace = workspace.data();
    good.workspace_bytes = workspace.size();
    auto refused = [&](const std::function<void(twk_group_norm_args &)> &spoil) {
        twk_group_norm_args a = good;
        spoil(a);
        return twk_group_norm_forward(&a, nullptr) == TWK_BAD_ARGUMENT;
    };
    EXPECT_TRUE(refused([](twk_group_norm_args &a) { a.groups = 4; }));
    EXPECT_TRUE(refused([](twk_group_norm_args &a) { a.groups = 0; }));
    EXPECT_TRUE(refused([](twk_group_norm_args &a) { a.pixels = 0; }));
    EXPECT_TRUE(refused([](twk_group_norm_args &a) { a.x = nullptr; }));
    EXPECT_TRUE(refused([](twk_group_norm_args &a) { a.y = nullptr; }));
    EXPECT_TRUE(refused([](twk_group_norm_args &a) { a.workspace_bytes = 1; }));
    EXPECT_TRUE(refused([](twk_group_norm_args &a) { a.epsilon = -1; }));
    EXPECT_TRUE(refused([](twk_group_norm_args &a) { a.channels2 = 3; }));
    EXPECT_TRUE(refused([](twk_group_norm_args &a) {
        a.x2 = a.x;
        a.channels2 = 6;
    }));
    EXPECT_EQ(twk_group_norm_backward(&good, nullptr), TWK_BAD_ARGUMENT);
    {
        twk_group_norm_args a = good;
        Buffer large(twk_group_norm_backward_workspace(&a));
        a.workspace = large.data();
        a.workspace_bytes = large.size();
        a.dy = a.x;
        a.dx = a.y;
        a.dvector = y.data();
        a.dvector_stride = 6;
        a.dx_add = a.x;
        EXPECT_EQ(twk_group_norm_backward(&a, nullptr), TWK_BAD_ARGUMENT);
        a.dx_add = nullptr;
        a.batch = 2;
        a.dvector_stride = 5;
        EXPECT_EQ(twk_group_norm_backward(&a, nullptr), TWK_BAD_ARGUMENT);
    }
    good.x2 = good.x;
    good.channels2 = 3; // no multiple of 16 bytes
    EXPECT_EQ(twk_group_norm_forward(&good, nullptr), TWK_UNSUPPORTED);
}

} // namespace
