// log_softmax_top_k: log-probabilities of chosen ids, and the n best of each row.
#include "ops.h"
#include "vocabulary.cuh"

namespace mla::cuda {
namespace {

namespace cg = cooperative_groups;

constexpr int kMaxTop = 64;

struct LogSoftmax {
  const float *logits;
  const int32_t *ids;
  float *chosen;
  int32_t *top_ids;
  float *top;
  int64_t logit_stride, top_id_stride, top_stride;
  int vocabulary, top_count;
};

struct LogSoftmaxShared {
  uint64_t best[kMaxTop];  // of this block's slice, descending
  uint64_t scratch[2][kVocabularyWarps];
  float sums[kVocabularyWarps];
  float largest, sum;  // of this block's slice
};

// The largest key below `bound` of the values that this thread looks after.
__device__ __forceinline__ uint64_t best_below(uint64_t bound, const float *values, Slice slice) {
  uint64_t best = 0;
  for (int i = threadIdx.x; i < slice.count; i += kVocabularyThreads) {
    const uint64_t key = choice_key(values[i], slice.begin + i);
    best = key < bound && key > best ? key : best;
  }
  return best;
}

// The slice's best keys, descending, into shared.best; 0 where there are no more. A thread looks for its next best when
// its own was taken.
__device__ void find_best(const float *values, Slice slice, int count, LogSoftmaxShared &shared) {
  uint64_t own = best_below(~uint64_t{0}, values, slice);
  for (int j = 0; j < count; j++) {
    const uint64_t best = block_max(own, shared.scratch[j % 2]);
    if (threadIdx.x == 0) {
      shared.best[j] = best;
    }
    if (own == best) {
      own = best_below(best, values, slice);
    }
  }
}

// Merges the blocks' lists: a lane of one warp reads each.
__device__ void write_best(const LogSoftmax &p, int64_t row, float normalizer, LogSoftmaxShared &shared) {
  const cg::cluster_group cluster = cg::this_cluster();
  const int lane = static_cast<int>(threadIdx.x);
  const uint64_t *list = lane < kVocabularyCluster ? cluster.map_shared_rank(shared.best, lane) : nullptr;
  int next = 0;
  for (int j = 0; j < p.top_count; j++) {
    const uint64_t own = list != nullptr && next < p.top_count ? list[next] : 0;
    const uint64_t best = warp_max(own);
    next += own == best;
    if (lane == 0) {
      p.top_ids[row * p.top_id_stride + j] = choice_id(best);
      p.top[row * p.top_stride + j] = choice_value(best) - normalizer;
    }
  }
}

__global__ void __launch_bounds__(kVocabularyThreads) log_softmax_kernel(LogSoftmax p) {
  extern __shared__ float values[];  // the slice
  __shared__ LogSoftmaxShared shared;
  wait_for_work_before();
  const cg::cluster_group cluster = cg::this_cluster();
  const int rank = static_cast<int>(cluster.block_rank());
  const int64_t row = blockIdx.x / kVocabularyCluster;
  const Slice slice = slice_of(p.vocabulary, rank, kVocabularyCluster);
  const float *logits = p.logits + row * p.logit_stride;
  float largest = -INFINITY;
  for_each_piece<4>(logits + slice.begin, slice.count, [&](int place, auto piece) {
    store(values + place, piece);
    for (const float value : piece.v) {
      largest = fmaxf(largest, value);
    }
  });
  largest = warp_max(largest);
  if (threadIdx.x % 32 == 0) {
    shared.sums[threadIdx.x / 32] = largest;
  }
  __syncthreads();
  largest = warp_max(threadIdx.x % 32 < kVocabularyWarps ? shared.sums[threadIdx.x % 32] : -INFINITY);
  __syncthreads();  // shared.sums is used again
  float sum = 0;
  for (int i = threadIdx.x; i < slice.count; i += kVocabularyThreads) {
    sum += largest == -INFINITY ? 0.0f : expf(values[i] - largest);
  }
  sum = block_sum(sum, shared.sums);
  if (threadIdx.x == 0) {
    shared.largest = largest;
    shared.sum = sum;
  }
  find_best(values, slice, p.top_count, shared);
  cluster.sync();
  if (rank == 0 && threadIdx.x < 32) {
    float all_largest = -INFINITY;
    for (int b = 0; b < kVocabularyCluster; b++) {
      all_largest = fmaxf(all_largest, cluster.map_shared_rank(&shared, b)->largest);
    }
    float all_sum = 0;
    for (int b = 0; b < kVocabularyCluster; b++) {
      const LogSoftmaxShared &theirs = *cluster.map_shared_rank(&shared, b);
      all_sum += theirs.sum == 0 ? 0.0f : theirs.sum * expf(theirs.largest - all_largest);
    }
    const float normalizer = all_largest + logf(all_sum);
    if (threadIdx.x == 0) {
      const int32_t id = p.ids[row];
      p.chosen[row] = id < 0 ? NAN : logits[id] - normalizer;
    }
    write_best(p, row, normalizer, shared);
  }
  cluster.sync();  // the first block has read what the others hold
}

}  // namespace

void log_softmax_top_k(const Device &device, const mla_tensor &logits, const mla_tensor &ids, const mla_tensor &chosen,
                       const mla_tensor *top_ids, const mla_tensor *top) {
  LogSoftmax p = {};
  p.logits = static_cast<const float *>(logits.data);
  p.ids = static_cast<const int32_t *>(ids.data);
  p.chosen = static_cast<float *>(chosen.data);
  p.logit_stride = logits.stride[0];
  p.vocabulary = static_cast<int>(logits.shape[1]);
  if (top != nullptr) {
    if (top->shape[1] > kMaxTop) {
      fail(MLA_UNSUPPORTED, "mla_log_softmax_top_k on CUDA gives the %d largest at most, not %lld", kMaxTop,
           static_cast<long long>(top->shape[1]));
    }
    p.top_ids = static_cast<int32_t *>(top_ids->data);
    p.top = static_cast<float *>(top->data);
    p.top_id_stride = top_ids->stride[0];
    p.top_stride = top->stride[0];
    p.top_count = static_cast<int>(top->shape[1]);
  }
  launch(device, "mla_log_softmax_top_k",
         {logits.shape[0] * kVocabularyCluster, kVocabularyThreads,
          slice_length(p.vocabulary, kVocabularyCluster) * static_cast<int64_t>(sizeof(float)), kVocabularyCluster},
         log_softmax_kernel, p);
}

}  // namespace mla::cuda
