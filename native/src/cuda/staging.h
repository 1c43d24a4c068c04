// Copies from host memory that the device cannot read by itself, mapped files above all: through two page-locked buffers,
// one filled by the processor while the other travels.
#pragma once

#include <array>

#include "device.h"

namespace mla::cuda {

class Staging {
 public:
  explicit Staging(cudaStream_t stream);
  ~Staging();
  Staging(const Staging &) = delete;
  Staging &operator=(const Staging &) = delete;

  // Ordered on the stream. The source may be reused on return.
  void copy(void *dst, const void *src, int64_t bytes);

 private:
  struct Buffer {
    void *memory = nullptr;
    cudaEvent_t gone = nullptr;  // recorded when its last copy was put on the stream
  };
  void release();

  cudaStream_t stream_;
  std::array<Buffer, 2> buffers_;
  int next_ = 0;
};

}  // namespace mla::cuda
