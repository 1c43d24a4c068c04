// What the CUDA tests share: random inputs, an independent reference for MLA attention, comparison.
#pragma once

#include <cuda_bf16.h>
#include <cuda_runtime.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <initializer_list>
#include <numeric>
#include <random>
#include <string>
#include <vector>

#include "timing.cuh"

namespace mla::test {

constexpr int kDim = 576, kLatent = 512, kBlock = 64;
constexpr int kGuard = 4096;  // sentinel elements before and after each output
constexpr uint16_t kOutSentinel = 0xA5C3;
constexpr uint32_t kLseSentinel = 0xC3A5A5C3;
constexpr int32_t kWildBlock = 2000000000;
constexpr double kOutAbsolute = 8e-4, kOutRelative = 2.01 / 128;  // the tolerances FlashMLA tests itself with
constexpr double kLseAbsolute = 1e-6, kLseRelative = 8.01 / 65536;
constexpr double kCosineTolerance = 5e-6;

// ---- memory -----------------------------------------------------------------------------------------------------------

// Device memory that lives as long as the test case.
class DeviceMemory {
 public:
  DeviceMemory() = default;
  ~DeviceMemory() {
    for (void *memory : owned_) CHECK_CUDA(cudaFree(memory));
  }
  DeviceMemory(const DeviceMemory &) = delete;
  DeviceMemory &operator=(const DeviceMemory &) = delete;

  template <typename T>
  T *allocate(int64_t count) {
    void *memory = nullptr;
    CHECK_CUDA(cudaMalloc(&memory, std::max<int64_t>(count, 1) * sizeof(T)));
    owned_.push_back(memory);
    return static_cast<T *>(memory);
  }
  template <typename T>
  T *upload(const std::vector<T> &values) {
    T *memory = allocate<T>(values.size());
    CHECK_CUDA(cudaMemcpy(memory, values.data(), values.size() * sizeof(T), cudaMemcpyHostToDevice));
    return memory;
  }

 private:
  std::vector<void *> owned_;
};

// An output between sentinels, itself NaN until it is written: T is uint16_t for BF16, uint32_t for float32.
template <typename T>
class GuardedOutput {
 public:
  GuardedOutput(DeviceMemory &memory, int64_t count, T sentinel, T nan)
      : memory_(memory.allocate<T>(count + 2 * kGuard)), count_(count), sentinel_(sentinel), nan_(nan) {
    poison();
  }
  T *data() const { return memory_ + kGuard; }
  void poison() {
    std::vector<T> values(count_ + 2 * kGuard, sentinel_);
    std::fill(values.begin() + kGuard, values.end() - kGuard, nan_);
    CHECK_CUDA(cudaMemcpy(memory_, values.data(), values.size() * sizeof(T), cudaMemcpyHostToDevice));
  }
  bool intact() const {
    std::vector<T> guard(kGuard);
    for (int64_t start : {int64_t{0}, count_ + kGuard}) {
      CHECK_CUDA(cudaMemcpy(guard.data(), memory_ + start, kGuard * sizeof(T), cudaMemcpyDeviceToHost));
      if (std::count(guard.begin(), guard.end(), sentinel_) != kGuard) return false;
    }
    return true;
  }

 private:
  T *memory_;
  int64_t count_;
  T sentinel_, nan_;
};

template <typename T>
mla_tensor tensor(T *data, int32_t dtype, std::initializer_list<int64_t> shape) {
  mla_tensor t = {};
  t.data = data;
  t.dtype = dtype;
  t.rank = static_cast<int32_t>(shape.size());
  std::copy(shape.begin(), shape.end(), t.shape);
  int64_t stride = 1;
  for (int i = t.rank - 1; i >= 0; --i) {
    t.stride[i] = stride;
    stride *= t.shape[i];
  }
  return t;
}

template <typename T>
T *data_of(const mla_tensor &t) {
  return static_cast<T *>(t.data);
}

// ---- inputs -----------------------------------------------------------------------------------------------------------

__host__ __device__ inline uint64_t mix(uint64_t x) {
  x ^= x >> 30;
  x *= 0xbf58476d1ce4e5b9ull;
  x ^= x >> 27;
  x *= 0x94d049bb133111ebull;
  return x ^ (x >> 31);
}

// A tenth of a standard normal, clipped to [-1, 1], as FlashMLA's tests draw queries and keys.
__device__ inline __nv_bfloat16 random_value(uint64_t seed, uint64_t index) {
  uint64_t bits = mix(seed * 0x9e3779b97f4a7c15ull + index);
  float u = (static_cast<uint32_t>(bits) + 0.5f) * 0x1p-32f, v = static_cast<uint32_t>(bits >> 32) * 0x1p-32f;
  float normal = sqrtf(-2.0f * logf(u)) * cospif(2.0f * v);
  return __float2bfloat16(fminf(fmaxf(normal * 0.1f, -1.0f), 1.0f));
}

static __global__ void fill_random(__nv_bfloat16 *data, int64_t count, uint64_t seed) {
  for (int64_t i = blockIdx.x * static_cast<int64_t>(blockDim.x) + threadIdx.x; i < count;
       i += static_cast<int64_t>(gridDim.x) * blockDim.x) {
    data[i] = random_value(seed, i);
  }
}

// A thread block a cache block: used[block] tokens are random, the others NaN.
static __global__ void fill_cache_blocks(__nv_bfloat16 *cache, const int32_t *used, uint64_t seed) {
  int64_t start = static_cast<int64_t>(blockIdx.x) * kBlock * kDim;
  for (int i = threadIdx.x; i < kBlock * kDim; i += blockDim.x) {
    bool is_used = i / kDim < used[blockIdx.x];
    cache[start + i] = is_used ? random_value(seed, start + i) : __float2bfloat16(NAN);
  }
}

// Blocks for sequences of these lengths in random order, a few of them unused; entries past a sequence's end are wild.
struct Paging {
  int max_blocks, cache_blocks;
  std::vector<int32_t> table;  // [sequences, max_blocks]
  std::vector<int32_t> used;   // tokens in each block

