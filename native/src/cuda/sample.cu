// sample: one token a row, exactly as mla.h says. Every row is scanned once for its largest logit, which is all that a
// greedy row takes. A row with a temperature is then read a second time into the shared memory of a cluster of blocks,
// where top_k and top_p are found by histograms, not by a sort. Probabilities are summed as integers, so that a draw does
// not depend on the order of additions.
#include <algorithm>

#include "ops.h"
#include "vocabulary.cuh"

namespace mla::cuda {
namespace {

namespace cg = cooperative_groups;

struct Sample {
  const float *logits, *temperature, *top_p;
  const int32_t *top_k, *positions;
  const int64_t *seed;
  int32_t *ids;
  int64_t logit_stride;
  int batch, vocabulary;
};

// ---- the largest logit ----------------------------------------------------------------------------------------------

struct ScanShared {
  uint64_t scratch[kVocabularyWarps];
  uint64_t best;
  int broken;
};

// ids[b] = the first largest logit's, or -1 for a row with a NaN or +inf, or nothing above -inf. A row a cluster.
__global__ void __launch_bounds__(kVocabularyThreads, 3) scan_kernel(Sample p) {
  __shared__ ScanShared shared;
  wait_for_work_before();
  const cg::cluster_group cluster = cg::this_cluster();
  const int rank = static_cast<int>(cluster.block_rank());
  const int blocks = static_cast<int>(cluster.num_blocks());
  const int64_t b = blockIdx.x / blocks;
  const Slice slice = slice_of(p.vocabulary, rank, blocks);
  float best = -INFINITY;
  int best_at = -1;
  bool broken = false;
  for_each_piece<4>(p.logits + b * p.logit_stride + slice.begin, slice.count, [&](int place, auto piece) {
    int at = slice.begin + place;
    for (const float value : piece.v) {
      broken |= !(value < INFINITY);
      if (value > best) {
        best = value;
        best_at = at;
      }
      at++;
    }
  });
  const uint64_t own = block_max(best_at < 0 ? 0 : choice_key(best, best_at), shared.scratch);
  const int any_broken = __syncthreads_or(broken);
  if (threadIdx.x == 0) {
    shared.best = own;
    shared.broken = any_broken;
  }
  cluster.sync();
  if (rank == 0 && threadIdx.x == 0) {
    uint64_t choice = 0;
    int row_broken = 0;
    for (int r = 0; r < blocks; r++) {
      const ScanShared &theirs = *cluster.map_shared_rank(&shared, r);
      choice = max(choice, theirs.best);
      row_broken |= theirs.broken;
    }
    p.ids[b] = row_broken || choice == 0 ? -1 : choice_id(choice);
  }
  cluster.sync();  // the first block has read what the others hold
}

// ---- drawing --------------------------------------------------------------------------------------------------------

constexpr int kBins = 2048;
constexpr int kBinsOfThread = kBins / kVocabularyThreads;
constexpr int kBinsOfBlock = kBins / kVocabularyCluster;
static_assert(kBinsOfThread == 4 && kBinsOfBlock <= kVocabularyThreads, "how bins are summed");
constexpr float kBinsPerUnit = 64;  // of the scaled logits: 32 units below the largest, all but nothing is left
constexpr int kCandidates = 1024;   // values of one bin that are compared one with another
constexpr int kSegments = kVocabularyCluster * kVocabularyWarps;

// What the blocks of a cluster tell each other, and what a block works in.
struct DrawShared {
  uint32_t low[kBins], high[kBins];  // a histogram of 64-bit sums, in halves: shared memory adds 32 bits at once
  alignas(16) uint64_t sums[kBinsOfBlock];  // of this block's share of the bins, of all blocks' histograms
  float bin_values[kCandidates];     // of this block's slice, in the bin that was found
  int bin_count;                     // may be more than there is room for
  uint32_t candidate_keys[kCandidates];  // the same of the whole row
  uint64_t candidate_weights[kCandidates];
  uint64_t segment_mass[kVocabularyWarps];  // of each warp's ids: probability above the cut,
  uint32_t segment_ties[kVocabularyWarps];  // and how many are at the cut
  uint64_t scratch[kVocabularyWarps];
  uint64_t found_above;
  uint32_t found;
};

// Where the largest values, weighed one by one, reach a target: the key of the last value needed, the weight of all with
// larger keys, and the target.
struct Cut {
  uint32_t key = 0;
  uint64_t above = 0;
  uint64_t target = 0;
};

// A slice of scaled logits, and the row's largest.
struct Row {
  const float *values;
  Slice slice;
  float largest;

