// Tests and times mla_plan and mla_decode on a Hopper GPU.
//
//   decode_test check [cases [seed]]          random cases against the reference; exit status 1 if one is wrong
//   decode_test invariance [cases [seed]]     deterministic plan: sequences alone, among a few and among 255 others, bit for bit
//   decode_test small                         a few small cases, for compute-sanitizer
//   decode_test bench [matmul TFLOP/s [row...]]  the baseline's 42 rows, or some of them; the ceiling of a BF16 product, measured
//                                             elsewhere in the same session, enters the floor; `fixed` is the time with the
//                                             deterministic plan over the time without, replays of both in turn
//   decode_test sustained [...]               the same one row after the other, at the clock that the power limit leaves

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <random>
#include <string>
#include <thread>
#include <vector>

#include "decode_cases.h"
#include "timing.cuh"

namespace mla::test {
namespace {

constexpr double kCosineTolerance = 5e-6;

// One plan and two decode calls, which run into each other, and one that runs into the kernel that appends this step's keys; in a
// graph or without.
void run_calls(DecodeCall &call, bool in_graph) {
  cudaStream_t stream;
  CHECK_CUDA(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking));
  run_and_wait(stream, in_graph, [&] {
    call.plan(stream);
    call.decode(stream);
    call.decode(stream);
    call.append_again(stream);
    call.decode(stream);
  });
  CHECK_CUDA(cudaStreamDestroy(stream));
}

// Says what is wrong with what a call gave.
bool is_right(DecodeCall &call, const DecodeCase &shape, uint64_t seed) {
  Difference d = call.compare_with_reference();
  bool intact = call.sentinels_intact();
  // NaN is on neither side of a comparison: ask for what must hold.
  bool right = d.bad_out == 0 && d.bad_lse == 0 && d.cosine < kCosineTolerance && intact;
  if (!right) {
    std::printf("WRONG batch %d s_q %d heads %d%s seed %llu: out %lld outside (worst %.3g, cosine %.3g), lse %lld "
                "(worst %.3g), sentinels %s; lengths",
                shape.batch, shape.s_q, shape.heads, shape.deterministic ? " deterministic" : "",
                static_cast<unsigned long long>(seed),
                static_cast<long long>(d.bad_out), d.worst_out, d.cosine, static_cast<long long>(d.bad_lse), d.worst_lse,
                intact ? "intact" : "OVERWRITTEN");
    for (int i = 0; i < std::min(shape.batch, 12); ++i) std::printf(" %d", shape.lengths[i]);
    std::printf("\n");
  }
  return right;
}

bool run_case(const DecodeCase &shape, uint64_t seed, bool in_graph) {
  DecodeCall call(shape, seed);
  run_calls(call, in_graph);
  return is_right(call, shape, seed);
}

DecodeCase random_case(std::mt19937_64 &random) {
  const int heads[] = {128, 64, 40, 32, 20, 16, 5, 1};
  const int edges[] = {0, 1, 2, 31, 32, 33, 63, 64, 65, 127, 128, 129, 191, 192, 193, 255, 257, 511, 512, 513};
  const int long_lengths[] = {1024, 2047, 4096, 8191, 16385, 32768};
  auto pick = [&](int count) { return static_cast<int>(random() % count); };
  DecodeCase shape;
  shape.deterministic = pick(2) == 0;
  shape.heads = heads[pick(8)];
  shape.s_q = 1 + pick(4) * pick(2) + pick(20) / 19 * 4;
  const int kind = pick(10);
  shape.batch = kind == 0 ? 1 : kind < 8 ? 1 + pick(12) : 1 + pick(300);
  for (int b = 0; b < shape.batch; ++b) {
    int choice = pick(8);
    int length = choice < 5 ? edges[pick(20)] : pick(shape.batch > 12 ? 400 : 3000);
    if (b == 0 && shape.batch <= 12 && pick(6) == 0) length = long_lengths[pick(6)];
    shape.lengths.push_back(length);
  }
  return shape;
}

int check(int cases, uint64_t seed) {
  std::printf("seed %llu\n", static_cast<unsigned long long>(seed));
  std::mt19937_64 random(seed);
  int wrong = 0;
  for (int i = 0; i < cases && wrong < 20; ++i) wrong += !run_case(random_case(random), seed + i, i % 2 == 1);
  std::printf("check: %d cases, %d wrong\n", cases, wrong);
  return wrong > 0 || cases == 0;
}

// The deterministic plan: sequences among 255 others, and alone or among a few, bit for bit.
int invariance(int cases, uint64_t seed) {
  std::printf("seed %llu\n", static_cast<unsigned long long>(seed));
  constexpr int kBatch = 256, kGroups = 24;
  constexpr int kGroupSizes[] = {1, 1, 4, 1, 1, 24, 1, 60};  // by rows and lengths different kernels serve them
  cudaStream_t stream;
  CHECK_CUDA(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking));
  std::mt19937_64 random(seed);
  int wrong = 0, compared = 0;
  for (int i = 0; i < cases; ++i) {
    DecodeCase shape = random_case(random);
    shape.deterministic = true;
    shape.batch = kBatch;
    const int extra = static_cast<int>(random() % 3) * 4000;
    shape.lengths.resize(kBatch);
    for (int b = 0; b < kBatch; ++b) {
      if (shape.lengths[b] == 0) shape.lengths[b] = static_cast<int>(random() % (b % 16 == 0 ? 500 + extra : 1500));
    }
    DecodeCall call(shape, seed + i);
    run_calls(call, i % 2 == 1);
    for (int k = 0; k < kGroups; ++k) {
      const int count = kGroupSizes[k % 8];
      const int first = k < 8 ? k * 16 : static_cast<int>(random() % (kBatch - count + 1));
      compared += count;
      const int64_t bits = call.bits_differing_apart(first, count, stream);
      if (bits == 0) continue;
      ++wrong;
      std::printf("DIFFERS case %d s_q %d heads %d, %d sequences from %d on, length %d: %lld bits\n", i, shape.s_q, shape.heads,
                  count, first, shape.lengths[first], static_cast<long long>(bits));
    }
  }
  CHECK_CUDA(cudaStreamDestroy(stream));
  std::printf("invariance: %d sequences alone or among up to 59 others, and among %d: %d calls differ\n", compared,
              kBatch - 1, wrong);
  return wrong > 0 || compared == 0;
}

