// Warp matrix products (mma.sync) in BF16 and the unpacking of e4m3 operands for them.
#pragma once

#include <cstdint>

namespace mla::sm90 {

// d[16 x 8] += a[16 x 16] b[16 x 8] by one warp. With g = lane / 4 and c = lane % 4: a.x holds row g, columns 2c and 2c + 1,
// a.y row g + 8, a.z and a.w the same rows, columns 2c + 8 and 2c + 9; b0 rows 2c and 2c + 1 of column g, b1 rows 2c + 8 and
// 2c + 9; d[0], d[1] row g, columns 2c and 2c + 1, d[2], d[3] row g + 8.
__device__ __forceinline__ void mma_m16n8k16(float (&d)[4], const uint4 &a, uint32_t b0, uint32_t b1) {
  asm("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
      "{%0, %1, %2, %3};"
      : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
      : "r"(a.x), "r"(a.y), "r"(a.z), "r"(a.w), "r"(b0), "r"(b1));
}

// An e4m3 value is a sign, four bits of exponent (bias 7) and three of mantissa. Moved as they are into the places of BF16
// (bias 127) they stand for the same value times 2^-120, denormals included; no conversion is needed, and no bits are a NaN.
constexpr float kE4m3Shift = 0x1p-120f;

// The upper byte of each half of `bytes`, as two BF16 values times 2^-120.
__device__ __forceinline__ uint32_t upper_e4m3(uint32_t bytes) {
  return (bytes >> 4 & 0x07F007F0u) | (bytes & 0x80008000u);
}
// The lower byte of each half.
__device__ __forceinline__ uint32_t lower_e4m3(uint32_t bytes) {
  return (bytes << 4 & 0x07F007F0u) | (bytes << 8 & 0x80008000u);
}

}  // namespace mla::sm90
