// The split-KV attention kernel. docs/kernels.md has the schedule as a diagram and why it is what it is.
//
// A thread block owns 64 query rows and walks the KV blocks of its part of the plan. Four warpgroups, by role:
//   score   holds the queries, most of them in registers; S = Q K^T in steps of 32 keys, the softmax, writes P
//   value   two of them, each accumulates 64 x 256 of O += P V
//   copy    two warps feed the rings by TMA; the queries of each sequence travel in them as well
#pragma once

#include <cuda_bf16.h>

#include "decode_plan.cuh"
#include "sm90/barrier.cuh"
#include "sm90/tma.cuh"
#include "sm90/wgmma.cuh"

namespace mla::cuda {

struct DecodeParams {
  const int32_t *block_table;
  int64_t table_stride;
  const int32_t *seq_lens;
  const PlanPart *parts;
  __nv_bfloat16 *out;  // [batch, rows, 512]
  float *lse;          // [batch, heads, s_q]
  float *partial_out;  // [2 * parts, rows, 512], each normalised by its own sum
  float *partial_lse;  // [2 * parts, rows], base 2; -inf where no key was seen
  int s_q, heads, rows;
  float scale_log2;  // softmax scale x log2(e)
};

// Boxes of 64 values: queries [batch, rows, 576] by 32 rows; the cache [blocks, 64, 576] by a block's tokens (latent)
// and by a step's (rope), each divided by the cluster's size.
struct DecodeMaps {
  CUtensorMap queries, latent, rope;
};

constexpr int kStages = 3;
constexpr int kChunkBytes = 64 * 128;   // a column of 64 values: 64 rows x 128 bytes, swizzled
constexpr int kStageChunks = 8;         // a stage holds the latent part of a block, which is K and V
constexpr int kGroups = 2;              // barriers of a stage: a group of four chunks is what one value warpgroup reads
constexpr int kGroupBytes = kStageChunks / kGroups * kChunkBytes;
constexpr int kStepTokens = 32;
constexpr int kStepsPerBlock = kBlockTokens / kStepTokens;
constexpr int kRopeSlots = kStepsPerBlock;  // the rope part is K only: a ring of its own, a slot for each step
constexpr int kRopeBytes = kStepTokens * 128;
// Of the queries' 36 slices of 16 values, as many are held in registers as ptxas lets a role of 168 have (it wants 26
// beside the operands of wgmma); one more makes seven chunks, the last two chunks lie in shared memory as they come.
constexpr int kRegisterSlices = 27;
constexpr int kRegisterChunks = 7;
constexpr int kValueWarps = 8;
constexpr int kScoreWarps = 4;
constexpr int kValueColumns = 256;      // of O, for each of the two value warpgroups
constexpr int kDecodeThreads = 512;
static_assert(kTileRows == kBlockTokens, "queries travel in the rings as if they were a block");
static_assert((kStageChunks + 1) * 64 == kHeadDim && 2 * kValueColumns == kValueDim, "latent and rope");

struct DecodeSmem {
  uint8_t stages[kStages][kStageChunks * kChunkBytes];
  uint8_t queries[2][kChunkBytes];         // the last chunk of the latent part, and the rope part
  uint8_t probabilities[kTileRows * 128];  // P: 64 rows x 64 keys, BF16, swizzled; a half a step
  uint8_t rope[kRopeSlots][kRopeBytes];
  uint8_t query_slice[kTileRows * 32];     // slice 27: eight rows x 16 bytes contiguous, then the next 16 bytes of them
  float rescale[kStepsPerBlock][kTileRows];
  int must_rescale[kStepsPerBlock][kScoreWarps];  // for the 16 rows of each warp
  float inverse_sum[kTileRows];
  PlanPart part;
  uint64_t full[kStages][kGroups], empty[kStages];
  uint64_t rope_full[kRopeSlots], rope_empty[kRopeSlots];
  uint64_t p_full[kStepsPerBlock], p_empty[kStepsPerBlock];
  uint64_t sum_full, sum_empty;
};
static_assert(sizeof(DecodeSmem) <= 227 * 1024, "shared memory of a block");

// Position in a ring of kSize places.
template <int kSize>
struct RingPosition {
  int place = 0;
  uint32_t parity = 0;
  __device__ void next() {
    if (++place == kSize) {
      place = 0;
      parity ^= 1;
    }
  }
};

// One sequence's share of a part.
struct Share {
  int seq, length, blocks, first_block, end_block;
  __device__ bool whole() const { return first_block == 0 && end_block == blocks; }
  __device__ int slot() const { return first_block > 0 ? continued_slot(blockIdx.y) : starting_slot(blockIdx.y); }
};

__device__ __forceinline__ int64_t lse_place(const DecodeParams &p, int seq, int row) {
  return (static_cast<int64_t>(seq) * p.heads + row % p.heads) * p.s_q + row / p.heads;
}

// The contract's log-sum-exp from one of base 2: a row that saw no key has +inf.
__device__ __forceinline__ float natural_lse(float lse2) {
  return lse2 == -INFINITY ? INFINITY : lse2 * 0.69314718055994531f;
}

// Walks the sequences of a part; every role walks by itself.
class ShareWalk {
 public:
  __device__ ShareWalk(const PlanPart &part, const int32_t *seq_lens)
      : part_(part), seq_lens_(seq_lens), seq_(part.first_seq), next_length_(part.first_len) {}
  __device__ bool done() const { return seq_ > part_.last_seq; }
  __device__ Share take() {
    Share share;
    share.seq = seq_;
    share.length = next_length_;
    share.blocks = (share.length + kBlockTokens - 1) / kBlockTokens;
    share.first_block = seq_ == part_.first_seq ? part_.first_block : 0;
    share.end_block = seq_ == part_.last_seq ? part_.end_block : share.blocks;
    ++seq_;
    if (!done()) next_length_ = __ldg(seq_lens_ + seq_);
    return share;
  }

