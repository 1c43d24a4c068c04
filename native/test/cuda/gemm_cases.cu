#include "gemm_cases.h"

#include <cuda_bf16.h>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <random>
#include <sstream>

#include "silu.cuh"

namespace mla::test {
namespace {

constexpr int64_t kGuard = 1024;  // sentinel elements before and after out
constexpr uint8_t kSentinel = 0xA5;

__device__ uint64_t mix(uint64_t x) {
  x ^= x >> 30;
  x *= 0xbf58476d1ce4e5b9ull;
  x ^= x >> 27;
  x *= 0x94d049bb133111ebull;
  return x ^ (x >> 31);
}

__device__ __nv_bfloat16 random_value(uint64_t seed, uint64_t index, float scale) {
  uint64_t bits = mix(seed * 0x9e3779b97f4a7c15ull + index);
  float u = (static_cast<uint32_t>(bits) + 0.5f) * 0x1p-32f, v = static_cast<uint32_t>(bits >> 32) * 0x1p-32f;
  return __float2bfloat16(sqrtf(-2.0f * logf(u)) * cospif(2.0f * v) * scale);
}

// Rows of `stride` values, of which the first `used` are random and the others NaN; a row with used[row] == 0 is all NaN.
__global__ void fill_rows(__nv_bfloat16 *data, int64_t rows, int64_t stride, int64_t used, const uint8_t *row_used,
                          float scale, uint64_t seed) {
  for (int64_t i = blockIdx.x * static_cast<int64_t>(blockDim.x) + threadIdx.x; i < rows * stride;
       i += static_cast<int64_t>(gridDim.x) * blockDim.x) {
    const bool wanted = i % stride < used && (row_used == nullptr || row_used[i / stride]);
    data[i] = wanted ? random_value(seed, i, scale) : __float2bfloat16(NAN);
  }
}

struct Layout {
  const __nv_bfloat16 *x, *w, *bias;
  const int32_t *rows, *offsets;  // offsets of all groups, also where the product itself takes none
  const void *out;
  int64_t x_stride, x_group_stride, w_group_stride, w_column_stride, w_depth_stride, out_stride, out_group_stride;
  int groups, columns, depth;
  bool float_out, silu;
};

// Of x[..] w[column]^T, with chunks of the sum in double.
__device__ double dot(const Layout &p, const __nv_bfloat16 *x, const __nv_bfloat16 *w) {
  double sum = 0;
  for (int k = 0; k < p.depth; k += 8) {
    float part = 0;
    for (int j = k; j < min(k + 8, p.depth); ++j) {
      part = fmaf(__bfloat162float(x[j]), __bfloat162float(w[j * p.w_depth_stride]), part);
    }
    sum += part;
  }
  return sum;
}

__device__ double rounded(double value) { return __bfloat162float(__double2bfloat16(value)); }

// sums: of squared differences, of squared references; not_finite counts.
__global__ void compare(Layout p, double *sums, unsigned long long *not_finite) {
  const int64_t count = static_cast<int64_t>(p.offsets[p.groups]) * p.columns;
  double difference = 0, square = 0;
  for (int64_t i = blockIdx.x * static_cast<int64_t>(blockDim.x) + threadIdx.x; i < count;
       i += static_cast<int64_t>(gridDim.x) * blockDim.x) {
    const int64_t row = i / p.columns, column = i % p.columns;
    int group = 0;
    while (p.offsets[group + 1] <= row) ++group;
    // In a batch rows count from the group's start, with offsets from the first group's.
    const int64_t local = p.x_group_stride || p.out_group_stride ? row - p.offsets[group] : row;
    const __nv_bfloat16 *x = p.x + group * p.x_group_stride + (p.rows ? p.rows[row] : local) * p.x_stride;
    const __nv_bfloat16 *w = p.w + group * p.w_group_stride + column * p.w_column_stride;
    double reference = dot(p, x, w);
    if (p.bias) reference += __bfloat162float(p.bias[column]);
    if (p.silu) {
      const double gate = rounded(reference), up = rounded(dot(p, x, w + p.columns * p.w_column_stride));
      reference = gate / (1.0 + exp(-gate)) * up;
    }
    const int64_t at = group * p.out_group_stride + local * p.out_stride + column;
    const float value = p.float_out ? static_cast<const float *>(p.out)[at]
                                    : __bfloat162float(static_cast<const __nv_bfloat16 *>(p.out)[at]);
    if (!isfinite(value)) atomicAdd(not_finite, 1ull);
    else difference += (value - reference) * (value - reference);
    square += reference * reference;
  }
  atomicAdd(sums, difference);
  atomicAdd(sums + 1, square);
}

// gate[i] = silu(gate[i]) * up[i], as mla_silu_mul does; the ups follow the gates.
__global__ void multiply_gates(__nv_bfloat16 *gates, int count) {
  for (int i = blockIdx.x * blockDim.x + threadIdx.x; i < count; i += gridDim.x * blockDim.x) {
    gates[i] = __float2bfloat16(cuda::silu_mul(__bfloat162float(gates[i]), __bfloat162float(gates[count + i])));
  }
}

mla_tensor tensor(void *data, int32_t dtype, std::vector<int64_t> shape, std::vector<int64_t> stride) {
  mla_tensor t = {};
  t.data = data;
  t.dtype = dtype;
  t.rank = static_cast<int32_t>(shape.size());
  std::copy(shape.begin(), shape.end(), t.shape);
  std::copy(stride.begin(), stride.end(), t.stride);
  return t;
}

void require(mla_status status, const std::string &error) {
  if (status == MLA_OK) return;
  std::fprintf(stderr, "status %d: %s\n", status, error.c_str());
  std::exit(1);
}

}  // namespace

void fill_random(uint16_t *data, int64_t count, float scale, uint64_t seed) {
  fill_rows<<<1024, 256>>>(reinterpret_cast<__nv_bfloat16 *>(data), 1, count, count, nullptr, scale, seed);
  CHECK_CUDA(cudaGetLastError());
}

std::string GemmCase::describe() const {
  std::ostringstream words;
  const char *names[] = {"dense", "batched", "experts"};
  words << names[static_cast<int>(product)] << " groups " << groups << " rows " << rows << " N " << columns << " K "
        << depth << (float_out ? " f32" : "") << (bias ? " bias" : "") << (across ? " across" : "")
        << (gather ? " gather" : "") << (silu ? " silu" : "") << " padding " << padding;
  for (size_t e = 0; e < std::min<size_t>(group_rows.size(), 12); ++e) words << (e ? "," : " of ") << group_rows[e];
  return words.str();
}

int64_t GemmCase::out_rows() const {
  if (product != Product::kExperts) return static_cast<int64_t>(groups) * rows;
  int64_t sum = 0;
  for (int count : group_rows) sum += count;
  return sum;
}

int64_t GemmCase::weight_rows() const { return silu ? 2 * columns : columns; }

template <typename T>
T *GemmCall::allocate(int64_t count) {
  void *memory = nullptr;
  CHECK_CUDA(cudaMalloc(&memory, std::max<int64_t>(count, 1) * sizeof(T)));
  owned_.push_back(memory);
  return static_cast<T *>(memory);
}

GemmCall::GemmCall(const GemmCase &shape, uint64_t seed) : case_(shape) {
  std::mt19937_64 random(seed);
  const int64_t total = case_.out_rows();
  host_offsets_ = {0};
  for (int g = 0; g < case_.groups; ++g) {
    host_offsets_.push_back(host_offsets_.back() +
                            (case_.product == Product::kExperts ? case_.group_rows[g] : case_.rows));
  }
  x_rows_ = case_.gather ? case_.rows : total;
  std::vector<uint8_t> used(x_rows_, !case_.gather);
  if (case_.gather) {
    for (int64_t i = 0; i < total; ++i) {
      host_rows_.push_back(static_cast<int32_t>(random() % x_rows_));
      used[host_rows_.back()] = 1;
    }
    rows_ = allocate<int32_t>(total);
    CHECK_CUDA(cudaMemcpy(rows_, host_rows_.data(), total * 4, cudaMemcpyHostToDevice));
  }
  offsets_ = allocate<int32_t>(case_.groups + 1);
  CHECK_CUDA(cudaMemcpy(offsets_, host_offsets_.data(), (case_.groups + 1) * 4, cudaMemcpyHostToDevice));
  uint8_t *device_used = allocate<uint8_t>(x_rows_);
  CHECK_CUDA(cudaMemcpy(device_used, used.data(), x_rows_, cudaMemcpyHostToDevice));

  // A batch lies as the heads of a projection do: [rows, groups, depth], a row of x holding all groups. So does out.
  x_stride_ = case_.depth + case_.padding;
  x_ = allocate<uint16_t>(x_rows_ * x_stride_);
  fill_rows<<<1024, 256>>>(reinterpret_cast<__nv_bfloat16 *>(x_), x_rows_, x_stride_, case_.depth, device_used, 1.0f,
                           seed);
  const int64_t w_inner = case_.across ? case_.columns : case_.depth;
  const int64_t w_outer = case_.across ? case_.depth : case_.weight_rows();
  w_stride_ = w_inner + case_.padding;
  w_group_stride_ = w_outer * w_stride_ + (case_.silu ? 0 : 8 * case_.padding);
  w_ = allocate<uint16_t>(case_.groups * w_group_stride_);
  CHECK_CUDA(cudaMemset(w_, 0xFF, case_.groups * w_group_stride_ * 2));  // NaN
  for (int g = 0; g < case_.groups; ++g) {
    if (host_offsets_[g] == host_offsets_[g + 1]) continue;  // an expert that no one asks for stays NaN
    fill_rows<<<256, 256>>>(reinterpret_cast<__nv_bfloat16 *>(w_) + g * w_group_stride_, w_outer, w_stride_, w_inner,
                            nullptr, 0.05f, seed + 1000 + g);
  }
  if (case_.bias) {
    bias_ = allocate<uint16_t>(case_.columns);
    fill_random(bias_, case_.columns, 1.0f, seed + 2);
  }
  out_stride_ = case_.columns + case_.padding;
  const int64_t bytes = case_.float_out ? 4 : 2;
  out_elements_ = total * out_stride_;
  guarded_out_ = allocate<uint8_t>((out_elements_ + 2 * kGuard) * bytes);
  CHECK_CUDA(cudaMemset(guarded_out_, kSentinel, (out_elements_ + 2 * kGuard) * bytes));
  out_ = static_cast<uint8_t *>(guarded_out_) + kGuard * bytes;
  CHECK_CUDA(cudaDeviceSynchronize());
}

GemmCall::~GemmCall() {
  for (void *memory : owned_) cudaFree(memory);
}

void GemmCall::run(cuda::Gemm &gemm, cudaStream_t stream) {
  const int64_t total = case_.out_rows(), groups = case_.groups, rows = case_.rows;
  const int64_t columns = case_.columns, depth = case_.depth;
  const int32_t out_type = case_.float_out ? MLA_F32 : MLA_BF16;
  std::string error;
  if (case_.product == Product::kBatched) {
    mla_tensor w = case_.across
                       ? tensor(w_, MLA_BF16, {groups, columns, depth}, {w_group_stride_, 1, w_stride_})
                       : tensor(w_, MLA_BF16, {groups, columns, depth}, {w_group_stride_, w_stride_, 1});
    require(gemm.batched_gemm(tensor(x_, MLA_BF16, {groups, rows, depth}, {x_stride_, groups * x_stride_, 1}), w,
                              tensor(out_, out_type, {groups, rows, columns}, {out_stride_, groups * out_stride_, 1}),
                              stream, error),
            error);
    return;
  }
  const mla_tensor x = tensor(x_, MLA_BF16, {x_rows_, depth}, {x_stride_, 1});
  const mla_tensor out = tensor(out_, out_type, {total, columns}, {out_stride_, 1});
  if (case_.product == Product::kDense) {
    const mla_tensor bias = tensor(bias_, MLA_BF16, {columns}, {1});
    require(gemm.gemm(x, tensor(w_, MLA_BF16, {columns, depth}, {w_stride_, 1}), bias_ ? &bias : nullptr, out, stream,
                      error),
            error);
    return;
  }
  std::vector<mla_tensor> weights;
  for (int64_t e = 0; e < groups; ++e) {
    weights.push_back(tensor(w_ + e * w_group_stride_, MLA_BF16, {case_.weight_rows(), depth}, {w_stride_, 1}));
  }
  const mla_tensor gather = tensor(rows_, MLA_I32, {total}, {1});
  require(gemm.moe_gemm(x, rows_ ? &gather : nullptr, tensor(offsets_, MLA_I32, {groups + 1}, {1}), weights.data(),
                        case_.groups, activation(), out, stream, error),
          error);
}

Difference GemmCall::compare_with_reference() {
  Layout p = {};
  p.x = reinterpret_cast<__nv_bfloat16 *>(x_);
  p.w = reinterpret_cast<__nv_bfloat16 *>(w_);
  p.bias = reinterpret_cast<__nv_bfloat16 *>(bias_);
  p.rows = rows_;
  p.offsets = offsets_;
  p.out = out_;
  const bool batched = case_.product == Product::kBatched;
  p.x_stride = batched ? case_.groups * x_stride_ : x_stride_;
  p.x_group_stride = batched ? x_stride_ : 0;
  p.out_stride = batched ? case_.groups * out_stride_ : out_stride_;
  p.out_group_stride = batched ? out_stride_ : 0;
  p.w_group_stride = w_group_stride_;
  p.w_column_stride = case_.across ? 1 : w_stride_;
  p.w_depth_stride = case_.across ? w_stride_ : 1;
  p.groups = case_.groups;
  p.columns = case_.columns;
  p.depth = case_.depth;
  p.float_out = case_.float_out;
  p.silu = case_.silu;
  double *sums = allocate<double>(3);
  CHECK_CUDA(cudaMemset(sums, 0, 24));
  compare<<<132 * 8, 256>>>(p, sums, reinterpret_cast<unsigned long long *>(sums + 2));
  CHECK_CUDA(cudaGetLastError());
  double host[3];
  CHECK_CUDA(cudaMemcpy(host, sums, 24, cudaMemcpyDeviceToHost));
  Difference d = {};
  std::memcpy(&d.not_finite, host + 2, 8);
  d.nmse = host[1] > 0 ? host[0] / host[1] : 0;

  const int64_t bytes = case_.float_out ? 4 : 2;
  std::vector<uint8_t> memory((out_elements_ + 2 * kGuard) * bytes);
  CHECK_CUDA(cudaMemcpy(memory.data(), guarded_out_, memory.size(), cudaMemcpyDeviceToHost));
  for (int64_t i = 0; i < out_elements_ + 2 * kGuard; ++i) {
    const bool inside = i >= kGuard && i < kGuard + out_elements_ && (i - kGuard) % out_stride_ < case_.columns;
    for (int64_t b = 0; !inside && b < bytes; ++b) d.overwritten += memory[i * bytes + b] != kSentinel;
  }
  return d;
}

int GemmCall::group_of(int64_t row) const {
  int group = 0;
  while (host_offsets_[group + 1] <= row) ++group;
  return group;
}

int GemmCall::rows_that_differ_alone(cuda::Gemm &gemm, cudaStream_t stream, int count, uint64_t seed) {
  std::mt19937_64 random(seed);
  const int64_t bytes = case_.float_out ? 4 : 2, columns = case_.columns, weight_rows = case_.weight_rows();
  if (case_.product == Product::kBatched || case_.out_rows() == 0) return 0;
  auto *alone = allocate<uint8_t>(weight_rows * bytes);
  std::vector<uint8_t> expected(columns * bytes), got(columns * bytes);
  int differing = 0;
  for (int i = 0; i < count; ++i) {
    const int64_t row = random() % case_.out_rows();
    uint16_t *x = x_ + (rows_ ? host_rows_[row] : row) * x_stride_;
    uint16_t *w = w_ + group_of(row) * w_group_stride_;
    const mla_tensor bias = tensor(bias_, MLA_BF16, {columns}, {1});
    std::string error;
    require(gemm.gemm(tensor(x, MLA_BF16, {1, case_.depth}, {case_.depth, 1}),
                      tensor(w, MLA_BF16, {weight_rows, case_.depth}, {w_stride_, 1}), bias_ ? &bias : nullptr,
                      tensor(alone, case_.float_out ? MLA_F32 : MLA_BF16, {1, weight_rows}, {weight_rows, 1}), stream,
                      error),
            error);
    if (case_.silu) {
      multiply_gates<<<16, 256, 0, stream>>>(reinterpret_cast<__nv_bfloat16 *>(alone), case_.columns);
      CHECK_CUDA(cudaGetLastError());
    }
    CHECK_CUDA(cudaStreamSynchronize(stream));
    CHECK_CUDA(cudaMemcpy(got.data(), alone, got.size(), cudaMemcpyDeviceToHost));
    CHECK_CUDA(cudaMemcpy(expected.data(), static_cast<uint8_t *>(out_) + row * out_stride_ * bytes, got.size(),
                               cudaMemcpyDeviceToHost));
    differing += got != expected;
  }
  return differing;
}

}  // namespace mla::test
