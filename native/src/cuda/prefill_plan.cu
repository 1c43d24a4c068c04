// Lists the items of a prefill call by falling number of keys: a counting sort in one thread block.

#include "prefill_plan.cuh"

#include <cub/block/block_scan.cuh>

#include "decode.h"
#include "sm90/barrier.cuh"

namespace mla::cuda {
namespace {

constexpr int kPlanThreads = 1024;
constexpr int kBuckets = 2 * kPlanThreads;
using BlockScan = cub::BlockScan<int, kPlanThreads>;

struct PrefillPlanParams {
  const int32_t *query_start, *seq_lens;
  PrefillPlan *plan;
  int batch, heads;
};

// More steps, lower bucket; neighbours differ by one part in 64.
__device__ int bucket_of(int steps) {
  const uint32_t bits = __float_as_uint(static_cast<float>(steps + 1)) - __float_as_uint(1.0f);
  return max(kBuckets - 1 - static_cast<int>(bits >> 17), 0);
}

__device__ PrefillItem item_of(const PrefillPlanParams &p, int seq, int index) {
  const int begin = p.query_start[seq], queries = p.query_start[seq + 1] - begin;
  PrefillItem item = {};
  item.seq = seq;
  item.start_row = begin * p.heads;
  item.rows = queries * p.heads;
  item.first_row = index * kItemRows;
  item.length = p.seq_lens[seq];
  const int last_query = min(item.first_row + kItemRows, item.rows) - 1;
  const int keys = item.length - queries + last_query / p.heads + 1;
  item.steps = (keys + kStepTokens - 1) / kStepTokens;
  return item;
}

__global__ void __launch_bounds__(kPlanThreads) prefill_plan_kernel(PrefillPlanParams p) {
  extern __shared__ int ends[];  // prefix sum of the sequences' items
  __shared__ int buckets[kBuckets];
  __shared__ BlockScan::TempStorage scan;
  const int thread = threadIdx.x;
  sm90::launch_dependents();  // its prologue overlaps; it waits for the list

  int total = 0;
  for (int base = 0; base < p.batch; base += kPlanThreads) {
    const int seq = base + thread;
    int items = 0, sum;
    if (seq < p.batch) {
      items = ((p.query_start[seq + 1] - p.query_start[seq]) * p.heads + kItemRows - 1) / kItemRows;
    }
    BlockScan(scan).InclusiveSum(items, items, sum);
    if (seq < p.batch) ends[seq] = total + items;
    total += sum;
    __syncthreads();
  }
  auto nth_item = [&](int n) {
    int low = 0, high = p.batch - 1;  // the first sequence that ends beyond n
    while (low < high) {
      const int middle = (low + high) / 2;
      if (ends[middle] > n) high = middle;
      else low = middle + 1;
    }
    return item_of(p, low, n - (low > 0 ? ends[low - 1] : 0));
  };

  buckets[2 * thread] = buckets[2 * thread + 1] = 0;
  __syncthreads();
  for (int n = thread; n < total; n += kPlanThreads) atomicAdd(&buckets[bucket_of(nth_item(n).steps)], 1);
  __syncthreads();
  int places[2] = {buckets[2 * thread], buckets[2 * thread + 1]};
  BlockScan(scan).ExclusiveSum(places, places);
  __syncthreads();
  buckets[2 * thread] = places[0];
  buckets[2 * thread + 1] = places[1];
  __syncthreads();
  // Which of equals comes first is open; results do not depend on it.
  for (int n = thread; n < total; n += kPlanThreads) {
    const PrefillItem item = nth_item(n);
    p.plan->items()[atomicAdd(&buckets[bucket_of(item.steps)], 1)] = item;
  }
  if (thread == 0) p.plan->item_count = total;
}

}  // namespace

cudaError_t launch_prefill_plan(const int32_t *query_start, const int32_t *seq_lens, int batch, int heads,
                                PrefillPlan *plan, cudaStream_t stream) {
  cudaError_t status = cudaFuncSetAttribute(prefill_plan_kernel, cudaFuncAttributeMaxDynamicSharedMemorySize,
                                            kMaxPlanBatch * static_cast<int>(sizeof(int)));
  if (status != cudaSuccess) return status;
  prefill_plan_kernel<<<1, kPlanThreads, batch * sizeof(int), stream>>>({query_start, seq_lens, plan, batch, heads});
  return cudaGetLastError();
}

}  // namespace mla::cuda
