/* Which provider "auto" asks first, by the class of a product. */
#ifndef TW_BACKEND_CUDA_HEURISTICS_H
#define TW_BACKEND_CUDA_HEURISTICS_H

#include "backend/cuda/cuda.h"

struct tw_own_fused;

typedef enum tw_product_class {
    TW_PRODUCT_WIDE,
    TW_PRODUCT_NARROW,   /* a convolution with up to 4 channels on a side: memory binds */
    TW_PRODUCT_ENLARGED, /* a convolution of an image that is enlarged on the way, or its gradient
                          */
    TW_PRODUCT_SMALL /* a weights' gradient in 16 bits below TW_SMALL_FLOPS: adding parts up binds
                      */
} tw_product_class;

#define TW_SMALL_FLOPS 2e10

typedef struct tw_heuristic {
    tw_op_kind kind;
    tw_product_class shape;
    tw_dtype format;
    bool tf32;
    double own, library; /* percent of what binds the operation */
    bool measured;       /* on a GPU; else predicted */
    const char *row;     /* of bench/results/plan.md, which has the two and the reason */
} tw_heuristic;

extern const tw_heuristic tw_heuristics[];
extern const int tw_heuristic_count;

/* That of a claim; null: nothing is known, and the hand-written kernels are asked first. */
const tw_heuristic *tw_heuristic_of(const tw_region *region, const struct tw_own_fused *f);
/* Whether the library is so much quicker that it is asked first. */
bool tw_heuristic_library_first(const tw_heuristic *h);

/* As tw_backend.order. */
tw_status tw_cuda_order(tw_backend *b, const tw_region *region, const tw_provider *const **out);

#endif
