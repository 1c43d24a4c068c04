// What the CUDA tests run and time: work captured in a graph, and how fast the device's memory can be read.
#pragma once

#include <cuda_runtime.h>

#include <algorithm>
#include <cstdint>
#include <vector>

#include "check.h"

namespace mla::test {

// Captures `work` on the stream.
template <typename Work>
cudaGraphExec_t capture(cudaStream_t stream, Work work) {
  cudaGraph_t graph;
  cudaGraphExec_t executable;
  CHECK_CUDA(cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal));
  work();
  CHECK_CUDA(cudaStreamEndCapture(stream, &graph));
  CHECK_CUDA(cudaGraphInstantiate(&executable, graph, 0));
  CHECK_CUDA(cudaGraphDestroy(graph));
  return executable;
}

// Runs `work` once and waits for it; in a graph or without.
template <typename Work>
void run_and_wait(cudaStream_t stream, bool in_graph, Work work) {
  CHECK_CUDA(cudaDeviceSynchronize());  // the inputs
  if (!in_graph) {
    work();
    CHECK_CUDA(cudaStreamSynchronize(stream));
    return;
  }
  cudaGraphExec_t executable = capture(stream, work);
  CHECK_CUDA(cudaGraphLaunch(executable, stream));
  CHECK_CUDA(cudaStreamSynchronize(stream));
  CHECK_CUDA(cudaGraphExecDestroy(executable));
}

// Work captured in a graph, to be timed.
class TimedGraph {
 public:
  template <typename Work>
  TimedGraph(cudaStream_t stream, Work work) : stream_(stream), executable_(capture(stream, work)) {
    CHECK_CUDA(cudaEventCreate(&begin_));
    CHECK_CUDA(cudaEventCreate(&end_));
  }
  ~TimedGraph() {
    CHECK_CUDA(cudaEventDestroy(begin_));
    CHECK_CUDA(cudaEventDestroy(end_));
    CHECK_CUDA(cudaGraphExecDestroy(executable_));
  }
  TimedGraph(const TimedGraph &) = delete;
  TimedGraph &operator=(const TimedGraph &) = delete;
  // Of one replay, in microseconds.
  float time() {
    CHECK_CUDA(cudaEventRecord(begin_, stream_));
    CHECK_CUDA(cudaGraphLaunch(executable_, stream_));
    CHECK_CUDA(cudaEventRecord(end_, stream_));
    CHECK_CUDA(cudaEventSynchronize(end_));
    float milliseconds;
    CHECK_CUDA(cudaEventElapsedTime(&milliseconds, begin_, end_));
    return milliseconds * 1e3f;
  }

 private:
  cudaStream_t stream_;
  cudaGraphExec_t executable_;
  cudaEvent_t begin_, end_;
};

// The median of what `measure` gives, after three times that do not count.
template <typename Measure>
float median_of(int times, Measure measure) {
  constexpr int kWarmUp = 3;
  for (int i = 0; i < kWarmUp; ++i) measure();
  std::vector<float> values;
  for (int i = 0; i < times; ++i) values.push_back(measure());
  std::nth_element(values.begin(), values.begin() + times / 2, values.end());
  return values[times / 2];
}

// Median time of a replay in microseconds.
template <typename Work>
double median_graph_time(cudaStream_t stream, int replays, Work work) {
  TimedGraph graph(stream, work);
  return median_of(replays, [&] { return graph.time(); });
}

template <int kLoads>
__global__ void read_kernel(const uint4 *data, int64_t count, uint32_t *sink) {
  uint32_t sum = 0;
  const int64_t stride = static_cast<int64_t>(gridDim.x) * blockDim.x;
  int64_t i = blockIdx.x * static_cast<int64_t>(blockDim.x) + threadIdx.x;
  for (; i + (kLoads - 1) * stride < count; i += kLoads * stride) {
    uint4 v[kLoads];
#pragma unroll
    for (int k = 0; k < kLoads; ++k) v[k] = __ldcs(data + i + k * stride);
#pragma unroll
    for (int k = 0; k < kLoads; ++k) sum += v[k].x ^ v[k].y ^ v[k].z ^ v[k].w;
  }
  if (sum == 0x12345678) *sink = sum;
}

// GB/s of reading 2 GiB, which takes as much memory for the time.
inline double read_ceiling(cudaStream_t stream) {
  const int64_t bytes = int64_t{2} << 30;
  uint4 *data;
  CHECK_CUDA(cudaMalloc(&data, bytes));
  CHECK_CUDA(cudaMemset(data, 0x5A, bytes));
  double best = 0;
  for (int blocks : {132 * 4, 132 * 8, 132 * 16}) {
    const double us = median_graph_time(stream, 10, [&] {
      read_kernel<8><<<blocks, 256, 0, stream>>>(data, bytes / 16, reinterpret_cast<uint32_t *>(data));
    });
    best = std::max(best, bytes / us / 1e3);
  }
  CHECK_CUDA(cudaFree(data));
  return best;
}

}  // namespace mla::test
