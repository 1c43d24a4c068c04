// Split-KV attention over a cache of FP8 latents, for few query rows. docs/kernels.md has the arithmetic.
//
// A thread block owns 16 or 32 query rows and walks the keys of its part of the plan, 64 at a time. Warps, by role:
//   score   eight. S = Q K^T by mma.sync: each over a quarter of the key dimensions, whose queries stay in its registers, for
//           half of the keys. Then, each for eight keys, the softmax, and P times the keys' scales -> shared memory
//   value   four, each the 128 columns of a group of O += P V, while the score warps are at the next softmax
//   copy    one, feeds a ring of 41 KB slots: cached tokens are contiguous, so a slot is two bulk copies
// The latents go from the ring into registers as bytes and become F16 operands there; their scales go into S and P. Nothing
// dequantised is ever stored.
#pragma once

#include "decode_fp8_score.cuh"
#include "sm90/tma.cuh"
#include "sm90/wgmma.cuh"

namespace mla::cuda {

// ---- copy -------------------------------------------------------------------------------------------------------------

// Brings the first keys of the part into L2 while the kernel before this one may still run. Harmless even if that one
// writes them: L2 is where its writes arrive.
__device__ __forceinline__ void fp8_prefetch_keys(const PlanPart &part, const Fp8Params &p) {
  ShareWalk walk(part, p.decode, nullptr);
  if (walk.done()) return;
  const Share share = walk.take();
  const int step = share.first_step + threadIdx.x % 32;
  if (step >= min(share.end_step, share.first_step + 2)) return;
  const int64_t block = __ldg(p.decode.block_table + share.seq * p.decode.table_stride + step / kStepsPerBlock);
  sm90::bulk_prefetch(p.cache + (block * kBlockTokens + step % kStepsPerBlock * kStepTokens) * kFp8TokenBytes, kFp8StepBytes);
}

template <int kTiles>
__device__ __forceinline__ void fp8_copy_role(Fp8Smem<kTiles> &smem, const Fp8Params &p, int first_row) {
  const int lane = threadIdx.x % 32;
  const uint64_t policy = sm90::evict_first_policy();
  fp8_prefetch_keys(smem.part, p);
  sm90::wait_for_previous_kernel();
  sm90::launch_dependents();
  RingPosition<Fp8Smem<kTiles>::kRing> ring;
  for (ShareWalk walk(smem.part, p.decode, nullptr); !walk.done();) {
    const Share share = walk.take();
    const int row = first_row + lane;
    if (share.takes_queries() && lane < Fp8Smem<kTiles>::kRows && row < p.decode.rows) {
      sm90::bulk_prefetch(p.q + share.seq * p.q_batch_stride + row * p.q_row_stride, kHeadDim * 2);
    }
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

// ---- value ------------------------------------------------------------------------------------------------------------

// O of a group's columns: o[tile][n] is product n, whose column j is column 16 j + n of the group's 128, so that a lane reads
// 16 bytes of a key at a time and has 32 columns in a row of each of its rows.
template <int kTiles>
using Fp8Output = float[kTiles][16][4];

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
    const uint8_t *source = columns + (k * 8 + lane % 4 * 2) * kFp8TokenBytes + lane / 4 * 16;
    auto load = [&](int key) { return *reinterpret_cast<const uint4 *>(source + key * kFp8TokenBytes); };
    const uint4 v0 = load(0), v1 = load(1), v8 = load(8), v9 = load(9);
    auto multiply_word = [&](int n, uint32_t w0, uint32_t w1, uint32_t w8, uint32_t w9) {
#pragma unroll
      for (int i = 0; i < 4; i += 2) {  // two columns: of each, two keys side by side are half of an operand
        const int bytes = i == 0 ? 0x5140 : 0x7362;
        const uint2 low = sm90::e4m3_to_f16(__byte_perm(w0, w1, bytes)), high = sm90::e4m3_to_f16(__byte_perm(w8, w9, bytes));
#pragma unroll
        for (int tile = 0; tile < kTiles; ++tile) {
          sm90::mma_f16(o[tile][n + i], a[tile], low.x, high.x);
          sm90::mma_f16(o[tile][n + i + 1], a[tile], low.y, high.y);
        }
      }
    };
    multiply_word(0, v0.x, v1.x, v8.x, v9.x);
    multiply_word(4, v0.y, v1.y, v8.y, v9.y);
    multiply_word(8, v0.z, v1.z, v8.z, v9.z);
    multiply_word(12, v0.w, v1.w, v8.w, v9.w);
  }
}

// Clears a group's columns of the keys past the `used` ones: they may hold anything, and 0 x NaN must not reach O.
__device__ __forceinline__ void fp8_clear_values(uint8_t *columns, int used) {
  const int lane = threadIdx.x % 32;
  for (int key = used; key < kFp8SlotTokens; ++key) {
    *reinterpret_cast<uint32_t *>(columns + key * kFp8TokenBytes + lane * 4) = 0;
  }
  sm90::fence_async_proxy();  // a copy will write there
  __syncwarp();
}

template <int kTiles>
__device__ __forceinline__ void fp8_store_output(const Fp8Smem<kTiles> &smem, const Fp8Output<kTiles> &o,
                                                 const DecodeParams &p, const Share &share, int first_row, int group) {
  const int lane = threadIdx.x % 32;
#pragma unroll
  for (int tile = 0; tile < kTiles; ++tile) {
#pragma unroll
    for (int r = 0; r < 2; ++r) {
      const int row = tile * 16 + lane / 4 + 8 * r, query_row = first_row + row;
      const float factor = smem.inverse_sum[row];
      auto value = [&](int i) { return o[tile][i % 16][r * 2 + i / 16] * factor; };
      const int64_t column = group * 128 + lane % 4 * 32;
      if (share.whole()) {
        if (query_row >= p.rows) continue;
        __nv_bfloat16 *out = p.out + (static_cast<int64_t>(share.seq) * p.rows + query_row) * kValueDim + column;
#pragma unroll
        for (int i = 0; i < 32; i += 8) {
          *reinterpret_cast<uint4 *>(out + i) =
              make_uint4(sm90::pack_bf16(value(i), value(i + 1)), sm90::pack_bf16(value(i + 2), value(i + 3)),
                         sm90::pack_bf16(value(i + 4), value(i + 5)), sm90::pack_bf16(value(i + 6), value(i + 7)));
        }
      } else {
        float top = 0.0f;
#pragma unroll
        for (int i = 0; i < 32; ++i) top = fmaxf(top, fabsf(value(i)));
        top = fmaxf(top, __shfl_xor_sync(~0u, top, 1));
        top = fmaxf(top, __shfl_xor_sync(~0u, top, 2));
        if (query_row >= p.rows) continue;
        const HalfScale scale(top);
        const int64_t place = static_cast<int64_t>(share.slot(p)) * p.rows + query_row;
        if (lane % 4 == 0) {
          reinterpret_cast<float2 *>(p.partial_scale)[place * kFp8Groups + group] = make_float2(scale.down, scale.down);
        }
        __half *out = p.partial_out + place * kValueDim + column;
        auto pair = [&](int i) { return sm90::pack_f16(value(i) * scale.up, value(i + 1) * scale.up); };
#pragma unroll
        for (int i = 0; i < 32; i += 8) {
          *reinterpret_cast<uint4 *>(out + i) = make_uint4(pair(i), pair(i + 2), pair(i + 4), pair(i + 6));
        }
      }
    }
  }
}

template <int kTiles>
__device__ __forceinline__ void fp8_value_role(Fp8Smem<kTiles> &smem, const DecodeParams &p, int first_row, int group) {
  const int lane = threadIdx.x % 32;
  RingPosition<Fp8Smem<kTiles>::kRing> ring;
  RingPosition<kSlots> slots;
  uint32_t sum_parity = 0;
  Fp8Output<kTiles> o;

  for (ShareWalk walk(smem.part, p, nullptr); !walk.done();) {
    const Share share = walk.take();
#pragma unroll
    for (int tile = 0; tile < kTiles; ++tile) {
#pragma unroll
      for (int n = 0; n < 16; ++n) {
#pragma unroll
        for (int i = 0; i < 4; ++i) o[tile][n][i] = 0.0f;
      }
    }
    for (int step = share.first_step; step < share.end_step; step += 2) {
      sm90::barrier_wait(sm90::smem_address(&smem.full[ring.place]), ring.parity);
      sm90::barrier_wait(sm90::smem_address(&smem.p_full[slots.place]), slots.parity);
      if (step + 2 < share.end_step) {
        // The score warps' products of the next slot come first: P V has the time of their softmax.
        RingPosition<Fp8Smem<kTiles>::kRing> next = ring;
        next.next();
        sm90::barrier_wait(sm90::smem_address(&smem.scored[next.place]), next.parity);
      }
      if (smem.must_rescale[slots.place]) {
#pragma unroll
        for (int tile = 0; tile < kTiles; ++tile) {
          const float *factors = smem.rescale[slots.place] + tile * 16 + lane / 4;
          const float upper = factors[0], lower = factors[8];
#pragma unroll
          for (int n = 0; n < 16; ++n) {
#pragma unroll
            for (int i = 0; i < 4; ++i) o[tile][n][i] *= i / 2 ? lower : upper;
          }
        }
      }
      uint8_t *columns = smem.ring[ring.place] + group * 128;
      const int used = min(share.end_step * kStepTokens, share.length) - step * kStepTokens;
      if (used < kFp8SlotTokens) fp8_clear_values(columns, used);
      fp8_add_values(smem, columns, slots.place, group, o);
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
    fp8_store_output(smem, o, p, share, first_row, group);
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
      barrier_init(smem_address(&smem.scored[place]), kFp8ScoreWarps);
      barrier_init(smem_address(&smem.empty[place]), kFp8ValueWarps);
    }
    for (int slot = 0; slot < kSlots; ++slot) {
      barrier_init(smem_address(&smem.p_full[slot]), kFp8ScoreWarps * 32);
      barrier_init(smem_address(&smem.p_empty[slot]), kFp8ValueWarps);
    }
    barrier_init(smem_address(&smem.sum_full), kFp8ScoreWarps * 32);
    barrier_init(smem_address(&smem.sum_empty), kFp8ValueWarps);
    sm90::barrier_init_fence();
  }
  if (threadIdx.x < sizeof(PlanPart) / sizeof(int4)) {
    reinterpret_cast<int4 *>(&smem.part)[threadIdx.x] =
        reinterpret_cast<const int4 *>(p.decode.plan.parts + blockIdx.y)[threadIdx.x];
  }
  __syncthreads();
  if (warp < kFp8ScoreWarps) {
    sm90::take_registers<152>();
    sm90::wait_for_previous_kernel();
    fp8_score_role(smem, p, first_row);
  } else if (warp < kFp8ScoreWarps + kFp8ValueWarps) {
    sm90::take_registers<176>();
    sm90::wait_for_previous_kernel();
    fp8_value_role(smem, p.decode, first_row, warp - kFp8ScoreWarps);
  } else {
    sm90::give_registers<32>();
    if (warp == kFp8ScoreWarps + kFp8ValueWarps) fp8_copy_role(smem, p, first_row);
  }
}

}  // namespace mla::cuda
