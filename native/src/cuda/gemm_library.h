// Matrix products by cuBLASLt, where it is installed: opened at run time, nothing links to it.
#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>
#include <map>
#include <memory>
#include <string>

namespace mla::cuda {

// out[b] = x[b] w[b]^T over b in batch: x [batch, rows, depth], w [batch, columns, depth], or by columns where across, out
// [batch, rows, columns]; all BF16, out also F32. Strides in elements.
struct LibraryProduct {
  int64_t batch, rows, columns, depth;
  int64_t x_stride, x_batch_stride, w_stride, w_batch_stride, out_stride, out_batch_stride;
  bool across, float_out;
  uint32_t alignment;  // in bytes, of all operands
  bool operator<(const LibraryProduct &other) const;
};

class GemmLibrary {
 public:
  // Null where there is no library that works, with the reason in `reason`. Takes 32 MB of the current device's memory.
  static std::unique_ptr<GemmLibrary> open(std::string &reason);
  ~GemmLibrary();
  GemmLibrary(const GemmLibrary &) = delete;
  GemmLibrary &operator=(const GemmLibrary &) = delete;

  // False where the library has no way to compute it; then nothing was done. The way is looked up once for each shape.
  bool run(const LibraryProduct &product, const void *x, const void *w, void *out, cudaStream_t stream);

 private:
  struct Functions;
  struct Plan {
    void *operation = nullptr, *x = nullptr, *w = nullptr, *out = nullptr;
    uint64_t algorithm[8] = {};
    bool usable = false;
  };
  GemmLibrary();
  Plan make_plan(const LibraryProduct &product) const;

  std::unique_ptr<Functions> functions_;
  void *handle_ = nullptr, *workspace_ = nullptr;
  std::map<LibraryProduct, Plan> plans_;
};

}  // namespace mla::cuda