  // exp(value - largest) in units of 2^-40, cut off.
  __device__ __forceinline__ uint64_t probability(float value) const {
    const uint32_t bits = __float_as_uint(expf(value - largest));
    const int shift = static_cast<int>(bits >> 23) - 150 + 40;
    const uint64_t mantissa = (bits & 0x7FFFFFu) | 0x800000u;
    return shift >= 0 ? mantissa << shift : shift > -24 ? mantissa >> -shift : 0;
  }
  // Linear bins below the largest value: monotone, and they spread logits better than their leading bits do.
  __device__ __forceinline__ uint32_t bin(float value) const {
    return static_cast<uint32_t>(fminf((largest - value) * kBinsPerUnit, kBins - 1.0f));
  }
};

template <class Body>
__device__ __forceinline__ void for_each_value(const Row &row, Body body) {
#pragma unroll 2  // more would spill registers, as in the other loops here
  for (int i = threadIdx.x; i < row.slice.count; i += kVocabularyThreads) {
    body(row.values[i]);
  }
}

__device__ __forceinline__ void add_to_bucket(DrawShared &shared, uint32_t bucket, uint64_t weight) {
  const auto low = static_cast<uint32_t>(weight);
  const uint32_t before = atomicAdd(&shared.low[bucket], low);
  const uint32_t high = static_cast<uint32_t>(weight >> 32) + (before + low < before);
  if (high != 0) {
    atomicAdd(&shared.high[bucket], high);
  }
}

// The block's exclusive prefix sum in thread order; `total` of all threads.
__device__ __forceinline__ uint64_t block_prefix(uint64_t own, uint64_t *scratch, uint64_t *total) {
  const uint64_t in_warp = warp_prefix(own);
  if (threadIdx.x % 32 == 31) {
    scratch[threadIdx.x / 32] = in_warp + own;
  }
  __syncthreads();
  uint64_t before = 0;
  uint64_t all = 0;
  for (int w = 0; w < kVocabularyWarps; w++) {
    before += w < static_cast<int>(threadIdx.x) / 32 ? scratch[w] : 0;
    all += scratch[w];
  }
  *total = all;
  return before + in_warp;
}

/*
 * One pass of a search for a cut, by the whole cluster: weighs the values by bucket (bucket_of gives kBins for those that
 * take no part), and finds the bucket, from 0 upwards, in which cut.above plus the sum reaches the target. Returns it;
 * adds what lies before to cut.above. target_of turns the sum of all into the target.
 */
template <class Bucket, class Weight, class Target>
__device__ uint32_t search_buckets(const Row &row, DrawShared &shared, Cut &cut, Bucket bucket_of, Weight weight_of,
                                   Target target_of) {
  const cg::cluster_group cluster = cg::this_cluster();
  cluster.sync();  // the other blocks have read what lies here
  for (int i = threadIdx.x; i < kBins; i += kVocabularyThreads) {
    shared.low[i] = 0;
    shared.high[i] = 0;
  }
  __syncthreads();
  for_each_value(row, [&](float value) {
    const uint32_t bucket = bucket_of(value);
    if (bucket < kBins) {
      const uint64_t weight = weight_of(value);
      if (weight != 0) {
        add_to_bucket(shared, bucket, weight);
      }
    }
  });
  cluster.sync();
  // Every block adds up its share of the bins for all.
  if (threadIdx.x < kBinsOfBlock) {
    const int bin = static_cast<int>(cluster.block_rank()) * kBinsOfBlock + static_cast<int>(threadIdx.x);
    uint64_t sum = 0;
#pragma unroll
    for (int b = 0; b < kVocabularyCluster; b++) {
      sum += static_cast<uint64_t>(*cluster.map_shared_rank(shared.high + bin, b)) << 32;
      sum += *cluster.map_shared_rank(shared.low + bin, b);
    }
    shared.sums[threadIdx.x] = sum;
  }
  cluster.sync();
  const int first = static_cast<int>(threadIdx.x) * kBinsOfThread;
  const auto *part = reinterpret_cast<const ulonglong2 *>(
      cluster.map_shared_rank(shared.sums + first % kBinsOfBlock, first / kBinsOfBlock));
  const ulonglong2 left = part[0];
  const ulonglong2 right = part[1];
  const uint64_t sums[kBinsOfThread] = {left.x, left.y, right.x, right.y};
  uint64_t total = 0;
  uint64_t before = cut.above + block_prefix(sums[0] + sums[1] + sums[2] + sums[3], shared.scratch, &total);
  cut.target = target_of(total);
#pragma unroll
  for (int k = 0; k < kBinsOfThread; k++) {
    if (sums[k] != 0 && (before < cut.target || before == cut.above) && before + sums[k] >= cut.target) {
      shared.found = first + k;  // one thread alone comes here
      shared.found_above = before;
    }
    before += sums[k];
  }
  __syncthreads();
  cut.above = shared.found_above;
  return shared.found;
}

// Gathers the row's values of a bin that weigh anything into candidate_keys and _weights, in any order. Returns their
// number, or -1 where there are too many.
template <class Weight>
__device__ int gather_candidates(const Row &row, DrawShared &shared, uint32_t bin, Weight weight_of) {
  const cg::cluster_group cluster = cg::this_cluster();
  if (threadIdx.x == 0) {
    shared.bin_count = 0;
  }
  __syncthreads();
  for_each_value(row, [&](float value) {
    if (row.bin(value) == bin && weight_of(value) != 0) {
      const int place = atomicAdd(&shared.bin_count, 1);
      if (place < kCandidates) {
        shared.bin_values[place] = value;
      }
    }
  });
  cluster.sync();
  int total = 0;
  for (int b = 0; b < kVocabularyCluster; b++) {
    const DrawShared &theirs = *cluster.map_shared_rank(&shared, b);
    const int count = theirs.bin_count;
    if (total + count > kCandidates) {
      return -1;
    }
    for (int i = threadIdx.x; i < count; i += kVocabularyThreads) {
      const float value = theirs.bin_values[i];
      shared.candidate_keys[total + i] = ordered(value);
      shared.candidate_weights[total + i] = weight_of(value);
    }
    total += count;
  }
  __syncthreads();
  return total;
}

// The cut among the candidates: each is compared with all others.
__device__ void compare_candidates(DrawShared &shared, int count, Cut &cut) {
  for (int i = threadIdx.x; i < count; i += kVocabularyThreads) {
    const uint32_t key = shared.candidate_keys[i];
    uint64_t above = cut.above;
    uint64_t equal = 0;
#pragma unroll 1
    for (int j = 0; j < count; j++) {
      const uint32_t other = shared.candidate_keys[j];
      const uint64_t weight = shared.candidate_weights[j];
      above += other > key ? weight : 0;
      equal += other == key ? weight : 0;
    }
    if ((above < cut.target || above == cut.above) && above + equal >= cut.target) {
      shared.found = key;  // all that come here have this key
      shared.found_above = above;
    }
  }
  __syncthreads();
  cut.key = shared.found;
  cut.above = shared.found_above;
}

// The cut within a bin of many values, by the bits of their keys.
template <class Weight>
__device__ void search_keys(const Row &row, DrawShared &shared, uint32_t bin, Weight weight_of, Cut &cut) {
  const uint64_t target = cut.target;
  uint32_t settled = 0;
  for (int shift = 21; shift >= 0; shift = shift == 21 ? 10 : shift - 10) {  // 11, 11 and 10 bits
    const uint32_t top = shift == 0 ? (1u << 10) - 1 : (1u << 11) - 1;
    const auto bucket_of = [&](float value) {
      const uint32_t key = ordered(value);
      return row.bin(value) == bin && (key & settled) == cut.key ? top - (key >> shift & top) : kBins;
    };
    const uint32_t bucket = search_buckets(row, shared, cut, bucket_of, weight_of, [&](uint64_t) { return target; });
    cut.key |= (top - bucket) << shift;
    settled |= top << shift;
  }
}

template <class Weight, class Target>
__device__ Cut find_cut(const Row &row, DrawShared &shared, Weight weight_of, Target target_of) {
  Cut cut;
  const uint32_t bin = search_buckets(row, shared, cut, [&](float v) { return row.bin(v); }, weight_of, target_of);
  const int candidates = gather_candidates(row, shared, bin, weight_of);
  if (candidates >= 0) {
    compare_candidates(shared, candidates, cut);
  } else {
    search_keys(row, shared, bin, weight_of, cut);
  }
  return cut;
}

// What may be drawn: all values above a key, and of those at it the `ties` lowest ids.
struct Kept {
  uint32_t key = 0;
  uint32_t ties = UINT32_MAX;
};

__device__ Kept keep(const Row &row, DrawShared &shared, int top_k, float top_p, int vocabulary) {
  Kept kept;
  if (top_k > 0 && top_k < vocabulary) {
    const auto one = [](float) { return uint64_t{1}; };
    kept.key = find_cut(row, shared, one, [&](uint64_t) { return static_cast<uint64_t>(top_k); }).key;
  }
  if (top_p < 1) {
    const uint32_t least = kept.key;
    const auto weight_of = [&](float value) { return ordered(value) >= least ? row.probability(value) : uint64_t{0}; };
    const Cut cut = find_cut(row, shared, weight_of, [&](uint64_t total) {
      return static_cast<uint64_t>(ceil(static_cast<double>(top_p) * static_cast<double>(total)));
    });
    const uint64_t each = row.probability(from_ordered(cut.key));
    const uint64_t missing = cut.target > cut.above ? cut.target - cut.above : 0;
    kept.key = cut.key;
    kept.ties = static_cast<uint32_t>(max((missing + each - 1) / each, uint64_t{1}));
  }
  return kept;
}

// A thread's ids are consecutive, as are a warp's. Of a thread's: the probability above the cut, and how many are at it.
struct Share {
  int begin, end;
  uint64_t mass;
  uint32_t ties;
};

__device__ Share weigh_share(const Row &row, const Kept &kept) {
  const int length = (row.slice.count + kVocabularyThreads - 1) / kVocabularyThreads | 1;  // odd: all banks
  Share share = {};
  share.begin = min(static_cast<int>(threadIdx.x) * length, row.slice.count);
  share.end = min(share.begin + length, row.slice.count);
#pragma unroll 1
  for (int i = share.begin; i < share.end; i++) {
    const uint32_t key = ordered(row.values[i]);
    share.mass += key > kept.key ? row.probability(row.values[i]) : 0;
    share.ties += key == kept.key;
  }
  return share;
}

// Where the draw falls among the parts of a row that lanes hold: the part's lane, the probability before it, the ties
// that are left for it.
struct Place {
  int lane;
  uint64_t before;
  uint32_t ties;
};

// The whole's probability, of parts in lane order of which `ties` values at the cut are kept, `each` as probable.
__device__ __forceinline__ uint64_t kept_mass(uint64_t mass, uint32_t part_ties, uint32_t ties, uint64_t each,
                                              uint32_t *left) {
  *left = ties - min(ties, warp_prefix(part_ties));
  return mass + min(part_ties, *left) * each;
}

__device__ __forceinline__ Place find_part(uint64_t mass, uint64_t before, uint32_t left, uint64_t target) {
  before += warp_prefix(mass);
  const int lane = __ffs(__ballot_sync(~0u, before + mass > target)) - 1;
  return {lane, __shfl_sync(~0u, before, lane), __shfl_sync(~0u, left, lane)};
}

// The id at which the cumulated probability exceeds u of the whole, by the warp that finds it among its own.
__device__ void draw(const Row &row, DrawShared &shared, const Kept &kept, const Share &share, float u, int32_t *id) {
  constexpr int kOfLane = kSegments / 32;
  const cg::cluster_group cluster = cg::this_cluster();
  const int lane = static_cast<int>(threadIdx.x) % 32;
  const int warp = static_cast<int>(threadIdx.x) / 32;
  const uint64_t each = kept.key == 0 ? 0 : row.probability(from_ordered(kept.key));
  const uint64_t warp_mass = warp_sum(share.mass);
  const uint32_t warp_ties = warp_sum(share.ties);
  if (lane == 0) {
    shared.segment_mass[warp] = warp_mass;
    shared.segment_ties[warp] = warp_ties;
  }
  cluster.sync();
  // The segments of all warps of the cluster, a few a lane.
  const DrawShared &theirs = *cluster.map_shared_rank(&shared, lane * kOfLane / kVocabularyWarps);
  uint64_t mass[kOfLane];
  uint32_t ties[kOfLane];
  uint64_t lane_mass = 0;
  uint32_t lane_ties = 0;
#pragma unroll
  for (int k = 0; k < kOfLane; k++) {
    mass[k] = theirs.segment_mass[(lane * kOfLane + k) % kVocabularyWarps];
    ties[k] = theirs.segment_ties[(lane * kOfLane + k) % kVocabularyWarps];
    lane_mass += mass[k];
    lane_ties += ties[k];
  }
  uint32_t left = 0;
  lane_mass = kept_mass(lane_mass, lane_ties, kept.ties, each, &left);
  const uint64_t total = __shfl_sync(~0u, warp_prefix(lane_mass) + lane_mass, 31);
  const auto scaled = static_cast<uint64_t>(u * 0x1p24f);  // u is a multiple of 2^-24
  const uint64_t target = __umul64hi(total, scaled) << 40 | total * scaled >> 24;
  Place place = find_part(lane_mass, 0, left, target);
  int segment = place.lane * kOfLane;
#pragma unroll
  for (int k = 0; k + 1 < kOfLane; k++) {
    const uint32_t part_ties = min(__shfl_sync(~0u, ties[k], place.lane), place.ties);
    const uint64_t part = __shfl_sync(~0u, mass[k], place.lane) + part_ties * each;
    if (segment == place.lane * kOfLane + k && place.before + part <= target) {
      segment++;
      place.before += part;
      place.ties -= part_ties;
    }
  }
  if (static_cast<int>(cluster.block_rank()) * kVocabularyWarps + warp != segment) {
    return;
  }
  // This warp's: first the thread's share, then the value.
  const uint64_t own = kept_mass(share.mass, share.ties, place.ties, each, &left);
  place = find_part(own, place.before, left, target);
  const int begin = __shfl_sync(~0u, share.begin, place.lane);
  const int end = __shfl_sync(~0u, share.end, place.lane);
  for (int first = begin; first < end; first += 32) {
    const bool in = first + lane < end;
    const float value = in ? row.values[first + lane] : 0.0f;
    const uint32_t key = ordered(value);
    const uint32_t tie = in && key == kept.key;
    const uint64_t one = kept_mass(in && key > kept.key ? row.probability(value) : 0, tie, place.ties, each, &left);
    const uint64_t before = place.before + warp_prefix(one);
    const unsigned beyond = __ballot_sync(~0u, before + one > target);
    if (beyond != 0) {
      if (lane == 0) {
        *id = row.slice.begin + first + __ffs(beyond) - 1;
      }
      return;
    }
    place.before = __shfl_sync(~0u, before + one, 31);
    place.ties = __shfl_sync(~0u, left - min(left, tie), 31);
  }
}

// As mla_uniform of mla.h.
__device__ __forceinline__ float uniform(int64_t seed, int32_t position) {
  uint64_t z = static_cast<uint64_t>(seed) + (static_cast<uint64_t>(position) + 1) * 0x9E3779B97F4A7C15u;
  z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9u;
  z = (z ^ (z >> 27)) * 0x94D049BB133111EBu;
  z ^= z >> 31;
  return static_cast<float>(static_cast<uint32_t>(z >> 40)) * 0x1p-24f;
}

// Rows with a temperature, which scan_kernel has left their largest logit's id. A row a cluster, then the next.
__global__ void __launch_bounds__(kVocabularyThreads, 2) draw_kernel(Sample p) {
  extern __shared__ float values[];  // the slice, divided by the temperature
  __shared__ DrawShared shared;
  wait_for_work_before();  // and no early start of the next, which would take the places of clusters
  const cg::cluster_group cluster = cg::this_cluster();
  const Slice slice = slice_of(p.vocabulary, static_cast<int>(cluster.block_rank()), kVocabularyCluster);
  for (int b = blockIdx.x / kVocabularyCluster; b < p.batch; b += gridDim.x / kVocabularyCluster) {
    const float temperature = p.temperature[b];
    const int32_t best = temperature == 0 ? -1 : p.ids[b];
    if (best < 0) {
      continue;
    }
    const float *logits = p.logits + b * p.logit_stride;
    const Row row = {values, slice, logits[best] / temperature};
    for_each_piece<2>(logits + slice.begin, slice.count, [&](int place, auto piece) {
      for (float &value : piece.v) {
        value /= temperature;
      }
      store(values + place, piece);
    });
    __syncthreads();
    const Kept kept = keep(row, shared, p.top_k[b], p.top_p[b], p.vocabulary);
    const Share share = weigh_share(row, kept);
    draw(row, shared, kept, share, uniform(p.seed[b], p.positions[b]), p.ids + b);
    cluster.sync();  // all have read what the others hold
  }
}

}  // namespace

void sample(const Device &device, const mla_sample_args &args) {
  Sample p = {};
  p.logits = static_cast<const float *>(args.logits.data);
  p.temperature = static_cast<const float *>(args.temperature.data);
  p.top_p = static_cast<const float *>(args.top_p.data);
  p.top_k = static_cast<const int32_t *>(args.top_k.data);
  p.positions = static_cast<const int32_t *>(args.positions.data);
  p.seed = static_cast<const int64_t *>(args.seed.data);
  p.ids = static_cast<int32_t *>(args.ids.data);
  p.logit_stride = args.logits.stride[0];
  p.batch = static_cast<int>(args.logits.shape[0]);
  p.vocabulary = static_cast<int>(args.logits.shape[1]);
  // As few blocks a row as fill the device.
  int blocks = 1;
  while (blocks < kVocabularyCluster && p.batch * blocks < 2 * device.multiprocessors) {
    blocks *= 2;
  }
  launch(device, "mla_sample", {static_cast<int64_t>(p.batch) * blocks, kVocabularyThreads, 0, blocks}, scan_kernel, p);
  Shape shape = {kVocabularyCluster, kVocabularyThreads,
                 slice_length(p.vocabulary, kVocabularyCluster) * static_cast<int64_t>(sizeof(float)),
                 kVocabularyCluster};
  static thread_local int64_t known_bytes = -1;  // what is asked below takes longer than the launch
  static thread_local int known_clusters = 0;
  if (known_bytes != shape.shared_bytes) {
    known_clusters = resident_clusters("mla_sample", shape, draw_kernel);
    known_bytes = shape.shared_bytes;
  }
  shape.blocks *= std::min(p.batch, std::max(1, known_clusters));
  launch(device, "mla_sample", shape, draw_kernel, p);
}

}  // namespace mla::cuda
