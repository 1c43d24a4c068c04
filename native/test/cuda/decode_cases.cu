#include "decode_cases.h"

#include <cuda_bf16.h>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <numeric>
#include <random>
#include <sstream>
#include <string>

#include "launch.h"

namespace mla::test {
namespace {

constexpr int kDim = 576, kLatent = 512, kBlock = 64;
constexpr int kGuard = 4096;  // sentinel elements before and after each output
constexpr uint16_t kOutSentinel = 0xA5C3;
constexpr uint32_t kLseSentinel = 0xC3A5A5C3;
constexpr int32_t kWildBlock = 2000000000;
constexpr double kOutAbsolute = 8e-4, kOutRelative = 2.01 / 128;  // the tolerances FlashMLA tests itself with
constexpr double kLseAbsolute = 1e-6, kLseRelative = 8.01 / 65536;

__device__ uint64_t mix(uint64_t x) {
  x ^= x >> 30;
  x *= 0xbf58476d1ce4e5b9ull;
  x ^= x >> 27;
  x *= 0x94d049bb133111ebull;
  return x ^ (x >> 31);
}

// A tenth of a standard normal, clipped to [-1, 1], as FlashMLA's tests draw queries and keys.
__device__ __nv_bfloat16 random_value(uint64_t seed, uint64_t index) {
  uint64_t bits = mix(seed * 0x9e3779b97f4a7c15ull + index);
  float u = (static_cast<uint32_t>(bits) + 0.5f) * 0x1p-32f, v = static_cast<uint32_t>(bits >> 32) * 0x1p-32f;
  float normal = sqrtf(-2.0f * logf(u)) * cospif(2.0f * v);
  return __float2bfloat16(fminf(fmaxf(normal * 0.1f, -1.0f), 1.0f));
}

__global__ void fill_random(__nv_bfloat16 *data, int64_t count, uint64_t seed) {
  for (int64_t i = blockIdx.x * static_cast<int64_t>(blockDim.x) + threadIdx.x; i < count;
       i += static_cast<int64_t>(gridDim.x) * blockDim.x) {
    data[i] = random_value(seed, i);
  }
}

struct NewestKeys {
  __nv_bfloat16 *cache, *kept;  // [blocks, 64, 576], [batch, s_q, 576]
  const int32_t *table, *lengths;
  int max_blocks, s_q;
};

// Grid: (s_q, batch). The key of a thread block in the cache; null where the sequence is shorter.
__device__ __nv_bfloat16 *newest_key(const NewestKeys &keys) {
  const int b = blockIdx.y, token = keys.lengths[b] - keys.s_q + static_cast<int>(blockIdx.x);
  if (token < 0) return nullptr;
  const int64_t block = keys.table[static_cast<int64_t>(b) * keys.max_blocks + token / kBlock];
  return keys.cache + (block * kBlock + token % kBlock) * kDim;
}

__global__ void withdraw_keys(NewestKeys keys) {
  __nv_bfloat16 *key = newest_key(keys);
  if (key == nullptr) return;
  __nv_bfloat16 *kept = keys.kept + (static_cast<int64_t>(blockIdx.y) * keys.s_q + blockIdx.x) * kDim;
  for (int i = threadIdx.x; i < kDim; i += blockDim.x) {
    kept[i] = key[i];
    key[i] = __float2bfloat16(NAN);
  }
}

__global__ void append_keys(NewestKeys keys) {
  cudaGridDependencySynchronize();
  cudaTriggerProgrammaticLaunchCompletion();
  __nanosleep(5000);  // what follows shall be waiting
  __nv_bfloat16 *key = newest_key(keys);
  if (key == nullptr) return;
  const __nv_bfloat16 *kept = keys.kept + (static_cast<int64_t>(blockIdx.y) * keys.s_q + blockIdx.x) * kDim;
  for (int i = threadIdx.x; i < kDim; i += blockDim.x) key[i] = kept[i];
}

// A thread block a cache block: used[block] tokens are random, the others NaN.
__global__ void fill_cache_blocks(__nv_bfloat16 *cache, const int32_t *used, uint64_t seed) {
  int64_t start = static_cast<int64_t>(blockIdx.x) * kBlock * kDim;
  for (int i = threadIdx.x; i < kBlock * kDim; i += blockDim.x) {
    bool is_used = i / kDim < used[blockIdx.x];
    cache[start + i] = is_used ? random_value(seed, start + i) : __float2bfloat16(NAN);
  }
}

struct ReferenceParams {
  const __nv_bfloat16 *q, *cache;
  const int32_t *table, *lengths;
  int max_blocks, s_q, heads, max_length;
  float scale;
  float *scores;  // [batch * rows, max_length]
  double *out;    // [batch * rows, 512]
  double *lse;    // [batch, heads, s_q]
};

__device__ const __nv_bfloat16 *key_of(const ReferenceParams &p, int batch, int token) {
  int64_t block = p.table[static_cast<int64_t>(batch) * p.max_blocks + token / kBlock];
  return p.cache + (block * kBlock + token % kBlock) * kDim;
}

// One thread block a query row; plain loops, float64 sums. Grid: (rows, batch), 256 threads.
__global__ void reference_kernel(ReferenceParams p) {
  __shared__ double shared[256];
  const int rows = p.s_q * p.heads, row = blockIdx.x, batch = blockIdx.y, thread = threadIdx.x;
  const int query = row / p.heads, head = row % p.heads;
  const int seen = max(0, p.lengths[batch] - p.s_q + query + 1);
  const int64_t at = static_cast<int64_t>(batch) * rows + row;
  float *scores = p.scores + at * p.max_length;

  const __nv_bfloat16 *q = p.q + at * kDim;
  for (int token = thread / 32; token < seen; token += 8) {
    const __nv_bfloat16 *key = key_of(p, batch, token);
    double sum = 0;
    for (int d = thread % 32; d < kDim; d += 32) {
      sum += static_cast<double>(__bfloat162float(q[d])) * static_cast<double>(__bfloat162float(key[d]));
    }
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
  for (int token = thread; token < seen; token += 256) top = fmax(top, static_cast<double>(scores[token]));
  top = reduce(top, true);
  for (int token = thread; token < seen; token += 256) {
    float weight = expf(static_cast<float>(scores[token] - top));
    sum += weight;
    scores[token] = weight;
  }
  sum = reduce(sum, false);

  double out[2] = {0, 0};
#pragma unroll 8
  for (int token = 0; token < seen; ++token) {
    const __nv_bfloat16 *value = key_of(p, batch, token);
    double weight = scores[token];
    for (int i = 0; i < 2; ++i) out[i] += weight * static_cast<double>(__bfloat162float(value[thread + i * 256]));
  }
  for (int i = 0; i < 2; ++i) p.out[at * kLatent + thread + i * 256] = seen > 0 ? out[i] / sum : 0.0;
  if (thread == 0) {
    p.lse[(static_cast<int64_t>(batch) * p.heads + head) * p.s_q + query] = seen > 0 ? top + log(sum) : INFINITY;
  }
}

struct Tally {
  unsigned long long bad;
  unsigned long long worst_bits;  // of a non-negative double: ordered as the double is
  double product, squares;
};

__device__ double as_double(__nv_bfloat16 v) { return __bfloat162float(v); }
__device__ double as_double(float v) { return v; }

template <typename T>
__global__ void compare_kernel(const T *ours, const double *reference, int64_t count, double absolute, double relative,
                               Tally *tally) {
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
    bool fine = difference < absolute || difference < relative * fabs(b);  // false for NaN
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

}  // namespace

// CPython's random.seed(0) and random.normalvariate (Kinderman and Monahan 1977), so that the rows are the baseline's.
std::vector<int> baseline_lengths(int batch, int s_q, int mean) {
  std::vector<uint32_t> state(624);
  state[0] = 19650218u;
  for (uint32_t i = 1; i < 624; ++i) state[i] = 1812433253u * (state[i - 1] ^ (state[i - 1] >> 30)) + i;
  uint32_t i = 1;
  auto carry = [&] {
    if (++i >= 624) {
      state[0] = state[623];
      i = 1;
    }
  };
  for (int k = 0; k < 624; ++k, carry()) state[i] = (state[i] ^ ((state[i - 1] ^ (state[i - 1] >> 30)) * 1664525u));
  for (int k = 0; k < 623; ++k, carry()) {
    state[i] = (state[i] ^ ((state[i - 1] ^ (state[i - 1] >> 30)) * 1566083941u)) - i;
  }
  state[0] = 0x80000000u;
  std::stringstream text;
  for (uint32_t word : state) text << word << ' ';
  std::mt19937 generator;
  text << 624;  // the position after the last word, as libstdc++ writes its state
  text >> generator;

  auto uniform = [&] {
    uint32_t high = generator() >> 5, low = generator() >> 6;
    return (high * 67108864.0 + low) / 9007199254740992.0;
  };
  std::vector<int> lengths;
  for (int b = 0; b < batch; ++b) {
    double z;
    for (;;) {
      double u1 = uniform(), u2 = 1.0 - uniform();
      z = 4 * std::exp(-0.5) / std::sqrt(2.0) * (u1 - 0.5) / u2;
      if (z * z / 4.0 <= -std::log(u2)) break;
    }
    lengths.push_back(static_cast<int>(std::max(mean + z * (mean / 2.0), static_cast<double>(s_q))));
  }
  return lengths;
}

template <typename T>
T *DecodeCall::allocate(int64_t count) {
  void *memory = nullptr;
  CHECK_CUDA(cudaMalloc(&memory, std::max<int64_t>(count, 1) * sizeof(T)));
  owned_.push_back(memory);
  return static_cast<T *>(memory);
}

DecodeCall::DecodeCall(const DecodeCase &shape, uint64_t seed) : case_(shape), rows_(shape.s_q * shape.heads) {
  const int64_t batch = case_.batch;
  int longest = *std::max_element(case_.lengths.begin(), case_.lengths.end());
  max_blocks_ = longest / kBlock + 3;
  for (int length : case_.lengths) cache_blocks_ += (length + kBlock - 1) / kBlock;
  cache_blocks_ += 5;
  out_count_ = batch * rows_ * kLatent;
  lse_count_ = batch * rows_;

  args_.plan = {case_.batch, case_.s_q, case_.heads, longest, case_.deterministic ? MLA_PLAN_DETERMINISTIC : 0};
  args_.softmax_scale = 1.0f / std::sqrt(static_cast<float>(kDim));
  auto *q = allocate<__nv_bfloat16>(batch * rows_ * kDim);
  fill_random<<<512, 256>>>(q, batch * rows_ * kDim, seed);
  CHECK_CUDA(cudaGetLastError());
  args_.q = tensor(q, MLA_BF16, {batch, case_.s_q, case_.heads, kDim});
  args_.cache = tensor(allocate<__nv_bfloat16>(static_cast<int64_t>(cache_blocks_) * kBlock * kDim), MLA_BF16,
                       {cache_blocks_, kBlock, kDim});
  args_.block_table = tensor(allocate<int32_t>(batch * max_blocks_), MLA_I32, {batch, max_blocks_});
  args_.seq_lens = tensor(allocate<int32_t>(batch), MLA_I32, {batch});
  allocate_plan(args_);
  guarded_out_ = allocate<uint16_t>(out_count_ + 2 * kGuard);
  guarded_lse_ = allocate<float>(lse_count_ + 2 * kGuard);
  newest_keys_ = allocate<__nv_bfloat16>(batch * case_.s_q * kDim);
  args_.out = tensor(guarded_out_ + kGuard, MLA_BF16, {batch, case_.s_q, case_.heads, kLatent});
  args_.lse = tensor(guarded_lse_ + kGuard, MLA_F32, {batch, case_.heads, case_.s_q});
  fill_cache(seed);
  poison_outputs();
}

void DecodeCall::allocate_plan(mla_decode_args &args) {
  auto layout = cuda::decode_shape(args.plan, multiprocessors());
  const int64_t batch = args.plan.batch, workspace = cuda::workspace_floats(layout);
  args.tiles = tensor(allocate<int32_t>(layout.plan_rows() * 8), MLA_I32, {layout.plan_rows(), 8});
  args.splits = tensor(allocate<int32_t>(batch + 1), MLA_I32, {batch + 1});
  args.workspace = tensor(allocate<float>(workspace), MLA_F32, {workspace});
  CHECK_CUDA(cudaMemset(args.workspace.data, 0xFF, workspace * sizeof(float)));
}

DecodeCall::~DecodeCall() {
  for (void *memory : owned_) CHECK_CUDA(cudaFree(memory));
}

void DecodeCall::fill_cache(uint64_t seed) {
  std::vector<int32_t> order(cache_blocks_), used(cache_blocks_, 0);
  std::iota(order.begin(), order.end(), 0);
  std::shuffle(order.begin(), order.end(), std::mt19937_64(seed));
  std::vector<int32_t> table(static_cast<size_t>(case_.batch) * max_blocks_, kWildBlock);
  size_t next = 0;
  for (int b = 0; b < case_.batch; ++b) {
    for (int token = 0; token < case_.lengths[b]; token += kBlock) {
      int32_t block = order[next++];
      table[static_cast<size_t>(b) * max_blocks_ + token / kBlock] = block;
      used[block] = std::min(kBlock, case_.lengths[b] - token);
    }
  }
  auto *device_used = allocate<int32_t>(cache_blocks_);
  CHECK_CUDA(cudaMemcpy(device_used, used.data(), used.size() * 4, cudaMemcpyHostToDevice));
  CHECK_CUDA(cudaMemcpy(args_.block_table.data, table.data(), table.size() * 4, cudaMemcpyHostToDevice));
  CHECK_CUDA(cudaMemcpy(args_.seq_lens.data, case_.lengths.data(), case_.lengths.size() * 4, cudaMemcpyHostToDevice));
  fill_cache_blocks<<<cache_blocks_, 256>>>(data_of<__nv_bfloat16>(args_.cache), device_used, seed + 1);
  CHECK_CUDA(cudaGetLastError());
}

int DecodeCall::cut_sequences() {
  std::vector<int32_t> splits(case_.batch + 1);
  CHECK_CUDA(cudaMemcpy(splits.data(), args_.splits.data, splits.size() * sizeof(int32_t), cudaMemcpyDeviceToHost));
  int cut = 0;
  for (int b = 0; b < case_.batch; ++b) cut += splits[b + 1] - splits[b] > 1;
  return cut;
}

void DecodeCall::poison_outputs() {
  std::vector<uint16_t> out(out_count_ + 2 * kGuard, kOutSentinel);
  std::fill(out.begin() + kGuard, out.end() - kGuard, uint16_t{0x7FFF});  // NaN: what is not written shows
  std::vector<uint32_t> lse(lse_count_ + 2 * kGuard, kLseSentinel);
  std::fill(lse.begin() + kGuard, lse.end() - kGuard, 0x7FFFFFFFu);
  CHECK_CUDA(cudaMemcpy(guarded_out_, out.data(), out.size() * 2, cudaMemcpyHostToDevice));
  CHECK_CUDA(cudaMemcpy(guarded_lse_, lse.data(), lse.size() * 4, cudaMemcpyHostToDevice));
}

void DecodeCall::plan(cudaStream_t stream) {
  std::string error;
  require_ok(cuda::plan(args_.plan, args_.seq_lens, args_.tiles, args_.splits, multiprocessors(), stream, error), error);
}

void DecodeCall::plan_deterministically(cudaStream_t stream) {
  args_.plan.flags = MLA_PLAN_DETERMINISTIC;
  allocate_plan(args_);
  CHECK_CUDA(cudaDeviceSynchronize());  // the memset of the workspace
  plan(stream);
}

void DecodeCall::decode(cudaStream_t stream) {
  std::string error;
  require_ok(cuda::decode(args_, multiprocessors(), stream, error), error);
}

void DecodeCall::append_again(cudaStream_t stream) {
  NewestKeys keys = {data_of<__nv_bfloat16>(args_.cache), newest_keys_, data_of<int32_t>(args_.block_table),
                     data_of<int32_t>(args_.seq_lens), max_blocks_, case_.s_q};
  const dim3 grid(case_.s_q, case_.batch);
  withdraw_keys<<<grid, 128, 0, stream>>>(keys);
  CHECK_CUDA(cudaGetLastError());
  const cuda::Launch append(grid, 128, 0, stream);
  CHECK_CUDA(cudaLaunchKernelEx(&append.config, append_keys, keys));
}

int64_t DecodeCall::bits_differing_apart(int first, int count, cudaStream_t stream) {
  mla_decode_args apart = args_;
  apart.plan.batch = count;
  const auto lengths = case_.lengths.begin() + first;
  apart.plan.max_len = *std::max_element(lengths, lengths + count);
  auto slice = [first, count](const mla_tensor &t, int64_t bytes) {
    mla_tensor some = t;
    some.shape[0] = count;
    some.data = static_cast<char *>(t.data) + first * t.stride[0] * bytes;
    return some;
  };
  apart.q = slice(args_.q, 2);
  apart.block_table = slice(args_.block_table, 4);
  apart.seq_lens = slice(args_.seq_lens, 4);
  const int64_t rows = count * rows_;
  apart.out = tensor(allocate<__nv_bfloat16>(rows * kLatent), MLA_BF16, {count, case_.s_q, case_.heads, kLatent});
  apart.lse = tensor(allocate<float>(rows), MLA_F32, {count, case_.heads, case_.s_q});
  allocate_plan(apart);
  CHECK_CUDA(cudaDeviceSynchronize());  // the memset of the workspace
  std::string error;
  require_ok(cuda::plan(apart.plan, apart.seq_lens, apart.tiles, apart.splits, multiprocessors(), stream, error), error);
  require_ok(cuda::decode(apart, multiprocessors(), stream, error), error);
  CHECK_CUDA(cudaStreamSynchronize(stream));

  int64_t differing = 0;
  auto compare = [&](const mla_tensor &ours, const mla_tensor &theirs, size_t bytes) {
    std::vector<uint8_t> a(bytes), c(bytes);
    CHECK_CUDA(cudaMemcpy(a.data(), ours.data, bytes, cudaMemcpyDeviceToHost));
    CHECK_CUDA(cudaMemcpy(c.data(), theirs.data, bytes, cudaMemcpyDeviceToHost));
    for (size_t i = 0; i < bytes; ++i) differing += __builtin_popcount(a[i] ^ c[i]);
  };
  compare(apart.out, slice(args_.out, 2), rows * kLatent * 2);
  compare(apart.lse, slice(args_.lse, 4), rows * 4);
  return differing;
}

bool DecodeCall::sentinels_intact() {
  std::vector<uint16_t> out(kGuard);
  std::vector<uint32_t> lse(kGuard);
  for (int end = 0; end < 2; ++end) {
    CHECK_CUDA(cudaMemcpy(out.data(), guarded_out_ + end * (out_count_ + kGuard), kGuard * 2, cudaMemcpyDeviceToHost));
    CHECK_CUDA(cudaMemcpy(lse.data(), guarded_lse_ + end * (lse_count_ + kGuard), kGuard * 4, cudaMemcpyDeviceToHost));
    if (std::count(out.begin(), out.end(), kOutSentinel) != kGuard) return false;
    if (std::count(lse.begin(), lse.end(), kLseSentinel) != kGuard) return false;
  }
  return true;
}

Difference DecodeCall::compare_with_reference() {
  int longest = std::max(1, *std::max_element(case_.lengths.begin(), case_.lengths.end()));
  float *scores;
  double *out, *lse;
  Tally *tallies;
  CHECK_CUDA(cudaMalloc(&scores, sizeof(float) * case_.batch * rows_ * longest));
  CHECK_CUDA(cudaMalloc(&out, sizeof(double) * out_count_));
  CHECK_CUDA(cudaMalloc(&lse, sizeof(double) * lse_count_));
  CHECK_CUDA(cudaMalloc(&tallies, 2 * sizeof(Tally)));
  CHECK_CUDA(cudaMemset(tallies, 0, 2 * sizeof(Tally)));
  ReferenceParams params = {data_of<__nv_bfloat16>(args_.q), data_of<__nv_bfloat16>(args_.cache),
                            data_of<int32_t>(args_.block_table), data_of<int32_t>(args_.seq_lens),
                            max_blocks_, case_.s_q, case_.heads, longest, args_.softmax_scale, scores, out, lse};
  reference_kernel<<<dim3(rows_, case_.batch), 256>>>(params);
  CHECK_CUDA(cudaGetLastError());
  compare_kernel<<<256, 256>>>(data_of<__nv_bfloat16>(args_.out), out, out_count_, kOutAbsolute, kOutRelative, tallies);
  compare_kernel<<<16, 256>>>(data_of<float>(args_.lse), lse, lse_count_, kLseAbsolute, kLseRelative, tallies + 1);
  CHECK_CUDA(cudaGetLastError());
  Tally host[2];
  CHECK_CUDA(cudaMemcpy(host, tallies, sizeof(host), cudaMemcpyDeviceToHost));
  for (void *memory : {static_cast<void *>(scores), static_cast<void *>(out), static_cast<void *>(lse),
                       static_cast<void *>(tallies)}) {
    CHECK_CUDA(cudaFree(memory));
  }
  auto worst = [](const Tally &t) {
    double value;
    static_assert(sizeof(value) == sizeof(t.worst_bits));
    std::copy_n(reinterpret_cast<const char *>(&t.worst_bits), sizeof(value), reinterpret_cast<char *>(&value));
    return value;
  };
  double cosine = host[0].squares > 0 ? 1.0 - 2.0 * host[0].product / host[0].squares : 0.0;
  return {static_cast<int64_t>(host[0].bad), static_cast<int64_t>(host[1].bad), worst(host[0]), worst(host[1]), cosine};
}

}  // namespace mla::test
