// The host side of decode_team_kernel.cuh: for which calls it is used, and its launch.

#include "decode_team.h"

#include <algorithm>

#include "decode_team_kernel.cuh"
#include "launch.h"

namespace mla::cuda {
namespace {

using team::TeamSmem;

template <int kBlocks>
Launch team_launch(int tiles, int parts, cudaStream_t stream) {
  Launch launch(dim3(kBlocks, tiles, parts), team::kThreads, sizeof(TeamSmem<kBlocks>), stream);
  launch.set_cluster(kBlocks);
  return launch;
}

template <int kBlocks>
cudaError_t allow_memory() {
  return cudaFuncSetAttribute(team::decode_team_kernel<kBlocks>, cudaFuncAttributeMaxDynamicSharedMemorySize,
                              sizeof(TeamSmem<kBlocks>));
}

// How many teams run at once; 0 where the device cannot run them.
template <int kBlocks>
int teams_at_once() {
  static const int at_once = [] {
    const Launch launch = team_launch<kBlocks>(1, 1, nullptr);
    int teams = 0;
    if (allow_memory<kBlocks>() != cudaSuccess ||
        cudaOccupancyMaxActiveClusters(&teams, team::decode_team_kernel<kBlocks>, &launch.config) != cudaSuccess) {
      cudaGetLastError();  // it is not the next call's
      return 0;
    }
    return teams;
  }();
  return at_once;
}

template <int kBlocks>
cudaError_t launch(const DecodeShape &shape, const TeamMaps &maps, const DecodeParams &params, cudaStream_t stream) {
  if (const cudaError_t status = allow_memory<kBlocks>(); status != cudaSuccess) return status;
  const Launch launch = team_launch<kBlocks>(shape.tiles, shape.parts, stream);
  return cudaLaunchKernelEx(&launch.config, team::decode_team_kernel<kBlocks>, maps, params);
}

}  // namespace

// Measured: docs/kernels.md. Of long sequences about half of the splits that there may be are expected.
TeamShape team_shape(const DecodeShape &shape) {
  const int splits = shape.most_splits == 1 ? 1 : (shape.most_splits + 1) / 2;
  const int64_t items = int64_t{shape.batch} * splits * shape.tiles;
  if (items <= teams_at_once<8>()) return {8, teams_at_once<8>()};
  if (items <= teams_at_once<4>()) return {4, teams_at_once<4>()};
  return {1, 0};
}

mla_status decode_by_teams(const mla_decode_args &args, const DecodeShape &shape, const DecodeParams &params,
                           cudaStream_t stream, std::string &error) {
  TeamMaps maps;
  const mla_tensor &q = args.q, &cache = args.cache;
  if (!encode_row_map(maps.queries, q.data, kHeadDim, shape.rows, q.stride[2], shape.batch, q.stride[0], kWarpRows) ||
      !encode_atom_map(maps.cache, cache.data, kHeadDim, kBlockTokens, cache.stride[1], cache.shape[0], cache.stride[0],
                       kStepTokens) ||
      !encode_row_map(maps.values, cache.data, kHeadDim, kBlockTokens, cache.stride[1], cache.shape[0], cache.stride[0],
                      kBlockTokens, kValueDim / shape.team)) {
    error = "mla_decode: the driver did not make a tensor map; is it of CUDA 12 or later?";
    return MLA_UNSUPPORTED;
  }
  const cudaError_t status = shape.team == 8 ? launch<8>(shape, maps, params, stream) : launch<4>(shape, maps, params, stream);
  return device_status(status, "mla_decode", error);
}

}  // namespace mla::cuda
