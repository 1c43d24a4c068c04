// Products of a cache block with keys as rows and query rows as columns, S^T = K Q^T, by four warps: what a thread holds of them.
#pragma once

#include "decode_plan.cuh"

namespace mla::cuda {

// Of the accumulator of a product with kRows columns a thread holds, for g < kRows / 8, r < 2, j < 2, row r * 8 + lane / 4 of
// its warp's sixteen and column g * 8 + lane % 4 * 2 + j, at g * 4 + r * 2 + j.
template <int kRows>
struct Columns {
  static constexpr int kCount = kRows / 4;  // a thread's; the i-th of them:
  __device__ static int column(int i) { return i / 2 * 8 + threadIdx.x % 4 * 2 + i % 2; }
  __device__ static constexpr int place(int i, int r) { return i / 2 * 4 + r * 2 + i % 2; }
};

// Hides the keys of a cache block, from `first_key` on, that a query row does not see.
template <int kRows>
__device__ __forceinline__ void mask_across(float (&s)[kRows / 2], int first_key, int length, int first_row, int s_q, int heads) {
  if (first_key + kBlockTokens <= length - (s_q - 1)) return;  // all rows see all of them
  const int key = first_key + threadIdx.x / 32 * 16 + threadIdx.x % 32 / 4;
  using C = Columns<kRows>;
#pragma unroll
  for (int i = 0; i < C::kCount; ++i) {
    const int seen = length - max(s_q - 1 - quotient(first_row + C::column(i), heads), 0);
#pragma unroll
    for (int r = 0; r < 2; ++r) {
      if (key + 8 * r >= seen) s[C::place(i, r)] = -INFINITY;
    }
  }
}

// Where a lane stores P of a warp's sixteen keys, kRows x 64 keys by rows, swizzled, eight keys of a row at once
// (sm90::store_matrices_across): keys warp * 16 + lane / 8 % 2 * 8 on, of row lane % 8, of eight or sixteen.
template <int kRows>
__device__ __forceinline__ uint32_t piece_of_weights(int lane, int warp) {
  return (lane / 16 * 8 % kRows + lane % 8) * 128 + (((warp * 2 + lane / 8 % 2) ^ (lane % 8)) << 4);
}

}  // namespace mla::cuda
