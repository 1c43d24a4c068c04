// moe_sort: a stable counting sort of (token, choice) pairs by expert, in one cluster of thread blocks.
//
// The pairs are cut into as many runs as there are warps. Every warp counts the experts of its run, the blocks add up who
// comes before whom, and every warp walks its run a second time and hands out places in order.
#include <cooperative_groups.h>

#include "kernel.cuh"
#include "ops.h"
#include "rows.cuh"

namespace mla::cuda {
namespace {

namespace cg = cooperative_groups;

constexpr int kWarps = 32;
constexpr int kThreads = kWarps * 32;
constexpr int kCluster = 8;

struct Sort {
  const int32_t *experts;
  int32_t *rows, *places, *offsets;
  int64_t expert_stride, place_stride;
  int pairs, top_k, count;  // count: of experts
  int bits;                 // of an expert's number
  int run;                  // pairs of a warp, a multiple of 32
};

// The lanes of `there` that have the same expert. Bit by bit: what the hardware offers takes a step for each expert met.
__device__ __forceinline__ unsigned same_expert(unsigned there, int expert, int bits) {
  unsigned same = there;
  for (int bit = 0; bit < bits; bit++) {
    const bool set = expert >> bit & 1;
    const unsigned others = __ballot_sync(there, set);
    same &= set ? others : ~others;
  }
  return same;
}

// Calls body(pair, expert, there, same) for the run's pairs, 32 at a time and in order; there: the lanes that have a pair,
// same: those with the same expert.
template <class Body>
__device__ __forceinline__ void walk_run(const Sort &p, int run, Body body) {
  const int lane = static_cast<int>(threadIdx.x) % 32;
  const int begin = run * p.run;
  const int end = min(begin + p.run, p.pairs);
  for (int first = begin; first < end; first += 32) {
    const int pair = first + lane;
    const unsigned there = __ballot_sync(~0u, pair < end);
    if (pair < end) {
      const int expert = p.experts[pair / p.top_k * p.expert_stride + pair % p.top_k];
      body(pair, expert, there, same_expert(there, expert, p.bits));
    }
    __syncwarp();
  }
}

// In place exclusive prefix sum of values[0, count) by one warp.
__device__ void prefix_sum(int *values, int count) {
  const int lane = static_cast<int>(threadIdx.x) % 32;
  int carry = 0;
  for (int first = 0; first < count; first += 32) {
    const int own = first + lane < count ? values[first + lane] : 0;
    const int before = warp_prefix(own);
    if (first + lane < count) {
      values[first + lane] = carry + before;
    }
    carry += __shfl_sync(~0u, before + own, 31);
  }
}

__global__ void __launch_bounds__(kThreads, 1) sort_kernel(Sort p) {
  extern __shared__ int shared[];
  const int stride = p.count | 1;          // odd, so that a column lies in different banks
  int *counts = shared;                    // [kWarps, stride]: of each warp's run, then its next places
  int *totals = counts + kWarps * stride;  // [count]: of this block's runs
  int *starts = totals + p.count;          // [count]: of all runs, then where each expert's pairs begin
  const cg::cluster_group cluster = cg::this_cluster();
  const int rank = static_cast<int>(cluster.block_rank());
  const int blocks = static_cast<int>(cluster.num_blocks());
  const int lane = static_cast<int>(threadIdx.x) % 32;
  const int warp = static_cast<int>(threadIdx.x) / 32;
  int *own = counts + warp * stride;
  for (int e = lane; e < p.count; e += 32) {
    own[e] = 0;
  }
  __syncwarp();
  begin_kernel();
  walk_run(p, rank * kWarps + warp, [&](int, int expert, unsigned, unsigned same) {
    if (lane == __ffs(same) - 1) {
      own[expert] += __popc(same);
    }
  });
  __syncthreads();
  for (int e = warp; e < p.count; e += kWarps) {  // a lane a run
    const int runs = counts[lane * stride + e];
    const int before = warp_prefix(runs);
    counts[lane * stride + e] = before;
    if (lane == 31) {
      totals[e] = before + runs;
    }
  }
  cluster.sync();
  for (int e = warp; e < p.count; e += kWarps) {  // a lane a block, then a lane a run
    const int theirs = lane < blocks ? *cluster.map_shared_rank(totals + e, lane) : 0;
    const int before = warp_prefix(theirs);
    counts[lane * stride + e] += __shfl_sync(~0u, before, rank);
    if (lane == 31) {
      starts[e] = before;
    }
  }
  cluster.sync();  // also: nobody reads another block's memory from here on
  if (warp == 0) {
    prefix_sum(starts, p.count);
  }
  __syncthreads();
  if (rank == 0) {
    for (int e = threadIdx.x; e < p.count; e += kThreads) {
      p.offsets[e] = starts[e];
    }
    if (threadIdx.x == 0) {
      p.offsets[p.count] = p.pairs;
    }
  }
  walk_run(p, rank * kWarps + warp, [&](int pair, int expert, unsigned there, unsigned same) {
    const int place = starts[expert] + own[expert] + __popc(same & ((1u << lane) - 1));
    __syncwarp(there);
    if (lane == __ffs(same) - 1) {
      own[expert] += __popc(same);
    }
    p.rows[place] = pair / p.top_k;
    p.places[pair / p.top_k * p.place_stride + pair % p.top_k] = place;
  });
}

}  // namespace

void moe_sort(const Device &device, const mla_tensor &experts, const mla_tensor &rows, const mla_tensor &places,
              const mla_tensor &offsets) {
  const int64_t pairs = experts.shape[0] * experts.shape[1];
  if (pairs > INT32_MAX / 2) {
    unsupported("mla_moe_sort", "experts", experts);
  }
  Sort p = {};
  p.experts = static_cast<const int32_t *>(experts.data);
  p.rows = static_cast<int32_t *>(rows.data);
  p.places = static_cast<int32_t *>(places.data);
  p.offsets = static_cast<int32_t *>(offsets.data);
  p.expert_stride = experts.stride[0];
  p.place_stride = places.stride[0];
  p.pairs = static_cast<int>(pairs);
  p.top_k = static_cast<int>(std::max<int64_t>(1, experts.shape[1]));
  p.count = static_cast<int>(offsets.shape[0] - 1);
  while (p.count > 1 << p.bits) {
    p.bits++;
  }
  const int blocks = pairs <= kThreads ? 1 : kCluster;
  p.run = static_cast<int>(ceil_div(ceil_div(pairs, static_cast<int64_t>(blocks) * kWarps), 32) * 32);
  const int64_t shared_bytes = static_cast<int64_t>(sizeof(int)) * (kWarps * (p.count | 1) + 2 * p.count);
  launch(device, "mla_moe_sort", {blocks, kThreads, shared_bytes, blocks}, sort_kernel, p);
}

}  // namespace mla::cuda
