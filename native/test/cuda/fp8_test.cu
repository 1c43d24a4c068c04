// Tests and times the FP8 cache (append_fp8, decode_fp8) on a Hopper GPU.
//
//   fp8_test check [cases [seed]]   random cases against the reference over the dequantised cache, and the quantisation;
//                                   with either plan; exit status 1 if one is wrong
//   fp8_test invariance [cases [seed]]   deterministic plan: sequences alone and among 255 others, bit for bit
//   fp8_test small                  a few small cases, for compute-sanitizer
//   fp8_test bench                  the baseline's long rows of few heads, and some others; `fixed` is the time with the
//                                   deterministic plan over the time without

#include <cuda_fp8.h>

#include "decode_fp8.h"
#include "support.cuh"

namespace mla::test {

std::vector<int> baseline_lengths(int batch, int s_q, int mean);  // decode_cases.cu

namespace {

constexpr int kTokenBytes = cuda::kFp8TokenBytes;

struct Fp8Case {
  int batch, s_q, heads;
  std::vector<int> lengths;
  bool deterministic = false;
};

// Latents like the queries, but each token of a magnitude of its own, and now and then a group of zeros.
__global__ void fill_latents(__nv_bfloat16 *latent, int64_t tokens, uint64_t seed) {
  for (int64_t i = blockIdx.x * static_cast<int64_t>(blockDim.x) + threadIdx.x; i < tokens * kLatent;
       i += static_cast<int64_t>(gridDim.x) * blockDim.x) {
    const uint64_t group = mix(seed + i / 128);
    const float magnitude = group % 64 == 0 ? 0.0f : 0.5f + (group >> 8) % 256 / 256.0f;
    latent[i] = __float2bfloat16(__bfloat162float(random_value(seed, i)) * magnitude);
  }
}

constexpr int kMostExponent = 9;
__host__ __device__ inline int row_exponent(uint64_t seed, uint64_t row) {
  const int exponents[] = {-40, -9, 0, 0, 3, 6, kMostExponent, kMostExponent};
  return exponents[mix(seed + row) % 8];
}

// Multiplies each row of the queries by a power of two from 2^-40 to 2^9 and every ninth value of it by 2^-9: decode_fp8 turns them
// into F16. A block a row.
__global__ void vary_rows(__nv_bfloat16 *q, uint64_t seed) {
  __nv_bfloat16 *row = q + blockIdx.x * int64_t{kDim};
  const int exponent = row_exponent(seed, blockIdx.x);
  for (int d = threadIdx.x; d < kDim; d += blockDim.x) {
    row[d] = __float2bfloat16(ldexpf(__bfloat162float(row[d]), exponent - (d % 9 == 0 ? 9 : 0)));
  }
}

__device__ float value_of(const uint8_t *token, int d) {
  if (d >= kLatent) return __bfloat162float(reinterpret_cast<const __nv_bfloat16 *>(token + kLatent + 16)[d - kLatent]);
  __nv_fp8_e4m3 value;
  value.__x = token[d];
  return static_cast<float>(value) * reinterpret_cast<const float *>(token + kLatent)[d / 128];
}

__global__ void dequantise(const uint8_t *cache, float *out, int64_t tokens) {
  for (int64_t token = blockIdx.x; token < tokens; token += gridDim.x) {
    for (int d = threadIdx.x; d < kDim; d += blockDim.x) out[token * kDim + d] = value_of(cache + token * kTokenBytes, d);
  }
}

// Counts scales that are not max / 448 and values farther from the original than rounding explains. A block a token.
__global__ void check_quantisation(const uint8_t *cache, const int64_t *slots, const __nv_bfloat16 *latent,
                                   const __nv_bfloat16 *rope, unsigned long long *bad) {
  const uint8_t *token = cache + slots[blockIdx.x] * kTokenBytes;
  for (int d = threadIdx.x; d < kDim; d += blockDim.x) {
    if (d >= kLatent) {
      if (value_of(token, d) != __bfloat162float(rope[blockIdx.x * int64_t{kDim - kLatent} + d - kLatent])) atomicAdd(bad, 1);
      continue;
    }
    const __nv_bfloat16 *group = latent + blockIdx.x * int64_t{kLatent} + d / 128 * 128;
    float top = 0.0f;
    for (int i = 0; i < 128; ++i) top = fmaxf(top, fabsf(__bfloat162float(group[i])));
    const float scale = reinterpret_cast<const float *>(token + kLatent)[d / 128];
    const float x = __bfloat162float(group[d % 128]);
    const float step = fmaxf(fabsf(x) / 16, scale / 1024) * 1.001f;  // half of the distance of e4m3 values
    if (scale != top / 448.0f || !(fabsf(value_of(token, d) - x) <= step)) atomicAdd(bad, 1);
  }
}

// The device memory of one call; unused tokens are NaN in all their parts, block table entries past a sequence's end wild.
class Fp8Call {
 public:
  Fp8Call(const Fp8Case &shape, uint64_t seed) : Fp8Call(shape, seed, Paging(shape.lengths, seed)) {}

