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
    if (m->has_peer)
        printf("  %.2f us (%.2f x", m->peer_cold.median * 1e6,
               m->peer_cold.median / m->beside_peer.median);
    if (m->has_peer && r->library > 0) printf(", predicted %.2f", bench_predicted_ratio(r));
    if (m->has_peer) putchar(')');
    putchar('\n');
    fflush(stdout);
}

/* As a string of JSON: the texts of others may hold anything. */
static void print_text(FILE *json, const char *key, const char *text) {
    fprintf(json, ",\"%s\":\"", key);
    for (; *text; text++)
        fputc(*text == '"' || *text == '\\' ? '\''
              : (unsigned char)*text < ' '  ? ' '
                                            : *text,
              json);
    fputc('"', json);
}

static void print_error(FILE *json, const char *key, const bench_check *k) {
    if (isfinite(k->worst))
        fprintf(json, ",\"%s\":%.3g", key, k->worst);
    else
        fprintf(json, ",\"%s\":\"nan\"", key);
}

static void print_peer(FILE *json, const bench_row *r, const bench_result *m) {
    print_text(json, "peer", m->peer);
    if (r->library > 0) fprintf(json, ",\"predicted_ratio\":%.3f", bench_predicted_ratio(r));
    if (!m->has_peer) {
        fputs(",\"peer_cold_us\":null,\"peer_ratio\":null", json);
        return;
    }
    fprintf(json,
            ",\"peer_cold_us\":%.3f,\"peer_cold_p10_us\":%.3f,\"peer_cold_p90_us\":%.3f,"
            "\"beside_peer_us\":%.3f,\"peer_ratio\":%.3f",
            m->peer_cold.median * 1e6, m->peer_cold.p10 * 1e6, m->peer_cold.p90 * 1e6,
            m->beside_peer.median * 1e6, m->peer_cold.median / m->beside_peer.median);
    if (m->peer_check.count) print_error(json, "peer_error_of_bound", &m->peer_check);
}

static void print_json(FILE *json, const bench_row *r, const bench_result *m, const char *shape) {
    fprintf(json,
            "{\"kernel\":\"%s\",\"shape\":\"%s\",\"format\":\"%s\",\"layout\":\"nhwc\","
            "\"provider\":\"own\",\"bytes\":%.0f,\"byte_formula\":\"%s\",\"cold_us\":%.3f,"
            "\"cold_p10_us\":%.3f,\"cold_p90_us\":%.3f,\"n\":%d,\"hot_us\":%.3f,"
            "\"gb_per_s\":%.1f,\"percent_of_copy\":%.2f,\"predicted_percent\":%.0f,"
            "\"predicted_of\":\"%s\",\"percent\":%.2f,\"limit\":\"%s\","
            "\"copy_cold_us\":%.3f,\"copy_hot_us\":%.3f",
            r->name, shape, bench_format_name(r->format), bench_bytes(r), r->formula,
            m->cold.median * 1e6, m->cold.p10 * 1e6, m->cold.p90 * 1e6, m->cold.n,
            m->hot.median * 1e6, bench_bytes(r) / m->cold.median / 1e9,
            100 * m->copy_cold.median / m->cold.median, r->percent, r->rate > 0 ? "floor" : "copy",
            percent_of(r, m), r->limit, m->copy_cold.median * 1e6, m->copy_hot.median * 1e6);
    fprintf(json,
            ",\"flops\":%.0f,\"executed_flops\":%.0f,\"tflop_per_s\":%.2f,"
            "\"executed_tflop_per_s\":%.2f",
            bench_flops(r), bench_flops(r) * r->executed, bench_flops(r) / m->cold.median / 1e12,
            bench_flops(r) * r->executed / m->cold.median / 1e12);
    print_peer(json, r, m);
    fprintf(json,
            ",\"launched\":\"%s\",\"registers\":%d,\"local_bytes\":%d,\"shared_bytes\":%zu,"
            "\"blocks\":%u,\"cluster\":%u",
            m->info.kernel, m->info.registers, m->info.local_bytes, m->info.shared, m->info.blocks,
            m->info.cluster);
    print_error(json, "error_of_bound", &m->check);
    fprintf(json, ",\"error_over\":\"%s\",\"error_elements\":%lld,\"right\":%s}\n", m->check.of,
            (long long)m->check.count, bench_is_right(&m->check) ? "true" : "false");
    fflush(json);
}

void bench_print_result(const bench_row *r, const bench_result *m, FILE *json) {
    char shape[BENCH_SHAPE_TEXT];
    bench_shape_text(r, shape);
    print_line(r, m, shape);
    if (!json) return;
    print_json(json, r, m, shape);
    fflush(json); /* it is there when the next row ends the program */
}

void bench_count_row(const bench_row *r, const bench_result *m,
                     bench_standing all[BENCH_STANDINGS]) {
    if (!m->has_peer || !m->peer_check.count) return;
    const double ratio = m->peer_cold.median / m->beside_peer.median;
    int i = 0;
    while (i < BENCH_STANDINGS && all[i].name && strcmp(all[i].name, r->name) != 0) i++;
    if (i == BENCH_STANDINGS) return;
    bench_standing *s = &all[i];
    s->name = r->name;
    s->logarithms += log(ratio);
    if (s->rows++ && ratio >= s->least) return;
    s->least = ratio;
    bench_shape_text(r, s->where);
}

void bench_print_standings(const bench_standing all[BENCH_STANDINGS]) {
    for (int i = 0; i < BENCH_STANDINGS && all[i].name; i++)
        printf("%-28s beside the libraries' best: %.2f x (geometric mean of %d), least %.2f x "
               "(%s)\n",
               all[i].name, exp(all[i].logarithms / all[i].rows), all[i].rows, all[i].least,
               all[i].where);
}
