// Inputs, an independent reference and the comparison for mla_decode on the device.
#pragma once

#include <cuda_bf16.h>
#include <cuda_runtime_api.h>

#include <cstdint>
#include <vector>

#include "check.h"
#include "decode.h"

namespace mla::test {

struct DecodeCase {
  int batch, s_q, heads;
  std::vector<int> lengths;
  bool deterministic = false;
};

// Lengths as the baseline draws them: max(normal(mean, mean / 2), s_q), Python's random module after seed(0).
std::vector<int> baseline_lengths(int batch, int s_q, int mean);

struct Difference {
  int64_t bad_out, bad_lse;       // elements outside of both tolerances, NaN and a wrong infinity among them
  double worst_out, worst_lse;    // largest absolute differences
  double cosine;                  // 1 - 2 <a, b> / (|a|^2 + |b|^2)
};

// The device memory of one call. Queries and used keys are random; every unused key is NaN; block table entries past a
// sequence's last block are wild; around and in the outputs lie sentinels.
class DecodeCall {
 public:
  DecodeCall(const DecodeCase &shape, uint64_t seed);
  ~DecodeCall();
  DecodeCall(const DecodeCall &) = delete;
  DecodeCall &operator=(const DecodeCall &) = delete;

  void plan(cudaStream_t stream);
  // From now on with the deterministic plan, in memory of its own: what has been captured keeps the plan that it had.
  void plan_deterministically(cudaStream_t stream);
  void decode(cudaStream_t stream);
  // Takes the keys of this step's tokens, the last s_q of each sequence, out of the cache, and writes them anew by a kernel that
  // lets what follows on the stream start before it has done so.
  void append_again(cudaStream_t stream);
  // How many sequences the plan has cut.
  int cut_sequences();
  void poison_outputs();
  Difference compare_with_reference();
  bool sentinels_intact();
  // Decodes `count` sequences from `first` on once more, by a call of their own; the number of bits of out and lse that differ from
  // what the call gave.
  int64_t bits_differing_apart(int first, int count, cudaStream_t stream);

 private:
  template <typename T>
  T *allocate(int64_t count);
  void fill_cache(uint64_t seed);
  void allocate_plan(mla_decode_args &args);

  DecodeCase case_;
  int64_t rows_, out_count_, lse_count_;
  int max_blocks_ = 0, cache_blocks_ = 0;
  mla_decode_args args_ = {};
  std::vector<void *> owned_;
  uint16_t *guarded_out_ = nullptr;
  float *guarded_lse_ = nullptr;
  __nv_bfloat16 *newest_keys_ = nullptr;  // [batch, s_q, 576]
};

}  // namespace mla::test
