// The deterministic plan: shares out splits that follow from the lengths alone (SplitRule) so that the parts cost alike. Which
// part has a split does not matter for its result, so any part may have any. First the splits of full size, consecutive ones
// to a part, since those of one sequence share its queries; then the others one by one, the longest first, each to the part
// that has least so far.

#include <cuda_runtime.h>

#include "decode.h"
#include "decode_plan.cuh"
#include "decode_plan_scan.cuh"

namespace mla::cuda {
namespace {

constexpr int kMostSteps = 511;  // of a split that is not of full size
constexpr int kGreedy = 384;     // of those, so many, the shortest, go to the part that has least; the others are dealt out
constexpr int kLaneParts = 5;
constexpr int kMostParts = 32 * kLaneParts;
constexpr int kPartBits = 9;
static_assert(kMostParts <= 1 << kPartBits && kMostParts <= kGreedy);

struct RulePlanParams {
  const int32_t *seq_lens;
  PlanPart *parts;
  PlanRun *runs;
  PlanJob *jobs;
  int32_t *splits;
  int batch, part_count, sequence_overhead, split_overhead;
  SplitRule rule;
};

// A sequence's splits; those of full size come first.
struct Splitting {
  int steps, each, splits, full;
  __device__ Splitting(const SplitRule &rule, int length)
      : steps(steps_of(length)), each(rule.split_steps(steps)), splits(rule.splits(steps)),
        full(each == rule.long_steps ? quotient(steps, each) : 0) {}
  __device__ int first_step(int split) const { return split * each; }
  __device__ int end_step(int split) const { return min(first_step(split) + each, steps); }
  __device__ int steps_in(int split) const { return end_step(split) - first_step(split); }
};

struct Smem {
  int totals[kPlanThreads / 32];
  int rank_ends[kMostSteps + 1];  // how many of the splits that are not of full size have kMostSteps - i steps or more
  int load[kMostParts], runs[kMostParts], run_ends[kMostParts];  // of each part; run_ends: prefix sum of the runs
  uint16_t part[kGreedy];   // of each of the last splits
  uint16_t place[kGreedy];  // how many of them the same part has before it
  int jobs;
};

// The plan of one call; splits that are not of full size are known by their rank, the longest first.
struct RulePlan {
  RulePlanParams p;
  Smem &s;
  int *full_ends;  // prefix sum of the sequences' splits of full size
  int count = 0;   // of the others
  int dealt = 0;   // of these, so many are dealt out back and forth, a multiple of the parts

  __device__ Splitting splitting(int seq) const { return Splitting(p.rule, p.seq_lens[seq]); }
  __device__ int full_begin(int seq) const { return seq == 0 ? 0 : full_ends[seq - 1]; }
  __device__ int cost(int steps) const { return steps + p.sequence_overhead + p.split_overhead; }
  __device__ int dealt_part(int rank) const {
    const int at = rank % p.part_count;
    return rank / p.part_count % 2 == 0 ? at : p.part_count - 1 - at;
  }

  // take(seq, first split, end split) for each sequence of which the part has splits of full size.
  template <typename Take>
  __device__ void each_full(int part, Take take) const {
    const int64_t all = full_ends[p.batch - 1];
    int at = static_cast<int>(all * part / p.part_count);
    const int end = static_cast<int>(all * (part + 1) / p.part_count);
    for (int seq = first_beyond(full_ends, 0, p.batch, at); at < end; ++seq) {
      const int to = min(end, full_ends[seq]);
      if (at < to) take(seq, at - full_begin(seq), to - full_begin(seq));
      at = max(at, to);
    }
  }

