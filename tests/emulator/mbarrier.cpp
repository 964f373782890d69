// Barriers in shared memory. A copy that an arrival waits for lands as late as it can: when a
// thread is about to wait, so that whoever reads without waiting finds NaN.
#include "machine.h"

namespace tw::emu {

namespace {

// What the barrier's eight bytes hold.
struct Word {
    uint32_t phase;
    uint16_t wanted, missing; // arrivals: of every phase, and of this one still
};
static_assert(sizeof(Word) == sizeof(uint64_t), "the word of an mbarrier");

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
    if (!w.wanted || !w.missing || w.missing > w.wanted || *word == ~0ull)
        FAULT_HERE("mbarrier at %s:%d was never made", base_name(site.file), site.line);
    return w;
}

void wake(Block *b, const uint64_t *word) {
    for (unsigned i = 0; i < b->threads; i++)
        if (b->thread[i]->state == State::at_mbarrier && b->thread[i]->mbarrier == word)
            b->thread[i]->state = State::ready;
}

void arrive(Block *b, uint64_t *word) {
    Word w = load(word);
    order_release(point_of(word, w.phase));
    if (--w.missing == 0) {
        w.missing = w.wanted;
        w.phase++;
        wake(b, word);
    }
    store(word, w);
}

// What has been promised to this barrier happens.
void land(Block *b, uint64_t *word) {
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
            arrive(b, word);
        }
        t->promises = kept;
    }
}

} // namespace

void mbarrier_init(uint64_t *word, unsigned arrivals, Site site) {
    if (!arrivals || arrivals > 0x7fff)
        FAULT_HERE("mbarrier at %s:%d is made for %u arrivals", base_name(site.file), site.line,
                   arrivals);
    note_write(word, sizeof *word);
    store(word, Word{0, (uint16_t)arrivals, (uint16_t)arrivals});
}

void mbarrier_arrive(uint64_t *word, Site site) {
    note_read(word, sizeof *word);
    known(word, site);
    arrive(current->block, word);
}

void mbarrier_arrive_copies(uint64_t *word, Site site) {
    Thread *me = current;
    note_read(word, sizeof *word);
    known(word, site);
    if (me->promises == max_promises)
        FAULT_HERE("more than %u arrivals wait for copies of one thread", max_promises);
    me->promise[me->promises++] = Promise{word, me->copy_serial};
    order_release(&me->promise_point);
    for (unsigned i = 0; i < me->block->threads; i++) {
        const Thread *t = me->block->thread[i];
        if (t->state != State::at_mbarrier || t->mbarrier != word) continue;
        land(me->block, word);
        break;
    }
}

void mbarrier_wait(uint64_t *word, unsigned parity, Site site) {
    Thread *me = current;
    note_read(word, sizeof *word);
    known(word, site);
    land(me->block, word);
    while ((load(word).phase & 1) == (parity & 1)) {
        me->state = State::at_mbarrier;
        me->site = site;
        me->mbarrier = word;
        enter_scheduler();
    }
    order_acquire(point_of(word, parity));
}

} // namespace tw::emu
