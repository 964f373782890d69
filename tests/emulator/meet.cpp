// Meeting points: barriers of a block and of a cluster, and a warp's collectives.
#include "machine.h"

namespace tw::emu {

static unsigned cluster_waiting, cluster_generation;
static Site cluster_site;
static char cluster_point[2];

void meet_begin() {
    cluster_waiting = 0;
}

void meet_block(Site site) {
    Block *b = current->block;
    if (b->waiting == 0)
        b->site = site;
    else if (!same(b->site, site))
        FAULT_HERE("divergent barrier: thread %u is at %s:%d, others wait at %s:%d",
                   current->warp * 32 + current->lane, base_name(site.file), site.line,
                   base_name(b->site.file), b->site.line);
    char *point = &b->point[b->generation & 1];
    order_release(point);
    if (++b->waiting == b->threads) {
        b->waiting = 0;
        b->generation++;
        for (unsigned i = 0; i < b->threads; i++) b->thread[i]->state = State::ready;
    } else {
        current->state = State::at_block;
        current->site = site;
        enter_scheduler();
    }
    order_acquire(point);
}

void meet_group(unsigned id, unsigned threads, Site site) {
    Block *b = current->block;
    if (!id || id >= max_named || !threads || threads % 32 || threads > b->threads)
        FAULT_HERE("barrier at %s:%d: number %u of %u threads", base_name(site.file), site.line, id,
                   threads);
    Named *n = &b->named[id];
    if (n->waiting == 0) {
        n->site = site;
        n->threads = threads;
    } else if (!same(n->site, site) || n->threads != threads) {
        FAULT_HERE("divergent barrier: thread %u is at %s:%d with %u threads, others wait at %s:%d "
                   "with %u",
                   current->warp * 32 + current->lane, base_name(site.file), site.line, threads,
                   base_name(n->site.file), n->site.line, n->threads);
    }
    char *point = &n->point[n->generation & 1];
    order_release(point);
    if (++n->waiting == threads) {
        n->waiting = 0;
        n->generation++;
        for (unsigned i = 0; i < b->threads; i++)
            if (b->thread[i]->state == State::at_group && b->thread[i]->named == id)
                b->thread[i]->state = State::ready;
    } else {
        current->state = State::at_group;
        current->site = site;
        current->named = id;
        enter_scheduler();
    }
    order_acquire(point);
}

void meet_cluster(Site site) {
    if (cluster_waiting == 0)
        cluster_site = site;
    else if (!same(cluster_site, site))
        FAULT_HERE("divergent barrier: a block is at %s:%d, others wait at %s:%d",
                   base_name(site.file), site.line, base_name(cluster_site.file),
                   cluster_site.line);
    char *point = &cluster_point[cluster_generation & 1];
    order_release(point);
    if (++cluster_waiting == current->block->threads * n_blocks) {
        cluster_waiting = 0;
        cluster_generation++;
        for (unsigned b = 0; b < n_blocks; b++)
            for (unsigned i = 0; i < blocks[b].threads; i++)
                blocks[b].thread[i]->state = State::ready;
    } else {
        current->state = State::at_cluster;
        current->site = site;
        enter_scheduler();
    }
    order_acquire(point);
}

static bool same_meeting(const Thread *a, const Thread *b) {
    return a->mask == b->mask && a->kind == b->kind && same(a->site, b->site);
}

// Two lanes that wait for each other at different meetings would wait for ever.
static void expect_one_meeting(const Thread *me, uint32_t waiting) {
    for (unsigned l = 0; l < 32; l++) {
        if (l == me->lane || !(waiting >> l & me->mask >> l & 1)) continue;
        const Thread *o = me->block->thread[me->warp * 32 + l];
        if ((o->mask >> me->lane & 1) && !same_meeting(o, me))
            FAULT_HERE("warp collective at %s:%d: lane %u comes with mask %08x, lane %u waits at "
                       "%s:%d with mask %08x",
                       base_name(me->site.file), me->site.line, me->lane, me->mask, o->lane,
                       base_name(o->site.file), o->site.line, o->mask);
    }
}

// Begins to wait. True when every lane of the mask has arrived with the same mask and kind of
// meeting: then none of them waits any more.
static bool warp_complete(Thread *me) {
    Waiting *w = &me->block->warp[me->warp];
    me->state = State::at_warp;
    if (!w->lanes)
        w->like = me;
    else if (w->like && !same_meeting(w->like, me))
        w->like = nullptr;
    w->lanes |= 1u << me->lane;
    if (!w->like) expect_one_meeting(me, w->lanes);
    if ((w->lanes & me->mask) != me->mask) return false;
    w->lanes &= ~me->mask;
    return true;
}

uint64_t meet_warp(Meet kind, uint32_t mask, uint64_t value, unsigned source, Site site) {
    Thread *me = current;
    Block *b = me->block;
    me->kind = kind;
    me->mask = mask;
    me->value = value;
    me->source = source;
    me->site = site;
    if (!(mask >> me->lane & 1))
        FAULT_HERE("warp collective at %s:%d: lane %u is not in its own mask %08x",
                   base_name(site.file), site.line, me->lane, mask);
    if (kind == Meet::shuffle && !(mask >> source & 1))
        FAULT_HERE("shuffle at %s:%d: lane %u reads lane %u, which is not in mask %08x",
                   base_name(site.file), site.line, me->lane, source, mask);
    Thread **lanes = b->thread + me->warp * 32;
    const unsigned count = b->threads - me->warp * 32 < 32 ? b->threads - me->warp * 32 : 32;
    // Only a warp-wide sync orders memory; shuffles and votes do not.
    Thread *lowest = lanes[__builtin_ctz(mask)];
    char *point = &lowest->point[lowest->meetings & 1];
    if (kind == Meet::sync) order_release(point);
    if (warp_complete(me)) {
        uint32_t votes = 0;
        lowest->meetings++;
        for (unsigned l = 0; l < count; l++)
            if ((mask >> l & 1) && lanes[l]->value) votes |= 1u << l;
        for (unsigned l = 0; l < count; l++) {
            if (!(mask >> l & 1)) continue;
            Thread *o = lanes[l];
            o->result = kind == Meet::ballot ? votes : lanes[o->source]->value;
            o->state = State::ready;
        }
    } else {
        enter_scheduler();
    }
    if (kind == Meet::sync) order_acquire(point);
    return me->result;
}

// What the lanes brought, by lane. The matrix operations order no memory of their own.
static void *brought[32];

void meet_warp_act(void *mine, void (*act)(void *const *lanes), Site site) {
    Thread *me = current;
    Block *b = me->block;
    me->kind = Meet::act;
    me->mask = 0xffffffffu;
    me->value = reinterpret_cast<uintptr_t>(mine);
    me->site = site;
    Thread **lanes = b->thread + me->warp * 32;
    if (!warp_complete(me)) {
        enter_scheduler();
        return;
    }
    for (unsigned l = 0; l < 32; l++) {
        brought[l] = reinterpret_cast<void *>(lanes[l]->value);
        lanes[l]->state = State::ready;
    }
    act(brought);
}

} // namespace tw::emu
