// The one matrix product kernel: out[i] = x[i] w[g]^T over the rows i of each group g. A group is an expert, a matrix of a
// batch, or the only one. docs/products.md tells why it is made so.
//
// Weights are the rows of the tensor cores' product and tokens its columns: a tile is kRows weight rows x up to kTokens
// tokens, and a tile with few tokens costs few cycles, while the weights stream at the memory's pace. Persistent blocks, or
// clusters of two that share a tile's weights and have tokens of their own, walk the tiles; where groups begin and end is
// read on the device. Warpgroups by role:
//   multiply  one (kRows 64) or two, each kRows / warpgroups weight rows of the tile
//   copy      feeds a ring of stages of 64 values of depth: one warp the weights by TMA, three the token rows, gathered, by
//             cp.async; the two ways are apart so that weights are always in flight. To clusters tokens that lie in order
//             come by TMA, too
// Every element is summed over the depth in one order whatever the tile: a row's result does not depend on other rows.
#pragma once

#include <cuda.h>
#include <cuda_bf16.h>

#include <type_traits>

#include "silu.cuh"
#include "sm90/barrier.cuh"
#include "sm90/copy_async.cuh"
#include "sm90/tma.cuh"
#include "sm90/wgmma.cuh"
#include "sm90/wgmma_tokens.cuh"

namespace mla::cuda {

struct GemmParams {
  const __nv_bfloat16 *x;
  const int32_t *rows;         // the row of x of row i of out; NULL: i itself
  const int32_t *offsets;      // group g has rows [offsets[g], offsets[g + 1]); NULL: each has [0, group_rows)
  const __nv_bfloat16 *bias;   // [columns] or NULL
  void *out;
  int64_t x_stride, x_group_stride;  // in elements, multiples of 8; group strides are 0 where there are offsets
  int64_t out_stride, out_group_stride;
  int groups, group_rows;
  int columns, depth;  // of out; of x and the weights
  bool keep_out;       // in L2, for what reads it next
};

constexpr int kStepDepth = 64;    // values of depth in a stage: rows of 128 bytes, swizzled
constexpr int kBlockRows = 64;    // weight rows of one product of a warpgroup
constexpr int kBlockBytes = kBlockRows * 128;
constexpr int kBandTokens = 2048;  // that pass by all weights before the next do: L2 holds them
constexpr int kLeastTokens = 32;   // of a product of the tensor cores
constexpr int kGatherThreads = 96, kGatherRows = kGatherThreads / 8;  // eight threads a row of a stage
constexpr int kCopyThreads = kGatherThreads + 32;
constexpr int kResultTokens = 128;  // of a block of results in shared memory
constexpr int kMostGroups = 512;    // with offsets: they lie in shared memory

// kCluster: blocks that share weights, each with kTokens tokens of its own.
template <int kRows_, int kTokens_, int kStages_, int kBlocksPerMultiprocessor_, int kCluster_ = 1>
struct GemmTile {
  static constexpr int kRows = kRows_, kTokens = kTokens_, kStages = kStages_;
  static constexpr int kBlocksPerMultiprocessor = kBlocksPerMultiprocessor_, kCluster = kCluster_;
  static constexpr int kSpan = kTokens * kCluster;         // tokens of a cluster
  static constexpr int kTokenUnit = kCluster > 1 ? 16 : 32;  // the products' numbers of tokens are multiples of it
  static constexpr int kWarpgroups = kRows == 64 ? 1 : 2;  // that multiply
  static constexpr int kBlocks = kRows / kBlockRows / kWarpgroups;  // of a warpgroup
  static constexpr int kThreads = kWarpgroups * 128 + kCopyThreads;
  static constexpr int kWeightBytes = kRows * 128, kStageBytes = kWeightBytes + kTokens * 128;
  static constexpr bool kManySums = kTokens * kBlocks > 128;  // more registers for the multiplying, fewer for the copying

