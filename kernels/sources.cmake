# The kernel sources, one file a family: read by the device build and by the emulated one.
set(TW_KERNEL_SOURCES
    launch.cu
    ddim.cu
    threshold.cu
    sampler_update.cu
    noising.cu
    group_norm_forward.cu
    group_norm_backward.cu
    elementwise.cu
    shape.cu
    embedding.cu
    sums.cu
    optimizer.cu
    conv_forward.cu
    conv_input_gradient.cu
    gemm.cu
)
