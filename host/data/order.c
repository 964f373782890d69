#include "data/order.h"

#include <math.h>

#include "core/philox.h"

void tw_order_permute(uint64_t seed, uint32_t purpose, uint64_t epoch, int64_t n, uint32_t *order) {
    const tw_philox_key key = {seed, epoch >> 32, purpose, (uint32_t)epoch};
    for (int64_t i = 0; i < n; i++) order[i] = (uint32_t)i;
    for (int64_t i = n - 1; i > 0; i--) {
        uint32_t w[4];
        tw_philox_words(&key, (uint32_t)i, w);
        /* Uniform in 0..i; with 64 bits the bias is below 2^-32. */
        const uint64_t r = (uint64_t)w[1] << 32 | w[0];
        const int64_t j = (int64_t)(((unsigned __int128)r * (uint64_t)(i + 1)) >> 64);
        const uint32_t other = order[j];
        order[j] = order[i];
        order[i] = other;
    }
}

tw_status tw_order_split(tw_context *ctx, uint64_t seed, int64_t n, double holdout, int validation,
                         uint32_t **part, int64_t *count) {
    *part = NULL;
    if (!(holdout >= 0 && holdout <= 0.5))
        return tw_fail(ctx, TW_ERROR_ARGUMENT, "loader: holdout: expected 0 to 0.5, got %g",
                       holdout);
    int64_t held = (int64_t)floor((double)n * holdout + 0.5);
    if (holdout > 0 && held == 0) held = 1;
    if (held >= n || (validation && held == 0))
        return tw_fail(ctx, TW_ERROR_ARGUMENT,
                       "loader: holdout: %g of %lld samples leaves a part empty", holdout,
                       (long long)n);
    uint32_t *order = tw_allocate(ctx, (size_t)n, sizeof *order);
    uint8_t *is_held = order ? tw_allocate(ctx, (size_t)n, 1) : NULL;
    if (!is_held) {
        tw_free(ctx, order);
        return TW_ERROR_MEMORY;
    }
    if (held) tw_order_permute(seed, TW_PURPOSE_SPLIT, 0, n, order);
    for (int64_t i = 0; i < held; i++) is_held[order[i]] = 1;
    *count = 0;
    for (int64_t i = 0; i < n; i++)
        if (is_held[i] == (validation != 0)) order[(*count)++] = (uint32_t)i;
    tw_free(ctx, is_held);
    *part = order;
    return TW_OK;
}
