// Products with keys as rows and query rows as columns, S^T = K Q^T: what a thread holds of them.
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

// Where a lane stores P of a warp's sixteen keys, kRows x 64 keys by rows, swizzled, eight keys of a row at once
// (sm90::store_matrices_across): keys warp * 16 + lane / 8 % 2 * 8 on, of row lane % 8, of eight or sixteen.
template <int kRows>
__device__ __forceinline__ uint32_t piece_of_weights(int lane, int warp) {
  return (lane / 16 * 8 % kRows + lane % 8) * 128 + (((warp * 2 + lane / 8 % 2) ^ (lane % 8)) << 4);
}

}  // namespace mla::cuda
