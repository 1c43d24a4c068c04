// Split-KV attention over a cache of FP8 latents, for few query rows. docs/kernels.md has the arithmetic.
//
// A thread block owns 16 or 32 query rows and walks the keys of its part of the plan, 64 at a time. Warps, by role:
//   score   four, each 16 of the 64 keys: S = Q K^T by mma.sync, the softmax, P times the keys' scales -> shared memory
//   value   eight, each 64 columns of O += P V
//   copy    one, feeds a ring of 41 KB slots: cached tokens are contiguous, so a slot is two bulk copies
// The latents go from the ring into registers as bytes and become BF16 operands there by shifts and masks. What that leaves
// out, a factor of 2^-120 and the scales, goes into Q, S and P. Nothing dequantised is ever stored.
#pragma once

#include "decode_common.cuh"
#include "decode_fp8.h"
#include "sm90/mma.cuh"
#include "sm90/tma.cuh"
#include "sm90/wgmma.cuh"

namespace mla::cuda {

constexpr int kFp8SlotTokens = 2 * kStepTokens;
constexpr int kFp8StepBytes = kStepTokens * kFp8TokenBytes;
constexpr int kFp8ScalesAt = kValueDim;       // bytes into a token
constexpr int kFp8RopeAt = kValueDim + 4 * 4;
constexpr int kFp8Groups = 4;                 // of 128 values with one scale
constexpr int kFp8Slices = kHeadDim / 16;     // of 16 key dimensions: one product's
constexpr int kFp8ScoreWarps = 4, kFp8ValueWarps = 8;
constexpr int kFp8KeysOfWarp = kFp8SlotTokens / kFp8ScoreWarps;
constexpr int kFp8ColumnsOfWarp = kValueDim / kFp8ValueWarps;
constexpr int kFp8Threads = 512;  // of the fourth warpgroup only one warp, for the copies
static_assert(kFp8KeysOfWarp == 16, "P of a score warp is one operand of O += P V");
static_assert(kFp8StepBytes % 16 == 0 && kFp8RopeAt + 2 * (kHeadDim - kValueDim) == kFp8TokenBytes, "layout of a token");

// 2^100 in Q and in P, 2^20 in S and in O together undo the 2^-120 of the operands made from e4m3.
constexpr float kOperandShift = 0x1p100f, kResultShift = 0x1p20f;
static_assert(kOperandShift * kResultShift * sm90::kE4m3Shift == 1.0f);

// kTiles: 16-row tiles of the block.
template <int kTiles>
struct Fp8Smem {
  static constexpr int kRows = kTiles * 16;
  static constexpr int kRing = kTiles == 1 ? 4 : 3;
  uint8_t ring[kRing][kFp8SlotTokens * kFp8TokenBytes];
  uint4 queries[kFp8Slices][kTiles][32];                        // as the lanes of a warp hold them for a product
  uint4 weights[kSlots][kFp8Groups][kFp8ScoreWarps][kTiles][32];  // P times the scales of a group, the same way
  float rescale[kSlots][kRows];
  int must_rescale[kSlots];
  float top[2][kFp8ScoreWarps][kRows];  // largest scores of the warps' keys
  float sums[kFp8ScoreWarps][kRows];
  float inverse_sum[kRows];
  PlanPart part;
  uint64_t full[kRing], empty[kRing];
  uint64_t p_full[kSlots], p_empty[kSlots];
  uint64_t sum_full, sum_empty;
};
static_assert(sizeof(Fp8Smem<2>) <= 227 * 1024 && sizeof(Fp8Smem<1>) <= 227 * 1024, "shared memory of a block");

struct Fp8Params {
  DecodeParams decode;
  const uint8_t *cache;
  const __nv_bfloat16 *q;
  int64_t q_batch_stride, q_row_stride;  // in elements
};

// ---- copy -------------------------------------------------------------------------------------------------------------

template <int kTiles>
__device__ __forceinline__ void fp8_copy_role(Fp8Smem<kTiles> &smem, const Fp8Params &p) {
  const int lane = threadIdx.x % 32;
  const uint64_t policy = sm90::evict_first_policy();
  RingPosition<Fp8Smem<kTiles>::kRing> ring;
  for (ShareWalk walk(smem.part, p.decode); !walk.done();) {
    const Share share = walk.take();
    const int32_t *table = p.decode.block_table + share.seq * p.decode.table_stride;
    // 32 entries of the block table from the first block on, an entry a lane; then the next 32.
    const int first_block = share.first_step / kStepsPerBlock;
    const int end_block = (share.end_step + kStepsPerBlock - 1) / kStepsPerBlock;
    int entry = 0, loaded = first_block;
    for (int step = share.first_step; step < share.end_step; ++step) {
      const int half = (step - share.first_step) % 2;
      const int block = step / kStepsPerBlock;
      if (block == loaded) {
        entry = block + lane < end_block ? __ldg(table + block + lane) : 0;
        loaded += 32;
      }
      const int64_t cache_block = __shfl_sync(~0u, entry, (block - first_block) % 32);
      if (lane != 0) continue;
      const uint32_t barrier = sm90::smem_address(&smem.full[ring.place]);
      if (half == 0) {
        sm90::barrier_wait(sm90::smem_address(&smem.empty[ring.place]), ring.parity ^ 1);
        sm90::barrier_expect_bytes(barrier, min(2, share.end_step - step) * kFp8StepBytes);
      }
      const int64_t token = cache_block * kBlockTokens + step % kStepsPerBlock * kStepTokens;
      sm90::bulk_load(sm90::smem_address(smem.ring[ring.place]) + half * kFp8StepBytes, p.cache + token * kFp8TokenBytes,
                      kFp8StepBytes, barrier, policy);
      if (half == 1 || step + 1 == share.end_step) ring.next();
    }
  }
}

// ---- score ------------------------------------------------------------------------------------------------------------

constexpr uint32_t kFp8ScoreSync = 1;

// The queries of the next sequence, as the operands of the products: of each slice of 16 dimensions lane 4 g + c holds the
// four that KeyBytes has of a key, for rows g and g + 8. The latent's e4m3 operands lack a factor.
template <int kTiles>
__device__ __forceinline__ void fp8_load_queries(Fp8Smem<kTiles> &smem, const Fp8Params &p, int seq, int first_row) {
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
  sm90::warpgroup_sync(kFp8ScoreSync);  // all are done with the queries before
  auto shifted = [](uint32_t pair) {
    const float2 v = __bfloat1622float2(*reinterpret_cast<const __nv_bfloat162 *>(&pair));
    return sm90::pack_bf16(v.x * kOperandShift, v.y * kOperandShift);
  };
#pragma unroll 3
  for (int slice = warp; slice < kFp8Slices; slice += kFp8ScoreWarps) {
    const bool latent = slice < kValueDim / 16;
    const int dim = latent ? slice / 8 * 128 + lane % 4 * 32 + slice % 8 * 4
                           : kValueDim + lane % 4 * 16 + (slice - kValueDim / 16) * 4;
#pragma unroll
    for (int tile = 0; tile < kTiles; ++tile) {
      uint2 v[2];  // dimensions dim .. dim + 3 of two rows
#pragma unroll
      for (int r = 0; r < 2; ++r) {
        const int row = first_row + tile * 16 + lane / 4 + 8 * r;
        v[r] = make_uint2(0, 0);
        if (row < p.decode.rows) {
          v[r] = *reinterpret_cast<const uint2 *>(p.q + seq * p.q_batch_stride + row * p.q_row_stride + dim);
        }
        if (latent) {  // bytes 1 and 3 of a word first, then 0 and 2, as upper_e4m3 and lower_e4m3 take them
          const uint32_t odd = __byte_perm(v[r].x, v[r].y, 0x7632), even = __byte_perm(v[r].x, v[r].y, 0x5410);
          v[r] = make_uint2(shifted(odd), shifted(even));
        }
      }
      smem.queries[slice][tile][lane] = make_uint4(v[0].x, v[1].x, v[0].y, v[1].y);
    }
  }
  sm90::warpgroup_sync(kFp8ScoreSync);
}

// 32 bytes of a token in shared memory.
struct KeyBytes {
  uint32_t words[8];
  __device__ explicit KeyBytes(const uint8_t *source) {
    reinterpret_cast<uint4 *>(words)[0] = reinterpret_cast<const uint4 *>(source)[0];
    reinterpret_cast<uint4 *>(words)[1] = reinterpret_cast<const uint4 *>(source)[1];
  }
};

// What a score warp computes for its 16 keys, as two products of 8: s[half][tile] in the layout of mma_m16n8k16.
template <int kTiles>
using Fp8Scores = float[2][kTiles][4];

// Raw scores. scales[half][j] are those of key 2 c + j of a half, c = lane % 4, times 2^20.
template <int kTiles>
__device__ __forceinline__ void fp8_scores(const Fp8Smem<kTiles> &smem, const uint8_t *keys, const float4 (&scales)[2][2],
                                           Fp8Scores<kTiles> &s) {
  const int lane = threadIdx.x % 32;
  // Lane 4 g + c holds 32 bytes of key g: in this order eight lanes read 16 bytes each from different banks.
  const uint8_t *mine = keys + lane / 4 * kFp8TokenBytes + lane % 4 * 32;
#pragma unroll
  for (int half = 0; half < 2; ++half) {
#pragma unroll
    for (int tile = 0; tile < kTiles; ++tile) {
#pragma unroll
      for (int i = 0; i < 4; ++i) s[half][tile][i] = 0.0f;
    }
  }
  const KeyBytes rope[2] = {KeyBytes(mine + kFp8RopeAt), KeyBytes(mine + 8 * kFp8TokenBytes + kFp8RopeAt)};
#pragma unroll
  for (int j = 0; j < 4; ++j) {
#pragma unroll
    for (int tile = 0; tile < kTiles; ++tile) {
      const uint4 q = smem.queries[kValueDim / 16 + j][tile][lane];
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        sm90::mma_m16n8k16(s[half][tile], q, rope[half].words[2 * j], rope[half].words[2 * j + 1]);
      }
    }
  }
#pragma unroll
  for (int group = 0; group < kFp8Groups; ++group) {
    const KeyBytes latent[2] = {KeyBytes(mine + group * 128), KeyBytes(mine + 8 * kFp8TokenBytes + group * 128)};
    Fp8Scores<kTiles> part = {};
#pragma unroll
    for (int j = 0; j < 8; ++j) {
      uint32_t odd[2], even[2];
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        odd[half] = sm90::upper_e4m3(latent[half].words[j]);
        even[half] = sm90::lower_e4m3(latent[half].words[j]);
      }
#pragma unroll
      for (int tile = 0; tile < kTiles; ++tile) {
        const uint4 q = smem.queries[group * 8 + j][tile][lane];
#pragma unroll
        for (int half = 0; half < 2; ++half) sm90::mma_m16n8k16(part[half][tile], q, odd[half], even[half]);
      }
    }
#pragma unroll
    for (int half = 0; half < 2; ++half) {
#pragma unroll
      for (int tile = 0; tile < kTiles; ++tile) {
#pragma unroll
        for (int i = 0; i < 4; ++i) {
          s[half][tile][i] = fmaf(part[half][tile][i], reinterpret_cast<const float *>(&scales[half][i % 2])[group],
                                  s[half][tile][i]);
        }
      }
    }
  }
}