 private:
  const PlanPart &part_;
  const int32_t *seq_lens_;
  int seq_, next_length_;
};

// Tells every block of the cluster that this warp is done with a place of a ring: each block feeds the rings of all.
template <int kCluster>
__device__ __forceinline__ void release(const uint64_t &empty, uint32_t arrivals) {
#pragma unroll
  for (uint32_t rank = 0; rank < kCluster; ++rank) {
    sm90::barrier_arrive_remote(sm90::smem_address(&empty), rank, arrivals);
  }
}

// ---- copy -------------------------------------------------------------------------------------------------------------

// Feeds one of the two rings: for each sequence the queries, then its blocks. A whole warp, so that it can hold 32 block
// table entries; `queries(seq)` and `keys(cache_block)` are called by lane 0 and fill the next place or places.
template <typename Queries, typename Keys>
__device__ __forceinline__ void feed_ring(const DecodeSmem &smem, const DecodeParams &p, Queries queries, Keys keys) {
  const int lane = threadIdx.x % 32;
  for (ShareWalk walk(smem.part, p.seq_lens); !walk.done();) {
    Share share = walk.take();
    if (share.first_block >= share.end_block) continue;
    if (lane == 0) queries(share.seq);
    const int32_t *table = p.block_table + share.seq * p.table_stride;
    for (int base = share.first_block; base < share.end_block; base += 32) {
      int count = min(32, share.end_block - base);
      int entry = lane < count ? __ldg(table + base + lane) : 0;
      for (int i = 0; i < count; ++i) {
        int cache_block = __shfl_sync(~0u, entry, i);
        if (lane == 0) keys(cache_block);
      }
    }
  }
}

// The latent part of queries and keys. The blocks of a cluster each load their share of a block's tokens for all.
template <int kCluster>
__device__ __forceinline__ void copy_latent_role(DecodeSmem &smem, const DecodeMaps &maps, const DecodeParams &p,
                                                 int tile) {
  constexpr int kBoxTokens = kBlockTokens / kCluster;
  constexpr int kChunksPerGroup = kStageChunks / kGroups;
  const uint32_t rank = kCluster > 1 ? sm90::cluster_rank() : 0;
  const uint64_t policy = sm90::evict_first_policy();
  RingPosition<kStages> ring;
  auto fill = [&](auto load_chunk) {
    sm90::barrier_wait(sm90::smem_address(&smem.empty[ring.place]), ring.parity ^ 1);
    for (int c = 0; c < kStageChunks; ++c) {
      uint32_t barrier = sm90::smem_address(&smem.full[ring.place][c / kChunksPerGroup]);
      if (c % kChunksPerGroup == 0) sm90::barrier_expect_bytes(barrier, kGroupBytes);
      load_chunk(sm90::smem_address(smem.stages[ring.place]) + c * kChunkBytes, barrier, c * 64);
    }
    ring.next();
  };
  feed_ring(
      smem, p,
      [&](int seq) {
        fill([&](uint32_t target, uint32_t barrier, int x) {
          for (int half = 0; half < 2; ++half) {
            sm90::tma_load(target + half * kRopeBytes, &maps.queries, barrier, x, tile * kTileRows + half * kStepTokens,
                           seq, policy);
          }
        });
      },
      [&](int cache_block) {
        fill([&](uint32_t target, uint32_t barrier, int x) {
          if (kCluster == 1) {
            sm90::tma_load(target, &maps.latent, barrier, x, 0, cache_block, policy);
          } else {
            sm90::tma_load_multicast(target + rank * kBoxTokens * 128, &maps.latent, barrier, x, rank * kBoxTokens,
                                     cache_block, (1 << kCluster) - 1, policy);
          }
        });
        sm90::tma_prefetch(&maps.latent, kValueDim, rank * kBoxTokens, cache_block);  // the rope part, needed later
      });
}

// The rope part, 32 rows at a time.
template <int kCluster>
__device__ __forceinline__ void copy_rope_role(DecodeSmem &smem, const DecodeMaps &maps, const DecodeParams &p,
                                               int tile) {
  constexpr int kBoxTokens = kStepTokens / kCluster;
  const uint32_t rank = kCluster > 1 ? sm90::cluster_rank() : 0;
  const uint64_t policy = sm90::evict_first_policy();
  uint32_t parity = 1;
  auto fill = [&](auto load_half) {
    for (int half = 0; half < kStepsPerBlock; ++half) {
      sm90::barrier_wait(sm90::smem_address(&smem.rope_empty[half]), parity);
      uint32_t barrier = sm90::smem_address(&smem.rope_full[half]);
      sm90::barrier_expect_bytes(barrier, kRopeBytes);
      load_half(sm90::smem_address(smem.rope[half]), barrier, half * kStepTokens);
    }
    parity ^= 1;
  };
  feed_ring(
      smem, p,
      [&](int seq) {
        fill([&](uint32_t target, uint32_t barrier, int row) {
          sm90::tma_load(target, &maps.queries, barrier, kValueDim, tile * kTileRows + row, seq, policy);
        });
      },
      [&](int cache_block) {
        fill([&](uint32_t target, uint32_t barrier, int row) {
          if (kCluster == 1) {
            sm90::tma_load(target, &maps.rope, barrier, kValueDim, row, cache_block, policy);
          } else {
            sm90::tma_load_multicast(target + rank * kBoxTokens * 128, &maps.rope, barrier, kValueDim,
                                     row + rank * kBoxTokens, cache_block, (1 << kCluster) - 1, policy);
          }
        });
      });
}

// ---- score ------------------------------------------------------------------------------------------------------------

// What a thread keeps of the softmax of its two rows, r and r + 8 of its warp's sixteen.
struct RowState {
  float max[2], sum[2];  // the maximum in use, in units of S; the sum is over this thread's keys only
};

// P from S for one step, the running maximum and sum. The maximum only moves when it has grown by a factor of 2^8: what
// is accumulated is exact relative to any maximum, so O is hardly ever rescaled (P stays within BF16's exponents).
__device__ __forceinline__ void softmax_step(DecodeSmem &smem, float (&s)[16], int half, int first_key, int length,
                                             const DecodeParams &p, int tile, RowState &rows, uint32_t p_parity) {
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32 % 4;
  if (first_key + kStepTokens > length - (p.s_q - 1)) {  // some row does not see all of the keys
    int seen[2];
#pragma unroll
    for (int r = 0; r < 2; ++r) {
      int row = tile * kTileRows + warp * 16 + lane / 4 + 8 * r;
      seen[r] = length - max(p.s_q - 1 - row / p.heads, 0) - first_key - lane % 4 * 2;
    }
#pragma unroll
    for (int i = 0; i < 16; ++i) {
      if (i / 4 * 8 + i % 2 >= seen[i / 2 % 2]) s[i] = -INFINITY;
    }
  }
  const float scale_log2 = p.scale_log2;
  const float slack = 8.0f / scale_log2;
  float rescale[2], offset[2];
  bool moved = false;
#pragma unroll
  for (int r = 0; r < 2; ++r) {
    float top = s[2 * r];
#pragma unroll
    for (int i = 0; i < 4; ++i) top = fmaxf(top, fmaxf(s[4 * i + 2 * r], s[4 * i + 2 * r + 1]));
    top = fmaxf(top, __shfl_xor_sync(~0u, top, 1));
    top = fmaxf(top, __shfl_xor_sync(~0u, top, 2));
    rescale[r] = 1.0f;
    if (top > rows.max[r] + slack) {
      rescale[r] = sm90::exp2_approx((rows.max[r] - top) * scale_log2);
      rows.max[r] = top;
      rows.sum[r] *= rescale[r];
      moved = true;
    }
    offset[r] = rows.max[r] == -INFINITY ? 0.0f : rows.max[r] * scale_log2;
  }
  moved = __any_sync(~0u, moved);
#pragma unroll
  for (int i = 0; i < 16; ++i) {
    int r = i / 2 % 2;
    s[i] = sm90::exp2_approx(fmaf(s[i], scale_log2, -offset[r]));
    rows.sum[r] += s[i];
  }

  sm90::barrier_wait(sm90::smem_address(&smem.p_empty[half]), p_parity ^ 1);
  const int row = warp * 16 + lane % 16;
#pragma unroll
  for (int i = 0; i < 2; ++i) {
    int piece = half * 4 + i * 2 + lane / 16;
    uint32_t target = sm90::smem_address(smem.probabilities) + row * 128 + ((piece ^ (row % 8)) << 4);
    const float *v = s + 8 * i;
    sm90::store_matrices(target, sm90::pack_bf16(v[0], v[1]), sm90::pack_bf16(v[2], v[3]), sm90::pack_bf16(v[4], v[5]),
                         sm90::pack_bf16(v[6], v[7]));
  }
  if (moved && lane % 4 == 0) {
    smem.rescale[half][warp * 16 + lane / 4] = rescale[0];
    smem.rescale[half][warp * 16 + lane / 4 + 8] = rescale[1];
  }
  if (lane == 0) smem.must_rescale[half][warp] = moved;
  sm90::fence_async_proxy();
  __syncwarp();
  if (lane == 0) sm90::barrier_arrive(sm90::smem_address(&smem.p_full[half]));
}

using Queries = uint32_t[kRegisterSlices][4];

// Starts S = Q K^T for one step; for the first of a block as its chunks arrive. The rope part comes last: it arrives last.
__device__ __forceinline__ void start_scores(DecodeSmem &smem, float (&s)[16], const Queries &q,
                                             const RingPosition<kStages> &ring, uint32_t rope_parity, int half) {
  const uint64_t keys =
      sm90::swizzled_descriptor(sm90::smem_address(smem.stages[ring.place]) + half * kStepTokens * 128, 0);
  const uint64_t rope_keys = sm90::swizzled_descriptor(sm90::smem_address(smem.rope[half]), 0);
  const uint64_t queries = sm90::swizzled_descriptor(sm90::smem_address(smem.queries[0]), 0);
  sm90::hold(s);
#pragma unroll
  for (int c = 0; c <= kStageChunks; ++c) {
    if (half == 0 && c < kStageChunks && c % (kStageChunks / kGroups) == 0) {
      sm90::barrier_wait(sm90::smem_address(&smem.full[ring.place][c / (kStageChunks / kGroups)]), ring.parity);
    }
    if (c == kStageChunks) sm90::barrier_wait(sm90::smem_address(&smem.rope_full[half]), rope_parity);
    if (c % (kStageChunks / kGroups) == 0) sm90::wgmma_fence();
#pragma unroll
    for (int k = 0; k < 4; ++k) {
      uint64_t b = c < kStageChunks ? sm90::advance(keys, c * kChunkBytes + k * 32) : sm90::advance(rope_keys, k * 32);
      if (c * 4 + k < kRegisterSlices) {
        sm90::wgmma_m64n32k16_ra(s, q[c * 4 + k], b, c + k > 0);
      } else if (c < kRegisterChunks) {
        sm90::wgmma_m64n32k16(s, sm90::plain_descriptor(sm90::smem_address(smem.query_slice), 128, 256), b);
      } else {
        sm90::wgmma_m64n32k16(s, sm90::advance(queries, (c - kRegisterChunks) * kChunkBytes + k * 32), b);
      }
    }
  }
  sm90::wgmma_commit();
}

template <int kPending>
__device__ __forceinline__ void finish_scores(float (&s)[16]) {
  sm90::wgmma_wait<kPending>();
  sm90::hold(s);
}

// Copies one 16-byte piece in 128 a thread: from a ring to where the queries stay. Same layout on both sides.
__device__ __forceinline__ void copy_pieces(uint8_t *target, const uint8_t *source, int bytes) {
  for (int at = threadIdx.x % 128 * 16; at < bytes; at += 128 * 16) {
    *reinterpret_cast<int4 *>(target + at) = *reinterpret_cast<const int4 *>(source + at);
  }
}

constexpr uint32_t kScoreSync = 1, kValueSync = 2;  // ids of the warpgroups' own barriers

// Takes the queries of the next sequence out of the rings: seven chunks into registers, two into shared memory.
template <int kCluster>
__device__ __forceinline__ void load_queries(DecodeSmem &smem, Queries &q, RingPosition<kStages> &ring,
                                             uint32_t rope_parity) {
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32 % 4;
  const int row = warp * 16 + lane % 16;
  const uint8_t *stage = smem.stages[ring.place];
  sm90::warpgroup_sync(kScoreSync);  // all four warps are done with the queries before
#pragma unroll
  for (int group = 0; group < kGroups; ++group) {
    sm90::barrier_wait(sm90::smem_address(&smem.full[ring.place][group]), ring.parity);
  }
#pragma unroll
  for (int k = 0; k < kRegisterSlices; ++k) {
    int piece = k % 4 * 2 + lane / 16;
    sm90::load_matrices(q[k], sm90::smem_address(stage) + row * 128 + k / 4 * kChunkBytes + ((piece ^ (row % 8)) << 4));
  }
  {
    const int slice_row = threadIdx.x % 64, side = threadIdx.x % 128 / 64;
    const int piece = kRegisterSlices % 4 * 2 + side;
    *reinterpret_cast<int4 *>(smem.query_slice + slice_row / 8 * 256 + side * 128 + slice_row % 8 * 16) =
        *reinterpret_cast<const int4 *>(stage + kRegisterSlices / 4 * kChunkBytes + slice_row * 128 +
                                        ((piece ^ (slice_row % 8)) << 4));
  }
  copy_pieces(smem.queries[0], stage + kRegisterChunks * kChunkBytes, kChunkBytes);
  __syncwarp();
  if (lane == 0) release<kCluster>(smem.empty[ring.place], kValueWarps / kScoreWarps);  // the value warps skip it
  ring.next();
  for (int half = 0; half < kStepsPerBlock; ++half) {
    sm90::barrier_wait(sm90::smem_address(&smem.rope_full[half]), rope_parity);
    copy_pieces(smem.queries[1] + half * kRopeBytes, smem.rope[half], kRopeBytes);
    __syncwarp();
    if (lane == 0) release<kCluster>(smem.rope_empty[half], 1);
  }
  sm90::fence_async_proxy();
  sm90::warpgroup_sync(kScoreSync);
}

// Says that S of a step is there: its rope keys have been read.
template <int kCluster>
__device__ __forceinline__ void release_rope(DecodeSmem &smem, int place) {
  if (threadIdx.x % 32 == 0) release<kCluster>(smem.rope_empty[place], 1);
}

// Hands 1 / sum to the value warps and writes the log-sum-exp of a finished share.
__device__ __forceinline__ void publish_sums(DecodeSmem &smem, const DecodeParams &p, const Share &share, int tile,
                                             const RowState &rows, uint32_t sum_parity) {
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32 % 4;
  sm90::barrier_wait(sm90::smem_address(&smem.sum_empty), sum_parity ^ 1);
#pragma unroll
  for (int r = 0; r < 2; ++r) {
    float sum = rows.sum[r];
    sum += __shfl_xor_sync(~0u, sum, 1);
    sum += __shfl_xor_sync(~0u, sum, 2);
    if (lane % 4 != 0) continue;
    const int row = warp * 16 + lane / 4 + 8 * r, query_row = tile * kTileRows + row;
    smem.inverse_sum[row] = sum > 0.0f ? 1.0f / sum : 0.0f;
    if (query_row >= p.rows) continue;
    float lse2 = sum > 0.0f ? rows.max[r] * p.scale_log2 + log2f(sum) : -INFINITY;
    if (share.whole()) {
      p.lse[lse_place(p, share.seq, query_row)] = natural_lse(lse2);
    } else {
      p.partial_lse[static_cast<int64_t>(share.slot()) * p.rows + query_row] = lse2;
    }
  }
  __syncwarp();
  if (lane == 0) sm90::barrier_arrive(sm90::smem_address(&smem.sum_full));
}

template <int kCluster>
__device__ __forceinline__ void score_role(DecodeSmem &smem, const DecodeParams &p, int tile) {
  RingPosition<kStages> ring;
  uint32_t rope_parity = 0, p_parity = 0, sum_parity = 0;
  Queries q;
  float first[16], second[16];  // S of the two steps of a block

  for (ShareWalk walk(smem.part, p.seq_lens); !walk.done();) {
    Share share = walk.take();
    RowState rows;
#pragma unroll
    for (int r = 0; r < 2; ++r) {
      rows.max[r] = -INFINITY;
      rows.sum[r] = 0.0f;
    }
    if (share.first_block < share.end_block) {
      load_queries<kCluster>(smem, q, ring, rope_parity);
      rope_parity ^= 1;
    }
    for (int block = share.first_block; block < share.end_block; ++block) {
      start_scores(smem, first, q, ring, rope_parity, 0);
      start_scores(smem, second, q, ring, rope_parity, 1);
      finish_scores<1>(first);
      release_rope<kCluster>(smem, 0);
      softmax_step(smem, first, 0, block * kBlockTokens, share.length, p, tile, rows, p_parity);
      finish_scores<0>(second);
      release_rope<kCluster>(smem, 1);
      softmax_step(smem, second, 1, block * kBlockTokens + kStepTokens, share.length, p, tile, rows, p_parity);
      rope_parity ^= 1;
      ring.next();
      p_parity ^= 1;
    }
    publish_sums(smem, p, share, tile, rows, sum_parity);
    sum_parity ^= 1;
  }
}

// ---- value ------------------------------------------------------------------------------------------------------------

// The last block's keys past the sequence's end may hold anything, NaN too: 0 x NaN must not reach O.
__device__ __forceinline__ void clear_unused_keys(uint8_t *columns, int first_row, int end_row, uint32_t sync_id) {
  const int thread = threadIdx.x % 128;
  for (int row = first_row + thread / 32; row < end_row; row += 4) {
    int chunk = thread % 32 / 8, piece = thread % 8;
    *reinterpret_cast<int4 *>(columns + chunk * kChunkBytes + row * 128 + piece * 16) = make_int4(0, 0, 0, 0);
  }
  sm90::fence_async_proxy();
  sm90::warpgroup_sync(sync_id);
}

// The four lanes of a quad hold, of each of four 8-column groups, one pair of columns each; afterwards each lane holds
// the four pairs of one group: 16 bytes of BF16.
__device__ __forceinline__ void transpose_quad(uint32_t (&v)[4]) {
  const int lane = threadIdx.x % 4;
#pragma unroll
  for (int step = 1; step <= 2; step *= 2) {
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      if (i & step) continue;
      bool upper = lane & step;
      uint32_t sent = upper ? v[i] : v[i + step];
      uint32_t received = __shfl_xor_sync(~0u, sent, step);
      if (upper) v[i] = received;
      else v[i + step] = received;
    }
  }
}

