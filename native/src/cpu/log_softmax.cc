#include "cpu.h"

#include <cmath>

namespace mla::cpu {
namespace {

// log of the sum of exp: by pieces, so that a long row loses no digits.
float log_sum_exp(const Kernels &kernels, const float *logits, int64_t n) {
  constexpr int64_t kPiece = 1024;
  float scratch[kPiece];
  const float largest = kernels.max(logits, n);
  double sum = 0;
  for (int64_t i = 0; i < n; i += kPiece) {
    sum += kernels.exp_sum(logits + i, std::min(kPiece, n - i), 1.0f, largest, scratch);
  }
  return largest + static_cast<float>(std::log(sum));
}

// The count largest of a row, descending; ties to the lower id, for ids are met in order.
void largest_of(const float *logits, int64_t n, int64_t count, int32_t *ids, float *values) {
  int64_t found = 0;
  for (int64_t i = 0; i < n && count > 0; i++) {
    if (found == count && !(logits[i] > values[count - 1])) {
      continue;
    }
    int64_t place = found < count ? found++ : count - 1;
    for (; place > 0 && logits[i] > values[place - 1]; place--) {
      ids[place] = ids[place - 1];
      values[place] = values[place - 1];
    }
    ids[place] = static_cast<int32_t>(i);
    values[place] = logits[i];
  }
}

}  // namespace

void log_softmax_top_k(Cpu &cpu, const mla_tensor &logits, const mla_tensor &ids, const mla_tensor &chosen,
                       const mla_tensor *top_ids, const mla_tensor *top) {
  const int64_t n = logits.shape[1];
  for (int64_t row = 0; row < logits.shape[0]; row++) {
    check_index("ids", row, *at<int32_t>(ids, row), -1, n - 1);
  }
  parallel_rows(cpu, logits.shape[0], 20 * n, [&](int64_t row, int) {
    const float *values = at<float>(logits, row);
    const float normalizer = log_sum_exp(cpu.kernels, values, n);
    const int32_t id = *at<int32_t>(ids, row);
    *at<float>(chosen, row) = id < 0 ? NAN : values[id] - normalizer;
    if (top != nullptr) {
      float *best = at<float>(*top, row);
      largest_of(values, n, top->shape[1], at<int32_t>(*top_ids, row), best);
      for (int64_t i = 0; i < top->shape[1]; i++) {
        best[i] -= normalizer;
      }
    }
  });
}

}  // namespace mla::cpu
