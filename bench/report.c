#include "report.h"

#include <math.h>
#include <string.h>

bool bench_is_right(const bench_check *k) {
    return !k->failed && k->count > 0 && k->worst <= 1; /* false for NaN */
}

/* Of a device copy of the same bytes measured beside it, or of the floor. */
static double percent_of(const bench_row *r, const bench_result *m) {
    return 100 * (r->rate > 0 ? bench_floor_seconds(r) : m->copy_cold.median) / m->cold.median;
}

static void print_line(const bench_row *r, const bench_result *m, const char *shape) {
    printf("%-28s %-18s %s  %9.2f us (%.2f-%.2f, n %d)  %7.0f GB/s  %5.1f %% of %s (predicted "
           "%.0f)  hot %.2f us  %s  %d regs %zu B shared  error %.2g of bound (%s)%s  peer %s",
           r->name, shape, bench_format_name(r->format), m->cold.median * 1e6, m->cold.p10 * 1e6,
           m->cold.p90 * 1e6, m->cold.n, bench_bytes(r) / m->cold.median / 1e9, percent_of(r, m),
           r->rate > 0 ? "floor" : "copy", r->percent, m->hot.median * 1e6, r->limit,
           m->info.registers, m->info.shared, m->check.worst, m->check.of,
           bench_is_right(&m->check) ? "" : " WRONG", m->peer);
    if (r->rate > 0) printf("  %.0f TFLOP/s", bench_flops(r) / m->cold.median / 1e12);
    if (strcmp(m->peer, "none") != 0)
        printf(" %.2f us (%.2f x)", m->peer_cold.median * 1e6,
               m->peer_cold.median / m->beside_peer.median);
    putchar('\n');
    fflush(stdout);
}

void bench_print_result(const bench_row *r, const bench_result *m, FILE *json) {
    char shape[BENCH_SHAPE_TEXT], error[32] = "\"nan\"", peer[96] = "null,\"peer_ratio\":null";
    bench_shape_text(r, shape);
    print_line(r, m, shape);
    if (!json) return;
    if (isfinite(m->check.worst)) snprintf(error, sizeof error, "%.3g", m->check.worst);
    if (strcmp(m->peer, "none") != 0)
        snprintf(peer, sizeof peer, "%.3f,\"peer_ratio\":%.3f", m->peer_cold.median * 1e6,
                 m->peer_cold.median / m->beside_peer.median);
    fprintf(json,
            "{\"kernel\":\"%s\",\"shape\":\"%s\",\"format\":\"%s\",\"layout\":\"nhwc\","
            "\"provider\":\"own\",\"bytes\":%.0f,\"byte_formula\":\"%s\",\"cold_us\":%.3f,"
            "\"cold_p10_us\":%.3f,\"cold_p90_us\":%.3f,\"n\":%d,\"hot_us\":%.3f,"
            "\"gb_per_s\":%.1f,\"percent_of_copy\":%.2f,\"predicted_percent\":%.0f,"
            "\"predicted_of\":\"%s\",\"percent\":%.2f,\"flops\":%.0f,\"tflop_per_s\":%.2f,"
            "\"limit\":\"%s\",\"copy_cold_us\":%.3f,\"copy_hot_us\":%.3f,\"peer\":\"%s\","
            "\"peer_cold_us\":%s,\"launched\":\"%s\",\"registers\":%d,\"local_bytes\":%d,"
            "\"shared_bytes\":%zu,\"blocks\":%u,\"cluster\":%u,\"error_of_bound\":%s,"
            "\"error_over\":\"%s\",\"error_elements\":%lld,\"right\":%s}\n",
            r->name, shape, bench_format_name(r->format), bench_bytes(r), r->formula,
            m->cold.median * 1e6, m->cold.p10 * 1e6, m->cold.p90 * 1e6, m->cold.n,
            m->hot.median * 1e6, bench_bytes(r) / m->cold.median / 1e9,
            100 * m->copy_cold.median / m->cold.median, r->percent, r->rate > 0 ? "floor" : "copy",
            percent_of(r, m), bench_flops(r), bench_flops(r) / m->cold.median / 1e12, r->limit,
            m->copy_cold.median * 1e6, m->copy_hot.median * 1e6, m->peer, peer, m->info.kernel,
            m->info.registers, m->info.local_bytes, m->info.shared, m->info.blocks, m->info.cluster,
            error, m->check.of, (long long)m->check.count,
            bench_is_right(&m->check) ? "true" : "false");
    fflush(json);
}
