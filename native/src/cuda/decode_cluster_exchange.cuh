// The end of decode_cluster_kernel.cuh: what the thread blocks of a cluster send each other, and what becomes of it.
#pragma once

#include "decode_cluster_common.cuh"
#include "sm90/wgmma.cuh"

namespace mla::cuda::clustered {

// Tells every block of the cluster that this one is done with its queries, so that it may send.
template <int kRows, int kRing, int kBlocks>
__device__ __forceinline__ void announce_ready(ClusterSmem<kRows, kRing, kBlocks> &smem) {
  const int lane = threadIdx.x % 32;
  if (lane < kBlocks) sm90::barrier_arrive_remote(sm90::smem_address(&smem.ready), lane, 1);
}

// Sends maximum and sum of each row to every block of the cluster.
template <int kRows, int kRing, int kBlocks>
__device__ __forceinline__ void send_sums(ClusterSmem<kRows, kRing, kBlocks> &smem, const float (&sums)[kScoreWarps][kRows],
                                          const Work &work) {
  const int row = threadIdx.x % kRows;
  const float2 result = {smem.maximum[row], (sums[0][row] + sums[1][row]) + (sums[2][row] + sums[3][row])};
  const uint32_t target = sm90::smem_address(&smem.sums[row * kBlocks + work.rank]);
  const uint32_t barrier = sm90::smem_address(&smem.sums_received);
#pragma unroll
  for (int i = 0; i < kBlocks; i += kScoreThreads / kRows) {
    const int to = i + threadIdx.x / kRows;
    if (to < kBlocks) sm90::store_remote(sm90::remote_address(target, to), result, sm90::remote_address(barrier, to));
  }
}

// Finds each sender's share in the rows' results, and the log-sum-exp.
template <int kRows, int kRing, int kBlocks>
__device__ __forceinline__ void share_out(ClusterSmem<kRows, kRing, kBlocks> &smem, const ClusterParams &p, const Work &work) {
  constexpr int kAtOnce = kScoreThreads / kBlocks, kRounds = (kRows + kAtOnce - 1) / kAtOnce;
  const int from = threadIdx.x % kBlocks, first_row = threadIdx.x / kBlocks;
  float *shares = reinterpret_cast<float *>(smem.shares);
  float top[kRounds], base[kRounds], total[kRounds];
  float2 mine[kRounds];
  sm90::barrier_wait(sm90::smem_address(&smem.sums_received), 0);
#pragma unroll
  for (int i = 0; i < kRounds; ++i) {
    const int row = first_row + i * kAtOnce;
    mine[i] = from < work.senders && row < kRows ? smem.sums[row * kBlocks + from] : make_float2(-INFINITY, 0.0f);
    top[i] = mine[i].x;
  }
#pragma unroll
  for (int step = 1; step < kBlocks; step *= 2) {
#pragma unroll
    for (int i = 0; i < kRounds; ++i) top[i] = fmaxf(top[i], __shfl_xor_sync(~0u, top[i], step));
  }
#pragma unroll
  for (int i = 0; i < kRounds; ++i) {
    base[i] = top[i] == -INFINITY ? 0.0f : top[i];
    mine[i].x = sm90::exp2_approx(mine[i].x - base[i]);
    total[i] = mine[i].x * mine[i].y;
  }
#pragma unroll
  for (int step = 1; step < kBlocks; step *= 2) {
#pragma unroll
    for (int i = 0; i < kRounds; ++i) total[i] += __shfl_xor_sync(~0u, total[i], step);
  }
#pragma unroll
  for (int i = 0; i < kRounds; ++i) {
    const int row = first_row + i * kAtOnce;
    const float share = total[i] > 0.0f ? __fdividef(mine[i].x, total[i]) : 0.0f;
    if (row < kRows) shares[(row / 2 * kBlocks + from) * 2 + row % 2] = share;
  }
  if (work.seq_clusters == 1) sm90::barrier_arrive(sm90::smem_address(&smem.shared_out));
#pragma unroll
  for (int i = 0; i < kRounds; ++i) {
    const int row = first_row + i * kAtOnce, query_row = work.tile * kRows + row;
    if (from > 0 || row >= kRows || query_row >= p.rows) continue;
    const float lse2 = total[i] > 0.0f ? base[i] + log2f(total[i]) : -INFINITY;
    if (work.seq_clusters > 1) {
      p.sums_lse[(static_cast<int64_t>(work.cluster) * kBlocks + work.rank) * p.rows + query_row] = lse2;
    } else if (work.rank == 0) {
      p.lse[lse_place(p, work.seq, query_row)] = natural_lse(lse2);
    }
  }
  if (work.seq_clusters == 1) return;
  __threadfence();
  sm90::barrier_arrive(sm90::smem_address(&smem.shared_out));
}

// Sends 16 dimensions of O^T after the other to the block of the cluster that adds them up, as F16 times a power of two for each
// row. A lane sends the pairs of rows that it has of both of its dimensions together; lanes with the same rows lie beside each
// other.
template <int kRows, int kRing, int kBlocks>
__device__ __forceinline__ void send_values(ClusterSmem<kRows, kRing, kBlocks> &smem, const float (&o)[kTilesOfWarp][kRows / 2],
                                            const Work &work, int side) {
  using C = Columns<kRows>;
  constexpr int kLocal = kGroups / kBlocks, kWords = kRows / 4;
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32 % 4;
  float top[C::kCount], up[C::kCount], down[C::kCount];
#pragma unroll
  for (int i = 0; i < C::kCount; ++i) {
    top[i] = 0.0f;
#pragma unroll
    for (int t = 0; t < kTilesOfWarp; ++t) {
      top[i] = fmaxf(top[i], fmaxf(fabsf(o[t][C::place(i, 0)]), fabsf(o[t][C::place(i, 1)])));
    }
  }
#pragma unroll
  for (int step = 4; step <= 16; step *= 2) {
#pragma unroll
    for (int i = 0; i < C::kCount; ++i) top[i] = fmaxf(top[i], __shfl_xor_sync(~0u, top[i], step));
  }
#pragma unroll
  for (int i = 0; i < C::kCount; ++i) {
    const HalfScale scale(top[i]);
    up[i] = scale.up;
    down[i] = scale.down;
  }
  const uint32_t received = sm90::smem_address(&smem.received);
  auto group_of = [&](int t) { return (side * kTilesOfWarp + t) * 4 + warp; };
  sm90::barrier_wait(sm90::smem_address(&smem.ready), 0);
#pragma unroll
  for (int t = 0; t < kTilesOfWarp; ++t) {
    const int group = group_of(t), to = group / kLocal;
    uint32_t v[kWords];  // [dimension][pair of rows]
#pragma unroll
    for (int i = 0; i < kWords; ++i) {
      const int r = i / (kWords / 2), g = i % (kWords / 2), at = g * 4 + r * 2;
      v[i] = sm90::pack_f16(o[t][at] * up[2 * g], o[t][at + 1] * up[2 * g + 1]);
    }
    const uint32_t *mine = smem.exchange.values + ((work.rank * kLocal + group % kLocal) * 32 + lane % 4 * 8 + lane / 4) * kWords;
    const uint32_t target = sm90::remote_address(sm90::smem_address(mine), to), barrier = sm90::remote_address(received, to);
    if constexpr (kWords == 4) sm90::store_remote(target, make_uint4(v[0], v[1], v[2], v[3]), barrier);
    else sm90::store_remote(target, make_uint2(v[0], v[1]), barrier);
  }
  // The scales: a quarter of the warp for each tile.
  const int group = group_of(lane / 8), to = group / kLocal, g = lane / 4 % 2;
  if (g >= kRows / 8) return;
  const float2 scale = g == 0 ? make_float2(down[0], down[1]) : make_float2(down[C::kCount - 2], down[C::kCount - 1]);
  const float2 *target = smem.exchange.scales + (group % kLocal * (kRows / 2) + g * 4 + lane % 4) * kBlocks + work.rank;
  sm90::store_remote(sm90::remote_address(sm90::smem_address(target), to), scale, sm90::remote_address(received, to));
}

// Calls use(pair, group, query_row, dim) for the pairs of rows and the value dimensions that a lane joins; a warp takes a pair
// and two groups at a time: 32 dimensions beside each other.
template <int kRows, int kBlocks, typename Use>
__device__ __forceinline__ void for_items(const Work &work, Use use) {
  constexpr int kPairs = kRows / 2, kLocal = kGroups / kBlocks;
  const int lane = threadIdx.x % 32;
  for (int item = threadIdx.x / 32 - kScoreWarps; item < kPairs * kLocal / 2; item += kValueWarps) {
    const int pair = item % kPairs, group = item / kPairs * 2 + lane / 16;
    use(pair, group, work.tile * kRows + pair * 2, (work.rank * kLocal + group) * kGroupDims + lane % 16);
  }
}

__device__ __forceinline__ void store_pair(const ClusterParams &p, const Work &work, int query_row, int dim, float2 values) {
  __nv_bfloat16 *out = p.out + (static_cast<int64_t>(work.seq) * p.rows + query_row) * kValueDim + dim;
  if (query_row < p.rows) out[0] = __float2bfloat16(values.x);
  if (query_row + 1 < p.rows) out[kValueDim] = __float2bfloat16(values.y);
}

// Adds up what the cluster sent of this block's value dimensions. The sums are the result, or go to memory.
template <int kRows, int kRing, int kBlocks>
__device__ __forceinline__ void add_values(const ClusterSmem<kRows, kRing, kBlocks> &smem, const ClusterParams &p,
                                           const Work &work) {
  const int lane = threadIdx.x % 32;
  constexpr int kLocal = kGroups / kBlocks;
  constexpr int kWords = kRows / 4;
  for_items<kRows, kBlocks>(work, [&](int pair, int group, int query_row, int dim) {
    const int word = (pair % 4 * 8 + lane % 8) * kWords + lane / 8 % 2 * (kWords / 2) + pair / 4;
    const auto *scales = reinterpret_cast<const float4 *>(smem.exchange.scales + (group * (kRows / 2) + pair) * kBlocks);
    const auto *shares = reinterpret_cast<const float4 *>(smem.shares + pair * kBlocks);
    float2 sum = {0.0f, 0.0f};
    auto add = [&](int from, float scale_x, float scale_y, float share_x, float share_y) {
      if (from >= work.senders) return;
      const uint32_t two = smem.exchange.values[(from * kLocal + group) * 32 * kWords + word];
      const float2 v = __half22float2(*reinterpret_cast<const __half2 *>(&two));
      sum = make_float2(sum.x + scale_x * share_x * v.x, sum.y + scale_y * share_y * v.y);
    };
#pragma unroll
    for (int from = 0; from < kBlocks; from += 2) {
      const float4 scale = scales[from / 2], share = shares[from / 2];
      add(from, scale.x, scale.y, share.x, share.y);
      add(from + 1, scale.z, scale.w, share.z, share.w);
    }
    if (work.seq_clusters == 1) {
      store_pair(p, work, query_row, dim, sum);
      return;
    }
    float *target = p.sums + (static_cast<int64_t>(work.cluster) * p.rows + query_row) * kValueDim + dim;
    if (query_row < p.rows) target[0] = sum.x;
    if (query_row + 1 < p.rows) target[kValueDim] = sum.y;
  });
}

// Joins the clusters' sums of this block's value dimensions, if this is the last of the blocks that have such sums.
template <int kRows, int kRing, int kBlocks>
__device__ __forceinline__ void join_clusters(ClusterSmem<kRows, kRing, kBlocks> &smem, const ClusterParams &p,
                                              const Work &work) {
  int32_t *arrivals = p.arrivals + ((work.cluster - work.seq_cluster) * gridDim.y + work.tile) * kBlocks + work.rank;
  __threadfence();
  sm90::named_sync<kValueThreads>(kValueSync + 2);
  if (threadIdx.x == kScoreThreads) {
    smem.last = atomicAdd(arrivals, 1) == work.seq_clusters - 1;
    if (smem.last) *arrivals = 0;
    __threadfence();
  }
  sm90::named_sync<kValueThreads>(kValueSync + 2);
  if (!smem.last) return;

  // Lanes 0 to 15 hold the first row's weights of the clusters, the others the second one's.
  static_assert(kMostClusters == 16, "half a warp");
  const int lane = threadIdx.x % 32, k = lane % 16, first = work.cluster - work.seq_cluster;
  for_items<kRows, kBlocks>(work, [&](int, int, int query_row, int dim) {
    const int my_row = query_row + lane / 16;
    const bool mine = k < work.seq_clusters && my_row < p.rows;
    const float lse2 =
        mine ? __ldcg(p.sums_lse + (static_cast<int64_t>(first + k) * kBlocks + work.rank) * p.rows + my_row) : -INFINITY;
    const float *source = p.sums + (static_cast<int64_t>(first) * p.rows + query_row) * kValueDim + dim;
    const bool upper = query_row < p.rows, lower = query_row + 1 < p.rows;
    float top = lse2;
#pragma unroll
    for (int step = 1; step < 16; step *= 2) top = fmaxf(top, __shfl_xor_sync(~0u, top, step));
    const float base = top == -INFINITY ? 0.0f : top;
    float weight = exp2f(lse2 - base), total = weight;
#pragma unroll
    for (int step = 1; step < 16; step *= 2) total += __shfl_xor_sync(~0u, total, step);
    if (work.rank == 0 && mine && k == 0 && dim / 16 == lane / 16) {
      p.lse[lse_place(p, work.seq, my_row)] = natural_lse(total > 0.0f ? base + log2f(total) : -INFINITY);
    }
    weight = total > 0.0f ? weight / total : 0.0f;
    float2 sum = {0.0f, 0.0f};
#pragma unroll 8
    for (int c = 0; c < work.seq_clusters; ++c) {
      const float *from = source + static_cast<int64_t>(c) * p.rows * kValueDim;
      const float x = upper ? __ldcg(from) : 0.0f, y = lower ? __ldcg(from + kValueDim) : 0.0f;
      sum.x += __shfl_sync(~0u, weight, c) * x;
      sum.y += __shfl_sync(~0u, weight, c + 16) * y;
    }
    store_pair(p, work, query_row, dim, sum);
  });
}

}  // namespace mla::cuda::clustered