  struct Smem {
    uint8_t stages[kStages][kStageBytes];  // weights, then tokens
    // 64 weight rows of out of each warpgroup, a token a row of 128 bytes, swizzled
    uint8_t results[kWarpgroups][(kTokens < kResultTokens ? kTokens : kResultTokens) * 128];
    uint64_t full[kStages], empty[kStages];
    int32_t offsets[1];  // of the groups, as many as there are
  };
  static_assert((sizeof(Smem) + 1024) * kBlocksPerMultiprocessor <= 228 * 1024, "shared memory of a multiprocessor");
};

// What is stored: the sums, or silu(gate) * up of the sums of the first and the second half of the weight rows.
enum class GemmOut { kBf16, kFloat, kSiluMul };

// kAcross: the weights lie by columns.
template <class Tile, bool kAcross_, GemmOut kOut_>
struct GemmKind : Tile {
  static constexpr bool kAcross = kAcross_;
  static constexpr GemmOut kOut = kOut_;
  // With silu a block of 64 weight rows has 32 of gate and the 32 of up for the same columns of out.
  static constexpr int kBlockColumns = kOut == GemmOut::kSiluMul ? kBlockRows / 2 : kBlockRows;
  static constexpr int kColumns = Tile::kRows / kBlockRows * kBlockColumns;  // of out
  // Weights come in boxes, which the blocks of a cluster divide among themselves.
  static constexpr int kBoxRows = kAcross || kOut == GemmOut::kSiluMul ? kBlockRows : Tile::kRows / Tile::kCluster;
  static constexpr int kBoxes = Tile::kRows / Tile::kCluster / kBoxRows;
  using Element = std::conditional_t<kOut == GemmOut::kFloat, float, __nv_bfloat16>;
};

// Position in the ring.
template <int kStages>
struct Ring {
  int stage = 0;
  uint32_t parity = 0;
  __device__ __forceinline__ void next() {
    if (++stage == kStages) {
      stage = 0;
      parity ^= 1;
    }
  }
};

struct TileWork {
  int group, first_row, rows;  // tokens; rows may be 0 in a cluster
  int column;                  // of out, the first
  bool weights_read_once;      // no other tile has the same weights
};

// Walks the tiles of a block, a warp together, every warp by itself. The tiles of a group that share weights are neighbours.
template <class Kind>
class TileWalk {
 public:
  __device__ TileWalk(const GemmParams &p, const int32_t *offsets)
      : p_(p), offsets_(offsets), next_(blockIdx.x / Kind::kCluster) {
    look_at_groups();
  }

  __device__ bool next(TileWork &work) {
    const int column_tiles = (p_.columns + Kind::kColumns - 1) / Kind::kColumns;
    while (next_ >= __shfl_sync(~0u, tiles_, 31)) {
      before_ = __shfl_sync(~0u, tiles_, 31);
      first_group_ += 32;
      if (first_group_ >= p_.groups) return false;
      look_at_groups();
    }
    const int lane = __ffs(__ballot_sync(~0u, next_ < tiles_)) - 1;  // that has the tile's group
    const int rows = __shfl_sync(~0u, rows_, lane), begin = __shfl_sync(~0u, begin_, lane);
    const int row_tiles = (rows + Kind::kSpan - 1) / Kind::kSpan;
    const int in_group = next_ - __shfl_sync(~0u, tiles_, lane) + row_tiles * column_tiles;
    constexpr int kBand = kBandTokens / Kind::kSpan;
    const int first_in_band = in_group / (kBand * column_tiles) * kBand;
    const int in_band = in_group - first_in_band * column_tiles;
    const int band = min(kBand, row_tiles - first_in_band);
    // Even shares of the tokens: a tile with few takes nearly as long as a full one.
    const int shares = row_tiles * Kind::kCluster;
    const int share = (rows + shares * Kind::kTokenUnit - 1) / (shares * Kind::kTokenUnit) * Kind::kTokenUnit;
    const int row = ((first_in_band + in_band % band) * Kind::kCluster + blockIdx.x % Kind::kCluster) * share;
    work.group = first_group_ + lane;
    work.first_row = begin + row;
    work.rows = max(0, min(share, rows - row));
    work.column = in_band / band * Kind::kColumns;
    work.weights_read_once = row_tiles == 1;
    next_ += gridDim.x / Kind::kCluster;
    return true;
  }

 private:
  // Each lane at one of the next 32 groups.
  __device__ void look_at_groups() {
    const int lane = threadIdx.x % 32, group = first_group_ + lane;
    begin_ = p_.offsets && group < p_.groups ? offsets_[group] : 0;
    rows_ = group >= p_.groups ? 0 : p_.offsets ? offsets_[group + 1] - begin_ : p_.group_rows;
    tiles_ = (rows_ + Kind::kSpan - 1) / Kind::kSpan * ((p_.columns + Kind::kColumns - 1) / Kind::kColumns);
#pragma unroll
    for (int step = 1; step < 32; step *= 2) {
      const int below = __shfl_up_sync(~0u, tiles_, step);
      if (lane >= step) tiles_ += below;
    }
    tiles_ += before_;
  }

