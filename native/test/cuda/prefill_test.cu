// Tests and times mla_prefill on a Hopper GPU.
//
//   prefill_test check [cases [seed]]      random cases against the reference; exit status 1 if one is wrong
//   prefill_test invariance [cases [seed]] a prompt at once and in chunks among others: equal, bit for bit
//   prefill_test small                     a few small cases, for compute-sanitizer
//   prefill_test bench [matmul TFLOP/s]    the ceiling of a BF16 product, measured elsewhere in the same session

#include "prefill.h"
#include "support.cuh"

namespace mla::test {
namespace {

// Queries of one sequence in the call, and the keys before them.
struct Chunk {
  int queries, prefix;
  int length() const { return queries + prefix; }
};

struct PrefillCase {
  int heads;
  std::vector<Chunk> chunks;
};

std::vector<int> lengths_of(const PrefillCase &shape) {
  std::vector<int> lengths;
  for (const Chunk &chunk : shape.chunks) lengths.push_back(chunk.length());
  return lengths;
}

// The device memory of one call; unused keys are NaN, block table entries past a sequence's end wild.
class PrefillCall {
 public:
  PrefillCall(const PrefillCase &shape, uint64_t seed)
      : PrefillCall(shape, seed, Paging(lengths_of(shape), seed)) {}

  void run(cudaStream_t stream) { run(args_, stream); }
  Difference compare() const {
    std::vector<ReferenceRow> rows;
    for (size_t b = 0; b < case_.chunks.size(); ++b) {
      for (int row = 0; row < case_.chunks[b].queries * case_.heads; ++row) {
        rows.push_back({static_cast<int32_t>(b), case_.chunks[b].prefix + row / case_.heads + 1,
                        static_cast<int64_t>(rows.size())});
      }
    }
    return compare_with_reference(rows, args_.q, data_of<__nv_bfloat16>(args_.cache), args_.block_table,
                                  args_.softmax_scale, args_.out, nullptr);
  }
  bool sentinels_intact() const { return out_.intact(); }

  // Computes the queries of sequence b once more, `chunk` at a time and alone; how many 32-bit words of out differ.
  int64_t words_differing_in_chunks(int b, int chunk, cudaStream_t stream) {
    const int64_t row_words = int64_t{case_.heads} * kLatent / 2;
    const Chunk whole = case_.chunks[b];
    int64_t first = 0, differing = 0;
    for (int i = 0; i < b; ++i) first += case_.chunks[i].queries;
    for (int done = 0; done < whole.queries; done += chunk) {
      const int queries = std::min(chunk, whole.queries - done);
      DeviceMemory memory;
      mla_prefill_args args = args_;
      args.q = tensor(data_of<__nv_bfloat16>(args_.q) + (first + done) * case_.heads * kDim, MLA_BF16,
                      {queries, case_.heads, kDim});
      args.query_start = tensor(memory.upload(std::vector<int32_t>{0, queries}), MLA_I32, {2});
      args.seq_lens = tensor(memory.upload(std::vector<int32_t>{whole.prefix + done + queries}), MLA_I32, {1});
      args.block_table = args_.block_table;
      args.block_table.data = data_of<int32_t>(args_.block_table) + b * args_.block_table.stride[0];
      args.block_table.shape[0] = 1;
      args.out = tensor(memory.allocate<uint16_t>(queries * row_words * 2), MLA_BF16, {queries, case_.heads, kLatent});
      run(args, stream);
      std::vector<uint32_t> ours(queries * row_words), theirs(queries * row_words);
      CHECK_CUDA(cudaStreamSynchronize(stream));
      CHECK_CUDA(cudaMemcpy(ours.data(), args.out.data, ours.size() * 4, cudaMemcpyDeviceToHost));
      CHECK_CUDA(cudaMemcpy(theirs.data(), data_of<uint32_t>(args_.out) + (first + done) * row_words, ours.size() * 4,
                            cudaMemcpyDeviceToHost));
      for (size_t i = 0; i < ours.size(); ++i) differing += ours[i] != theirs[i];
    }
    return differing;
  }

