// An order of the sequences in which the plan by load cuts few of them, since a cut costs a partial result and the joining of it. One
// part after the other gets up to three whole sequences that just fill it: the longest that is left and the one or two that fit best
// beside it. Those that fill none come last, and are cut.

#include <cuda_runtime.h>

#include "decode.h"
#include "decode_plan_scan.cuh"

namespace mla::cuda {
namespace {

struct OrderParams {
  const int32_t *seq_lens;
  PlanSequence *sequences;
  int batch, part_count, overhead;
  int slack;  // steps that a part may have less than its share: the plan moves the cut so far
};

constexpr int kMostThreads = kMostOrdered + 32;  // a sequence each, and one for none
constexpr int kPlaceBits = 10;
constexpr int kMostLacking = (1 << (32 - 2 * kPlaceBits)) - 1;
static_assert(kMostOrdered < 1 << kPlaceBits);

// Sequences that are not placed yet, the most costly first; behind them one of cost 0, which stands for none.
struct Waiting {
  int costs[kMostThreads];
  int seqs[kMostThreads];
};

// The least of the threads' values, for all of them.
__device__ uint32_t block_least(uint32_t value, uint32_t (&least)[kMostThreads / 32]) {
  const int warps = blockDim.x / 32, lane = threadIdx.x % 32;
  value = __reduce_min_sync(~0u, value);
  if (lane == 0) least[threadIdx.x / 32] = value;
  __syncthreads();
  return __reduce_min_sync(~0u, lane < warps ? least[lane] : ~0u);
}

__global__ void __launch_bounds__(kMostThreads) order_kernel(OrderParams p) {
  __shared__ Waiting waiting;
  __shared__ int unsorted[kMostThreads];
  __shared__ uint32_t least[kMostThreads / 32];
  const int me = threadIdx.x;
  const int cost = me < p.batch ? p.overhead + steps_of(p.seq_lens[me]) : 0;
  unsorted[me] = cost;
  __syncthreads();
  int rank = 0, total = 0;
  for (int i = 0; i < p.batch; ++i) {
    const int other = unsorted[i];
    rank += other > cost || (other == cost && i < me);
    total += other;
  }
  if (me <= p.batch) {  // the last of them is none
    waiting.costs[rank] = cost;
    waiting.seqs[rank] = me;
  }
  __syncthreads();

  int count = p.batch;                // of those that wait
  int part = 0, cost_placed = 0;      // parts that are filled, and what they cost
  int placed = 0, left = p.batch;     // places taken in the order, from the front and from the back
  auto put = [&](int place, int at) { p.sequences[place] = {waiting.seqs[at], p.seq_lens[waiting.seqs[at]]}; };
  while (count > 0 && part < p.part_count) {
    // Each thread has one that might stand beside the first, and finds the one that fits best with both: the costliest that is not
    // too much.
    uint32_t best = ~0u;
    const int room = part_end(total, part, p.part_count) - cost_placed - waiting.costs[0];
    if (me > 0 && me <= count && waiting.costs[me] <= room) {
      const int rest = room - waiting.costs[me];
      int low = min(me + 1, count), high = count;
      while (low < high) {
        const int middle = (low + high) / 2;
        if (waiting.costs[middle] <= rest) high = middle;
        else low = middle + 1;
      }
      const int lacking = min(rest - waiting.costs[low], kMostLacking);
      best = static_cast<uint32_t>(lacking) << 2 * kPlaceBits | me << kPlaceBits | low;
    }
    best = block_least(best, least);
    const bool fills = best != ~0u && static_cast<int>(best >> 2 * kPlaceBits) <= p.slack;
    // That take their places now; `count` stands for none.
    const int second = fills ? best >> kPlaceBits & ((1 << kPlaceBits) - 1) : count;
    const int third = fills ? best & ((1 << kPlaceBits) - 1) : count;
    if (me == 0) {
      put(fills ? placed : left - 1, 0);
      if (second < count) put(placed + 1, second);
      if (third < count) put(placed + 2, third);
    }
    const int taken = 1 + (second < count) + (third < count);
    if (fills) {
      cost_placed += waiting.costs[0] + waiting.costs[second] + waiting.costs[third];
      placed += taken;
      ++part;
    } else {
      --left;
    }
    const int my_cost = waiting.costs[me], my_seq = waiting.seqs[me];
    __syncthreads();
    if (me > 0 && me <= count && (me == count || (me != second && me != third))) {
      const int to = me - 1 - (me > second) - (me > third);
      waiting.costs[to] = my_cost;
      waiting.seqs[to] = my_seq;
    }
    count -= taken;
    __syncthreads();
  }
  if (me < count) put(placed + me, me);
}

}  // namespace

cudaError_t launch_order(const DecodeShape &shape, const int32_t *seq_lens, PlanSequence *sequences, cudaStream_t stream) {
  if (shape.batch > kMostOrdered) return cudaErrorInvalidValue;
  const int overhead = shape.sequence_overhead + shape.split_overhead;
  OrderParams params = {seq_lens, sequences, shape.batch, shape.parts, overhead, overhead + shape.least_piece - 1};
  order_kernel<<<1, shape.batch / 32 * 32 + 32, 0, stream>>>(params);
  return cudaGetLastError();
}

}  // namespace mla::cuda
