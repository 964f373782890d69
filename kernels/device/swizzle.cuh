// Shared-memory tiles whose rows are 64 or 128 bytes, cut into chunks of 16 bytes that are permuted
// inside each 128-byte line. Shared memory has 32 banks of 4 bytes: eight chunks of 16 bytes move
// at once when they lie in eight different places of a line. Both of these do:
//   - eight neighbouring threads copy one line (a row of 128 bytes, or two of 64) into the tile;
//   - ldmatrix reads the same chunk of eight neighbouring rows.
//
// Rows of 128 bytes: chunk c of row r lies at place c ^ (r % 8) of line r.
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
// that half.
//
//      place    0  1  2  3 | 4  5  6  7
//      line 0   0  1  2  3 | 0  1  2  3     rows 0 | 1
//      line 1   1  0  3  2 | 1  0  3  2     rows 2 | 3
//      line 2   2  3  0  1 | 2  3  0  1     rows 4 | 5
//      line 3   3  2  1  0 | 3  2  1  0     rows 6 | 7
//
// Both repeat after eight rows: swizzled(8 q + r, c) = swizzled(r, c) + 8 q ROW_BYTES, so that a
// thread computes the permuted part once.
#pragma once

#include "platform.cuh"

namespace tw {

// Byte offset of a chunk in the tile.
template <int ROW_BYTES> constexpr TW_BOTH unsigned swizzled(unsigned row, unsigned chunk) {
    static_assert(ROW_BYTES == 64 || ROW_BYTES == 128, "rows of 64 or 128 bytes");
    return row * ROW_BYTES + (ROW_BYTES == 128 ? chunk ^ row % 8 : chunk ^ row / 2 % 4) * 16;
}

} // namespace tw
