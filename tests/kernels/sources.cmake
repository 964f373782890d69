# One test program a kernel family: FAMILY_test.cpp.
set(TW_KERNEL_TEST_FAMILIES
    wrappers
    mma
    noise
    draw
    sampler
    update
    group_norm
    small
    optimizer
    conv
    conv_gradient
    gemm
    block
    attention
    large
)
