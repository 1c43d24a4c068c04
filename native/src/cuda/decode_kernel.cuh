// The split-KV attention kernel. docs/kernels.md has the schedule as a diagram and why it is what it is.
//
// A thread block owns 64 query rows and walks the KV blocks of its part of the plan. Four warpgroups, by role:
//   score   holds the queries, most of them in registers; S = Q K^T in steps of 32 keys, the softmax, writes P
//   value   two of them, each accumulates 64 x 256 of O += P V
//   copy    one warp feeds a ring of five 36 KB stages by TMA; the queries of each sequence travel in it as well; another brings
//           what is needed first into L2
#pragma once

#include "decode_join.cuh"
#include "decode_score.cuh"
#include "sm90/tma.cuh"

namespace mla::cuda {

// What becomes of sequences that the plan cuts: the kernel itself joins their splits, or the combine kernel does; or, by the
// deterministic plan's rule, a part has several splits of one sequence, and the combine kernel joins them.
enum class Splits { kJoined, kCombined, kByRule };

template <Splits kSplits>
using WalkOf = PartWalk<kSplits == Splits::kByRule ? Walk::kByRule : Walk::kByLoad>;

// ---- copy -------------------------------------------------------------------------------------------------------------

constexpr int kQueryStages = kTileRows / kStepTokens;  // that the queries of a sequence take

// What the copy warp loads. Its lane 0 issues the copies.
template <int kCluster>
class Loader {
 public:
  __device__ Loader(DecodeSmem &smem, const DecodeMaps &maps, const DecodeParams &p, int tile)
      : smem_(smem), maps_(maps), first_row_(tile * kTileRows), rank_(kCluster > 1 ? sm90::cluster_rank() : 0),
        once_(sm90::evict_first_policy()), queries_(p.queries_stay ? sm90::evict_last_policy() : once_) {}

  // The queries of a sequence, as two stages.
  __device__ void load_queries(RingPosition<kStages> &ring, int seq) const {
    for (int half = 0; half < kQueryStages; ++half) {
      fill(ring, [&](uint32_t target, uint32_t barrier) {
        sm90::tma_load(target, &maps_.queries, barrier, 0, first_row_ + half * kStepTokens, 0, seq, queries_);
      });
    }
  }

  // The keys of a step, which lie in `cache_block`: this block's share of them, for the whole cluster.
  __device__ void load_keys(RingPosition<kStages> &ring, int step, int cache_block) const {
    fill(ring, [&](uint32_t target, uint32_t barrier) {
      if constexpr (kCluster == 1) {
        sm90::tma_load(target, &maps_.cache, barrier, 0, 0, 0, atom_row(step), cache_block, once_);
      } else {
        sm90::tma_load_multicast(target + rank_ * (kStageBytes / kCluster), &maps_.cache, barrier, 0, 0, 0, atom_row(step),
                                 cache_block, (1 << kCluster) - 1, once_);
      }
    });
  }
  __device__ uint64_t once() const { return once_; }

 private:
  // Where this block's share of a step begins in its cache block, in eights of keys.
  __device__ int atom_row(int step) const {
    return (step % kStepsPerBlock * kStepTokens + rank_ * (kStepTokens / kCluster)) / kAtomKeys;
  }

  template <typename Load>
  __device__ void fill(RingPosition<kStages> &ring, Load load) const {
    sm90::barrier_wait(sm90::smem_address(&smem_.empty[ring.place]), ring.parity ^ 1);
    const uint32_t barrier = sm90::smem_address(&smem_.full[ring.place]);
    sm90::barrier_expect_bytes(barrier, kStageBytes);
    load(sm90::smem_address(smem_.stages[ring.place]), barrier);
    ring.next();
  }

