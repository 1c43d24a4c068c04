// What the roles of decode_team_kernel.cuh share: shared memory, and how cache blocks are numbered.
#pragma once

#include <type_traits>

#include "decode_kernel.cuh"
#include "decode_team.h"

namespace mla::cuda::team {

// What a row's weights of a cache block come with: factors for what was accumulated before each of its two steps, the maximum then
// in use, and for each of a row's four lanes the sum of its weights of either step. The first row of a warp tells whether a factor
// is not 1 for one of its rows.
struct alignas(16) RowNote {
  float rescale[2], maximum;
  int moves;
  float sums[2][4];
};

// Sixteen query rows, in columns of 64 values. A stage of keys has room for those of two warps.
constexpr int kGroupBytes = kChunks * kWarpRows * 128, kQueryGroups = kStageBytes / kGroupBytes;
static_assert(kQueryGroups == 2);

// What score warps that have query rows as columns need besides (decode_team_across.cuh).
struct AcrossSmem {
  static constexpr int kWeightFloats = kWarpRows + 4;  // so that eight keys' lie in different banks
  uint8_t queries[kGroupBytes];
  float tops[kScoreWarps][kWarpRows];          // maxima over a warp's sixteen keys
  float weights[kBlockTokens][kWeightFloats];  // before they are rounded
};
struct NoAcrossSmem {};

// P of a cache block: 64 keys a row, BF16, swizzled; and what comes with it. The products read 64 rows: what is not P is not used.
template <int kRows>
struct alignas(1024) WeightsPlace {
  uint8_t weights[kRows * 128];
  RowNote notes[kRows];
};
template <int kRows>
constexpr int kWeightsBytes = kRows * (128 + sizeof(RowNote));

template <int kBlocks, int kRows>
struct TeamSmem {
  static constexpr bool kAcross = kRows == kWarpRows;
  static constexpr int kColumns = kValueDim / kBlocks;  // of O
  // As many as there is room for. Few rows leave more of it: then nobody waits for a place of P.
  static constexpr int kPlaces = kRows == kTileRows ? 8 : 2 * kBlocks;  // of P
  static constexpr int kValueStages = kRows == kTileRows ? 3 : kBlocks == 8 ? 8 : 6;
  static constexpr int kAtOnce = kBlocks == 8 ? 2 : 1;  // cache blocks of which P V is computed with one wait, if there are as many
  static constexpr int kTopPlaces = 4 * kBlocks;  // of maxima: nobody is further ahead of another's
  static_assert(kTopPlaces >= 2 * kBlocks + kPlaces && kPlaces >= kValueStages && kPlaces % kBlocks == 0);
  static constexpr int kQueryReaders = kAcross ? kScoreWarps * 32 : kQueryGroups * 32;

