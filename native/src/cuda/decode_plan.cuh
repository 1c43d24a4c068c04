// The tile plan of a decode call: which steps of which sequences each worker takes. See docs/kernels.md.
#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>

namespace mla::cuda {

constexpr int kBlockTokens = 64;
constexpr int kStepTokens = 32;  // the kernels work and the plan counts in steps of so many keys
constexpr int kWarpRows = 16;  // of a tile
constexpr int kTileRows = 64;  // query rows (s_q x heads) of one thread block
constexpr int kHeadDim = 576;  // latent and rope part of a key
constexpr int kValueDim = 512;
constexpr int kScaleColumns = 64;  // of a partial result have one scale
constexpr int kScales = kValueDim / kScaleColumns;
constexpr int kPartialRowFloats = kValueDim / 2 + kScales + 1;  // of the workspace, for a row of a partial result: F16, scales, log-sum-exp

// The steps that `length` keys take.
__host__ __device__ constexpr int steps_of(int length) { return (length + kStepTokens - 1) / kStepTokens; }

// a / b of 0 <= a < 2^20, b > 0. By way of float: the integer division of the device takes 150 cycles, and where a share
// begins and ends one waits for several. (a + 0.5) / b is too far from an integer for the error to matter.
__host__ __device__ inline int quotient(int a, int b) {
#ifdef __CUDA_ARCH__
  return __float2int_rz(__fdividef(static_cast<float>(a) + 0.5f, static_cast<float>(b)));
#else
  return a / b;
#endif
}
__host__ __device__ inline int quotient_up(int a, int b) { return quotient(a + b - 1, b); }

// How the deterministic plan splits a sequence, by its own length alone, so that its result does not depend on its
// neighbours: one of up to short_steps not at all, one of up to short_splits x long_steps evenly into up to short_splits of about
// short_steps or more, a longer one into splits of long_steps and what is left over. All zero: the plan cuts wherever the load of the
// workers asks for it.
struct SplitRule {
  int short_steps, short_splits, long_steps;

  __host__ __device__ bool fixed() const { return long_steps > 0; }
  // Steps of each split but the last, which may have fewer; at least 1. Splits begin at a cache block.
  __host__ __device__ int split_steps(int steps) const {
    if (steps <= short_steps) return steps > 1 ? steps : 1;
    int few = quotient_up(steps, short_steps);
    few = few < short_splits ? few : short_splits;
    return steps > few * long_steps ? long_steps : quotient_up(steps, 2 * few) * 2;
  }
  // At least 1: an empty sequence is one empty split.
  __host__ __device__ int splits(int steps) const {
    return steps == 0 ? 1 : quotient_up(steps, split_steps(steps));
  }
  // No sequence of up to `steps` has more splits.
  __host__ __device__ int most_splits(int steps) const {
    if (steps <= short_steps) return 1;
    const int many = quotient_up(steps, long_steps);
    return many > short_splits ? many : short_splits;
  }
};

// Consecutive steps of one sequence in one part; by the split rule they are whole splits.
struct alignas(16) PlanRun {
  int32_t seq, length, first_step, end_step;
};

// By load: a sequence, in the order in which the plan lays them end to end.
struct alignas(8) PlanSequence {
  int32_t seq, length;
};

// A sequence of several splits, which are to be joined; by load also the part that has the first of them.
struct alignas(8) PlanJob {
  int32_t seq;
  int16_t splits, first_part;
};

// One row of `tiles`: the work of one worker (the thread blocks that share a part), `first` to `last` of a list behind the rows, of
// sequences or by the split rule of runs; nothing when first > last. The first of them is in the row as well. By load, a part begins
// with first_step of its first sequence and ends before end_step of its last; splits_before of the first sequence lie before the
// part, splits_after of the last behind it.
struct alignas(16) PlanPart {
  int32_t first, last;
  int32_t first_seq, first_len, first_step;
  int32_t end_step;  // by the split rule, of the first run
  int32_t splits_before, splits_after;
};
static_assert(sizeof(PlanPart) == 32, "a row of tiles is eight int32");

// What `tiles` holds: a row for each part; behind them by load the sequences, as many jobs as parts and the flags (DecodeParams), by
// the split rule the runs and as many jobs as sequences. Jobs are in any order; the first of no splits ends them.
struct PlanTables {
  PlanPart *parts;
  PlanSequence *sequences;
  PlanRun *runs;
  PlanJob *jobs;
  uint32_t *flags;
};

// Places of partial results in the workspace. A part of the plan by load writes at most two: of a sequence that came
// from the part before, and of one that goes on in the next. With a split rule each split of a sequence has its own.
__host__ __device__ constexpr int continued_slot(int part) { return 2 * part; }
__host__ __device__ constexpr int starting_slot(int part) { return 2 * part + 1; }

}  // namespace mla::cuda
