// The four copy warps of decode_team_kernel.cuh.
#pragma once

#include "decode_team_common.cuh"

namespace mla::cuda::team {

// Reads the block table of a share, 32 entries at a time: its 0th, 1st, .. cache block, or every kBlocks-th. A whole warp.
class TableReader {
 public:
  __device__ TableReader(const DecodeParams &p, const Share &share, int first, int stride)
      : table_(p.block_table + share.seq * p.table_stride + share.first_step / kStepsPerBlock), first_(first), stride_(stride),
        end_(units_of(share)) {}
  __device__ int operator()(int i) {
    if (i % 32 == 0) {
      const int at = first_ + (i + static_cast<int>(threadIdx.x % 32)) * stride_;
      entries_ = at < end_ ? __ldg(table_ + at) : 0;
    }
    return __shfl_sync(~0u, entries_, i % 32);
  }

 private:
  const int32_t *table_;
  int first_, stride_, end_, entries_ = 0;
};

// Loads the queries of `groups` warps, from `row` on, each as one box. By one thread.
__device__ __forceinline__ void load_queries(const TeamMaps &maps, uint32_t target, uint32_t full, int seq, int row, int groups,
                                             uint64_t policy) {
  sm90::barrier_expect_bytes(full, groups * kGroupBytes);
#pragma unroll 1
  for (int i = 0; i < groups; ++i) {
    sm90::tma_load(target + i * kGroupBytes, &maps.queries, full, 0, row + i * kWarpRows, 0, seq, policy);
  }
}

// Whole cache blocks: what lies behind a sequence's end does no harm. They stay in L2 until all blocks have read their columns. Keys
// of this step's tokens, the last s_q of a sequence, come after the wait for the kernel before, which may have written them.
template <int kBlocks, int kRows>
__device__ __forceinline__ void keys_role(TeamSmem<kBlocks, kRows> &smem, const TeamMaps &maps, const DecodeParams &p, int tile,
                                          int rank) {
  const bool leader = threadIdx.x % 32 == 0;
  const int more_groups = row_groups<kRows>(p, tile) - kQueryGroups;
  const uint64_t soon_again = sm90::evict_normal_policy(), again = sm90::evict_last_policy();
  KeyUses uses;
  auto fill = [&](int step, auto load) {
    if (leader) {
      sm90::barrier_wait(sm90::smem_address(&smem.keys_empty[step]), uses.parity[step] ^ 1);
      load(sm90::smem_address(smem.keys[step]), sm90::smem_address(&smem.keys_full[step]));
    }
    uses.parity[step] ^= 1;
  };
  uint32_t unit = 0;
  bool waited = false, fresh = true;  // fresh: nothing has been loaded
  for (RuleWalk walk(smem.part, p, smem.runs); !walk.done();) {
    const Share share = walk.take();
    if (share.empty()) continue;
    const int first = static_cast<int>(first_own<kBlocks>(unit, rank) - unit), units = units_of(share);
    bool queries = share.takes_queries() && more_groups > 0;  // are still to be loaded
    auto load_more_queries = [&] {
      if (!waited) sm90::wait_for_previous_kernel();
      waited = true;
      if (!queries) return;
      queries = false;
      fill(1, [&](uint32_t target, uint32_t full) {
        load_queries(maps, target, full, share.seq, tile * kRows + kQueryGroups * kWarpRows, more_groups, again);
      });
    };
    TableReader table(p, share, first, kBlocks);
    for (int i = 0; first + i * kBlocks < units; ++i) {
      const int cache_block = table(i), key = (share.first_step + (first + i * kBlocks) * kStepsPerBlock) * kStepTokens;
      const bool early = fresh && key + kBlockTokens <= share.length - p.s_q;
      fresh = false;
#pragma unroll
      for (int step = 0; step < kStepsPerBlock; ++step) {
        if (!early || (step == 1 && queries)) load_more_queries();
        fill(step, [&](uint32_t target, uint32_t full) {
          sm90::barrier_expect_bytes(full, kStageBytes);
          sm90::tma_load(target, &maps.cache, full, 0, 0, 0, step * (kStepTokens / kAtomKeys), cache_block, soon_again);
        });
      }
    }
    load_more_queries();
    unit += units;
  }
}

// The queries, and of all cache blocks this block's columns.
template <int kBlocks, int kRows>
__device__ __forceinline__ void values_role(TeamSmem<kBlocks, kRows> &smem, const TeamMaps &maps, const DecodeParams &p, int tile,
                                            int rank) {
  using Smem = TeamSmem<kBlocks, kRows>;
  const bool leader = threadIdx.x % 32 == 0;
  const uint64_t once = sm90::evict_first_policy(), again = sm90::evict_last_policy();
  RingPosition<Smem::kValueStages> ring;
  uint32_t queries_parity = 0, number = 0;  // of all cache blocks
  bool waited = false;
  for (RuleWalk walk(smem.part, p, smem.runs); !walk.done();) {
    const Share share = walk.take();
    if (share.empty()) continue;
    if (!waited) {
      sm90::wait_for_previous_kernel();
      sm90::launch_dependents();
      waited = true;
    }
    if (share.takes_queries()) {
      const uint32_t full = sm90::smem_address(&smem.queries_full), read = sm90::smem_address(&smem.queries_read);
      if constexpr (Smem::kAcross) {
        if (leader) {
          sm90::barrier_wait(read, queries_parity ^ 1);
          load_queries(maps, sm90::smem_address(smem.across.queries), full, share.seq, tile * kRows, 1, again);
        }
      } else if (leader) {
        auto last_use = ring;  // the queries take the place of all stages
        for (int i = 0; i < Smem::kValueStages; ++i) {
          sm90::barrier_wait(sm90::smem_address(&smem.values_empty[last_use.place]), last_use.parity ^ 1);
          last_use.next();
        }
        load_queries(maps, sm90::smem_address(smem.queries), full, share.seq, tile * kRows,
                     min(row_groups<kRows>(p, tile), kQueryGroups), again);
        sm90::barrier_wait(read, queries_parity);
      }
      queries_parity ^= 1;
    }
    TableReader table(p, share, 0, 1);
    const bool last = walk.done();
    const uint32_t begin = number, end = begin + units_of(share);
    for (; number < end; ++number) {
      const int cache_block = table(static_cast<int>(number - begin));
      if (leader) {
        sm90::barrier_wait(sm90::smem_address(&smem.values_empty[ring.place]), ring.parity ^ 1);
        // So P of the cache block that was there has been used, too. (At the end of the part nobody waits for it.)
        const uint32_t before = number - Smem::kValueStages;
        if (number >= Smem::kValueStages && (!last || before + Smem::kPlaces < end)) {
          const uint32_t free = sm90::smem_address(&smem.weights_free[before % Smem::kPlaces]), owner = before % kBlocks;
          if (owner == static_cast<uint32_t>(rank)) sm90::barrier_arrive(free);
          else sm90::barrier_arrive_remote(free, owner, 1);
        }
        const uint32_t full = sm90::smem_address(&smem.values_full[ring.place]);
        sm90::barrier_expect_bytes(full, sizeof(smem.values[0]));
        sm90::tma_load(sm90::smem_address(smem.values[ring.place]), &maps.values, full, 0, 0, rank * (Smem::kColumns / 64),
                       cache_block, once);
      }
      ring.next();
    }
  }
}

// The last cache block's keys past the sequence's end may hold anything, NaN too: 0 x NaN must not reach O.
template <int kColumns>
__device__ __forceinline__ void clear_unused_values(uint8_t *columns, int used) {
  constexpr int kPieces = kColumns / 8;  // of a key, 16 bytes each
  for (int i = threadIdx.x % 32; i < (kBlockTokens - used) * kPieces; i += 32) {
    const int key = used + i / kPieces, column = i % kPieces / 8;
    *reinterpret_cast<int4 *>(columns + (column * kBlockTokens + key) * 128 + i % 8 * 16) = make_int4(0, 0, 0, 0);
  }
  sm90::fence_async_proxy();
}

// Tells the value warps that the columns and the weights of the next cache blocks are there, and whether they have to rescale:
// they have enough to do between their products.
template <int kBlocks, int kRows>
__device__ __forceinline__ void gate_role(TeamSmem<kBlocks, kRows> &smem, const DecodeParams &p, int tile, int rank) {
  using Smem = TeamSmem<kBlocks, kRows>;
  const uint32_t lane = threadIdx.x % 32, groups = row_groups<kRows>(p, tile);
  RingPosition<Smem::kValueStages> ring, turn;
  uint32_t number = 0;
  for (RuleWalk walk(smem.part, p, smem.runs); !walk.done();) {
    const Share share = walk.take();
    const uint32_t end = number + units_of(share);
    const int in_last = share.length - (share.first_step + (units_of(share) - 1) * kStepsPerBlock) * kStepTokens;  // keys
    while (number < end) {
      bool moves = false;
      for (const uint32_t next = number + min(static_cast<uint32_t>(Smem::kAtOnce), end - number); number < next; ++number) {
        const uint32_t place = number % Smem::kPlaces, full = sm90::smem_address(&smem.weights_full[place]);
        if (lane == 0 && number % kBlocks != static_cast<uint32_t>(rank)) sm90::barrier_expect_bytes(full, kWeightsBytes<kRows>);
        sm90::barrier_wait(sm90::smem_address(&smem.values_full[ring.place]), ring.parity);
        if (number + 1 == end && in_last < kBlockTokens) clear_unused_values<Smem::kColumns>(smem.values[ring.place], in_last);
        sm90::barrier_wait(full, number / Smem::kPlaces % 2);
        moves = moves || (lane < groups && smem.places[place].notes[lane * kWarpRows].moves != 0);
        ring.next();
      }
      moves = __any_sync(~0u, moves);
      if (lane == 0) smem.rescales[turn.place] = moves;
      sm90::barrier_arrive(sm90::smem_address(&smem.ready[turn.place]));
      turn.next();
    }
  }
}

// Sends P of the block's own cache blocks to the others.
template <int kBlocks, int kRows>
__device__ __forceinline__ void send_role(TeamSmem<kBlocks, kRows> &smem, const DecodeParams &p, int rank) {
  using Smem = TeamSmem<kBlocks, kRows>;
  const int to = threadIdx.x % 32;
  uint32_t unit = 0;
  for (RuleWalk walk(smem.part, p, smem.runs); !walk.done();) {
    const Share share = walk.take();
    if (share.empty()) continue;
    const uint32_t end = unit + units_of(share);
    for (uint32_t mine = first_own<kBlocks>(unit, rank); mine < end; mine += kBlocks) {
      const uint32_t place = mine % Smem::kPlaces;
      sm90::barrier_wait(sm90::smem_address(&smem.weights_ready[place]), mine / Smem::kPlaces % 2);
      const uint32_t full = sm90::smem_address(&smem.weights_full[place]);
      if (to == rank) {
        sm90::barrier_arrive(full);
      } else if (to < kBlocks) {
        const uint32_t weights = sm90::smem_address(&smem.places[place]), barrier = sm90::remote_address(full, to);
        sm90::bulk_store_remote(sm90::remote_address(weights, to), weights, kWeightsBytes<kRows>, barrier);
      }
      __syncwarp();
    }
    unit = end;
  }
}

}  // namespace mla::cuda::team
