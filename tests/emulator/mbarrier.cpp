// Barriers in shared memory. What a phase waits for lands as late as it can, so that whoever reads
// without waiting finds NaN: copies when a thread is about to wait, boxes of TMA when nobody can go
// on without.
#include "machine.h"

#include <stdio.h>

namespace tw::emu {

namespace {

// What the barrier's eight bytes hold.
struct Word {
    uint16_t wanted, missing; // arrivals: of every phase, and of this one still
    uint32_t phase : 8;
    int32_t bytes : 24; // to come in this phase
};
static_assert(sizeof(Word) == sizeof(uint64_t), "the word of an mbarrier");
constexpr int32_t most_bytes = (1 << 20) - 1;

Word load(const uint64_t *word) {
    Word w;
    memcpy(&w, word, sizeof w);
    return w;
}
void store(uint64_t *word, Word w) {
    memcpy(word, &w, sizeof w);
}

// ThreadSanitizer's name for a phase; phases alternate as those of the block's barrier do.
char *point_of(uint64_t *word, uint32_t phase) {
    return reinterpret_cast<char *>(word) + (phase & 1);
}

Word known(const uint64_t *word, Site site) {
    const Word w = load(word);
    if (!w.wanted || w.missing > w.wanted || (!w.missing && !w.bytes) || *word == ~0ull)
        FAULT_HERE("mbarrier at %s:%d was never made", base_name(site.file), site.line);
    return w;
}

bool awaited(const Block *b, const uint64_t *word) {
    for (unsigned i = 0; i < b->threads; i++)
        if (b->thread[i]->state == State::at_mbarrier && b->thread[i]->mbarrier == word)
            return true;
    return false;
}

void wake(Block *b, const uint64_t *word) {
    for (unsigned i = 0; i < b->threads; i++)
        if (b->thread[i]->state == State::at_mbarrier && b->thread[i]->mbarrier == word)
            b->thread[i]->state = State::ready;
}

// Keeps the word, and ends the phase where nothing is left to come.
void update(Block *b, uint64_t *word, Word w, Site site) {
    if (!w.missing && w.bytes < 0)
        FAULT_HERE("mbarrier at %s:%d: %d bytes more were brought than expected",
                   base_name(site.file), site.line, -w.bytes);
    if (!w.missing && !w.bytes) {
        if (boxes_coming(word, w.phase))
            FAULT_HERE(
                "mbarrier at %s:%d: its phase ends with boxes on their way: fewer bytes were "
                "expected than are brought",
                base_name(site.file), site.line);
        w.missing = w.wanted;
        w.phase++;
        wake(b, word);
    }
    store(word, w);
}

void arrive(Block *b, uint64_t *word, int32_t bytes, Site site) {
    Word w = known(word, site);
    if (!w.missing)
        FAULT_HERE("mbarrier at %s:%d: more than the %u arrivals of a phase", base_name(site.file),
                   site.line, w.wanted);
    order_release(point_of(word, w.phase));
    w.missing--;
    w.bytes = w.bytes + bytes;
    update(b, word, w, site);
}

// Whoever waited for this arrival goes on first: what the thread does next must not be needed.
void give_way(uint32_t phase, const uint64_t *word) {
    if (load(word).phase != phase) enter_scheduler();
}

// What has been promised to this barrier happens.
void keep_promises(Block *b, uint64_t *word, Site site) {
    for (unsigned i = 0; i < b->threads; i++) {
        Thread *t = b->thread[i];
        unsigned kept = 0;
        for (unsigned k = 0; k < t->promises; k++) {
            const Promise p = t->promise[k];
            if (p.word != word) {
                t->promise[kept++] = p;
                continue;
            }
            order_acquire(&t->promise_point);
            copies_land(t, p.copies);
            arrive(b, word, 0, site);
        }
        t->promises = kept;
    }
}

uint64_t *own(uint64_t *word, Site site) {
    return static_cast<uint64_t *>(shared_of_block(word, current->block->rank, "mbarrier", site));
}

} // namespace

void mbarrier_init(uint64_t *word, unsigned arrivals, Site site) {
    Block *b = current->block;
    if (!arrivals || arrivals > 0x7fff)
        FAULT_HERE("mbarrier at %s:%d is made for %u arrivals", base_name(site.file), site.line,
                   arrivals);
    if (b->n_unfenced == max_unfenced)
        FAULT_HERE("mbarrier at %s:%d: more than %u without a fence", base_name(site.file),
                   site.line, max_unfenced);
    note_write(own(word, site), sizeof *word);
    store(word, Word{(uint16_t)arrivals, (uint16_t)arrivals, 0, 0});
    b->unfenced[b->n_unfenced++] = Unfenced{word, current};
}

void mbarrier_fence_init() {
    Block *b = current->block;
    unsigned kept = 0;
    for (unsigned i = 0; i < b->n_unfenced; i++)
        if (b->unfenced[i].maker != current) b->unfenced[kept++] = b->unfenced[i];
    b->n_unfenced = kept;
}

void mbarrier_check_fenced(const Block *b, const uint64_t *word, const char *what, Site site) {
    for (unsigned i = 0; i < b->n_unfenced; i++)
        if (b->unfenced[i].word == word)
            FAULT_HERE("%s at %s:%d: no mbarrier_fence_init() of thread %u, which made the barrier",
                       what, base_name(site.file), site.line,
                       b->unfenced[i].maker->warp * 32 + b->unfenced[i].maker->lane);
}

void mbarrier_arrive(uint64_t *word, Site site) {
    note_read(own(word, site), sizeof *word);
    const uint32_t phase = load(word).phase;
    arrive(current->block, word, 0, site);
    give_way(phase, word);
}

void mbarrier_expect(uint64_t *word, unsigned bytes, Site site) {
    note_read(own(word, site), sizeof *word);
    const Word w = known(word, site);
    if (bytes > (unsigned)most_bytes || w.bytes + (int32_t)bytes > most_bytes)
        FAULT_HERE("mbarrier at %s:%d: more than %d bytes in a phase", base_name(site.file),
                   site.line, most_bytes);
    arrive(current->block, word, (int32_t)bytes, site);
}

void mbarrier_arrive_block(uint64_t *word, unsigned rank, Site site) {
    Block *there = &blocks[rank < n_blocks ? rank : 0];
    uint64_t *const remote = static_cast<uint64_t *>(shared_of_block(word, rank, "mbarrier", site));
    note_read(remote, sizeof *remote);
    if (there != current->block) mbarrier_check_fenced(there, remote, "arrival", site);
    const uint32_t phase = load(remote).phase;
    arrive(there, remote, 0, site);
    give_way(phase, remote);
}

void mbarrier_arrive_copies(uint64_t *word, Site site) {
    Thread *me = current;
    note_read(own(word, site), sizeof *word);
    known(word, site);
    if (me->promises == max_promises)
        FAULT_HERE("more than %u arrivals wait for copies of one thread", max_promises);
    me->promise[me->promises++] = Promise{word, me->copy_serial};
    order_release(&me->promise_point);
    if (awaited(me->block, word)) keep_promises(me->block, word, site);
}

uint32_t mbarrier_phase(const uint64_t *word, Site site) {
    return known(word, site).phase;
}

void mbarrier_complete(Block *b, uint64_t *word, uint32_t phase, unsigned bytes, Site site) {
    Word w = known(word, site);
    if (w.phase != phase)
        FAULT_HERE("TMA at %s:%d: the phase that waited for its box has ended: fewer bytes were "
                   "expected than are brought",
                   base_name(site.file), site.line);
    order_release(point_of(word, w.phase));
    w.bytes = w.bytes - (int32_t)bytes;
    update(b, word, w, site);
}

bool mbarrier_wake_for_boxes() {
    bool any = false;
    for (unsigned i = 0; i < n_blocks; i++)
        for (unsigned k = 0; k < blocks[i].threads; k++) {
            Thread *t = blocks[i].thread[k];
            if (t->state != State::at_mbarrier) continue;
            const Word w = load(t->mbarrier);
            if (w.missing || !boxes_coming(t->mbarrier, w.phase)) continue;
            t->state = State::ready;
            any = true;
        }
    return any;
}

void mbarrier_describe(const uint64_t *word, char *text, size_t size) {
    const Word w = load(word);
    if (w.missing || !w.bytes)
        snprintf(text, size, ": %u of %u have not arrived", w.missing, w.wanted);
    else
        snprintf(text, size, ": %d bytes were expected that nobody brings", w.bytes);
}

void mbarrier_wait(uint64_t *word, unsigned parity, Site site) {
    Thread *me = current;
    note_read(own(word, site), sizeof *word);
    known(word, site);
    keep_promises(me->block, word, site);
    const auto passed = [&] { return (load(word).phase & 1) != (parity & 1); };
    while (!passed()) {
        me->state = State::at_mbarrier;
        me->site = site;
        me->mbarrier = word;
        enter_scheduler();
        if (!passed() && !load(word).missing) boxes_land(word);
    }
    order_acquire(point_of(word, parity));
}

} // namespace tw::emu
