/* What the families say and do in the same way. */
#include "backend/cuda/vendor/internal.h"

size_t tw_vendor_format_bytes(twk_format format) {
    return format == TWK_F32 ? 4 : 2;
}

const char *tw_vendor_format_name(twk_format format, int tf32) {
    if (format == TWK_F32) return tf32 ? "tf32" : "fp32";
    return format == TWK_BF16 ? "bf16" : "fp16";
}

/* Four roundings to the format; where the result is not rounded, those of the products or of sums
 * in another order. */
double tw_vendor_tolerance(twk_format format, int tf32) {
    if (format == TWK_BF16) return 0x1p-6;
    if (format == TWK_F16) return 0x1p-9;
    return tf32 ? 0x1p-8 : 0x1p-16;
}

int64_t tw_vendor_alignment(const void *address) {
    const uintptr_t low = (uintptr_t)address & 15;
    return low ? (int64_t)(low & -low) : 16;
}

twk_status tw_vendor_round(const tw_vendor *v, const float *from, int64_t n, twk_format format,
                           void *to, twk_stream stream) {
    const twk_convert_args convert = {.batch = 1,
                                      .pixels = 1,
                                      .channels = n,
                                      .in_format = TWK_F32,
                                      .out_format = format,
                                      .in = from,
                                      .out = to};
    const twk_status status = v->options.kernels.convert(&convert, stream);
    if (status == TWK_OK) return TWK_OK;
    const tw_vendor_kernels *k = &v->options.kernels;
    return tw_vendor_fail(status, "bias: %s", k->error_text ? k->error_text() : "not rounded");
}