__device__ __forceinline__ void store_output(const DecodeSmem &smem, float (&o)[64], const DecodeParams &p,
                                             const Share &share, int tile, int column) {
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32 % 4;
#pragma unroll
  for (int r = 0; r < 2; ++r) {
    int row = warp * 16 + lane / 4 + 8 * r, query_row = tile * kTileRows + row;
    float inverse = smem.inverse_sum[row];
    bool valid = query_row < p.rows;
    if (share.whole()) {
      int64_t start = (static_cast<int64_t>(share.seq) * p.rows + query_row) * kValueDim + column + lane % 4 * 8;
#pragma unroll
      for (int group = 0; group < 4; ++group) {
        uint32_t v[4];
#pragma unroll
        for (int i = 0; i < 4; ++i) {
          int at = (group * 4 + i) * 4 + r * 2;
          v[i] = sm90::pack_bf16(o[at] * inverse, o[at + 1] * inverse);
        }
        transpose_quad(v);
        if (valid) *reinterpret_cast<uint4 *>(p.out + start + group * 32) = make_uint4(v[0], v[1], v[2], v[3]);
      }
    } else if (valid) {
      int64_t start = (static_cast<int64_t>(share.slot()) * p.rows + query_row) * kValueDim + column + lane % 4 * 2;
#pragma unroll
      for (int i = 0; i < 16; ++i) {
        *reinterpret_cast<float2 *>(p.partial_out + start + i * 8) =
            make_float2(o[i * 4 + r * 2] * inverse, o[i * 4 + r * 2 + 1] * inverse);
      }
    }
  }
}

