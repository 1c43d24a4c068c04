// The score warps of the FP8 decode kernel: queries, products, softmax. Eight of them; each multiplies a quarter of the key
// dimensions, whose queries stay in its registers, with half of the keys of a slot, and weighs eight keys.
#pragma once

#include "decode_fp8_common.cuh"
#include "sm90/copy_async.cuh"
#include "sm90/wgmma.cuh"

namespace mla::cuda {

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

// Loads the queries of a warp's group; the latent part as F16. For its range each row is multiplied by a power of two, which
// brings its largest magnitude close to F16's largest, and S by the inverse: `factor`, of rows g and g + 8 of each tile.
template <int kTiles>
__device__ __forceinline__ void fp8_load_queries(Fp8Smem<kTiles> &smem, Fp8Queries<kTiles> &q, float (&factor)[kTiles][2],
                                                 const Fp8Params &p, int seq, int first_row, int group) {
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
  auto pair_of = [](uint32_t bits) { return *reinterpret_cast<const __nv_bfloat162 *>(&bits); };
#pragma unroll
  for (int tile = 0; tile < kTiles; ++tile) {
#pragma unroll
    for (int r = 0; r < 2; ++r) {
      const int row = first_row + tile * 16 + lane / 4 + 8 * r;
      const bool valid = row < p.decode.rows;
      const __nv_bfloat16 *source = p.q + seq * p.q_batch_stride + (valid ? row : 0) * p.q_row_stride;
      __nv_bfloat162 tops = pair_of(0);
#pragma unroll
      for (int slice = 0; slice <= kFp8Slices; ++slice) {
        const int dim = slice < kFp8Slices ? latent_byte(group) + slice * 4 : kValueDim + (rope_byte(group) - kFp8RopeAt) / 2;
        uint2 v = *reinterpret_cast<const uint2 *>(source + dim);  // four dimensions
        if (!valid) v = make_uint2(0, 0);
        tops = __hmax2(tops, __hmax2(__habs2(pair_of(v.x)), __habs2(pair_of(v.y))));
        if (r == 0) {
          q[slice][tile].x = v.x;
          q[slice][tile].z = v.y;
        } else {
          q[slice][tile].y = v.x;
          q[slice][tile].w = v.y;
        }
      }
      float top = fmaxf(__low2float(tops), __high2float(tops));
      top = fmaxf(top, __shfl_xor_sync(~0u, top, 1));
      top = fmaxf(top, __shfl_xor_sync(~0u, top, 2));
      if (lane % 4 == 0) smem.top[warp][tile * 16 + lane / 4 + 8 * r] = top;
    }
  }
  sm90::named_sync<kFp8Groups * 32>(kFp8HalfSync + warp / kFp8Groups);
#pragma unroll
  for (int tile = 0; tile < kTiles; ++tile) {
    float up[2];
#pragma unroll
    for (int r = 0; r < 2; ++r) {
      float largest = 0.0f;
#pragma unroll
      for (int g = 0; g < kFp8Groups; ++g) {
        largest = fmaxf(largest, smem.top[warp / kFp8Groups * kFp8Groups + g][tile * 16 + lane / 4 + 8 * r]);
      }
      const HalfScale scale(largest);
      up[r] = scale.up;
      factor[tile][r] = scale.down * p.decode.scale_log2;
    }
    auto scaled = [&](uint32_t pair, float by, bool rope) {
      const float2 v = __bfloat1622float2(pair_of(pair));
      return rope ? sm90::pack_bf16(v.x * by, v.y * by) : sm90::pack_f16(v.x * by, v.y * by);
    };
#pragma unroll
    for (int slice = 0; slice <= kFp8Slices; ++slice) {
      uint4 &a = q[slice][tile];
      const bool rope = slice == kFp8Slices;
      a = make_uint4(scaled(a.x, up[0], rope), scaled(a.y, up[1], rope), scaled(a.z, up[0], rope), scaled(a.w, up[1], rope));
    }
  }
}

// What a thread holds of S, and then of P: of each tile rows g and g + 8, two keys each.
template <int kTiles>
using Fp8Scores = float[kTiles][4];

// One group's part of S for four tiles of keys, from `keys` on: of the tile with the group's number, which is this warp's to
// weigh, to `own`, of the others to `parts`.
template <int kTiles>
__device__ __forceinline__ void fp8_score_parts(const uint8_t *keys, const Fp8Queries<kTiles> &q, int group,
                                                float4 (*parts)[kFp8Groups - 1][kTiles][32], Fp8Scores<kTiles> &own) {
  constexpr int kAtOnce = 4 / kTiles;  // tiles of keys: there shall be four independent chains of products
  const int lane = threadIdx.x % 32;
  uint4 latent[kAtOnce][2];
  auto load_latents = [&](int first) {
#pragma unroll
    for (int i = 0; i < kAtOnce; ++i) {
      const auto *source =
          reinterpret_cast<const uint4 *>(keys + ((first + i) * 8 + lane / 4) * kFp8TokenBytes + latent_byte(group));
      latent[i][0] = source[0];
      latent[i][1] = source[1];
    }
  };
  load_latents(0);
#pragma unroll
  for (int first = 0; first < kFp8KeyTiles / 2; first += kAtOnce) {
    const uint8_t *ropes = keys + (first * 8 + lane / 4) * kFp8TokenBytes + rope_byte(group);
    const uint8_t *scales = keys + (first * 8 + lane % 4 * 2) * kFp8TokenBytes + kFp8ScalesAt + group * 4;
    float s[kAtOnce][kTiles][4] = {};
#pragma unroll
    for (int slice = 0; slice < kFp8Slices; ++slice) {
#pragma unroll
      for (int i = 0; i < kAtOnce; ++i) {
        const uint2 key = sm90::e4m3_to_f16(reinterpret_cast<const uint32_t *>(latent[i])[slice]);
#pragma unroll
        for (int tile = 0; tile < kTiles; ++tile) sm90::mma_f16(s[i][tile], q[slice][tile], key.x, key.y);
      }
    }
    // Before parts are stored: a load after that would have to wait for the store.
    if (first + kAtOnce < kFp8KeyTiles / 2) load_latents(first + kAtOnce);
#pragma unroll
    for (int i = 0; i < kAtOnce; ++i) {
      const uint2 rope = *reinterpret_cast<const uint2 *>(ropes + i * 8 * kFp8TokenBytes);
      float scale[2];
#pragma unroll
      for (int j = 0; j < 2; ++j) {
        scale[j] = *reinterpret_cast<const float *>(scales + (i * 8 + j) * kFp8TokenBytes);
      }
#pragma unroll
      for (int tile = 0; tile < kTiles; ++tile) {
        float(&v)[4] = s[i][tile];
#pragma unroll
        for (int k = 0; k < 4; ++k) v[k] *= scale[k % 2];
        sm90::mma_bf16(v, q[kFp8Slices][tile], rope.x, rope.y);
        const int key_tile = first + i;
        if (key_tile == group) {
#pragma unroll
          for (int k = 0; k < 4; ++k) own[tile][k] = v[k];
        } else {
          parts[key_tile][group - (group > key_tile)][tile][lane] = make_float4(v[0], v[1], v[2], v[3]);
        }
      }
    }
  }
}

// The softmax of a score warp's eight keys of a slot. The weights that enter F16 operands are P times a scale, so the running
// maximum is that of the two together: of log2(P) + log2(the key's largest scale).
template <int kTiles>
struct Fp8Softmax {
  float max[kTiles][2], sum[kTiles][2];  // of rows g and g + 8; the sum is over this thread's keys only
  float4 scales[2];                      // of this thread's two keys
  float largest[2];                      // log2 of the largest of each

