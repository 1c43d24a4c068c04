// The work list of a prefill call. See docs/kernels.md.
#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>

#include "decode_plan.cuh"

namespace mla::cuda {

constexpr int kPrefillCluster = 2;  // thread blocks with neighbouring tiles, which share the keys
constexpr int kItemRows = kPrefillCluster * kTileRows;

// What a cluster does at a time: up to 128 query rows of one sequence (query-major, then heads) against all keys that the
// last of them sees.
struct alignas(32) PrefillItem {
  int32_t seq;
  int32_t start_row;  // of the sequence's rows in q and out
  int32_t rows;       // of the sequence
  int32_t first_row;  // of the item among them
  int32_t length;     // keys of the sequence
  int32_t steps;      // of keys
  int32_t unused[2];
};

// What the plan kernel writes at the start of the workspace, and what the others read.
struct alignas(32) PrefillPlan {
  int32_t item_count;
  int32_t unused[7];
  __host__ __device__ PrefillItem *items() { return reinterpret_cast<PrefillItem *>(this + 1); }
  __host__ __device__ const PrefillItem *items() const { return reinterpret_cast<const PrefillItem *>(this + 1); }
};

// No call has more items.
constexpr int64_t most_items(int64_t tokens, int64_t heads, int64_t batch) { return tokens * heads / kItemRows + batch; }

// Lists the items of all sequences, those with the most keys first.
cudaError_t launch_prefill_plan(const int32_t *query_start, const int32_t *seq_lens, int batch, int heads,
                                PrefillPlan *plan, cudaStream_t stream);

}  // namespace mla::cuda
