// What the roles of the decode kernel share: parameters, shared memory, the walk over a part's sequences.
#pragma once

#include <cuda.h>
#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include <climits>

#include "decode_plan.cuh"
#include "sm90/barrier.cuh"
#include "sm90/tma.cuh"

namespace mla::cuda {

struct DecodeParams {
  const __nv_bfloat16 *q, *cache;  // what the maps are of, with their strides: of sequence, row; block, key
  int64_t q_stride, q_row_stride, block_stride, key_stride;
  const int32_t *block_table;
  int64_t table_stride;
  PlanTables plan;  // flags [parts, tiles]: 1 when the partial result that an earlier part takes in is there; its reader clears it
  __nv_bfloat16 *out;  // [batch, rows, 512]
  float *lse;          // [batch, heads, s_q]
  // Partial results, each normalised by its own sum: F16 times a power of two for each 64 columns of a row, by which the
  // largest of them gets close to F16's largest; so they are eight times finer than the BF16 output.
  __half *partial_out;   // [slots, rows, 512]
  float *partial_scale;  // [slots, rows, 8]
  float *partial_lse;    // [slots, rows], base 2; -inf where no key was seen
  uint8_t *joined;       // the same workspace for decode_join.cuh
  SplitRule rule;
  int most_splits;  // slots of a sequence, with a split rule
  int s_q, heads, rows;
  float scale_log2;  // softmax scale x log2(e)
  // In L2: queries, after they have been read; so many columns of the outputs.
  bool queries_stay;
  int staying_columns;
};

// Of the queries [batch, rows, 576], in boxes of 32 rows, and of the cache [blocks, 64, 576], in boxes of the rows of a step that
// a block of a cluster loads for all. Both boxes are whole rows, so that a stage of the ring is one copy. And those of
// decode_join.cuh.
struct DecodeMaps {
  CUtensorMap queries, cache, partials;
};

constexpr int kStepsPerBlock = kBlockTokens / kStepTokens;
constexpr int kStages = 5;
constexpr int kChunks = kHeadDim / 64;  // a stage: nine columns of 64 values, each 32 rows x 128 bytes, swizzled
constexpr int kChunkBytes = kStepTokens * 128;
constexpr int kStageBytes = kChunks * kChunkBytes;
// But a stage of keys is four times eight of them, each as nine atoms of 64 values, so that the blocks of a cluster can fill it by
// one copy each, and the distance of atoms is still even in both directions.
constexpr int kAtomKeys = 8;
constexpr int kAtomBytes = kAtomKeys * 128;
constexpr int kAtomRowBytes = kChunks * kAtomBytes;
constexpr int kSlots = 2;  // of P
constexpr int kRunsAhead = 32;  // runs of a part in shared memory
// Of the queries' 36 slices of 16 values, as many are held in registers as ptxas lets a role of 168 have (it wants 26
// beside the operands of wgmma); the others, the rope part among them, lie in shared memory.
constexpr int kRegisterSlices = 27;
constexpr int kLatentSlices = kValueDim / 16;
constexpr int kSmemSlices = kLatentSlices - kRegisterSlices;
constexpr int kSliceBytes = kTileRows * 32;
static_assert(kRegisterSlices == kHeadDim / 16 / 4 * 3, "three products in four take their queries from registers");
constexpr int kValueWarps = 8;
constexpr int kScoreWarps = 4;
constexpr uint32_t kJoinSync = 4;  // barrier id of both value warpgroups
constexpr int kValueColumns = 256;  // of O, for each of the two value warpgroups
constexpr int kDecodeThreads = 512;
static_assert(kTileRows == 2 * kStepTokens, "the queries of a tile travel as two steps' keys do");
static_assert(2 * kValueColumns == kValueDim, "two value warpgroups");

struct DecodeSmem {
  uint8_t stages[kStages][kStageBytes];
  uint8_t rope_queries[kTileRows * 128];   // swizzled
  uint8_t probabilities[kTileRows * 128];  // P: 64 rows x 2 slots of 32 keys, BF16, swizzled
  uint8_t query_slices[kSmemSlices][kSliceBytes];  // eight rows x 16 bytes contiguous, then the next 16 bytes of them
  float rescale[kSlots][kTileRows];
  int must_rescale[kSlots][kScoreWarps];  // for the 16 rows of each warp
  float inverse_sum[kTileRows];
  float lse2[kTileRows];  // base 2; only where value warps need it
  PlanPart part;
  PlanRun runs[kRunsAhead];  // the first of the part; by load its sequences
  uint64_t full[kStages], empty[kStages];
  uint64_t p_full[kSlots], p_empty[kSlots];
  uint64_t sum_full, sum_empty;
};
static_assert(sizeof(DecodeSmem) <= 227 * 1024, "shared memory of a block");

// Position in a ring of kSize places.
template <int kSize>
struct RingPosition {
  int place = 0;
  uint32_t parity = 0;
  __device__ void next() {
    if (++place == kSize) {
      place = 0;
      parity ^= 1;
    }
  }
};

// Consecutive steps of one sequence that give one result, partial or whole.
struct Share {
  int seq, length, first_step, end_step;
  bool continues;  // the share before is of the same sequence: its queries are still there
  __device__ bool empty() const { return first_step >= end_step; }
  __device__ bool takes_queries() const { return !empty() && !continues; }
  __device__ bool whole() const { return first_step == 0 && end_step * kStepTokens >= length; }
  // Where its partial result goes.
  __device__ int slot(const DecodeParams &p) const {
    if (p.rule.fixed()) return seq * p.most_splits + quotient(first_step, p.rule.split_steps(steps_of(length)));
    return first_step > 0 ? continued_slot(blockIdx.y) : starting_slot(blockIdx.y);
  }
};

// threadIdx.x, for what runs once in a while: hidden from the compiler, which would compute addresses ahead where there are no
// registers for them. To load what was spilled takes 1,000 cycles while keys stream in.
__device__ __forceinline__ int late_thread() {
  int thread = threadIdx.x;
  asm volatile("" : "+r"(thread));
  return thread & (kDecodeThreads - 1);  // not negative
}

// The first of the query rows of a thread's warp, in whatever role.
__device__ __forceinline__ int warp_row(int tile, int thread) { return tile * kTileRows + thread / 32 % 4 * kWarpRows; }

__device__ __forceinline__ int64_t lse_place(const DecodeParams &p, int seq, int row) {
  const int token = quotient(row, p.heads);
  return (static_cast<int64_t>(seq) * p.heads + row - token * p.heads) * p.s_q + token;
}

// Of a row's sum of weights relative to its maximum in units of S; 0 and -inf where no key was seen.
__device__ __forceinline__ float inverse_sum(float sum) { return sum > 0.0f ? 1.0f / sum : 0.0f; }
__device__ __forceinline__ float lse2_of(float maximum, float sum, float scale_log2) {
  return sum > 0.0f ? fmaf(maximum, scale_log2, log2f(sum)) : -INFINITY;
}

// How L2 treats this column of the outputs.
__device__ __forceinline__ uint64_t output_policy(const DecodeParams &p, int column) {
  return column < p.staying_columns ? sm90::evict_last_policy() : sm90::evict_normal_policy();
}

// The contract's log-sum-exp from one of base 2: a row that saw no key has +inf.
__device__ __forceinline__ float natural_lse(float lse2) {
  return lse2 == -INFINITY ? INFINITY : lse2 * 0.69314718055994531f;
}

// The power of two that brings `top`, the largest magnitude of some values, to [2^14, 2^15), and its inverse.
struct HalfScale {
  float up, down;
  __device__ explicit HalfScale(float top) {
    const uint32_t exponent = max(__float_as_uint(top) >> 23, 15u);
    up = __uint_as_float((268 - exponent) << 23);
    down = __uint_as_float((exponent - 14) << 23);
  }
};

__device__ __forceinline__ PlanRun ldg_run(const PlanRun *run) {
  const int4 v = __ldg(reinterpret_cast<const int4 *>(run));
  return {v.x, v.y, v.z, v.w};
}

// The i-th run of a part, or its last.
__device__ __forceinline__ PlanRun run_ahead(const DecodeParams &p, const PlanPart &part, int i) {
  return ldg_run(p.plan.runs + max(min(part.first + i, part.last), 0));
}

__device__ __forceinline__ PlanSequence ldg_sequence(const PlanSequence *sequence) {
  const int2 v = __ldg(reinterpret_cast<const int2 *>(sequence));
  return {v.x, v.y};
}

// How a part lists its work: by load, by the split rule, or as the call says.
enum class Walk { kByLoad, kByRule, kEither };

// Walks the shares of a part; every role walks by itself.
template <Walk kWalk>
class PartWalk {
 public:
  // `ahead`: the part's first runs in shared memory (DecodeSmem); for Walk::kEither null, each role waits for its loads.
  __device__ PartWalk(const PlanPart &part, const DecodeParams &p, const PlanRun *ahead)
      : part_(part), p_(p), ahead_(ahead), seq_(part.first_seq), step_(part.first_step), length_(part.first_len),
        end_(part.end_step), at_(part.first) {}
  __device__ bool done() const { return at_ > part_.last; }
  __device__ Share take() { return next(by_rule() ? p_.rule.split_steps(steps_of(length_)) : INT_MAX / 2); }
  // All that the part has of the next sequence as if it were one share.
  __device__ Share take_sequence() { return next(INT_MAX / 2); }

