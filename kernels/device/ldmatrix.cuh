// ldmatrix (sm_75 and later): COUNT (1, 2 or 4) matrices of 8 rows of 16 bytes from shared memory
// into one register each. Lane 8 j + r brings the address of row r of matrix j, a multiple of 16;
// the addresses of lanes past 8 COUNT are not looked at. All lanes of the warp take part.
//
//   load_matrices             lane l gets word l % 4 of row l / 4
//   load_matrices_transposed  lane l gets elements (2 (l % 4), l / 4) and (2 (l % 4) + 1, l / 4) of
//                             an 8 x 8 matrix of 16-bit elements
#pragma once

#include "platform.cuh"

#ifndef TW_EMULATOR
namespace tw {

template <int COUNT> TW_DEVICE void load_matrices(uint32_t (&r)[COUNT], const void *row) {
    static_assert(COUNT == 1 || COUNT == 2 || COUNT == 4, "one, two or four matrices");
    const unsigned src = (unsigned)__cvta_generic_to_shared(row);
    if constexpr (COUNT == 1)
        asm volatile("ldmatrix.sync.aligned.m8n8.x1.shared.b16 {%0}, [%1];"
                     : "=r"(r[0])
                     : "r"(src)
                     : "memory");
    else if constexpr (COUNT == 2)
        asm volatile("ldmatrix.sync.aligned.m8n8.x2.shared.b16 {%0, %1}, [%2];"
                     : "=r"(r[0]), "=r"(r[1])
                     : "r"(src)
                     : "memory");
    else
        asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
                     : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
                     : "r"(src)
                     : "memory");
}

template <int COUNT>
TW_DEVICE void load_matrices_transposed(uint32_t (&r)[COUNT], const void *row) {
    static_assert(COUNT == 1 || COUNT == 2 || COUNT == 4, "one, two or four matrices");
    const unsigned src = (unsigned)__cvta_generic_to_shared(row);
    if constexpr (COUNT == 1)
        asm volatile("ldmatrix.sync.aligned.m8n8.x1.trans.shared.b16 {%0}, [%1];"
                     : "=r"(r[0])
                     : "r"(src)
                     : "memory");
    else if constexpr (COUNT == 2)
        asm volatile("ldmatrix.sync.aligned.m8n8.x2.trans.shared.b16 {%0, %1}, [%2];"
                     : "=r"(r[0]), "=r"(r[1])
                     : "r"(src)
                     : "memory");
    else
        asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
                     : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
                     : "r"(src)
                     : "memory");
}

} // namespace tw
#endif
