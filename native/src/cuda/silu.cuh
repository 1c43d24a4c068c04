// The gate of a feed-forward network.
#pragma once

namespace mla::cuda {

// silu(gate) * up. By the approximate instructions themselves: what the compiler puts around them for very small and very
// large numbers, whose result is 0 in BF16, takes three times as long.
__device__ __forceinline__ float silu_mul(float gate, float up) {
  constexpr float kLog2E = 1.44269504f;
  float power, inverse;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(power) : "f"(gate * -kLog2E));
  asm("rcp.approx.ftz.f32 %0, %1;" : "=f"(inverse) : "f"(1.0f + power));
  return gate * inverse * up;
}

}  // namespace mla::cuda
