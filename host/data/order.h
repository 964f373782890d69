/* Which sample stands where: the split of a data set and the order of an epoch. */
#ifndef TW_DATA_ORDER_H
#define TW_DATA_ORDER_H

#include "core/context.h"

/* Fills order[n] with a permutation of 0..n-1 drawn by Philox (Fisher and Yates' shuffle). */
void tw_order_permute(uint64_t seed, uint32_t purpose, uint64_t epoch, int64_t n, uint32_t *order);

/* The samples of one part in ascending order, in *part (freed with tw_free) and *count. `holdout`
 * is the fraction held out of n samples. */
tw_status tw_order_split(tw_context *ctx, uint64_t seed, int64_t n, double holdout, int validation,
                         uint32_t **part, int64_t *count);

#endif
