/* metrics.jsonl: what is read has rising steps, and is smoothed within its own bounds. */
#include <math.h>
#include <string.h>

#include "cli/metrics.h"
#include "fuzz.h"

static void check_smoothed(const cli_metrics *m, int64_t window) {
    double low = INFINITY, high = -INFINITY;
    double *out = tw_allocate(NULL, (size_t)m->steps, sizeof *out);
    FUZZ_CHECK(out);
    for (int64_t i = 0; i < m->steps; i++) {
        if (fabs(m->loss[i]) > 1e100) m->loss[i] = NAN; /* a sum of them is not finite */
        if (isnan(m->loss[i])) continue;
        low = fmin(low, m->loss[i]);
        high = fmax(high, m->loss[i]);
    }
    const double slack = 1e-9 * (fabs(low) + fabs(high)) * (double)m->steps;
    FUZZ_CHECK(cli_metrics_smooth(fuzz_context(), m->loss, m->steps, window, out) == TW_OK);
    for (int64_t i = 0; i < m->steps; i++) {
        FUZZ_CHECK(isnan(out[i]) || (out[i] >= low - slack && out[i] <= high + slack));
        FUZZ_CHECK(!isnan(out[i]) || isnan(m->loss[i]));
    }
    tw_free(NULL, out);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    tw_context *ctx = fuzz_context();
    const size_t before = fuzz_held();
    cli_metrics m;
    fuzz_disk_clear();
    fuzz_disk_put("r/metrics.jsonl", data, size);
    const tw_status s = cli_metrics_read(ctx, "r", &m);
    if (s == TW_OK) {
        FUZZ_CHECK(m.steps >= 0 && m.validations >= 0 && m.steps + m.validations > 0);
        for (int64_t i = 1; i < m.steps; i++) FUZZ_CHECK(m.step[i] > m.step[i - 1]);
        for (int64_t i = 1; i < m.validations; i++)
            FUZZ_CHECK(m.validation_step[i] >= m.validation_step[i - 1]);
        if (m.steps) check_smoothed(&m, 1 + (int64_t)(size % 9));
        cli_metrics_free(ctx, &m);
    } else {
        FUZZ_CHECK(!m.memory);
        fuzz_refused(s, "r/metrics.jsonl");
    }
    FUZZ_CHECK(fuzz_held() == before);
    return 0;
}
