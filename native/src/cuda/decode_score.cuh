// What the score warpgroup does: queries into registers, S = Q K^T, the softmax, P. Prefill has its own loop over the steps,
// out of the same pieces.
#pragma once

#include "decode_common.cuh"
#include "sm90/wgmma.cuh"
#include "sm90/wgmma_tokens.cuh"

namespace mla::cuda {

// The running maximum moves when it has grown by more than 2 to this.
constexpr float kMaximumSlack = 8.0f;

// Which of the 36 slices the n-th product of a step takes: each fourth one of those that lie in shared memory, evenly spread, since
// such a product reads twice the bytes. Whoever shall get the same bits must add in this order.
__device__ constexpr bool slice_in_registers(int n) { return n % 4 != 3; }
__device__ constexpr int slice_of_product(int n) { return slice_in_registers(n) ? n - n / 4 : kRegisterSlices + n / 4; }

// What a thread keeps of the softmax of its two rows, r and r + 8 of its warp's sixteen.
struct RowState {
  float max[2], sum[2];  // the maximum in use, in units of S; the sum is over this thread's keys only
};

// The largest of a thread's scores of a step in row r of its two.
__device__ __forceinline__ float largest_score(const float (&s)[16], int r) {
  float pair[4];
#pragma unroll
  for (int i = 0; i < 4; ++i) pair[i] = fmaxf(s[4 * i + 2 * r], s[4 * i + 2 * r + 1]);
  return fmaxf(fmaxf(pair[0], pair[1]), fmaxf(pair[2], pair[3]));
}

// Turns S of a step into P in shared memory. The running maximum only moves when it has grown by a factor of 2^8: what is
// accumulated is exact relative to any maximum, so O is hardly ever rescaled, and the maxima of the four lanes of a row are
// hardly ever brought together. That is done first, since it branches; the weights come in pieces that fit between two
// products.
class Weigher {
 public:
  static constexpr int kPieces = 16;

  // `row` as row_address gives it.
  __device__ Weigher(DecodeSmem &smem, RowState &rows, float scale_log2, int slot, uint32_t row, const float (&s)[16])
      : rows_(rows), scale_log2_(scale_log2), row_(row ^ slot * 64) {
    float top[2];
    bool grown = false;
#pragma unroll
    for (int r = 0; r < 2; ++r) {
      top[r] = largest_score(s, r);
      grown = grown || top[r] > limit(r);
    }
    const bool moved = __any_sync(~0u, grown);
    if (moved) move_maxima(smem, top, slot);
    if (threadIdx.x % 32 == 0) smem.must_rescale[slot][threadIdx.x / 32 % 4] = moved;
#pragma unroll
    for (int r = 0; r < 2; ++r) offset_[r] = rows_.max[r] == -INFINITY ? 0.0f : -rows_.max[r] * scale_log2_;
  }

  // Where this thread's row of P begins, to be combined with a 16-byte piece of it by exclusive or: that is the swizzle.
  __device__ static uint32_t row_address(const DecodeSmem &smem) {
    const int lane = threadIdx.x % 32, row = threadIdx.x / 32 % 4 * 16 + lane % 16;
    return sm90::smem_address(smem.probabilities) + row * 128 + ((row % 8) ^ (lane / 16)) * 16;
  }

  // The weights have registers of their own: where S, an accumulator, is written between products, ptxas puts a
  // warpgroup.arrive (C7519) before each of them, which waits for what was written.
  __device__ void piece(const float (&s)[16], int i) {
    const int r = i / 2 % 2;
    const float weight = sm90::exp2_approx(fmaf(s[i], scale_log2_, offset_[r]));
    step_sum_[r] = i < 4 && i % 2 == 0 ? weight : step_sum_[r] + weight;
    if (i == 13 || i == 15) rows_.sum[r] = __fadd_rn(rows_.sum[r], step_sum_[r]);
    if (i % 2 == 0) {
      even_ = weight;
      return;
    }
    packed_[i / 2 % 4] = sm90::pack_bf16(even_, weight);
    if (i % 8 == 7) sm90::store_matrices(row_ ^ (i / 8 * 32), packed_[0], packed_[1], packed_[2], packed_[3]);
  }

 private:
  __device__ float limit(int r) const { return rows_.max[r] + kMaximumSlack / scale_log2_; }

  __device__ void move_maxima(DecodeSmem &smem, float (&top)[2], int slot) {
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32 % 4;
#pragma unroll
    for (int r = 0; r < 2; ++r) {
#pragma unroll
      for (int step = 1; step <= 2; step *= 2) top[r] = fmaxf(top[r], __shfl_xor_sync(~0u, top[r], step));
      const bool grown = top[r] > limit(r);
      const float rescale = grown ? sm90::exp2_approx((rows_.max[r] - top[r]) * scale_log2_) : 1.0f;
      rows_.max[r] = grown ? top[r] : rows_.max[r];
      rows_.sum[r] *= rescale;
      if (lane % 4 == 0) smem.rescale[slot][warp * 16 + lane / 4 + 8 * r] = rescale;
    }
  }

