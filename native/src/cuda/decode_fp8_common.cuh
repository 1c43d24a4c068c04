// What the roles of the FP8 decode kernel share: layout of a token, constants, shared memory, parameters.
#pragma once

#include "decode_common.cuh"
#include "decode_fp8.h"
#include "sm90/mma.cuh"

namespace mla::cuda {

constexpr int kFp8SlotTokens = 2 * kStepTokens;
constexpr int kFp8StepBytes = kStepTokens * kFp8TokenBytes;
constexpr int kFp8ScalesAt = kValueDim;  // bytes into a token
constexpr int kFp8RopeAt = kValueDim + 4 * 4;
constexpr int kFp8Groups = 4;                // of 128 values with one scale
constexpr int kFp8Slices = 128 / 16;         // of a group: 16 dimensions are one product's
constexpr int kFp8KeyTiles = kFp8SlotTokens / 8;  // eight keys are one product's
constexpr int kFp8ScoreWarps = 8, kFp8ValueWarps = kFp8Groups;
constexpr int kFp8Threads = 512;  // of the last warpgroup only one warp, for the copies
static_assert(kFp8ScoreWarps == 2 * kFp8Groups && kFp8ScoreWarps == kFp8KeyTiles, "a group and half of the keys a warp");
static_assert(2 * kFp8Groups == kScales, "a group of a partial result has two scales, here the same");
static_assert(kFp8StepBytes % 16 == 0 && kFp8RopeAt + 2 * (kHeadDim - kValueDim) == kFp8TokenBytes, "layout of a token");

constexpr float kSlack = 8.0f;  // the running maximum moves only when it has grown by 2^8
// So P times scale is at most 2^8 in units of it, and F16 has room for 2^15: P is times 2^7.
constexpr float kWeightShift = 7.0f;
constexpr float kNoMaximum = -1e30f;  // finite: -inf minus it is -inf
constexpr float kLeastScale = 0x1p-60f;

// kTiles: 16-row tiles of the block.
template <int kTiles>
struct Fp8Smem {
  static constexpr int kRows = kTiles * 16;
  static constexpr int kRing = 4;
  uint8_t ring[kRing][kFp8SlotTokens * kFp8TokenBytes];
  // S of a tile of keys by the groups whose warps do not weigh it, as the lanes of a warp hold it.
  float4 parts[kFp8KeyTiles][kFp8Groups - 1][kTiles][32];
  uint2 weights[kSlots][kFp8Groups][kFp8KeyTiles][kTiles][32];  // P times the scales of a group, the same way
  float rescale[kSlots][kRows];
  int must_rescale[kSlots];
  float top[kFp8ScoreWarps][kRows];  // largest of the warps' keys
  float sums[kFp8ScoreWarps][kRows];
  float inverse_sum[kRows];
  PlanPart part;
  uint64_t full[kRing], scored[kRing], empty[kRing];  // scored: Q K is done; the value warps are the last to leave a slot
  uint64_t p_full[kSlots], p_empty[kSlots];
  uint64_t sum_full, sum_empty;
};
static_assert(sizeof(Fp8Smem<2>) <= 227 * 1024 && sizeof(Fp8Smem<1>) <= 227 * 1024, "shared memory of a block");

struct Fp8Params {
  DecodeParams decode;
  const uint8_t *cache;
  const __nv_bfloat16 *q;
  int64_t q_batch_stride, q_row_stride;  // in elements
};

}  // namespace mla::cuda