  void plan(cudaStream_t stream) {
    CHECK_CUDA(cuda::launch_plan(layout_, data_of<int32_t>(args_.seq_lens), data_of<int32_t>(args_.tiles),
                                 data_of<int32_t>(args_.splits), stream));
  }
  void append(cudaStream_t stream) {
    std::string error;
    require_ok(cuda::append_fp8(latent_, rope_, slots_, args_.cache, stream, error), error);
  }
  void vary_queries(uint64_t seed) {
    varied_seed_ = seed;
    if (rows_ > 0) vary_rows<<<static_cast<unsigned>(rows_), 192>>>(data_of<__nv_bfloat16>(args_.q), seed);
    CHECK_CUDA(cudaGetLastError());
  }
  void decode(cudaStream_t stream) {
    std::string error;
    require_ok(cuda::decode_fp8(args_, multiprocessors(), stream, error), error);
  }

  int64_t badly_quantised() {
    auto *bad = memory_.upload(std::vector<unsigned long long>{0});
    const int tokens = static_cast<int>(latent_.shape[0]);
    if (tokens > 0) {
      check_quantisation<<<tokens, 192>>>(data_of<uint8_t>(args_.cache), data_of<int64_t>(slots_),
                                          data_of<__nv_bfloat16>(latent_), data_of<__nv_bfloat16>(rope_), bad);
    }
    CHECK_CUDA(cudaGetLastError());
    unsigned long long count;
    CHECK_CUDA(cudaMemcpy(&count, bad, sizeof(count), cudaMemcpyDeviceToHost));
    return static_cast<int64_t>(count);
  }
  Difference compare() {
    const int64_t tokens = args_.cache.shape[0] * kBlock;
    DeviceMemory memory;
    auto *cache = memory.allocate<float>(tokens * kDim);
    dequantise<<<2048, 192>>>(data_of<uint8_t>(args_.cache), cache, tokens);
    CHECK_CUDA(cudaGetLastError());
    std::vector<ReferenceRow> rows;
    for (int b = 0; b < case_.batch; ++b) {
      for (int row = 0; row < case_.s_q * case_.heads; ++row) {
        const int query = row / case_.heads, head = row % case_.heads;
        rows.push_back({b, std::max(0, case_.lengths[b] - case_.s_q + query + 1),
                        (int64_t{b} * case_.heads + head) * case_.s_q + query});
      }
    }
    // The terms of an S of the most enlarged rows add up to some 80 in magnitude, whatever is left of them: two units in float32's
    // last place there. (Plain float32 sums, rounded to nearest, are up to 6e-6 off, too; for rows up to 2^6 at most 7e-7.)
    std::vector<double> lse_bounds(rows.size(), kLseAbsolute);
    for (size_t i = 0; varied_seed_ != 0 && i < rows.size(); ++i) {
      if (row_exponent(varied_seed_, i) == kMostExponent) lse_bounds[rows[i].lse] = 1.6e-5;
    }
    return compare_with_reference(rows, args_.q, cache, args_.block_table, args_.softmax_scale, args_.out,
                                  data_of<float>(args_.lse), lse_bounds);
  }
  bool sentinels_intact() const { return out_.intact() && lse_.intact(); }
  // Decodes sequence b once more, alone; the number of bytes of its out and lse that differ from what the call gave.
  int64_t bytes_differing_alone(int b, cudaStream_t stream) {
    DeviceMemory memory;
    mla_decode_args alone = args_;
    alone.plan.batch = 1;
    for (mla_tensor *t : {&alone.q, &alone.block_table, &alone.seq_lens, &alone.out, &alone.lse}) {
      const int64_t element = t == &alone.q || t == &alone.out ? 2 : 4;
      t->data = static_cast<char *>(t->data) + b * t->stride[0] * element;
      t->shape[0] = 1;
    }
    const mla_tensor out = alone.out, lse = alone.lse;
    const int64_t rows = case_.s_q * case_.heads;
    alone.out.data = memory.allocate<uint16_t>(rows * kLatent);
    alone.lse.data = memory.allocate<float>(rows);
    const cuda::DecodeShape layout = allocate_plan(memory, alone);
    CHECK_CUDA(cudaDeviceSynchronize());  // the memset of the workspace
    CHECK_CUDA(cuda::launch_plan(layout, data_of<int32_t>(alone.seq_lens), data_of<int32_t>(alone.tiles),
                                 data_of<int32_t>(alone.splits), stream));
    std::string error;
    require_ok(cuda::decode_fp8(alone, multiprocessors(), stream, error), error);
    CHECK_CUDA(cudaStreamSynchronize(stream));
    auto differing = [](const mla_tensor &a, const mla_tensor &b, int64_t bytes) {
      std::vector<uint8_t> ours(bytes), theirs(bytes);
      CHECK_CUDA(cudaMemcpy(ours.data(), a.data, bytes, cudaMemcpyDeviceToHost));
      CHECK_CUDA(cudaMemcpy(theirs.data(), b.data, bytes, cudaMemcpyDeviceToHost));
      return bytes - std::inner_product(ours.begin(), ours.end(), theirs.begin(), int64_t{0}, std::plus<>(),
                                        std::equal_to<>());
    };
    return differing(alone.out, out, rows * kLatent * 2) + differing(alone.lse, lse, rows * 4);
  }

