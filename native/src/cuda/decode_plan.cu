// Shares the steps of all sequences out among parts of equal cost. The costs of the sequences are laid end to end on one
// axis. The plan by load cuts that axis every `budget`, or at the end of a sequence close by; a sequence costs its steps
// and a fixed overhead for its queries and outputs. The plan by length (deterministic) cuts it only between splits.

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

// The first i of [0, count) with ends[i] > position, or count.
__device__ int first_beyond(const int *ends, int count, int position) {
  int low = 0, high = count;
  while (low < high) {
    int middle = (low + high) / 2;
    if (ends[middle] > position) high = middle;
    else low = middle + 1;
  }
  return low;
}

__global__ void __launch_bounds__(kPlanThreads) plan_by_load_kernel(PlanParams p) {
  extern __shared__ int ends[];  // end of each sequence on the cost axis
  __shared__ int totals[kPlanThreads / 32];
  int *cuts = ends + p.batch;            // where each part ends
  int *jobs = cuts + p.part_count;       // prefix sum of the parts in which a cut sequence starts
  for (int b = threadIdx.x; b < p.batch; b += kPlanThreads) ends[b] = steps_of(p.seq_lens[b]) + p.overhead + p.split_overhead;
  __syncthreads();
  prefix_sum(ends, p.batch, totals);
  const int budget = max((ends[p.batch - 1] + p.part_count - 1) / p.part_count, p.least);
  const int least_piece = min(p.least_piece, budget / 8);

  // A sequence's steps are the last of its interval; an empty sequence stands at its interval's last place.
  auto first_place = [&](int b) { return ends[b] - max(steps_of(p.seq_lens[b]), 1); };
  auto part_of = [&](int position) { return first_beyond(cuts, p.part_count, position); };
  auto last_part = [&](int b) { return part_of(ends[b] - 1); };

  for (int part = threadIdx.x; part < p.part_count; part += kPlanThreads) {
    int cut = (part + 1) * budget;
    const int b = first_beyond(ends, p.batch, cut);
    if (b < p.batch) {
      if (cut - first_place(b) < least_piece) cut = b == 0 ? 0 : ends[b - 1];
      else if (ends[b] - cut < least_piece) cut = ends[b];
    }
    cuts[part] = cut;
  }
  __syncthreads();

  // At most one cut sequence starts in a part: its last.
  auto cut_here = [&](const PlanPart &row, int part) {
    const int begin = part == 0 ? 0 : cuts[part - 1];
    return row.first_seq <= row.last_seq && first_place(row.last_seq) >= begin && last_part(row.last_seq) > part;
  };
  for (int part = threadIdx.x; part < p.part_count; part += kPlanThreads) {
    const int begin = part == 0 ? 0 : cuts[part - 1], end = cuts[part];
    PlanPart row = {};
    row.first_seq = first_beyond(ends, p.batch, begin);
    row.last_seq = min(first_beyond(ends, p.batch, end), p.batch - 1);
    if (first_place(row.last_seq) >= end) --row.last_seq;
    row.combine_seq = -1;
    if (row.first_seq <= row.last_seq) {
      row.first_len = p.seq_lens[row.first_seq];
      row.first_step = max(0, begin - first_place(row.first_seq));
      row.end_step = min(steps_of(p.seq_lens[row.last_seq]), end - first_place(row.last_seq));
    }
    p.parts[part] = row;
    jobs[part] = cut_here(row, part);
  }
  __syncthreads();
  prefix_sum(jobs, p.part_count, totals);
  for (int part = threadIdx.x; part < p.part_count; part += kPlanThreads) {
    const PlanPart &row = p.parts[part];
    if (!cut_here(row, part)) continue;
    PlanPart &job = p.parts[jobs[part] - 1];
    job.combine_seq = row.last_seq;
    job.combine_splits = last_part(row.last_seq) - part + 1;
    job.combine_part = part;
  }

  for (int b = threadIdx.x; b < p.batch; b += kPlanThreads) {
    p.splits[b + 1] = last_part(b) - part_of(first_place(b)) + 1;
  }
  if (threadIdx.x == 0) p.splits[0] = 0;
  __syncthreads();
  prefix_sum(p.splits + 1, p.batch, totals);
  __threadfence();  // mla_decode reads the plan before it waits for the kernel before it
}

// A cut between two splits: where it lies on the cost axis, and what it is there.
struct Cut {
  int position, seq, step;
};

