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

// Four e4m3 values as two operand words of F16: bytes 0 and 1, bytes 2 and 3. All e4m3 values are F16 values, too.
__device__ __forceinline__ uint2 e4m3_to_f16(uint32_t bytes) {
  uint2 pairs;
  asm("{\n"
      ".reg .b16 low, high;\n"
      "mov.b32 {low, high}, %2;\n"
      "cvt.rn.f16x2.e4m3x2 %0, low;\n"
      "cvt.rn.f16x2.e4m3x2 %1, high;\n"
      "}\n"
      : "=r"(pairs.x), "=r"(pairs.y)
      : "r"(bytes));
  return pairs;
}

__device__ __forceinline__ float log2_approx(float x) {
  float y;
  asm("lg2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
}

}  // namespace mla::sm90