 private:
  __device__ bool by_rule() const { return kWalk == Walk::kEither ? p_.rule.fixed() : kWalk == Walk::kByRule; }
  __device__ Share next(int steps) {
    const int end = by_rule() ? end_ : at_ == part_.last ? part_.end_step : steps_of(length_);
    const Share share = {seq_, length_, step_, min(end, step_ + steps), continues_};
    step_ = share.end_step;
    continues_ = kWalk != Walk::kByLoad && step_ < end;  // by load a part has one share of a sequence
    if (continues_) return share;
    ++at_;
    if (done()) return share;
    const PlanRun *ahead = kWalk != Walk::kEither && at_ - part_.first < kRunsAhead ? ahead_ + (at_ - part_.first) : nullptr;
    if (by_rule()) {
      const PlanRun run = ahead != nullptr ? *ahead : ldg_run(p_.plan.runs + at_);
      seq_ = run.seq, length_ = run.length, step_ = run.first_step, end_ = run.end_step;
    } else {
      const PlanSequence next = ahead != nullptr ? PlanSequence{ahead->seq, ahead->length} : ldg_sequence(p_.plan.sequences + at_);
      seq_ = next.seq, length_ = next.length, step_ = 0;
    }
    return share;
  }

  const PlanPart &part_;
  const DecodeParams &p_;
  const PlanRun *ahead_;
  int seq_, step_, length_;  // where the next share starts
  int end_;                  // by rule: of this run
  int at_;                   // in the list of runs, or sequences
  bool continues_ = false;
};

using ShareWalk = PartWalk<Walk::kEither>;

// Tells every block of the cluster that this warp is done with a place of a ring: each block feeds the rings of all.
template <int kCluster>
__device__ __forceinline__ void release(const uint64_t &empty, uint32_t arrivals) {
  if constexpr (kCluster == 1) {
    sm90::barrier_arrive(sm90::smem_address(&empty), arrivals);
  } else {
#pragma unroll
    for (uint32_t rank = 0; rank < kCluster; ++rank) {
      sm90::barrier_arrive_remote(sm90::smem_address(&empty), rank, arrivals);
    }
  }
}

}  // namespace mla::cuda
