// The same products by cuBLASLt, opened at run time, to compare times with.
#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>

namespace mla::test {

// out[b] = x[b] w[b]^T over b: x [batch, rows, depth], w [batch, columns, depth] (or contiguous along columns), out [batch,
// rows, columns], BF16 or F32; strides in elements.
struct LibraryProduct {
  int64_t batch, rows, columns, depth;
  int64_t x_stride, x_batch_stride, w_stride, w_batch_stride, out_stride, out_batch_stride;
  bool across, float_out;
};

// False, with the reason printed once, where the library is not there.
bool library_available();

// A product ready to be run; owns nothing that a process would miss.
class LibraryPlan {
 public:
  explicit LibraryPlan(const LibraryProduct &product);
  bool usable() const { return usable_; }
  void run(const void *x, const void *w, void *out, cudaStream_t stream) const;

 private:
  void *description_ = nullptr, *x_ = nullptr, *w_ = nullptr, *out_ = nullptr;
  uint64_t algorithm_[8] = {};
  bool usable_ = false;
};

}  // namespace mla::test