// The cost axis of a plan by length: a sequence costs an overhead for its queries, and each split its steps and an
// overhead for its outputs.
struct SplitAxis {
  const int *ends;  // of each sequence
  PlanParams p;

  __device__ int total() const { return ends[p.batch - 1]; }
  // The last cut at or before `position`, which lies in sequence `seq` or a later one.
  __device__ Cut cut_before(int position, int seq) const {
    if (position >= total()) return {total(), p.batch, 0};
    while (ends[seq] <= position) ++seq;
    const int begin = seq == 0 ? 0 : ends[seq - 1], chunk = p.rule.split_steps(steps_of(p.seq_lens[seq]));
    const int cost = chunk + p.split_overhead, splits = quotient(max(position - begin - p.overhead, 0), cost);
    return {splits == 0 ? begin : begin + p.overhead + splits * cost, seq, splits * chunk};
  }
};

// A split is never cut, so the parts are what costs least at its worst: the smallest budget with which taking splits in
// order, for each part as many as fit, gets through all of them. Candidates are tried side by side, a thread each.
__global__ void __launch_bounds__(kPlanThreads) plan_by_length_kernel(PlanParams p) {
  constexpr int kCandidates = 128;
  extern __shared__ int ends[];
  __shared__ int totals[kPlanThreads / 32];
  __shared__ int largest, budget;
  if (threadIdx.x == 0) largest = 0;
  __syncthreads();
  for (int b = threadIdx.x; b < p.batch; b += kPlanThreads) {
    const int steps = steps_of(p.seq_lens[b]), splits = p.rule.splits(steps);
    ends[b] = p.overhead + steps + splits * p.split_overhead;
    p.splits[b + 1] = splits;
    atomicMax(&largest, p.rule.split_steps(steps) + p.split_overhead + p.overhead);
  }
  if (threadIdx.x == 0) p.splits[0] = 0;
  __syncthreads();
  prefix_sum(ends, p.batch, totals);
  prefix_sum(p.splits + 1, p.batch, totals);

  const SplitAxis axis = {ends, p};
  const int even = (axis.total() + p.part_count - 1) / p.part_count;
  const int lowest = max(even, largest), highest = even + largest;  // the latter always suffices
  if (threadIdx.x == 0) budget = highest;
  __syncthreads();
  if (threadIdx.x < kCandidates) {
    const int candidate = lowest + (highest - lowest) * static_cast<int>(threadIdx.x) / kCandidates;
    Cut cut = {0, 0, 0};
    for (int part = 0; part < p.part_count && cut.position < axis.total(); ++part) {
      cut = axis.cut_before(cut.position + candidate, cut.seq);
    }
    if (cut.position == axis.total()) atomicMin(&budget, candidate);
  }
  __syncthreads();
  if (threadIdx.x > 0) return;
  Cut from = {0, 0, 0};
  for (int part = 0; part < p.part_count; ++part) {
    const Cut to = axis.cut_before(from.position + budget, from.seq);
    PlanPart row = {};
    row.combine_seq = -1;
    row.first_seq = from.seq;
    row.first_step = from.step;
    row.last_seq = to.step > 0 ? to.seq : to.seq - 1;
    row.end_step = to.step;
    if (row.first_seq <= row.last_seq) {
      row.first_len = p.seq_lens[row.first_seq];
      if (to.step == 0) row.end_step = steps_of(p.seq_lens[row.last_seq]);
    }
    p.parts[part] = row;
    from = to;
  }
  __threadfence();  // mla_decode reads the plan before it waits for the kernel before it
}

}  // namespace

cudaError_t launch_plan(const DecodeShape &shape, const int32_t *seq_lens, int32_t *tiles, int32_t *splits,
                        cudaStream_t stream) {
  const size_t smem = sizeof(int) * (shape.batch + 2 * shape.parts);
  auto kernel = shape.rule.fixed() ? plan_by_length_kernel : plan_by_load_kernel;
  cudaError_t status = cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize,
                                            (kMaxPlanBatch + 2 * shape.parts) * sizeof(int));
  if (status != cudaSuccess) return status;
  PlanParams params = {seq_lens, reinterpret_cast<PlanPart *>(tiles), splits, shape.batch, shape.parts,
                       shape.sequence_overhead, shape.split_overhead, shape.least_steps, shape.least_piece, shape.rule};
  kernel<<<1, kPlanThreads, smem, stream>>>(params);
  return cudaGetLastError();
}

}  // namespace mla::cuda
