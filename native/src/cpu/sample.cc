#include "cpu.h"

#include <bit>
#include <cmath>

namespace mla::cpu {
namespace {

// Unsigned keys in the order of the floats; -0 is 0.
uint32_t ordered(float x) {
  const uint32_t bits = std::bit_cast<uint32_t>(x + 0.0f);
  return bits & 0x80000000u ? ~bits : bits | 0x80000000u;
}

// Where the largest values, weighed one by one, reach a target: the key of the last value needed, and the weight of all
// values with larger keys.
struct Cut {
  uint32_t key;
  double above;
};

// A radix search, three passes over the row: no sort of the vocabulary.
template <class Weight>
Cut find_cut(const float *values, int64_t n, double target, Weight weight) {
  constexpr int kBits[] = {11, 11, 10};
  double histogram[1 << 11];
  Cut cut = {0, 0};
  int shift = 32;
  for (const int bits : kBits) {
    const uint32_t settled = shift == 32 ? 0 : ~0u << shift;
    shift -= bits;
    std::fill_n(histogram, 1 << bits, 0.0);
    for (int64_t i = 0; i < n; i++) {
      const uint32_t key = ordered(values[i]);
      if ((key & settled) == cut.key) {
        histogram[key >> shift & ((1u << bits) - 1)] += weight(i);
      }
    }
    uint32_t bucket = (1u << bits) - 1;
    while (bucket > 0 && (histogram[bucket] == 0 || cut.above + histogram[bucket] < target)) {
      cut.above += histogram[bucket--];
    }
    cut.key |= bucket << shift;
  }
  return cut;
}

void keep_top_k(const float *values, int64_t n, int64_t top_k, float *probabilities) {
  const Cut cut = find_cut(values, n, static_cast<double>(top_k), [](int64_t) { return 1.0; });
  for (int64_t i = 0; i < n; i++) {
    if (ordered(values[i]) < cut.key) {
      probabilities[i] = 0;
    }
  }
}

double sum_of(const float *values, int64_t n) {
  double sum = 0;
  for (int64_t i = 0; i < n; i++) {
    sum += values[i];
  }
  return sum;
}

void keep_top_p(float top_p, int64_t n, float *probabilities) {
  const double target = top_p * sum_of(probabilities, n);
  const Cut cut = find_cut(probabilities, n, target, [&](int64_t i) { return probabilities[i]; });
  double mass = cut.above;
  bool first = true;
  for (int64_t i = 0; i < n; i++) {
    const uint32_t key = ordered(probabilities[i]);
    if (key == cut.key && (first || mass < target)) {
      mass += probabilities[i];  // of equals, the lower ids until the target is reached
      first = false;
    } else if (key <= cut.key) {
      probabilities[i] = 0;
    }
  }
}

// The first id whose cumulated probability exceeds u of the whole.
int64_t draw(const float *probabilities, int64_t n, float u) {
  const double target = u * sum_of(probabilities, n);
  double cumulated = 0;
  int64_t last = 0;
  for (int64_t i = 0; i < n; i++) {
    if (probabilities[i] > 0) {
      cumulated += probabilities[i];
      last = i;
      if (cumulated > target) {
        return i;
      }
    }
  }
  return last;  // rounding kept the sum below u
}

bool has_nan_or_infinity(const float *values, int64_t n) {
  bool found = false;
  for (int64_t i = 0; i < n; i++) {
    found |= !(values[i] < INFINITY);
  }
  return found;
}

int64_t sample_row(const Kernels &kernels, const mla_sample_args &args, int64_t row, float *scratch) {
  const int64_t n = args.logits.shape[1];
  const float *logits = at<float>(args.logits, row);
  const float largest = kernels.max(logits, n);
  if (has_nan_or_infinity(logits, n) || largest == -INFINITY) {
    return -1;
  }
  const float temperature = *at<float>(args.temperature, row);
  if (temperature == 0) {
    return std::find(logits, logits + n, largest) - logits;
  }
  float *scaled = scratch;
  float *probabilities = scratch + n;
  for (int64_t i = 0; i < n; i++) {
    scaled[i] = logits[i] / temperature;
  }
  kernels.exp_sum(scaled, n, 1.0f, largest / temperature, probabilities);
  const int32_t top_k = *at<int32_t>(args.top_k, row);
  if (top_k > 0 && top_k < n) {
    keep_top_k(scaled, n, top_k, probabilities);
  }
  const float top_p = *at<float>(args.top_p, row);
  if (top_p < 1) {
    keep_top_p(top_p, n, probabilities);
  }
  return draw(probabilities, n, mla_uniform(*at<int64_t>(args.seed, row), *at<int32_t>(args.positions, row)));
}

}  // namespace

void sample(Cpu &cpu, const mla_sample_args &args) {
  const int64_t batch = args.logits.shape[0];
  const int64_t n = args.logits.shape[1];
  for (int64_t row = 0; row < batch; row++) {
    const float temperature = *at<float>(args.temperature, row);
    const float top_p = *at<float>(args.top_p, row);
    check_index("top_k", row, *at<int32_t>(args.top_k, row), 0, INT32_MAX);
    if (!(temperature >= 0 && temperature < INFINITY) || !(top_p >= 0 && top_p <= 1)) {
      fail(MLA_INVALID_ARGUMENT, "row %lld: temperature %g must be finite and not negative, top_p %g in [0, 1]",
           static_cast<long long>(row), static_cast<double>(temperature), static_cast<double>(top_p));
    }
  }
  const PerThread scratch(cpu, 2 * n);
  parallel_rows(cpu, batch, 4 * n, [&](int64_t row, int thread) {
    *at<int32_t>(args.ids, row) = static_cast<int32_t>(sample_row(cpu.kernels, args, row, scratch.of(thread)));
  });
}

}  // namespace mla::cpu
