// Failures of the CUDA runtime and of mla.h end a test program with the place and the reason; and the size of the device.
#pragma once

#include <cuda_runtime_api.h>

#include <cstdio>
#include <cstdlib>
#include <string>

#include "mla.h"

namespace mla::test {

inline void check_cuda(cudaError_t status, const char *expression, const char *file, int line) {
  if (status == cudaSuccess) return;
  std::fprintf(stderr, "%s:%d: %s: %s\n", file, line, expression, cudaGetErrorString(status));
  std::exit(1);
}
#define CHECK_CUDA(expression) ::mla::test::check_cuda((expression), #expression, __FILE__, __LINE__)

// Of the current device.
inline int multiprocessors() {
  static const int count = [] {
    int device, value;
    CHECK_CUDA(cudaGetDevice(&device));
    CHECK_CUDA(cudaDeviceGetAttribute(&value, cudaDevAttrMultiProcessorCount, device));
    return value;
  }();
  return count;
}

inline void require_ok(mla_status status, const std::string &error) {
  if (status == MLA_OK) return;
  std::fprintf(stderr, "status %d: %s\n", status, error.c_str());
  std::exit(1);
}

}  // namespace mla::test
