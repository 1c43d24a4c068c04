// moe_route: a token a warp; a lane holds every 32nd expert.
#include "kernel.cuh"
#include "ops.h"
#include "rows.cuh"

namespace mla::cuda {
namespace {

constexpr int kWarps = 4;
constexpr int kMaxGroups = 32;  // a lane each
constexpr int kMaxTopK = 32;    // likewise

struct Route {
  const float *logits, *bias;  // bias may be nullptr
  float *weights;
  int32_t *chosen;
  int64_t tokens, logit_stride, weight_stride, chosen_stride;
  int experts, top_k, groups, top_groups;
  bool sigmoid, top2_sum, normalize;
  float scale;
};

// Scores of a warp's token: expert lane + 32 i in place i; -inf past the last.
template <int kHeld>
__device__ __forceinline__ void score(const Route &p, const float *logits, int lane, float (&scores)[kHeld]) {
  float largest = -INFINITY;
#pragma unroll
  for (int i = 0; i < kHeld; i++) {
    const int e = lane + 32 * i;
    scores[i] = e < p.experts ? logits[e] : -INFINITY;
    largest = fmaxf(largest, scores[i]);
  }
  if (p.sigmoid) {
#pragma unroll
    for (int i = 0; i < kHeld; i++) {
      scores[i] = 1.0f / (1.0f + expf(-scores[i]));
    }
    return;
  }
  largest = warp_max(largest);
  float sum = 0;
#pragma unroll
  for (int i = 0; i < kHeld; i++) {
    scores[i] = expf(scores[i] - largest);
    sum += scores[i];
  }
  sum = warp_sum(sum);
#pragma unroll
  for (int i = 0; i < kHeld; i++) {
    scores[i] /= sum;
  }
}

// Sets the experts outside of the best groups to -inf. shared: room for the choices, a gap after each group, so that lanes
// which walk groups side by side meet different banks.
template <int kHeld>
__device__ __forceinline__ void mask_groups(const Route &p, int lane, float *shared, float (&choice)[kHeld]) {
  const int size = p.experts / p.groups;
#pragma unroll
  for (int i = 0; i < kHeld; i++) {
    const int e = lane + 32 * i;
    if (e < p.experts) {
      shared[e + e / size] = choice[i];
    }
  }
  __syncwarp();
  float first = -INFINITY;
  float second = -INFINITY;
  if (lane < p.groups) {
    for (int i = 0; i < size; i++) {
      const float value = shared[lane * (size + 1) + i];
      second = fmaxf(second, fminf(first, value));
      first = fmaxf(first, value);
    }
  }
  const float own = p.top2_sum ? first + second : first;
  int better = 0;  // groups that come before this lane's
  for (int g = 0; g < p.groups; g++) {
    const float other = __shfl_sync(~0u, own, g);
    better += other > own || (other == own && g < lane);
  }
  const unsigned kept = __ballot_sync(~0u, lane < p.groups && better < p.top_groups);
#pragma unroll
  for (int i = 0; i < kHeld; i++) {
    const int e = lane + 32 * i;
    if (e < p.experts && !(kept >> (e / size) & 1)) {
      choice[i] = -INFINITY;
    }
  }
}

// The warp's best expert, the lowest of equals, or 0 where all are -inf or NaN; it is -inf from then on.
template <int kHeld>
__device__ __forceinline__ int take_best(int lane, float (&choice)[kHeld]) {
  float best = -INFINITY;
  int at = INT32_MAX;
#pragma unroll
  for (int i = 0; i < kHeld; i++) {
    if (choice[i] > best) {
      best = choice[i];
      at = lane + 32 * i;
    }
  }
  const uint32_t key = at == INT32_MAX ? 0 : ordered(best);
  const uint32_t winner = __reduce_max_sync(~0u, key);
  const unsigned expert = __reduce_min_sync(~0u, key == winner ? static_cast<unsigned>(at) : INT32_MAX);
#pragma unroll
  for (int i = 0; i < kHeld; i++) {
    if (static_cast<int>(expert) == lane + 32 * i) {
      choice[i] = -INFINITY;
    }
  }
  return expert == INT32_MAX ? 0 : static_cast<int>(expert);
}

// scores[expert], in all lanes.
template <int kHeld>
__device__ __forceinline__ float score_of(int expert, const float (&scores)[kHeld]) {
  float value = 0;
#pragma unroll
  for (int i = 0; i < kHeld; i++) {
    if (i == expert / 32) {
      value = scores[i];
    }
  }
  return __shfl_sync(~0u, value, expert % 32);
}

template <int kHeld>
__global__ void __launch_bounds__(kWarps * 32) route_kernel(Route p) {
  __shared__ float group_choices[kWarps][kHeld * 32 + kMaxGroups];
  begin_kernel();
  const int lane = static_cast<int>(threadIdx.x) % 32;
  const int warp = static_cast<int>(threadIdx.x) / 32;
  const int64_t t = static_cast<int64_t>(blockIdx.x) * kWarps + warp;
  if (t >= p.tokens) {
    return;
  }
  float scores[kHeld];
  float choice[kHeld];
  score(p, p.logits + t * p.logit_stride, lane, scores);
#pragma unroll
  for (int i = 0; i < kHeld; i++) {
    const int e = lane + 32 * i;
    choice[i] = e >= p.experts ? -INFINITY : scores[i] + (p.bias == nullptr ? 0.0f : p.bias[e]);
  }
  if (p.groups > 1) {
    mask_groups(p, lane, group_choices[warp], choice);
  }
  int expert = 0;  // lane j keeps the j-th choice
  float weight = 0;
  float sum = 0;
  for (int j = 0; j < p.top_k; j++) {
    const int best = take_best(lane, choice);
    const float its_score = score_of(best, scores);
    sum += its_score;
    if (lane == j) {
      expert = best;
      weight = its_score;
    }
  }
  if (lane < p.top_k) {
    p.chosen[t * p.chosen_stride + lane] = expert;
    p.weights[t * p.weight_stride + lane] = (p.normalize ? weight / (sum + 1e-20f) : weight) * p.scale;
  }
}

}  // namespace

void moe_route(const Device &device, const mla_route_args &args) {
  Route p = {};
  p.logits = static_cast<const float *>(args.logits.data);
  p.bias = args.bias == nullptr ? nullptr : static_cast<const float *>(args.bias->data);
  p.weights = static_cast<float *>(args.weights.data);
  p.chosen = static_cast<int32_t *>(args.experts.data);
  p.tokens = args.logits.shape[0];
  p.logit_stride = args.logits.stride[0];
  p.weight_stride = args.weights.stride[0];
  p.chosen_stride = args.experts.stride[0];
  p.experts = static_cast<int>(args.logits.shape[1]);
  p.top_k = static_cast<int>(args.weights.shape[1]);
  p.groups = args.groups;
  p.top_groups = args.top_groups;
  p.sigmoid = args.scoring == MLA_SIGMOID;
  p.top2_sum = args.group_score == MLA_GROUP_TOP2_SUM;
  p.normalize = args.normalize != 0;
  p.scale = args.scale;
  if (args.logits.shape[1] > 512 || p.top_k > kMaxTopK || p.groups > kMaxGroups) {
    fail(MLA_UNSUPPORTED, "mla_moe_route on CUDA takes at most 512 experts, %d a token, %d groups; not %lld, %d, %d",
         kMaxTopK, kMaxGroups, static_cast<long long>(args.logits.shape[1]), p.top_k, p.groups);
  }
  launch(device, "mla_moe_route", {ceil_div(p.tokens, kWarps), kWarps * 32},
         p.experts <= 64    ? route_kernel<2>
         : p.experts <= 160 ? route_kernel<5>
         : p.experts <= 256 ? route_kernel<8>
         : p.experts <= 384 ? route_kernel<12>
                            : route_kernel<16>,
         p);
}

}  // namespace mla::cuda