template <int kTiles>
__device__ __forceinline__ void fp8_score_role(Fp8Smem<kTiles> &smem, const Fp8Params &params, int first_row) {
  using Smem = Fp8Smem<kTiles>;
  const DecodeParams &p = params.decode;
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
  RingPosition<Smem::kRing> ring;
  RingPosition<kSlots> slots;
  uint32_t sum_parity = 0;
  int exchange = 0;
  const float slack = 8.0f / p.scale_log2;  // the maximum moves only when it has grown by 2^8

  for (ShareWalk walk(smem.part, p); !walk.done();) {
    const Share share = walk.take();
    float max[kTiles][2], sum[kTiles][2];  // of rows g and g + 8; the sum over this thread's keys only
    int seen[kTiles][2];
#pragma unroll
    for (int tile = 0; tile < kTiles; ++tile) {
#pragma unroll
      for (int r = 0; r < 2; ++r) {
        max[tile][r] = -INFINITY;
        sum[tile][r] = 0.0f;
        const int row = first_row + tile * 16 + lane / 4 + 8 * r;
        seen[tile][r] = share.length - ::max(p.s_q - 1 - row / p.heads, 0);
      }
    }
    if (!share.empty()) fp8_load_queries(smem, params, share.seq, first_row);

    for (int step = share.first_step; step < share.end_step; step += 2) {
      const int first_key = step * kStepTokens + warp * kFp8KeysOfWarp + lane % 4 * 2;
      const int end_key = min(share.end_step * kStepTokens, share.length);
      const uint8_t *keys = smem.ring[ring.place] + warp * kFp8KeysOfWarp * kFp8TokenBytes;
      sm90::barrier_wait(sm90::smem_address(&smem.full[ring.place]), ring.parity);
      float4 scales[2][2];
#pragma unroll
      for (int half = 0; half < 2; ++half) {
#pragma unroll
        for (int j = 0; j < 2; ++j) {
          float4 v = *reinterpret_cast<const float4 *>(keys + (half * 8 + lane % 4 * 2 + j) * kFp8TokenBytes + kFp8ScalesAt);
          // A key that is not one may have any scale, NaN too: 0 x NaN must not reach O.
          const float factor = kResultShift;
          const bool used = first_key + half * 8 + j < end_key;
          scales[half][j] = used ? make_float4(v.x * factor, v.y * factor, v.z * factor, v.w * factor)
                                 : make_float4(0.0f, 0.0f, 0.0f, 0.0f);
        }
      }
      Fp8Scores<kTiles> s;
      fp8_scores(smem, keys, scales, s);
      __syncwarp();
      if (lane == 0) sm90::barrier_arrive(sm90::smem_address(&smem.empty[ring.place]));
      ring.next();

      // The largest score of each row over all four warps' keys.
#pragma unroll
      for (int tile = 0; tile < kTiles; ++tile) {
#pragma unroll
        for (int r = 0; r < 2; ++r) {
          const int end = min(seen[tile][r], end_key) - first_key;
          float top = -INFINITY;
#pragma unroll
          for (int half = 0; half < 2; ++half) {
#pragma unroll
            for (int j = 0; j < 2; ++j) {
              float &value = s[half][tile][r * 2 + j];
              if (half * 8 + j >= end) value = -INFINITY;
              top = fmaxf(top, value);
            }
          }
          top = fmaxf(top, __shfl_xor_sync(~0u, top, 1));
          top = fmaxf(top, __shfl_xor_sync(~0u, top, 2));
          if (lane % 4 == 0) smem.top[exchange][warp][tile * 16 + lane / 4 + 8 * r] = top;
        }
      }
      sm90::warpgroup_sync(kFp8ScoreSync);
      sm90::barrier_wait(sm90::smem_address(&smem.p_empty[slots.place]), slots.parity ^ 1);
      bool moved = false;
#pragma unroll
      for (int tile = 0; tile < kTiles; ++tile) {
#pragma unroll
        for (int r = 0; r < 2; ++r) {
          const int row = tile * 16 + lane / 4 + 8 * r;
          float top = smem.top[exchange][0][row];
#pragma unroll
          for (int w = 1; w < kFp8ScoreWarps; ++w) top = fmaxf(top, smem.top[exchange][w][row]);
          const bool grown = top > max[tile][r] + slack;
          const float rescale = grown ? sm90::exp2_approx((max[tile][r] - top) * p.scale_log2) : 1.0f;
          max[tile][r] = grown ? top : max[tile][r];
          sum[tile][r] *= rescale;
          if (warp == 0 && lane % 4 == 0) smem.rescale[slots.place][row] = rescale;
          moved = moved || grown;
          const float offset = max[tile][r] == -INFINITY ? 0.0f : -max[tile][r] * p.scale_log2;
#pragma unroll
          for (int half = 0; half < 2; ++half) {
#pragma unroll
            for (int j = 0; j < 2; ++j) {
              float &value = s[half][tile][r * 2 + j];
              value = sm90::exp2_approx(fmaf(value, p.scale_log2, offset));
              sum[tile][r] += value;
            }
          }
        }
      }
      moved = __any_sync(~0u, moved);
      if (warp == 0 && lane == 0) smem.must_rescale[slots.place] = moved;
      exchange ^= 1;

      const float factor = kOperandShift / kResultShift;  // scales hold the latter already
#pragma unroll
      for (int group = 0; group < kFp8Groups; ++group) {
#pragma unroll
        for (int tile = 0; tile < kTiles; ++tile) {
          uint32_t a[4];
#pragma unroll
          for (int half = 0; half < 2; ++half) {
#pragma unroll
            for (int r = 0; r < 2; ++r) {
              const float *v = &s[half][tile][r * 2];
              auto scale = [&](int j) { return reinterpret_cast<const float *>(&scales[half][j])[group] * factor; };
              a[half * 2 + r] = sm90::pack_bf16(v[0] * scale(0), v[1] * scale(1));
            }
          }
          smem.weights[slots.place][group][warp][tile][lane] = make_uint4(a[0], a[1], a[2], a[3]);
        }
      }
      sm90::barrier_arrive(sm90::smem_address(&smem.p_full[slots.place]));
      slots.next();
    }

    // 1 / sum for the value warps, and the log-sum-exp.
    sm90::barrier_wait(sm90::smem_address(&smem.sum_empty), sum_parity ^ 1);
    sum_parity ^= 1;
#pragma unroll
    for (int tile = 0; tile < kTiles; ++tile) {
#pragma unroll
      for (int r = 0; r < 2; ++r) {
        sum[tile][r] += __shfl_xor_sync(~0u, sum[tile][r], 1);
        sum[tile][r] += __shfl_xor_sync(~0u, sum[tile][r], 2);
        if (lane % 4 == 0) smem.sums[warp][tile * 16 + lane / 4 + 8 * r] = sum[tile][r];
      }
    }
    sm90::warpgroup_sync(kFp8ScoreSync);
    if (warp == 0 && lane % 4 == 0) {
#pragma unroll
      for (int tile = 0; tile < kTiles; ++tile) {
#pragma unroll
        for (int r = 0; r < 2; ++r) {
          const int row = tile * 16 + lane / 4 + 8 * r, query_row = first_row + row;
          float total = 0.0f;
#pragma unroll
          for (int w = 0; w < kFp8ScoreWarps; ++w) total += smem.sums[w][row];
          smem.inverse_sum[row] = total > 0.0f ? 1.0f / total : 0.0f;
          if (query_row >= p.rows) continue;
          const float lse2 = total > 0.0f ? max[tile][r] * p.scale_log2 + log2f(total) : -INFINITY;
          if (share.whole()) {
            p.lse[lse_place(p, share.seq, query_row)] = natural_lse(lse2);
          } else {
            p.partial_lse[static_cast<int64_t>(share.slot(p)) * p.rows + query_row] = lse2;
          }
        }
      }
    }
    sm90::barrier_arrive(sm90::smem_address(&smem.sum_full));
  }
}

