// Routing tokens to experts and their results back. The grouped product is in gemm.cc.
#include "cpu.h"

#include <algorithm>
#include <cmath>

namespace mla::cpu {
namespace {

// The first index of the largest value that is not -inf, or -1.
int64_t best_of(const float *values, int64_t n) {
  int64_t best = -1;
  for (int64_t i = 0; i < n; i++) {
    if (values[i] > (best < 0 ? -INFINITY : values[best])) {
      best = i;
    }
  }
  return best;
}

void score(const mla_route_args &args, const float *logits, int64_t experts, float *scores) {
  if (args.scoring == MLA_SIGMOID) {
    for (int64_t e = 0; e < experts; e++) {
      scores[e] = 1.0f / (1.0f + std::exp(-logits[e]));
    }
    return;
  }
  const float largest = *std::max_element(logits, logits + experts);
  float sum = 0;
  for (int64_t e = 0; e < experts; e++) {
    scores[e] = std::exp(logits[e] - largest);
    sum += scores[e];
  }
  for (int64_t e = 0; e < experts; e++) {
    scores[e] /= sum;
  }
}

float group_score(const mla_route_args &args, const float *choice, int64_t size) {
  float first = -INFINITY;
  float second = -INFINITY;
  for (int64_t i = 0; i < size; i++) {
    if (choice[i] > first) {
      second = first;
      first = choice[i];
    } else if (choice[i] > second) {
      second = choice[i];
    }
  }
  return args.group_score == MLA_GROUP_MAX ? first : first + second;
}

// Sets the experts outside of the best groups to -inf, so that none of them can be chosen.
void mask_groups(const mla_route_args &args, int64_t experts, float *choice, float *group_scores) {
  const int64_t size = experts / args.groups;
  for (int64_t g = 0; g < args.groups; g++) {
    group_scores[g] = group_score(args, choice + g * size, size);
  }
  for (int64_t kept = 0; kept < args.top_groups; kept++) {
    const int64_t best = best_of(group_scores, args.groups);
    if (best >= 0) {
      group_scores[best] = -INFINITY;
    }
  }
  // What was taken is -inf now; so all others go.
  for (int64_t g = 0; g < args.groups; g++) {
    if (group_scores[g] != -INFINITY) {
      std::fill_n(choice + g * size, size, -INFINITY);
    }
  }
}

}  // namespace

void moe_route(Cpu &cpu, const mla_route_args &args) {
  const int64_t experts = args.logits.shape[1];
  const int64_t top_k = args.weights.shape[1];
  const PerThread scratch(cpu, 2 * experts + args.groups);
  parallel_rows(cpu, args.logits.shape[0], (20 + top_k) * experts, [&](int64_t t, int thread) {
    float *scores = scratch.of(thread);
    float *choice = scores + experts;
    score(args, at<float>(args.logits, t), experts, scores);
    for (int64_t e = 0; e < experts; e++) {
      choice[e] = scores[e] + (args.bias == nullptr ? 0.0f : *at<float>(*args.bias, e));
    }
    if (args.groups > 1) {
      mask_groups(args, experts, choice, choice + experts);
    }
    float *weights = at<float>(args.weights, t);
    int32_t *chosen = at<int32_t>(args.experts, t);
    float sum = 0;
    for (int64_t j = 0; j < top_k; j++) {
      // A row of NaN has no best expert; it goes to the first, and stays NaN.
      const int64_t best = std::max<int64_t>(0, best_of(choice, experts));
      choice[best] = -INFINITY;
      chosen[j] = static_cast<int32_t>(best);
      weights[j] = scores[best];
      sum += weights[j];
    }
    for (int64_t j = 0; j < top_k; j++) {
      weights[j] = (args.normalize ? weights[j] / (sum + 1e-20f) : weights[j]) * args.scale;
    }
  });
}

void moe_sort(Cpu &cpu, const mla_tensor &experts, const mla_tensor &rows, const mla_tensor &places,
              const mla_tensor &offsets) {
  const int64_t tokens = experts.shape[0];
  const int64_t top_k = experts.shape[1];
  const int64_t count = offsets.shape[0] - 1;
  int64_t *next = cpu.tasks.of(count);
  std::fill_n(next, count, 0);
  for (int64_t t = 0; t < tokens; t++) {
    for (int64_t j = 0; j < top_k; j++) {
      const int32_t expert = *at<int32_t>(experts, t, j);
      check_index("experts", t * top_k + j, expert, 0, count - 1);
      next[expert]++;
    }
  }
  int64_t total = 0;
  for (int64_t e = 0; e < count; e++) {
    *at<int32_t>(offsets, e) = static_cast<int32_t>(total);
    total += next[e];
    next[e] = total - next[e];
  }
  *at<int32_t>(offsets, count) = static_cast<int32_t>(total);
  for (int64_t t = 0; t < tokens; t++) {
    for (int64_t j = 0; j < top_k; j++) {
      const int64_t place = next[*at<int32_t>(experts, t, j)]++;
      *at<int32_t>(rows, place) = static_cast<int32_t>(t);
      *at<int32_t>(places, t, j) = static_cast<int32_t>(place);
    }
  }
}

void moe_combine(Cpu &cpu, const mla_tensor &y, const mla_tensor &places, const mla_tensor &weights,
                 const mla_tensor *base, const mla_tensor &out) {
  const int64_t tokens = places.shape[0];
  const int64_t top_k = places.shape[1];
  const int64_t hidden = y.shape[1];
  for (int64_t i = 0; i < tokens * top_k; i++) {
    check_index("places", i, *at<int32_t>(places, i / top_k, i % top_k), 0, y.shape[0] - 1);
  }
  const PerThread scratch(cpu, 2 * hidden);
  parallel_rows(cpu, tokens, 2 * top_k * hidden, [&](int64_t t, int thread) {
    float *mine = scratch.of(thread);
    float *sum = result_row(out, address(out, t), mine + hidden);
    if (base == nullptr) {
      std::fill(sum, sum + hidden, 0.0f);
    } else if (const float *start = read_row(cpu.kernels, *base, address(*base, t), hidden, mine); start != sum) {
      std::copy(start, start + hidden, sum);
    }
    for (int64_t j = 0; j < top_k; j++) {
      const float *row = read_row(cpu.kernels, y, address(y, *at<int32_t>(places, t, j)), hidden, mine);
      cpu.kernels.add_scaled(row, *at<float>(weights, t, j), hidden, sum);
    }
    write_row(cpu.kernels, out, sum, hidden, address(out, t));
  });
}

}  // namespace mla::cpu
