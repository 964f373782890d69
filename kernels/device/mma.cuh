// Products of small matrices on the tensor cores (mma.sync, sm_80 and later) and the fragments that
// a warp holds for them: D (16 x 8, fp32) += A (16 x K) B (K x 8), where a row of A and a column of
// B are 32 bytes: K = 16 in bf16 and fp16, K = 8 in tf32. g = lane / 4, t = lane % 4, and a word is
// two 16-bit elements or one fp32:
//
//   A   word w of lane: row g + 8 (w % 2), word t + 4 (w / 2) of the row
//
//           words   0 .. 3     4 .. 7
//       rows 0-7    word 0  |  word 2         in each quarter, lane 4 g + t holds
//       rows 8-15   word 1  |  word 3         word t of row g
//
//   B   word w of lane: column g, word t + 4 w of the column
//   D   c[0], c[1]: row g, columns 2 t and 2 t + 1;  c[2], c[3]: row g + 8, the same columns
//
// load_matrices gives A's words in this order from the four quarters of a tile stored row by row,
// and B's from a tile stored column by column.
//
// The products are exact and are added in fp32; the hardware may cut instead of rounding. Of a tf32
// element the unit looks at the first 19 bits only: round with to_tf32 first.
#pragma once

#include "types.cuh"

namespace tw {

struct tf32 {}; // names the arithmetic; such tensors are stored as fp32

struct FragmentA {
    uint32_t word[4];
};
struct FragmentB {
    uint32_t word[2];
};
struct FragmentC {
    float c[4];
};

// Rounds fp32 to 10 bits of fraction, ties away from zero, in the bits of a fp32.
TW_DEVICE uint32_t to_tf32(uint32_t bits) {
#ifdef TW_EMULATOR
    return (bits & 0x7f800000u) == 0x7f800000u ? bits : (bits + 0x1000u) & 0xffffe000u;
#else
    uint32_t out;
    asm("cvt.rna.tf32.f32 %0, %1;" : "=r"(out) : "f"(__uint_as_float(bits)));
    return out;
#endif
}

#ifndef TW_EMULATOR

TW_DEVICE void multiply(bf16, FragmentC &d, const FragmentA &a, const FragmentB &b) {
    asm("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, "
        "{%8, %9}, {%0, %1, %2, %3};"
        : "+f"(d.c[0]), "+f"(d.c[1]), "+f"(d.c[2]), "+f"(d.c[3])
        : "r"(a.word[0]), "r"(a.word[1]), "r"(a.word[2]), "r"(a.word[3]), "r"(b.word[0]),
          "r"(b.word[1]));
}
TW_DEVICE void multiply(f16, FragmentC &d, const FragmentA &a, const FragmentB &b) {
    asm("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, "
        "{%8, %9}, {%0, %1, %2, %3};"
        : "+f"(d.c[0]), "+f"(d.c[1]), "+f"(d.c[2]), "+f"(d.c[3])
        : "r"(a.word[0]), "r"(a.word[1]), "r"(a.word[2]), "r"(a.word[3]), "r"(b.word[0]),
          "r"(b.word[1]));
}
TW_DEVICE void multiply(tf32, FragmentC &d, const FragmentA &a, const FragmentB &b) {
    asm("mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, "
        "{%8, %9}, {%0, %1, %2, %3};"
        : "+f"(d.c[0]), "+f"(d.c[1]), "+f"(d.c[2]), "+f"(d.c[3])
        : "r"(a.word[0]), "r"(a.word[1]), "r"(a.word[2]), "r"(a.word[3]), "r"(b.word[0]),
          "r"(b.word[1]));
}

// c[i][j] += a[i] b[j] for the whole tile of a warp; MATH is bf16, f16 or tf32.
template <typename MATH, int M, int N>
TW_DEVICE void multiply_tile(FragmentC (&c)[M][N], const FragmentA (&a)[M],
                             const FragmentB (&b)[N]) {
#pragma unroll
    for (int i = 0; i < M; i++)
#pragma unroll
        for (int j = 0; j < N; j++) multiply(MATH{}, c[i][j], a[i], b[j]);
}

#else

constexpr emu::Mma emu_mma(bf16) {
    return emu::Mma::bf16;
}
constexpr emu::Mma emu_mma(f16) {
    return emu::Mma::f16;
}
constexpr emu::Mma emu_mma(tf32) {
    return emu::Mma::tf32;
}

template <typename MATH, int M, int N>
inline void multiply_tile(FragmentC (&c)[M][N], const FragmentA (&a)[M], const FragmentB (&b)[N],
                          TW_EMU_SITE) {
    static_assert(N <= 64, "the stand-in keeps 64 fragments of B");
    emu::multiply(emu_mma(MATH{}), c[0][0].c, a[0].word, b[0].word, M, N, emu::Site{file, line});
}

#endif

} // namespace tw
