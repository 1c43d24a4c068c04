#include "staging.h"

#include <algorithm>
#include <cstring>

namespace mla::cuda {

static constexpr int64_t kBytes = int64_t{8} << 20;  // of a buffer: long enough for full speed, short enough for caches

Staging::Staging(cudaStream_t stream) : stream_(stream) {
  try {
    for (Buffer &buffer : buffers_) {
      check(cudaMallocHost(&buffer.memory, kBytes), "allocating page-locked memory for copies");
      check(cudaEventCreateWithFlags(&buffer.gone, cudaEventDisableTiming), "creating an event");
    }
  } catch (...) {
    release();
    throw;
  }
}

Staging::~Staging() { release(); }

void Staging::release() {
  for (Buffer &buffer : buffers_) {
    if (buffer.gone != nullptr) {
      cudaEventSynchronize(buffer.gone);
      cudaEventDestroy(buffer.gone);
    }
    cudaFreeHost(buffer.memory);
  }
}

void Staging::copy(void *dst, const void *src, int64_t bytes) {
  for (int64_t done = 0; done < bytes; done += kBytes) {
    const int64_t piece = std::min(kBytes, bytes - done);
    Buffer &buffer = buffers_[next_];
    next_ = 1 - next_;
    check(cudaEventSynchronize(buffer.gone), "waiting for a copy to the device");
    memcpy(buffer.memory, static_cast<const char *>(src) + done, piece);
    check(cudaMemcpyAsync(static_cast<char *>(dst) + done, buffer.memory, piece, cudaMemcpyHostToDevice, stream_),
          "copying to the device");
    check(cudaEventRecord(buffer.gone, stream_), "recording an event");
  }
}

}  // namespace mla::cuda
