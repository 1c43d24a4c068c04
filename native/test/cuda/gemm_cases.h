// Inputs, an independent reference and the comparison for the matrix products on the device.
#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>
#include <string>
#include <vector>

#include "check.h"
#include "gemm.h"

namespace mla::test {

enum class Product { kDense, kBatched, kExperts };

struct GemmCase {
  Product product;
  int groups = 1;               // matrices of a batch, experts
  int rows = 0;                 // of a matrix; of x with `gather`, which then has more rows than are used
  int columns = 0, depth = 0;   // of out; K
  bool float_out = false, bias = false;
  bool across = false;          // batched: weights contiguous along N
  bool gather = false;          // experts: through an array of rows
  bool silu = false;            // experts: silu(gate) * up
  std::vector<int> group_rows;  // experts: rows of each
  int padding = 0;              // unused columns after each row of x, w and out
  std::string describe() const;
  int64_t out_rows() const;     // of all groups
  int64_t weight_rows() const;  // of a group: N
};

struct Difference {
  double nmse;           // sum of (out - reference)^2 over sum of reference^2
  int64_t not_finite;    // elements of out
  int64_t overwritten;   // sentinels around and between the rows of out
};

// The device memory of one product. What must not be read is NaN: padding, rows of x that no one asks for. Around and
// between the rows of out lie sentinels.
class GemmCall {
 public:
  GemmCall(const GemmCase &shape, uint64_t seed);
  ~GemmCall();
  GemmCall(const GemmCall &) = delete;
  GemmCall &operator=(const GemmCall &) = delete;

  void run(cuda::Gemm &gemm, cudaStream_t stream);
  Difference compare_with_reference();
  // Multiplies single rows anew, a call each: how many of `count` differ from the row in the whole product in any bit?
  int rows_that_differ_alone(cuda::Gemm &gemm, cudaStream_t stream, int count, uint64_t seed);

 private:
  template <typename T>
  T *allocate(int64_t count);
  int group_of(int64_t row) const;
  mla_activation activation() const { return case_.silu ? MLA_SILU_MUL : MLA_IDENTITY; }

  GemmCase case_;
  int64_t x_rows_, x_stride_, w_stride_, w_group_stride_, out_stride_, out_elements_;
  uint16_t *x_, *w_, *bias_ = nullptr;
  void *out_, *guarded_out_;
  int32_t *rows_ = nullptr, *offsets_ = nullptr;
  std::vector<int32_t> host_rows_, host_offsets_;
  std::vector<void *> owned_;
};

// Fills with values of a standard normal distribution times `scale`, BF16.
void fill_random(uint16_t *data, int64_t count, float scale, uint64_t seed);

}  // namespace mla::test