// ---- value ------------------------------------------------------------------------------------------------------------

// O of 64 columns: o[tile][n] is product n, whose column j is column 8 j + n of the warp's, so that a lane reads 8 bytes of a
// key at a time and has 16 columns in a row of each of its rows.
template <int kTiles>
using Fp8Output = float[kTiles][8][4];

template <int kTiles>
__device__ __forceinline__ void fp8_add_values(const Fp8Smem<kTiles> &smem, const uint8_t *columns, int slot, int group,
                                               Fp8Output<kTiles> &o) {
  const int lane = threadIdx.x % 32;
#pragma unroll
  for (int k = 0; k < kFp8ScoreWarps; ++k) {
    uint4 a[kTiles];
#pragma unroll
    for (int tile = 0; tile < kTiles; ++tile) a[tile] = smem.weights[slot][group][k][tile][lane];
    const uint8_t *source = columns + (k * kFp8KeysOfWarp + lane % 4 * 2) * kFp8TokenBytes + lane / 4 * 8;
    auto eight_bytes = [&](int key) { return *reinterpret_cast<const uint2 *>(source + key * kFp8TokenBytes); };
    const uint2 v0 = eight_bytes(0), v1 = eight_bytes(1), v8 = eight_bytes(8), v9 = eight_bytes(9);
    // Bytes 4 word + 2 i and 4 word + 2 i + 1 of two keys, side by side in the halves.
    auto multiply = [&](int first, uint32_t low, uint32_t high) {
#pragma unroll
      for (int tile = 0; tile < kTiles; ++tile) {
        sm90::mma_m16n8k16(o[tile][first], a[tile], sm90::lower_e4m3(low), sm90::lower_e4m3(high));
        sm90::mma_m16n8k16(o[tile][first + 1], a[tile], sm90::upper_e4m3(low), sm90::upper_e4m3(high));
      }
    };
    multiply(0, __byte_perm(v0.x, v1.x, 0x5410), __byte_perm(v8.x, v9.x, 0x5410));
    multiply(2, __byte_perm(v0.x, v1.x, 0x7632), __byte_perm(v8.x, v9.x, 0x7632));
    multiply(4, __byte_perm(v0.y, v1.y, 0x5410), __byte_perm(v8.y, v9.y, 0x5410));
    multiply(6, __byte_perm(v0.y, v1.y, 0x7632), __byte_perm(v8.y, v9.y, 0x7632));
  }
}

