// What the plan kernels use; two of them are one block of kPlanThreads threads.
#pragma once

#include <cuda_runtime.h>

namespace mla::cuda {

constexpr int kPlanThreads = 1024;

// In place inclusive prefix sum of values[0, count) by the whole block; `totals` holds one int a warp.
__device__ inline void prefix_sum(int *values, int count, int *totals) {
  int carry = 0;
  int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
  for (int base = 0; base < count; base += kPlanThreads) {
    int i = base + static_cast<int>(threadIdx.x);
    int sum = i < count ? values[i] : 0;
    for (int step = 1; step < 32; step *= 2) {
      int other = __shfl_up_sync(~0u, sum, step);
      if (lane >= step) sum += other;
    }
    if (lane == 31) totals[warp] = sum;
    __syncthreads();
    int before = 0, all = 0;
    for (int w = 0; w < kPlanThreads / 32; ++w) {
      before += w < warp ? totals[w] : 0;
      all += totals[w];
    }
    if (i < count) values[i] = carry + before + sum;
    carry += all;
    __syncthreads();
  }
}

// Where part `part` of the plan by load ends on the cost axis, unless the cut is moved.
__device__ inline int part_end(int span, int part, int part_count) {
  return static_cast<int>(static_cast<int64_t>(span) * (part + 1) / part_count);
}

// The first i of [first, count) with ends[i] > position, or count; quick where that is close to `first`.
__device__ inline int first_beyond(const int *ends, int first, int count, int position) {
  int low = first, stride = 1;
  while (low + stride <= count && ends[low + stride - 1] <= position) {
    low += stride;
    stride *= 2;
  }
  int high = min(low + stride - 1, count);
  while (low < high) {
    int middle = (low + high) / 2;
    if (ends[middle] > position) high = middle;
    else low = middle + 1;
  }
  return low;
}

}  // namespace mla::cuda
