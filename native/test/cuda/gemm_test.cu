// Tests and times the matrix products on a Hopper GPU.
//
//   gemm_test check [cases [seed]]   random cases against the reference; exit status 1 if one is wrong
//   gemm_test small                  a few small cases, for compute-sanitizer
//   gemm_test bench [experts|dense|all]   the shapes of DeepSeek-V2-Lite and V3: our kernel's times, and cuBLASLt's beside them

#include <cuda_bf16.h>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "gemm_cases.h"
#include "timing.cuh"

namespace mla::test {
namespace {

constexpr double kTolerance = 1e-5;  // NMSE

std::unique_ptr<cuda::Gemm> create_gemm() {
  std::unique_ptr<cuda::Gemm> gemm;
  std::string error;
  if (cuda::Gemm::create(gemm, error) != MLA_OK) {
    std::fprintf(stderr, "%s\n", error.c_str());
    std::exit(1);
  }
  return gemm;
}

cudaStream_t create_stream() {
  cudaStream_t stream;
  CHECK_CUDA(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking));
  return stream;
}

// ---- check ------------------------------------------------------------------------------------------------------------

// Deterministic: by our own kernel, and single rows must not differ from the whole.
bool run_case(cuda::Gemm &gemm, cudaStream_t stream, const GemmCase &shape, uint64_t seed, bool deterministic,
              bool in_graph) {
  gemm.set_deterministic(deterministic);
  GemmCall call(shape, seed);
  run_and_wait(stream, in_graph, [&] {  // the two run into each other
    call.run(gemm, stream);
    call.run(gemm, stream);
  });
  const Difference d = call.compare_with_reference();
  const int differing = deterministic ? call.rows_that_differ_alone(gemm, stream, 3, seed) : 0;
  // NaN is on neither side of a comparison: ask for what must hold.
  const bool right = d.nmse <= kTolerance && d.not_finite == 0 && d.overwritten == 0 && differing == 0;
  if (!right) {
    std::printf("WRONG %s%s seed %llu: NMSE %.3g, %lld not finite, %lld bytes overwritten, %d of 3 rows differ alone\n",
                shape.describe().c_str(), deterministic ? " deterministic" : "",
                static_cast<unsigned long long>(seed), d.nmse,
                static_cast<long long>(d.not_finite), static_cast<long long>(d.overwritten), differing);
    std::fflush(stdout);
  }
  return right;
}

GemmCase random_case(std::mt19937_64 &random) {
  const int rows[] = {0, 1, 2, 7, 8, 31, 32, 33, 63, 64, 65, 100, 127, 128, 129, 200, 257, 500, 1000, 2300};
  const int columns[] = {8, 16, 40, 64, 72, 128, 192, 256, 264, 512, 576, 1024, 2048, 4096};
  const int depths[] = {8, 32, 64, 72, 128, 136, 192, 256, 520, 1024, 1408, 2048};
  auto pick = [&](int count) { return static_cast<int>(random() % count); };
  GemmCase shape;
  shape.product = static_cast<Product>(pick(3));
  shape.padding = pick(2) * 8 * (1 + pick(5));
  do {
    shape.rows = rows[pick(20)];
    shape.columns = columns[pick(14)];
    shape.depth = depths[pick(12)];
  } while (static_cast<int64_t>(shape.rows) * shape.columns * shape.depth > int64_t{1} << 31);
  if (shape.product == Product::kDense) {
    shape.float_out = pick(3) == 0;
    shape.bias = pick(3) == 0;
  } else if (shape.product == Product::kBatched) {
    shape.groups = 1 + pick(20);
    shape.rows = std::min(shape.rows, 300);
    shape.columns = std::min(shape.columns, 576);
    shape.depth = std::min(shape.depth, 520);
    shape.across = pick(2) == 0;
  } else {
    shape.groups = pick(4) == 0 ? 1 + pick(300) : 1 + pick(64);
    shape.columns = std::min(shape.columns, 1024);
    shape.depth = std::min(shape.depth, 1024);
    shape.gather = pick(3) > 0;
    shape.silu = pick(2) > 0;
    shape.rows = 1 + pick(1000);
    const int few = 1 + pick(100);
    for (int e = 0; e < shape.groups; ++e) {
      const int kind = pick(8);
      shape.group_rows.push_back(kind < 2 ? 0 : kind < 7 || shape.groups > 64 ? pick(few) : rows[pick(19)]);
    }
  }
  return shape;
}

GemmCase dense_case(int rows, int columns, int depth, bool float_out) {
  GemmCase shape;
  shape.product = Product::kDense;
  shape.rows = rows;
  shape.columns = columns;
  shape.depth = depth;
  shape.float_out = float_out;
  return shape;
}

// Products for which pairs of blocks are chosen.
std::vector<GemmCase> many_tokens() {
  GemmCase dense = dense_case(3000, 3080, 136, true);
  dense.bias = true;
  GemmCase batched = dense_case(900, 1032, 72, false);
  batched.product = Product::kBatched;
  batched.groups = 8;
  batched.across = true;
  GemmCase experts = dense_case(2000, 1416, 136, false);
  experts.product = Product::kExperts;
  experts.groups = 7;
  experts.group_rows = {900, 257, 0, 1300, 1, 700, 1153};
  GemmCase gathered = experts;
  gathered.gather = gathered.silu = true;
  gathered.padding = 8;
  return {dense, batched, experts, gathered};
}

int check(int cases, uint64_t seed) {
  std::printf("seed %llu\n", static_cast<unsigned long long>(seed));
  auto gemm = create_gemm();
  cudaStream_t stream = create_stream();
  std::mt19937_64 random(seed);
  int wrong = 0;
  for (const GemmCase &shape : many_tokens()) wrong += !run_case(*gemm, stream, shape, seed, true, false);
  for (int i = 0; i < cases && wrong < 20; ++i) {
    wrong += !run_case(*gemm, stream, random_case(random), seed + i, i % 4 != 3, i % 2 == 1);
  }
  std::printf("check: %d cases, %d wrong; cuBLASLt %s\n", cases, wrong, gemm->has_library() ? "took part" : "is not there");
  return wrong > 0 || cases == 0;
}

int small() {
  auto gemm = create_gemm();
  cudaStream_t stream = create_stream();
  GemmCase batched = dense_case(40, 96, 72, false);
  batched.product = Product::kBatched;
  batched.groups = 3;
  batched.across = true;
  GemmCase experts = dense_case(50, 264, 200, false);
  experts.silu = true;
  experts.product = Product::kExperts;
  experts.gather = true;
  experts.padding = 8;
  experts.groups = 5;
  experts.group_rows = {3, 0, 140, 40, 1};
  int wrong = 0;
  for (const GemmCase &shape : {dense_case(5, 72, 136, true), dense_case(130, 320, 264, false), batched, experts}) {
    wrong += !run_case(*gemm, stream, shape, 7, true, false);
  }
  std::printf("small: %d wrong\n", wrong);
  return wrong > 0;
}

// ---- bench ------------------------------------------------------------------------------------------------------------

// Device memory that all rows of the table share.
struct Arena {
  uint16_t *weights, *x, *out;  // BF16; out also as F32
  int64_t weight_count;
};
constexpr int64_t kManyBytes = int64_t{256} << 20;  // what L2 surely does not hold

struct Ceilings {
  double read_gbps, tflops;
};

mla_tensor matrix(const void *data, int32_t dtype, int64_t rows, int64_t columns) {
  mla_tensor t = {};
  t.data = const_cast<void *>(data);
  t.dtype = dtype;
  t.rank = 2;
  t.shape[0] = rows;
  t.shape[1] = columns;
  t.stride[0] = columns;
  t.stride[1] = 1;
  return t;
}

Ceilings measure_ceilings(cuda::Gemm &gemm, cudaStream_t stream, const Arena &arena) {
  Ceilings c = {read_ceiling(stream), 780};
  if (gemm.has_library()) {
    std::string error;
    const mla_tensor x = matrix(arena.x, MLA_BF16, 8192, 8192), w = matrix(arena.weights, MLA_BF16, 8192, 8192);
    const double us = median_graph_time(stream, 10, [&] {
      require_ok(gemm.gemm(x, w, nullptr, matrix(arena.out, MLA_BF16, 8192, 8192), stream, error), error);
    });
    c.tflops = 2.0 * 8192 * 8192 * 8192 / us / 1e6;
  }
  std::printf("ceilings: read %.0f GB/s, BF16 product %.0f TFLOP/s%s\n", c.read_gbps, c.tflops,
              gemm.has_library() ? "" : " (given: no cuBLASLt)");
  return c;
}

// Of a matrix [rows, batch * columns] the batch of matrices [batch, rows, columns].
mla_tensor by_batch(mla_tensor t, int64_t batch) {
  t.rank = 3;
  t.shape[2] = t.shape[1] / batch;
  t.shape[1] = t.shape[0];
  t.shape[0] = batch;
  t.stride[1] = t.stride[0];
  t.stride[0] = t.shape[2];
  t.stride[2] = 1;
  return t;
}

// Of the same, one below the other.
mla_tensor stack(const void *data, int64_t batch, int64_t rows, int64_t columns) {
  mla_tensor t = by_batch(matrix(data, MLA_BF16, rows, batch * columns), batch);
  t.stride[0] = rows * columns;
  t.stride[1] = columns;
  return t;
}

void print_head() {
  std::printf("%-22s %6s %6s %6s %9s %7s %8s %6s %9s %6s\n", "product", "rows", "N", "K", "us", "GB/s", "TFLOP/s", "floor",
              "cuBLASLt", "ratio");
}

void print_row(const char *name, int64_t rows, int64_t columns, int64_t depth, double us, double bytes, double flops,
               const Ceilings &c, double library_us) {
  const double floor_us = std::max(bytes / c.read_gbps / 1e3, flops / c.tflops / 1e6);
  std::printf("%-22s %6lld %6lld %6lld %9.2f %7.0f %8.1f %6.3f %9.2f %6.3f\n", name, static_cast<long long>(rows),
              static_cast<long long>(columns), static_cast<long long>(depth), us, bytes / us / 1e3, flops / us / 1e6,
              floor_us / us, library_us, library_us / us);
  std::fflush(stdout);
}

struct ExpertShape {
  const char *name;
  int experts, top_k, columns, depth;  // N, K
  bool gather, silu;
};

// The library's batched product has the same number of rows for every expert.
void bench_experts(cuda::Gemm &gemm, cudaStream_t stream, const Arena &arena, const Ceilings &c,
                   const ExpertShape &shape, int tokens) {
  const int64_t pairs = static_cast<int64_t>(tokens) * shape.top_k, n = shape.columns, k = shape.depth;
  std::mt19937_64 random(17);
  std::vector<std::vector<int32_t>> chosen(shape.experts);
  for (int t = 0; t < tokens; ++t) {
    for (int j = 0; j < shape.top_k;) {
      auto &rows = chosen[random() % shape.experts];
      if (!rows.empty() && rows.back() == t) continue;
      rows.push_back(t);
      ++j;
    }
  }
  std::vector<int32_t> rows, offsets = {0};
  int touched = 0;
  for (const auto &of : chosen) {
    rows.insert(rows.end(), of.begin(), of.end());
    offsets.push_back(static_cast<int32_t>(rows.size()));
    touched += !of.empty();
  }
  int32_t *device_rows, *device_offsets;
  CHECK_CUDA(cudaMalloc(&device_rows, rows.size() * 4));
  CHECK_CUDA(cudaMalloc(&device_offsets, offsets.size() * 4));
  CHECK_CUDA(cudaMemcpy(device_rows, rows.data(), rows.size() * 4, cudaMemcpyHostToDevice));
  CHECK_CUDA(cudaMemcpy(device_offsets, offsets.data(), offsets.size() * 4, cudaMemcpyHostToDevice));
  mla_tensor gather = matrix(device_rows, MLA_I32, pairs, 1), bounds = matrix(device_offsets, MLA_I32, 1, 1);
  bounds.shape[0] = shape.experts + 1;
  const int copies = static_cast<int>(std::max<int64_t>(1, std::min<int64_t>(8, arena.weight_count / (shape.experts * n * k))));
  std::vector<std::vector<mla_tensor>> weights(copies);
  for (int i = 0; i < copies; ++i) {
    for (int e = 0; e < shape.experts; ++e) {
      weights[i].push_back(matrix(arena.weights + (i * shape.experts + e) * n * k, MLA_BF16, n, k));
    }
  }
  const mla_tensor x = matrix(arena.x, MLA_BF16, shape.gather ? tokens : pairs, k);
  const int64_t out_columns = shape.silu ? n / 2 : n;
  const mla_tensor out = matrix(arena.out, MLA_BF16, pairs, out_columns);
  const double us = median_graph_time(stream, 5, [&] {
    for (const auto &w : weights) {
      std::string error;
      require_ok(gemm.moe_gemm(x, shape.gather ? &gather : nullptr, bounds, w.data(), shape.experts,
                         shape.silu ? MLA_SILU_MUL : MLA_IDENTITY, out, stream, error), error);
    }
  }) / copies;
  const int64_t even = pairs / shape.experts;
  double library_us = NAN;
  if (gemm.has_library() && even > 0) {
    gemm.set_deterministic(false);
    library_us = median_graph_time(stream, 5, [&] {
      for (const auto &w : weights) {
        std::string error;
        require_ok(gemm.batched_gemm(stack(arena.x, shape.experts, even, k), stack(w[0].data, shape.experts, n, k),
                               stack(arena.out, shape.experts, even, n), stream, error), error);
      }
    }) / copies;
  }
  const double bytes = 2.0 * (static_cast<double>(touched) * n * k + (shape.gather ? tokens : pairs) * k + pairs * out_columns);
  print_row(shape.name, tokens, n, k, us, bytes, 2.0 * pairs * n * k, c, library_us);
  CHECK_CUDA(cudaFree(device_rows));
  CHECK_CUDA(cudaFree(device_offsets));
}

struct DenseShape {
  const char *name;
  int batch, columns, depth;
  bool across, float_out;
};

void bench_dense(cuda::Gemm &gemm, cudaStream_t stream, const Arena &arena, const Ceilings &c, const DenseShape &shape,
                 int64_t rows) {
  const int64_t batch = shape.batch, n = shape.columns, k = shape.depth;
  const int64_t weight = batch * n * k;
  const int copies = static_cast<int>(std::min<int64_t>(40, kManyBytes / 2 / weight + 1));
  // Of a batch, x and out lie by rows, each row with all matrices of the batch, as the heads of an attention do.
  auto run = [&](int i) {
    std::string error;
    const mla_tensor x = matrix(arena.x, MLA_BF16, rows, batch * k);
    const mla_tensor out = matrix(arena.out, shape.float_out ? MLA_F32 : MLA_BF16, rows, batch * n);
    uint16_t *weights = arena.weights + i * weight;
    if (batch == 1) {
      require_ok(gemm.gemm(x, matrix(weights, MLA_BF16, n, k), nullptr, out, stream, error), error);
      return;
    }
    mla_tensor w = stack(weights, batch, n, k);
    w.stride[1] = shape.across ? 1 : k;
    w.stride[2] = shape.across ? n : 1;
    require_ok(gemm.batched_gemm(by_batch(x, batch), w, by_batch(out, batch), stream, error), error);
  };
  auto time = [&](bool deterministic) {
    gemm.set_deterministic(deterministic);
    return median_graph_time(stream, 9, [&] {
      for (int i = 0; i < copies; ++i) run(i);
    }) / copies;
  };
  const double us = time(true), library_us = gemm.has_library() ? time(false) : NAN;
  const double bytes = 2.0 * batch * (n * k + rows * k + rows * n * (shape.float_out ? 2 : 1));
  print_row(shape.name, rows, n, k, us, bytes, 2.0 * batch * rows * n * k, c, library_us);
}

int bench(const std::string &which) {
  auto gemm = create_gemm();
  cudaStream_t stream = create_stream();
  Arena arena;
  arena.weight_count = int64_t{8} << 30;  // 16 GiB
  const int64_t x_count = int64_t{1} << 30, out_bytes = int64_t{4} << 30;
  CHECK_CUDA(cudaMalloc(&arena.weights, arena.weight_count * 2));
  CHECK_CUDA(cudaMalloc(&arena.x, x_count * 2));
  CHECK_CUDA(cudaMalloc(&arena.out, out_bytes));
  fill_random(arena.weights, arena.weight_count, 0.05f, 1);
  fill_random(arena.x, x_count, 1.0f, 2);
  CHECK_CUDA(cudaDeviceSynchronize());
  const Ceilings c = measure_ceilings(*gemm, stream, arena);
  print_head();
  if (which != "dense") {
    const ExpertShape lite[] = {{"V2-Lite gate x up", 64, 6, 2816, 2048, true, true},
                                {"V2-Lite down", 64, 6, 2048, 1408, false, false}};
    for (int tokens : {1, 16, 64, 256, 512, 1024, 2048, 8192, 16384}) {
      for (const ExpertShape &shape : lite) bench_experts(*gemm, stream, arena, c, shape, tokens);
    }
    const ExpertShape v3[] = {{"V3 gate x up", 256, 8, 4096, 7168, true, true},
                              {"V3 down", 256, 8, 7168, 2048, false, false}};
    for (int tokens : {1, 64, 1024, 8192}) {
      for (const ExpertShape &shape : v3) bench_experts(*gemm, stream, arena, c, shape, tokens);
    }
  }
  if (which != "experts") {
    const DenseShape shapes[] = {{"q", 1, 3072, 2048, false, false},
                                 {"kv_a", 1, 576, 2048, false, false},
                                 {"o", 1, 2048, 2048, false, false},
                                 {"shared gate and up", 1, 5632, 2048, false, false},
                                 {"shared down", 1, 2048, 2816, false, false},
                                 {"absorb keys (16)", 16, 512, 128, true, false},
                                 {"absorb values (16)", 16, 128, 512, false, false},
                                 {"router F32", 1, 64, 2048, false, true},
                                 {"LM head F32", 1, 102400, 2048, false, true}};
    for (int64_t rows : {1, 64, 256, 512, 1024, 4096, 8192}) {
      for (const DenseShape &shape : shapes) {
        if (shape.columns < 100000 || rows <= 1024) bench_dense(*gemm, stream, arena, c, shape, rows);
      }
    }
  }
  return 0;
}

}  // namespace
}  // namespace mla::test

int main(int argc, char **argv) {
  const std::string mode = argc > 1 ? argv[1] : "";
  if (mode == "check") {
    return mla::test::check(argc > 2 ? std::atoi(argv[2]) : 300, argc > 3 ? std::strtoull(argv[3], nullptr, 10) : 1);
  }
  if (mode == "small") return mla::test::small();
  if (mode == "bench") return mla::test::bench(argc > 2 ? argv[2] : "all");
  std::fprintf(stderr, "usage: gemm_test check [cases [seed]] | small | bench [experts|dense|all]\n");
  return 2;
}
