// wgmma: products that a warpgroup starts and whose operands are read at any time until it has
// waited for them.
//
// A warp's part of a product (its 16 rows of D) reads its operands twice: when the warp's first
// lane starts it, and when the warp has waited; bytes that have changed in between were not there
// yet or no longer there. D is taken away from its threads, who find NaN, until the last product
// that adds to it is done. Descriptors are decoded as hardware does, from the addresses alone.
#include "machine.h"

#include <stdio.h>

namespace tw::emu {

constexpr int part_rows = 16, row_chunks = 2; // 16 elements
constexpr int most_columns = (int)max_columns;
constexpr int part_chunks = (part_rows + most_columns) * row_chunks;

// What a warp's part reads: chunks of 16 bytes, of A's rows first. They are compared, and D is
// copied, without calls of the C library, which ThreadSanitizer looks into.
struct Bytes {
    uint64_t chunk[part_chunks][2];
};

struct Started {
    uint64_t serial;
    Product product;
    Site site;
    unsigned warps, warps_done; // bits
    Bytes bytes[4];
};

struct Warpgroup {
    uint64_t next; // serial of the product that nobody has started
    Started started[max_products];
};

namespace {

struct Descriptor {
    unsigned start, leading, stride, base, width; // width: chunks in a row, 1 without swizzle
};

Descriptor decode(uint64_t bits) {
    static const unsigned widths[] = {1, 8, 4, 2};
    return Descriptor{(unsigned)(bits & 0x3fff) * 16, (unsigned)(bits >> 16 & 0x3fff) * 16,
                      (unsigned)(bits >> 32 & 0x3fff) * 16, (unsigned)(bits >> 49 & 7),
                      widths[bits >> 62]};
}

// The permutation is of addresses: bits from 7 on are added, exclusive or, to those from 4 on.
unsigned permuted(const Descriptor &d, unsigned at) {
    return at ^ (at >> 7 & (d.width - 1)) << 4;
}

// Chunk `c` (8 k) of row `row`, where K runs fastest.
unsigned row_chunk(const Descriptor &d, unsigned row, unsigned c) {
    const unsigned group = row / 8 * d.stride;
    if (d.width == 1) return d.start + group + row % 8 * 16 + c * d.leading;
    return permuted(d, d.start + group + row % 8 * d.width * 16 + c * 16);
}

// Eight columns from 8 c on of one k, where K runs slowest.
unsigned column_chunk(const Descriptor &d, unsigned k, unsigned c) {
    if (d.width == 1) return d.start + c * d.stride + k % 8 * 16 + k / 8 * d.leading;
    return permuted(d, d.start + c / d.width * d.leading + c % d.width * 16 + k % 8 * d.width * 16 +
                           k / 8 * d.stride);
}

void check(const char *which, uint64_t bits, Site site) {
    const Descriptor d = decode(bits);
    // The permutation begins anew at every multiple of eight rows.
    if (d.base || (d.width > 1 && d.start % (128 * d.width) >= 16 * d.width))
        FAULT_HERE("wgmma at %s:%d: %s begins at %u of shared memory, not at a multiple of %u",
                   base_name(site.file), site.line, which, d.start, 128 * d.width);
}

// Whether a product begins to read its operands, or ends.
enum class Look { first, last };

// One chunk, which lies in a carve-out.
void read_chunk(uint64_t *to, unsigned at, Look look, Site site) {
    Block *b = current->block;
    if (!shared_holds(b, at, 16))
        FAULT_HERE("wgmma at %s:%d reads at %u of shared memory, which nobody has taken",
                   base_name(site.file), site.line, at);
    if (look == Look::first) proxy_check(b, at, "wgmma", site);
    note_read(b->shared + at, 16);
    memcpy(to, b->shared + at, 16);
}

// The chunks of `count` rows from `first` on: of each row, or 8 rows of each k.
void read_operand(uint64_t (*to)[2], uint64_t bits, bool by_columns, unsigned first, unsigned count,
                  Look look, Site site) {
    const Descriptor d = decode(bits);
    if (by_columns) {
        for (unsigned k = 0; k < 16; k++)
            for (unsigned c = 0; c < count / 8; c++)
                read_chunk(*to++, column_chunk(d, k, first / 8 + c), look, site);
    } else {
        for (unsigned row = 0; row < count; row++)
            for (unsigned c = 0; c < row_chunks; c++)
                read_chunk(*to++, row_chunk(d, first + row, c), look, site);
    }
}

void read_part(Bytes *to, const Product &p, unsigned warp, Look look, Site site) {
    read_operand(to->chunk, p.a, p.a_columns, warp * part_rows, part_rows, look, site);
    read_operand(to->chunk + part_rows * row_chunks, p.b, p.b_columns, 0, (unsigned)p.columns, look,
                 site);
}

// Row by row, or turned around, as [k][row].
template <int COUNT>
void unpack(const uint64_t (*chunk)[2], Mma kind, bool by_columns, double (*to)[COUNT]) {
    for (int i = 0; i < COUNT * row_chunks; i++)
        for (int w = 0; w < 4; w++) {
            float e[2];
            matrix_elements(kind, (uint32_t)(chunk[i][w / 2] >> w % 2 * 32), e);
            for (int q = 0; q < 2; q++) {
                if (by_columns)
                    to[i / (COUNT / 8)][i % (COUNT / 8) * 8 + 2 * w + q] = (double)e[q];
                else
                    to[i % row_chunks * 8 + 2 * w + q][i / row_chunks] = (double)e[q];
            }
        }
}

// Of local arrays alone, with constant bounds: there is nothing for a sanitizer to look at.
template <int COLUMNS>
__attribute__((no_sanitize("address", "undefined"))) void
sum_products(const double (&a)[16][part_rows], const double (&b)[16][COLUMNS],
             double (&sum)[part_rows][COLUMNS]) {
    for (int row = 0; row < part_rows; row++) {
        double mine[COLUMNS] = {};
        for (int k = 0; k < 16; k++)
            for (int col = 0; col < COLUMNS; col++) mine[col] += a[k][row] * b[k][col];
        for (int col = 0; col < COLUMNS; col++) sum[row][col] = mine[col];
    }
}

Share *share_of(Thread *t, float *d) {
    for (Share &s : t->products.share)
        if (s.products && s.d == d) return &s;
    return nullptr;
}

// A lane gets D back when nothing adds to it any more.
void give_back(Share *s, Site site) {
    volatile float *const d = s->d;
    uint32_t touched = 0;
    for (unsigned i = 0; i < s->size; i++) {
        const float v = d[i];
        uint32_t bits;
        memcpy(&bits, &v, 4);
        touched |= ~bits;
    }
    if (touched)
        FAULT_HERE("wgmma at %s:%d: D was written while products were adding to it",
                   base_name(site.file), site.line);
    for (unsigned i = 0; i < s->size; i++) d[i] = s->value[i];
}

bool same_bytes(const Bytes &a, const Bytes &b, int chunks) {
    uint64_t differ = 0;
    for (int i = 0; i < chunks; i++)
        differ |= (a.chunk[i][0] ^ b.chunk[i][0]) | (a.chunk[i][1] ^ b.chunk[i][1]);
    return !differ;
}

template <int COLUMNS> void add_part(Thread **lanes, const Started *s, const Bytes &now) {
    static double a[16][part_rows], b[16][COLUMNS], sum[part_rows][COLUMNS];
    const Product &p = s->product;
    unpack<part_rows>(now.chunk, p.kind, p.a_columns, a);
    unpack<COLUMNS>(now.chunk + part_rows * row_chunks, p.kind, p.b_columns, b);
    sum_products<COLUMNS>(a, b, sum);
    for (int l = 0; l < 32; l++) {
        Share *share = share_of(lanes[l], lanes[l]->products.d[s->serial % max_products]);
        for (int i = 0; i < COLUMNS / 2; i++)
            share->value[i] = (float)((double)share->value[i] +
                                      sum[l / 4 + i / 2 % 2 * 8][i / 4 * 8 + l % 4 * 2 + i % 2]);
        if (--share->products == 0) give_back(share, s->site);
    }
}

void finish_part(Thread **lanes, Started *s, unsigned warp) {
    static Bytes now;
    const Product &p = s->product;
    read_part(&now, p, warp, Look::last, s->site);
    if (!same_bytes(now, s->bytes[warp], (part_rows + p.columns) * row_chunks))
        FAULT_HERE("wgmma at %s:%d: its tiles changed while it read them", base_name(s->site.file),
                   s->site.line);
    if (p.columns == 128)
        add_part<128>(lanes, s, now);
    else
        add_part<256>(lanes, s, now);
    s->warps_done |= 1u << warp;
}

Warpgroup *mine(Site site) {
    Block *b = current->block;
    if (b->threads % 128)
        FAULT_HERE("wgmma at %s:%d: a block of %u threads is no whole warpgroups",
                   base_name(site.file), site.line, b->threads);
    Warpgroup *&g = b->warpgroup[current->warp / 4];
    if (!g) g = static_cast<Warpgroup *>(calloc(1, sizeof *g));
    if (!g) {
        fprintf(stderr, "emulator: no memory for products\n");
        abort();
    }
    return g;
}

bool same_product(const Product &a, const Product &b) {
    return a.kind == b.kind && a.columns == b.columns && a.a == b.a && a.b == b.b &&
           a.a_columns == b.a_columns && a.b_columns == b.b_columns;
}

struct WaitCall {
    Thread *thread;
    unsigned left;
    Site site;
};

void wait_all(void *const *lanes) {
    Thread *thread[32];
    for (int l = 0; l < 32; l++) thread[l] = static_cast<const WaitCall *>(lanes[l])->thread;
    const WaitCall &call = *static_cast<const WaitCall *>(lanes[0]);
    const Products &first = thread[0]->products;
    for (int l = 1; l < 32; l++) {
        const Products &p = thread[l]->products;
        if (p.issued == first.issued && p.groups == first.groups) continue;
        FAULT_HERE("wgmma_wait at %s:%d: lane %d has started %llu products in %u groups, lane 0 "
                   "%llu in %u",
                   base_name(call.site.file), call.site.line, l, (unsigned long long)p.issued,
                   p.groups, (unsigned long long)first.issued, first.groups);
    }
    Warpgroup *g = mine(call.site);
    unsigned groups = first.groups_done;
    uint64_t done = first.done;
    for (; groups + call.left < first.groups; groups++) {
        for (; done < first.group_end[groups % max_product_groups]; done++)
            finish_part(thread, &g->started[done % max_products], thread[0]->warp % 4);
    }
    for (Thread *t : thread) {
        t->products.groups_done = groups;
        t->products.done = done;
        t->products.fenced = false;
    }
}

} // namespace

void products_open(Block *b) {
    for (Warpgroup *g : b->warpgroup)
        if (g) g->next = 0;
    for (unsigned i = 0; i < b->threads; i++) {
        Products &p = b->thread[i]->products;
        p.fenced = false;
        p.issued = p.done = 0;
        p.groups = p.groups_done = 0;
        for (Share &s : p.share) s.products = 0;
    }
}

// Everyone of a warpgroup has started the same products, and waited for them.
void products_close(Block *b) {
    for (unsigned i = 0; i < b->threads && !failed; i++) {
        const Products &p = b->thread[i]->products;
        const Warpgroup *g = b->warpgroup[i / 128];
        if (!g) continue;
        if (p.issued != g->next)
            fault("divergent warpgroup: thread %u has started %llu products of %llu", i,
                  (unsigned long long)p.issued, (unsigned long long)g->next);
        else if (p.done != p.issued)
            fault("thread %u has finished with %llu products of wgmma in flight", i,
                  (unsigned long long)(p.issued - p.done));
    }
}

unsigned shared_address(const void *p) {
    const Block *b = current->block;
    return (unsigned)(static_cast<const char *>(p) - b->shared);
}

void wgmma_fence() {
    current->products.fenced = true;
}

void wgmma_multiply(const Product &product, float *d, Site site) {
    Thread *me = current;
    Products &p = me->products;
    Warpgroup *g = mine(site);
    const unsigned warp = me->warp % 4;
    if (!p.fenced)
        FAULT_HERE("wgmma at %s:%d: no wgmma_fence() since D was the thread's",
                   base_name(site.file), site.line);
    Started &s = g->started[p.issued % max_products];
    if (p.issued == g->next) { // the first to come
        if (g->next >= max_products && s.warps_done != 15)
            FAULT_HERE("more than %u products of wgmma in flight", max_products);
        check("A", product.a, site);
        check("B", product.b, site);
        s.serial = g->next++;
        s.product = product;
        s.site = site;
        s.warps = s.warps_done = 0;
    } else if (!same_product(s.product, product) || !same(s.site, site)) {
        FAULT_HERE("divergent warpgroup: thread %u starts another product at %s:%d than others at "
                   "%s:%d",
                   me->warp * 32 + me->lane, base_name(site.file), site.line,
                   base_name(s.site.file), s.site.line);
    }
    if (!(s.warps >> warp & 1)) {
        s.warps |= 1u << warp;
        read_part(&s.bytes[warp], product, warp, Look::first, site);
    }
    Share *share = share_of(me, d);
    for (Share &free : p.share) {
        if (share || free.products) continue;
        share = &free;
        share->d = d;
        share->size = (unsigned)product.columns / 2;
        memcpy(share->value, d, share->size * sizeof *d);
        memset(d, 0xff, share->size * sizeof *d);
    }
    if (!share) FAULT_HERE("products of wgmma add to more than four D of a thread");
    share->products++;
    p.d[p.issued++ % max_products] = d;
}

void wgmma_commit() {
    Products &p = current->products;
    if (p.groups - p.groups_done == max_product_groups)
        FAULT_HERE("more than %u groups of wgmma in flight", max_product_groups);
    p.group_end[p.groups++ % max_product_groups] = p.issued;
}

void wgmma_wait(unsigned groups_left, Site site) {
    WaitCall call{current, groups_left, site};
    meet_warp_act(&call, wait_all, site);
}

} // namespace tw::emu
