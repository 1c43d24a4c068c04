// The plan by load shares the steps of all sequences out among parts of equal cost. The costs of the sequences are laid end to
// end on one axis, in an order in which few are cut (decode_plan_order.cu) or as they come: an overhead for the queries and outputs
// of each, then its steps. It is cut at equal distances, but not close to a sequence's ends.

#include <cuda_runtime.h>

#include "decode_plan.cuh"
#include "decode.h"
#include "decode_plan_scan.cuh"

namespace mla::cuda {
namespace {

struct PlanParams {
  const int32_t *seq_lens;
  PlanTables tables;
  bool ordered;  // tables.sequences are there already
  int32_t *splits;
  int flag_count;  // of tables.flags, to be cleared
  int batch, part_count, overhead, least, least_piece;
};

// A place on the cost axis where it may be cut: before step `step` of the sequence in place `seq` of the order.
struct Cut {
  int position, seq, step;
};

// The cost axis.
struct Axis {
  PlanParams p;
  const int *ends;  // of each sequence

  __device__ int total() const { return ends[p.batch - 1]; }
  __device__ int begin(int seq) const { return seq == 0 ? 0 : ends[seq - 1]; }
  __device__ int seq_at(int position, int first) const { return first_beyond(ends, first, p.batch, position); }
  // The cut at `position`.
  __device__ Cut cut_at(int position) const {
    const int seq = seq_at(position, 0);
    if (seq == p.batch || position == begin(seq)) return {position, seq, 0};
    return {position, seq, position - begin(seq) - p.overhead};
  }
  // Where to cut close to `position`. What is cut off a sequence shall have p.least_piece steps, if a part has eight times as
  // many.
  __device__ int place_near(int position, int part_cost) const {
    const int seq = seq_at(position, 0), least = min(p.least_piece, part_cost / 8);
    if (seq == p.batch) return total();
    if (position - begin(seq) - p.overhead < max(least, 1)) return begin(seq);
    return ends[seq] - position < least ? ends[seq] : position;
  }
};

__global__ void __launch_bounds__(kPlanThreads) plan_kernel(PlanParams p) {
  extern __shared__ int ends[];
  __shared__ int totals[kPlanThreads / 32];
  int *cuts = ends + p.batch;
  int *jobs = cuts + p.part_count;  // prefix sum of the parts in which a cut sequence starts
  PlanSequence *sequences = p.tables.sequences;
  for (int b = threadIdx.x; b < p.batch; b += kPlanThreads) {
    if (!p.ordered) sequences[b] = {b, p.seq_lens[b]};
    ends[b] = p.overhead + steps_of(sequences[b].length);
  }
  __syncthreads();
  prefix_sum(ends, p.batch, totals);

  const Axis axis = {p, ends};
  // Parts of whole steps as a rule: where they are short, fewer parts are as quick and leave less to be joined.
  const int whole = max((axis.total() + p.part_count - 1) / p.part_count, p.least);
  const int span = p.ordered ? axis.total() : whole * p.part_count;
  for (int part = threadIdx.x; part < p.part_count; part += kPlanThreads) {
    cuts[part] = axis.place_near(part_end(span, part, p.part_count), span / p.part_count);
  }
  __syncthreads();

  auto cut_after = [&](int part) { return part < 0 ? Cut{0, 0, 0} : axis.cut_at(cuts[part]); };
  // Parts that have the first and the last step of a sequence.
  auto part_of = [&](int position) { return first_beyond(cuts, 0, p.part_count, position); };
  auto first_part = [&](int b) { return part_of(min(axis.begin(b) + p.overhead, ends[b] - 1)); };
  auto last_part = [&](int b) { return part_of(ends[b] - 1); };
  // At most one cut sequence starts in a part: its last.
  auto cut_here = [&](const Cut &to, int part) { return to.step > 0 && first_part(to.seq) == part; };
  for (int part = threadIdx.x; part < p.part_count; part += kPlanThreads) {
    const Cut from = cut_after(part - 1), to = cut_after(part);
    PlanPart row = {};
    row.first = from.seq;
    row.last = to.step > 0 ? to.seq : to.seq - 1;
    row.first_step = from.step;
    if (row.first <= row.last) {
      row.first_seq = sequences[row.first].seq;
      row.first_len = sequences[row.first].length;
      row.end_step = to.step > 0 ? to.step : steps_of(sequences[row.last].length);
    }
    if (from.step > 0) row.splits_before = part - first_part(from.seq);
    if (to.step > 0) row.splits_after = last_part(to.seq) - part;
    p.tables.parts[part] = row;
    p.tables.jobs[part] = {};
    jobs[part] = cut_here(to, part);
  }
  __syncthreads();
  prefix_sum(jobs, p.part_count, totals);
  for (int part = threadIdx.x; part < p.part_count; part += kPlanThreads) {
    const Cut to = cut_after(part);
    if (!cut_here(to, part)) continue;
    p.tables.jobs[jobs[part] - 1] = {sequences[to.seq].seq, static_cast<int16_t>(last_part(to.seq) - part + 1),
                                     static_cast<int16_t>(part)};
  }
  for (int b = threadIdx.x; b < p.batch; b += kPlanThreads) {
    p.splits[sequences[b].seq + 1] = last_part(b) - first_part(b) + 1;
  }
  for (int i = threadIdx.x; i < p.flag_count; i += kPlanThreads) p.tables.flags[i] = 0;
  if (threadIdx.x == 0) p.splits[0] = 0;
  __syncthreads();
  prefix_sum(p.splits + 1, p.batch, totals);
  __threadfence();  // mla_decode reads the plan before it waits for the kernel before it
}

}  // namespace

cudaError_t launch_plan(const DecodeShape &shape, const int32_t *seq_lens, int32_t *tiles, int32_t *splits,
                        cudaStream_t stream) {
  if (shape.rule.fixed()) return launch_rule_plan(shape, seq_lens, tiles, splits, stream);
  auto smem = [&](int batch) { return (batch + 2 * shape.parts) * sizeof(int); };
  cudaError_t status =
      cudaFuncSetAttribute(plan_kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, static_cast<int>(smem(kMaxPlanBatch)));
  if (status != cudaSuccess) return status;
  PlanParams params = {seq_lens, shape.tables(tiles), shape.ordered, splits, shape.flags(), shape.batch, shape.parts,
                       shape.sequence_overhead + shape.split_overhead, shape.least_steps, shape.least_piece};
  if (shape.ordered) {
    status = launch_order(shape, seq_lens, params.tables.sequences, stream);
    if (status != cudaSuccess) return status;
  }
  plan_kernel<<<1, kPlanThreads, smem(shape.batch), stream>>>(params);
  return cudaGetLastError();
}

}  // namespace mla::cuda