 private:
  // Tiles, splits and workspace for the arguments' plan.
  static cuda::DecodeShape allocate_plan(DeviceMemory &memory, mla_decode_args &args) {
    const cuda::DecodeShape layout = cuda::decode_fp8_shape(args.plan, multiprocessors());
    const int64_t workspace = cuda::workspace_floats(layout);
    args.tiles = tensor(memory.allocate<int32_t>(layout.plan_rows() * 8), MLA_I32, {layout.plan_rows(), 8});
    args.splits = tensor(memory.allocate<int32_t>(layout.batch + 1), MLA_I32, {layout.batch + 1});
    args.workspace = tensor(memory.allocate<float>(workspace), MLA_F32, {workspace});
    CHECK_CUDA(cudaMemset(args.workspace.data, 0xFF, workspace * sizeof(float)));
    return layout;
  }
  Fp8Call(const Fp8Case &shape, uint64_t seed, const Paging &paging)
      : case_(shape), rows_(int64_t{shape.batch} * shape.s_q * shape.heads),
        out_(memory_, rows_ * kLatent, kOutSentinel, 0x7FFF), lse_(memory_, rows_, kLseSentinel, 0x7FFFFFFFu) {
    std::vector<int64_t> slots;
    for (int b = 0; b < shape.batch; ++b) {
      for (int token = 0; token < shape.lengths[b]; ++token) {
        slots.push_back(int64_t{paging.table[b * paging.max_blocks + token / kBlock]} * kBlock + token % kBlock);
      }
    }
    const int64_t batch = shape.batch, tokens = slots.size(), cache_bytes = int64_t{paging.cache_blocks} * kBlock * kTokenBytes;
    slots_ = tensor(memory_.upload(slots), MLA_I64, {tokens});
    latent_ = tensor(memory_.allocate<__nv_bfloat16>(tokens * kLatent), MLA_BF16, {tokens, kLatent});
    rope_ = tensor(memory_.allocate<__nv_bfloat16>(tokens * (kDim - kLatent)), MLA_BF16, {tokens, kDim - kLatent});
    auto *q = memory_.allocate<__nv_bfloat16>(rows_ * kDim);
    fill_latents<<<512, 256>>>(data_of<__nv_bfloat16>(latent_), tokens, seed + 1);
    fill_random<<<512, 256>>>(data_of<__nv_bfloat16>(rope_), tokens * (kDim - kLatent), seed + 2);
    fill_random<<<512, 256>>>(q, rows_ * kDim, seed);
    CHECK_CUDA(cudaGetLastError());

    auto *cache = memory_.allocate<uint8_t>(cache_bytes);
    CHECK_CUDA(cudaMemset(cache, 0xFF, cache_bytes));
    const int longest = *std::max_element(shape.lengths.begin(), shape.lengths.end());
    args_.plan = {shape.batch, shape.s_q, shape.heads, longest, shape.deterministic ? MLA_PLAN_DETERMINISTIC : 0};
    args_.softmax_scale = 1.0f / std::sqrt(static_cast<float>(kDim));
    layout_ = allocate_plan(memory_, args_);
    args_.q = tensor(q, MLA_BF16, {batch, shape.s_q, shape.heads, kDim});
    args_.cache = tensor(cache, MLA_F8_E4M3, {paging.cache_blocks, kBlock, kTokenBytes});
    args_.block_table = tensor(memory_.upload(paging.table), MLA_I32, {batch, paging.max_blocks});
    args_.seq_lens = tensor(memory_.upload(shape.lengths), MLA_I32, {batch});
    args_.out = tensor(out_.data(), MLA_BF16, {batch, shape.s_q, shape.heads, kLatent});
    args_.lse = tensor(reinterpret_cast<float *>(lse_.data()), MLA_F32, {batch, shape.heads, shape.s_q});
  }