  DecodeSmem &smem_;
  const DecodeMaps &maps_;
  int first_row_;
  uint32_t rank_;
  uint64_t once_, queries_;
};

// How many of the first steps of a part's first share may be loaded while the kernel before this one still runs: as many as there are
// stages beside the first queries'. What is loaded must have come from before that kernel, so not this step's tokens, the last s_q
// of a sequence.
__device__ __forceinline__ int early_steps(const Share &share, const DecodeParams &p) {
  const int old_steps = max(share.length - p.s_q, 0) / kStepTokens;
  return max(min(min(share.end_step, old_steps) - share.first_step, kStages - kQueryStages), 0);
}

// Loads the keys of these steps into the stages behind the first queries'. Returns how many they are.
template <int kCluster, Splits kSplits>
__device__ __forceinline__ int load_early(const Loader<kCluster> &loader, const DecodeSmem &smem, const DecodeParams &p) {
  WalkOf<kSplits> walk(smem.part, p, smem.runs);
  if (walk.done()) return 0;
  const Share share = walk.take();
  const int steps = early_steps(share, p), lane = threadIdx.x % 32;
  RingPosition<kStages> ring;
  for (int i = 0; i < kQueryStages; ++i) ring.next();
  const int step = share.first_step + lane;
  const int entry = lane < steps ? __ldg(p.block_table + share.seq * p.table_stride + step / kStepsPerBlock) : 0;
  for (int i = 0; i < steps; ++i) {
    const int cache_block = __shfl_sync(~0u, entry, i);
    if (lane == 0) loader.load_keys(ring, share.first_step + i, cache_block);
  }
  return steps;
}

// Brings whole rows into L2, a warp.
__device__ __forceinline__ void prefetch_rows(const __nv_bfloat16 *first, int64_t stride, int rows) {
  constexpr int kLines = kHeadDim * 2 / 128;
  for (int line = threadIdx.x % 32; line < rows * kLines; line += 32) {
    sm90::prefetch_line(first + line / kLines * stride + line % kLines * 64);
  }
}

// Beside the copy warp, while the kernel before this one may still run: brings into L2 the first queries and a few steps of keys
// beyond those that are loaded early. Harmless even if that kernel writes them: L2 is where its writes arrive. Not by the copy
// engine, which would let the queries wait behind them.
template <int kCluster, Splits kSplits>
__device__ __forceinline__ void prefetch_role(const DecodeSmem &smem, const DecodeParams &p, int tile) {
  constexpr int kAhead = kSplits == Splits::kJoined ? 7 : 2;  // steps; measured: docs/kernels.md
  constexpr int kShare = kStepTokens / kCluster;              // of a step's keys
  WalkOf<kSplits> walk(smem.part, p, smem.runs);
  if (walk.done()) return;
  const Share share = walk.take();
  if (share.empty()) return;
  const int row = tile * kTileRows, rank = kCluster > 1 ? sm90::cluster_rank() : 0;
  prefetch_rows(p.q + share.seq * p.q_stride + row * p.q_row_stride, p.q_row_stride, min(p.rows - row, kTileRows));
  const int32_t *table = p.block_table + share.seq * p.table_stride;
  for (int step = share.first_step + early_steps(share, p); step < min(share.end_step, share.first_step + kAhead); ++step) {
    const __nv_bfloat16 *keys = p.cache + __ldg(table + step / kStepsPerBlock) * p.block_stride;
    const int first_key = step % kStepsPerBlock * kStepTokens + rank * kShare;
    prefetch_rows(keys + first_key * p.key_stride, p.key_stride, kShare);
  }
}

// Feeds the ring: for each sequence the queries as two stages, then its keys. A whole warp, so that it can hold 32 block
// table entries.
template <int kCluster, Splits kSplits>
__device__ __forceinline__ void copy_role(DecodeSmem &smem, const DecodeMaps &maps, const DecodeParams &p, int tile) {
  const int lane = threadIdx.x % 32;
  const Loader<kCluster> loader(smem, maps, p, tile);
  int early = load_early<kCluster, kSplits>(loader, smem, p);
  sm90::wait_for_previous_kernel();
  sm90::launch_dependents();

  RingPosition<kStages> ring;
  for (WalkOf<kSplits> walk(smem.part, p, smem.runs); !walk.done();) {
    const Share share = walk.take();
    if (share.empty()) continue;
    if (lane == 0 && share.takes_queries()) loader.load_queries(ring, share.seq);
    const int first_step = share.first_step + early;
    for (; early > 0; --early) ring.next();
    const int32_t *table = p.block_table + share.seq * p.table_stride;
    // 32 entries of the block table from the first block on, an entry a lane; then the next 32.
    const int first_block = first_step / kStepsPerBlock;
    const int end_block = (share.end_step + kStepsPerBlock - 1) / kStepsPerBlock;
    int entry = 0, loaded = first_block;
    for (int step = first_step; step < share.end_step; ++step) {
      const int block = step / kStepsPerBlock;
      if (block == loaded) {
        entry = block + lane < end_block ? __ldg(table + block + lane) : 0;
        loaded += 32;
      }
      const int cache_block = __shfl_sync(~0u, entry, (block - first_block) % 32);
      if (lane == 0) loader.load_keys(ring, step, cache_block);
    }
    if (kSplits != Splits::kJoined || share.whole() || lane != 0) continue;
    SplitJoin(smem.part, share).each([&](int part) {
      sm90::wait_for_flag(part_flag(p, part, tile));
      sm90::fence_async_proxy_global();
#pragma unroll 1
      for (int half = 0; half < 2; ++half) {
        sm90::barrier_wait(sm90::smem_address(&smem.empty[ring.place]), ring.parity ^ 1);
        load_partial(maps, p, part, tile, half, sm90::smem_address(smem.stages[ring.place]),
                     sm90::smem_address(&smem.full[ring.place]), loader.once());
        ring.next();
      }
    });
  }
}

// ---- score ------------------------------------------------------------------------------------------------------------

// Hides the keys of a step that a row does not see.
__device__ __forceinline__ void mask_scores(float (&s)[16], int first_key, int length, const DecodeParams &p,
                                            int first_row) {
  if (first_key + kStepTokens <= length - (p.s_q - 1)) return;  // all rows see all of them
  const int lane = threadIdx.x % 32;
  int seen[2];
#pragma unroll
  for (int r = 0; r < 2; ++r) {
    int row = first_row + threadIdx.x / 32 % 4 * kWarpRows + lane / 4 + 8 * r;
    seen[r] = length - max(p.s_q - 1 - quotient(row, p.heads), 0) - first_key - lane % 4 * 2;
  }
#pragma unroll
  for (int i = 0; i < 16; ++i) {
    if (i / 4 * 8 + i % 2 >= seen[i / 2 % 2]) s[i] = -INFINITY;
  }
}

// Hands 1 / sum and the log-sum-exp of a finished share to the value warps.
__device__ __forceinline__ void publish_sums(DecodeSmem &smem, const RowState &rows, float scale_log2, uint32_t sum_parity) {
  const int thread = late_thread(), lane = thread % 32, warp = thread / 32 % 4;
  // Of the four lanes of two rows the even ones take the upper row, the odd ones the lower one.
  const bool lower = lane % 2;
  float sum = (lower ? rows.sum[1] : rows.sum[0]) + __shfl_xor_sync(~0u, lower ? rows.sum[0] : rows.sum[1], 1);
  sum += __shfl_xor_sync(~0u, sum, 2);
  const float max = lower ? rows.max[1] : rows.max[0];
  sm90::barrier_wait(sm90::smem_address(&smem.sum_empty), sum_parity ^ 1);
  if (lane % 4 < 2) {
    const int row = warp * 16 + lane / 4 + 8 * lower;
    smem.inverse_sum[row] = inverse_sum(sum);
    smem.lse2[row] = lse2_of(max, sum, scale_log2);
  }
  sm90::barrier_arrive(sm90::smem_address(&smem.sum_full));
}

template <int kCluster, Splits kSplits>
__device__ __forceinline__ void score_role(DecodeSmem &smem, const DecodeParams &p, int tile) {
  RingPosition<kStages> ring;
  RingPosition<kSlots> slots;
  uint32_t sum_parity = 0;
  Queries q;

  for (WalkOf<kSplits> walk(smem.part, p, smem.runs); !walk.done();) {
    const Share share = walk.take_sequence();
    const RowState none = {{-INFINITY, -INFINITY}, {0.0f, 0.0f}};
    RowState rows = none;
    auto publish = [&] {
      publish_sums(smem, rows, p.scale_log2, sum_parity);
      sum_parity ^= 1;
    };
    if (!share.empty()) {
      load_queries<kCluster>(smem, q, ring);
      // The splits of a sequence in one go: neither products nor softmax pause between them.
      int split_end = kSplits == Splits::kByRule ? p.rule.split_steps(steps_of(share.length)) : 0;
      weigh_steps(smem, q, rows, p.scale_log2, share.end_step - share.first_step, ring, slots, [&](float(&s)[16], int step) {
        if (kSplits == Splits::kByRule && step == split_end) {
          publish();
          rows = none;
          split_end += p.rule.split_steps(steps_of(share.length));
        }
        mask_scores(s, (share.first_step + step) * kStepTokens, share.length, p, tile * kTileRows);
      });
    }
    if (kSplits == Splits::kJoined && !share.whole()) {
      SplitJoin(smem.part, share).each([&](int) {
        ring.next();
        ring.next();
      });
    }
    publish();
  }
}

// ---- value ------------------------------------------------------------------------------------------------------------

constexpr uint32_t kValueSync = kScoreSync + 1;  // ids of the value warpgroups' own barriers: this one and the next

// The last block's keys past the sequence's end may hold anything, NaN too: 0 x NaN must not reach O.
__device__ __forceinline__ void clear_unused_keys(uint8_t *columns, int used, uint32_t sync_id) {
  constexpr int kPieces = kValueColumns / 8;  // of a row, 16 bytes each
  for (int i = threadIdx.x % 128; i < (kStepTokens - used) * kPieces; i += 128) {
    const int row = used + i / kPieces, piece = i % 8;
    const int atom = row / kAtomKeys * kAtomRowBytes + i % kPieces / 8 * kAtomBytes;
    *reinterpret_cast<int4 *>(columns + atom + row % kAtomKeys * 128 + piece * 16) = make_int4(0, 0, 0, 0);
  }
  sm90::fence_async_proxy();
  sm90::warpgroup_sync(sync_id);
}

// The four lanes of a quad hold, of each of four 8-column groups, one pair of columns each; afterwards each lane holds
// the four pairs of one group: 16 bytes of 16-bit values.
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

// Stores columns of O of a finished share: of the sequence's result, or of a partial one for the combine kernel.
template <int kCount>
__device__ __forceinline__ void store_output(const float (&o)[kCount], const ShareRows &rows, bool whole, const DecodeParams &p,
                                             const Share &share, int first_row, int column) {
  constexpr int kPart = kScaleColumns / 2;  // accumulators that have one scale
  const int lane = late_thread() % 32, query_row = first_row + lane / 4;
  const uint64_t policy = whole ? output_policy(p, column) : sm90::evict_normal_policy();
  // Values of 16 bits, [rows, 512].
  auto store = [&](auto *out, int64_t before, int part, float upper, float lower, auto pack) {
    auto *target = out + (before + query_row) * kValueDim + column + part * kScaleColumns + lane % 4 * 8;
#pragma unroll
    for (int r = 0; r < 2; ++r) {
#pragma unroll
      for (int group = 0; group < kPart / 16; ++group) {
        const float factor = r == 0 ? upper : lower;
        uint32_t v[4];
#pragma unroll
        for (int i = 0; i < 4; ++i) {
          const int at = part * kPart + (group * 4 + i) * 4 + r * 2;
          v[i] = pack(o[at] * factor, o[at + 1] * factor);
        }
        transpose_quad(v);
        if (query_row + 8 * r >= p.rows) continue;
        sm90::store_hinted(target + 8 * r * kValueDim + group * 32, make_uint4(v[0], v[1], v[2], v[3]), policy);
      }
    }
  };
  if (whole) {
#pragma unroll
    for (int part = 0; part < kCount / kPart; ++part) {
      store(p.out, static_cast<int64_t>(share.seq) * p.rows, part, rows.factor[0], rows.factor[1],
            [](float low, float high) { return sm90::pack_bf16(low, high); });
    }
    return;
  }
  const int64_t before = static_cast<int64_t>(share.slot(p)) * p.rows;
#pragma unroll
  for (int part = 0; part < kCount / kPart; ++part) {
    const float2 top = row_maxima<kPart>(o, part * kPart);
    float factors[2];
#pragma unroll
    for (int r = 0; r < 2; ++r) {
      const HalfScale scale((r == 0 ? top.x : top.y) * rows.factor[r]);
      factors[r] = rows.factor[r] * scale.up;  // at most 2^126: the sums are at least 1
      if (lane % 4 > 0 || query_row + 8 * r >= p.rows) continue;
      p.partial_scale[(before + query_row + 8 * r) * kScales + column / kScaleColumns + part] = scale.down;
    }
    store(p.partial_out, before, part, factors[0], factors[1],
          [](float low, float high) { return sm90::pack_f16(low, high); });
  }
}

template <int kCluster, Splits kSplits>
__device__ __forceinline__ void value_role(DecodeSmem &smem, const DecodeParams &p, int tile, int side) {
  const int column = side * kValueColumns;
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32 % 4;
  RingPosition<kStages> ring;
  RingPosition<kSlots> slots;
  uint32_t sum_parity = 0;
  float left[64], right[64];  // columns of O
  const uint64_t p_rows = sm90::swizzled_descriptor(sm90::smem_address(smem.probabilities), 0);

  for (WalkOf<kSplits> walk(smem.part, p, smem.runs); !walk.done();) {
    const Share share = walk.take();
#pragma unroll
    for (int i = 0; i < 64; ++i) left[i] = right[i] = 0.0f;
    if (share.takes_queries()) {
      ring.next();
      ring.next();
    }
    for (int step = share.first_step; step < share.end_step; ++step) {
      uint8_t *columns = smem.stages[ring.place] + column / 64 * kAtomBytes;
      sm90::barrier_wait(sm90::smem_address(&smem.full[ring.place]), ring.parity);
      // Before P is there. The score warps may still read these keys, but what they make of them is hidden anyway.
      const int used = share.length - step * kStepTokens;
      if (used < kStepTokens) clear_unused_keys(columns, used, kValueSync + side);
      sm90::barrier_wait(sm90::smem_address(&smem.p_full[slots.place]), slots.parity);
      if (step > share.first_step && smem.must_rescale[slots.place][warp]) {  // before the first there is nothing
        const float *factors = smem.rescale[slots.place] + warp * 16 + lane / 4;
        const float upper = factors[0], lower = factors[8];
#pragma unroll
        for (int i = 0; i < 64; ++i) {
          left[i] *= i / 2 % 2 ? lower : upper;
          right[i] *= i / 2 % 2 ? lower : upper;
        }
      }
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
      if (lane == 0) release<kCluster>(smem.empty[ring.place], 1);
      slots.next();
      ring.next();
    }

    sm90::barrier_wait(sm90::smem_address(&smem.sum_full), sum_parity);
    sum_parity ^= 1;
    ShareRows rows(smem);
    sm90::barrier_arrive(sm90::smem_address(&smem.sum_empty));
    bool whole = share.whole();
    if (kSplits == Splits::kJoined && !whole) {
      const SplitJoin join(smem.part, share);
      join.each([&](int) {
#pragma unroll 1
        for (int half = 0; half < 2; ++half) {
          sm90::barrier_wait(sm90::smem_address(&smem.full[ring.place]), ring.parity);
          if (half == side && warp_row(tile, late_thread()) < p.rows) add_partial(smem.stages[ring.place], rows, left, right);
          __syncwarp();
          if (lane == 0) release<kCluster>(smem.empty[ring.place], 1);
          ring.next();
        }
      });
      if (!join.first()) {
        leave_partial(p, tile, side, rows, left, right);
        continue;
      }
      whole = true;
    }
    if (column == 0) store_lse(p, share, warp_row(tile, late_thread()), rows, whole);
    store_output(left, rows, whole, p, share, warp_row(tile, late_thread()), column);
    store_output(right, rows, whole, p, share, warp_row(tile, late_thread()), column + kValueColumns / 2);
  }
}

// Announces the partial result of a part, that of its first share, if another part takes it in.
__device__ __forceinline__ void partial_role(const DecodeSmem &smem, const DecodeParams &p, int tile) {
  WalkOf<Splits::kJoined> walk(smem.part, p, smem.runs);
  if (walk.done() || SplitJoin(smem.part, walk.take()).first()) return;
  announce_partial(p, tile);
}

// ---- kernel -----------------------------------------------------------------------------------------------------------

template <int kCluster>
__device__ __forceinline__ void init_barriers(DecodeSmem &smem) {
  using sm90::barrier_init;
  using sm90::smem_address;
  for (int stage = 0; stage < kStages; ++stage) {
    barrier_init(smem_address(&smem.full[stage]), 1);
    barrier_init(smem_address(&smem.empty[stage]), kCluster * kValueWarps);
  }
  // Every thread arrives at these, not one a warp: racecheck does not follow __syncwarp, and the difference is small.
  for (int slot = 0; slot < kSlots; ++slot) {
    barrier_init(smem_address(&smem.p_full[slot]), kScoreWarps * 32);
    barrier_init(smem_address(&smem.p_empty[slot]), kValueWarps * 32);
  }
  barrier_init(smem_address(&smem.sum_full), kScoreWarps * 32);
  barrier_init(smem_address(&smem.sum_empty), kValueWarps * 32);
  sm90::barrier_init_fence();
}

// Grid: (tiles, parts); the tiles of a cluster are neighbours.
template <int kCluster, Splits kSplits>
__global__ void __launch_bounds__(kDecodeThreads, 1)
    decode_kernel(const __grid_constant__ DecodeMaps maps, const __grid_constant__ DecodeParams p) {
  extern __shared__ __align__(1024) uint8_t raw_smem[];
  DecodeSmem &smem = *reinterpret_cast<DecodeSmem *>(raw_smem);
  const int tile = blockIdx.x;
  const int part = kSplits == Splits::kJoined ? joined_part(blockIdx.y) : blockIdx.y;
  const int warpgroup = __shfl_sync(~0u, threadIdx.x / 128, 0);
  if (threadIdx.x == 0) {
    sm90::prefetch_tensor_map(&maps.queries);
    sm90::prefetch_tensor_map(&maps.cache);
    init_barriers<kCluster>(smem);
  }
  if (threadIdx.x < sizeof(PlanPart) / sizeof(int4)) {
    reinterpret_cast<int4 *>(&smem.part)[threadIdx.x] =
        reinterpret_cast<const int4 *>(p.plan.parts + part)[threadIdx.x];
  }
  if (threadIdx.x < kRunsAhead) {
    const PlanPart &row = p.plan.parts[part];
    const int i = threadIdx.x;
    if (kSplits == Splits::kByRule) {
      smem.runs[i] = run_ahead(p, row, i);
    } else {
      const PlanSequence sequence = ldg_sequence(p.plan.sequences + max(min(row.first + i, row.last), 0));
      smem.runs[i].seq = sequence.seq;
      smem.runs[i].length = sequence.length;
    }
  }
  if (kCluster > 1) sm90::cluster_sync();
  else __syncthreads();
  if (warpgroup == 0) {
    sm90::take_registers<168>();
    sm90::wait_for_previous_kernel();
    score_role<kCluster, kSplits>(smem, p, tile);
  } else if (warpgroup == 3) {
    sm90::give_registers<24>();
    const int warp = __shfl_sync(~0u, threadIdx.x / 32 % 4, 0);
    if (warp == 0) copy_role<kCluster, kSplits>(smem, maps, p, tile);
    else if (warp == 1) prefetch_role<kCluster, kSplits>(smem, p, tile);
    else if (warp == 2 && kSplits == Splits::kJoined) partial_role(smem, p, tile);
  } else {
    sm90::take_registers<160>();
    sm90::wait_for_previous_kernel();
    value_role<kCluster, kSplits>(smem, p, tile, warpgroup - 1);
  }
  if (kCluster > 1) sm90::cluster_sync();  // a block's shared memory must outlive its peer's copies and arrivals
}

}  // namespace mla::cuda
