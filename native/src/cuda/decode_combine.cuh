// Joins the partial results of the sequences that the plan has cut.
#pragma once

#include "decode_kernel.cuh"

namespace mla::cuda {

constexpr int kCombineWarps = 8;
constexpr int kSliceColumns = 128;  // of one output row: four values a lane
constexpr int kSlices = kValueDim / kSliceColumns;

__device__ __forceinline__ float4 weighted_sum(float4 sum, float weight, float4 v) {
  return make_float4(sum.x + weight * v.x, sum.y + weight * v.y, sum.z + weight * v.z, sum.w + weight * v.w);
}

// Grid: (items, sequences that may have been cut), an item being a slice of a query row. kWarps warps share the splits of an item: 1 where a
// sequence has few splits, all of the block's where it has many.
template <int kWarps>
__global__ void __launch_bounds__(kCombineWarps * 32) combine_kernel(const __grid_constant__ DecodeParams p) {
  __shared__ float4 sums[kCombineWarps][32];
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
  const int item = blockIdx.x * (kCombineWarps / kWarps) + warp / kWarps;
  const int row = item / kSlices, column = item % kSlices * kSliceColumns + lane * 4;
  sm90::wait_for_previous_kernel();
  sm90::launch_dependents();

  const PlanPart &job = p.parts[blockIdx.y];
  const int seq = job.combine_seq, splits = job.combine_splits, part = job.combine_part;
  if (seq < 0 || row >= p.rows) return;  // with kWarps > 1 a block has one item: all of it returns
  auto place = [&](int split) {
    int slot = split == 0 ? starting_slot(part) : continued_slot(part + split);
    return static_cast<int64_t>(slot) * p.rows + row;
  };

  float top = -INFINITY;
  for (int s = lane; s < splits; s += 32) top = fmaxf(top, p.partial_lse[place(s)]);
  for (int step = 16; step > 0; step /= 2) top = fmaxf(top, __shfl_xor_sync(~0u, top, step));
  const float base = top == -INFINITY ? 0.0f : top;
  float total = 0.0f;
  for (int s = lane; s < splits; s += 32) total += exp2f(p.partial_lse[place(s)] - base);
  for (int step = 16; step > 0; step /= 2) total += __shfl_xor_sync(~0u, total, step);
  const float lse2 = total > 0.0f ? base + log2f(total) : -INFINITY;
  const float inverse = total > 0.0f ? 1.0f / total : 0.0f;

  float4 sum = make_float4(0.0f, 0.0f, 0.0f, 0.0f);
#pragma unroll 8
  for (int s = warp % kWarps; s < splits; s += kWarps) {
    int64_t at = place(s);
    float4 v = *reinterpret_cast<const float4 *>(p.partial_out + at * kValueDim + column);
    sum = weighted_sum(sum, exp2f(p.partial_lse[at] - base) * inverse, v);
  }
  if (kWarps > 1) {
    sums[warp][lane] = sum;
    __syncthreads();
    if (warp > 0) return;
#pragma unroll
    for (int w = 1; w < kWarps; ++w) sum = weighted_sum(sum, 1.0f, sums[w][lane]);
  }
  uint2 packed = make_uint2(sm90::pack_bf16(sum.x, sum.y), sm90::pack_bf16(sum.z, sum.w));
  *reinterpret_cast<uint2 *>(p.out + (static_cast<int64_t>(seq) * p.rows + row) * kValueDim + column) = packed;
  if (item % kSlices == 0 && lane == 0) p.lse[lse_place(p, seq, row)] = natural_lse(lse2);
}

}  // namespace mla::cuda
