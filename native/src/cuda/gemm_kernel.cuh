// The one matrix product kernel: out[i] = x[i] w[g]^T over the rows i of each group g. A group is an expert, a matrix of a
// batch, or the only one. docs/kernels.md tells why it is made so.
//
// Weights are the rows of the tensor cores' product and tokens its columns: a tile is kRows weight rows x up to kTokens
// tokens, and a tile with few tokens costs few cycles, while the weights stream at the memory's pace. Persistent blocks walk
// the tiles; where groups begin and end is read on the device. Warpgroups by role:
//   multiply  one (kRows 64) or two, each kRows / warpgroups weight rows of the tile
//   copy      feeds a ring of stages of 64 values of depth: one warp the weights by TMA, three the token rows, gathered, by
//             cp.async; the two ways are apart so that weights are always in flight
// Every element is summed over the depth in one order whatever the tile: a row's result does not depend on other rows.
#pragma once

#include <cuda.h>
#include <cuda_bf16.h>

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
  int columns, depth;  // of out: weight rows; of x and the weights
  bool keep_out;       // in L2, for what reads it next
};

constexpr int kStepDepth = 64;    // values of depth in a stage: rows of 128 bytes, swizzled
constexpr int kBlockRows = 64;    // weight rows of one product of a warpgroup
constexpr int kBlockBytes = kBlockRows * 128;
constexpr int kBandTokens = 2048;  // that pass by all weights before the next do: L2 holds them
constexpr int kTokenUnit = 32;     // the products' numbers of tokens are multiples of it
constexpr int kGatherThreads = 96, kGatherRows = kGatherThreads / 8;  // eight threads a row of a stage
constexpr int kCopyThreads = kGatherThreads + 32;
constexpr int kResultTokens = 128;  // of a block of results in shared memory
constexpr int kMostGroups = 512;    // with offsets: they lie in shared memory

template <int kRows_, int kTokens_, int kStages_, int kBlocksPerMultiprocessor_>
struct GemmTile {
  static constexpr int kRows = kRows_, kTokens = kTokens_, kStages = kStages_;
  static constexpr int kBlocksPerMultiprocessor = kBlocksPerMultiprocessor_;
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
  int group, first_row, rows;  // tokens
  int column;                  // first weight row
  bool weights_read_once;      // no other tile has the same weights
};

// Walks the tiles of a block, a warp together, every warp by itself. The tiles of a group that share weights are neighbours.
template <class Tile>
class TileWalk {
 public:
  __device__ TileWalk(const GemmParams &p, const int32_t *offsets) : p_(p), offsets_(offsets), next_(blockIdx.x) {
    look_at_groups();
  }

  __device__ bool next(TileWork &work) {
    const int column_tiles = (p_.columns + Tile::kRows - 1) / Tile::kRows;
    while (next_ >= __shfl_sync(~0u, tiles_, 31)) {
      before_ = __shfl_sync(~0u, tiles_, 31);
      first_group_ += 32;
      if (first_group_ >= p_.groups) return false;
      look_at_groups();
    }
    const int lane = __ffs(__ballot_sync(~0u, next_ < tiles_)) - 1;  // that has the tile's group
    const int rows = __shfl_sync(~0u, rows_, lane), begin = __shfl_sync(~0u, begin_, lane);
    const int row_tiles = (rows + Tile::kTokens - 1) / Tile::kTokens;
    const int in_group = next_ - __shfl_sync(~0u, tiles_, lane) + row_tiles * column_tiles;
    constexpr int kBand = kBandTokens / Tile::kTokens;
    const int first_in_band = in_group / (kBand * column_tiles) * kBand;
    const int in_band = in_group - first_in_band * column_tiles;
    const int band = min(kBand, row_tiles - first_in_band);
    // Even shares of the tokens: a tile with few takes nearly as long as a full one.
    const int share = (rows + row_tiles * kTokenUnit - 1) / (row_tiles * kTokenUnit) * kTokenUnit;
    const int row = (first_in_band + in_band % band) * share;
    work.group = first_group_ + lane;
    work.first_row = begin + row;
    work.rows = min(share, rows - row);
    work.column = in_band / band * Tile::kRows;
    work.weights_read_once = row_tiles == 1;
    next_ += gridDim.x;
    return true;
  }

