// The attention kernel for few and short sequences, whose time is latency. docs/kernels.md has the chain of it.
//
// A cluster takes kRows query rows of a sequence, or of a part of it, and shares its 64-key cache blocks out among its thread
// blocks. The products are swapped, S^T = K Q^T and O^T = V^T P^T, so that keys and value dimensions fill the 64 rows of the
// tensor cores and the few query rows are columns. At the end each block gets a slice of the value dimensions from all the others
// through distributed shared memory and adds them up. Where several clusters share a sequence, the last of them to arrive joins
// their sums. So there is no second kernel, and each block plans for itself. Roles of its warps:
//   score   four warps: S^T, the softmax over the keys (rows of S^T), P to shared memory
//   value   two times four, each 256 rows of O^T += V^T P^T; then the exchange
//   copy    one: TMA
#pragma once

#include "decode_cluster_exchange.cuh"
#include "sm90/tma.cuh"
#include "sm90/wgmma_tokens.cuh"

namespace mla::cuda::clustered {

// ---- copy -------------------------------------------------------------------------------------------------------------

// As many cache blocks as there is room for come before the wait for the kernel before, but for those with keys of this step's
// tokens, the last s_q of a sequence, which that kernel may have written.
template <int kRows, int kRing, int kBlocks>
__device__ __forceinline__ void copy_role(ClusterSmem<kRows, kRing, kBlocks> &smem, const DecodeMaps &maps,
                                          const ClusterParams &p, const Work &work) {
  const int lane = threadIdx.x % 32;
  const uint64_t policy = sm90::evict_first_policy();
  const int32_t *table = p.block_table + work.seq * p.table_stride;
  int entry = work.first + lane < work.end ? __ldg(table + work.first + lane) : 0;  // 32 of them, one a lane
  RingPosition<kRing> ring;
  auto load_block = [&](int block) {
    const int at = block - work.first;
    if (at > 0 && at % 32 == 0) entry = block + lane < work.end ? __ldg(table + block + lane) : 0;
    const int cache_block = __shfl_sync(~0u, entry, at % 32);
    if (lane == 0) {
      const uint32_t full = sm90::smem_address(&smem.full[ring.place]);
      sm90::barrier_wait(sm90::smem_address(&smem.empty[ring.place]), ring.parity ^ 1);
      sm90::barrier_expect_bytes(full, sizeof(smem.keys[0]));
      sm90::tma_load(sm90::smem_address(smem.keys[ring.place]), &maps.cache, full, 0, 0, 0, cache_block, policy);
    }
    ring.next();
  };

  const int first_new = max(work.length - p.s_q, 0) / kBlockTokens;
  const int early_end = max(min(min(work.end, work.first + kRing), first_new), work.first);
  for (int block = work.first; block < early_end; ++block) load_block(block);
  sm90::wait_for_previous_kernel();
  sm90::launch_dependents();
  if (lane == 0 && work.has_keys()) {
    const uint32_t full = sm90::smem_address(&smem.queries_full);
    sm90::barrier_expect_bytes(full, sizeof(smem.queries));
    sm90::tma_load(sm90::smem_address(smem.queries), &maps.queries, full, 0, work.tile * kRows, 0, work.seq, policy);
  }
  for (int block = early_end; block < work.end; ++block) load_block(block);
}

// ---- score ------------------------------------------------------------------------------------------------------------

// Joins values of the eight lanes that hold the same columns; `keep(i, value)` gets the i-th column's on one of them.
template <int kCount, typename Join, typename Keep>
__device__ __forceinline__ void join_columns(float (&v)[kCount], Join join, Keep keep) {
  const int lane = threadIdx.x % 32;
  int first = 0, count = kCount;
  bool keeps = true;
#pragma unroll
  for (int step = 16; step >= 4; step /= 2) {
    const bool upper = lane & step;
    if (count == 1) {
      v[0] = join(v[0], __shfl_xor_sync(~0u, v[0], step));
      keeps = keeps && !upper;
      continue;
    }
    count /= 2;  // each of two lanes goes on with half of the columns
    first += upper ? count : 0;
#pragma unroll
    for (int i = 0; i < count; ++i) {
      const float sent = upper ? v[i] : v[i + count], kept = upper ? v[i + count] : v[i];
      v[i] = join(kept, __shfl_xor_sync(~0u, sent, step));
    }
  }
  if (!keeps) return;
#pragma unroll
  for (int i = 0; i < count; ++i) keep(first + i, v[i]);
}

// S^T = K Q^T for the keys of a place of the ring, which must be full.
template <int kRows>
__device__ __forceinline__ void multiply_keys(float (&s)[kRows / 2], const uint8_t (&keys)[kChunks][kColumnBytes],
                                              const uint8_t (&queries)[kChunks][kRows * 128]) {
  constexpr int kChains = 4;  // of products that do not wait for each other
  float chains[kChains][kRows / 2] = {};
  const uint64_t a = sm90::swizzled_descriptor(sm90::smem_address(keys), 0);
  const uint64_t b = sm90::swizzled_descriptor(sm90::smem_address(queries), 0);
#pragma unroll
  for (int k = 0; k < kChains; ++k) sm90::hold(chains[k]);
  sm90::wgmma_fence();
#pragma unroll
  for (int c = 0; c < kChunks; ++c) {
#pragma unroll
    for (int k = 0; k < 4; ++k) {
      sm90::wgmma_m64k16<0>(chains[k], sm90::advance(a, c * kColumnBytes + k * 32), sm90::advance(b, c * kRows * 128 + k * 32));
    }
  }
  sm90::wgmma_commit();
  sm90::wgmma_wait<0>();
#pragma unroll
  for (int k = 0; k < kChains; ++k) sm90::hold(chains[k]);
#pragma unroll
  for (int i = 0; i < kRows / 2; ++i) s[i] = (chains[0][i] + chains[1][i]) + (chains[2][i] + chains[3][i]);
}

template <int kRows, int kRing, int kBlocks>
__device__ __forceinline__ void score_role(ClusterSmem<kRows, kRing, kBlocks> &smem, const ClusterParams &p, const Work &work) {
  using C = Columns<kRows>;
  static_assert(kScoreWarps == 4, "a warpgroup");
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
  if (!work.has_keys()) announce_ready(smem);
  const uint32_t piece = sm90::smem_address(smem.probabilities) + piece_of_weights<kRows>(lane, warp);
  float maximum[C::kCount], sum[C::kCount];
#pragma unroll
  for (int i = 0; i < C::kCount; ++i) maximum[i] = -INFINITY, sum[i] = 0.0f;
  RingPosition<kRing> ring;
  uint32_t parity = 0;

  for (int block = work.first; block < work.end; ++block) {
    float s[kRows / 2];
    sm90::barrier_wait(sm90::smem_address(&smem.full[ring.place]), ring.parity);
    sm90::barrier_wait(sm90::smem_address(&smem.queries_full), 0);
    multiply_keys<kRows>(s, smem.keys[ring.place], smem.queries);
    sm90::barrier_arrive(sm90::smem_address(&smem.scored[ring.place]));
    ring.next();
    if (block == work.end - 1) announce_ready(smem);
    mask_across<kRows>(s, block * kBlockTokens, work.length, work.tile * kRows, p.s_q, p.heads);

    float(&maxima)[kScoreWarps][kRows] = smem.warp_values[(block - work.first) % 2];
    float top[C::kCount];
#pragma unroll
    for (int i = 0; i < C::kCount; ++i) top[i] = fmaxf(s[C::place(i, 0)], s[C::place(i, 1)]);
    join_columns(top, [](float a, float b) { return fmaxf(a, b); },
                 [&](int i, float value) { maxima[warp][C::column(i)] = value; });
    sm90::named_sync<kScoreThreads>(kScoreSync);
    sm90::barrier_wait(sm90::smem_address(&smem.weights_read), parity ^ 1);
    parity ^= 1;
#pragma unroll
    for (int i = 0; i < C::kCount; ++i) {
      const int column = C::column(i);
      const float all = fmaxf(fmaxf(fmaxf(maxima[0][column], maxima[1][column]), fmaxf(maxima[2][column], maxima[3][column])),
                              maximum[i]);
      const float base = all == -INFINITY ? 0.0f : all * p.scale_log2;
      const float factor = sm90::exp2_approx(maximum[i] * p.scale_log2 - base);
      maximum[i] = all;
      sum[i] *= factor;
      if (threadIdx.x < 4) smem.rescale[column] = factor;
#pragma unroll
      for (int r = 0; r < 2; ++r) {
        float &value = s[C::place(i, r)];
        value = sm90::exp2_approx(fmaf(value, p.scale_log2, -base));
        sum[i] += value;
      }
    }
    uint32_t pairs[kRows / 4];
#pragma unroll
    for (int m = 0; m < kRows / 4; ++m) pairs[m] = sm90::pack_bf16(s[m * 2], s[m * 2 + 1]);
    if constexpr (kRows == 16) sm90::store_matrices_across(piece, pairs[0], pairs[1], pairs[2], pairs[3]);
    else sm90::store_matrices_across(piece, pairs[0], pairs[1]);
    sm90::fence_async_proxy();
    sm90::barrier_arrive(sm90::smem_address(&smem.weighed));
  }

  if (work.has_keys()) {
    float(&sums)[kScoreWarps][kRows] = smem.warp_values[(work.end - work.first) % 2];
#pragma unroll
    for (int i = 0; i < C::kCount; ++i) {
      if (threadIdx.x < 4) smem.maximum[C::column(i)] = maximum[i] * p.scale_log2;
    }
    join_columns(sum, [](float a, float b) { return a + b; },
                 [&](int i, float value) { sums[warp][C::column(i)] = value; });
    sm90::named_sync<kScoreThreads>(kScoreSync);
    send_sums(smem, sums, work);
  }
  share_out(smem, p, work);
}

// ---- value ------------------------------------------------------------------------------------------------------------

// The last block's keys past the sequence's end may hold anything, NaN too: 0 x NaN must not reach O.
__device__ __forceinline__ void clear_unused_keys(uint8_t (*columns)[kColumnBytes], int used, uint32_t sync_id) {
  const int thread = threadIdx.x % 128;
  for (int row = used + thread / 32; row < kBlockTokens; row += 4) {
    *reinterpret_cast<int4 *>(columns[thread % 32 / 8] + row * 128 + thread % 8 * 16) = make_int4(0, 0, 0, 0);
  }
  sm90::fence_async_proxy();
  sm90::warpgroup_sync(sync_id);
}

template <int kRows, int kRing, int kBlocks>
__device__ __forceinline__ void value_role(ClusterSmem<kRows, kRing, kBlocks> &smem, const ClusterParams &p, const Work &work,
                                           int side) {
  using C = Columns<kRows>;
  const int lane = threadIdx.x % 32;
  float o[kTilesOfWarp][kRows / 2] = {};
  RingPosition<kRing> ring;
  uint32_t parity = 0;
  for (int block = work.first; block < work.end; ++block) {
    uint8_t(*columns)[kColumnBytes] = smem.keys[ring.place] + side * kTilesOfWarp;
    sm90::barrier_wait(sm90::smem_address(&smem.full[ring.place]), ring.parity);
    sm90::barrier_wait(sm90::smem_address(&smem.scored[ring.place]), ring.parity);
    const int used = work.length - block * kBlockTokens;
    if (used < kBlockTokens) clear_unused_keys(columns, used, kValueSync + side);
    sm90::barrier_wait(sm90::smem_address(&smem.weighed), parity);
    parity ^= 1;
    if (block > work.first) {
#pragma unroll
      for (int i = 0; i < C::kCount; ++i) {
        const float factor = smem.rescale[C::column(i)];
#pragma unroll
        for (int t = 0; t < kTilesOfWarp; ++t) {
          o[t][C::place(i, 0)] *= factor;
          o[t][C::place(i, 1)] *= factor;
        }
      }
    }
    const uint64_t weights = sm90::swizzled_descriptor(sm90::smem_address(smem.probabilities), 0);
#pragma unroll
    for (int t = 0; t < kTilesOfWarp; ++t) sm90::hold(o[t]);
    sm90::wgmma_fence();
    const uint64_t values = sm90::swizzled_descriptor(sm90::smem_address(columns), 0);
#pragma unroll
    for (int k = 0; k < kBlockTokens / 16; ++k) {
#pragma unroll
      for (int t = 0; t < kTilesOfWarp; ++t) {
        sm90::wgmma_m64k16<1>(o[t], sm90::advance(values, t * kColumnBytes + k * 2048), sm90::advance(weights, k * 32));
      }
    }
    sm90::wgmma_commit();
    sm90::wgmma_wait<0>();
#pragma unroll
    for (int t = 0; t < kTilesOfWarp; ++t) sm90::hold(o[t]);
    sm90::barrier_arrive(sm90::smem_address(&smem.weights_read));
    if (lane == 0) sm90::barrier_arrive(sm90::smem_address(&smem.empty[ring.place]));
    ring.next();
  }
  if (work.has_keys()) send_values(smem, o, work, side);
  sm90::barrier_wait(sm90::smem_address(&smem.ready), 0);  // a block must not end before all others have told it so
  sm90::barrier_wait(sm90::smem_address(&smem.shared_out), 0);
  sm90::barrier_wait(sm90::smem_address(&smem.received), 0);
  add_values(smem, p, work);
  if (work.seq_clusters > 1) join_clusters(smem, p, work);
}

// ---- kernel -----------------------------------------------------------------------------------------------------------

constexpr int kThreads = kScoreThreads + kValueThreads + 32;

// Grid: (blocks of a cluster, tiles, clusters of a tile).
template <int kRows, int kRing, int kBlocks>
__global__ void __launch_bounds__(kThreads, sizeof(ClusterSmem<kRows, kRing, kBlocks>) > 113 * 1024 ? 1 : 2)
    decode_cluster_kernel(const __grid_constant__ DecodeMaps maps, const __grid_constant__ ClusterParams p) {
  extern __shared__ __align__(1024) uint8_t raw_smem[];
  auto &smem = *reinterpret_cast<ClusterSmem<kRows, kRing, kBlocks> *>(raw_smem);
  const int warpgroup = __shfl_sync(~0u, threadIdx.x / 128, 0);
  const Work work(p, kBlocks);
  if (work.seq < 0) return;
  if (threadIdx.x == 0) {
    sm90::prefetch_tensor_map(&maps.queries);
    sm90::prefetch_tensor_map(&maps.cache);
    using sm90::barrier_init;
    using sm90::smem_address;
    for (int place = 0; place < kRing; ++place) {
      barrier_init(smem_address(&smem.full[place]), 1);
      barrier_init(smem_address(&smem.empty[place]), kValueWarps);
      barrier_init(smem_address(&smem.scored[place]), kScoreThreads);
    }
    barrier_init(smem_address(&smem.queries_full), 1);
    barrier_init(smem_address(&smem.weighed), kScoreThreads);
    barrier_init(smem_address(&smem.weights_read), kValueThreads);
    barrier_init(smem_address(&smem.ready), kBlocks * kScoreWarps);
    barrier_init(smem_address(&smem.sums_received), 1);
    barrier_init(smem_address(&smem.received), 1);
    barrier_init(smem_address(&smem.shared_out), kScoreThreads);
    sm90::barrier_init_fence();
    constexpr int kGroupBytes = kRows * (kGroupDims * 2 + 4);
    sm90::barrier_expect_bytes(smem_address(&smem.sums_received), work.senders * kRows * 8);
    sm90::barrier_expect_bytes(smem_address(&smem.received), work.senders * (kGroups / kBlocks * kGroupBytes));
  }
  sm90::cluster_sync();
  if (warpgroup == 3) {
    copy_role(smem, maps, p, work);
  } else if (warpgroup == 0) {
    sm90::wait_for_previous_kernel();
    score_role(smem, p, work);
  } else {
    sm90::wait_for_previous_kernel();
    value_role(smem, p, work, warpgroup - 1);
  }
}

}  // namespace mla::cuda::clustered