  // Both steps of a cache block, in atoms. The queries of warps 2 and 3 come through the second's place, before its keys.
  uint8_t keys[kStepsPerBlock][kStageBytes];
  union {
    uint8_t values[kValueStages][kBlockTokens * kColumns * 2];  // of a cache block, columns of 64 values
    uint8_t queries[kQueryGroups][kGroupBytes];                 // of warps 0 and 1, where they go into registers
  };
  WeightsPlace<kRows> places[kPlaces];
  std::conditional_t<kAcross, AcrossSmem, NoAcrossSmem> across;
  float4 tops[kTopPlaces][kRows / 2];  // maxima of two rows, r and r + 8 of sixteen, for either of both steps
  PlanPart part;
  PlanRun runs[kRunsAhead];  // the first of the part
  uint64_t keys_full[kStepsPerBlock], keys_empty[kStepsPerBlock];
  uint64_t queries_full, queries_read;
  uint64_t values_full[kValueStages], values_empty[kValueStages];
  uint64_t ready[kValueStages];  // for the products of P V, of kAtOnce cache blocks
  int rescales[kValueStages];    // whether those rescale
  uint64_t tops_full[kTopPlaces];
  // Of each block's own places: the score warps have filled it, all blocks are done with it.
  uint64_t weights_ready[kPlaces], weights_free[kPlaces];
  uint64_t weights_full[kPlaces];
};

using RuleWalk = PartWalk<Walk::kByRule>;

// The cache blocks of a share: a split begins with one.
__device__ __forceinline__ int units_of(const Share &share) {
  return (share.end_step - share.first_step + kStepsPerBlock - 1) / kStepsPerBlock;
}

// The first number from `unit` on that belongs to the block of this rank.
template <int kBlocks>
__device__ __forceinline__ uint32_t first_own(uint32_t unit, uint32_t rank) {
  return unit + (rank - unit) % kBlocks;
}

// Lets the blocks of a team begin with S one after the other. Else all of them compute S, then all P, then P V of all: now S of one
// takes turns with P V of others, and nobody needs the last block's P first.
template <int kRows>
__device__ __forceinline__ void begin_in_turn(uint32_t rank) {
  constexpr uint32_t kCycles = kRows == kTileRows ? 600 : 150;  // measured: docs/kernels.md
  const uint32_t begin = clock();
  while (static_cast<uint32_t>(clock()) - begin < rank * kCycles) {
  }
  __syncwarp();
}

// How often each place for a step has been filled: the parity of its next use.
struct KeyUses {
  uint32_t parity[kStepsPerBlock] = {};
};

// The running maxima of kPairs pairs of rows, as decode_score.cuh's Weigher moves them: upper rows, then those eight below.
template <int kPairs>
struct Maxima {
  float of[2 * kPairs], threshold;
  __device__ explicit Maxima(float scale_log2) : threshold(kMaximumSlack / scale_log2) {
#pragma unroll
    for (float &maximum : of) maximum = -INFINITY;
  }
  __device__ bool grows(int i, float top) const { return top > of[i] + threshold; }
  __device__ void take(int i, float top) { of[i] = grows(i, top) ? top : of[i]; }
  // Returns the factor for what was accumulated before, 1 where there is nothing.
  __device__ float take_and_rescale(int i, float top, float scale_log2) {
    const float before = of[i], factor = sm90::exp2_approx((before - top) * scale_log2);
    take(i, top);
    return of[i] == before || before == -INFINITY ? 1.0f : factor;
  }
};

// Takes in the maxima of others' cache blocks, those between two own ones, from `seen` up to `to`: of pairs of rows from `pair` on.
// A lane waits for one of them. `pairs` are those of all rows of the tile.
template <int kBlocks, int kRows, int kPairs>
__device__ __forceinline__ void catch_up(TeamSmem<kBlocks, kRows> &smem, Maxima<kPairs> &maxima, uint32_t seen, uint32_t to, int pair,
                                         int pairs) {
  constexpr int kTopPlaces = TeamSmem<kBlocks, kRows>::kTopPlaces;
  if (seen >= to) return;
  const uint32_t mine = seen + threadIdx.x % 32;
  if (mine < to) {
    const uint32_t full = sm90::smem_address(&smem.tops_full[mine % kTopPlaces]);
    if (threadIdx.x < 32) sm90::barrier_expect_bytes(full, pairs * sizeof(float4));
    sm90::barrier_wait(full, mine / kTopPlaces % 2);
  }
  __syncwarp();
  float4 tops[kBlocks - 1][kPairs];
#pragma unroll
  for (uint32_t i = 0; i < kBlocks - 1; ++i) {
    const uint32_t unit = min(seen + i, to - 1);  // the last one again changes nothing
#pragma unroll
    for (int k = 0; k < kPairs; ++k) tops[i][k] = smem.tops[unit % kTopPlaces][pair + k];
  }
#pragma unroll
  for (const auto &unit : tops) {
#pragma unroll
    for (int k = 0; k < kPairs; ++k) {
      maxima.take(k, unit[k].x);
      maxima.take(k, unit[k].y);
      maxima.take(kPairs + k, unit[k].z);
      maxima.take(kPairs + k, unit[k].w);
    }
  }
}

// The warps of a warpgroup that have query rows, sixteen each.
template <int kRows>
__device__ __forceinline__ int row_groups(const DecodeParams &p, int tile) {
  return min((p.rows - tile * kRows + kWarpRows - 1) / kWarpRows, kRows / kWarpRows);
}
// The first query row of this warp; none of a warp that has none.
template <int kRows>
__device__ __forceinline__ int first_row(const DecodeParams &p, int tile) {
  const int warp = threadIdx.x / 32 % 4;
  return warp < kRows / kWarpRows ? tile * kRows + warp * kWarpRows : p.rows;
}

}  // namespace mla::cuda::team
