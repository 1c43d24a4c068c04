// Joins the splits of a cut sequence inside the decode kernel.
//
// Two splits that follow each other are joined by the first one's part. As a rule that is long after the second one's result
// is there, since a part begins with what the part before it left over; so the partial result comes through the ring behind
// the last keys, and nobody waits. Of many splits every eighth takes in the seven behind it, then of these every eighth, and
// so on; the first split ends up with all. Which takes in which, and with it every bit of the result, follows from the plan
// alone. Workers only wait for later parts, which the blocks that start first have.
#pragma once

#include "decode_common.cuh"
#include "sm90/tma.cuh"
#include "sm90/wgmma.cuh"

namespace mla::cuda {

// The partial result that a part leaves, sixteen rows of it, as boxes of a tensor map; one for either half of the columns: F16,
// as the accumulators lie, then float32 scales [16, 2] and the log-sum-exps [16]. In a stage of the ring lies one half of a tile's,
// swizzled. (Plain bulk copies would do; but racecheck follows them, and does not follow one lane's arrival for its warp.)
constexpr int kPartialHalfBytes = kWarpRows * kValueColumns * 2;
constexpr int kPartialBoxRows = kPartialHalfBytes / 128 + 2;  // of 128 bytes
constexpr int kPartialBoxBytes = kPartialBoxRows * 128;
constexpr int kStagedBytes = kStageBytes / kScoreWarps;
static_assert(kWarpRows * 3 * 4 <= 2 * 128, "scales and log-sum-exps");
static_assert(kStagedBytes >= kPartialBoxBytes && kStagedBytes % 1024 == 0, "half of a partial result fits into a stage");
static_assert(2 * kPartialBoxBytes <= kWarpRows * kPartialRowFloats * 4, "takes no more than decode.cu's workspace has for it");

// The largest magnitudes of this thread's rows in as many columns of O as its accumulators from `first` on are of.
template <int kPart, int kCount>
__device__ __forceinline__ float2 row_maxima(const float (&o)[kCount], int first = 0) {
  float top[8] = {};  // eight chains
#pragma unroll
  for (int i = 0; i < kPart; ++i) top[i % 8] = fmaxf(top[i % 8], fabsf(o[first + i]));
  float2 rows = {fmaxf(fmaxf(top[0], top[1]), fmaxf(top[4], top[5])), fmaxf(fmaxf(top[2], top[3]), fmaxf(top[6], top[7]))};
#pragma unroll
  for (int step = 1; step <= 2; step *= 2) {
    rows.x = fmaxf(rows.x, __shfl_xor_sync(~0u, rows.x, step));
    rows.y = fmaxf(rows.y, __shfl_xor_sync(~0u, rows.y, step));
  }
  return rows;
}

// What the score warps found for this thread's rows of O, r and r + 8 of its warp's sixteen.
struct ShareRows {
  float factor[2];  // from the accumulators to the result
  float lse2[2];    // log-sum-exp, base 2
  ShareRows() = default;
  __device__ explicit ShareRows(const DecodeSmem &smem) {
    const int thread = late_thread(), row = warp_row(0, thread) + thread % 32 / 4;
#pragma unroll
    for (int r = 0; r < 2; ++r) {
      factor[r] = smem.inverse_sum[row + 8 * r];
      lse2[r] = smem.lse2[row + 8 * r];
    }
  }
};

__device__ __forceinline__ int joined_part(int block) { return gridDim.y - 1 - block; }

// A split among those of its sequence.
class SplitJoin {
 public:
  __device__ SplitJoin(const PlanPart &part, const Share &share)
      : before_(share.first_step > 0 ? part.splits_before : 0),
        after_(share.end_step * kStepTokens >= share.length ? 0 : part.splits_after) {}
  // Whether it ends up with all others.
  __device__ bool first() const { return before_ == 0; }
  // Calls take(part) for each later part whose split this one takes in.
  template <typename Take>
  __device__ void each(Take take) const {
    constexpr int kTogether = 8;
#pragma unroll 1
    for (int distance = 1; distance <= after_ && before_ % (kTogether * distance) == 0; distance *= kTogether) {
#pragma unroll 1
      for (int i = 1; i < kTogether && i * distance <= after_; ++i) take(joined_part(blockIdx.y) + i * distance);
    }
  }

