// Reading and writing pieces of rows as float32, and sums over warps and blocks.
#pragma once

#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_fp8.h>

#include <cstdint>

namespace mla::cuda {

using bf16 = __nv_bfloat16;

constexpr int kPiece = 8;  // elements that a thread reads at once: 16 bytes of BF16

template <int kCount>
struct Piece {
  float v[kCount];
};

// kCount elements at once: 8 of BF16 are one load of 16 bytes.
template <class T, int kCount>
struct alignas(sizeof(T) * kCount) Raw {
  T v[kCount];
};

__device__ __forceinline__ float widen(float x) { return x; }
__device__ __forceinline__ float widen(bf16 x) { return __bfloat162float(x); }
__device__ __forceinline__ float widen(__half x) { return __half2float(x); }
__device__ __forceinline__ float widen(__nv_fp8_e4m3 x) { return static_cast<float>(x); }

template <class T>
__device__ __forceinline__ T narrow(float x);
template <>
__device__ __forceinline__ float narrow<float>(float x) {
  return x;
}
template <>
__device__ __forceinline__ bf16 narrow<bf16>(float x) {
  return __float2bfloat16_rn(x);
}

// 16 bytes at a time, also where a piece is wider.
template <class T, int kCount>
__device__ __forceinline__ Raw<T, kCount> load_raw(const T *from) {
  Raw<T, kCount> raw;
  if constexpr (sizeof(raw) > 16) {
#pragma unroll
    for (int i = 0; i < static_cast<int>(sizeof(raw) / 16); i++) {
      reinterpret_cast<uint4 *>(&raw)[i] = reinterpret_cast<const uint4 *>(from)[i];
    }
  } else {
    raw = *reinterpret_cast<const Raw<T, kCount> *>(from);
  }
  return raw;
}

template <int kCount, class T>
__device__ __forceinline__ Piece<kCount> load(const T *from) {
  const Raw<T, kCount> raw = load_raw<T, kCount>(from);
  Piece<kCount> piece;
#pragma unroll
  for (int i = 0; i < kCount; i++) {
    piece.v[i] = widen(raw.v[i]);
  }
  return piece;
}

template <int kCount, class T>
__device__ __forceinline__ void store(T *to, const Piece<kCount> &piece) {
  Raw<T, kCount> raw;
#pragma unroll
  for (int i = 0; i < kCount; i++) {
    raw.v[i] = narrow<T>(piece.v[i]);
  }
  if constexpr (sizeof(raw) > 16) {
#pragma unroll
    for (int i = 0; i < static_cast<int>(sizeof(raw) / 16); i++) {
      reinterpret_cast<uint4 *>(to)[i] = reinterpret_cast<const uint4 *>(&raw)[i];
    }
  } else {
    *reinterpret_cast<Raw<T, kCount> *>(to) = raw;
  }
}

template <class T>
__device__ __forceinline__ T warp_sum(T value) {
#pragma unroll
  for (int step = 16; step > 0; step /= 2) {
    value += __shfl_xor_sync(~0u, value, step);
  }
  return value;
}

template <class T>
__device__ __forceinline__ T warp_max(T value) {
#pragma unroll
  for (int step = 16; step > 0; step /= 2) {
    const T other = __shfl_xor_sync(~0u, value, step);
    value = other > value ? other : value;
  }
  return value;
}

// The exclusive prefix sum over the lanes.
template <class T>
__device__ __forceinline__ T warp_prefix(T own) {
  T sum = own;
#pragma unroll
  for (int step = 1; step < 32; step *= 2) {
    const T other = __shfl_up_sync(~0u, sum, step);
    sum += static_cast<int>(threadIdx.x) % 32 >= step ? other : 0;
  }
  return sum - own;
}

// The sum over the block's threads, the same in all of them and from call to call. scratch: a float a warp, of this call
// alone.
__device__ __forceinline__ float block_sum(float value, float *scratch) {
  value = warp_sum(value);
  const int warps = static_cast<int>(blockDim.x) / 32;
  if (warps == 1) {
    return value;
  }
  if (threadIdx.x % 32 == 0) {
    scratch[threadIdx.x / 32] = value;
  }
  __syncthreads();
  value = static_cast<int>(threadIdx.x % 32) < warps ? scratch[threadIdx.x % 32] : 0.0f;
  return warp_sum(value);
}

// Unsigned keys in the order of the floats; -0 is 0.
__device__ __forceinline__ uint32_t ordered(float x) {
  const uint32_t bits = __float_as_uint(x + 0.0f);
  return bits & 0x80000000u ? ~bits : bits | 0x80000000u;
}
__device__ __forceinline__ float from_ordered(uint32_t key) {
  return __uint_as_float(key & 0x80000000u ? key & 0x7FFFFFFFu : ~key);
}

}  // namespace mla::cuda