 private:
  PrefillCall(const PrefillCase &shape, uint64_t seed, const Paging &paging)
      : case_(shape), starts_(starts_of(shape)),
        out_(memory_, int64_t{starts_.back()} * shape.heads * kLatent, kOutSentinel, 0x7FFF) {
    const int64_t tokens = starts_.back(), batch = shape.chunks.size();
    auto *q = memory_.allocate<__nv_bfloat16>(tokens * shape.heads * kDim);
    fill_random<<<512, 256>>>(q, tokens * shape.heads * kDim, seed);
    auto *cache = memory_.allocate<__nv_bfloat16>(int64_t{paging.cache_blocks} * kBlock * kDim);
    fill_cache_blocks<<<paging.cache_blocks, 256>>>(cache, memory_.upload(paging.used), seed + 1);
    CHECK_CUDA(cudaGetLastError());
    args_.q = tensor(q, MLA_BF16, {tokens, shape.heads, kDim});
    args_.query_start = tensor(memory_.upload(starts_), MLA_I32, {batch + 1});
    args_.cache = tensor(cache, MLA_BF16, {paging.cache_blocks, kBlock, kDim});
    args_.block_table = tensor(memory_.upload(paging.table), MLA_I32, {batch, paging.max_blocks});
    args_.seq_lens = tensor(memory_.upload(lengths_of(shape)), MLA_I32, {batch});
    args_.out = tensor(out_.data(), MLA_BF16, {tokens, shape.heads, kLatent});
    args_.softmax_scale = 1.0f / std::sqrt(static_cast<float>(kDim));
    const int64_t bytes = cuda::prefill_workspace_bytes(tokens, shape.heads, batch);
    workspace_ = memory_.allocate<uint8_t>(bytes);
    CHECK_CUDA(cudaMemset(workspace_, 0xFF, bytes));
  }
  static std::vector<int32_t> starts_of(const PrefillCase &shape) {
    std::vector<int32_t> starts = {0};
    for (const Chunk &chunk : shape.chunks) starts.push_back(starts.back() + chunk.queries);
    return starts;
  }
  void run(const mla_prefill_args &args, cudaStream_t stream) {
    std::string error;
    require_ok(cuda::prefill(args, workspace_, multiprocessors(), stream, error), error);
  }

