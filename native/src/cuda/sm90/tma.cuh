// Bulk tensor copies (TMA) from global to shared memory, and what stays in L2.
#pragma once

#include <cuda.h>

#include <cstdint>

namespace mla::sm90 {

__device__ __forceinline__ void prefetch_tensor_map(const CUtensorMap *map) {
  asm volatile("prefetch.tensormap [%0];" ::"l"(map) : "memory");
}

// Streamed data: first to leave L2.
__device__ __forceinline__ uint64_t evict_first_policy() {
  uint64_t policy;
  asm volatile("createpolicy.fractional.L2::evict_first.b64 %0, 1.0;" : "=l"(policy));
  return policy;
}

// Data that other blocks are about to read, too.
__device__ __forceinline__ uint64_t evict_normal_policy() {
  uint64_t policy;
  asm volatile("createpolicy.fractional.L2::evict_normal.b64 %0, 1.0;" : "=l"(policy));
  return policy;
}

// Data that will be read again: last to leave L2, of which the driver sets a part aside for such.
__device__ __forceinline__ uint64_t evict_last_policy() {
  uint64_t policy;
  asm volatile("createpolicy.fractional.L2::evict_last.b64 %0, 1.0;" : "=l"(policy));
  return policy;
}

// Stores 16 bytes, or 8, aligned to as many, with a hint to L2.
__device__ __forceinline__ void store_hinted(void *target, uint4 v, uint64_t policy) {
  asm volatile("st.global.L2::cache_hint.v4.b32 [%0], {%1, %2, %3, %4}, %5;" ::"l"(target), "r"(v.x), "r"(v.y), "r"(v.z),
               "r"(v.w), "l"(policy)
               : "memory");
}

__device__ __forceinline__ void store_hinted(void *target, uint2 v, uint64_t policy) {
  asm volatile("st.global.L2::cache_hint.v2.b32 [%0], {%1, %2}, %3;" ::"l"(target), "r"(v.x), "r"(v.y), "l"(policy)
               : "memory");
}

// Copies the box at (x, y, z) of the map to `target`; the bytes are counted on `barrier`.
__device__ __forceinline__ void tma_load(uint32_t target, const CUtensorMap *map, uint32_t barrier, int x, int y, int z,
                                         uint64_t policy) {
  asm volatile(
      "cp.async.bulk.tensor.3d.shared::cluster.global.mbarrier::complete_tx::bytes.L2::cache_hint"
      " [%0], [%1, {%3, %4, %5}], [%2], %6;" ::"r"(target),
      "l"(map), "r"(barrier), "r"(x), "r"(y), "r"(z), "l"(policy)
      : "memory");
}

// The same of a map with four dimensions.
__device__ __forceinline__ void tma_load(uint32_t target, const CUtensorMap *map, uint32_t barrier, int x, int y, int z, int w,
                                         uint64_t policy) {
  asm volatile(
      "cp.async.bulk.tensor.4d.shared::cluster.global.mbarrier::complete_tx::bytes.L2::cache_hint"
      " [%0], [%1, {%3, %4, %5, %6}], [%2], %7;" ::"r"(target),
      "l"(map), "r"(barrier), "r"(x), "r"(y), "r"(z), "r"(w), "l"(policy)
      : "memory");
}

// And with five.
__device__ __forceinline__ void tma_load(uint32_t target, const CUtensorMap *map, uint32_t barrier, int x, int y, int z, int w,
                                         int v, uint64_t policy) {
  asm volatile(
      "cp.async.bulk.tensor.5d.shared::cluster.global.mbarrier::complete_tx::bytes.L2::cache_hint"
      " [%0], [%1, {%3, %4, %5, %6, %7}], [%2], %8;" ::"r"(target),
      "l"(map), "r"(barrier), "r"(x), "r"(y), "r"(z), "r"(w), "r"(v), "l"(policy)
      : "memory");
}

// The same into every block of the cluster named in `blocks`, at the same offsets of target and barrier.
__device__ __forceinline__ void tma_load_multicast(uint32_t target, const CUtensorMap *map, uint32_t barrier, int x,
                                                   int y, int z, uint16_t blocks, uint64_t policy) {
  asm volatile(
      "cp.async.bulk.tensor.3d.shared::cluster.global.mbarrier::complete_tx::bytes.multicast::cluster.L2::cache_hint"
      " [%0], [%1, {%3, %4, %5}], [%2], %6, %7;" ::"r"(target),
      "l"(map), "r"(barrier), "r"(x), "r"(y), "r"(z), "h"(blocks), "l"(policy)
      : "memory");
}
__device__ __forceinline__ void tma_load_multicast(uint32_t target, const CUtensorMap *map, uint32_t barrier, int x, int y,
                                                   int z, int w, int v, uint16_t blocks, uint64_t policy) {
  asm volatile(
      "cp.async.bulk.tensor.5d.shared::cluster.global.mbarrier::complete_tx::bytes.multicast::cluster.L2::cache_hint"
      " [%0], [%1, {%3, %4, %5, %6, %7}], [%2], %8, %9;" ::"r"(target),
      "l"(map), "r"(barrier), "r"(x), "r"(y), "r"(z), "r"(w), "r"(v), "h"(blocks), "l"(policy)
      : "memory");
}

// Copies contiguous bytes, a multiple of 16, both sides 16-byte aligned; they are counted on `barrier`.
__device__ __forceinline__ void bulk_load(uint32_t target, const void *source, uint32_t bytes, uint32_t barrier,
                                          uint64_t policy) {
  asm volatile(
      "cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes.L2::cache_hint [%0], [%1], %2, [%3], %4;" ::"r"(
          target),
      "l"(source), "r"(bytes), "r"(barrier), "l"(policy)
      : "memory");
}

// Copies contiguous bytes, a multiple of 16, from this block's shared memory into that of another block of the cluster; `target` and
// `barrier` are remote addresses of the same block.
__device__ __forceinline__ void bulk_store_remote(uint32_t target, uint32_t source, uint32_t bytes, uint32_t barrier) {
  asm volatile("cp.async.bulk.shared::cluster.shared::cta.mbarrier::complete_tx::bytes [%0], [%1], %2, [%3];" ::"r"(target),
               "r"(source), "r"(bytes), "r"(barrier)
               : "memory");
}

// Brings contiguous bytes, a multiple of 16, 16-byte aligned, into L2 only.
__device__ __forceinline__ void bulk_prefetch(const void *source, uint32_t bytes) {
  asm volatile("cp.async.bulk.prefetch.L2.global [%0], %1;" ::"l"(source), "r"(bytes) : "memory");
}

// Brings a line of 128 bytes into L2 only; not by the copy engine.
__device__ __forceinline__ void prefetch_line(const void *line) { asm volatile("prefetch.global.L2 [%0];" ::"l"(line) : "memory"); }

}  // namespace mla::sm90