  __device__ void start() {
#pragma unroll
    for (int tile = 0; tile < kTiles; ++tile) {
#pragma unroll
      for (int r = 0; r < 2; ++r) {
        max[tile][r] = kNoMaximum;
        sum[tile][r] = 0.0f;
      }
    }
  }
  // `used` of the keys from `key` on are there. The others may hold anything, NaN too: 0 x NaN must not reach O.
  __device__ void load_scales(const uint8_t *key, int used) {
#pragma unroll
    for (int j = 0; j < 2; ++j) {
      scales[j] = *reinterpret_cast<const float4 *>(key + j * kFp8TokenBytes + kFp8ScalesAt);
      if (j >= used) scales[j] = make_float4(0.0f, 0.0f, 0.0f, 0.0f);
      largest[j] = sm90::log2_approx(fmaxf(fmaxf(fmaxf(scales[j].x, scales[j].y), fmaxf(scales[j].z, scales[j].w)),
                                           kLeastScale));
    }
  }
  // Whether a maximum must move. It does only when it has grown by 2^kSlack: what is accumulated is exact relative to any
  // maximum.
  __device__ bool grown(const Fp8Scores<kTiles> &s) const {
    bool any = false;
#pragma unroll
    for (int tile = 0; tile < kTiles; ++tile) {
#pragma unroll
      for (int i = 0; i < 4; ++i) any = any || s[tile][i] + largest[i % 2] > max[tile][i / 2] + kSlack;
    }
    return any;
  }
  // Moves the maxima of all score warps; what to multiply O with goes to `rescale`.
  __device__ void move(Fp8Smem<kTiles> &smem, const Fp8Scores<kTiles> &s, float *rescale) {
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
#pragma unroll
    for (int tile = 0; tile < kTiles; ++tile) {
#pragma unroll
      for (int r = 0; r < 2; ++r) {
        float top = fmaxf(s[tile][2 * r] + largest[0], s[tile][2 * r + 1] + largest[1]);
        top = fmaxf(top, __shfl_xor_sync(~0u, top, 1));
        top = fmaxf(top, __shfl_xor_sync(~0u, top, 2));
        if (lane % 4 == 0) smem.top[warp][tile * 16 + lane / 4 + 8 * r] = top;
      }
    }
    sm90::named_sync<kFp8ScoreWarps * 32>(kFp8ScoreSync);
#pragma unroll
    for (int tile = 0; tile < kTiles; ++tile) {
#pragma unroll
      for (int r = 0; r < 2; ++r) {
        const int row = tile * 16 + lane / 4 + 8 * r;
        float top = -INFINITY;
        for (int w = 0; w < kFp8ScoreWarps; ++w) top = fmaxf(top, smem.top[w][row]);
        const bool moved = top > max[tile][r] + kSlack;
        const float factor = moved ? sm90::exp2_approx(max[tile][r] - top) : 1.0f;
        max[tile][r] = moved ? top : max[tile][r];
        sum[tile][r] *= factor;
        if (warp == 0 && lane % 4 == 0) rescale[row] = factor;
      }
    }
  }
  // Turns s into P, relative to the maximum and times 2^kWeightShift.
  __device__ void weigh(Fp8Scores<kTiles> &s) {
#pragma unroll
    for (int tile = 0; tile < kTiles; ++tile) {
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        s[tile][i] = sm90::exp2_approx(s[tile][i] - (max[tile][i / 2] - kWeightShift));
        sum[tile][i / 2] += s[tile][i];
      }
    }
  }
};

