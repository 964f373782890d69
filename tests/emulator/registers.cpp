// setmaxnreg: a warpgroup's registers, which no thread has to wait for here. What a block's
// warpgroups have in the end must be no more than it began with, or one of them waits for ever.
#include "machine.h"

namespace tw::emu {

// What a kernel gets that is compiled for one block of so many threads a processor.
static unsigned at_launch(const Block *b) {
    const unsigned each = 65536 / b->threads / 8 * 8;
    return each < 248 ? each : 248;
}

void registers_open(Block *b) {
    for (unsigned i = 0; i < b->threads; i++) {
        b->thread[i]->registers = at_launch(b);
        b->thread[i]->register_moves = 0;
    }
}

void registers_close(const Block *b) {
    unsigned sum = 0;
    bool moved = false;
    for (unsigned i = 0; i < b->threads && !failed; i++) {
        const Thread *t = b->thread[i], *first = b->thread[i / 128 * 128];
        sum += t->registers;
        moved = moved || t->register_moves;
        if (t->registers != first->registers || t->register_moves != first->register_moves)
            fault("divergent warpgroup: thread %u has %u registers, thread %u %u", i, t->registers,
                  i / 128 * 128, first->registers);
    }
    if (moved && !failed && sum > at_launch(b) * b->threads)
        fault("its threads take %u registers, it has %u", sum, at_launch(b) * b->threads);
}

void registers_set(unsigned count, bool more, Site site) {
    Thread *me = current;
    if (more ? count < me->registers : count > me->registers)
        FAULT_HERE("registers at %s:%d: from %u to %u is not %s", base_name(site.file), site.line,
                   me->registers, count, more ? "more" : "fewer");
    if (me->block->threads % 128)
        FAULT_HERE("registers at %s:%d: a block of %u threads is no whole warpgroups",
                   base_name(site.file), site.line, me->block->threads);
    me->registers = count;
    me->register_moves++;
}

} // namespace tw::emu