template <int kTiles>
__device__ __forceinline__ void fp8_store_output(const Fp8Smem<kTiles> &smem, const Fp8Output<kTiles> &o,
                                                 const DecodeParams &p, const Share &share, int first_row, int column) {
  const int lane = threadIdx.x % 32;
#pragma unroll
  for (int tile = 0; tile < kTiles; ++tile) {
#pragma unroll
    for (int r = 0; r < 2; ++r) {
      const int row = tile * 16 + lane / 4 + 8 * r, query_row = first_row + row;
      if (query_row >= p.rows) continue;
      const float factor = smem.inverse_sum[row] * kResultShift;
      float v[16];
#pragma unroll
      for (int i = 0; i < 16; ++i) v[i] = o[tile][i % 8][r * 2 + i / 8] * factor;
      const int64_t at = column + lane % 4 * 16;
      if (share.whole()) {
        __nv_bfloat16 *out = p.out + (static_cast<int64_t>(share.seq) * p.rows + query_row) * kValueDim + at;
#pragma unroll
        for (int i = 0; i < 16; i += 8) {
          *reinterpret_cast<uint4 *>(out + i) =
              make_uint4(sm90::pack_bf16(v[i], v[i + 1]), sm90::pack_bf16(v[i + 2], v[i + 3]),
                         sm90::pack_bf16(v[i + 4], v[i + 5]), sm90::pack_bf16(v[i + 6], v[i + 7]));
        }
      } else {
        float *out = p.partial_out + (static_cast<int64_t>(share.slot(p)) * p.rows + query_row) * kValueDim + at;
#pragma unroll
        for (int i = 0; i < 16; i += 4) {
          *reinterpret_cast<float4 *>(out + i) = make_float4(v[i], v[i + 1], v[i + 2], v[i + 3]);
        }
      }
    }
  }
}