  const GemmParams &p_;
  const int32_t *offsets_;
  int next_, first_group_ = 0, before_ = 0;  // before_: tiles of the groups before the 32
  int begin_, rows_, tiles_;                 // of this lane's group; tiles_: of all groups up to it
};

// ---- copy -------------------------------------------------------------------------------------------------------------

// This block's part of a stage's weights, for all blocks of the cluster.
template <class Kind>
__device__ __forceinline__ void load_weights(uint32_t target, const CUtensorMap &map, uint32_t barrier, int depth,
                                             const TileWork &work, uint64_t policy) {
#pragma unroll
  for (int b = 0; b < Kind::kBoxes; ++b) {
    const int box = blockIdx.x % Kind::kCluster * Kind::kBoxes + b;
    int x = depth, y = work.column + box * Kind::kBoxRows, z = work.group;
    if constexpr (Kind::kOut == GemmOut::kSiluMul) {
      y = work.column + box * Kind::kBlockColumns;
      z *= 2;
    } else if constexpr (Kind::kAcross) {
      x = y;
      y = depth;
    }
    const uint32_t to = target + box * Kind::kBoxRows * 128;
    if constexpr (Kind::kCluster > 1) {
      sm90::tma_load_multicast(to, &map, barrier, x, y, z, (1 << Kind::kCluster) - 1, policy);
    } else {
      sm90::tma_load(to, &map, barrier, x, y, z, policy);
    }
  }
}

// Whether tokens come by TMA, a box of all that a tile can have: for few it would fetch too many.
template <class Kind>
__device__ __forceinline__ bool streams_tokens(const GemmParams &p) {
  return Kind::kCluster > 1 && p.rows == nullptr;
}

template <class Kind>
__device__ __forceinline__ void stream(typename Kind::Smem &smem, const CUtensorMap &weights, const CUtensorMap &tokens,
                                       const GemmParams &p) {
  const uint64_t once = sm90::evict_first_policy(), again = sm90::evict_normal_policy();
  Ring<Kind::kStages> ring;
  TileWork work;
  for (TileWalk<Kind> walk(p, smem.offsets); walk.next(work);) {
    for (int depth = 0; depth < p.depth; depth += kStepDepth) {
      const uint32_t full = sm90::smem_address(&smem.full[ring.stage]);
      sm90::barrier_wait(sm90::smem_address(&smem.empty[ring.stage]), ring.parity ^ 1);
      if (threadIdx.x % 32 == 0) {
        const uint32_t stage = sm90::smem_address(smem.stages[ring.stage]);
        sm90::barrier_expect_bytes(full, streams_tokens<Kind>(p) ? Kind::kStageBytes : Kind::kWeightBytes);
        load_weights<Kind>(stage, weights, full, depth, work, work.weights_read_once ? once : again);
        if (streams_tokens<Kind>(p)) {
          sm90::tma_load(stage + Kind::kWeightBytes, &tokens, full, depth, work.first_row, p.offsets ? 0 : work.group,
                         again);
        }
      }
      ring.next();
    }
  }
}

template <class Kind>
__device__ __forceinline__ void gather_tokens(typename Kind::Smem &smem, const GemmParams &p) {
  constexpr int kPieces = (Kind::kTokens + kGatherRows - 1) / kGatherRows;
  const int thread = threadIdx.x % kCopyThreads, row = thread / 8, piece = thread % 8;
  static_assert(kGatherRows % 8 == 4, "the swizzle of a thread's rows alternates between two");
  const uint32_t even = Kind::kWeightBytes + row * 128 + ((piece ^ (row % 8)) << 4), odd = even ^ (4 << 4);
  const uint32_t row_pieces = static_cast<uint32_t>(p.x_stride / 8);
  Ring<Kind::kStages> ring;
  TileWork work;
  for (TileWalk<Kind> walk(p, smem.offsets); walk.next(work);) {
    const int first = work.first_row + row;
    const int32_t *rows = p.rows + first;
    uint32_t sources[kPieces];  // in units of 16 bytes
#pragma unroll
    for (int i = 0; i < kPieces; ++i) {
      if (row + i * kGatherRows < work.rows) {
        const int index = p.rows ? __ldg(rows + i * kGatherRows) : first + i * kGatherRows;
        sources[i] = static_cast<uint32_t>(index) * row_pieces;
      }
    }
    const uint8_t *base = reinterpret_cast<const uint8_t *>(p.x + work.group * p.x_group_stride) + piece * 16;
    for (int depth = 0; depth < p.depth; depth += kStepDepth) {
      const uint32_t stage = sm90::smem_address(smem.stages[ring.stage]);
      sm90::barrier_wait(sm90::smem_address(&smem.empty[ring.stage]), ring.parity ^ 1);
      const uint32_t bytes = depth + piece * 8 < p.depth ? 16 : 0;  // past the depth: zeros, as TMA gives for weights
#pragma unroll
      for (int i = 0; i < kPieces; ++i) {
        // What a stage holds for tokens that are not there reaches only columns that are not written.
        if (row + i * kGatherRows < work.rows) {
          sm90::copy16_async(stage + (i % 2 ? odd : even) + i * (kGatherRows * 128),
                             base + static_cast<uint64_t>(sources[i]) * 16, bytes);
        }
      }
      base += kStepDepth * 2;
      sm90::barrier_arrive_after_copies(sm90::smem_address(&smem.full[ring.stage]));
      ring.next();
    }
  }
}

// ---- multiply ---------------------------------------------------------------------------------------------------------

constexpr uint32_t kResultSync = 1;  // and 2: the multiplying warpgroups' own barriers

// sums: for each block of 64 weight rows, x tokens, as wgmma leaves them: a thread has those of rows r and r + 8 of its
// warp's sixteen, of tokens 2 (lane % 4) and the next in each group of eight.
template <class Kind, int kCount>
__device__ __forceinline__ void multiply(typename Kind::Smem &smem, int warpgroup, const GemmParams &p,
                                         Ring<Kind::kStages> &ring, float (&sums)[Kind::kBlocks][kCount]) {
  constexpr int kNextDepth = Kind::kAcross ? 16 * 128 : 32;  // bytes to the next 16 values of depth
#pragma unroll
  for (int b = 0; b < Kind::kBlocks; ++b) {
#pragma unroll
    for (int i = 0; i < kCount; ++i) sums[b][i] = 0.0f;
    sm90::hold(sums[b]);
  }
  auto release = [&](int stage) {
    const uint32_t empty = sm90::smem_address(&smem.empty[stage]), lane = threadIdx.x % 32;
    if constexpr (Kind::kCluster > 1) {  // each block fills the stages of all
      if (lane < Kind::kCluster) sm90::barrier_arrive_remote(empty, lane, 1);
    } else {
      if (lane == 0) sm90::barrier_arrive(empty);
    }
  };
  int previous = -1;  // the stage whose products may be under way
  for (int done = 0; done < p.depth; done += kStepDepth) {
    const uint32_t full = sm90::smem_address(&smem.full[ring.stage]);
    // Where the copies are waited for, every stage counts: finish with the last one first.
    if (previous >= 0 && !__all_sync(~0u, sm90::barrier_test(full, ring.parity))) {
      sm90::wgmma_wait<0>();
      release(previous);
      previous = -1;
    }
    sm90::barrier_wait(full, ring.parity);
    sm90::fence_async_proxy();  // the tokens came by ordinary copies
    const uint32_t stage = sm90::smem_address(smem.stages[ring.stage]);
    const uint64_t weights = sm90::swizzled_descriptor(stage + warpgroup * Kind::kBlocks * kBlockBytes, 0);
    const uint64_t tokens = sm90::swizzled_descriptor(stage + Kind::kWeightBytes, 0);
    sm90::wgmma_fence();
#pragma unroll
    for (int k = 0; k < kStepDepth / 16; ++k) {
#pragma unroll
      for (int b = 0; b < Kind::kBlocks; ++b) {
        sm90::wgmma_m64k16<Kind::kAcross>(sums[b], sm90::advance(weights, b * kBlockBytes + k * kNextDepth),
                                    sm90::advance(tokens, k * 32));
      }
    }
    sm90::wgmma_commit();
    sm90::wgmma_wait<1>();
    if (previous >= 0) release(previous);
    previous = ring.stage;
    ring.next();
  }
  sm90::wgmma_wait<0>();
#pragma unroll
  for (int b = 0; b < Kind::kBlocks; ++b) sm90::hold(sums[b]);
  if (previous >= 0) release(previous);
}

// Adds bias[column] to the sums of weight rows `column` and `column` + 8.
template <int kCount>
__device__ __forceinline__ void add_bias(float (&sums)[kCount], const GemmParams &p, int column) {
#pragma unroll
  for (int r = 0; r < 2; ++r) {
    const float term = column + 8 * r < p.columns ? __bfloat162float(p.bias[column + 8 * r]) : 0.0f;
#pragma unroll
    for (int i = 0; i < kCount; i += 4) {
      sums[i + 2 * r] += term;
      sums[i + 2 * r + 1] += term;
    }
  }
}

// silu(gate) * up of two BF16 values each.
__device__ __forceinline__ uint32_t silu_mul_pair(uint32_t gates, uint32_t ups) {
  auto low = [](uint32_t pair) { return __uint_as_float(pair << 16); };
  auto high = [](uint32_t pair) { return __uint_as_float(pair & 0xFFFF0000u); };
  return sm90::pack_bf16(silu_mul(low(gates), low(ups)), silu_mul(high(gates), high(ups)));
}

// Writes the kBlockColumns columns of out from `column` on, in BF16: turned round in shared memory, a token a row of 128
// bytes, and stored by rows. With silu such a row has 32 gates, then the 32 ups.
template <class Kind, int kCount>
__device__ __forceinline__ void store(const float (&sums)[kCount], uint8_t *results, const GemmParams &p,
                                      const TileWork &work, int column, uint32_t sync_id, __nv_bfloat16 *out) {
  constexpr int kParts = Kind::kBlockColumns / 8;  // of a row of out, 16 bytes each
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32 % 4;
  const int token = lane % 8 + lane / 16 * 8, piece = warp * 2 + lane / 8 % 2;
  const uint32_t place = sm90::smem_address(results) + token * 128 + ((piece ^ (token % 8)) << 4);
  const int part = threadIdx.x % kParts;
  const uint64_t keep = sm90::evict_last_policy();
#pragma unroll
  for (int first = 0; first < kCount * 2; first += kResultTokens) {
    if (first >= work.rows) break;
    sm90::warpgroup_sync(sync_id);  // what was there has been read
#pragma unroll
    for (int i = first / 2; i < kCount && i < (first + kResultTokens) / 2; i += 8) {  // 16 tokens
      const float *v = sums + i;
      sm90::store_matrices_across(place + (i - first / 2) * 256, sm90::pack_bf16(v[0], v[1]),
                                  sm90::pack_bf16(v[2], v[3]), sm90::pack_bf16(v[4], v[5]),
                                  sm90::pack_bf16(v[6], v[7]));
    }
    sm90::warpgroup_sync(sync_id);
    if (column + part * 8 >= p.columns) continue;
    const int rows = min(work.rows - first, kResultTokens);
    for (int row = threadIdx.x % 128 / kParts; row < rows; row += 128 / kParts) {
      const uint8_t *pieces = results + row * 128;
      auto piece_of = [&](int at) { return *reinterpret_cast<const uint4 *>(pieces + ((at ^ (row % 8)) << 4)); };
      uint4 values = piece_of(part);
      if constexpr (Kind::kOut == GemmOut::kSiluMul) {
        const uint4 ups = piece_of(part + kParts);
        values = {silu_mul_pair(values.x, ups.x), silu_mul_pair(values.y, ups.y), silu_mul_pair(values.z, ups.z),
                  silu_mul_pair(values.w, ups.w)};
      }
      uint4 *target = reinterpret_cast<uint4 *>(out + (first + row) * p.out_stride + column + part * 8);
      if (p.keep_out) sm90::store_hinted(target, values, keep);
      else *target = values;
    }
  }
}

// The same in float32: a store fills whole sectors of four tokens.
template <class Kind, int kCount>
__device__ __forceinline__ void store(const float (&sums)[kCount], uint8_t *, const GemmParams &p, const TileWork &work,
                                      int column, uint32_t, float *out) {
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32 % 4;
#pragma unroll
  for (int i = 0; i < kCount; ++i) {
    const int token = i / 4 * 8 + lane % 4 * 2 + i % 2, at = column + warp * 16 + lane / 4 + i / 2 % 2 * 8;
    if (token < work.rows && at < p.columns) out[token * p.out_stride + at] = sums[i];
  }
}

template <class Kind, int kTokens>
__device__ __forceinline__ void multiply_and_store(typename Kind::Smem &smem, const GemmParams &p, const TileWork &work,
                                                   int warpgroup, Ring<Kind::kStages> &ring) {
  float sums[Kind::kBlocks][kTokens / 2];
  multiply<Kind>(smem, warpgroup, p, ring, sums);
  auto *out = static_cast<typename Kind::Element *>(p.out) + work.group * p.out_group_stride +
              work.first_row * p.out_stride;
#pragma unroll
  for (int b = 0; b < Kind::kBlocks; ++b) {
    const int column = work.column + (warpgroup * Kind::kBlocks + b) * Kind::kBlockColumns;
    if (column >= p.columns) break;  // the same for the whole warpgroup
    if (p.bias) add_bias(sums[b], p, column + threadIdx.x / 32 % 4 * 16 + threadIdx.x % 32 / 4);
    store<Kind>(sums[b], smem.results[warpgroup], p, work, column, kResultSync + warpgroup, out);
  }
}

// Picks the smallest product that holds the tile's tokens.
template <class Kind, int kTokens>
__device__ __forceinline__ void multiply_tile(typename Kind::Smem &smem, const GemmParams &p, const TileWork &work,
                                              int warpgroup, Ring<Kind::kStages> &ring) {
  if constexpr (kTokens < Kind::kTokens) {
    if (work.rows > kTokens) {
      multiply_tile<Kind, kTokens + Kind::kTokenUnit>(smem, p, work, warpgroup, ring);
      return;
    }
  }
  multiply_and_store<Kind, kTokens>(smem, p, work, warpgroup, ring);
}

template <class Kind>
__device__ __forceinline__ void multiply_role(typename Kind::Smem &smem, const GemmParams &p, int warpgroup) {
  Ring<Kind::kStages> ring;
  TileWork work;
  for (TileWalk<Kind> walk(p, smem.offsets); walk.next(work);) {
    multiply_tile<Kind, kLeastTokens>(smem, p, work, warpgroup, ring);
  }
}

// ---- kernel -----------------------------------------------------------------------------------------------------------

// The map of the weights: [groups, columns, depth], boxes of kBoxRows x 64 values; with silu [2 groups, columns, depth],
// boxes of 2 x 32 x 64; kAcross: [groups, depth, columns], boxes of 64 x 64. Of the tokens, where they come by TMA:
// [groups, rows, depth], or with offsets [1, rows, depth], boxes of kTokens x 64. Shared memory: Kind::Smem and an offset
// more for each group.
template <class Kind>
__global__ void __launch_bounds__(Kind::kThreads, Kind::kBlocksPerMultiprocessor)
    gemm_kernel(const __grid_constant__ CUtensorMap weights, const __grid_constant__ CUtensorMap tokens,
                const __grid_constant__ GemmParams p) {
  extern __shared__ __align__(1024) uint8_t raw_smem[];
  typename Kind::Smem &smem = *reinterpret_cast<typename Kind::Smem *>(raw_smem);
  const int warpgroup = __shfl_sync(~0u, threadIdx.x / 128, 0);
  if (threadIdx.x == 0) {
    sm90::prefetch_tensor_map(&weights);
    if (streams_tokens<Kind>(p)) sm90::prefetch_tensor_map(&tokens);
    const uint32_t copiers = streams_tokens<Kind>(p) ? 1 : kGatherThreads + 1;
    for (int stage = 0; stage < Kind::kStages; ++stage) {
      sm90::barrier_init(sm90::smem_address(&smem.full[stage]), copiers);
      sm90::barrier_init(sm90::smem_address(&smem.empty[stage]), Kind::kWarpgroups * 4 * Kind::kCluster);
    }
    sm90::barrier_init_fence();
  }
  sm90::wait_for_previous_kernel();
  sm90::launch_dependents();
  if (p.offsets) {
    for (int i = threadIdx.x; i <= p.groups; i += Kind::kThreads) smem.offsets[i] = __ldg(p.offsets + i);
  }
  __syncthreads();
  if constexpr (Kind::kCluster > 1) sm90::cluster_sync();
  if (warpgroup == Kind::kWarpgroups) {
    if constexpr (Kind::kManySums) sm90::give_registers<80>();
    if (threadIdx.x % kCopyThreads >= kGatherThreads) {
      stream<Kind>(smem, weights, tokens, p);
    } else if (!streams_tokens<Kind>(p)) {
      gather_tokens<Kind>(smem, p);
    }
  } else {
    if constexpr (Kind::kManySums) sm90::take_registers<208>();
    multiply_role<Kind>(smem, p, warpgroup);
  }
  if constexpr (Kind::kCluster > 1) sm90::cluster_sync();  // its memory must outlive the others' copies and arrivals
}

}  // namespace mla::cuda
