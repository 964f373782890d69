/* The plan as a page of Markdown. */
#include <inttypes.h>

#include "plan.h"

const char *bench_format_name(twk_format format) {
    return format == TWK_F32 ? "fp32" : format == TWK_BF16 ? "bf16" : "fp16";
}

void bench_shape_text(const bench_row *r, char text[BENCH_SHAPE_TEXT]) {
    const int used =
        snprintf(text, BENCH_SHAPE_TEXT, "%" PRId64 "x%" PRId64 "x%" PRId64 "x%" PRId64, r->n, r->h,
                 r->w, r->c);
    if (r->groups) snprintf(text + used, BENCH_SHAPE_TEXT - (size_t)used, " g%d", r->groups);
    if (r->out_channels)
        snprintf(text + used, BENCH_SHAPE_TEXT - (size_t)used, " -> %d%s", r->out_channels,
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
          "Convolutions: the floor is the larger of that and 2 FLOPs a multiply-add over 790 "
          "TFLOP/s (bf16,\n"
          "fp16), 395 (tf32) or 60 (exact fp32), and predicted is in percent of it. The others "
          "have no matrix\n"
          "product in them: FLOPs do not bind, instructions may.\n\n"
          "| kernel | shape | format | bytes | formula | floor us | predicted % | predicted us | "
          "limit | note |\n"
          "|---|---|---|---|---|---|---|---|---|---|\n",
          out);
    for (size_t i = 0; i < count; i++) {
        const bench_row *r = &rows[i];
        char shape[BENCH_SHAPE_TEXT];
        bench_shape_text(r, shape);
        fprintf(out, "| %s | %s | %s | %.4g MB | %s | %.2f | %.0f | %.1f | %s | %s |\n", r->name,
                shape, bench_format_name(r->format), bench_bytes(r) / 1e6, r->formula,
                bench_floor_seconds(r) * 1e6, r->percent, bench_predicted_seconds(r) * 1e6,
                r->limit, r->note);
    }
}