template <int kTiles>
__device__ __forceinline__ void fp8_value_role(Fp8Smem<kTiles> &smem, const DecodeParams &p, int first_row, int warp) {
  using Smem = Fp8Smem<kTiles>;
  const int lane = threadIdx.x % 32;
  const int column = warp * kFp8ColumnsOfWarp;
  RingPosition<Smem::kRing> ring;
  RingPosition<kSlots> slots;
  uint32_t sum_parity = 0;
  Fp8Output<kTiles> o;

  for (ShareWalk walk(smem.part, p); !walk.done();) {
    const Share share = walk.take();
#pragma unroll
    for (int tile = 0; tile < kTiles; ++tile) {
#pragma unroll
      for (int n = 0; n < 8; ++n) {
#pragma unroll
        for (int i = 0; i < 4; ++i) o[tile][n][i] = 0.0f;
      }
    }
    for (int step = share.first_step; step < share.end_step; step += 2) {
      sm90::barrier_wait(sm90::smem_address(&smem.full[ring.place]), ring.parity);
      sm90::barrier_wait(sm90::smem_address(&smem.p_full[slots.place]), slots.parity);
      if (smem.must_rescale[slots.place]) {
#pragma unroll
        for (int tile = 0; tile < kTiles; ++tile) {
          const float *factors = smem.rescale[slots.place] + tile * 16 + lane / 4;
#pragma unroll
          for (int n = 0; n < 8; ++n) {
#pragma unroll
            for (int i = 0; i < 4; ++i) o[tile][n][i] *= factors[i / 2 * 8];
          }
        }
      }
      fp8_add_values(smem, smem.ring[ring.place] + column, slots.place, column / 128, o);
      __syncwarp();
      if (lane == 0) {
        sm90::barrier_arrive(sm90::smem_address(&smem.p_empty[slots.place]));
        sm90::barrier_arrive(sm90::smem_address(&smem.empty[ring.place]));
      }
      slots.next();
      ring.next();
    }
    sm90::barrier_wait(sm90::smem_address(&smem.sum_full), sum_parity);
    sum_parity ^= 1;
    fp8_store_output(smem, o, p, share, first_row, column);
    __syncwarp();
    if (lane == 0) sm90::barrier_arrive(sm90::smem_address(&smem.sum_empty));
  }
}

