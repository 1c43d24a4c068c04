// The prefill attention kernel: the roles and products of the decode kernel (decode_kernel.cuh) over a list of items
// instead of a split-KV plan.
//
// A cluster of two thread blocks takes an item at a time: 128 query rows of a sequence, 64 a block, against all keys from
// the first on in steps of 32. Nothing is split or combined, so what a query gets depends on itself, its position and the
// keys up to it, bit for bit, and not on the tile or the chunk it came in.
#pragma once

#include "decode_kernel.cuh"
#include "prefill_plan.cuh"

namespace mla::cuda {

struct PrefillParams {
  const int32_t *block_table;
  int64_t table_stride;
  const PrefillPlan *plan;
  __nv_bfloat16 *out;  // [tokens * heads, 512]
  int heads;
  float scale_log2;  // softmax scale x log2(e)
};

// Walks the items of this cluster; every role walks by itself. The list is dealt out back and forth, so that who gets the
// longest of one round gets the shortest of the next.
class ItemWalk {
 public:
  __device__ explicit ItemWalk(const PrefillPlan *plan) : plan_(plan) {}
  __device__ bool done() const { return place() >= plan_->item_count; }
  __device__ PrefillItem take() {
    PrefillItem item;
    const int4 *source = reinterpret_cast<const int4 *>(plan_->items() + place());
    reinterpret_cast<int4 *>(&item)[0] = source[0];
    reinterpret_cast<int4 *>(&item)[1] = source[1];
    ++round_;
    return item;
  }

 private:
  __device__ int place() const {
    const int clusters = gridDim.x / kPrefillCluster, cluster = blockIdx.x / kPrefillCluster;
    return round_ * clusters + (round_ % 2 == 0 ? cluster : clusters - 1 - cluster);
  }
  const PrefillPlan *plan_;
  int round_ = 0;
};

// Feeds the ring: for each item this block's queries as two stages, then the keys, half of each step for both blocks.
__device__ __forceinline__ void prefill_copy_role(DecodeSmem &smem, const DecodeMaps &maps, const PrefillParams &p,
                                                  uint32_t rank) {
  constexpr int kBoxTokens = kStepTokens / kPrefillCluster;
  const int lane = threadIdx.x % 32;
  RingPosition<kStages> ring;

  auto fill = [&](auto load) {
    sm90::barrier_wait(sm90::smem_address(&smem.empty[ring.place]), ring.parity ^ 1);
    const uint32_t barrier = sm90::smem_address(&smem.full[ring.place]);
    sm90::barrier_expect_bytes(barrier, kStageBytes);
    load(sm90::smem_address(smem.stages[ring.place]), barrier);
    ring.next();
  };
  for (ItemWalk walk(p.plan); !walk.done();) {
    const PrefillItem item = walk.take();
    if (lane == 0) {
      const uint64_t once = sm90::evict_first_policy();
      const int first = item.start_row + item.first_row + rank * kTileRows;
      for (int half = 0; half < kTileRows / kStepTokens; ++half) {
        fill([&](uint32_t target, uint32_t barrier) {
          sm90::tma_load(target, &maps.queries, barrier, 0, first + half * kStepTokens, 0, 0, once);
        });
      }
    }
    const uint64_t again = sm90::evict_last_policy();
    int entry = 0;  // 32 entries of the block table, one a lane; then the next 32
    for (int step = 0; step < item.steps; ++step) {
      const int block = step / kStepsPerBlock;
      if (step % (32 * kStepsPerBlock) == 0) {
        const bool used = (block + lane) * kStepsPerBlock < item.steps;
        entry = used ? __ldg(p.block_table + item.seq * p.table_stride + block + lane) : 0;
      }
      const int cache_block = __shfl_sync(~0u, entry, block % 32);
      if (lane != 0) continue;
      const int row = step % kStepsPerBlock * kStepTokens + rank * kBoxTokens;
      fill([&](uint32_t target, uint32_t barrier) {
        sm90::tma_load_multicast(target + rank * (kStageBytes / kPrefillCluster), &maps.cache, barrier, 0, 0, 0,
                                 row / kAtomKeys, cache_block, (1 << kPrefillCluster) - 1, again);
      });
    }
  }
}

// How many keys the rows of a tile see.
class Visibility {
 public:
  __device__ Visibility(const PrefillItem &item, int heads, uint32_t rank)
      : length_(item.length), first_row_(item.first_row + rank * kTileRows),
        before_(item.length - item.rows / heads), heads_(heads), seen_by_all_(seen(0)) {}

