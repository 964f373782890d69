// Samplers in double straight from their papers' formulas, sharing nothing with the library but the
// noise: DDIM (Song, Meng & Ermon 2020, eq. 12) and ancestral DDPM (Ho et al. 2020, algorithm 2).
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <functional>
#include <vector>

#include <tweedie/sampler.h>

extern "C" {
#include "core/philox.h"
}

struct ReferenceSampler {
    const double *A; // alphas_cumprod
    std::vector<int64_t> times;
    tw_sampler_options options = TW_SAMPLER_OPTIONS_INIT;
    tw_prediction prediction = TW_PREDICT_EPSILON;
    // m (and, with a learned variance, o) of all elements at time t.
    std::function<void(const std::vector<double> &x, int64_t t, std::vector<double> &m,
                       std::vector<double> &o)>
        network;
    // After every step.
    std::function<void(const std::vector<double> &x, const std::vector<double> &x0)> watch;

    static std::vector<double> noise(uint64_t seed, uint64_t first, int64_t n, int64_t elements,
                                     uint32_t purpose, uint32_t step) {
        std::vector<double> out;
        for (int64_t i = 0; i < n; i++)
            for (int64_t e = 0; e < elements; e++) {
                const tw_philox_key key = {seed, first + (uint64_t)i, purpose, step};
                double z[4];
                tw_philox_normals(&key, (uint32_t)(e / 4), z);
                out.push_back(z[e % 4]);
            }
        return out;
    }

    static double quantile(std::vector<double> v, double q) {
        std::sort(v.begin(), v.end());
        const double rank = q * (double)(v.size() - 1);
        const size_t k = (size_t)rank, next = std::min(k + 1, v.size() - 1);
        return v[k] + (rank - (double)k) * (v[next] - v[k]);
    }

    void clip(std::vector<double> &x0, int64_t elements) const {
        for (size_t at = 0; at < x0.size(); at += (size_t)elements) {
            const auto begin = x0.begin() + (long)at, end = begin + elements;
            double limit = options.clip_range, divide = 1;
            if (options.clipping == TW_CLIPPING_DYNAMIC) {
                std::vector<double> size(begin, end);
                for (double &v : size) v = std::abs(v);
                limit = std::min(std::max(quantile(size, options.dynamic_ratio), 1.0),
                                 options.dynamic_max);
                divide = limit;
            } else if (options.clipping != TW_CLIPPING_RANGE) {
                return;
            }
            std::for_each(begin, end,
                          [&](double &v) { v = std::clamp(v, -limit, limit) / divide; });
        }
    }

    // x is x_T on entry and the samples on return.
    void run(std::vector<double> &x, int64_t elements) const {
        const int64_t n = (int64_t)x.size() / elements;
        for (size_t i = 0; i < times.size(); i++) {
            const int64_t t = times[i];
            const bool last = i + 1 == times.size();
            const double a = A[t], ap = !last                      ? A[times[i + 1]]
                                        : options.set_alpha_to_one ? 1.0
                                                                   : A[0];
            std::vector<double> m, o, x0(x.size()), e(x.size());
            network(x, t, m, o);
            for (size_t k = 0; k < x.size(); k++) switch (prediction) {
                case TW_PREDICT_EPSILON:
                    e[k] = m[k], x0[k] = (x[k] - std::sqrt(1 - a) * m[k]) / std::sqrt(a);
                    break;
                case TW_PREDICT_SAMPLE:
                    x0[k] = m[k], e[k] = (x[k] - std::sqrt(a) * m[k]) / std::sqrt(1 - a);
                    break;
                case TW_PREDICT_V:
                    x0[k] = std::sqrt(a) * x[k] - std::sqrt(1 - a) * m[k];
                    e[k] = std::sqrt(a) * m[k] + std::sqrt(1 - a) * x[k];
                }
            clip(x0, elements);
            if (options.rederive_epsilon)
                for (size_t k = 0; k < x.size(); k++)
                    e[k] = (x[k] - std::sqrt(a) * x0[k]) / std::sqrt(1 - a);
            const std::vector<double> z = noise(options.seed, options.first_sample, n, elements,
                                                TW_PURPOSE_SAMPLER, (uint32_t)i);
            for (size_t k = 0; k < x.size(); k++)
                x[k] = options.kind == TW_SAMPLER_DDIM
                           ? ddim(a, ap, x0[k], e[k], z[k])
                           : ddpm(a, ap, last, x[k], x0[k], o.empty() ? 0 : o[k], z[k]);
            if (watch) watch(x, x0);
        }
    }

  private:
    double ddim(double a, double ap, double x0, double e, double z) const {
        const double sigma = options.eta * std::sqrt((1 - ap) / (1 - a)) * std::sqrt(1 - a / ap);
        return std::sqrt(ap) * x0 + std::sqrt(std::max(1 - ap - sigma * sigma, 0.0)) * e +
               sigma * z;
    }

    double ddpm(double a, double ap, bool last, double x, double x0, double o, double z) const {
        const double ratio = a / ap, b = 1 - ratio, small = b * (1 - ap) / (1 - a);
        const double f = (o + 1) / 2;
        const double variance = options.variance == TW_VARIANCE_FIXED_SMALL   ? small
                                : options.variance == TW_VARIANCE_FIXED_LARGE ? b
                                : last                                        ? 0
                                       : std::exp(f * std::log(b) + (1 - f) * std::log(small));
        return std::sqrt(ap) * b / (1 - a) * x0 + std::sqrt(ratio) * (1 - ap) / (1 - a) * x +
               (last ? 0 : std::sqrt(variance) * z);
    }
};
