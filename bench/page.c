/* The plan as a page of Markdown. */
#include <inttypes.h>

#include "plan.h"

const char *bench_format_name(twk_format format) {
    return format == TWK_F32 ? "fp32" : format == TWK_BF16 ? "bf16" : "fp16";
}

void bench_shape_text(const bench_row *r, char text[BENCH_SHAPE_TEXT]) {
    int used = snprintf(text, BENCH_SHAPE_TEXT, "%" PRId64 "x%" PRId64 "x%" PRId64 "x%" PRId64,
                        r->n, r->h, r->w, r->c);
    if (r->second)
        used += snprintf(text + used, BENCH_SHAPE_TEXT - (size_t)used, " (%" PRId64 "+%d)",
                         r->c - r->second, r->second);
    if (r->groups) snprintf(text + used, BENCH_SHAPE_TEXT - (size_t)used, " g%d", r->groups);
    if (r->keys) snprintf(text + used, BENCH_SHAPE_TEXT - (size_t)used, " keys %d", r->keys);
    if (r->out_channels)
        snprintf(text + used, BENCH_SHAPE_TEXT - (size_t)used, "%s -> %d%s%s",
                 r->upsampled ? " up" : "", r->out_channels, r->stride == 2 ? " stride 2" : "",
                 r->tf32 ? " tf32" : "");
}

void bench_print_page(FILE *out, const bench_row *rows, size_t count) {
    fputs("# Kernels: the plan\n\n"
          "Written by `kernel_bench --plan`; predictions come before measurements and stay as they "
          "are.\n"
          "Bytes are what must cross device memory; b is the format's size. The floor divides them "
          "by the\n"
          "reference GPU's copy bandwidth (H200, 4.3 TB/s counted read + write). Predicted is in "
          "percent of\n"
          "the copy bandwidth of the same run, cold, and does not count the launch (2 us in "
          "the time).\n"
          "The peer of every row is a device copy of the same bytes under the same protocol.\n"
          "Rows with FLOPs: the floor is the larger of that and their nominal number, two a "
          "multiply-add, over\n"
          "790 TFLOP/s (bf16, fp16), 395 (tf32) or 60 (exact fp32), and predicted is in percent "
          "of it; executed\n"
          "is what the kernel does, as a multiple of the nominal number. Where wgmma is the limit "
          "a tile of 128 x\n"
          "128 wants 16 KB from L2 for 2^20 FLOPs, 12 TB/s at 100 %, one of 128 x 256 12 KB, 8 or "
          "10 where two\n"
          "blocks share. mma.sync reaches about 0.6 of the tensor\n"
          "cores' rate on this GPU, so that 60 % would be all of it; what is below that is the "
          "note's or the\n"
          "limit's. The others have no matrix product in them: FLOPs do not bind, instructions "
          "may.\n"
          "The named peer of these rows is the best plan of cuDNN (convolutions, attention) or "
          "cuBLASLt, tuned,\n"
          "its bias fused, in turn with the kernel; library is what it is expected to reach of "
          "the floor, and\n"
          "ratio what the kernel should reach of it. A library is given one image where the "
          "kernel reads two,\n"
          "and an upsampled one where the kernel upsamples: making them is not counted.\n\n"
          "Shapes are n x h x w x c of the input (c of two tensors: a + b); of a product, n of h "
          "* w rows by c\n"
          "columns; of attention, samples x heads x queries x columns of a head.\n\n"
          "| kernel | shape | format | bytes | formula | GFLOP | executed | floor us | "
          "predicted % | predicted us | library % | ratio | limit | note |\n"
          "|---|---|---|---|---|---|---|---|---|---|---|---|---|---|\n",
          out);
    for (size_t i = 0; i < count; i++) {
        const bench_row *r = &rows[i];
        char shape[BENCH_SHAPE_TEXT];
        bench_shape_text(r, shape);
        fprintf(out, "| %s | %s | %s | %.4g MB | %s | ", r->name, shape,
                bench_format_name(r->format), bench_bytes(r) / 1e6, r->formula);
        if (r->flops_per_element > 0)
            fprintf(out, "%.4g | %.2f", bench_flops(r) / 1e9, r->executed);
        else
            fputs(" | ", out);
        fprintf(out, " | %.2f | %.0f | %.1f | ", bench_floor_seconds(r) * 1e6, r->percent,
                bench_predicted_seconds(r) * 1e6);
        if (r->library > 0)
            fprintf(out, "%.0f | %.2f", r->library, bench_predicted_ratio(r));
        else
            fputs(" | ", out);
        fprintf(out, " | %s | %s |\n", r->limit, r->note);
    }
}
