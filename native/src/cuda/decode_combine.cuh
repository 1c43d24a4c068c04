// Joins the partial results of the sequences that the plan has cut.
#pragma once

#include "decode_common.cuh"
#include "sm90/wgmma.cuh"

namespace mla::cuda {

constexpr int kCombineWarps = 8;
constexpr int kCombineBlocksPerMultiprocessor = 4;  // that run at once
constexpr int kSliceColumns = 128, kSlices = kValueDim / kSliceColumns;  // of an output row: four values a lane

__device__ __forceinline__ float4 weighted_sum(float4 sum, float weight, uint2 halves) {
  const float2 v = __half22float2(*reinterpret_cast<const __half2 *>(&halves.x));
  const float2 w = __half22float2(*reinterpret_cast<const __half2 *>(&halves.y));
  return make_float4(sum.x + weight * v.x, sum.y + weight * v.y, sum.z + weight * w.x, sum.w + weight * w.y);
}

// A sequence whose splits are to be joined; none: there are no more.
struct CombineJob {
  int seq, splits;
  int first_slot, second_slot;  // of its partial results; from the second on they are `stride` apart
  int stride;
  __device__ int slot(int split) const { return split == 0 ? first_slot : second_slot + (split - 1) * stride; }
};

__device__ __forceinline__ CombineJob combine_job(const DecodeParams &p, int index) {
  const PlanJob &job = p.plan.jobs[index];
  if (p.rule.fixed()) {
    const int slot = job.seq * p.most_splits;
    return {job.seq, job.splits, slot, slot + 1, 1};
  }
  return {job.seq, job.splits, starting_slot(job.first_part), continued_slot(job.first_part + 1), continued_slot(1)};
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

// An item is kWidth slices of a query row, the work of kWarps warps, which share out its splits. Grid: (items, in blocks of
// kCombineWarps / kWarps; jobs, or fewer: the blocks go round). `jobs` may be more than there are.
template <int kWarps, int kWidth>
__global__ void __launch_bounds__(kCombineWarps * 32, kCombineBlocksPerMultiprocessor)
    combine_kernel(const __grid_constant__ DecodeParams p, int jobs) {
  static_assert(kWarps == 1 || (kWarps == kCombineWarps && kWidth == 1), "the warps of a block add one slice of sums");
  __shared__ float4 sums[kWarps == 1 ? 1 : kCombineWarps][32];
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
  const int item = blockIdx.x * (kCombineWarps / kWarps) + warp / kWarps;
  const int row = item / (kSlices / kWidth), slice = item % (kSlices / kWidth) * kWidth;
  const int column = slice * kSliceColumns + lane * 4;
  // The plan is older than the kernel before this one, which has waited for it before it let this one start.
  CombineJob job = combine_job(p, blockIdx.y);
  sm90::wait_for_previous_kernel();
  sm90::launch_dependents();
  if (row >= p.rows) return;

  for (int index = blockIdx.y; index < jobs; index += gridDim.y) {
    if (index != static_cast<int>(blockIdx.y)) job = combine_job(p, index);
    if (job.splits == 0) return;
    struct Values {
      uint2 slices[kWidth];  // four F16 each
      float scales[kWidth];
    };
    auto values_of = [&](int split) {
      const int64_t place = static_cast<int64_t>(job.slot(split)) * p.rows + row;
      Values v;
#pragma unroll
      for (int i = 0; i < kWidth; ++i) {
        v.slices[i] = *reinterpret_cast<const uint2 *>(p.partial_out + place * kValueDim + column + i * kSliceColumns);
        v.scales[i] = p.partial_scale[place * kScales + (column + i * kSliceColumns) / kScaleColumns];
      }
      return v;
    };
    constexpr int kAhead = kWidth == 4 ? 2 : 4;  // values that are under way while the weights are computed
    Values ahead[kAhead];
#pragma unroll
    for (int i = 0; i < kAhead; ++i) {
      const int s = warp % kWarps + i * kWarps;
      ahead[i] = s < job.splits ? values_of(s) : Values{};
    }
    const RowWeights weights(p, job, row);
    float4 sum[kWidth] = {};
    auto add = [&](int split, const Values &v) {
      const float weight = weights(split);
#pragma unroll
      for (int i = 0; i < kWidth; ++i) sum[i] = weighted_sum(sum[i], weight * v.scales[i], v.slices[i]);
    };
#pragma unroll
    for (int i = 0; i < kAhead; ++i) {
      const int s = warp % kWarps + i * kWarps;
      if (s < job.splits) add(s, ahead[i]);
    }
#pragma unroll(8 / kWidth)
    for (int s = warp % kWarps + kAhead * kWarps; s < job.splits; s += kWarps) add(s, values_of(s));

    if constexpr (kWarps > 1) {
      sums[warp][lane] = sum[0];
      __syncthreads();
      for (int w = 1; w < kWarps && warp == 0; ++w) {
        const float4 other = sums[w][lane];
        sum[0] = make_float4(sum[0].x + other.x, sum[0].y + other.y, sum[0].z + other.z, sum[0].w + other.w);
      }
      __syncthreads();  // the sums have been read
      if (warp > 0) continue;
    }
    __nv_bfloat16 *out = p.out + (static_cast<int64_t>(job.seq) * p.rows + row) * kValueDim + column;
#pragma unroll
    for (int i = 0; i < kWidth; ++i) {
      sm90::store_hinted(out + i * kSliceColumns,
                         make_uint2(sm90::pack_bf16(sum[i].x, sum[i].y), sm90::pack_bf16(sum[i].z, sum[i].w)),
                         output_policy(p, column + i * kSliceColumns));
    }
    if (slice == 0 && lane == 0) p.lse[lse_place(p, job.seq, row)] = natural_lse(weights.lse2());
  }
}

}  // namespace mla::cuda
