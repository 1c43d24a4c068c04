// What the roles of decode_team_kernel.cuh share: shared memory, and how cache blocks are numbered.
#pragma once

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

template <int kBlocks, int kRows>
struct TeamSmem {
  static constexpr int kColumns = kValueDim / kBlocks;  // of O
  // As many as there is room for. Few rows leave more of it: then nobody waits for a place of P.
  static constexpr int kPlaces = kRows == kTileRows ? 8 : 2 * kBlocks;  // of P
  // Cache blocks of which P V is computed at a time, with one wait: between two waits pass more cycles than one's products take.
  // Where stages are few each is needed as soon as its products are done.
  static constexpr int kGroup = kRows == kTileRows ? 1 : kBlocks == 8 ? 4 : 2;
  static constexpr int kValueStages = kRows == kTileRows ? 3 : kBlocks == 8 ? 12 : 8;
  static constexpr int kTopPlaces = 4 * kBlocks;  // of maxima: nobody is further ahead of another's
  static_assert(kTopPlaces >= 2 * kBlocks + kPlaces && kPlaces >= kValueStages && kPlaces % kBlocks == 0);
  static_assert(kGroup == 1 || kValueStages >= 2 * kGroup, "one group's stages are left when the next one's products are under way");
  static constexpr int kRowGroups = kRows / kWarpRows, kFirstRowGroups = kRowGroups < kQueryGroups ? kRowGroups : kQueryGroups;

  // Both steps of a cache block, in atoms. The queries of warps 2 and 3 come through the second's place, before its keys.
  uint8_t keys[kStepsPerBlock][kStageBytes];
  union {
    uint8_t values[kValueStages][kBlockTokens * kColumns * 2];  // of a cache block, columns of 64 values
    uint8_t queries[kFirstRowGroups][kGroupBytes];              // of warps 0 and 1
  };
  uint8_t weights[kPlaces][kRows * 128];  // P: 64 keys a row, BF16, swizzled. The products read 64 rows: what is not P is not used
  RowNote notes[kPlaces][kRows];
  float4 tops[kTopPlaces][kRows / 2];  // maxima of a thread's two rows, for either of both steps
  PlanPart part;
  PlanRun runs[kRunsAhead];  // the first of the part
  uint64_t keys_full[kStepsPerBlock], keys_empty[kStepsPerBlock];
  uint64_t queries_full, queries_read;
  uint64_t values_full[kValueStages], values_empty[kValueStages];
  uint64_t ready[kValueStages];  // for the products of P V of a group
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

// How often each place for a step has been filled: the parity of its next use.
struct KeyUses {
  uint32_t parity[kStepsPerBlock] = {};
};

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