template <int kCluster>
__device__ __forceinline__ void value_role(DecodeSmem &smem, const DecodeParams &p, int tile,
                                           int side) {
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32 % 4;
  RingPosition<kStages> ring;
  uint32_t p_parity = 0, sum_parity = 0;
  float left[64], right[64];  // columns of O
  const uint64_t p_rows = sm90::swizzled_descriptor(sm90::smem_address(smem.probabilities), 0);

  for (ShareWalk walk(smem.part, p.seq_lens); !walk.done();) {
    Share share = walk.take();
#pragma unroll
    for (int i = 0; i < 64; ++i) left[i] = right[i] = 0.0f;
    if (share.first_block < share.end_block) ring.next();  // the queries

    for (int block = share.first_block; block < share.end_block; ++block) {
      uint8_t *columns = smem.stages[ring.place] + side * kGroupBytes;
      const int used_keys = share.length - block * kBlockTokens;
      sm90::barrier_wait(sm90::smem_address(&smem.full[ring.place][side]), ring.parity);
#pragma unroll
      for (int half = 0; half < kStepsPerBlock; ++half) {
        sm90::barrier_wait(sm90::smem_address(&smem.p_full[half]), p_parity);
        if (smem.must_rescale[half][warp]) {
          float upper = smem.rescale[half][warp * 16 + lane / 4], lower = smem.rescale[half][warp * 16 + lane / 4 + 8];
#pragma unroll
          for (int i = 0; i < 64; ++i) {
            left[i] *= i / 2 % 2 ? lower : upper;
            right[i] *= i / 2 % 2 ? lower : upper;
          }
        }
        const int end_row = (half + 1) * kStepTokens;
        if (used_keys < end_row) {
          clear_unused_keys(columns, max(used_keys, half * kStepTokens), end_row, kValueSync + side);
        }
        uint64_t values = sm90::swizzled_descriptor(sm90::smem_address(columns), kChunkBytes);
        sm90::hold(left);
        sm90::hold(right);
        sm90::wgmma_fence();
#pragma unroll
        for (int k = half * 2; k < half * 2 + 2; ++k) {
          sm90::wgmma_m64n128k16_t(left, sm90::advance(p_rows, k * 32), sm90::advance(values, k * 16 * 128));
          sm90::wgmma_m64n128k16_t(right, sm90::advance(p_rows, k * 32),
                                   sm90::advance(values, 2 * kChunkBytes + k * 16 * 128));
        }
        sm90::wgmma_commit();
        sm90::wgmma_wait<0>();
        sm90::hold(left);
        sm90::hold(right);
        if (lane == 0) sm90::barrier_arrive(sm90::smem_address(&smem.p_empty[half]));
      }
      if (lane == 0) release<kCluster>(smem.empty[ring.place], 1);
      p_parity ^= 1;
      ring.next();
    }

    sm90::barrier_wait(sm90::smem_address(&smem.sum_full), sum_parity);
    sum_parity ^= 1;
    store_output(smem, left, p, share, tile, side * kValueColumns);
    store_output(smem, right, p, share, tile, side * kValueColumns + kValueColumns / 2);
    __syncwarp();
    if (lane == 0) sm90::barrier_arrive(sm90::smem_address(&smem.sum_empty));
  }
}

