// Shares the steps of all sequences out among parts of equal cost. The costs of the sequences are laid end to end on one
// axis: an overhead for the queries of each, then its steps, with an overhead for the outputs of each split. The parts are
// consecutive pieces of that axis. The plan by load cuts it at equal distances, but not close to a sequence's ends; the plan
// by length (deterministic) only between splits, by the smallest budget with which the parts get to its end.

#include <cuda_runtime.h>

#include "decode_plan.cuh"
#include "decode.h"

namespace mla::cuda {
namespace {

constexpr int kPlanThreads = 1024;

struct PlanParams {
  const int32_t *seq_lens;
  PlanPart *parts;
  int32_t *splits;
  uint32_t *flags;  // to be cleared
  int flag_count;
  int batch, part_count, overhead, split_overhead, least, least_piece;
  SplitRule rule;
};

// In place inclusive prefix sum of values[0, count) by the whole block; `totals` holds one int a warp.
__device__ void prefix_sum(int *values, int count, int *totals) {
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

// The first i of [first, count) with ends[i] > position, or count; quick where that is close to `first`.
__device__ int first_beyond(const int *ends, int first, int count, int position) {
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

// A place on the cost axis where it may be cut: before step `step` of sequence `seq`.
struct Cut {
  int position, seq, step;
};

// The cost axis.
struct Axis {
  PlanParams p;
  const int *ends;        // of each sequence
  const uint16_t *costs;  // of each one's splits; by length only
  int before_steps;       // from a sequence's begin to its first step, or split

  __device__ int total() const { return ends[p.batch - 1]; }
  __device__ int begin(int seq) const { return seq == 0 ? 0 : ends[seq - 1]; }
  __device__ int seq_at(int position, int first) const { return first_beyond(ends, first, p.batch, position); }
  // The cut at `position`.
  __device__ Cut cut_at(int position) const {
    const int seq = seq_at(position, 0);
    if (seq == p.batch || position == begin(seq)) return {position, seq, 0};
    const int beyond = position - begin(seq) - before_steps;
    if (!p.rule.fixed()) return {position, seq, beyond};
    return {position, seq, quotient(beyond, costs[seq]) * (costs[seq] - p.split_overhead)};
  }
  // By load: where to cut close to `position`. What is cut off a sequence shall have p.least_piece steps, if a part has
  // eight times as many.
  __device__ int place_near(int position, int part_cost) const {
    const int seq = seq_at(position, 0), least = min(p.least_piece, part_cost / 8);
    if (seq == p.batch) return total();
    if (position - begin(seq) - before_steps < max(least, 1)) return begin(seq);
    return ends[seq] - position < least ? ends[seq] : position;
  }
  // By length: the end of the part that begins at `from` and costs at most `budget`. A part that goes on with a sequence has
  // its queries to load, too. Of the cut's step only whether it is 0 counts.
  __device__ Cut end_of_part(const Cut &from, int budget) const {
    const int limit = from.position + budget - (from.step > 0 ? before_steps : 0);
    if (limit >= total()) return {total(), p.batch, 0};
    const int seq = seq_at(limit, from.seq), start = begin(seq);
    const int splits = quotient(max(limit - start - before_steps, 0), costs[seq]);
    return {splits == 0 ? start : start + before_steps + splits * costs[seq], seq, splits};
  }
};

constexpr int kCandidates = 32;

// By length: cuts the axis. The parts' ends go to `cuts`, kCandidates rows of part_count; returns the row that holds. It is
// that of the smallest budget of kCandidates from `lowest` to `highest`, which suffices, with which the parts get to the end
// of the axis. The lanes of a warp try them side by side.
__device__ int cut_by_length(const Axis &axis, int lowest, int highest, int *cuts) {
  const int lane = threadIdx.x, count = axis.p.part_count;
  const int apart = (highest - lowest + kCandidates - 2) / (kCandidates - 1);
  const int budget = min(lowest + lane * apart, highest);
  Cut cut = {0, 0, 0};
  for (int part = 0; part < count; ++part) {
    if (cut.seq < axis.p.batch) cut = axis.end_of_part(cut, budget);
    cuts[lane * count + part] = cut.position;
  }
  return __ffs(__ballot_sync(~0u, cut.seq == axis.p.batch)) - 1;
}

__global__ void __launch_bounds__(kPlanThreads) plan_kernel(PlanParams p) {
  extern __shared__ int ends[];
  __shared__ int totals[kPlanThreads / 32];
  __shared__ int largest, row_of_cuts;
  int *cuts = ends + p.batch;
  int *jobs = cuts + kCandidates * p.part_count;  // prefix sum of the parts in which a cut sequence starts
  uint16_t *costs = reinterpret_cast<uint16_t *>(jobs + p.part_count);
  const bool fixed = p.rule.fixed();
  if (threadIdx.x == 0) largest = row_of_cuts = 0;
  __syncthreads();
  for (int b = threadIdx.x; b < p.batch; b += kPlanThreads) {
    const int steps = steps_of(p.seq_lens[b]), splits = fixed ? p.rule.splits(steps) : 1;
    ends[b] = p.overhead + steps + splits * p.split_overhead;
    if (!fixed) continue;
    p.splits[b + 1] = splits;
    costs[b] = p.rule.split_steps(steps) + p.split_overhead;
    atomicMax(&largest, costs[b]);
  }
  __syncthreads();
  prefix_sum(ends, p.batch, totals);

  const Axis axis = {p, ends, costs, fixed ? p.overhead : p.overhead + p.split_overhead};
  const int even = (axis.total() + p.part_count - 1) / p.part_count, part_cost = max(even, p.least);
  if (!fixed) {
    for (int part = threadIdx.x; part < p.part_count; part += kPlanThreads) {
      cuts[part] = axis.place_near((part + 1) * part_cost, part_cost);
    }
  } else if (threadIdx.x < 32) {
    const int unit = p.overhead + largest;  // a part takes at least this; less is left over at its end
    const int row = cut_by_length(axis, max(even, unit), even + p.overhead + unit, cuts);
    if (threadIdx.x == 0) row_of_cuts = row;
  }
  __syncthreads();
  cuts += row_of_cuts * p.part_count;

  auto cut_after = [&](int part) { return part < 0 ? Cut{0, 0, 0} : axis.cut_at(cuts[part]); };
  // Parts that have the first and the last step of a sequence.
  auto part_of = [&](int position) { return first_beyond(cuts, 0, p.part_count, position); };
  auto first_part = [&](int b) { return part_of(min(axis.begin(b) + axis.before_steps, ends[b] - 1)); };
  auto last_part = [&](int b) { return part_of(ends[b] - 1); };
  // At most one cut sequence starts in a part: its last.
  auto cut_here = [&](const Cut &to, int part) { return !fixed && to.step > 0 && first_part(to.seq) == part; };
  for (int part = threadIdx.x; part < p.part_count; part += kPlanThreads) {
    const Cut from = cut_after(part - 1), to = cut_after(part);
    PlanPart row = {};
    row.combine_seq = -1;
    row.first_seq = from.seq;
    row.first_step = from.step;
    row.last_seq = to.step > 0 ? to.seq : to.seq - 1;
    if (row.first_seq <= row.last_seq) {
      row.first_len = p.seq_lens[row.first_seq];
      row.end_step = to.step > 0 ? to.step : steps_of(p.seq_lens[row.last_seq]);
    }
    if (!fixed && from.step > 0) row.splits_before = part - first_part(from.seq);
    if (!fixed && to.step > 0) row.splits_after = last_part(to.seq) - part;
    p.parts[part] = row;
    jobs[part] = cut_here(to, part);
  }
  __syncthreads();
  prefix_sum(jobs, p.part_count, totals);
  for (int part = threadIdx.x; part < p.part_count; part += kPlanThreads) {
    const Cut to = cut_after(part);
    if (!cut_here(to, part)) continue;
    PlanPart &job = p.parts[jobs[part] - 1];
    job.combine_seq = to.seq;
    job.combine_splits = last_part(to.seq) - part + 1;
    job.combine_part = part;
  }
  for (int b = threadIdx.x; b < p.batch && !fixed; b += kPlanThreads) p.splits[b + 1] = last_part(b) - first_part(b) + 1;
  for (int i = threadIdx.x; i < p.flag_count; i += kPlanThreads) p.flags[i] = 0;
  if (threadIdx.x == 0) p.splits[0] = 0;
  __syncthreads();
  prefix_sum(p.splits + 1, p.batch, totals);
  __threadfence();  // mla_decode reads the plan before it waits for the kernel before it
}

}  // namespace

cudaError_t launch_plan(const DecodeShape &shape, const int32_t *seq_lens, int32_t *tiles, int32_t *splits,
                        cudaStream_t stream) {
  auto smem = [&](int batch) {
    return batch * (sizeof(int) + sizeof(uint16_t)) + (kCandidates + 1) * shape.parts * sizeof(int);
  };
  cudaError_t status =
      cudaFuncSetAttribute(plan_kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, static_cast<int>(smem(kMaxPlanBatch)));
  if (status != cudaSuccess) return status;
  auto *parts = reinterpret_cast<PlanPart *>(tiles);
  PlanParams params = {seq_lens, parts, splits, reinterpret_cast<uint32_t *>(parts + shape.parts), shape.flags(), shape.batch,
                       shape.parts, shape.sequence_overhead, shape.split_overhead, shape.least_steps, shape.least_piece,
                       shape.rule};
  plan_kernel<<<1, kPlanThreads, smem(shape.batch), stream>>>(params);
  return cudaGetLastError();
}

}  // namespace mla::cuda