  Paging(const std::vector<int> &lengths, uint64_t seed) {
    max_blocks = *std::max_element(lengths.begin(), lengths.end()) / kBlock + 3;
    cache_blocks = 5;
    for (int length : lengths) cache_blocks += (length + kBlock - 1) / kBlock;
    std::vector<int32_t> order(cache_blocks);
    std::iota(order.begin(), order.end(), 0);
    std::shuffle(order.begin(), order.end(), std::mt19937_64(seed));
    table.assign(lengths.size() * max_blocks, kWildBlock);
    used.assign(cache_blocks, 0);
    size_t next = 0;
    for (size_t b = 0; b < lengths.size(); ++b) {
      for (int token = 0; token < lengths[b]; token += kBlock) {
        int32_t block = order[next++];
        table[b * max_blocks + token / kBlock] = block;
        used[block] = std::min(kBlock, lengths[b] - token);
      }
    }
  }
};

// ---- reference --------------------------------------------------------------------------------------------------------

// What a row of the queries sees: the first `seen` keys of a sequence.
struct ReferenceRow {
  int32_t seq, seen;
  int64_t lse;  // where its log-sum-exp goes
};

template <typename Key>
struct ReferenceParams {
  const __nv_bfloat16 *q;  // [rows, 576]
  const Key *cache;        // [blocks, 64, 576]
  const int32_t *table;
  const ReferenceRow *rows;
  int max_blocks, max_length;
  float scale;
  float *scores;  // [rows, max_length]
  double *out;    // [rows, 512]
  double *lse;
};

__device__ inline double as_double(__nv_bfloat16 v) { return __bfloat162float(v); }
__device__ inline double as_double(float v) { return v; }

// One thread block a query row; plain loops, float64 sums. Grid: rows, 256 threads.
template <typename Key>
__global__ void reference_kernel(ReferenceParams<Key> p) {
  __shared__ double shared[256];
  const int thread = threadIdx.x;
  const int64_t at = blockIdx.x;
  const ReferenceRow row = p.rows[at];
  float *scores = p.scores + at * p.max_length;
  auto key_of = [&](int token) {
    int64_t block = p.table[static_cast<int64_t>(row.seq) * p.max_blocks + token / kBlock];
    return p.cache + (block * kBlock + token % kBlock) * kDim;
  };

  const __nv_bfloat16 *q = p.q + at * kDim;
  for (int token = thread / 32; token < row.seen; token += 8) {
    const Key *key = key_of(token);
    double sum = 0;
    for (int d = thread % 32; d < kDim; d += 32) sum += as_double(q[d]) * as_double(key[d]);
    for (int step = 16; step > 0; step /= 2) sum += __shfl_xor_sync(~0u, sum, step);
    if (thread % 32 == 0) scores[token] = static_cast<float>(sum * p.scale);
  }
  __syncthreads();

  auto reduce = [&](double value, bool maximum) {
    shared[thread] = value;
    __syncthreads();
    for (int step = 128; step > 0; step /= 2) {
      if (thread < step) {
        double other = shared[thread + step];
        shared[thread] = maximum ? fmax(shared[thread], other) : shared[thread] + other;
      }
      __syncthreads();
    }
    double result = shared[0];
    __syncthreads();
    return result;
  };
  double top = -INFINITY, sum = 0;
  for (int token = thread; token < row.seen; token += 256) top = fmax(top, static_cast<double>(scores[token]));
  top = reduce(top, true);
  for (int token = thread; token < row.seen; token += 256) {
    float weight = expf(static_cast<float>(scores[token] - top));
    sum += weight;
    scores[token] = weight;
  }
  sum = reduce(sum, false);

  double out[2] = {0, 0};
#pragma unroll 8
  for (int token = 0; token < row.seen; ++token) {
    const Key *value = key_of(token);
    double weight = scores[token];
    for (int i = 0; i < 2; ++i) out[i] += weight * as_double(value[thread + i * 256]);
  }
  for (int i = 0; i < 2; ++i) p.out[at * kLatent + thread + i * 256] = row.seen > 0 ? out[i] / sum : 0.0;
  if (thread == 0) p.lse[row.lse] = row.seen > 0 ? top + log(sum) : INFINITY;
}

// ---- comparison -------------------------------------------------------------------------------------------------------

struct Difference {
  int64_t bad_out, bad_lse;     // elements outside of both tolerances, NaN and a wrong infinity among them
  double worst_out, worst_lse;  // largest absolute differences
  double cosine;                // 1 - 2 <a, b> / (|a|^2 + |b|^2)

