// Copies of single 16-byte pieces from global to shared memory, issued by ordinary threads (cp.async).
#pragma once

#include <cstdint>

namespace mla::sm90 {

// Copies the first `bytes` (0 to 16) of the piece and fills it up with zeros.
__device__ __forceinline__ void copy16_async(uint32_t target, const void *source, uint32_t bytes) {
  asm volatile("cp.async.cg.shared.global.L2::128B [%0], [%1], 16, %2;" ::"r"(target), "l"(source), "r"(bytes)
               : "memory");
}

// Arrives on the barrier once all copies that this thread has issued so far are there; counts as one of the barrier's
// arrivals. The tensor cores' reads need a fence_async_proxy between the wait and the products.
__device__ __forceinline__ void barrier_arrive_after_copies(uint32_t barrier) {
  asm volatile("cp.async.mbarrier.arrive.noinc.shared::cta.b64 [%0];" ::"r"(barrier) : "memory");
}

// Whether the phase of the given parity has completed; does not wait.
__device__ __forceinline__ bool barrier_test(uint32_t barrier, uint32_t parity) {
  uint32_t done;
  asm volatile(
      "{\n"
      ".reg .pred p;\n"
      "mbarrier.test_wait.parity.shared::cta.b64 p, [%1], %2;\n"
      "selp.b32 %0, 1, 0, p;\n"
      "}\n"
      : "=r"(done)
      : "r"(barrier), "r"(parity)
      : "memory");
  return done != 0;
}

}  // namespace mla::sm90
