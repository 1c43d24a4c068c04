// Split-KV attention over a cache of FP8 latents, for few query rows. docs/kernels.md has the arithmetic.
//
// A thread block owns 16 or 32 query rows and walks the keys of its part of the plan, 64 at a time. Warps, by role:
//   score   eight. S = Q K^T by mma.sync: each over a quarter of the key dimensions, whose queries stay in its registers, for
//           half of the keys. Then, each for eight keys, the softmax, and P times the keys' scales -> shared memory
//   value   eight, each 64 columns of O += P V
//   copy    one, feeds a ring of 41 KB slots: cached tokens are contiguous, so a slot is two bulk copies
// The latents go from the ring into registers as bytes and become BF16 or F16 operands there by shifts and masks. What that
// leaves out, a power of two and the scales, goes into Q, S and P. Nothing dequantised is ever stored.
#pragma once

#include "decode_common.cuh"
#include "decode_fp8.h"
#include "sm90/mma.cuh"
#include "sm90/tma.cuh"
#include "sm90/wgmma.cuh"

namespace mla::cuda {

constexpr int kFp8SlotTokens = 2 * kStepTokens;
constexpr int kFp8StepBytes = kStepTokens * kFp8TokenBytes;
constexpr int kFp8ScalesAt = kValueDim;  // bytes into a token
constexpr int kFp8RopeAt = kValueDim + 4 * 4;
constexpr int kFp8Groups = 4;                // of 128 values with one scale
constexpr int kFp8Slices = 128 / 16;         // of a group: 16 dimensions are one product's
constexpr int kFp8KeyTiles = kFp8SlotTokens / 8;  // eight keys are one product's
constexpr int kFp8ScoreWarps = 8, kFp8ValueWarps = 8;
constexpr int kFp8ColumnsOfWarp = kValueDim / kFp8ValueWarps;
constexpr int kFp8Threads = 640;  // of the last warpgroup only one warp, for the copies
static_assert(kFp8ScoreWarps == 2 * kFp8Groups && kFp8ScoreWarps == kFp8KeyTiles, "a group and half of the keys a warp");
static_assert(kFp8StepBytes % 16 == 0 && kFp8RopeAt + 2 * (kHeadDim - kValueDim) == kFp8TokenBytes, "layout of a token");

// Q and S carry what the latent's BF16 operands lack.
constexpr float kQueryShift = 0x1p100f, kScoreShift = 0x1p20f;
static_assert(kQueryShift * kScoreShift * sm90::kE4m3InBf16 == 1.0f);
// P times scale is at most 2^8 (see kSlack) in units of the running maximum, and F16 has room for 2^15.
constexpr float kWeightShift = 0x1p7f;
constexpr float kOutputShift = 1.0f / (kWeightShift * sm90::kE4m3InF16);
constexpr float kSlack = 8.0f;  // the running maximum moves only when it has grown by 2^8
constexpr float kLeastScale = 0x1p-60f;

// kTiles: 16-row tiles of the block.
template <int kTiles>
struct Fp8Smem {
  static constexpr int kRows = kTiles * 16;
  static constexpr int kRing = kTiles == 1 ? 4 : 3;
  uint8_t ring[kRing][kFp8SlotTokens * kFp8TokenBytes];
  float4 parts[kFp8Groups][kFp8KeyTiles][kTiles][32];           // S of each group, as the lanes of a warp hold it
  uint2 weights[kSlots][kFp8Groups][kFp8KeyTiles][kTiles][32];  // P times the scales of a group, the same way
  float rescale[kSlots][kRows];
  int must_rescale[kSlots];
  float top[2][kFp8ScoreWarps][kRows];  // largest of the warps' keys
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

constexpr uint32_t kFp8HalfSync = 1, kFp8ScoreSync = 3;  // ids of the barriers of each half and of all score warps

// Where lane 4 g + c finds its bytes of a key, in an order in which lanes that read together use different banks; the queries
// follow it. Of a latent group 32 contiguous bytes, four for each slice:
__device__ __forceinline__ int latent_byte(int group) { return group * 128 + threadIdx.x % 4 * 32; }
// Of the rope part 8 bytes, four values, for one slice of each group's warp:
__device__ __forceinline__ int rope_byte(int group) {
  const int c = threadIdx.x % 4;
  return kFp8RopeAt + group * 16 + c % 2 * 8 + c / 2 * 64;
}

// A score warp's queries as operands of its products: its group's slices, then one slice of the rope part.
template <int kTiles>
using Fp8Queries = uint4[kFp8Slices + 1][kTiles];

template <int kTiles>
__device__ __forceinline__ void fp8_load_queries(Fp8Queries<kTiles> &q, const Fp8Params &p, int seq, int first_row, int group) {
  const int lane = threadIdx.x % 32;
  auto shifted = [](uint32_t pair) {
    const float2 v = __bfloat1622float2(*reinterpret_cast<const __nv_bfloat162 *>(&pair));
    return sm90::pack_bf16(v.x * kQueryShift, v.y * kQueryShift);
  };
#pragma unroll
  for (int tile = 0; tile < kTiles; ++tile) {
#pragma unroll
    for (int r = 0; r < 2; ++r) {
      const int row = first_row + tile * 16 + lane / 4 + 8 * r;
      const bool valid = row < p.decode.rows;
      const __nv_bfloat16 *source = p.q + seq * p.q_batch_stride + (valid ? row : 0) * p.q_row_stride;
#pragma unroll
      for (int slice = 0; slice <= kFp8Slices; ++slice) {
        const int dim = slice < kFp8Slices ? latent_byte(group) + slice * 4 : kValueDim + (rope_byte(group) - kFp8RopeAt) / 2;
        uint2 v = *reinterpret_cast<const uint2 *>(source + dim);  // four dimensions
        if (slice < kFp8Slices) {  // bytes 1 and 3 of a word are one operand, 0 and 2 the other
          const uint32_t odd = __byte_perm(v.x, v.y, 0x7632), even = __byte_perm(v.x, v.y, 0x5410);
          v = make_uint2(shifted(odd), shifted(even));
        }
        if (r == 0) {
          q[slice][tile].x = valid ? v.x : 0;
          q[slice][tile].z = valid ? v.y : 0;
        } else {
          q[slice][tile].y = valid ? v.x : 0;
          q[slice][tile].w = valid ? v.y : 0;
        }
      }
    }
  }
}

// 32 bytes of a token in shared memory.
struct KeyBytes {
  uint32_t words[8];
  __device__ explicit KeyBytes(const uint8_t *source) {
    reinterpret_cast<uint4 *>(words)[0] = reinterpret_cast<const uint4 *>(source)[0];
    reinterpret_cast<uint4 *>(words)[1] = reinterpret_cast<const uint4 *>(source)[1];
  }
};

// One group's part of S for four tiles of keys, from `keys` on, to `parts`.
template <int kTiles>
__device__ __forceinline__ void fp8_score_parts(const uint8_t *keys, const Fp8Queries<kTiles> &q, int group,
                                                float4 (*parts)[kTiles][32]) {
  constexpr int kAtOnce = 2;  // tiles of keys: independent chains of products
  const int lane = threadIdx.x % 32;
#pragma unroll
  for (int first = 0; first < kFp8KeyTiles / 2; first += kAtOnce) {
    const uint8_t *mine = keys + (first * 8 + lane / 4) * kFp8TokenBytes;
    const uint8_t *scales = keys + (first * 8 + lane % 4 * 2) * kFp8TokenBytes + kFp8ScalesAt + group * 4;
    const KeyBytes latent[kAtOnce] = {KeyBytes(mine + latent_byte(group)),
                                      KeyBytes(mine + 8 * kFp8TokenBytes + latent_byte(group))};
    float s[kAtOnce][kTiles][4] = {};
#pragma unroll
    for (int slice = 0; slice < kFp8Slices; ++slice) {
#pragma unroll
      for (int i = 0; i < kAtOnce; ++i) {
        const uint32_t word = latent[i].words[slice];
        const uint32_t odd = sm90::upper_e4m3_bf16(word), even = sm90::lower_e4m3_bf16(word);
#pragma unroll
        for (int tile = 0; tile < kTiles; ++tile) sm90::mma_bf16(s[i][tile], q[slice][tile], odd, even);
      }
    }
#pragma unroll
    for (int i = 0; i < kAtOnce; ++i) {
      const uint2 rope = *reinterpret_cast<const uint2 *>(mine + i * 8 * kFp8TokenBytes + rope_byte(group));
      float scale[2];
#pragma unroll
      for (int j = 0; j < 2; ++j) {
        scale[j] = *reinterpret_cast<const float *>(scales + (i * 8 + j) * kFp8TokenBytes) * kScoreShift;
      }
#pragma unroll
      for (int tile = 0; tile < kTiles; ++tile) {
        float(&v)[4] = s[i][tile];
#pragma unroll
        for (int k = 0; k < 4; ++k) v[k] *= scale[k % 2];
        sm90::mma_bf16(v, q[kFp8Slices][tile], rope.x, rope.y);
        parts[first + i][tile][lane] = make_float4(v[0], v[1], v[2], v[3]);
      }
    }
  }
}

// The softmax of a score warp's eight keys of a slot, of which each thread has two for each of its rows, g and g + 8 of every
// tile. The weights that enter F16 operands are P times a scale, so the running maximum is that of score times scale: of
// log2(P) + log2(the key's largest scale).
template <int kTiles>
struct Fp8Softmax {
  float max[kTiles][2], sum[kTiles][2];  // the sum is over this thread's keys only
  float4 scales[2];                      // of the two keys; 0 where there is none
  float largest[2];                      // log2 of the largest of each