// As many sequences as fill the parts in pairs, ragged and in any order: the plan cuts none.
bool cuts_no_pairs() {
  constexpr int kTiles = 8, kSteps = 40, kStep = 32;  // of 64 rows; of a pair; keys
  const int parts = multiprocessors() / kTiles;
  DecodeCase shape = {2 * parts, 4, 128, {}};
  for (int i = 0; i < parts; ++i) {
    const int steps = 1 + i * 7 % (kSteps / 2);
    shape.lengths.push_back(steps * kStep);
    shape.lengths.push_back((kSteps - steps) * kStep);
  }
  std::shuffle(shape.lengths.begin(), shape.lengths.end(), std::mt19937_64(5));
  constexpr uint64_t kSeed = 7;
  DecodeCall call(shape, kSeed);
  run_calls(call, false);
  const int cut = call.cut_sequences();
  if (cut > 0) std::printf("WRONG: the plan cuts %d of %d sequences\n", cut, shape.batch);
  return is_right(call, shape, kSeed) && cut == 0;
}

int small() {
  const DecodeCase cases[] = {
      {1, 1, 16, {70}},          {2, 1, 128, {130, 0}},     {2, 2, 128, {65, 200}},
      {3, 4, 5, {3, 1, 64}},     {1, 1, 64, {700}},         {3, 1, 16, {700, 0, 65}, true},
      {1, 2, 128, {1200}, true}, {2, 1, 128, {1600, 900}, true}, {18, 1, 16, std::vector<int>(18, 150), true},
      {5, 1, 128, {70, 0, 4200, 64, 200}, true},
      {58, 4, 128, std::vector<int>(58, 40)},  // by default as by the rule
      {1, 1, 64, {2100}}, {2, 2, 8, {2500, 0}}, {1, 1, 16, {1000}},
      {13, 4, 128, {700, 3, 64, 0, 130, 65, 96, 31, 400, 128, 1, 290, 50}}};
  int wrong = 0;
  for (const DecodeCase &shape : cases) wrong += !run_case(shape, 7, false);
  wrong += !cuts_no_pairs();
  std::printf("small: %d wrong\n", wrong);
  return wrong > 0;
}

struct BaselineRow {
  int batch, s_q, mean, heads;
  double microseconds;  // FlashMLA's dense decode on one H100 80GB HBM3
};
const BaselineRow kBaseline[] = {
    {128, 1, 4096, 128, 281.87},
    {128, 1, 8192, 128, 528.56},
    {64, 1, 16384, 128, 515.35},
    {32, 1, 32768, 128, 490.09},
    {128, 2, 4096, 128, 442.81},
    {128, 2, 8192, 128, 942.44},
    {64, 2, 16384, 128, 895.3},
    {32, 2, 32768, 128, 891.93},
    {128, 1, 4096, 64, 250.71},
    {128, 1, 8192, 64, 464.72},
    {64, 1, 16384, 64, 443.52},
    {32, 1, 32768, 64, 436.26},
    {128, 1, 4096, 32, 234.66},
    {128, 1, 8192, 32, 444.43},
    {64, 1, 16384, 32, 417.89},
    {32, 1, 32768, 32, 406.55},
    {128, 1, 4096, 16, 217.73},
    {128, 1, 8192, 16, 419.03},
    {64, 1, 16384, 16, 407.66},
    {32, 1, 32768, 16, 401.16},
    {128, 2, 4096, 16, 233.15},
    {128, 2, 8192, 16, 443.92},
    {64, 2, 16384, 16, 416.42},
    {32, 2, 32768, 16, 407.55},
    {1, 1, 1024, 128, 13.97},
    {1, 1, 32768, 128, 39.89},
    {8, 1, 1024, 128, 19.83},
    {8, 1, 8192, 128, 48.16},
    {32, 1, 1024, 128, 36.17},
    {64, 1, 512, 128, 38.52},
    {256, 1, 512, 128, 114.17},
    {256, 1, 1024, 128, 180.14},
    {512, 1, 256, 128, 146.42},
    {1, 1, 1024, 16, 10.91},
    {1, 1, 32768, 16, 43.07},
    {8, 1, 1024, 16, 14.08},
    {8, 1, 8192, 16, 37.68},
    {32, 1, 1024, 16, 21.45},
    {64, 1, 512, 16, 23.66},
    {256, 1, 512, 16, 69.38},
    {256, 1, 1024, 16, 121.26},
    {512, 1, 256, 16, 79.02},
};

