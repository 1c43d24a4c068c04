// Joins the partial results of the sequences that the plan has cut.
#pragma once

#include "decode_common.cuh"
#include "sm90/wgmma.cuh"

namespace mla::cuda {

constexpr int kCombineWarps = 8;
constexpr int kCombineBlocksPerMultiprocessor = 4;  // that run at once
constexpr int kSliceColumns = 128;                  // of one output row: four values a lane
constexpr int kSlices = kValueDim / kSliceColumns;

__device__ __forceinline__ float4 weighted_sum(float4 sum, float weight, float4 v) {
  return make_float4(sum.x + weight * v.x, sum.y + weight * v.y, sum.z + weight * v.z, sum.w + weight * v.w);
}

// A sequence whose splits are to be joined; one split or none: nothing to do.
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

// The splits' shares in a row's result, by the lanes of a warp together.
class RowWeights {
 public:
  __device__ RowWeights(const DecodeParams &p, const CombineJob &job, int row)
      : job_(job), lse_(p.partial_lse + row), rows_(p.rows) {
    const int lane = threadIdx.x % 32;
    float top = -INFINITY, total = 0.0f;
    for (int s = lane; s < job.splits; s += 32) top = fmaxf(top, lse(s));
    for (int step = 16; step > 0; step /= 2) top = fmaxf(top, __shfl_xor_sync(~0u, top, step));
    base_ = top == -INFINITY ? 0.0f : top;
    for (int s = lane; s < job.splits; s += 32) total += exp2f(lse(s) - base_);
    for (int step = 16; step > 0; step /= 2) total += __shfl_xor_sync(~0u, total, step);
    lse2_ = total > 0.0f ? base_ + log2f(total) : -INFINITY;
    inverse_ = total > 0.0f ? 1.0f / total : 0.0f;
  }
  __device__ float operator()(int split) const { return exp2f(lse(split) - base_) * inverse_; }
  __device__ float lse2() const { return lse2_; }  // of the whole row

 private:
  __device__ float lse(int split) const { return lse_[static_cast<int64_t>(job_.slot(split)) * rows_]; }

  const CombineJob &job_;
  const float *lse_;
  int rows_;
  float base_, lse2_, inverse_;
};

// An item is kWidth slices of a query row, the work of kWarps warps, which share out its splits. A block takes
// kCombineWarps / kWarps items of one job at a time; `jobs` may be more than there are.
template <int kWarps, int kWidth>
__global__ void __launch_bounds__(kCombineWarps * 32, kCombineBlocksPerMultiprocessor)
    combine_kernel(const __grid_constant__ DecodeParams p, int jobs) {
  static_assert(kWarps == 1 || kWidth == 1, "the warps of an item add one slice of sums");
  constexpr int kItems = kCombineWarps / kWarps, kRowItems = kSlices / kWidth;
  __shared__ float4 sums[kWarps == 1 ? 1 : kCombineWarps][32];
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
  const int job_blocks = (p.rows * kRowItems + kItems - 1) / kItems;
  // The plan is older than the kernel before this one, which has waited for it before it let this one start.
  CombineJob job = combine_job(p, blockIdx.x / job_blocks);
  sm90::wait_for_previous_kernel();
  sm90::launch_dependents();

  for (int block = blockIdx.x; block < jobs * job_blocks; block += gridDim.x) {
    if (block != static_cast<int>(blockIdx.x)) job = combine_job(p, block / job_blocks);
    const int item = block % job_blocks * kItems + warp / kWarps;
    const int row = item / kRowItems, column = item % kRowItems * kWidth * kSliceColumns + lane * 4;
    if (job.splits < 2 || row >= p.rows) continue;

    struct Values {
      float4 slices[kWidth];
    };
    auto values_of = [&](int split) {
      const float *values = p.partial_out + (static_cast<int64_t>(job.slot(split)) * p.rows + row) * kValueDim + column;
      Values v;
#pragma unroll
      for (int i = 0; i < kWidth; ++i) v.slices[i] = *reinterpret_cast<const float4 *>(values + i * kSliceColumns);
      return v;
    };
    constexpr int kAhead = 4 / kWidth;  // values that are under way while the weights are computed
    Values ahead[kAhead], sum = {};
#pragma unroll
    for (int i = 0; i < kAhead; ++i) {
      const int s = warp % kWarps + i * kWarps;
      ahead[i] = s < job.splits ? values_of(s) : Values{};
    }
    const RowWeights weights(p, job, row);
    auto add = [&](int split, const Values &v) {
      const float weight = weights(split);
#pragma unroll
      for (int i = 0; i < kWidth; ++i) sum.slices[i] = weighted_sum(sum.slices[i], weight, v.slices[i]);
    };
#pragma unroll
    for (int i = 0; i < kAhead; ++i) {
      const int s = warp % kWarps + i * kWarps;
      if (s < job.splits) add(s, ahead[i]);
    }
#pragma unroll(8 / kWidth)
    for (int s = warp % kWarps + kAhead * kWarps; s < job.splits; s += kWarps) add(s, values_of(s));

    if constexpr (kWarps > 1) {
      static_assert(kWarps == kCombineWarps, "all warps of the block meet");
      sums[warp][lane] = sum.slices[0];
      __syncthreads();
#pragma unroll
      for (int w = 1; w < kWarps; ++w) sum.slices[0] = weighted_sum(sum.slices[0], 1.0f, sums[(warp + w) % kWarps][lane]);
      __syncthreads();  // the sums have been read
      if (warp > 0) continue;
    }
    __nv_bfloat16 *out = p.out + (static_cast<int64_t>(job.seq) * p.rows + row) * kValueDim + column;
#pragma unroll
    for (int i = 0; i < kWidth; ++i) {
      const float4 v = sum.slices[i];
      *reinterpret_cast<uint2 *>(out + i * kSliceColumns) = make_uint2(sm90::pack_bf16(v.x, v.y), sm90::pack_bf16(v.z, v.w));
    }
    if (item % kRowItems == 0 && lane == 0) p.lse[lse_place(p, job.seq, row)] = natural_lse(weights.lse2());
  }
}

}  // namespace mla::cuda