// S of a score warp's eight keys, in units of the softmax: its own part, in s, and those of the other groups.
template <int kTiles>
__device__ __forceinline__ void fp8_add_parts(const float4 (&parts)[kFp8Groups - 1][kTiles][32],
                                              const float (&factor)[kTiles][2], Fp8Scores<kTiles> &s) {
  const int lane = threadIdx.x % 32;
#pragma unroll
  for (int tile = 0; tile < kTiles; ++tile) {
    float4 v[kFp8Groups - 1];
#pragma unroll
    for (int g = 0; g < kFp8Groups - 1; ++g) v[g] = parts[g][tile][lane];
    s[tile][0] = (s[tile][0] + v[0].x + v[1].x + v[2].x) * factor[tile][0];
    s[tile][1] = (s[tile][1] + v[0].y + v[1].y + v[2].y) * factor[tile][0];
    s[tile][2] = (s[tile][2] + v[0].z + v[1].z + v[2].z) * factor[tile][1];
    s[tile][3] = (s[tile][3] + v[0].w + v[1].w + v[2].w) * factor[tile][1];
  }
}

// Hides keys that a row does not see: past the `used` ones, or of queries later than the row's own.
template <int kTiles>
__device__ __forceinline__ void fp8_mask(Fp8Scores<kTiles> &s, const DecodeParams &p, int first_row, int used,
                                         int before_length) {
  const int lane = threadIdx.x % 32;
#pragma unroll
  for (int tile = 0; tile < kTiles; ++tile) {
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const int row = first_row + tile * 16 + lane / 4 + 8 * (i / 2);
      const int seen = min(used, before_length - max(p.s_q - 1 - row / p.heads, 0));
      if (i % 2 >= seen) s[tile][i] = -INFINITY;
    }
  }
}

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
        const float lse2 = total > 0.0f ? softmax.max[tile][r] - kWeightShift + log2f(total) : -INFINITY;
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
  const DecodeParams &p = params.decode;
  const int lane = threadIdx.x % 32, warp = __shfl_sync(~0u, threadIdx.x / 32, 0);
  const int group = warp % kFp8Groups, half = warp / kFp8Groups;  // of the products; the softmax is of key tile `warp`
  const int my_key = warp * 8 + lane % 4 * 2;                     // the first of two, in a slot
  RingPosition<Fp8Smem<kTiles>::kRing> ring;
  RingPosition<kSlots> slots;
  uint32_t sum_parity = 0;
  Fp8Queries<kTiles> q;
  float factor[kTiles][2];
  Fp8Softmax<kTiles> softmax;

  for (ShareWalk walk(smem.part, p, nullptr); !walk.done();) {
    const Share share = walk.take();
    const int end_key = min(share.end_step * kStepTokens, share.length);
    softmax.start();
    if (share.takes_queries()) fp8_load_queries(smem, q, factor, params, share.seq, first_row, group);

    for (int step = share.first_step; step < share.end_step; step += 2) {
      const int first_key = step * kStepTokens;
      const uint8_t *slot = smem.ring[ring.place];
      sm90::barrier_wait(sm90::smem_address(&smem.full[ring.place]), ring.parity);
      Fp8Scores<kTiles> s;
      fp8_score_parts<kTiles>(slot + half * kStepTokens * kFp8TokenBytes, q, group,
                              smem.parts + half * (kFp8KeyTiles / 2), s);
      softmax.load_scales(slot + my_key * kFp8TokenBytes, end_key - first_key - my_key);
      __syncwarp();
      if (lane == 0) sm90::barrier_arrive(sm90::smem_address(&smem.scored[ring.place]));
      ring.next();
      sm90::named_sync<kFp8Groups * 32>(kFp8HalfSync + half);
      const uint32_t p_empty = sm90::smem_address(&smem.p_empty[slots.place]);
      const bool slot_free = sm90::barrier_test(p_empty, slots.parity ^ 1);  // asked early: the answer takes time

      fp8_add_parts<kTiles>(smem.parts[warp], factor, s);
      if (first_key + kFp8SlotTokens > min(end_key, share.length - (p.s_q - 1))) {
        fp8_mask<kTiles>(s, p, first_row, end_key - first_key - my_key, share.length - first_key - my_key);
      }
      const bool grown = sm90::named_sync_or<kFp8ScoreWarps * 32>(kFp8ScoreSync, softmax.grown(s));
      if (!slot_free) sm90::barrier_wait(p_empty, slots.parity ^ 1);
      if (grown) softmax.move(smem, s, smem.rescale[slots.place]);
      if (threadIdx.x == 0) smem.must_rescale[slots.place] = grown;
      softmax.weigh(s);
#pragma unroll
      for (int g = 0; g < kFp8Groups; ++g) {
        float scale[2];
#pragma unroll
        for (int j = 0; j < 2; ++j) scale[j] = reinterpret_cast<const float *>(&softmax.scales[j])[g];
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

}  // namespace mla::cuda
