// The attention kernel for few sequences under the deterministic plan. docs/kernels.md has why.
//
// There a split is long, and has to be computed as one thread block would, key after key. What can be shared out without changing
// a bit is shared out among the blocks of a cluster, a team: of every kBlocks-th cache block each computes S, the maxima of its
// rows and P, which go to all; then each adds up its columns of O += P V, over all keys. Roles:
//   score   a warpgroup: S of the block's own cache blocks, the softmax, P to all blocks. Of 64 rows the queries are in registers;
//           of sixteen the products are swapped (decode_team_across.cuh), so that all of the tensor cores and of the warps is used
//   value   a warpgroup: 64 x 512 / kBlocks of O += P V
//   copy    four warps (decode_team_copy.cuh): keys of the own cache blocks; queries and the columns of all keys; P to the others;
//           word to the value warps that columns and P of a cache block are there
//
// Cache blocks are counted through all splits of a part. The n-th belongs to block n % kBlocks, as do the places that its maxima
// and its P take in the shared memory of every block.
#pragma once

#include "decode_team_across.cuh"
#include "decode_team_copy.cuh"

namespace mla::cuda::team {

// ---- score ------------------------------------------------------------------------------------------------------------

using AllQueries = uint32_t[kHeadDim / 16][4];

// Takes the queries into registers.
template <int kBlocks>
__device__ __forceinline__ void take_queries(TeamSmem<kBlocks, kTileRows> &smem, AllQueries &q, KeyUses &uses, uint32_t parity,
                                             int groups) {
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32, row = lane % 16;
  const bool by_keys = warp >= kQueryGroups;
  const uint8_t *mine = (by_keys ? smem.keys[1] : smem.queries[0]) + warp % kQueryGroups * kGroupBytes + row * 128;
  if (!by_keys) sm90::barrier_wait(sm90::smem_address(&smem.queries_full), parity);
  if (groups > kQueryGroups) sm90::barrier_wait(sm90::smem_address(&smem.keys_full[1]), uses.parity[1]);
  if (warp < groups) {
#pragma unroll
    for (int k = 0; k < kHeadDim / 16; ++k) {
      const int piece = k % 4 * 2 + lane / 16;
      sm90::load_matrices(q[k], sm90::smem_address(mine) + k / 4 * (kWarpRows * 128) + ((piece ^ (row % 8)) << 4));
    }
  } else {
#pragma unroll
    for (int k = 0; k < kHeadDim / 16; ++k) q[k][0] = q[k][1] = q[k][2] = q[k][3] = 0;
  }
  if (!by_keys) sm90::barrier_arrive(sm90::smem_address(&smem.queries_read));
  if (groups <= kQueryGroups) return;
  __syncwarp();
  if (lane == 0) sm90::barrier_arrive(sm90::smem_address(&smem.keys_empty[1]));
  uses.parity[1] ^= 1;
}

// S = Q K^T of a cache block, the products in the order of decode_score.cuh's. Their descriptors have to be of uniform registers,
// which products otherwise wait for: the shuffle tells the compiler that they may be.
__device__ __forceinline__ void multiply_keys(float (&s)[kStepsPerBlock][16], const AllQueries &q, const uint8_t *places) {
  const uint64_t keys = sm90::swizzled_descriptor(__shfl_sync(~0u, sm90::smem_address(places), 0), 0, kAtomRowBytes);
  sm90::hold(s[0]);
  sm90::hold(s[1]);
  sm90::wgmma_fence();
#pragma unroll
  for (int n = 0; n < kHeadDim / 16; ++n) {
    const int i = slice_of_product(n);
    sm90::wgmma_m64n64k16_ra(s, q[i], sm90::advance(keys, i / 4 * kAtomBytes + i % 4 * 32), n > 0);
  }
  sm90::wgmma_commit();
  sm90::wgmma_wait<0>();
  sm90::hold(s[0]);
  sm90::hold(s[1]);
}

// Of 64 query rows. decode_team_across.cuh has that of sixteen.
template <int kBlocks>
__device__ __forceinline__ void score_role(TeamSmem<kBlocks, kTileRows> &smem, const DecodeParams &p, int tile, int rank) {
  using Smem = TeamSmem<kBlocks, kTileRows>;
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32, groups = row_groups<kTileRows>(p, tile);
  const bool has_rows = warp < groups;
  const int row = warp * kWarpRows + lane / 4, row_pair = warp * (kWarpRows / 2) + lane / 4;  // and the row eight below it
  // Where this lane's row of a place of P begins, to be combined with a 16-byte piece of it by exclusive or: that is the swizzle.
  const int stored_row = warp * kWarpRows + lane % 16;
  const uint32_t row_offset = stored_row * 128 + ((stored_row % 8) ^ (lane / 16)) * 16;
  KeyUses uses;
  uint32_t queries_parity = 0;
  AllQueries q;
  uint32_t unit = 0;

  for (RuleWalk walk(smem.part, p, smem.runs); !walk.done();) {
    const Share share = walk.take();
    if (share.empty()) continue;
    if (share.takes_queries()) {
      take_queries(smem, q, uses, queries_parity, groups);
      queries_parity ^= 1;
    }
    Maxima<1> maxima(p.scale_log2);
    const uint32_t end = unit + units_of(share);
    uint32_t seen = unit;
    auto catch_up_to = [&](uint32_t to) {
      catch_up(smem, maxima, seen, to, row_pair, groups * (kWarpRows / 2));
      seen = max(seen, to);
    };

    for (uint32_t mine = first_own<kBlocks>(unit, rank); mine < end; mine += kBlocks) {
      const int first_step = share.first_step + static_cast<int>(mine - unit) * kStepsPerBlock;
      float s[kStepsPerBlock][16], top[kStepsPerBlock][2];
#pragma unroll
      for (int step = 0; step < kStepsPerBlock; ++step) {
        sm90::barrier_wait(sm90::smem_address(&smem.keys_full[step]), uses.parity[step]);
        uses.parity[step] ^= 1;
      }
      if (mine < kBlocks) begin_in_turn<kTileRows>(rank);
      multiply_keys(s, q, smem.keys[0]);
      if (lane < kStepsPerBlock) sm90::barrier_arrive(sm90::smem_address(&smem.keys_empty[lane]));
      // The second of one step alone lies beyond the sequence.
      if ((first_step + kStepsPerBlock) * kStepTokens > share.length - (p.s_q - 1)) {
#pragma unroll
        for (int step = 0; step < kStepsPerBlock; ++step) {
          mask_scores(s[step], (first_step + step) * kStepTokens, share.length, p, tile * kTileRows);
        }
      }
#pragma unroll
      for (int step = 0; step < kStepsPerBlock; ++step) {
#pragma unroll
        for (int r = 0; r < 2; ++r) top[step][r] = largest_score(s[step], r);
      }
#pragma unroll
      for (int far = 1; far <= 2; far *= 2) {
#pragma unroll
        for (int step = 0; step < kStepsPerBlock; ++step) {
#pragma unroll
          for (int r = 0; r < 2; ++r) top[step][r] = fmaxf(top[step][r], __shfl_xor_sync(~0u, top[step][r], far));
        }
      }
      if (has_rows) {  // the four lanes of a row send to other blocks each
        const uint32_t top_place = mine % Smem::kTopPlaces;
        const uint32_t target = sm90::smem_address(&smem.tops[top_place][row_pair]);
        const uint32_t full = sm90::smem_address(&smem.tops_full[top_place]);
#pragma unroll
        for (int i = 0; i < kBlocks / 4; ++i) {
          const int to = i * 4 + lane % 4;
          if (to == rank) continue;
          sm90::store_remote(sm90::remote_address(target, to), make_float4(top[0][0], top[1][0], top[0][1], top[1][1]),
                             sm90::remote_address(full, to));
        }
      }
      const uint32_t place = mine % Smem::kPlaces;
      sm90::barrier_wait(sm90::smem_address(&smem.weights_free[place]), mine / Smem::kPlaces % 2 ^ 1);
      catch_up_to(mine);
      seen = mine + 1;

      if (has_rows) {
        const uint32_t target = sm90::smem_address(smem.places[place].weights) + row_offset;
        float rescale[kStepsPerBlock][2];
#pragma unroll
        for (int step = 0; step < kStepsPerBlock; ++step) {
          float base[2], sum[2];
#pragma unroll
          for (int r = 0; r < 2; ++r) {
            rescale[step][r] = maxima.take_and_rescale(r, top[step][r], p.scale_log2);
            base[r] = maxima.of[r] == -INFINITY ? 0.0f : -maxima.of[r] * p.scale_log2;
          }
          uint32_t packed[4];
          float even = 0.0f;
#pragma unroll
          for (int i = 0; i < 16; ++i) {
            const int r = i / 2 % 2;
            const float weight = sm90::exp2_approx(fmaf(s[step][i], p.scale_log2, base[r]));
            sum[r] = i < 4 && i % 2 == 0 ? weight : sum[r] + weight;
            if (i % 2 == 0) {
              even = weight;
              continue;
            }
            packed[i / 2 % 4] = sm90::pack_bf16(even, weight);
            if (i % 8 == 7) {
              sm90::store_matrices(target ^ step * 64 ^ (i / 8 * 32), packed[0], packed[1], packed[2], packed[3]);
            }
          }
#pragma unroll
          for (int r = 0; r < 2; ++r) smem.places[place].notes[row + 8 * r].sums[step][lane % 4] = sum[r];
        }
        bool moves = false;
#pragma unroll
        for (int r = 0; r < 2; ++r) moves = moves || rescale[0][r] != 1.0f || rescale[1][r] != 1.0f;
        moves = __any_sync(~0u, moves);
#pragma unroll
        for (int r = 0; r < 2; ++r) {
          if (lane % 4 > 0) continue;
          *reinterpret_cast<float4 *>(&smem.places[place].notes[row + 8 * r]) =
              make_float4(rescale[0][r], rescale[1][r], maxima.of[r], __int_as_float(moves));
        }
      }
      sm90::fence_async_proxy();
      sm90::barrier_arrive(sm90::smem_address(&smem.weights_ready[place]));
    }
    catch_up_to(end);
    unit = end;
  }
}

// ---- value ------------------------------------------------------------------------------------------------------------

template <int kBlocks, int kRows>
__device__ __forceinline__ void value_role(TeamSmem<kBlocks, kRows> &smem, const DecodeParams &p, int tile, int rank) {
  using Smem = TeamSmem<kBlocks, kRows>;
  constexpr int kCount = Smem::kColumns / 2;  // accumulators of a thread
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32 % 4;
  const int row = warp % (kRows / kWarpRows) * kWarpRows + lane / 4;
  RingPosition<Smem::kValueStages> ring, turn, oldest;
  float o[kCount];
  uint32_t number = 0;  // of all cache blocks

  auto start = [&] {
    sm90::hold(o);
    sm90::wgmma_fence();
  };
  auto finish = [&] {
    sm90::wgmma_wait<0>();
    sm90::hold(o);
  };
  auto scale = [&](float upper, float lower) {
#pragma unroll
    for (int i = 0; i < kCount; ++i) o[i] *= i / 2 % 2 ? lower : upper;
  };

  for (RuleWalk walk(smem.part, p, smem.runs); !walk.done();) {
    const Share share = walk.take();
    const uint32_t begin = number, end = begin + units_of(share);
    float sum[2] = {0.0f, 0.0f}, maximum[2] = {-INFINITY, -INFINITY};
#pragma unroll
    for (int i = 0; i < kCount; ++i) o[i] = 0.0f;
    struct Operands {
      uint64_t weights, values;
    };
    // Of the next cache block; takes note of its weights.
    auto next = [&] {
      const uint32_t place = number++ % Smem::kPlaces;
      const RowNote *notes = smem.places[place].notes + row;
#pragma unroll
      for (int r = 0; r < 2; ++r) {
        const float4 head = *reinterpret_cast<const float4 *>(&notes[8 * r]);
        maximum[r] = head.z;
        sum[r] = __fadd_rn(__fmul_rn(sum[r], head.x), notes[8 * r].sums[0][lane % 4]);
        sum[r] = __fadd_rn(__fmul_rn(sum[r], head.y), notes[8 * r].sums[1][lane % 4]);
      }
      const uint32_t values = sm90::smem_address(smem.values[ring.place]);
      ring.next();
      return Operands{sm90::swizzled_descriptor(sm90::smem_address(smem.places[place].weights), 0),
                      sm90::swizzled_descriptor(values, kBlockTokens * 128)};
    };
    auto multiply = [&](const Operands &operands, int step) {
#pragma unroll
      for (int k = 2 * step; k < 2 * step + 2; ++k) {
        sm90::wgmma_m64k16<0, 1>(o, sm90::advance(operands.weights, k * 32), sm90::advance(operands.values, k * 2048));
      }
    };
    while (number < end) {
      const int units = min(Smem::kAtOnce, static_cast<int>(end - number));
      sm90::barrier_wait(sm90::smem_address(&smem.ready[turn.place]), turn.parity);
      // All warps or none rescale between products, which they start together. Of one step alone the second one's weights are 0,
      // and its values have been cleared.
      if (__any_sync(~0u, smem.rescales[turn.place] != 0)) {
#pragma unroll 1
        for (int i = 0; i < units; ++i) {
          const RowNote *notes = smem.places[number % Smem::kPlaces].notes + row;
          const Operands operands = next();
#pragma unroll
          for (int step = 0; step < kStepsPerBlock; ++step) {
            finish();
            scale(notes[0].rescale[step], notes[8].rescale[step]);
            start();
            multiply(operands, step);
            sm90::wgmma_commit();
          }
        }
      } else {
        start();
#pragma unroll 1
        for (int i = 0; i < units; ++i) {
          const Operands operands = next();
          multiply(operands, 0);
          multiply(operands, 1);
        }
        sm90::wgmma_commit();
      }
      finish();
      for (int i = 0; i < units; ++i) {
        sm90::barrier_arrive(sm90::smem_address(&smem.values_empty[oldest.place]));
        oldest.next();
      }
      turn.next();
    }

    ShareRows rows;
#pragma unroll
    for (int r = 0; r < 2; ++r) {
      sum[r] += __shfl_xor_sync(~0u, sum[r], 1);
      sum[r] += __shfl_xor_sync(~0u, sum[r], 2);
      rows.factor[r] = inverse_sum(sum[r]);
    }
    // All warps have the sums of sixteen rows: there one that has no output to store.
    if (rank == 0 && (!Smem::kAcross || warp == 1)) {
#pragma unroll
      for (int r = 0; r < 2; ++r) rows.lse2[r] = lse2_of(maximum[r], sum[r], p.scale_log2);
      store_lse(p, share, Smem::kAcross ? tile * kRows : first_row<kRows>(p, tile), rows, share.whole());
    }
    store_output(o, rows, share.whole(), p, share, first_row<kRows>(p, tile), rank * Smem::kColumns);
  }
}

// ---- kernel -----------------------------------------------------------------------------------------------------------

constexpr int kThreads = 3 * 128;

// Grid: (blocks of a team, tiles, parts).
template <int kBlocks, int kRows>
__global__ void __launch_bounds__(kThreads, 1)
    decode_team_kernel(const __grid_constant__ TeamMaps maps, const __grid_constant__ DecodeParams p) {
  using Smem = TeamSmem<kBlocks, kRows>;
  static_assert(sizeof(Smem) <= 227 * 1024, "shared memory of a block");
  extern __shared__ __align__(1024) uint8_t raw_smem[];
  Smem &smem = *reinterpret_cast<Smem *>(raw_smem);
  const int warpgroup = __shfl_sync(~0u, threadIdx.x / 128, 0), rank = blockIdx.x, tile = blockIdx.y;
  if (threadIdx.x == 0) {
    using sm90::barrier_init;
    using sm90::smem_address;
    sm90::prefetch_tensor_map(&maps.queries);
    sm90::prefetch_tensor_map(&maps.cache);
    sm90::prefetch_tensor_map(&maps.values);
    for (int i = 0; i < kStepsPerBlock; ++i) {
      barrier_init(smem_address(&smem.keys_full[i]), 1);
      barrier_init(smem_address(&smem.keys_empty[i]), kScoreWarps);
    }
    barrier_init(smem_address(&smem.queries_full), 1);
    // Where what is read or written is not the tensor cores' and the copy engine's alone, every thread arrives, not one a warp:
    // racecheck does not follow __syncwarp.
    barrier_init(smem_address(&smem.queries_read), Smem::kQueryReaders);
    for (int i = 0; i < Smem::kValueStages; ++i) {
      barrier_init(smem_address(&smem.values_full[i]), 1);
      barrier_init(smem_address(&smem.values_empty[i]), 128);
      barrier_init(smem_address(&smem.ready[i]), 32);
    }
    for (int i = 0; i < Smem::kTopPlaces; ++i) barrier_init(smem_address(&smem.tops_full[i]), 1);
    for (int i = 0; i < Smem::kPlaces; ++i) {
      barrier_init(smem_address(&smem.weights_full[i]), 1);
      barrier_init(smem_address(&smem.weights_ready[i]), kScoreWarps * 32);
      barrier_init(smem_address(&smem.weights_free[i]), kBlocks);
    }
    sm90::barrier_init_fence();
  }
  if (threadIdx.x < sizeof(PlanPart) / sizeof(int4)) {
    reinterpret_cast<int4 *>(&smem.part)[threadIdx.x] =
        reinterpret_cast<const int4 *>(p.plan.parts + blockIdx.z)[threadIdx.x];
  }
  if (threadIdx.x < kRunsAhead) smem.runs[threadIdx.x] = run_ahead(p, p.plan.parts[blockIdx.z], threadIdx.x);
  sm90::cluster_sync();
  if (warpgroup == 0) {
    sm90::take_registers<224>();
    if constexpr (Smem::kAcross) score_across_role(smem, p, tile, rank);
    else score_role(smem, p, tile, rank);
  } else if (warpgroup == 1) {
    sm90::take_registers<208>();
    sm90::wait_for_previous_kernel();
    value_role<kBlocks, kRows>(smem, p, tile, rank);
  } else {
    sm90::give_registers<40>();
    const int warp = __shfl_sync(~0u, threadIdx.x / 32 % 4, 0);
    if (warp == 0) keys_role<kBlocks, kRows>(smem, maps, p, tile, rank);
    else if (warp == 1) values_role<kBlocks, kRows>(smem, maps, p, tile, rank);
    else if (warp == 2) send_role<kBlocks, kRows>(smem, p, rank);
    else gate_role<kBlocks, kRows>(smem, p, tile, rank);
  }
  sm90::cluster_leave();
}

}  // namespace mla::cuda::team
