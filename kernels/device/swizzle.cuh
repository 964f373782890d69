// Shared-memory tiles whose rows are 32 to 512 bytes, cut into chunks of 16 bytes that are permuted
// inside each 128-byte line. Shared memory has 32 banks of 4 bytes: eight chunks of 16 bytes move
// at once when they lie in eight different places of a line. All of these do:
//   - eight neighbouring threads copy one line (or a part of one, or several rows) into the tile;
//   - ldmatrix reads the same chunk of eight neighbouring rows.
//
// Rows of 128 bytes: chunk c of row r lies at place c ^ (r % 8) of line r. A longer row is several
// lines, each permuted like this.
//
//      place    0  1  2  3  4  5  6  7
//      row 0    0  1  2  3  4  5  6  7
//      row 1    1  0  3  2  5  4  7  6      down every column each place holds another chunk, so
//      row 2    2  3  0  1  6  7  4  5      chunk c of rows 0 to 7 lies in eight different places
//      row 3    3  2  1  0  7  6  5  4
//      row 4    4  5  6  7  0  1  2  3
//      ...
//
// Rows of 64 bytes: row r is half r % 2 of line r / 2, its chunk c lies at place c ^ (r / 2 % 4) of
// that half. Rows of 32 bytes: quarter r % 4 of line r / 4, place c ^ (r / 4 % 2) of the quarter.
//
//      place    0  1  2  3 | 4  5  6  7           place   0  1 | 2  3 | 4  5 | 6  7
//      line 0   0  1  2  3 | 0  1  2  3           line 0  0  1 | 0  1 | 0  1 | 0  1
//      line 1   1  0  3  2 | 1  0  3  2           line 1  1  0 | 1  0 | 1  0 | 1  0
//      line 2   2  3  0  1 | 2  3  0  1
//      line 3   3  2  1  0 | 3  2  1  0
//
// These repeat after eight rows: swizzled(8 q + r, c) = swizzled(r, c) + 8 q ROW_BYTES, so that a
// thread computes the permuted part once.
//
// ldmatrix cannot turn a matrix of 32-bit elements around. Where a tile of them is stored along the
// other direction (a row is one k), a warp reads words instead: lane 4 g + t word g of eight
// neighbouring ones, which are two chunks, in row t of four. The two chunks move together, so that
// the four rows take the whole line: chunk c of row r lies at place c ^ 2 (r % 4) of its line, in
// rows of 64 bytes at place c ^ 2 (r / 2 % 2) of its half.
//
//      place    0  1  2  3  4  5  6  7           place    0  1  2  3 | 4  5  6  7
//      row 0    0  1  2  3  4  5  6  7           line 0   0  1  2  3 | 0  1  2  3     rows 0 | 1
//      row 1    2  3  0  1  6  7  4  5           line 1   2  3  0  1 | 2  3  0  1     rows 2 | 3
//      row 2    4  5  6  7  0  1  2  3
//      row 3    6  7  4  5  2  3  0  1
//
// These repeat after four rows.
#pragma once

#include "platform.cuh"

namespace tw {

// How the tensor cores and TMA name these permutations.
enum class Swizzle : unsigned { none = 0, bytes_128 = 1, bytes_64 = 2, bytes_32 = 3 };

// Byte offset of a chunk in the tile.
template <int ROW_BYTES> constexpr TW_BOTH unsigned swizzled(unsigned row, unsigned chunk) {
    static_assert(ROW_BYTES >= 32 && ROW_BYTES <= 512 && (ROW_BYTES & (ROW_BYTES - 1)) == 0,
                  "rows of 32 to 512 bytes");
    const unsigned mixed = ROW_BYTES >= 128  ? chunk ^ row % 8
                           : ROW_BYTES == 64 ? chunk ^ row / 2 % 4
                                             : chunk ^ row / 4 % 2;
    return row * ROW_BYTES + mixed * 16;
}

// The same where words are read.
template <int ROW_BYTES> constexpr TW_BOTH unsigned swizzled_words(unsigned row, unsigned chunk) {
    static_assert(ROW_BYTES >= 64 && ROW_BYTES <= 512 && (ROW_BYTES & (ROW_BYTES - 1)) == 0,
                  "rows of 64 to 512 bytes");
    return row * ROW_BYTES + (chunk ^ 2 * (ROW_BYTES >= 128 ? row % 4 : row / 2 % 2)) * 16;
}

} // namespace tw
