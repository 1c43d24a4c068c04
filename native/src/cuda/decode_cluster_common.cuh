// What the files of decode_cluster_kernel.cuh share: parameters, shared memory, the division of the work.
#pragma once

#include "decode_across.cuh"
#include "decode_common.cuh"

namespace mla::cuda::clustered {

constexpr int kMostBlocks = 16;    // of a cluster
constexpr int kMostClusters = 16;  // of a sequence
constexpr int kMostSequences = 32;
constexpr int kColumnBytes = kBlockTokens * 128;  // of a cache block: 64 values of each key
constexpr int kScoreThreads = kScoreWarps * 32, kValueThreads = kValueWarps * 32;
constexpr int kTilesOfWarp = kValueDim / 64 / 2;  // 64 rows of O^T each, of a value warpgroup
// O^T of a warp and tile: 16 value dimensions. The blocks of a cluster take equal numbers of these.
constexpr int kGroupDims = 16, kGroups = kValueDim / kGroupDims;

struct ClusterParams : DecodeParams {
  const int32_t *seq_lens;
  int batch;
  int most_alone;  // cache blocks that a thread block takes rather than that the sequence is split
  // Of sequences with several clusters:
  int32_t *arrivals;  // [first cluster][tile][rank], all zero where the kernel begins and where it ends
  float *sums;      // [cluster][rows][512], each normalised by its own sum
  float *sums_lse;  // [cluster][rank][rows], base 2
};

// What the blocks of a cluster send each other. It lies where the queries were.
template <int kRows>
struct Exchange {
  uint32_t values[kRows * kValueDim / 2];  // [from][group][lane][kRows / 4], two F16 each: see send_values
  float2 scales[kGroups * kRows / 2];      // [group][pair of rows][from]: what the values are to be multiplied with
};

template <int kRows, int kRing, int kBlocks>
struct ClusterSmem {
  static_assert(sizeof(Exchange<kRows>) == kChunks * kRows * 128);
  uint8_t keys[kRing][kChunks][kColumnBytes];  // swizzled, as all that the tensor cores read
  union {
    uint8_t queries[kChunks][kRows * 128];
    Exchange<kRows> exchange;
  };
  uint8_t probabilities[kRows * 128];        // rows x 64 keys
  float2 sums[kRows * kBlocks];              // [row][from]: maximum, base 2, and sum of the weights
  float2 shares[kRows / 2 * kBlocks];        // [pair of rows][from]: the senders' shares in the result
  float warp_values[2][kScoreWarps][kRows];  // of the score warps: maxima, at the end sums
  float rescale[kRows], maximum[kRows];
  int last;  // whether this is the last cluster to arrive
  uint64_t queries_full, full[kRing], empty[kRing];
  uint64_t scored[kRing];          // S^T read off the keys; the score warps may be a ring ahead of those that wait for it
  uint64_t weighed, weights_read;  // P written; P and the factors read
  uint64_t ready;                          // all blocks are done with their queries
  uint64_t sums_received, received, shared_out;  // of all senders; the shares
};

__device__ __forceinline__ int warp_sum(int value) { return __reduce_add_sync(~0u, value); }

// The part of a thread block. All blocks find the same division of the work: of each sequence `share` cache blocks a thread
// block, the fewest for which the clusters suffice, or a few more if no sequence then needs a second cluster.
struct Work {
  int seq, tile, length;  // seq < 0: none
  int first, end;         // cache blocks
  int rank, senders;      // in the cluster; the first `senders` have keys
  int cluster, seq_cluster, seq_clusters;  // its number, and its number among those of the sequence

  // By a whole warp.
  __device__ Work(const ClusterParams &p, int blocks) : tile(blockIdx.y), rank(blockIdx.x), cluster(blockIdx.z) {
    const int lane = threadIdx.x % 32;
    const int my_length = lane < p.batch ? __ldg(p.seq_lens + lane) : 0;
    const int mine = (my_length + kBlockTokens - 1) / kBlockTokens;
    int share = max(quotient_up(warp_sum(mine), gridDim.z * blocks), 1), clusters;
    const int alone = max(quotient_up(__reduce_max_sync(~0u, mine), blocks), 1);
    if (alone <= p.most_alone) share = max(share, alone);
    for (;; ++share) {
      clusters = lane < p.batch ? max(quotient_up(mine, share * blocks), 1) : 0;
      if (__reduce_max_sync(~0u, clusters) <= kMostClusters && warp_sum(clusters) <= gridDim.z) break;
    }
    int before = clusters;  // and this one
    for (int step = 1; step < 32; step *= 2) {
      const int other = __shfl_up_sync(~0u, before, step);
      if (lane >= step) before += other;
    }
    seq = __popc(__ballot_sync(~0u, before <= cluster));
    if (seq >= p.batch) {
      seq = -1;
      return;
    }
    length = __shfl_sync(~0u, my_length, seq);
    seq_clusters = __shfl_sync(~0u, clusters, seq);
    seq_cluster = cluster - (__shfl_sync(~0u, before, seq) - seq_clusters);
    const int all = (length + kBlockTokens - 1) / kBlockTokens, start = min(seq_cluster * blocks * share, all);
    senders = min(quotient_up(all - start, share), blocks);
    first = min(start + rank * share, all);
    end = min(first + share, all);
  }
  __device__ bool has_keys() const { return first < end; }
};

constexpr uint32_t kScoreSync = 1;              // ids of barriers: the score warps,
constexpr uint32_t kValueSync = kScoreSync + 1;  // one value warpgroup, the next one the other, then both

}  // namespace mla::cuda::clustered
