// The score role of decode_team_kernel.cuh for sixteen query rows: S^T = K Q^T, so that keys fill the 64 rows of the tensor cores
// and all four warps have a share of the softmax.
#pragma once

#include "decode_across.cuh"
#include "decode_team_common.cuh"
#include "sm90/wgmma_tokens.cuh"

namespace mla::cuda::team {

using RowColumns = Columns<kWarpRows>;
using AcrossScores = float[kWarpRows / 2];  // of a thread: two keys of four query rows

// S^T of a cache block, the products in the order of decode_score.cuh's.
__device__ __forceinline__ void multiply_keys_across(AcrossScores &s, const uint8_t *keys, const uint8_t *queries) {
  const uint64_t a = sm90::swizzled_descriptor(sm90::smem_address(keys), 0, kAtomRowBytes);
  const uint64_t b = sm90::swizzled_descriptor(sm90::smem_address(queries), 0);
#pragma unroll
  for (float &value : s) value = 0.0f;
  sm90::hold(s);
  sm90::wgmma_fence();
#pragma unroll
  for (int n = 0; n < kHeadDim / 16; ++n) {
    const int i = slice_of_product(n);
    sm90::wgmma_m64k16<0>(s, sm90::advance(a, i / 4 * kAtomBytes + i % 4 * 32), sm90::advance(b, i / 4 * (kWarpRows * 128) + i % 4 * 32));
  }
  sm90::wgmma_commit();
  sm90::wgmma_wait<0>();
  sm90::hold(s);
}

// The sum that one lane of the general kernel has of a row's weights of a step, in its order: of eight keys each the two of the lane.
__device__ __forceinline__ float sum_of_lane(const AcrossSmem &across, int row, int step, int lane) {
  const auto *weights = &across.weights[step * kStepTokens + lane * 2];
  float sum = weights[0][row] + weights[1][row];
#pragma unroll
  for (int key = 8; key < kStepTokens; key += 8) sum = (sum + weights[key][row]) + weights[key + 1][row];
  return sum;
}

template <int kBlocks>
__device__ __forceinline__ void score_across_role(TeamSmem<kBlocks, kWarpRows> &smem, const DecodeParams &p, int tile, int rank) {
  using Smem = TeamSmem<kBlocks, kWarpRows>;
  constexpr int kPairs = kWarpRows / 2;
  const int thread = threadIdx.x, lane = thread % 32, warp = thread / 32;
  const bool second = warp >= kScoreWarps / 2;  // this warp's keys are of the second step
  AcrossSmem &across = smem.across;
  KeyUses uses;
  uint32_t queries_parity = 0, unit = 0;
  bool has_queries = false;

  for (RuleWalk walk(smem.part, p, smem.runs); !walk.done();) {
    const Share share = walk.take();
    if (share.empty()) continue;
    if (share.takes_queries()) {
      if (has_queries) sm90::barrier_arrive(sm90::smem_address(&smem.queries_read));
      sm90::barrier_wait(sm90::smem_address(&smem.queries_full), queries_parity);
      queries_parity ^= 1;
      has_queries = true;
    }
    Maxima<2> maxima(p.scale_log2);  // of this thread's rows
    const uint32_t end = unit + units_of(share);
    uint32_t seen = unit;
    auto catch_up_to = [&](uint32_t to) {
      catch_up(smem, maxima, seen, to, lane % 4 * 2, kPairs);
      seen = max(seen, to);
    };

    for (uint32_t mine = first_own<kBlocks>(unit, rank); mine < end; mine += kBlocks) {
      AcrossScores s;
#pragma unroll
      for (int step = 0; step < kStepsPerBlock; ++step) {
        sm90::barrier_wait(sm90::smem_address(&smem.keys_full[step]), uses.parity[step]);
        uses.parity[step] ^= 1;
      }
      if (mine < kBlocks) begin_in_turn<kWarpRows>(rank);
      multiply_keys_across(s, smem.keys[0], across.queries);
      if (lane < kStepsPerBlock) sm90::barrier_arrive(sm90::smem_address(&smem.keys_empty[lane]));
      const int first_step = share.first_step + static_cast<int>(mine - unit) * kStepsPerBlock;
      mask_across<kWarpRows>(s, first_step * kStepTokens, share.length, tile * kWarpRows, p.s_q, p.heads);

#pragma unroll
      for (int i = 0; i < RowColumns::kCount; ++i) {
        float top = fmaxf(s[RowColumns::place(i, 0)], s[RowColumns::place(i, 1)]);
#pragma unroll
        for (int far = 4; far <= 16; far *= 2) top = fmaxf(top, __shfl_xor_sync(~0u, top, far));
        if (lane < 4) across.tops[warp][RowColumns::column(i)] = top;
      }
      sm90::warpgroup_sync(kScoreSync);
      float top[kStepsPerBlock][RowColumns::kCount];  // of all keys of a step
#pragma unroll
      for (int i = 0; i < RowColumns::kCount; ++i) {
        const int row = RowColumns::column(i);
#pragma unroll
        for (int step = 0; step < kStepsPerBlock; ++step) {
          top[step][i] = fmaxf(across.tops[2 * step][row], across.tops[2 * step + 1][row]);
        }
      }
      // Each eighth of a warp to one block, the first two warps a pair of rows a lane.
      if (const int to = lane / 4; warp < 2 && to < kBlocks && to != rank) {
        const uint32_t top_place = mine % Smem::kTopPlaces;
        sm90::store_remote(sm90::remote_address(sm90::smem_address(&smem.tops[top_place][lane % 4 * 2 + warp]), to),
                           warp == 0 ? make_float4(top[0][0], top[1][0], top[0][2], top[1][2])
                                     : make_float4(top[0][1], top[1][1], top[0][3], top[1][3]),
                           sm90::remote_address(sm90::smem_address(&smem.tops_full[top_place]), to));
      }
      const uint32_t place = mine % Smem::kPlaces;
      sm90::barrier_wait(sm90::smem_address(&smem.weights_free[place]), mine / Smem::kPlaces % 2 ^ 1);
      catch_up_to(mine);
      seen = mine + 1;

      WeightsPlace<kWarpRows> &target = smem.places[place];
      RowNote *notes = target.notes;
      bool moves = false;
#pragma unroll
      for (int i = 0; i < RowColumns::kCount; ++i) {
        const int row = RowColumns::column(i);
        const float before = maxima.take_and_rescale(i, top[0][i], p.scale_log2), first = maxima.of[i];
        const float between = maxima.take_and_rescale(i, top[1][i], p.scale_log2);
        moves |= before != 1.0f || between != 1.0f;
        if (thread < 4) {
          *reinterpret_cast<float2 *>(notes[row].rescale) = make_float2(before, between);
          notes[row].maximum = maxima.of[i];
        }
        const float maximum = second ? maxima.of[i] : first;
        const float base = maximum == -INFINITY ? 0.0f : -maximum * p.scale_log2;
#pragma unroll
        for (int r = 0; r < 2; ++r) {
          float &weight = s[RowColumns::place(i, r)];
          weight = sm90::exp2_approx(fmaf(weight, p.scale_log2, base));
        }
      }
#pragma unroll
      for (int m = 0; m < kWarpRows / 4; ++m) {  // of one key two rows each
        *reinterpret_cast<float2 *>(&across.weights[warp * 16 + m % 2 * 8 + lane / 4][m / 2 * 8 + lane % 4 * 2]) =
            make_float2(s[2 * m], s[2 * m + 1]);
      }
      sm90::store_matrices_across(sm90::smem_address(target.weights) + piece_of_weights<kWarpRows>(lane, warp),
                                  sm90::pack_bf16(s[0], s[1]), sm90::pack_bf16(s[2], s[3]), sm90::pack_bf16(s[4], s[5]),
                                  sm90::pack_bf16(s[6], s[7]));
      moves = __any_sync(~0u, moves);
      if (thread == 0) notes[0].moves = moves;
      sm90::warpgroup_sync(kScoreSync);
      const int row = thread % kWarpRows, of_lane = thread / kWarpRows % 4, step = thread / (4 * kWarpRows);
      notes[row].sums[step][of_lane] = sum_of_lane(across, row, step, of_lane);
      sm90::fence_async_proxy();
      sm90::barrier_arrive(sm90::smem_address(&smem.weights_ready[place]));
    }
    catch_up_to(end);
    unit = end;
  }
}

}  // namespace mla::cuda::team
