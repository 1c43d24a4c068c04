// The host side of decode_cluster_kernel.cuh: for which calls it is used, and its launch.

#include "decode_cluster.h"

#include <algorithm>

#include "decode_cluster_kernel.cuh"
#include "decode_launch.cuh"
#include "launch.h"

namespace mla::cuda {
namespace {

using clustered::ClusterParams;
using clustered::ClusterSmem;

template <int kRows, int kRing, int kBlocks>
Launch cluster_launch(int tiles, int clusters, cudaStream_t stream) {
  constexpr int kBytes = sizeof(ClusterSmem<kRows, kRing, kBlocks>);
  static_assert(kBytes <= 227 * 1024, "shared memory of a block");
  Launch launch(dim3(kBlocks, tiles, clusters), clustered::kThreads, kBytes, stream);
  launch.set_cluster(kBlocks);
  return launch;
}

// How many clusters run at once; 0 where the device cannot run them. Sets what the kernel needs to be launched.
template <int kRows, int kRing, int kBlocks>
int clusters_at_once() {
  auto kernel = clustered::decode_cluster_kernel<kRows, kRing, kBlocks>;
  const Launch launch = cluster_launch<kRows, kRing, kBlocks>(1, 1, nullptr);
  int clusters = 0;
  if (cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize,
                           static_cast<int>(launch.config.dynamicSmemBytes)) != cudaSuccess ||
      cudaFuncSetAttribute(kernel, cudaFuncAttributeNonPortableClusterSizeAllowed, 1) != cudaSuccess ||
      cudaOccupancyMaxActiveClusters(&clusters, kernel, &launch.config) != cudaSuccess) {
    cudaGetLastError();  // it is not the next call's
    return 0;
  }
  return clusters;
}

// The shape for a call, if so many clusters run at once that each sequence can have one.
template <int kRows, int kRing, int kBlocks>
ClusterShape shape_of(const mla_plan_args &args, int most_alone) {
  static const int at_once = clusters_at_once<kRows, kRing, kBlocks>();
  ClusterShape shape = {kRows, kRing, kBlocks, most_alone, quotient_up(args.s_q * args.heads, kRows), 0};
  // No more than can have work. As many as run at once have room for their arrivals in `tiles`, and for their sums in the
  // workspace.
  const int useful = quotient_up(quotient_up(args.max_len, kBlockTokens), kBlocks) * args.batch;
  const int clusters = std::max(std::min(at_once / shape.tiles, useful), args.batch);
  if (clusters * shape.tiles <= at_once) shape.clusters = clusters;
  return shape;
}

template <int kRows, int kRing, int kBlocks>
cudaError_t launch(const ClusterShape &cluster, const DecodeMaps &maps, const ClusterParams &params, cudaStream_t stream) {
  const Launch launch = cluster_launch<kRows, kRing, kBlocks>(cluster.tiles, cluster.clusters, stream);
  return cudaLaunchKernelEx(&launch.config, clustered::decode_cluster_kernel<kRows, kRing, kBlocks>, maps, params);
}

}  // namespace

// Measured: docs/kernels.md. Many rows read the keys once a tile, so they must be few keys; sequences that are many or long and
// of many rows want the other kernel.
ClusterShape cluster_shape(const mla_plan_args &args) {
  constexpr int kShort = 1024, kFewSequences = 8;
  const int rows = args.s_q * args.heads;
  if (args.batch <= 0 || rows <= 0 || args.flags & MLA_PLAN_DETERMINISTIC) return {};
  if (args.batch == 1 && args.max_len <= kShort) {
    if (rows <= 16) return shape_of<8, 1, 16>(args, 1);
    return rows <= 128 ? shape_of<16, 1, 8>(args, 2) : ClusterShape{};
  }
  if (rows > 16 || args.batch > kFewSequences) return {};
  return args.batch == 1 ? shape_of<16, 2, 16>(args, 1) : shape_of<16, 2, 8>(args, 4);
}

cudaError_t clear_plan(const mla_tensor &tiles, const mla_tensor &splits, cudaStream_t stream) {
  const cudaError_t status = cudaMemsetAsync(tiles.data, 0, tiles.shape[0] * tiles.shape[1] * sizeof(int32_t), stream);
  return status != cudaSuccess ? status : cudaMemsetAsync(splits.data, 0, splits.shape[0] * sizeof(int32_t), stream);
}

mla_status decode_by_clusters(const mla_decode_args &args, const ClusterShape &cluster, const DecodeShape &shape,
                              cudaStream_t stream, std::string &error) {
  DecodeMaps maps = {};
  const mla_tensor &q = args.q, &cache = args.cache;
  if (!encode_row_map(maps.queries, q.data, kHeadDim, shape.rows, q.stride[2], shape.batch, q.stride[0], cluster.rows) ||
      !encode_row_map(maps.cache, cache.data, kHeadDim, kBlockTokens, cache.stride[1], cache.shape[0], cache.stride[0],
                      kBlockTokens)) {
    error = "mla_decode: the driver did not make a tensor map; is it of CUDA 12 or later?";
    return MLA_UNSUPPORTED;
  }
  ClusterParams params;
  static_cast<DecodeParams &>(params) = decode_params(args, shape);
  params.seq_lens = static_cast<const int32_t *>(args.seq_lens.data);
  params.batch = shape.batch;
  params.most_alone = cluster.most_alone;
  params.arrivals = static_cast<int32_t *>(args.tiles.data);
  params.sums = static_cast<float *>(args.workspace.data);
  params.sums_lse = params.sums + int64_t{cluster.clusters} * shape.rows * kValueDim;

  cudaError_t status = cudaErrorInvalidValue;
  const auto is = [&](int rows, int ring, int blocks) {
    return cluster.rows == rows && cluster.ring == ring && cluster.blocks == blocks;
  };
  if (is(8, 1, 16)) status = launch<8, 1, 16>(cluster, maps, params, stream);
  if (is(16, 2, 8)) status = launch<16, 2, 8>(cluster, maps, params, stream);
  if (is(16, 1, 8)) status = launch<16, 1, 8>(cluster, maps, params, stream);
  if (is(16, 2, 16)) status = launch<16, 2, 16>(cluster, maps, params, stream);
  return device_status(status, "mla_decode", error);
}

}  // namespace mla::cuda
