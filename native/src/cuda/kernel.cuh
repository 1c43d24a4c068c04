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

// The launch of a shape, which also allows the kernel its shared memory.
struct ShapedLaunch : Launch {
  template <class Kernel>
  ShapedLaunch(const char *name, const Shape &shape, Kernel kernel, cudaStream_t stream)
      : Launch(dim3(static_cast<unsigned>(shape.blocks)), shape.threads, shape.shared_bytes, stream) {
    if (shape.blocks > INT32_MAX || shape.shared_bytes > kMaxSharedBytes) {
      fail(MLA_UNSUPPORTED, "%s on CUDA: too large, it would take %lld blocks of %lld bytes of shared memory", name,
           static_cast<long long>(shape.blocks), static_cast<long long>(shape.shared_bytes));
    }
    if (shape.shared_bytes > 0) {
      check(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize,
                                 static_cast<int>(shape.shared_bytes)),
            name);
    }
    if (shape.cluster > 1) {
      set_cluster(shape.cluster);
    }
  }
};

// Puts a kernel on the stream. It may start while the one before it ends: it must call begin_kernel, or
// wait_for_work_before, first of all.
template <class... Parameters, class... Arguments>
void launch(const Device &device, const char *name, const Shape &shape, void (*kernel)(Parameters...),
            Arguments... arguments) {
  if (shape.blocks > 0) {
    const ShapedLaunch shaped(name, shape, kernel, device.stream);
    check(cudaLaunchKernelEx(&shaped.config, kernel, static_cast<Parameters>(arguments)...), name);
  }
}

// How many clusters of a kernel the device holds at once.
template <class Kernel>
int resident_clusters(const char *name, const Shape &shape, Kernel kernel) {
  const ShapedLaunch shaped(name, shape, kernel, nullptr);
  int clusters = 0;
  check(cudaOccupancyMaxActiveClusters(&clusters, kernel, &shaped.config), name);
  return clusters;
}

// Waits for the work before, whose results are seen from here on.
__device__ __forceinline__ void wait_for_work_before() {
#if __CUDA_ARCH__ >= 900
  cudaGridDependencySynchronize();
#endif
}

// The same, and lets the blocks of the next kernel take their places already: for kernels that are over soon.
__device__ __forceinline__ void begin_kernel() {
  wait_for_work_before();
#if __CUDA_ARCH__ >= 900
  cudaTriggerProgrammaticLaunchCompletion();
#endif
}

inline int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }

[[noreturn]] inline void unsupported(const char *name, const char *what, const mla_tensor &t) {
  fail(MLA_UNSUPPORTED, "%s on CUDA: %s is %s, for which there is no kernel", name, what, describe(t).c_str());
}

inline void require(const char *name, const char *what, const mla_tensor &t, mla_dtype dtype) {
  if (t.dtype != dtype) {
    fail(MLA_UNSUPPORTED, "%s on CUDA: %s is %s; it must be %s", name, what, describe(t).c_str(), dtype_name(dtype));
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
