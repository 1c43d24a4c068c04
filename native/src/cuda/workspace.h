// Scratch memory on the device, which grows to the largest use and stays. Its contents are lost between calls.
#pragma once

#include <algorithm>
#include <vector>

#include "device.h"

namespace mla::cuda {

class Workspace {
 public:
  Workspace() = default;
  ~Workspace() {
    for (void *memory : all_) {
      cudaFree(memory);
    }
  }
  Workspace(const Workspace &) = delete;
  Workspace &operator=(const Workspace &) = delete;

  void *of(int64_t bytes, bool capturing) {
    if (bytes > bytes_) {
      if (capturing) {
        fail(MLA_INVALID_ARGUMENT, "%lld bytes of scratch memory are wanted, %lld are there, and a capture cannot "
             "allocate; run the call once before it is captured", static_cast<long long>(bytes),
             static_cast<long long>(bytes_));
      }
      const int64_t grown = std::max(bytes, 2 * bytes_);
      void *memory = nullptr;
      check(cudaMalloc(&memory, grown), "allocating scratch memory");
      all_.push_back(memory);  // the smaller ones stay: graphs may hold their addresses
      bytes_ = grown;
    }
    return all_.empty() ? nullptr : all_.back();
  }

 private:
  std::vector<void *> all_;
  int64_t bytes_ = 0;
};

}  // namespace mla::cuda
