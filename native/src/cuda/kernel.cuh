// What the operations of ops.h share: launching a kernel, how every kernel begins, checks of operands.
#pragma once

#include <cuda_runtime.h>

#include "device.h"
#include "launch.h"
#include "tensor.h"

namespace mla::cuda {

constexpr int kMaxSharedBytes = 227 * 1024;  // of a block on Hopper

struct Shape {
  int64_t blocks;
  int threads;
  int64_t shared_bytes = 0;  // dynamic
  int cluster = 1;           // blocks that share memory
};

// Puts a kernel on the stream. It may start while the one before it ends: it must call begin_kernel first of all.
template <class... Parameters, class... Arguments>
void launch(const Device &device, const char *name, const Shape &shape, void (*kernel)(Parameters...),
            Arguments... arguments) {
  if (shape.blocks == 0) {
    return;
  }
  if (shape.blocks > INT32_MAX || shape.shared_bytes > kMaxSharedBytes) {
    fail(MLA_UNSUPPORTED, "%s on CUDA: too large, it would take %lld blocks of %lld bytes of shared memory", name,
         static_cast<long long>(shape.blocks), static_cast<long long>(shape.shared_bytes));
  }
  if (shape.shared_bytes > 0) {
    check(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize,
                               static_cast<int>(shape.shared_bytes)),
          name);
  }
  Launch launch(dim3(static_cast<unsigned>(shape.blocks)), shape.threads, shape.shared_bytes, device.stream);
  if (shape.cluster > 1) {
    launch.set_cluster(shape.cluster);
  }
  check(cudaLaunchKernelEx(&launch.config, kernel, static_cast<Parameters>(arguments)...), name);
}

// Waits for the work before, whose results are seen from here on, and lets the next kernel take its place.
__device__ __forceinline__ void begin_kernel() {
#if __CUDA_ARCH__ >= 900
  cudaGridDependencySynchronize();
  cudaTriggerProgrammaticLaunchCompletion();
#endif
}

inline int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }

[[noreturn]] inline void unsupported(const char *name, const char *what, const mla_tensor &t) {
  fail(MLA_UNSUPPORTED, "%s on CUDA: %s is %s, for which there is no kernel", name, what, describe(t).c_str());
}

inline void require_bf16(const char *name, const char *what, const mla_tensor &t) {
  if (t.dtype != MLA_BF16) {
    fail(MLA_UNSUPPORTED, "%s on CUDA takes BF16 alone; %s is %s", name, what, describe(t).c_str());
  }
}

// Whether rows can be read in pieces of `count` elements, each aligned to its own size.
inline bool in_pieces(const mla_tensor &t, int count) {
  const int64_t bytes = count * element_bytes(t.dtype);
  bool fits = reinterpret_cast<uintptr_t>(t.data) % bytes == 0 && t.shape[t.rank - 1] % count == 0;
  for (int i = 0; i + 1 < t.rank; i++) {
    fits = fits && (t.shape[i] <= 1 || t.stride[i] % count == 0);
  }
  return fits;
}

}  // namespace mla::cuda
