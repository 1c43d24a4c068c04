// What sample and log_softmax_top_k share: a row of logits is worked on by a cluster of thread blocks, each of which takes a
// slice of consecutive ids.
#pragma once

#include <cooperative_groups.h>

#include "kernel.cuh"
#include "rows.cuh"

namespace mla::cuda {

constexpr int kVocabularyCluster = 8;  // blocks of a row, where they hold it in their shared memory
constexpr int kVocabularyThreads = 512;
constexpr int kVocabularyWarps = kVocabularyThreads / 32;

struct Slice {
  int begin, count;
};

// A multiple of 4, so that slices begin at 16 bytes where rows do.
__host__ __device__ inline int slice_length(int vocabulary, int blocks) {
  return ((vocabulary + blocks - 1) / blocks + 3) / 4 * 4;
}

__device__ __forceinline__ Slice slice_of(int vocabulary, int rank, int blocks) {
  const int length = slice_length(vocabulary, blocks);
  const int begin = min(rank * length, vocabulary);
  return {begin, min(length, vocabulary - begin)};
}

// Calls body(place in the slice, piece of 4 logits or 1) for all of a slice, ascending within a thread. kUnroll: loads of a
// thread on their way at once.
template <int kUnroll, class Body>
__device__ __forceinline__ void for_each_piece(const float *logits, int count, Body body) {
  int done = 0;
  if (reinterpret_cast<uintptr_t>(logits) % 16 == 0) {
    const int pieces = count / 4;
    const auto *from = reinterpret_cast<const float4 *>(logits);
    for (int first = threadIdx.x; first < pieces; first += kUnroll * kVocabularyThreads) {
      float4 piece[kUnroll];
#pragma unroll
      for (int u = 0; u < kUnroll; u++) {
        const int i = first + u * kVocabularyThreads;
        if (i < pieces) {
          piece[u] = __ldcs(from + i);  // not worth a place in the cache
        }
      }
#pragma unroll
      for (int u = 0; u < kUnroll; u++) {
        const int i = first + u * kVocabularyThreads;
        if (i < pieces) {
          body(4 * i, Piece<4>{{piece[u].x, piece[u].y, piece[u].z, piece[u].w}});
        }
      }
    }
    done = 4 * pieces;
  }
  for (int i = done + static_cast<int>(threadIdx.x); i < count; i += kVocabularyThreads) {
    body(i, Piece<1>{{logits[i]}});
  }
}

// Of two, the larger value, and of equal values the lower id: as keys, of which 0 stands for none.
__device__ __forceinline__ uint64_t choice_key(float value, int id) {
  return static_cast<uint64_t>(ordered(value)) << 32 | (0xFFFFFFFFu - static_cast<uint32_t>(id));
}
__device__ __forceinline__ int choice_id(uint64_t key) {
  return static_cast<int>(0xFFFFFFFFu - static_cast<uint32_t>(key));
}
__device__ __forceinline__ float choice_value(uint64_t key) { return from_ordered(static_cast<uint32_t>(key >> 32)); }

// The block's largest key in all threads. scratch: a place a warp, of this call alone.
__device__ __forceinline__ uint64_t block_max(uint64_t key, uint64_t *scratch) {
  key = warp_max(key);
  if (threadIdx.x % 32 == 0) {
    scratch[threadIdx.x / 32] = key;
  }
  __syncthreads();
  return warp_max(threadIdx.x % 32 < kVocabularyWarps ? scratch[threadIdx.x % 32] : uint64_t{0});
}

}  // namespace mla::cuda