// ---- kernel -----------------------------------------------------------------------------------------------------------

template <int kCluster>
__device__ __forceinline__ void init_barriers(DecodeSmem &smem) {
  using sm90::barrier_init;
  using sm90::smem_address;
  for (int stage = 0; stage < kStages; ++stage) {
    for (int group = 0; group < kGroups; ++group) barrier_init(smem_address(&smem.full[stage][group]), 1);
    barrier_init(smem_address(&smem.empty[stage]), kCluster * kValueWarps);
  }
  for (int slot = 0; slot < kRopeSlots; ++slot) {
    barrier_init(smem_address(&smem.rope_full[slot]), 1);
    barrier_init(smem_address(&smem.rope_empty[slot]), kCluster * kScoreWarps);
  }
  for (int half = 0; half < kStepsPerBlock; ++half) {
    barrier_init(smem_address(&smem.p_full[half]), kScoreWarps);
    barrier_init(smem_address(&smem.p_empty[half]), kValueWarps);
  }
  barrier_init(smem_address(&smem.sum_full), kScoreWarps);
  barrier_init(smem_address(&smem.sum_empty), kValueWarps);
  sm90::barrier_init_fence();
}

// Grid: (tiles, parts); the tiles of a cluster are neighbours.
template <int kCluster>
__global__ void __launch_bounds__(kDecodeThreads, 1)
    decode_kernel(const __grid_constant__ DecodeMaps maps, const __grid_constant__ DecodeParams p) {
  extern __shared__ __align__(1024) uint8_t raw_smem[];
  DecodeSmem &smem = *reinterpret_cast<DecodeSmem *>(raw_smem);
  const int tile = blockIdx.x;
  const int warpgroup = __shfl_sync(~0u, threadIdx.x / 128, 0);
  if (threadIdx.x == 0) {
    sm90::prefetch_tensor_map(&maps.queries);
    sm90::prefetch_tensor_map(&maps.latent);
    sm90::prefetch_tensor_map(&maps.rope);
    init_barriers<kCluster>(smem);
  }
  if (kCluster > 1) sm90::cluster_sync();
  else __syncthreads();
  sm90::wait_for_previous_kernel();
  sm90::launch_dependents();

  if (threadIdx.x < sizeof(PlanPart) / sizeof(int4)) {
    reinterpret_cast<int4 *>(&smem.part)[threadIdx.x] =
        reinterpret_cast<const int4 *>(p.parts + blockIdx.y)[threadIdx.x];
  }
  __syncthreads();
  if (warpgroup == 0) {
    sm90::take_registers<168>();
    score_role<kCluster>(smem, p, tile);
  } else if (warpgroup == 3) {
    sm90::give_registers<24>();
    if (threadIdx.x / 32 == 12) copy_latent_role<kCluster>(smem, maps, p, tile);
    if (threadIdx.x / 32 == 13) copy_rope_role<kCluster>(smem, maps, p, tile);
  } else {
    sm90::take_registers<160>();
    value_role<kCluster>(smem, p, tile, warpgroup - 1);
  }
  if (kCluster > 1) sm90::cluster_sync();  // a block's shared memory must outlive its peer's copies and arrivals
}

}  // namespace mla::cuda