 private:
  // Each lane at one of the next 32 groups.
  __device__ void look_at_groups() {
    const int lane = threadIdx.x % 32, group = first_group_ + lane;
    begin_ = p_.offsets && group < p_.groups ? offsets_[group] : 0;
    rows_ = group >= p_.groups ? 0 : p_.offsets ? offsets_[group + 1] - begin_ : p_.group_rows;
    tiles_ = (rows_ + Tile::kTokens - 1) / Tile::kTokens * ((p_.columns + Tile::kRows - 1) / Tile::kRows);
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

// kAcross: the weights lie by columns, and come as boxes of 64 rows x 64 values of depth.
template <class Tile, bool kAcross>
__device__ __forceinline__ void load_weights(uint32_t target, const CUtensorMap &map, uint32_t barrier, int depth,
                                             const TileWork &work, uint64_t policy) {
  if constexpr (kAcross) {
#pragma unroll
    for (int b = 0; b < Tile::kRows / kBlockRows; ++b) {
      sm90::tma_load(target + b * kBlockBytes, &map, barrier, work.column + b * kBlockRows, depth, work.group, policy);
    }
  } else {
    sm90::tma_load(target, &map, barrier, depth, work.column, work.group, policy);
  }
}

template <class Tile, bool kAcross>
__device__ __forceinline__ void stream_weights(typename Tile::Smem &smem, const CUtensorMap &map, const GemmParams &p) {
  const uint64_t once = sm90::evict_first_policy(), again = sm90::evict_normal_policy();
  Ring<Tile::kStages> ring;
  TileWork work;
  for (TileWalk<Tile> walk(p, smem.offsets); walk.next(work);) {
    for (int depth = 0; depth < p.depth; depth += kStepDepth) {
      const uint32_t full = sm90::smem_address(&smem.full[ring.stage]);
      sm90::barrier_wait(sm90::smem_address(&smem.empty[ring.stage]), ring.parity ^ 1);
      if (threadIdx.x % 32 == 0) {
        sm90::barrier_expect_bytes(full, Tile::kWeightBytes);
        load_weights<Tile, kAcross>(sm90::smem_address(smem.stages[ring.stage]), map, full, depth, work,
                                    work.weights_read_once ? once : again);
      }
      ring.next();
    }
  }
}

template <class Tile>
__device__ __forceinline__ void gather_tokens(typename Tile::Smem &smem, const GemmParams &p) {
  constexpr int kPieces = (Tile::kTokens + kGatherRows - 1) / kGatherRows;
  const int thread = threadIdx.x % kCopyThreads, row = thread / 8, piece = thread % 8;
  static_assert(kGatherRows % 8 == 4, "the swizzle of a thread's rows alternates between two");
  const uint32_t even = Tile::kWeightBytes + row * 128 + ((piece ^ (row % 8)) << 4), odd = even ^ (4 << 4);
  const uint32_t row_pieces = static_cast<uint32_t>(p.x_stride / 8);
  Ring<Tile::kStages> ring;
  TileWork work;
  for (TileWalk<Tile> walk(p, smem.offsets); walk.next(work);) {
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
template <class Tile, bool kAcross, int kCount>
__device__ __forceinline__ void multiply(typename Tile::Smem &smem, int warpgroup, const GemmParams &p,
                                         Ring<Tile::kStages> &ring, float (&sums)[Tile::kBlocks][kCount]) {
  constexpr int kNextDepth = kAcross ? 16 * 128 : 32;  // bytes to the next 16 values of depth
#pragma unroll
  for (int b = 0; b < Tile::kBlocks; ++b) {
#pragma unroll
    for (int i = 0; i < kCount; ++i) sums[b][i] = 0.0f;
    sm90::hold(sums[b]);
  }
  auto release = [&](int stage) {
    if (threadIdx.x % 32 == 0) sm90::barrier_arrive(sm90::smem_address(&smem.empty[stage]));
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
    const uint64_t weights = sm90::swizzled_descriptor(stage + warpgroup * Tile::kBlocks * kBlockBytes, 0);
    const uint64_t tokens = sm90::swizzled_descriptor(stage + Tile::kWeightBytes, 0);
    sm90::wgmma_fence();
#pragma unroll
    for (int k = 0; k < kStepDepth / 16; ++k) {
#pragma unroll
      for (int b = 0; b < Tile::kBlocks; ++b) {
        sm90::wgmma_m64k16<kAcross>(sums[b], sm90::advance(weights, b * kBlockBytes + k * kNextDepth),
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
  for (int b = 0; b < Tile::kBlocks; ++b) sm90::hold(sums[b]);
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

// Writes 64 columns of out from `column` on, in BF16: turned round in shared memory, stored by rows of 128 bytes.
template <int kCount>
__device__ __forceinline__ void store(const float (&sums)[kCount], uint8_t *results, const GemmParams &p,
                                      const TileWork &work, int column, uint32_t sync_id, __nv_bfloat16 *out) {
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32 % 4;
  const int token = lane % 8 + lane / 16 * 8, piece = warp * 2 + lane / 8 % 2;
  const uint32_t place = sm90::smem_address(results) + token * 128 + ((piece ^ (token % 8)) << 4);
  const int part = threadIdx.x % 8;
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
    for (int row = threadIdx.x % 128 / 8; row < rows; row += 16) {
      const int4 values = *reinterpret_cast<const int4 *>(results + row * 128 + ((part ^ (row % 8)) << 4));
      int4 *target = reinterpret_cast<int4 *>(out + (first + row) * p.out_stride + column + part * 8);
      if (p.keep_out) sm90::store_hinted(target, values, keep);
      else *target = values;
    }
  }
}

// The same in float32: a store fills whole sectors of four tokens.
template <int kCount>
__device__ __forceinline__ void store(const float (&sums)[kCount], uint8_t *, const GemmParams &p, const TileWork &work,
                                      int column, uint32_t, float *out) {
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32 % 4;
#pragma unroll
  for (int i = 0; i < kCount; ++i) {
    const int token = i / 4 * 8 + lane % 4 * 2 + i % 2, at = column + warp * 16 + lane / 4 + i / 2 % 2 * 8;
    if (token < work.rows && at < p.columns) out[token * p.out_stride + at] = sums[i];
  }
}

template <class Tile, bool kAcross, class Out, int kTokens>
__device__ __forceinline__ void multiply_and_store(typename Tile::Smem &smem, const GemmParams &p, const TileWork &work,
                                                   int warpgroup, Ring<Tile::kStages> &ring) {
  float sums[Tile::kBlocks][kTokens / 2];
  multiply<Tile, kAcross>(smem, warpgroup, p, ring, sums);
  Out *out = static_cast<Out *>(p.out) + work.group * p.out_group_stride + work.first_row * p.out_stride;
#pragma unroll
  for (int b = 0; b < Tile::kBlocks; ++b) {
    const int column = work.column + (warpgroup * Tile::kBlocks + b) * kBlockRows;
    if (column >= p.columns) break;  // the same for the whole warpgroup
    if (p.bias) add_bias(sums[b], p, column + threadIdx.x / 32 % 4 * 16 + threadIdx.x % 32 / 4);
    store(sums[b], smem.results[warpgroup], p, work, column, kResultSync + warpgroup, out);
  }
}

// Picks the smallest product that holds the tile's tokens.
template <class Tile, bool kAcross, class Out, int kTokens>
__device__ __forceinline__ void multiply_tile(typename Tile::Smem &smem, const GemmParams &p, const TileWork &work,
                                              int warpgroup, Ring<Tile::kStages> &ring) {
  if constexpr (kTokens < Tile::kTokens) {
    if (work.rows > kTokens) {
      multiply_tile<Tile, kAcross, Out, kTokens + kTokenUnit>(smem, p, work, warpgroup, ring);
      return;
    }
  }
  multiply_and_store<Tile, kAcross, Out, kTokens>(smem, p, work, warpgroup, ring);
}

template <class Tile, bool kAcross, class Out>
__device__ __forceinline__ void multiply_role(typename Tile::Smem &smem, const GemmParams &p, int warpgroup) {
  Ring<Tile::kStages> ring;
  TileWork work;
  for (TileWalk<Tile> walk(p, smem.offsets); walk.next(work);) {
    multiply_tile<Tile, kAcross, Out, kTokenUnit>(smem, p, work, warpgroup, ring);
  }
}

// ---- kernel -----------------------------------------------------------------------------------------------------------

// The map is of the weights [groups, columns, depth], boxes of kRows x 64 values; kAcross: of [groups, depth, columns], boxes
// of 64 x 64. Shared memory: Tile::Smem and an offset more for each group.
template <class Tile, bool kAcross, class Out>
__global__ void __launch_bounds__(Tile::kThreads, Tile::kBlocksPerMultiprocessor)
    gemm_kernel(const __grid_constant__ CUtensorMap map, const __grid_constant__ GemmParams p) {
  extern __shared__ __align__(1024) uint8_t raw_smem[];
  typename Tile::Smem &smem = *reinterpret_cast<typename Tile::Smem *>(raw_smem);
  const int warpgroup = __shfl_sync(~0u, threadIdx.x / 128, 0);
  if (threadIdx.x == 0) {
    sm90::prefetch_tensor_map(&map);
    for (int stage = 0; stage < Tile::kStages; ++stage) {
      sm90::barrier_init(sm90::smem_address(&smem.full[stage]), kGatherThreads + 1);
      sm90::barrier_init(sm90::smem_address(&smem.empty[stage]), Tile::kWarpgroups * 4);
    }
    sm90::barrier_init_fence();
  }
  sm90::wait_for_previous_kernel();
  sm90::launch_dependents();
  if (p.offsets) {
    for (int i = threadIdx.x; i <= p.groups; i += Tile::kThreads) smem.offsets[i] = __ldg(p.offsets + i);
  }
  __syncthreads();
  if (warpgroup == Tile::kWarpgroups) {
    if constexpr (Tile::kManySums) sm90::give_registers<80>();
    if (threadIdx.x % kCopyThreads < kGatherThreads) {
      gather_tokens<Tile>(smem, p);
    } else {
      stream_weights<Tile, kAcross>(smem, map, p);
    }
  } else {
    if constexpr (Tile::kManySums) sm90::take_registers<208>();
    multiply_role<Tile, kAcross, Out>(smem, p, warpgroup);
  }
}

}  // namespace mla::cuda
