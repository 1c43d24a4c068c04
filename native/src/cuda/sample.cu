// sample: one token a row, exactly as mla.h says. A greedy row costs one pass over its logits. A drawn one is read once,
// too, and then worked on in shared memory: top_k and top_p are found by histograms, not by a sort. Probabilities are
// summed as integers, so that a draw does not depend on the order of additions.
#include "ops.h"
#include "vocabulary.cuh"

namespace mla::cuda {
namespace {

namespace cg = cooperative_groups;

constexpr int kBins = 2048;
constexpr int kBinsOfThread = kBins / kVocabularyThreads;
constexpr float kBinsPerUnit = 64;  // of the scaled logits: 32 units below the largest, all but nothing is left
constexpr int kSegments = kVocabularyCluster * kVocabularyWarps;

struct Sample {
  const float *logits, *temperature, *top_p;
  const int32_t *top_k, *positions;
  const int64_t *seed;
  int32_t *ids;
  int64_t logit_stride;
  int vocabulary;
};

// Of a slice: what the blocks of a cluster tell each other.
struct SampleShared {
  uint32_t low[kBins], high[kBins];  // a histogram of 64-bit sums, in halves: shared memory adds 32 bits at once
  uint64_t scratch[kVocabularyWarps];
  uint64_t best;  // greedy choice
  int broken;     // a NaN or +inf among the logits
  uint64_t segment_mass[kVocabularyWarps];  // of each warp's ids: probability above the cut
  uint32_t segment_ties[kVocabularyWarps];  // and how many are at the cut
  uint64_t found_above, found_total;
  uint32_t found_bucket;
};

// Where the largest values, weighed one by one, reach a target: the key of the last value needed, the weight of all with
// larger keys, and the target.
struct Cut {
  uint32_t key = 0;
  uint64_t above = 0;
  uint64_t target = 0;
};

// A slice's scaled logits and what all blocks know of the row.
struct Row {
  const float *values;
  Slice slice;
  float largest;