  // Hides the keys of a step that a row does not see. Rows past the sequence's last see the whole sequence.
  __device__ void mask(float (&s)[16], int first_key) const {
    if (first_key + kStepTokens <= seen_by_all_) return;
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32 % 4;
#pragma unroll
    for (int r = 0; r < 2; ++r) {
      const int hidden_from = seen(warp * 16 + lane / 4 + 8 * r) - first_key - lane % 4 * 2;
#pragma unroll
      for (int i = 0; i < 16; ++i) {
        if (i / 2 % 2 == r && i / 4 * 8 + i % 2 >= hidden_from) s[i] = -INFINITY;
      }
    }
  }

 private:
  __device__ int seen(int row) const { return min(before_ + (first_row_ + row) / heads_ + 1, length_); }
  int length_, first_row_, before_, heads_, seen_by_all_;
};

__device__ __forceinline__ void prefill_score_role(DecodeSmem &smem, const PrefillParams &p, uint32_t rank) {
  RingPosition<kStages> ring;
  RingPosition<kSlots> slots;
  uint32_t sum_parity = 0;
  Queries q;
  const uint32_t row = Weigher::row_address(smem);
  float even[16], odd[16];  // S of two steps: one becomes P while the other is computed

  auto announce = [&] {
    sm90::fence_async_proxy();
    sm90::barrier_arrive(sm90::smem_address(&smem.p_full[slots.place]));
    slots.next();
  };
  auto wait_for_stage = [&] { sm90::barrier_wait(sm90::smem_address(&smem.full[ring.place]), ring.parity); };

  for (ItemWalk walk(p.plan); !walk.done();) {
    const PrefillItem item = walk.take();
    const Visibility visibility(item, p.heads, rank);
    const int last = item.steps - 1;
    RowState rows = {{-INFINITY, -INFINITY}, {0.0f, 0.0f}};
    // weigh_steps, but written out: ptxas makes 2 to 4 % more of it here.
    int step = 0;
    auto finish_products = [&](float(&s)[16]) {
      ring.next();
      if (step < last) wait_for_stage();
      sm90::barrier_wait(sm90::smem_address(&smem.p_empty[slots.place]), slots.parity ^ 1);
      finish_scores(s);
    };
    auto prepare = [&](float(&s)[16]) {
      visibility.mask(s, step * kStepTokens);
      return Weigher(smem, rows, p.scale_log2, slots.place, row, s);
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
    load_queries<kPrefillCluster>(smem, q, ring);
    wait_for_stage();
    start_scores(smem, even, q, ring.place, [](int) {});
    finish_products(even);
    for (;;) {
      if (step == last) {
        finish(even);
        break;
      }
      advance(even, odd);
      if (step == last) {
        finish(odd);
        break;
      }
      advance(odd, even);
    }

    sm90::barrier_wait(sm90::smem_address(&smem.sum_empty), sum_parity ^ 1);
    const int thread = late_thread(), lane = thread % 32;
#pragma unroll
    for (int r = 0; r < 2; ++r) {
      float sum = rows.sum[r];
      sum += __shfl_xor_sync(~0u, sum, 1);
      sum += __shfl_xor_sync(~0u, sum, 2);
      if (lane % 4 == 0) smem.inverse_sum[warp_row(0, thread) + lane / 4 + 8 * r] = 1.0f / sum;
    }
    sm90::barrier_arrive(sm90::smem_address(&smem.sum_full));
    sum_parity ^= 1;
  }
}

// Writes 128 columns of O, normalised.
__device__ __forceinline__ void store_rows(const DecodeSmem &smem, float (&o)[64], const PrefillParams &p,
                                           const PrefillItem &item, int first_row, int column) {
  const int thread = late_thread(), lane = thread % 32;
#pragma unroll
  for (int r = 0; r < 2; ++r) {
    const int row = warp_row(0, thread) + lane / 4 + 8 * r;
    const bool valid = first_row + row < item.rows;
    __nv_bfloat16 *out = p.out + static_cast<int64_t>(item.start_row + first_row + row) * kValueDim + column + lane % 4 * 8;
    const float inverse = smem.inverse_sum[row];
#pragma unroll
    for (int group = 0; group < 4; ++group) {
      uint32_t v[4];
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        const int at = (group * 4 + i) * 4 + r * 2;
        v[i] = sm90::pack_bf16(o[at] * inverse, o[at + 1] * inverse);
      }
      transpose_quad(v);
      if (valid) *reinterpret_cast<uint4 *>(out + group * 32) = make_uint4(v[0], v[1], v[2], v[3]);
    }
  }
}

__device__ __forceinline__ void prefill_value_role(DecodeSmem &smem, const PrefillParams &p, uint32_t rank, int side) {
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32 % 4;
  RingPosition<kStages> ring;
  RingPosition<kSlots> slots;
  uint32_t sum_parity = 0;
  float left[64], right[64];  // columns of O
  const uint64_t p_rows = sm90::swizzled_descriptor(sm90::smem_address(smem.probabilities), 0);

  for (ItemWalk walk(p.plan); !walk.done();) {
    const PrefillItem item = walk.take();
#pragma unroll
    for (int i = 0; i < 64; ++i) left[i] = right[i] = 0.0f;
    ring.next();  // the queries
    ring.next();
    for (int step = 0; step < item.steps; ++step) {
      uint8_t *columns = smem.stages[ring.place] + side * (kValueColumns / 64) * kAtomBytes;
      sm90::barrier_wait(sm90::smem_address(&smem.full[ring.place]), ring.parity);
      sm90::barrier_wait(sm90::smem_address(&smem.p_full[slots.place]), slots.parity);
      if (smem.must_rescale[slots.place][warp]) {
        const float *factors = smem.rescale[slots.place] + warp * 16 + lane / 4;
        const float upper = factors[0], lower = factors[8];
#pragma unroll
        for (int i = 0; i < 64; ++i) {
          left[i] *= i / 2 % 2 ? lower : upper;
          right[i] *= i / 2 % 2 ? lower : upper;
        }
      }
      const int used = item.length - step * kStepTokens;
      if (used < kStepTokens) clear_unused_keys(columns, used, kValueSync + side);
      const uint64_t values = sm90::swizzled_descriptor(sm90::smem_address(columns), kAtomBytes, kAtomRowBytes);
      const uint64_t weights = sm90::advance(p_rows, slots.place * (kStepTokens * 2));
      sm90::hold(left);
      sm90::hold(right);
      sm90::wgmma_fence();
#pragma unroll
      for (int k = 0; k < kStepTokens / 16; ++k) {
        sm90::wgmma_m64k16<0, 1>(left, sm90::advance(weights, k * 32), sm90::advance(values, k * 2 * kAtomRowBytes));
        sm90::wgmma_m64k16<0, 1>(right, sm90::advance(weights, k * 32),
                                 sm90::advance(values, 2 * kAtomBytes + k * 2 * kAtomRowBytes));
      }
      sm90::wgmma_commit();
      sm90::wgmma_wait<0>();
      sm90::hold(left);
      sm90::hold(right);
      sm90::barrier_arrive(sm90::smem_address(&smem.p_empty[slots.place]));
      if (lane == 0) release<kPrefillCluster>(smem.empty[ring.place], 1);
      slots.next();
      ring.next();
    }

    sm90::barrier_wait(sm90::smem_address(&smem.sum_full), sum_parity);
    sum_parity ^= 1;
    const int first_row = item.first_row + rank * kTileRows;
    store_rows(smem, left, p, item, first_row, side * kValueColumns);
    store_rows(smem, right, p, item, first_row, side * kValueColumns + kValueColumns / 2);
    sm90::barrier_arrive(sm90::smem_address(&smem.sum_empty));
  }
}

// Grid: as many clusters as are on the device at once, or fewer.
__global__ void __launch_bounds__(kDecodeThreads, 1)
    prefill_kernel(const __grid_constant__ DecodeMaps maps, const __grid_constant__ PrefillParams p) {
  extern __shared__ __align__(1024) uint8_t raw_smem[];
  DecodeSmem &smem = *reinterpret_cast<DecodeSmem *>(raw_smem);
  const int warpgroup = __shfl_sync(~0u, threadIdx.x / 128, 0);
  const uint32_t rank = sm90::cluster_rank();
  if (threadIdx.x == 0) {
    sm90::prefetch_tensor_map(&maps.queries);
    sm90::prefetch_tensor_map(&maps.cache);
    init_barriers<kPrefillCluster>(smem);
  }
  sm90::cluster_sync();
  sm90::wait_for_previous_kernel();
  if (warpgroup == 0) {
    sm90::take_registers<168>();
    prefill_score_role(smem, p, rank);
  } else if (warpgroup == 3) {
    sm90::give_registers<24>();
    if (threadIdx.x / 32 == 12) prefill_copy_role(smem, maps, p, rank);
  } else {
    sm90::take_registers<160>();
    prefill_value_role(smem, p, rank, warpgroup - 1);
  }
  sm90::cluster_sync();  // a block's shared memory must outlive its peer's copies and arrivals
}

}  // namespace mla::cuda