  // By one warp: gives the splits from rank `dealt` on to the parts, each to the one that has least.
  __device__ void hand_out() const {
    const int lane = threadIdx.x;
    uint32_t keys[kLaneParts];  // a part's load, then its number
    int taken[kLaneParts] = {};
#pragma unroll
    for (int i = 0; i < kLaneParts; ++i) {
      const int part = i * 32 + lane;
      keys[i] = part < p.part_count ? static_cast<uint32_t>(s.load[part]) << kPartBits | part : ~0u;
    }
    int shorter = 0;  // steps less than kMostSteps
    for (int rank = dealt; rank < count; ++rank) {
      while (s.rank_ends[shorter] <= rank) ++shorter;
      uint32_t least = keys[0];
#pragma unroll
      for (int i = 1; i < kLaneParts; ++i) least = min(least, keys[i]);
      least = __reduce_min_sync(~0u, least);
#pragma unroll
      for (int i = 0; i < kLaneParts; ++i) {
        if (keys[i] != least) continue;
        s.part[rank - dealt] = i * 32 + lane;
        s.place[rank - dealt] = taken[i]++;
        keys[i] += static_cast<uint32_t>(cost(kMostSteps - shorter)) << kPartBits;
      }
    }
#pragma unroll
    for (int i = 0; i < kLaneParts; ++i) {
      if (i * 32 + lane < p.part_count) s.run_ends[i * 32 + lane] += taken[i];
    }
  }
};

__global__ void __launch_bounds__(kPlanThreads) rule_plan_kernel(RulePlanParams p) {
  extern __shared__ int full_ends[];
  __shared__ Smem s;
  const int thread = threadIdx.x;
  RulePlan plan = {p, s, full_ends};

  for (int i = thread; i <= kMostSteps; i += kPlanThreads) s.rank_ends[i] = 0;
  if (thread == 0) s.jobs = p.splits[0] = 0;
  __syncthreads();
  for (int b = thread; b < p.batch; b += kPlanThreads) {
    const Splitting splitting = plan.splitting(b);
    full_ends[b] = splitting.full;
    p.splits[b + 1] = splitting.splits;
    if (splitting.splits > 1) p.jobs[atomicAdd(&s.jobs, 1)] = {b, static_cast<int16_t>(splitting.splits), 0};
    for (int i = splitting.full; i < splitting.splits; ++i) atomicAdd(&s.rank_ends[kMostSteps - splitting.steps_in(i)], 1);
  }
  __syncthreads();
  prefix_sum(full_ends, p.batch, s.totals);
  prefix_sum(p.splits + 1, p.batch, s.totals);
  prefix_sum(s.rank_ends, kMostSteps + 1, s.totals);
  plan.count = s.rank_ends[kMostSteps];
  plan.dealt = max(plan.count - kGreedy + p.part_count - 1, 0) / p.part_count * p.part_count;

  for (int part = thread; part < p.part_count; part += kPlanThreads) {
    int load = 0, runs = 0;
    plan.each_full(part, [&](int, int first, int end) {
      load += p.sequence_overhead + (end - first) * (p.rule.long_steps + p.split_overhead);
      ++runs;
    });
    s.load[part] = load;
    s.runs[part] = runs;  // before the others
    s.run_ends[part] = runs + plan.dealt / p.part_count;
  }
  __syncthreads();
  for (int rank = thread; rank < plan.dealt; rank += kPlanThreads) {
    const int shorter = first_beyond(s.rank_ends, 0, kMostSteps + 1, rank);
    atomicAdd(&s.load[plan.dealt_part(rank)], plan.cost(kMostSteps - shorter));
  }
  __syncthreads();
  if (thread < 32) plan.hand_out();
  __syncthreads();
  prefix_sum(s.run_ends, p.part_count, s.totals);

  auto first_run = [&](int part) { return part == 0 ? 0 : s.run_ends[part - 1]; };
  for (int part = thread; part < p.part_count; part += kPlanThreads) {
    PlanRun *run = p.runs + first_run(part);
    plan.each_full(part, [&](int seq, int first, int end) {
      *run++ = {seq, p.seq_lens[seq], first * p.rule.long_steps, end * p.rule.long_steps};
    });
  }
  for (int b = thread; b < p.batch; b += kPlanThreads) {
    const Splitting splitting = plan.splitting(b);
    for (int i = splitting.full; i < splitting.splits; ++i) {
      // Which of equal ones comes first is open.
      const int rank = atomicSub(&s.rank_ends[kMostSteps - splitting.steps_in(i)], 1) - 1, last = rank - plan.dealt;
      const int part = last < 0 ? plan.dealt_part(rank) : s.part[last];
      const int place = last < 0 ? rank / p.part_count : plan.dealt / p.part_count + s.place[last];
      p.runs[first_run(part) + s.runs[part] + place] = {b, p.seq_lens[b], splitting.first_step(i), splitting.end_step(i)};
    }
  }
  __syncthreads();
  for (int part = thread; part < p.part_count; part += kPlanThreads) {
    PlanPart row = {};
    row.first = first_run(part);
    row.last = s.run_ends[part] - 1;
    if (row.first <= row.last) {
      const PlanRun run = p.runs[row.first];
      row.first_seq = run.seq;
      row.first_len = run.length;
      row.first_step = run.first_step;
      row.end_step = run.end_step;
    }
    p.parts[part] = row;
  }
  for (int i = s.jobs + thread; i < p.batch; i += kPlanThreads) p.jobs[i] = {};
  __threadfence();  // mla_decode reads the plan before it waits for the kernel before it
}

}  // namespace

cudaError_t launch_rule_plan(const DecodeShape &shape, const int32_t *seq_lens, int32_t *tiles, int32_t *splits,
                             cudaStream_t stream) {
  const SplitRule &rule = shape.rule;
  if (shape.parts > kMostParts || rule.long_steps > kMostSteps) return cudaErrorInvalidValue;
  cudaError_t status = cudaFuncSetAttribute(rule_plan_kernel, cudaFuncAttributeMaxDynamicSharedMemorySize,
                                            kMaxPlanBatch * static_cast<int>(sizeof(int)));
  if (status != cudaSuccess) return status;
  const PlanTables tables = shape.tables(tiles);
  RulePlanParams params = {seq_lens, tables.parts, tables.runs, tables.jobs, splits, shape.batch, shape.parts,
                           shape.sequence_overhead, shape.split_overhead, rule};
  rule_plan_kernel<<<1, kPlanThreads, shape.batch * sizeof(int), stream>>>(params);
  return cudaGetLastError();
}

}  // namespace mla::cuda
