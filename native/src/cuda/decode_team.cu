// The host side of decode_team_kernel.cuh: for which calls it is used, and its launch.

#include "decode_team.h"

#include "decode_team_kernel.cuh"
#include "launch.h"

namespace mla::cuda {
namespace {

using team::TeamSmem;

template <int kBlocks, int kRows>
Launch team_launch(int tiles, int parts, cudaStream_t stream) {
  Launch launch(dim3(kBlocks, tiles, parts), team::kThreads, sizeof(TeamSmem<kBlocks, kRows>), stream);
  launch.set_cluster(kBlocks);
  return launch;
}

template <int kBlocks, int kRows>
cudaError_t allow_memory() {
  return cudaFuncSetAttribute(team::decode_team_kernel<kBlocks, kRows>, cudaFuncAttributeMaxDynamicSharedMemorySize,
                              sizeof(TeamSmem<kBlocks, kRows>));
}

// How many teams run at once; 0 where the device cannot run them.
template <int kBlocks, int kRows>
int teams_at_once() {
  static const int at_once = [] {
    const Launch launch = team_launch<kBlocks, kRows>(1, 1, nullptr);
    int teams = 0;
    if (allow_memory<kBlocks, kRows>() != cudaSuccess ||
        cudaOccupancyMaxActiveClusters(&teams, team::decode_team_kernel<kBlocks, kRows>, &launch.config) != cudaSuccess) {
      cudaGetLastError();  // it is not the next call's
      return 0;
    }
    return teams;
  }();
  return at_once;
}

template <int kBlocks, int kRows>
cudaError_t launch(const DecodeShape &shape, const TeamMaps &maps, const DecodeParams &params, cudaStream_t stream) {
  if (const cudaError_t status = allow_memory<kBlocks, kRows>(); status != cudaSuccess) return status;
  const Launch launch = team_launch<kBlocks, kRows>(shape.tiles, shape.parts, stream);
  return cudaLaunchKernelEx(&launch.config, team::decode_team_kernel<kBlocks, kRows>, maps, params);
}

}  // namespace

// Measured: docs/kernels.md. Of long sequences about half of the splits that there may be are expected.
TeamShape team_shape(const DecodeShape &shape, int multiprocessors) {
  const int64_t splits = shape.most_splits == 1 ? 1 : (shape.most_splits + 1) / 2, items = shape.batch * splits;
  const int sixteens = (shape.rows + kWarpRows - 1) / kWarpRows;
  // Of few rows, since they tell each other rows of P, and of many blocks, as long as all run at once.
  if (items * sixteens * 8 <= multiprocessors) return {8, kWarpRows, teams_at_once<8, kWarpRows>()};
  const int tiles = sixteens == 1 ? 1 : shape.tiles;
  if (items * tiles * 4 > 2 * multiprocessors) return {};
  return sixteens == 1 ? TeamShape{4, kWarpRows, teams_at_once<4, kWarpRows>()}
                       : TeamShape{4, kTileRows, teams_at_once<4, kTileRows>()};
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
  const cudaError_t status = shape.team == 8                ? launch<8, kWarpRows>(shape, maps, params, stream)
                             : shape.team_rows == kWarpRows ? launch<4, kWarpRows>(shape, maps, params, stream)
                                                            : launch<4, kTileRows>(shape, maps, params, stream);
  return device_status(status, "mla_decode", error);
}

}  // namespace mla::cuda
