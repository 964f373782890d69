// Tensors of 16 bits through the hand-written kernels: formats reach the launchers as the plan's
// contract says, in every operation that a network has.
#include "support.h"
#include "support/halfs.h"

using namespace ops;

namespace {

class CudaHalf : public Cuda {};

TEST_F(CudaHalf, OperationsAreTheDoubleReferencesButForRounding) {
    Random r(81);
    for (tw_dtype dtype : kHalfs)
        for (const HalfCase &c : HalfCases(r)) {
            // Attention rounds its weights too, the embedding of time 999 has a float32 angle.
            const bool twice = std::strcmp(c.name, "attention") == 0;
            ExpectRounded(c, dtype, "own", 1, twice ? 2 * HalfUlp(dtype) : 1e-4);
        }
}

} // namespace