  RowState &rows_;
  float scale_log2_, offset_[2];
  float step_sum_[2];   // of this step's weights: a team's blocks each know those of a step (decode_team_kernel.cuh)
  float even_;          // the weight that waits for its neighbour
  uint32_t packed_[4];  // eight weights, BF16
  uint32_t row_;
};

using Queries = uint32_t[kRegisterSlices][4];

// Starts S = Q K^T for the keys of a stage, which must be full; `between(i)` runs after the i-th of its 36 products has
// been issued. A warp cannot issue products ahead of the tensor cores, so what is to overlap with them stands between.
template <typename Between>
__device__ __forceinline__ void start_scores(DecodeSmem &smem, float (&s)[16], const Queries &q, int stage,
                                             Between between) {
  const uint64_t keys = sm90::swizzled_descriptor(sm90::smem_address(smem.stages[stage]), 0, kAtomRowBytes);
  const uint64_t slice = sm90::plain_descriptor(sm90::smem_address(smem.query_slices), 128, 256);
  const uint64_t rope = sm90::swizzled_descriptor(sm90::smem_address(smem.rope_queries), 0);
  sm90::hold(s);
  sm90::wgmma_fence();
#pragma unroll
  for (int n = 0; n < kHeadDim / 16; ++n) {
    const int i = slice_of_product(n);
    const uint64_t b = sm90::advance(keys, i / 4 * kAtomBytes + i % 4 * 32);
    if (slice_in_registers(n)) {
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
  const int thread = late_thread(), lane = thread % 32, warp = thread / 32 % 4;
  const int row = warp * 16 + lane % 16;
  RingPosition<kStages> mine = ring;  // `ring` itself stays the same in all warps: descriptors are made of it
  if (warp >= 2) mine.next();
  sm90::barrier_wait(sm90::smem_address(&smem.full[mine.place]), mine.parity);
  const uint8_t *source = smem.stages[mine.place] + row % kStepTokens * 128;
  const int side = lane / 16;  // each row is copied by two lanes
  // All is loaded before any of it is stored: else each copy would wait for the one before.
  int4 latent[kSmemSlices], rope[4];
#pragma unroll
  for (int i = 0; i < kSmemSlices; ++i) {
    const int slice = kRegisterSlices + i, piece = slice % 4 * 2 + side;
    latent[i] = *reinterpret_cast<const int4 *>(source + slice / 4 * kChunkBytes + ((piece ^ (row % 8)) << 4));
  }
#pragma unroll
  for (int i = 0; i < 4; ++i) {  // four rows side by side: no two pieces in the same banks
    const int at = (warp * 16 + i * 4) * 128 + lane * 16;
    rope[i] = *reinterpret_cast<const int4 *>(smem.stages[mine.place] + (kChunks - 1) * kChunkBytes + at % kChunkBytes);
  }
#pragma unroll
  for (int k = 0; k < kRegisterSlices; ++k) {
    int piece = k % 4 * 2 + lane / 16;
    sm90::load_matrices(q[k], sm90::smem_address(source) + k / 4 * kChunkBytes + ((piece ^ (row % 8)) << 4));
  }
  __syncwarp();
  if (lane == 0) release<kCluster>(smem.empty[mine.place], kValueWarps / 2);  // for the value warps, which skip it
  ring.next();
  ring.next();
  sm90::warpgroup_sync(kScoreSync);  // all four warps are done with the queries before
#pragma unroll
  for (int i = 0; i < kSmemSlices; ++i) {
    *reinterpret_cast<int4 *>(smem.query_slices[i] + row / 8 * 256 + side * 128 + row % 8 * 16) = latent[i];
  }
#pragma unroll
  for (int i = 0; i < 4; ++i) *reinterpret_cast<int4 *>(smem.rope_queries + (warp * 16 + i * 4) * 128 + lane * 16) = rope[i];
  sm90::fence_async_proxy();
  sm90::warpgroup_sync(kScoreSync);
}

// P is announced after this product of the next step, although it is complete before: O += P V shall fill the gap between
// these products and those after them, and not hold these up.
constexpr int kAnnounceAfter = 20;

// S and P of `steps` steps, whose keys the ring holds from `ring` on; P goes to the value warps through `slots`.
// `mask(s, step)` hides the keys that a row does not see.
template <typename Mask>
__device__ __forceinline__ void weigh_steps(DecodeSmem &smem, const Queries &q, RowState &rows, float scale_log2, int steps,
                                            RingPosition<kStages> &ring, RingPosition<kSlots> &slots, Mask mask) {
  const uint32_t row = Weigher::row_address(smem);
  float even[16], odd[16];  // S of two steps: one becomes P while the other is computed
  int step = 0;
  auto wait_for_stage = [&] { sm90::barrier_wait(sm90::smem_address(&smem.full[ring.place]), ring.parity); };
  auto announce = [&] {
    sm90::fence_async_proxy();
    sm90::barrier_arrive(sm90::smem_address(&smem.p_full[slots.place]));
    slots.next();
  };
  // Ends the products of `step`. While they run, waits for what comes next: a place for P and the next stage.
  auto finish_products = [&](float(&s)[16]) {
    ring.next();
    if (step < steps - 1) wait_for_stage();
    sm90::barrier_wait(sm90::smem_address(&smem.p_empty[slots.place]), slots.parity ^ 1);
    finish_scores(s);
  };
  auto prepare = [&](float(&s)[16]) {
    mask(s, step);
    return Weigher(smem, rows, scale_log2, slots.place, row, s);
  };
  // P of this step and S of the next.
  auto advance = [&](float(&s)[16], float(&next)[16]) {
    Weigher weigher = prepare(s);
    start_scores(smem, next, q, ring.place, [&](int i) {
      if (i < Weigher::kPieces) weigher.piece(s, i);
      if (i == kAnnounceAfter) announce();
    });
    ++step;
    finish_products(next);
  };
  auto finish = [&](float(&s)[16]) {
    Weigher weigher = prepare(s);
#pragma unroll
    for (int i = 0; i < Weigher::kPieces; ++i) weigher.piece(s, i);
    announce();
  };

  wait_for_stage();
  start_scores(smem, even, q, ring.place, [](int) {});
  finish_products(even);
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
