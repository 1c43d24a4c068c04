// Joins the partial results of the sequences that the plan has cut.
#pragma once

#include "decode_common.cuh"
#include "sm90/wgmma.cuh"

namespace mla::cuda {

constexpr int kCombineWarps = 8;
constexpr int kCombineBlocksPerMultiprocessor = 8;  // that run at once
constexpr int kSliceColumns = 128;                  // of one output row: four values a lane
constexpr int kSlices = kValueDim / kSliceColumns;

__device__ __forceinline__ float4 weighted_sum(float4 sum, float weight, float4 v) {
  return make_float4(sum.x + weight * v.x, sum.y + weight * v.y, sum.z + weight * v.z, sum.w + weight * v.w);
}

// Which sequence a block of the combine kernel joins; one split or none: nothing to do.
struct CombineJob {
  int seq, splits;
  int first_slot, second_slot;  // of its partial results; from the second on they are `stride` apart
  int stride;
  __device__ int slot(int split) const { return split == 0 ? first_slot : second_slot + (split - 1) * stride; }
};

__device__ __forceinline__ CombineJob combine_job(const DecodeParams &p, int index) {
  if (p.rule.fixed()) {
    const int slot = index * p.most_splits;
    return {index, p.rule.splits(steps_of(__ldg(p.seq_lens + index))), slot, slot + 1, 1};
  }
  const PlanPart &row = p.parts[index];
  return {row.combine_seq, row.combine_seq < 0 ? 0 : row.combine_splits, starting_slot(row.combine_part),
          continued_slot(row.combine_part + 1), continued_slot(1)};
}

// Grid: (items, sequences that may have been cut), an item being a slice of a query row. kWarps warps of a block share
// the splits of an item.
template <int kWarps>
__global__ void __launch_bounds__(kCombineWarps * 32) combine_kernel(const __grid_constant__ DecodeParams p) {
  __shared__ float4 sums[kCombineWarps][32];
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
  const int item = blockIdx.x * (kCombineWarps / kWarps) + warp / kWarps;
  const int row = item / kSlices, column = item % kSlices * kSliceColumns + lane * 4;
  // The plan is older than the kernel before this one, which has waited for it before it let this one start.
  const CombineJob job = combine_job(p, blockIdx.y);
  const int seq = job.seq, splits = job.splits;
  sm90::wait_for_previous_kernel();
  sm90::launch_dependents();
  if (splits < 2 || row >= p.rows) return;
  auto place = [&](int split) { return static_cast<int64_t>(job.slot(split)) * p.rows + row; };

  auto values_of = [&](int split) {
    return *reinterpret_cast<const float4 *>(p.partial_out + place(split) * kValueDim + column);
  };
  constexpr int kAhead = 4;  // values that are under way while the weights are computed
  float4 ahead[kAhead];
#pragma unroll
  for (int i = 0; i < kAhead; ++i) {
    int s = warp % kWarps + i * kWarps;
    ahead[i] = s < splits ? values_of(s) : make_float4(0.0f, 0.0f, 0.0f, 0.0f);
  }

  float top = -INFINITY;
  for (int s = lane; s < splits; s += 32) top = fmaxf(top, p.partial_lse[place(s)]);
  for (int step = 16; step > 0; step /= 2) top = fmaxf(top, __shfl_xor_sync(~0u, top, step));
  const float base = top == -INFINITY ? 0.0f : top;
  float total = 0.0f;
  for (int s = lane; s < splits; s += 32) total += exp2f(p.partial_lse[place(s)] - base);
  for (int step = 16; step > 0; step /= 2) total += __shfl_xor_sync(~0u, total, step);
  const float lse2 = total > 0.0f ? base + log2f(total) : -INFINITY;
  const float inverse = total > 0.0f ? 1.0f / total : 0.0f;
  auto weight_of = [&](int split) { return exp2f(p.partial_lse[place(split)] - base) * inverse; };

  float4 sum = make_float4(0.0f, 0.0f, 0.0f, 0.0f);
#pragma unroll
  for (int i = 0; i < kAhead; ++i) {
    int s = warp % kWarps + i * kWarps;
    if (s < splits) sum = weighted_sum(sum, weight_of(s), ahead[i]);
  }
#pragma unroll 8
  for (int s = warp % kWarps + kAhead * kWarps; s < splits; s += kWarps) {
    sum = weighted_sum(sum, weight_of(s), values_of(s));
  }
  if (kWarps > 1) {
    sums[warp][lane] = sum;
    __syncthreads();
    if (warp % kWarps > 0) return;
#pragma unroll
    for (int w = 1; w < kWarps; ++w) sum = weighted_sum(sum, 1.0f, sums[warp + w][lane]);
  }
  uint2 packed = make_uint2(sm90::pack_bf16(sum.x, sum.y), sm90::pack_bf16(sum.z, sum.w));
  *reinterpret_cast<uint2 *>(p.out + (static_cast<int64_t>(seq) * p.rows + row) * kValueDim + column) = packed;
  if (item % kSlices == 0 && lane == 0) p.lse[lse_place(p, seq, row)] = natural_lse(lse2);
}

}  // namespace mla::cuda