// Rested: few replays after a rest, at the clock that a card has until its power limit sets in, some 50 ms of the large rows. Else many,
// one row after the other.
int bench(double matmul_tflops, bool rested, const std::vector<int> &only_rows) {
  constexpr int kCalls = 10;
  const int replays = rested ? 7 : 30;
  const auto rest = std::chrono::milliseconds(rested ? 250 : 0);
  cudaStream_t stream;
  CHECK_CUDA(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking));
  double read_gbps = read_ceiling(stream);
  std::printf("ceilings: read %.0f GB/s (measured), BF16 product %.0f TFLOP/s (given)\n", read_gbps, matmul_tflops);
  std::printf("%5s %3s %6s %5s %9s %8s %7s %6s %9s %6s %6s\n", "batch", "s_q", "mean", "heads", "us", "TFLOP/s",
              "GB/s", "floor", "FlashMLA", "ratio", "fixed");
  double log_ratio = 0, log_fixed = 0;
  int rows = 0, slower = 0;
  for (int r = 0; r < static_cast<int>(std::size(kBaseline)); ++r) {
    if (!only_rows.empty() && std::find(only_rows.begin(), only_rows.end(), r) == only_rows.end()) continue;
    const BaselineRow &row = kBaseline[r];
    DecodeCase shape = {row.batch, row.s_q, row.heads, baseline_lengths(row.batch, row.s_q, row.mean)};
    double tokens = 0;
    for (int length : shape.lengths) tokens += length;
    DecodeCall call(shape, 11);
    auto calls = [&] {
      for (int i = 0; i < kCalls; ++i) call.decode(stream);
    };
    call.plan(stream);
    CHECK_CUDA(cudaStreamSynchronize(stream));
    TimedGraph by_load(stream, calls);
    std::this_thread::sleep_for(rest);
    const double us = median_of(replays, [&] { return by_load.time(); }) / kCalls;
    call.plan_deterministically(stream);
    CHECK_CUDA(cudaStreamSynchronize(stream));
    TimedGraph deterministic(stream, calls);
    std::this_thread::sleep_for(rest);
    const double fixed = median_of(replays, [&] {
      const float base = by_load.time();
      return deterministic.time() / base;
    });
    double flops = 2.0 * row.heads * row.s_q * tokens * (576 + 512);
    double bytes = 2.0 * (static_cast<double>(row.batch) * row.s_q * row.heads * (576 + 512) + tokens * 576);
    double floor_us = std::max(bytes / read_gbps / 1e3, flops / matmul_tflops / 1e6);
    double ratio = row.microseconds / us;
    log_ratio += std::log(ratio);
    log_fixed += std::log(fixed);
    slower += ratio < 1.0;
    ++rows;
    std::printf("%5d %3d %6d %5d %9.2f %8.1f %7.0f %6.2f %9.2f %6.3f %6.3f\n", row.batch, row.s_q, row.mean, row.heads, us,
                flops / us / 1e6, bytes / us / 1e3, floor_us / us, row.microseconds, ratio,
                fixed);
    std::fflush(stdout);
  }
  std::printf("bench: %d rows, geometric mean of the ratio %.3f, %d rows slower; deterministic plan x %.3f\n", rows,
              std::exp(log_ratio / rows), slower, std::exp(log_fixed / rows));
  CHECK_CUDA(cudaStreamDestroy(stream));
  return 0;
}

}  // namespace
}  // namespace mla::test

int main(int argc, char **argv) {
  auto number = [&](int index, double otherwise) { return argc > index ? std::atof(argv[index]) : otherwise; };
  const std::string mode = argc > 1 ? argv[1] : "";
  if (mode == "check") return mla::test::check(static_cast<int>(number(2, 1000)), static_cast<uint64_t>(number(3, 1)));
  if (mode == "invariance") {
    return mla::test::invariance(static_cast<int>(number(2, 20)), static_cast<uint64_t>(number(3, 1)));
  }
  if (mode == "small") return mla::test::small();
  if (mode == "bench" || mode == "sustained") {
    std::vector<int> rows;
    for (int i = 3; i < argc; ++i) rows.push_back(std::atoi(argv[i]));
    return mla::test::bench(number(2, 780), mode == "bench", rows);
  }
  std::fprintf(stderr,
               "usage: decode_test check|invariance [cases [seed]] | small | bench|sustained [matmul TFLOP/s [row...]]\n");
  return 2;
}