  Fp8Case case_;
  int64_t rows_;
  uint64_t varied_seed_ = 0;  // of the rows' magnitudes, if they have some of their own
  DeviceMemory memory_;
  GuardedOutput<uint16_t> out_;
  GuardedOutput<uint32_t> lse_;
  cuda::DecodeShape layout_;
  mla_decode_args args_ = {};
  mla_tensor latent_, rope_, slots_;
};

bool run_case(const Fp8Case &shape, uint64_t seed, bool in_graph, cudaStream_t stream) {
  Fp8Call call(shape, seed);
  if (seed % 3 != 0) call.vary_queries(seed);
  run_and_wait(stream, in_graph, [&] {
    call.append(stream);
    call.plan(stream);
    call.decode(stream);
    call.decode(stream);
  });
  const int64_t badly_quantised = call.badly_quantised();
  const Difference d = call.compare();
  const bool intact = call.sentinels_intact();
  if (d.right() && intact && badly_quantised == 0) return true;
  std::printf("WRONG batch %d s_q %d heads %d%s seed %llu: out %lld outside (worst %.3g, cosine %.3g), lse %lld (worst %.3g), "
              "sentinels %s, badly quantised %lld; lengths",
              shape.batch, shape.s_q, shape.heads, shape.deterministic ? " deterministic" : "",
              static_cast<unsigned long long>(seed), static_cast<long long>(d.bad_out), d.worst_out, d.cosine, static_cast<long long>(d.bad_lse), d.worst_lse, intact ? "intact" : "OVERWRITTEN",
              static_cast<long long>(badly_quantised));
  for (int i = 0; i < std::min(shape.batch, 12); ++i) std::printf(" %d", shape.lengths[i]);
  std::printf("\n");
  return false;
}

Fp8Case random_case(std::mt19937_64 &random) {
  const int heads[] = {128, 64, 40, 32, 20, 16, 16, 5, 1};
  const int edges[] = {0, 1, 2, 31, 32, 33, 63, 64, 65, 127, 128, 129, 191, 192, 193, 255, 257, 511, 512, 513};
  const int long_lengths[] = {1024, 2047, 4096, 8191, 16385, 32768};
  auto pick = [&](int count) { return static_cast<int>(random() % count); };
  Fp8Case shape;
  shape.deterministic = pick(2) == 0;
  shape.heads = heads[pick(9)];
  shape.s_q = 1 + pick(4) * pick(2);
  const int kind = pick(10);
  shape.batch = kind == 0 ? 1 : kind < 8 ? 1 + pick(12) : 1 + pick(300);
  for (int b = 0; b < shape.batch; ++b) {
    int length = pick(8) < 5 ? edges[pick(20)] : pick(shape.batch > 12 ? 400 : 3000);
    if (b == 0 && shape.batch <= 12 && pick(6) == 0) length = long_lengths[pick(6)];
    shape.lengths.push_back(length);
  }
  return shape;
}

int check(int cases, uint64_t seed, cudaStream_t stream) {
  std::printf("seed %llu\n", static_cast<unsigned long long>(seed));
  std::mt19937_64 random(seed);
  int wrong = 0;
  for (int i = 0; i < cases && wrong < 20; ++i) wrong += !run_case(random_case(random), seed + i, i % 2 == 1, stream);
  std::printf("check: %d cases, %d wrong\n", cases, wrong);
  return wrong > 0 || cases == 0;
}

// The deterministic plan: sequences among 255 others and alone, bit for bit.
int invariance(int cases, uint64_t seed, cudaStream_t stream) {
  std::printf("seed %llu\n", static_cast<unsigned long long>(seed));
  constexpr int kBatch = 256, kAlone = 24;
  std::mt19937_64 random(seed);
  int wrong = 0, compared = 0;
  for (int i = 0; i < cases; ++i) {
    Fp8Case shape = random_case(random);
    shape.deterministic = true;
    shape.batch = kBatch;
    shape.lengths.resize(kBatch);
    for (int b = 0; b < kBatch; ++b) {
      if (shape.lengths[b] == 0) shape.lengths[b] = static_cast<int>(random() % (b % 16 == 0 ? 4500 : 1500));
    }
    Fp8Call call(shape, seed + i);
    run_and_wait(stream, i % 2 == 1, [&] {
      call.append(stream);
      call.plan(stream);
      call.decode(stream);
    });
    for (int k = 0; k < kAlone; ++k, ++compared) {
      const int b = k < 8 ? k * 16 : static_cast<int>(random() % kBatch);
      const int64_t bytes = call.bytes_differing_alone(b, stream);
      if (bytes == 0) continue;
      ++wrong;
      std::printf("DIFFERS case %d s_q %d heads %d sequence %d length %d: %lld bytes\n", i, shape.s_q, shape.heads, b,
                  shape.lengths[b], static_cast<long long>(bytes));
    }
  }
  std::printf("invariance: %d sequences alone and among %d others, %d differ\n", compared, kBatch - 1, wrong);
  return wrong > 0 || compared == 0;
}

int small(cudaStream_t stream) {
  const Fp8Case cases[] = {{1, 1, 16, {70}}, {2, 1, 128, {130, 0}}, {2, 2, 32, {65, 200}}, {3, 4, 5, {3, 1, 64}}, {1, 1, 20, {700}},
                           {2, 1, 16, {700, 0}, true}};
  int wrong = 0;
  for (const Fp8Case &shape : cases) wrong += !run_case(shape, 7, false, stream);
  std::printf("small: %d wrong\n", wrong);
  return wrong > 0;
}

struct BaselineRow {
  int batch, s_q, mean, heads;
  double microseconds;  // FlashMLA's dense BF16 decode on one H100 80GB HBM3
};
const BaselineRow kBaseline[] = {
    {128, 1, 4096, 32, 234.66}, {128, 1, 8192, 32, 444.43},  {64, 1, 16384, 32, 417.89},  {32, 1, 32768, 32, 406.55},
    {128, 1, 4096, 16, 217.73}, {128, 1, 8192, 16, 419.03},  {64, 1, 16384, 16, 407.66},  {32, 1, 32768, 16, 401.16},
    {128, 2, 4096, 16, 233.15}, {32, 2, 32768, 16, 407.55},  {256, 1, 512, 16, 69.38},    {256, 1, 1024, 16, 121.26},
    {512, 1, 256, 16, 79.02},   {8, 1, 8192, 16, 37.68},     {1, 1, 32768, 16, 43.07},    {1, 1, 1024, 16, 10.91},
    {128, 1, 8192, 64, 464.72}, {128, 1, 8192, 128, 528.56},
};

int bench(cudaStream_t stream) {
  constexpr int kCalls = 10;
  std::printf("%5s %3s %6s %5s %9s %12s %7s %9s %6s %6s\n", "batch", "s_q", "mean", "heads", "us", "Gtokens/s", "GB/s",
              "FlashMLA", "ratio", "fixed");
  for (const BaselineRow &row : kBaseline) {
    Fp8Case shape = {row.batch, row.s_q, row.heads, baseline_lengths(row.batch, row.s_q, row.mean)};
    const double tokens = std::accumulate(shape.lengths.begin(), shape.lengths.end(), 0.0);
    auto time = [&](bool deterministic) {
      shape.deterministic = deterministic;
      Fp8Call call(shape, 11);
      call.append(stream);
      call.plan(stream);
      return median_graph_time(stream, 20, [&] {
        for (int i = 0; i < kCalls; ++i) call.decode(stream);
      }) / kCalls;
    };
    const double us = time(false), fixed = time(true) / us;
    const double bytes = 2.0 * row.batch * row.s_q * row.heads * (kDim + kLatent) + tokens * kTokenBytes;
    std::printf("%5d %3d %6d %5d %9.2f %12.3f %7.0f %9.2f %6.3f %6.3f\n", row.batch, row.s_q, row.mean, row.heads, us,
                tokens / us / 1e3, bytes / us / 1e3, row.microseconds, row.microseconds / us, fixed);
    std::fflush(stdout);
  }
  return 0;
}

}  // namespace
}  // namespace mla::test

int main(int argc, char **argv) {
  auto number = [&](int index, double otherwise) { return argc > index ? std::atof(argv[index]) : otherwise; };
  const std::string mode = argc > 1 ? argv[1] : "";
  cudaStream_t stream;
  CHECK_CUDA(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking));
  if (mode == "check") {
    return mla::test::check(static_cast<int>(number(2, 500)), static_cast<uint64_t>(number(3, 1)), stream);
  }
  if (mode == "invariance") {
    return mla::test::invariance(static_cast<int>(number(2, 10)), static_cast<uint64_t>(number(3, 1)), stream);
  }
  if (mode == "small") return mla::test::small(stream);
  if (mode == "bench") return mla::test::bench(stream);
  std::fprintf(stderr, "usage: fp8_test check|invariance [cases [seed]] | small | bench\n");
  return 2;
}