  PrefillCase case_;
  std::vector<int32_t> starts_;
  DeviceMemory memory_;
  GuardedOutput<uint16_t> out_;
  mla_prefill_args args_ = {};
  uint8_t *workspace_ = nullptr;
};

// Two calls, which run into each other.
bool run_case(const PrefillCase &shape, uint64_t seed, bool in_graph, cudaStream_t stream) {
  PrefillCall call(shape, seed);
  run_and_wait(stream, in_graph, [&] {
    call.run(stream);
    call.run(stream);
  });
  Difference d = call.compare();
  bool intact = call.sentinels_intact();
  if (d.right() && intact) return true;
  std::printf("WRONG heads %d seed %llu: %lld outside (worst %.3g, cosine %.3g), sentinels %s; queries+prefix",
              shape.heads, static_cast<unsigned long long>(seed), static_cast<long long>(d.bad_out), d.worst_out, d.cosine,
              intact ? "intact" : "OVERWRITTEN");
  for (size_t i = 0; i < std::min<size_t>(shape.chunks.size(), 12); ++i) {
    std::printf(" %d+%d", shape.chunks[i].queries, shape.chunks[i].prefix);
  }
  std::printf("\n");
  return false;
}

PrefillCase random_case(std::mt19937_64 &random) {
  const int heads[] = {128, 64, 40, 32, 20, 16, 5, 1};
  const int edges[] = {0, 1, 2, 3, 31, 32, 33, 63, 64, 65, 127, 128, 129, 255, 257, 511};
  auto pick = [&](int count) { return static_cast<int>(random() % count); };
  PrefillCase shape;
  shape.heads = heads[pick(8)];
  const int kind = pick(10);
  const int batch = kind < 3 ? 1 : kind < 9 ? 1 + pick(8) : 1 + pick(200);
  int64_t budget = 30'000'000;  // rows x keys, for the reference
  for (int b = 0; b < batch; ++b) {
    const int queries = pick(3) == 0 ? 1 : pick(2) == 0 ? edges[pick(16)] : pick(batch > 8 ? 60 : 700);
    const int prefix = pick(3) == 0 ? 0 : pick(2) == 0 ? edges[pick(16)] : pick(batch > 8 ? 300 : 4000);
    const int64_t cost = int64_t{queries} * shape.heads * (queries + prefix);
    if (cost > budget) continue;
    budget -= cost;
    shape.chunks.push_back({queries, prefix});
  }
  if (shape.chunks.empty()) shape.chunks.push_back({3, 70});
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

int invariance(int cases, uint64_t seed, cudaStream_t stream) {
  std::printf("seed %llu\n", static_cast<unsigned long long>(seed));
  std::mt19937_64 random(seed);
  int wrong = 0, compared = 0;
  for (int i = 0; i < cases; ++i) {
    const PrefillCase shape = random_case(random);
    PrefillCall call(shape, seed + i);
    run_and_wait(stream, false, [&] { call.run(stream); });
    for (int k = 0; k < 3; ++k, ++compared) {
      const int b = static_cast<int>(random() % shape.chunks.size());
      const int chunk = std::max(shape.chunks[b].queries / 10, 1) + static_cast<int>(random() % 100);
      const int64_t words = call.words_differing_in_chunks(b, chunk, stream);
      if (words == 0) continue;
      ++wrong;
      std::printf("DIFFERS heads %d sequence %d of %zu, %d+%d in chunks of %d: %lld words\n", shape.heads, b,
                  shape.chunks.size(), shape.chunks[b].queries, shape.chunks[b].prefix, chunk,
                  static_cast<long long>(words));
    }
  }
  std::printf("invariance: %d sequences at once and in chunks, %d differ\n", compared, wrong);
  return wrong > 0 || compared == 0;
}

int small(cudaStream_t stream) {
  const PrefillCase cases[] = {{16, {{70, 0}}}, {128, {{3, 62}, {1, 0}, {2, 128}}}, {5, {{0, 40}, {31, 2}, {1, 700}}}, {1, {{129, 1}}}};
  int wrong = 0;
  for (const PrefillCase &shape : cases) wrong += !run_case(shape, 7, false, stream);
  std::printf("small: %d wrong\n", wrong);
  return wrong > 0;
}

struct BenchRow {
  const char *name;
  PrefillCase shape;
};

int bench(double matmul_tflops, cudaStream_t stream) {
  auto many = [](int count, Chunk chunk) { return std::vector<Chunk>(count, chunk); };
  std::vector<Chunk> mixed = many(192, {1, 1024});
  mixed.push_back({2048, 2048});
  std::vector<Chunk> ragged;
  for (int i = 0; i < 32; ++i) ragged.push_back({64 + (i * 397) % 960, 0});
  const BenchRow rows[] = {
      {"1 x 1024", {16, many(1, {1024, 0})}},
      {"1 x 4096", {16, many(1, {4096, 0})}},
      {"4 x 4096", {16, many(4, {4096, 0})}},
      {"1 x 16384", {16, many(1, {16384, 0})}},
      {"16 x 512", {16, many(16, {512, 0})}},
      {"32 ragged, 64 to 1023", {16, ragged}},
      {"2048 after 14336", {16, many(1, {2048, 14336})}},
      {"2048 after 2048, 192 x 1 after 1024", {16, mixed}},
      {"256 x 1 after 4096", {16, many(256, {1, 4096})}},
      {"1 x 4096", {20, many(1, {4096, 0})}},
      {"1 x 4096", {40, many(1, {4096, 0})}},
      {"1 x 4096", {64, many(1, {4096, 0})}},
      {"1 x 4096", {128, many(1, {4096, 0})}},
  };
  std::printf("ceiling: BF16 product %.0f TFLOP/s (given)\n%-38s %5s %10s %8s %6s\n", matmul_tflops,
              "queries", "heads", "us", "TFLOP/s", "share");
  for (const BenchRow &row : rows) {
    PrefillCall call(row.shape, 11);
    const double us = median_graph_time(stream, 10, [&] { call.run(stream); });
    double pairs = 0;  // of a query and a key that it sees
    for (const Chunk &c : row.shape.chunks) pairs += c.queries * (c.prefix + (c.queries + 1) / 2.0);
    const double tflops = 2.0 * pairs * row.shape.heads * (kDim + kLatent) / us / 1e6;
    std::printf("%-38s %5d %10.1f %8.1f %6.2f\n", row.name, row.shape.heads, us, tflops, tflops / matmul_tflops);
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
  const int cases = static_cast<int>(number(2, 500));
  const auto seed = static_cast<uint64_t>(number(3, 1));
  if (mode == "check") return mla::test::check(cases, seed, stream);
  if (mode == "invariance") return mla::test::invariance(cases, seed, stream);
  if (mode == "small") return mla::test::small(stream);
  if (mode == "bench") return mla::test::bench(number(2, 780), stream);
  std::fprintf(stderr, "usage: prefill_test check|invariance [cases [seed]] | small | bench [matmul TFLOP/s]\n");
  return 2;
}