  // NaN is on neither side of a comparison: asks for what must hold.
  bool right() const { return bad_out == 0 && bad_lse == 0 && cosine < kCosineTolerance; }
};

struct Tally {
  unsigned long long bad;
  unsigned long long worst_bits;  // of a non-negative double: ordered as the double is
  double product, squares;

  double worst() const {
    double value;
    static_assert(sizeof(value) == sizeof(worst_bits));
    std::copy_n(reinterpret_cast<const char *>(&worst_bits), sizeof(value), reinterpret_cast<char *>(&value));
    return value;
  }
};

// `bounds`: absolute ones of each value, or null: `absolute` for all.
template <typename T>
__global__ void compare_kernel(const T *ours, const double *reference, int64_t count, double absolute, double relative,
                               Tally *tally, const double *bounds = nullptr) {
  double product = 0, squares = 0, worst = 0;
  unsigned long long bad = 0;
  for (int64_t i = blockIdx.x * static_cast<int64_t>(blockDim.x) + threadIdx.x; i < count;
       i += static_cast<int64_t>(gridDim.x) * blockDim.x) {
    double a = as_double(ours[i]), b = reference[i];
    if (isinf(b)) {
      bad += !(a == b);
      continue;
    }
    double difference = fabs(a - b);
    bool fine = difference < (bounds == nullptr ? absolute : bounds[i]) || difference < relative * fabs(b);  // false for NaN
    bad += !fine;
    if (difference > worst) worst = difference;
    product += a * b;
    squares += a * a + b * b;
  }
  atomicAdd(&tally->bad, bad);
  atomicMax(&tally->worst_bits, static_cast<unsigned long long>(__double_as_longlong(worst)));
  atomicAdd(&tally->product, product);
  atomicAdd(&tally->squares, squares);
}

// Computes the reference for queries [rows, 576] and compares: out [rows, 512]; lse, where there is one, with absolute bounds of its
// own if there are any.
template <typename Key>
Difference compare_with_reference(const std::vector<ReferenceRow> &rows, const mla_tensor &q, const Key *cache,
                                  const mla_tensor &block_table, float scale, const mla_tensor &out, const float *lse,
                                  const std::vector<double> &lse_bounds = {}) {
  DeviceMemory memory;
  const int64_t count = rows.size();
  int longest = 1;
  for (const ReferenceRow &row : rows) longest = std::max(longest, row.seen);
  auto *reference_out = memory.allocate<double>(count * kLatent);
  auto *reference_lse = memory.allocate<double>(count);
  auto *tallies = memory.upload(std::vector<Tally>(2));
  ReferenceParams<Key> params = {data_of<__nv_bfloat16>(q),
                                 cache,
                                 data_of<int32_t>(block_table),
                                 memory.upload(rows),
                                 static_cast<int>(block_table.shape[1]),
                                 longest,
                                 scale,
                                 memory.allocate<float>(count * longest),
                                 reference_out,
                                 reference_lse};
  if (count > 0) reference_kernel<<<count, 256>>>(params);
  CHECK_CUDA(cudaGetLastError());
  compare_kernel<<<256, 256>>>(data_of<__nv_bfloat16>(out), reference_out, count * kLatent, kOutAbsolute, kOutRelative,
                               tallies);
  if (lse != nullptr) {
    const double *bounds = lse_bounds.empty() ? nullptr : memory.upload(lse_bounds);
    compare_kernel<<<16, 256>>>(lse, reference_lse, count, kLseAbsolute, kLseRelative, tallies + 1, bounds);
  }
  CHECK_CUDA(cudaGetLastError());
  Tally host[2];
  CHECK_CUDA(cudaMemcpy(host, tallies, sizeof(host), cudaMemcpyDeviceToHost));
  double cosine = host[0].squares > 0 ? 1.0 - 2.0 * host[0].product / host[0].squares : 0.0;
  return {static_cast<int64_t>(host[0].bad), static_cast<int64_t>(host[1].bad), host[0].worst(), host[1].worst(), cosine};
}

}  // namespace mla::test