  __device__ void start() {
#pragma unroll
    for (int tile = 0; tile < kTiles; ++tile) {
#pragma unroll
      for (int r = 0; r < 2; ++r) {
        max[tile][r] = -INFINITY;
        sum[tile][r] = 0.0f;
      }
    }
  }
  // `used` of the keys from `key` on are there; what follows may be anything, NaN too: 0 x NaN must not reach O.
  __device__ void load_scales(const uint8_t *key, int used) {
#pragma unroll
    for (int j = 0; j < 2; ++j) {
      const float4 v = *reinterpret_cast<const float4 *>(key + j * kFp8TokenBytes + kFp8ScalesAt);
      scales[j] = j < used ? v : make_float4(0.0f, 0.0f, 0.0f, 0.0f);
      largest[j] = sm90::log2_approx(fmaxf(fmaxf(fmaxf(scales[j].x, scales[j].y), fmaxf(scales[j].z, scales[j].w)),
                                           kLeastScale));
    }
  }
};

// Hands 1 / sum to the value warps and writes the log-sum-exp of a finished share.
template <int kTiles>
__device__ __forceinline__ void fp8_publish_sums(Fp8Smem<kTiles> &smem, const DecodeParams &p, const Share &share,
                                                 int first_row, const Fp8Softmax<kTiles> &softmax, uint32_t sum_parity) {
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
  sm90::barrier_wait(sm90::smem_address(&smem.sum_empty), sum_parity ^ 1);
#pragma unroll
  for (int tile = 0; tile < kTiles; ++tile) {
#pragma unroll
    for (int r = 0; r < 2; ++r) {
      float sum = softmax.sum[tile][r];
      sum += __shfl_xor_sync(~0u, sum, 1);
      sum += __shfl_xor_sync(~0u, sum, 2);
      if (lane % 4 == 0) smem.sums[warp][tile * 16 + lane / 4 + 8 * r] = sum;
    }
  }
  sm90::named_sync<kFp8ScoreWarps * 32>(kFp8ScoreSync);
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
        const float lse2 = total > 0.0f ? softmax.max[tile][r] + log2f(total) : -INFINITY;
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

template <int kTiles>
__device__ __forceinline__ void fp8_score_role(Fp8Smem<kTiles> &smem, const Fp8Params &params, int first_row) {
  using Smem = Fp8Smem<kTiles>;
  const DecodeParams &p = params.decode;
  const int lane = threadIdx.x % 32, warp = __shfl_sync(~0u, threadIdx.x / 32, 0);
  const int group = warp % kFp8Groups, half = warp / kFp8Groups;  // of the first part of the work; of the second tile `warp`
  RingPosition<Smem::kRing> ring;
  RingPosition<kSlots> slots;
  uint32_t sum_parity = 0;
  int exchange = 0;
  Fp8Queries<kTiles> q;
  Fp8Softmax<kTiles> softmax;
  auto row_of = [&](int tile, int r) { return tile * 16 + lane / 4 + 8 * r; };

  for (ShareWalk walk(smem.part, p); !walk.done();) {
    const Share share = walk.take();
    softmax.start();
    if (!share.empty()) fp8_load_queries<kTiles>(q, params, share.seq, first_row, group);

    for (int step = share.first_step; step < share.end_step; step += 2) {
      const uint8_t *slot = smem.ring[ring.place];
      sm90::barrier_wait(sm90::smem_address(&smem.full[ring.place]), ring.parity);
      fp8_score_parts<kTiles>(slot + half * kStepTokens * kFp8TokenBytes, q, group,
                              smem.parts[group] + half * (kFp8KeyTiles / 2));
      const int first_key = warp * 8 + lane % 4 * 2;
      const int used = min(share.end_step * kStepTokens, share.length) - step * kStepTokens - first_key;
      softmax.load_scales(slot + first_key * kFp8TokenBytes, used);
      __syncwarp();
      if (lane == 0) sm90::barrier_arrive(sm90::smem_address(&smem.empty[ring.place]));
      ring.next();
      sm90::named_sync<kFp8Groups * 32>(kFp8HalfSync + half);

      float s[kTiles][4];  // log2 of P, but for the maximum
#pragma unroll
      for (int tile = 0; tile < kTiles; ++tile) {
        float4 v[kFp8Groups];
#pragma unroll
        for (int g = 0; g < kFp8Groups; ++g) v[g] = smem.parts[g][warp][tile][lane];
        s[tile][0] = v[0].x + v[1].x + v[2].x + v[3].x;
        s[tile][1] = v[0].y + v[1].y + v[2].y + v[3].y;
        s[tile][2] = v[0].z + v[1].z + v[2].z + v[3].z;
        s[tile][3] = v[0].w + v[1].w + v[2].w + v[3].w;
#pragma unroll
        for (int r = 0; r < 2; ++r) {
          const int hidden = ::max(p.s_q - 1 - (first_row + row_of(tile, r)) / p.heads, 0);  // keys of later queries
          const int seen = min(used, share.length - hidden - step * kStepTokens - first_key);
          float top = -INFINITY;
#pragma unroll
          for (int j = 0; j < 2; ++j) {
            float &value = s[tile][r * 2 + j];
            value = j < seen ? value * p.scale_log2 : -INFINITY;
            top = fmaxf(top, value + softmax.largest[j]);
          }
          top = fmaxf(top, __shfl_xor_sync(~0u, top, 1));
          top = fmaxf(top, __shfl_xor_sync(~0u, top, 2));
          if (lane % 4 == 0) smem.top[exchange][warp][row_of(tile, r)] = top;
        }
      }
      sm90::named_sync<kFp8ScoreWarps * 32>(kFp8ScoreSync);
      sm90::barrier_wait(sm90::smem_address(&smem.p_empty[slots.place]), slots.parity ^ 1);
      bool moved = false;
#pragma unroll
      for (int tile = 0; tile < kTiles; ++tile) {
#pragma unroll
        for (int r = 0; r < 2; ++r) {
          float &max = softmax.max[tile][r];
          float top = -INFINITY;
#pragma unroll
          for (int w = 0; w < kFp8ScoreWarps; ++w) top = fmaxf(top, smem.top[exchange][w][row_of(tile, r)]);
          const bool grown = top > max + kSlack;
          const float rescale = grown ? sm90::exp2_approx(max - top) : 1.0f;
          max = grown ? top : max;
          softmax.sum[tile][r] *= rescale;
          if (warp == 0 && lane % 4 == 0) smem.rescale[slots.place][row_of(tile, r)] = rescale;
          moved = moved || grown;
          const float offset = max == -INFINITY ? 0.0f : max;
#pragma unroll
          for (int j = 0; j < 2; ++j) {
            float &value = s[tile][r * 2 + j];
            value = sm90::exp2_approx(value - offset);
            softmax.sum[tile][r] += value;
          }
        }
      }
      moved = __any_sync(~0u, moved);
      if (warp == 0 && lane == 0) smem.must_rescale[slots.place] = moved;
      exchange ^= 1;
#pragma unroll
      for (int g = 0; g < kFp8Groups; ++g) {
        float scale[2];
#pragma unroll
        for (int j = 0; j < 2; ++j) scale[j] = reinterpret_cast<const float *>(&softmax.scales[j])[g] * kWeightShift;
#pragma unroll
        for (int tile = 0; tile < kTiles; ++tile) {
          smem.weights[slots.place][g][warp][tile][lane] =
              make_uint2(sm90::pack_f16(s[tile][0] * scale[0], s[tile][1] * scale[1]),
                         sm90::pack_f16(s[tile][2] * scale[0], s[tile][3] * scale[1]));
        }
      }
      sm90::barrier_arrive(sm90::smem_address(&smem.p_full[slots.place]));
      slots.next();
    }
    fp8_publish_sums(smem, p, share, first_row, softmax, sum_parity);
    sum_parity ^= 1;
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
  for (int k = 0; k < kFp8KeyTiles; k += 2) {
    uint4 a[kTiles];
#pragma unroll
    for (int tile = 0; tile < kTiles; ++tile) {
      const uint2 first = smem.weights[slot][group][k][tile][lane], second = smem.weights[slot][group][k + 1][tile][lane];
      a[tile] = make_uint4(first.x, first.y, second.x, second.y);
    }
    const uint8_t *source = columns + (k * 8 + lane % 4 * 2) * kFp8TokenBytes + lane / 4 * 8;
    auto eight_bytes = [&](int key) { return *reinterpret_cast<const uint2 *>(source + key * kFp8TokenBytes); };
    const uint2 v0 = eight_bytes(0), v1 = eight_bytes(1), v8 = eight_bytes(8), v9 = eight_bytes(9);
    // Two neighbouring bytes of each of two keys a word.
    auto multiply = [&](int first, uint32_t low, uint32_t high) {
#pragma unroll
      for (int tile = 0; tile < kTiles; ++tile) {
        sm90::mma_f16(o[tile][first], a[tile], sm90::lower_e4m3_f16(low), sm90::lower_e4m3_f16(high));
        sm90::mma_f16(o[tile][first + 1], a[tile], sm90::upper_e4m3_f16(low), sm90::upper_e4m3_f16(high));
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
      const float factor = smem.inverse_sum[row] * kOutputShift;
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
    sm90::take_registers<kTiles == 1 ? 144 : 128>();
    fp8_score_role(smem, p, first_row);
  } else if (warp < kFp8ScoreWarps + kFp8ValueWarps) {
    sm90::take_registers<kTiles == 1 ? 96 : 112>();
    fp8_value_role(smem, p.decode, first_row, warp - kFp8ScoreWarps);
  } else {
    sm90::give_registers<32>();
    if (warp == kFp8ScoreWarps + kFp8ValueWarps) fp8_copy_role(smem, p);
  }
}

}  // namespace mla::cuda