// ---- kernel -----------------------------------------------------------------------------------------------------------

// Grid: (tiles of kTiles x 16 rows, parts).
template <int kTiles>
__global__ void __launch_bounds__(kFp8Threads, 1) decode_fp8_kernel(const __grid_constant__ Fp8Params p) {
  using sm90::barrier_init;
  using sm90::smem_address;
  extern __shared__ __align__(128) uint8_t raw_smem[];
  auto &smem = *reinterpret_cast<Fp8Smem<kTiles> *>(raw_smem);
  const int first_row = blockIdx.x * Fp8Smem<kTiles>::kRows;
  const int warp = __shfl_sync(~0u, threadIdx.x / 32, 0);
  if (threadIdx.x == 0) {
    for (int place = 0; place < Fp8Smem<kTiles>::kRing; ++place) {
      barrier_init(smem_address(&smem.full[place]), 1);
      barrier_init(smem_address(&smem.empty[place]), kFp8ScoreWarps + kFp8ValueWarps);
    }
    for (int slot = 0; slot < kSlots; ++slot) {
      barrier_init(smem_address(&smem.p_full[slot]), kFp8ScoreWarps * 32);
      barrier_init(smem_address(&smem.p_empty[slot]), kFp8ValueWarps);
    }
    barrier_init(smem_address(&smem.sum_full), kFp8ScoreWarps * 32);
    barrier_init(smem_address(&smem.sum_empty), kFp8ValueWarps);
    sm90::barrier_init_fence();
  }
  __syncthreads();
  sm90::wait_for_previous_kernel();
  sm90::launch_dependents();
  if (threadIdx.x < sizeof(PlanPart) / sizeof(int4)) {
    reinterpret_cast<int4 *>(&smem.part)[threadIdx.x] =
        reinterpret_cast<const int4 *>(p.decode.parts + blockIdx.y)[threadIdx.x];
  }
  __syncthreads();
  if (warp < kFp8ScoreWarps) {
    sm90::take_registers<168>();
    fp8_score_role(smem, p, first_row);
  } else if (warp < kFp8ScoreWarps + kFp8ValueWarps) {
    sm90::take_registers<144>();
    fp8_value_role(smem, p.decode, first_row, warp - kFp8ScoreWarps);
  } else {
    sm90::give_registers<56>();
    if (warp == kFp8ScoreWarps + kFp8ValueWarps) fp8_copy_role(smem, p);
  }
}

}  // namespace mla::cuda
