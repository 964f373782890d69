// TMA. A box is on its way from the call until nobody can go on without it: its place holds NaN
// from the first moment on, its bytes are read at the last.
#include "machine.h"

namespace tw::emu {

namespace {

constexpr uint64_t magic = 0x746e6573206f7266ull;

// What the 128 bytes of a tensor map hold.
struct Packed {
    uint64_t magic;
    const unsigned char *base;
    uint32_t last[5]; // size - 1
    uint16_t box[5];
    uint64_t stride[4]; // from dimension 1 on
    uint8_t step[5], element, rank, swizzle;
};
static_assert(sizeof(Packed) <= 128, "a tensor map");

struct Box {
    bool used;
    Packed tensor;
    int at[5];
    Block *block;
    unsigned char *to;
    uint64_t *word;
    uint32_t phase;
    Site site;
    char point;
};

Box boxes[max_boxes];
unsigned n_boxes; // none is used from here on
bool have_tma = true;

unsigned width_of(unsigned swizzle) {
    static const unsigned chunks[] = {1, 8, 4, 2};
    return chunks[swizzle & 3];
}

unsigned bytes_of(const Packed &t) {
    unsigned n = t.element;
    for (int i = 0; i < t.rank; i++) n *= t.box[i];
    return n;
}

// Address in memory of a row of the box, and which of its elements are in the tensor.
struct Row {
    const unsigned char *from;
    int first, end;
};

Row row_of(const Box &b, unsigned row) {
    const Packed &t = b.tensor;
    int64_t offset = 0;
    bool inside = true;
    for (int i = 1; i < t.rank; i++) {
        const int64_t c = b.at[i] + (int64_t)(row % t.box[i]) * t.step[i];
        row /= t.box[i];
        inside = inside && c >= 0 && c <= (int64_t)t.last[i];
        offset += c * (int64_t)t.stride[i - 1];
    }
    const int64_t left = (int64_t)t.last[0] + 1 - b.at[0], across = t.box[0];
    const int64_t first = b.at[0] < 0 ? -(int64_t)b.at[0] : 0, end = left < across ? left : across;
    if (!inside || first >= end) return Row{nullptr, 0, 0};
    return Row{t.base + offset + (int64_t)b.at[0] * t.element, (int)first, (int)end};
}

void land(Box *b) {
    const Packed &t = b->tensor;
    const unsigned row_bytes = t.box[0] * t.element, rows = bytes_of(t) / row_bytes;
    const unsigned mask = width_of(t.swizzle) - 1;
    const size_t start = b->to - reinterpret_cast<unsigned char *>(b->block->shared);
    order_acquire(&b->point);
    note_write(b->to, bytes_of(t));
    for (unsigned r = 0; r < rows; r++) {
        alignas(16) unsigned char row[256 * 4] = {};
        const Row from = row_of(*b, r);
        if (from.from) {
            const size_t skip = (size_t)from.first * t.element;
            const size_t bytes = (size_t)(from.end - from.first) * t.element;
            note_read(from.from + skip, bytes);
            memcpy(row + skip, from.from + skip, bytes);
        }
        for (unsigned c = 0; c < row_bytes; c += 16) {
            const size_t at = start + r * row_bytes + c;
            memcpy(b->block->shared + (at ^ (at >> 7 & mask) << 4), row + c, 16);
        }
    }
    proxy_brought(b->block, b->to, bytes_of(t));
    b->used = false;
}

void issue(const Packed &t, const int *at, Block *block, unsigned char *to, uint64_t *word,
           Site site) {
    const unsigned bytes = bytes_of(t);
    const size_t start = to - reinterpret_cast<unsigned char *>(block->shared);
    if (!shared_holds(block, start, bytes))
        FAULT_HERE("TMA at %s:%d writes %u bytes at %zu of shared memory, which nobody has taken",
                   base_name(site.file), site.line, bytes, start);
    mbarrier_check_fenced(block, word, "TMA", site);
    for (size_t i = start; i < start + bytes; i += 16) proxy_check(block, i, "TMA", site);
    unsigned i = 0;
    while (i < n_boxes && boxes[i].used) i++;
    if (i == max_boxes) FAULT_HERE("more than %u boxes of TMA on their way", max_boxes);
    if (i == n_boxes) n_boxes++;
    Box *b = &boxes[i];
    *b = Box{true, t, {}, block, to, word, mbarrier_phase(word, site), site, 0};
    for (int d = 0; d < t.rank; d++) b->at[d] = at[d];
    note_write(to, bytes);
    memset(to, 0xff, bytes);
    proxy_brought(block, to, bytes);
    order_release(&b->point);
}

Packed look_up(const void *map, Site site) {
    Packed t;
    if ((uintptr_t)map % 64)
        FAULT_HERE("TMA at %s:%d: a tensor map at no multiple of 64", base_name(site.file),
                   site.line);
    memcpy(&t, map, sizeof t);
    if (t.magic != magic)
        FAULT_HERE("TMA at %s:%d: no tensor map", base_name(site.file), site.line);
    return t;
}

} // namespace

void set_tma(bool there) {
    have_tma = there;
}
bool with_tma() {
    return have_tma;
}

const char *tensor_map(const Tensor &t, void *map) {
    if (t.rank < 1 || t.rank > 5) return "tensor map: 1 to 5 dimensions";
    if ((uintptr_t)t.base % 16) return "tensor map: base at no multiple of 16";
    if ((uintptr_t)map % 64) return "tensor map: itself at no multiple of 64";
    if (t.swizzle > 3) return "tensor map: unknown swizzle";
    for (int i = 0; i < t.rank; i++) {
        if (!t.size[i] || t.size[i] > 1ull << 32) return "tensor map: 1 to 2^32 elements";
        if (!t.box[i] || !t.step[i] || t.step[i] > 8 || t.box[i] > 256 ||
            t.box[i] * t.step[i] > 256)
            return "tensor map: a box spans 1 to 256 elements, in steps of 1 to 8";
        if (i && (!t.stride[i] || t.stride[i] % 16 || t.stride[i] >= 1ull << 40))
            return "tensor map: strides are multiples of 16 below 2^40";
    }
    const unsigned row = t.box[0] * t.element, width = width_of(t.swizzle);
    if (row % 16) return "tensor map: rows of a box are multiples of 16 bytes";
    if (width > 1 && row > 16 * width) return "tensor map: rows are longer than the swizzle";
    Packed p = {};
    p.magic = magic;
    p.base = t.base;
    for (int i = 0; i < t.rank; i++) {
        p.last[i] = (uint32_t)(t.size[i] - 1);
        p.box[i] = (uint16_t)t.box[i];
        p.step[i] = (uint8_t)t.step[i];
        if (i) p.stride[i - 1] = t.stride[i];
    }
    p.element = (uint8_t)t.element;
    p.rank = (uint8_t)t.rank;
    p.swizzle = (uint8_t)t.swizzle;
    memset(map, 0, 128);
    memcpy(map, &p, sizeof p);
    return nullptr;
}

void tma_prefetch(const void *map, Site site) {
    look_up(map, site);
}

void tma_load(void *shared, const void *map, uint64_t *word, const int *at, int rank,
              unsigned to_blocks, Site site) {
    const Packed t = look_up(map, site);
    const Block *me = current->block;
    if (t.rank != rank)
        FAULT_HERE("TMA at %s:%d: %d coordinates of a tensor of %u dimensions",
                   base_name(site.file), site.line, rank, t.rank);
    if ((size_t)(static_cast<char *>(shared) - me->shared) % 128)
        FAULT_HERE("TMA at %s:%d: a box to no multiple of 128 of shared memory",
                   base_name(site.file), site.line);
    if ((uintptr_t)word % 8)
        FAULT_HERE("TMA at %s:%d: an mbarrier at no multiple of 8", base_name(site.file),
                   site.line);
    if (!to_blocks) to_blocks = 1u << me->rank;
    for (unsigned r = 0; to_blocks >> r; r++) {
        if (!(to_blocks >> r & 1)) continue;
        unsigned char *const to =
            static_cast<unsigned char *>(shared_of_block(shared, r, "TMA", site));
        issue(t, at, &blocks[r], to, static_cast<uint64_t *>(shared_of_block(word, r, "TMA", site)),
              site);
    }
}

void boxes_open() {
    n_boxes = 0;
}

void boxes_close(const Block *block) {
    for (unsigned i = 0; i < n_boxes && !failed; i++)
        if (boxes[i].used && boxes[i].block == block)
            fault("block %u has finished with a box of TMA on its way, asked for at %s:%d",
                  block->index.x, base_name(boxes[i].site.file), boxes[i].site.line);
}

bool boxes_coming(const uint64_t *word, uint32_t phase) {
    for (unsigned i = 0; i < n_boxes; i++)
        if (boxes[i].used && boxes[i].word == word && boxes[i].phase == phase) return true;
    return false;
}

void boxes_land(uint64_t *word) {
    for (unsigned i = 0; i < n_boxes; i++) {
        Box *b = &boxes[i];
        if (!b->used || b->word != word) continue;
        land(b);
        mbarrier_complete(b->block, word, b->phase, bytes_of(b->tensor), b->site);
    }
}

} // namespace tw::emu
