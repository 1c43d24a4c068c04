// What the score warpgroup does with a share or item, in decode and prefill alike: queries into registers, S = Q K^T, the
// softmax, P.
#pragma once

#include "decode_common.cuh"
#include "sm90/wgmma.cuh"

namespace mla::cuda {

// What a thread keeps of the softmax of its two rows, r and r + 8 of its warp's sixteen.
struct RowState {
  float max[2], sum[2];  // the maximum in use, in units of S; the sum is over this thread's keys only
};

// Turns S of a step into P in shared memory, in pieces that fit between two products, without a branch. The running
// maximum only moves when it has grown by a factor of 2^8: what is accumulated is exact relative to any maximum, so O is
// hardly ever rescaled.
class Weigher {
 public:
  static constexpr int kPieces = 20;

  // `row` as row_address gives it.
  __device__ Weigher(DecodeSmem &smem, RowState &rows, float scale_log2, int slot, uint32_t row)
      : smem_(smem), rows_(rows), scale_log2_(scale_log2), slot_(slot), row_(row) {}

  // Where this thread's row of P begins, to be combined with a 16-byte piece of it by exclusive or: that is the swizzle.
  __device__ static uint32_t row_address(const DecodeSmem &smem) {
    const int lane = threadIdx.x % 32, row = threadIdx.x / 32 % 4 * 16 + lane % 16;
    return sm90::smem_address(smem.probabilities) + row * 128 + ((row % 8) ^ (lane / 16)) * 16;
  }

  __device__ void piece(float (&s)[16], int i) {
    if (i == 0) find_maximum(s);
    if (i == 1 || i == 2) {
#pragma unroll
      for (int r = 0; r < 2; ++r) top_[r] = fmaxf(top_[r], __shfl_xor_sync(~0u, top_[r], i));
    }
    if (i == 3) move_maximum();
    if (i >= 4) weigh(s, i - 4);
  }

 private:
  __device__ void find_maximum(const float (&s)[16]) {
#pragma unroll
    for (int r = 0; r < 2; ++r) {
      float pair[4];
#pragma unroll
      for (int i = 0; i < 4; ++i) pair[i] = fmaxf(s[4 * i + 2 * r], s[4 * i + 2 * r + 1]);
      top_[r] = fmaxf(fmaxf(pair[0], pair[1]), fmaxf(pair[2], pair[3]));
    }
  }
  __device__ void move_maximum() {
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32 % 4;
    const float slack = 8.0f / scale_log2_;
    bool moved = false;
#pragma unroll
    for (int r = 0; r < 2; ++r) {
      const bool grown = top_[r] > rows_.max[r] + slack;
      const float rescale = grown ? sm90::exp2_approx((rows_.max[r] - top_[r]) * scale_log2_) : 1.0f;
      rows_.max[r] = grown ? top_[r] : rows_.max[r];
      rows_.sum[r] *= rescale;
      offset_[r] = rows_.max[r] == -INFINITY ? 0.0f : -rows_.max[r] * scale_log2_;
      if (lane % 4 == 0) smem_.rescale[slot_][warp * 16 + lane / 4 + 8 * r] = rescale;
      moved = moved || grown;
    }
    moved = __any_sync(~0u, moved);
    if (lane == 0) smem_.must_rescale[slot_][warp] = moved;
  }
  // The weights have registers of their own: where S, an accumulator, is written between products, ptxas puts a
  // warpgroup.arrive (C7519) before each of them, which waits for what was written.
  __device__ void weigh(const float (&s)[16], int i) {
    const int r = i / 2 % 2;
    const float weight = sm90::exp2_approx(fmaf(s[i], scale_log2_, offset_[r]));
    rows_.sum[r] += weight;
    if (i % 2 == 0) {
      even_ = weight;
      return;
    }
    packed_[i / 2 % 4] = sm90::pack_bf16(even_, weight);
    if (i % 8 == 7) {
      sm90::store_matrices(row_ ^ (slot_ * 64 + i / 8 * 32), packed_[0], packed_[1], packed_[2], packed_[3]);
    }
  }