 private:
  int before_, after_;  // splits of the sequence before and behind this one
};

__device__ __forceinline__ uint32_t *part_flag(const DecodeParams &p, int part, int tile) {
  return p.plan.flags + part * gridDim.x + tile;
}

// The box of a part for the columns of `side` and the rows from `row` on.
__device__ __forceinline__ int partial_box(const DecodeParams &p, int part, int row, int side) {
  return ((p.rows + kWarpRows - 1) / kWarpRows * part + row / kWarpRows) * 2 + side;
}

// For the copy warp: loads half of a partial result into a stage.
__device__ __forceinline__ void load_partial(const DecodeMaps &maps, const DecodeParams &p, int part, int tile, int side,
                                             uint32_t stage, uint32_t barrier, uint64_t policy) {
  const int first_row = tile * kTileRows;
  const int groups = min((p.rows - first_row + kWarpRows - 1) / kWarpRows, kScoreWarps);
  sm90::barrier_expect_bytes(barrier, groups * kPartialBoxBytes);
#pragma unroll 1
  for (int group = 0; group < groups; ++group) {
    sm90::tma_load(stage + group * kStagedBytes, &maps.partials, barrier, 0, 0,
                   partial_box(p, part, first_row + group * kWarpRows, side), policy);
  }
}

// Adds the half of a partial result that lies in a stage to O, which is that of both splits then.
__device__ __forceinline__ void add_partial(const uint8_t *stage, ShareRows &rows, float (&left)[64], float (&right)[64]) {
  const int thread = late_thread(), lane = thread % 32, warp = thread / 32 % 4;
  stage += warp * kStagedBytes;
  const float *scales = reinterpret_cast<const float *>(stage + kPartialHalfBytes), *lse2 = scales + kWarpRows * 2;
  float own[2], other[2][2];  // [half of the columns][row]
#pragma unroll
  for (int r = 0; r < 2; ++r) {
    const int row = lane / 4 + 8 * r;
    const float here = rows.lse2[r], there = lse2[row ^ 4];  // in the swizzled place
    const float top = fmaxf(here, there), base = top == -INFINITY ? 0.0f : top;
    const float mine = exp2f(here - base), theirs = exp2f(there - base), total = mine + theirs;
    const float inverse = total > 0.0f ? 1.0f / total : 0.0f;
    own[r] = rows.factor[r] * mine * inverse;
#pragma unroll
    for (int half = 0; half < 2; ++half) other[half][r] = theirs * inverse * scales[row * 2 + half];
    rows.factor[r] = 1.0f;
    rows.lse2[r] = total > 0.0f ? base + log2f(total) : -INFINITY;
  }
  const uint4 *halves = reinterpret_cast<const uint4 *>(stage);
  const int piece = lane ^ (lane / 8);  // in the swizzled place, of even i
  auto add = [&](float(&o)[64], int half) {
#pragma unroll
    for (int i = 0; i < 8; ++i) {
      const uint4 v = halves[(half * 8 + i) * 32 + (piece ^ (i % 2 * 4))];
      const uint32_t pairs[4] = {v.x, v.y, v.z, v.w};
#pragma unroll
      for (int k = 0; k < 4; ++k) {
        const float2 pair = __half22float2(*reinterpret_cast<const __half2 *>(&pairs[k]));
        o[i * 8 + k * 2] = o[i * 8 + k * 2] * own[k % 2] + pair.x * other[half][k % 2];
        o[i * 8 + k * 2 + 1] = o[i * 8 + k * 2 + 1] * own[k % 2] + pair.y * other[half][k % 2];
      }
    }
  };
  add(left, 0);
  add(right, 1);
}

// Leaves the result of a split for another one. All value warps together; announce_partial goes on. Whoever copies it has a fence
// between these stores and the copies.
__device__ __forceinline__ void leave_partial(const DecodeParams &p, int tile, int side,
                                              const ShareRows &rows, const float (&left)[64], const float (&right)[64]) {
  const int thread = late_thread(), lane = thread % 32, first_row = warp_row(tile, thread);
  if (first_row < p.rows) {
    const int64_t box = partial_box(p, joined_part(blockIdx.y), first_row, side);
    uint8_t *target = p.joined + box * kPartialBoxBytes;
    float *scales = reinterpret_cast<float *>(target + kPartialHalfBytes) + lane / 4 * 2;
    float *lse2 = reinterpret_cast<float *>(target + kPartialHalfBytes) + kWarpRows * 2 + lane / 4;
    uint4 *halves = reinterpret_cast<uint4 *>(target) + lane;
    auto store = [&](const float(&o)[64], int half) {
      const float2 top = row_maxima<64>(o);
      float up[2];
#pragma unroll
      for (int r = 0; r < 2; ++r) {
        const HalfScale scale((r == 0 ? top.x : top.y) * rows.factor[r]);
        up[r] = rows.factor[r] * scale.up;  // at most 2^126: the sums are at least 1
        if (lane % 4 == 0) scales[8 * r * 2 + half] = scale.down;
      }
#pragma unroll
      for (int i = 0; i < 8; ++i) {
        uint32_t v[4];
#pragma unroll
        for (int k = 0; k < 4; ++k) v[k] = sm90::pack_f16(o[i * 8 + k * 2] * up[k % 2], o[i * 8 + k * 2 + 1] * up[k % 2]);
        halves[(half * 8 + i) * 32] = make_uint4(v[0], v[1], v[2], v[3]);
      }
    };
    store(left, 0);
    store(right, 1);
    if (lane % 4 == 0) lse2[0] = rows.lse2[0], lse2[8] = rows.lse2[1];
  }
  sm90::named_arrive<(kValueWarps + 1) * 32>(kJoinSync);
}

// By a warp that has nothing else to do, so that no value warp waits for its stores: tells the other part that the result is there.
__device__ __forceinline__ void announce_partial(const DecodeParams &p, int tile) {
  sm90::named_sync<(kValueWarps + 1) * 32>(kJoinSync);
  if (threadIdx.x % 32 == 0) sm90::set_flag(part_flag(p, joined_part(blockIdx.y), tile));
}

// The log-sum-exp of a finished share.
__device__ __forceinline__ void store_lse(const DecodeParams &p, const Share &share, int first_row, const ShareRows &rows,
                                          bool whole) {
  const int thread = late_thread();
#pragma unroll
  for (int r = 0; r < 2; ++r) {
    const int row = first_row + thread % 32 / 4 + 8 * r;
    if (thread % 4 > 0 || row >= p.rows) continue;
    if (whole) p.lse[lse_place(p, share.seq, row)] = natural_lse(rows.lse2[r]);
    else p.partial_lse[static_cast<int64_t>(share.slot(p)) * p.rows + row] = rows.lse2[r];
  }
}

}  // namespace mla::cuda
