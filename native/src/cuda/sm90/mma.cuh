// Warp matrix products (mma.sync) and the unpacking of e4m3 operands for them.
#pragma once

#include <cstdint>

namespace mla::sm90 {

// d[16 x 8] += a[16 x 16] b[16 x 8] by one warp, operands BF16. With g = lane / 4 and c = lane % 4: a.x holds row g, columns
// 2c and 2c + 1, a.y row g + 8, a.z and a.w the same rows, columns 2c + 8 and 2c + 9; b0 rows 2c and 2c + 1 of column g, b1
// rows 2c + 8 and 2c + 9; d[0], d[1] row g, columns 2c and 2c + 1, d[2], d[3] row g + 8.
__device__ __forceinline__ void mma_bf16(float (&d)[4], const uint4 &a, uint32_t b0, uint32_t b1) {
  asm("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
      "{%0, %1, %2, %3};"
      : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
      : "r"(a.x), "r"(a.y), "r"(a.z), "r"(a.w), "r"(b0), "r"(b1));
}

// The same with F16 operands.
__device__ __forceinline__ void mma_f16(float (&d)[4], const uint4 &a, uint32_t b0, uint32_t b1) {
  asm("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
      "{%0, %1, %2, %3};"
      : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
      : "r"(a.x), "r"(a.y), "r"(a.z), "r"(a.w), "r"(b0), "r"(b1));
}

// An e4m3 value is a sign, four bits of exponent (bias 7) and three of mantissa. Moved as they are into the places of BF16
// (bias 127) or F16 (bias 15) they stand for the same value times 2^-120 or 2^-8, denormals included: no conversion is
// needed, and no bits are a NaN. Each function takes one byte of each half of a word, the upper or the lower.
constexpr float kE4m3InBf16 = 0x1p-120f, kE4m3InF16 = 0x1p-8f;

__device__ __forceinline__ uint32_t upper_e4m3_bf16(uint32_t bytes) {
  return (bytes >> 4 & 0x07F007F0u) | (bytes & 0x80008000u);
}
__device__ __forceinline__ uint32_t lower_e4m3_bf16(uint32_t bytes) {
  return (bytes << 4 & 0x07F007F0u) | (bytes << 8 & 0x80008000u);
}
__device__ __forceinline__ uint32_t upper_e4m3_f16(uint32_t bytes) {
  return (bytes >> 1 & 0x3F803F80u) | (bytes & 0x80008000u);
}
__device__ __forceinline__ uint32_t lower_e4m3_f16(uint32_t bytes) {
  return (bytes << 7 & 0x3F803F80u) | (bytes << 8 & 0x80008000u);
}

__device__ __forceinline__ float log2_approx(float x) {
  float y;
  asm("lg2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
}

}  // namespace mla::sm90
