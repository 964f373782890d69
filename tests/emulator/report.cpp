// Faults, as text: what, in which kernel, at which line.
#include "machine.h"

#include <stdarg.h>
#include <stdio.h>

namespace tw::emu {

static char report[2048];

const char *base_name(const char *path) {
    const char *slash = strrchr(path, '/');
    return slash ? slash + 1 : path;
}

bool same(Site a, Site b) {
    return a.line == b.line && (a.file == b.file || !strcmp(a.file, b.file));
}

static void set_report(const char *format, va_list args) {
    char text[1536];
    vsnprintf(text, sizeof text, format, args);
    const Launch &l = *current_launch;
    snprintf(report, sizeof report, "emulator: kernel %s (launched at %s:%d): %s", l.kernel,
             base_name(l.site.file), l.site.line, text);
    fprintf(stderr, "%s\n", report);
    failed = true;
}

__attribute__((format(printf, 1, 2))) void fault(const char *format, ...) {
    va_list args;
    va_start(args, format);
    set_report(format, args);
    va_end(args);
}

static const char *describe(const Thread *t, char *text, size_t size) {
    switch (t->state) {
    case State::done:
        snprintf(text, size, "has finished");
        break;
    case State::ready:
        snprintf(text, size, "runs");
        break;
    default:
        snprintf(text, size, "waits at %s:%d", base_name(t->site.file), t->site.line);
        break;
    }
    return text;
}

// The first thread at each mbarrier that is waited for.
static bool report_mbarriers() {
    constexpr unsigned most = 8;
    const uint64_t *seen[most];
    char text[1024];
    unsigned n = 0;
    size_t used = 0;
    for (unsigned b = 0; b < n_blocks; b++)
        for (unsigned i = 0; i < blocks[b].threads && n < most; i++) {
            const Thread *t = blocks[b].thread[i];
            if (t->state != State::at_mbarrier) continue;
            unsigned k = 0;
            while (k < n && seen[k] != t->mbarrier) k++;
            if (k < n) continue;
            seen[n++] = t->mbarrier;
            char lacks[80];
            mbarrier_describe(t->mbarrier, lacks, sizeof lacks);
            used += (size_t)snprintf(
                text + used, sizeof text - used,
                "%smbarrier at %.40s:%d: thread %u of block %u waits for a phase that never ends%s",
                used ? "; " : "", base_name(t->site.file), t->site.line, i, blocks[b].index.x,
                lacks);
            if (used >= sizeof text) used = sizeof text - 1;
        }
    if (n) fault("%s", text);
    return n > 0;
}

// Nothing can run and not everything has finished.
void report_stuck() {
    char text[256];
    for (unsigned b = 0; b < n_blocks; b++) {
        for (unsigned i = 0; i < blocks[b].threads; i++) {
            const Thread *t = blocks[b].thread[i];
            if (t->state != State::at_warp) continue;
            const Thread *other = nullptr;
            for (unsigned l = 0; l < 32 && !other; l++) {
                if (!(t->mask >> l & 1)) continue;
                const unsigned j = t->warp * 32 + l;
                if (j >= t->block->threads) {
                    fault("warp collective at %s:%d: mask %08x names lane %u, which the block does "
                          "not have",
                          base_name(t->site.file), t->site.line, t->mask, l);
                    return;
                }
                const Thread *o = t->block->thread[j];
                if (o->state != State::at_warp || o->mask != t->mask || o->kind != t->kind)
                    other = o;
            }
            fault("warp collective at %s:%d: mask %08x names lane %u, which %s",
                  base_name(t->site.file), t->site.line, t->mask, other ? other->lane : 0u,
                  other ? describe(other, text, sizeof text) : "is lost");
            return;
        }
    }
    if (report_mbarriers()) return;
    for (unsigned b = 0; b < n_blocks; b++) {
        const Block &k = blocks[b];
        const Thread *waits = nullptr, *other = nullptr;
        for (unsigned i = 0; i < k.threads; i++) {
            const Thread *t = k.thread[i];
            if (t->state == State::at_block || t->state == State::at_group ||
                t->state == State::at_cluster)
                waits = t;
            else
                other = t;
        }
        if (waits && other) {
            fault("divergent barrier at %s:%d: thread %u of block %u waits, thread %u %s",
                  base_name(waits->site.file), waits->site.line, waits->warp * 32 + waits->lane,
                  k.index.x, other->warp * 32 + other->lane, describe(other, text, sizeof text));
            return;
        }
    }
    fault("divergent barrier: blocks of a cluster wait at different barriers or have finished");
}

std::string take_report() {
    std::string text = report;
    report[0] = 0;
    return text;
}

} // namespace tw::emu