  DecodeSmem &smem_;
  RowState &rows_;
  float scale_log2_, top_[2], offset_[2];
  float even_;          // the weight that waits for its neighbour
  uint32_t packed_[4];  // eight weights, BF16
  int slot_;
  uint32_t row_;
};

using Queries = uint32_t[kRegisterSlices][4];

// Starts S = Q K^T for the keys of a stage, which must be full; `between(i)` runs after the i-th of its 36 products has
// been issued. A warp cannot issue products ahead of the tensor cores, so what is to overlap with them stands between.
template <typename Between>
__device__ __forceinline__ void start_scores(DecodeSmem &smem, float (&s)[16], const Queries &q, int stage,
                                             Between between) {
  const uint64_t keys = sm90::swizzled_descriptor(sm90::smem_address(smem.stages[stage]), 0);
  const uint64_t slice = sm90::plain_descriptor(sm90::smem_address(smem.query_slices), 128, 256);
  const uint64_t rope = sm90::swizzled_descriptor(sm90::smem_address(smem.rope_queries), 0);
  sm90::hold(s);
  sm90::wgmma_fence();
#pragma unroll
  for (int n = 0; n < kHeadDim / 16; ++n) {
    // One product in four takes its queries from shared memory, evenly spread: such a product reads twice the bytes.
    const bool from_registers = n % 4 != 3;
    const int i = from_registers ? n - n / 4 : kRegisterSlices + n / 4;
    const uint64_t b = sm90::advance(keys, i / 4 * kChunkBytes + i % 4 * 32);
    if (from_registers) {
      sm90::wgmma_m64n32k16_ra(s, q[i], b, n > 0);
    } else if (i < kLatentSlices) {
      sm90::wgmma_m64n32k16(s, sm90::advance(slice, (i - kRegisterSlices) * kSliceBytes), b);
    } else {
      sm90::wgmma_m64n32k16(s, sm90::advance(rope, i % 4 * 32), b);
    }
    between(n);
  }
  sm90::wgmma_commit();
}

__device__ __forceinline__ void finish_scores(float (&s)[16]) {
  sm90::wgmma_wait<0>();
  sm90::hold(s);
}

constexpr uint32_t kScoreSync = 1;  // id of the score warpgroup's own barrier

// Takes the queries of the next sequence out of two stages, each half of the warps from one: most slices into registers,
// the others into shared memory, where they lie as they came.
template <int kCluster>
__device__ __forceinline__ void load_queries(DecodeSmem &smem, Queries &q, RingPosition<kStages> &ring) {
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32 % 4;
  const int row = warp * 16 + lane % 16;
  sm90::warpgroup_sync(kScoreSync);  // all four warps are done with the queries before
  RingPosition<kStages> mine = ring;  // `ring` itself stays the same in all warps: descriptors are made of it
  if (warp >= 2) mine.next();
  sm90::barrier_wait(sm90::smem_address(&smem.full[mine.place]), mine.parity);
  const uint8_t *source = smem.stages[mine.place] + row % kStepTokens * 128;
#pragma unroll
  for (int k = 0; k < kRegisterSlices; ++k) {
    int piece = k % 4 * 2 + lane / 16;
    sm90::load_matrices(q[k], sm90::smem_address(source) + k / 4 * kChunkBytes + ((piece ^ (row % 8)) << 4));
  }
  auto copy16 = [](uint8_t *to, const uint8_t *from) {
    *reinterpret_cast<int4 *>(to) = *reinterpret_cast<const int4 *>(from);
  };
  const int side = lane / 16;  // each row is copied by two lanes
#pragma unroll
  for (int i = kRegisterSlices; i < kLatentSlices; ++i) {
    const int piece = i % 4 * 2 + side;
    copy16(smem.query_slices[i - kRegisterSlices] + row / 8 * 256 + side * 128 + row % 8 * 16,
           source + i / 4 * kChunkBytes + ((piece ^ (row % 8)) << 4));
  }
  for (int at = side * 16; at < 128; at += 32) {
    copy16(smem.rope_queries + row * 128 + at, source + (kChunks - 1) * kChunkBytes + at);
  }
  __syncwarp();
  if (lane == 0) release<kCluster>(smem.empty[mine.place], kValueWarps / 2);  // for the value warps, which skip it
  ring.next();
  ring.next();
  sm90::fence_async_proxy();
  sm90::warpgroup_sync(kScoreSync);
}

// S and P of `steps` steps, whose keys the ring holds from `ring` on; P goes to the value warps through `slots`.
// `mask(s, step)` hides the keys that a row does not see.
template <typename Mask>
__device__ __forceinline__ void weigh_steps(DecodeSmem &smem, const Queries &q, RowState &rows, float scale_log2, int steps,
                                            RingPosition<kStages> &ring, RingPosition<kSlots> &slots, Mask mask) {
  const uint32_t row = Weigher::row_address(smem);
  float even[16], odd[16];  // S of two steps: one becomes P while the other is computed
  auto wait_for_stage = [&] { sm90::barrier_wait(sm90::smem_address(&smem.full[ring.place]), ring.parity); };
  auto announce = [&] {
    sm90::fence_async_proxy();
    sm90::barrier_arrive(sm90::smem_address(&smem.p_full[slots.place]));
    slots.next();
  };
  int step = 0;
  auto prepare = [&](float(&s)[16]) {
    mask(s, step);
    sm90::barrier_wait(sm90::smem_address(&smem.p_empty[slots.place]), slots.parity ^ 1);
    return Weigher(smem, rows, scale_log2, slots.place, row);
  };
  // P of this step and S of the next.
  auto advance = [&](float(&s)[16], float(&next)[16]) {
    wait_for_stage();
    Weigher weigher = prepare(s);
    start_scores(smem, next, q, ring.place, [&](int i) {
      if (i < Weigher::kPieces) weigher.piece(s, i);
      if (i == Weigher::kPieces) announce();  // O += P V fills the gap between these products and the next
    });
    finish_scores(next);
    ring.next();
    ++step;
  };
  auto finish = [&](float(&s)[16]) {
    Weigher weigher = prepare(s);
#pragma unroll
    for (int i = 0; i < Weigher::kPieces; ++i) weigher.piece(s, i);
    announce();
  };

  wait_for_stage();
  start_scores(smem, even, q, ring.place, [](int) {});
  finish_scores(even);
  ring.next();
  for (;;) {
    if (step == steps - 1) {
      finish(even);
      break;
    }
    advance(even, odd);
    if (step == steps - 1) {
      finish(odd);
      break;
    }
    advance(odd, even);
  }
}

}  // namespace mla::cuda