  // exp(value - largest) in units of 2^-40.
  __device__ uint64_t probability(float value) const { return __float2ull_rn(expf(value - largest) * 0x1p40f); }
  // Linear bins below the largest value: monotone, and they spread logits better than their leading bits do.
  __device__ uint32_t bin(float value) const {
    return static_cast<uint32_t>(fminf((largest - value) * kBinsPerUnit, kBins - 1.0f));
  }
};

__device__ __forceinline__ void add_to_bucket(SampleShared &shared, uint32_t bucket, uint64_t weight) {
  const auto low = static_cast<uint32_t>(weight);
  const uint32_t before = atomicAdd(&shared.low[bucket], low);
  const uint32_t carry = before + low < before;
  const uint32_t high = static_cast<uint32_t>(weight >> 32) + carry;
  if (high != 0) {
    atomicAdd(&shared.high[bucket], high);
  }
}

template <class T>
__device__ __forceinline__ T warp_prefix(T own) {  // exclusive
  T sum = own;
#pragma unroll
  for (int step = 1; step < 32; step *= 2) {
    const T other = __shfl_up_sync(~0u, sum, step);
    sum += static_cast<int>(threadIdx.x) % 32 >= step ? other : 0;
  }
  return sum - own;
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
__device__ uint32_t search_buckets(const Row &row, SampleShared &shared, Cut &cut, Bucket bucket_of, Weight weight_of,
                                   Target target_of) {
  const cg::cluster_group cluster = cg::this_cluster();
  cluster.sync();  // the other blocks have read this histogram's last contents
  for (int i = threadIdx.x; i < kBins; i += kVocabularyThreads) {
    shared.low[i] = 0;
    shared.high[i] = 0;
  }
  __syncthreads();
  for (int i = threadIdx.x; i < row.slice.count; i += kVocabularyThreads) {
    const uint32_t bucket = bucket_of(row.values[i]);
    if (bucket < kBins) {
      const uint64_t weight = weight_of(row.values[i]);
      if (weight != 0) {
        add_to_bucket(shared, bucket, weight);
      }
    }
  }
  cluster.sync();
  const int first = static_cast<int>(threadIdx.x) * kBinsOfThread;
  uint64_t sums[kBinsOfThread] = {};
  for (int b = 0; b < kVocabularyCluster; b++) {
    const uint4 low = *reinterpret_cast<const uint4 *>(cluster.map_shared_rank(shared.low + first, b));
    const uint4 high = *reinterpret_cast<const uint4 *>(cluster.map_shared_rank(shared.high + first, b));
    sums[0] += static_cast<uint64_t>(high.x) << 32 | low.x;
    sums[1] += static_cast<uint64_t>(high.y) << 32 | low.y;
    sums[2] += static_cast<uint64_t>(high.z) << 32 | low.z;
    sums[3] += static_cast<uint64_t>(high.w) << 32 | low.w;
  }
  uint64_t total = 0;
  uint64_t before = cut.above + block_prefix(sums[0] + sums[1] + sums[2] + sums[3], shared.scratch, &total);
  cut.target = target_of(total);
#pragma unroll
  for (int k = 0; k < kBinsOfThread; k++) {
    if (sums[k] != 0 && (before < cut.target || before == cut.above) && before + sums[k] >= cut.target) {
      shared.found_bucket = first + k;  // one thread alone comes here
      shared.found_above = before;
    }
    before += sums[k];
  }
  __syncthreads();
  cut.above = shared.found_above;
  return shared.found_bucket;
}

// The whole search: linear bins first, then the bits of the keys within the bin.
template <class Weight, class Target>
__device__ Cut find_cut(const Row &row, SampleShared &shared, Weight weight_of, Target target_of) {
  Cut cut;
  const uint32_t bin = search_buckets(row, shared, cut, [&](float v) { return row.bin(v); }, weight_of, target_of);
  const uint64_t target = cut.target;
  constexpr int kBits[] = {11, 11, 10};
  int shift = 32;
  for (const int bits : kBits) {
    const uint32_t settled = shift == 32 ? 0 : ~0u << shift;
    shift -= bits;
    const uint32_t top = (1u << bits) - 1;
    const auto bucket_of = [&](float value) {
      const uint32_t key = ordered(value);
      return row.bin(value) == bin && (key & settled) == cut.key ? top - (key >> shift & top) : kBins;
    };
    const uint32_t bucket =
        search_buckets(row, shared, cut, bucket_of, weight_of, [&](uint64_t) { return target; });
    cut.key |= (top - bucket) << shift;
  }
  return cut;
}

// What may be drawn: all values above a key, and of those at it the `ties` lowest ids.
struct Kept {
  uint32_t key = 0;
  uint32_t ties = UINT32_MAX;
};

__device__ Kept keep(const Row &row, SampleShared &shared, int top_k, float top_p, int vocabulary) {
  Kept kept;
  if (top_k > 0 && top_k < vocabulary) {
    kept.key = find_cut(row, shared, [](float) { return uint64_t{1}; },
                        [&](uint64_t) { return static_cast<uint64_t>(top_k); })
                   .key;
  }
  if (top_p < 1) {
    const uint32_t least = kept.key;
    const Cut cut = find_cut(
        row, shared,
        [&](float value) { return ordered(value) >= least ? row.probability(value) : uint64_t{0}; },
        [&](uint64_t total) { return static_cast<uint64_t>(ceil(static_cast<double>(top_p) * static_cast<double>(total))); });
    const uint64_t each = row.probability(from_ordered(cut.key));
    const uint64_t missing = cut.target > cut.above ? cut.target - cut.above : 0;
    kept.key = cut.key;
    kept.ties = static_cast<uint32_t>(max((missing + each - 1) / each, uint64_t{1}));
  }
  return kept;
}

// The ids of a warp, of all the cluster's in order, as places in the slice.
struct Segment {
  int begin, end;
};
__device__ __forceinline__ Segment segment_of(Slice slice, int warp) {
  const int length = (slice.count + kVocabularyWarps * 32 - 1) / (kVocabularyWarps * 32) * 32;
  return {min(warp * length, slice.count), min((warp + 1) * length, slice.count)};
}

// Probability above the cut and ties at it of this warp's ids, into shared.
__device__ void weigh_segment(const Row &row, SampleShared &shared, const Kept &kept) {
  const int warp = static_cast<int>(threadIdx.x) / 32;
  const Segment segment = segment_of(row.slice, warp);
  uint64_t mass = 0;
  uint32_t ties = 0;
  for (int i = segment.begin + static_cast<int>(threadIdx.x) % 32; i < segment.end; i += 32) {
    const uint32_t key = ordered(row.values[i]);
    mass += key > kept.key ? row.probability(row.values[i]) : 0;
    ties += key == kept.key;
  }
  mass = warp_sum(mass);
  ties = warp_sum(ties);
  if (threadIdx.x % 32 == 0) {
    shared.segment_mass[warp] = mass;
    shared.segment_ties[warp] = ties;
  }
}

// Where the draw falls: the segment, the probability before it, and how many of its ties are kept.
struct Place {
  int segment;
  uint32_t ties;
  uint64_t before, target;
};

// By every warp for itself, a few segments a lane. each: the probability of a value at the cut.
__device__ Place find_place(SampleShared &shared, const Kept &kept, uint64_t each, float u) {
  constexpr int kOfLane = kSegments / 32;
  const cg::cluster_group cluster = cg::this_cluster();
  const int lane = static_cast<int>(threadIdx.x) % 32;
  const int first = lane * kOfLane;
  const SampleShared &theirs = *cluster.map_shared_rank(&shared, first / kVocabularyWarps);
  uint64_t mass[kOfLane];
  uint32_t ties[kOfLane];
  uint32_t lane_ties = 0;
#pragma unroll
  for (int k = 0; k < kOfLane; k++) {
    mass[k] = theirs.segment_mass[(first + k) % kVocabularyWarps];
    ties[k] = theirs.segment_ties[(first + k) % kVocabularyWarps];
    lane_ties += ties[k];
  }
  uint32_t left = kept.ties - min(kept.ties, warp_prefix(lane_ties));
  uint64_t lane_mass = 0;
#pragma unroll
  for (int k = 0; k < kOfLane; k++) {
    ties[k] = min(ties[k], left);
    left -= ties[k];
    mass[k] += ties[k] * each;
    lane_mass += mass[k];
  }
  Place place = {};
  uint64_t before = warp_prefix(lane_mass);
  const uint64_t total = __shfl_sync(~0u, before + lane_mass, 31);
  const auto scaled = static_cast<uint64_t>(u * 0x1p24f);  // u is a multiple of 2^-24
  place.target = __umul64hi(total, scaled) << 40 | total * scaled >> 24;
  const int owner = __ffs(__ballot_sync(~0u, before + lane_mass > place.target)) - 1;
  bool found = false;
#pragma unroll
  for (int k = 0; k < kOfLane; k++) {
    if (!found && before + mass[k] > place.target) {
      found = true;
      place.segment = first + k;
      place.ties = ties[k];
    }
    before += found ? 0 : mass[k];
  }
  place.segment = __shfl_sync(~0u, place.segment, owner);
  place.ties = __shfl_sync(~0u, place.ties, owner);
  place.before = __shfl_sync(~0u, before, owner);
  return place;
}

// Walks the segment up to the id at which the cumulated probability exceeds the target.
__device__ void draw(const Row &row, const Kept &kept, const Place &place, int32_t *id) {
  const int lane = static_cast<int>(threadIdx.x) % 32;
  const Segment segment = segment_of(row.slice, place.segment % kVocabularyWarps);
  uint64_t before = place.before;
  uint32_t left = place.ties;
  for (int first = segment.begin; first < segment.end; first += 32) {
    const int i = first + lane;
    const float value = i < segment.end ? row.values[i] : -INFINITY;
    const uint32_t key = ordered(value);
    const unsigned ties = __ballot_sync(~0u, i < segment.end && key == kept.key);
    const bool in = i < segment.end && (key > kept.key || (key == kept.key && __popc(ties & ((1u << lane) - 1)) < left));
    const uint64_t own = in ? row.probability(value) : 0;
    const uint64_t sum = warp_prefix(own) + own;
    const unsigned beyond = __ballot_sync(~0u, before + sum > place.target);
    if (beyond != 0) {
      if (lane == 0) {
        *id = row.slice.begin + first + __ffs(beyond) - 1;
      }
      return;
    }
    before += __shfl_sync(~0u, sum, 31);
    left -= min(static_cast<uint32_t>(__popc(ties)), left);
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

__global__ void __launch_bounds__(kVocabularyThreads) sample_kernel(Sample p) {
  extern __shared__ float values[];  // the slice, divided by the temperature; not used by greedy rows
  __shared__ SampleShared shared;
  begin_kernel();
  const cg::cluster_group cluster = cg::this_cluster();
  const int64_t b = blockIdx.x / kVocabularyCluster;
  const int rank = static_cast<int>(cluster.block_rank());
  const Slice slice = slice_of(p.vocabulary, rank);
  const float temperature = p.temperature[b];
  const bool greedy = temperature == 0;
  float best = -INFINITY;
  int best_at = -1;
  bool broken = false;
  for_each_logit(p.logits + b * p.logit_stride + slice.begin, slice.count, [&](int i, float value) {
    broken |= !(value < INFINITY);
    if (value > best) {
      best = value;
      best_at = slice.begin + i;
    }
    if (!greedy) {
      values[i] = value / temperature;
    }
  });
  const uint64_t own = block_max(best_at < 0 ? 0 : choice_key(best, best_at), shared.scratch);
  const int any_broken = __syncthreads_or(broken);
  if (threadIdx.x == 0) {
    shared.best = own;
    shared.broken = any_broken;
  }
  cluster.sync();
  uint64_t choice = 0;
  int row_broken = 0;
  for (int r = 0; r < kVocabularyCluster; r++) {
    const SampleShared &theirs = *cluster.map_shared_rank(&shared, r);
    choice = max(choice, theirs.best);
    row_broken |= theirs.broken;
  }
  if (row_broken || choice == 0 || greedy) {
    if (rank == 0 && threadIdx.x == 0) {
      p.ids[b] = row_broken || choice == 0 ? -1 : choice_id(choice);
    }
    cluster.sync();  // all have read what the others hold
    return;
  }
  const Row row = {values, slice, choice_value(choice) / temperature};
  const Kept kept = keep(row, shared, p.top_k[b], p.top_p[b], p.vocabulary);
  weigh_segment(row, shared, kept);
  cluster.sync();
  const uint64_t each = kept.key == 0 ? 0 : row.probability(from_ordered(kept.key));
  const Place place = find_place(shared, kept, each, uniform(p.seed[b], p.positions[b]));
  const int warp = rank * kVocabularyWarps + static_cast<int>(threadIdx.x) / 32;
  if (warp == place.segment) {
    draw(row, kept, place, p.ids + b);
  }
  cluster.sync();
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
  p.vocabulary = static_cast<int>(args.logits.shape[1]);
  launch(device, "mla_sample",
         {args.logits.shape[0] * kVocabularyCluster, kVocabularyThreads,
          slice_length(p.vocabulary) * static_cast<int64_t>(sizeof(float)), kVocabularyCluster},
         sample_kernel, p);
}

}  // namespace mla::cuda
