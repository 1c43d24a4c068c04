// The host side of mla_plan and mla_decode: what is supported, tensor maps, launches.

#include "decode.h"

#include <algorithm>

#include "decode_cluster.h"
#include "decode_combine.cuh"
#include "decode_kernel.cuh"
#include "decode_launch.cuh"
#include "decode_team.h"
#include "launch.h"

namespace mla::cuda {
namespace {

// What the kernels cannot take; empty when they can. Shapes agree with each other already.
std::string unsupported(const mla_decode_args &args) {
  const mla_tensor &q = args.q, &cache = args.cache;
  if (q.dtype != MLA_BF16) return "mla_decode on CUDA takes BF16 queries and cache only";
  if (q.shape[3] != kHeadDim) {
    return "mla_decode on CUDA takes keys of 512 + 64 values only, not " + std::to_string(q.shape[3]);
  }
  bool rows_merge = q.shape[1] == 1 || q.stride[1] == q.shape[2] * q.stride[2];
  if (!rows_merge || q.stride[2] % 8 != 0 || q.stride[0] % 8 != 0 || !aligned16(q)) {
    return "mla_decode on CUDA: q must have evenly spaced rows of queries and heads, 16-byte aligned";
  }
  if (cache.stride[1] % 8 != 0 || cache.stride[0] % 8 != 0 || !aligned16(cache)) {
    return "mla_decode on CUDA: cache rows must be 16-byte aligned";
  }
  if (!contiguous(args.out) || !contiguous(args.lse) || !contiguous(args.seq_lens) || !contiguous(args.tiles) ||
      args.block_table.stride[1] != 1 || !aligned16(args.out) || !aligned16(args.tiles) || !aligned16(args.workspace)) {
    return "mla_decode on CUDA: out, lse, seq_lens and tiles must be contiguous, the block table's rows too; out, tiles "
           "and workspace 16-byte aligned";
  }
  return "";
}

template <int kCluster, Splits kSplits>
cudaError_t launch_decode(const DecodeShape &shape, const DecodeMaps &maps, const DecodeParams &params,
                          cudaStream_t stream) {
  auto kernel = decode_kernel<kCluster, kSplits>;
  cudaError_t status =
      cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, sizeof(DecodeSmem));
  if (status != cudaSuccess) return status;
  Launch launch(dim3(shape.tiles, shape.parts), kDecodeThreads, sizeof(DecodeSmem), stream);
  if (kCluster > 1) launch.set_cluster(kCluster);
  return cudaLaunchKernelEx(&launch.config, kernel, maps, params);
}

// Measured: docs/kernels.md. More rows are more blocks for a split, so splits may be longer.
SplitRule split_rule(int rows) {
  const int steps = rows <= kWarpRows ? 64 : rows <= 2 * kTileRows ? 128 : 164;
  return {steps, 1, steps};
}

// Where sequences of many rows are many and whole by the rule, it is the faster plan: parts cost alike without a cut.
bool rule_is_faster(const DecodeShape &shape, int most_splits) {
  return shape.rows >= kTileRows && shape.batch * 2 >= shape.parts * 7 && most_splits == 1;
}

// The next layer writes queries and outputs in the same places: what stays in L2 until then need not go to memory. The driver sets
// 9.8 MB of it aside for that. Where both take much more, it is for outputs, as many columns as fit, unless keys are few, too. All
// measured: docs/kernels.md.
void choose_what_stays(DecodeParams &params, const mla_plan_args &plan) {
  constexpr int64_t kSetAside = 9'800'000, kBoth = 8 << 20, kFewKeys = 100 << 20;
  constexpr int64_t kColumns = kValueDim / 4;  // that are stored together
  const int64_t rows = int64_t{plan.batch} * params.rows, keys = int64_t{plan.batch} * plan.max_len;
  params.staying_columns = static_cast<int>(std::min<int64_t>(kSetAside / (rows * 2) / kColumns * kColumns, kValueDim));
  params.queries_stay = params.staying_columns < kValueDim / 2 || rows * (kHeadDim + kValueDim) * 2 <= kBoth ||
                        keys * kHeadDim * 2 <= kFewKeys;
}

}  // namespace

DecodeShape decode_shape(const mla_plan_args &args, int multiprocessors) {
  // From here on it pays that the tiles of a sequence share what they read, although they must keep step.
  constexpr int kLongSequence = 2048, kFewSequences = 16;
  const bool many_rows = args.s_q * args.heads >= kTileRows;
  DecodeShape shape;
  shape.batch = args.batch;
  shape.s_q = args.s_q;
  shape.heads = args.heads;
  shape.rows = args.s_q * args.heads;
  shape.tiles = (shape.rows + kTileRows - 1) / kTileRows;
  shape.cluster = shape.tiles % 2 == 0 && (args.max_len > kLongSequence || args.batch > kFewSequences) ? 2 : 1;
  shape.parts = std::max(1, multiprocessors / shape.tiles);
  const bool deterministic = args.flags & MLA_PLAN_DETERMINISTIC;
  const SplitRule rule = split_rule(shape.rows);
  const int most_splits = rule.most_splits(steps_of(args.max_len));
  const bool by_rule = deterministic || rule_is_faster(shape, most_splits);
  // Where a part has about one sequence or more, most of what is cut is in two, and one half is there long before the other.
  shape.joins = !by_rule && args.batch * 4 >= shape.parts * 3;
  // All measured: docs/kernels.md.
  shape.sequence_overhead = many_rows ? (by_rule ? 4 : 2) : shape.joins ? 0 : 1;
  shape.split_overhead = !many_rows ? 3 : by_rule ? 4 : 1;
  shape.least_steps = many_rows ? 3 : 1;
  // With few rows a cut costs little. Parts of more than three sequences on average leave too many to the last ones.
  shape.ordered = shape.joins && many_rows && args.batch > shape.parts && args.batch <= std::min(3 * shape.parts, kMostOrdered);
  shape.least_piece = shape.ordered ? 3 : 2;
  shape.rule = by_rule ? rule : SplitRule{};
  shape.most_splits = by_rule ? most_splits : 0;
  // Whole sequences need none; but memory that is sized for many of them serves smaller batches, too, which are planned by load.
  shape.slots = deterministic ? static_cast<int64_t>(args.batch) * most_splits : int64_t{2} * shape.parts;
  shape.team = 1;
  if (!deterministic) return shape;
  const TeamShape team = team_shape(shape, multiprocessors);
  if (team.teams == 0) return shape;
  shape.team = team.blocks;
  shape.team_rows = team.rows;
  shape.tiles = (shape.rows + team.rows - 1) / team.rows;
  shape.parts = std::max(1, team.teams / shape.tiles);
  return shape;
}

// In the workspace the query rows of a sequence lie in sixteens.
int64_t partial_rows(const DecodeShape &shape) {
  return shape.slots * ((shape.rows + kWarpRows - 1) / kWarpRows * kWarpRows);
}

int64_t workspace_floats(const DecodeShape &shape) { return partial_rows(shape) * kPartialRowFloats; }

DecodeParams decode_params(const mla_decode_args &args, const DecodeShape &shape) {
  DecodeParams params;
  params.q = static_cast<const __nv_bfloat16 *>(args.q.data);
  params.q_stride = args.q.stride[0];
  params.q_row_stride = args.q.stride[2];
  params.cache = static_cast<const __nv_bfloat16 *>(args.cache.data);
  params.block_stride = args.cache.stride[0];
  params.key_stride = args.cache.stride[1];
  params.block_table = static_cast<const int32_t *>(args.block_table.data);
  params.table_stride = args.block_table.stride[0];
  params.plan = shape.tables(args.tiles.data);
  params.out = static_cast<__nv_bfloat16 *>(args.out.data);
  params.lse = static_cast<float *>(args.lse.data);
  const int64_t rows = partial_rows(shape);
  params.partial_scale = static_cast<float *>(args.workspace.data);
  params.joined = reinterpret_cast<uint8_t *>(params.partial_scale);
  params.partial_out = reinterpret_cast<__half *>(params.partial_scale + rows * kScales);
  params.partial_lse = params.partial_scale + rows * (kScales + kValueDim / 2);
  params.rule = shape.rule;
  params.most_splits = shape.most_splits;
  params.s_q = shape.s_q;
  params.heads = shape.heads;
  params.rows = shape.rows;
  params.scale_log2 = args.softmax_scale * 1.44269504088896341f;
  choose_what_stays(params, args.plan);
  return params;
}

cudaError_t launch_combine(const DecodeShape &shape, const DecodeParams &params, cudaStream_t stream) {
  const int jobs = std::min(shape.batch, shape.jobs());
  const int64_t rows = static_cast<int64_t>(shape.rows) * jobs;
  const int resident = shape.parts * shape.tiles * shape.team * kCombineBlocksPerMultiprocessor;  // blocks that run at once
  auto combine = [&](auto kernel, int items, int block_items) {
    const int blocks = (items + block_items - 1) / block_items;
    Launch launch(dim3(blocks, std::clamp(resident / blocks, 1, jobs)), kCombineWarps * 32, 0, stream);
    return cudaLaunchKernelEx(&launch.config, kernel, params, jobs);
  };
  // Few slices: a block each, so that all run at once. The warps that share the splits add in another order than one warp
  // does, so the deterministic plan, for which the batch must not matter, does without.
  if (!shape.rule.fixed() && rows * kSlices <= resident) {
    return combine(combine_kernel<kCombineWarps, 1>, shape.rows * kSlices, 1);
  }
  // As wide as leaves work to every warp.
  const int64_t warps = resident * kCombineWarps;
  if (rows >= warps) return combine(combine_kernel<1, 4>, shape.rows, kCombineWarps);
  if (rows * 2 >= warps) return combine(combine_kernel<1, 2>, shape.rows * 2, kCombineWarps);
  return combine(combine_kernel<1, 1>, shape.rows * kSlices, kCombineWarps);
}

mla_status plan(const mla_plan_args &args, const mla_tensor &seq_lens, mla_tensor &tiles, mla_tensor &splits,
                int multiprocessors, cudaStream_t stream, std::string &error) {
  if (args.batch > kMaxPlanBatch) {
    error = "mla_plan on CUDA takes at most " + std::to_string(kMaxPlanBatch) + " sequences, not " +
            std::to_string(args.batch);
    return MLA_UNSUPPORTED;
  }
  if (!contiguous(seq_lens) || !contiguous(tiles) || !contiguous(splits) || !aligned16(tiles)) {
    error = "mla_plan on CUDA: seq_lens, tiles and splits must be contiguous, tiles 16-byte aligned";
    return MLA_UNSUPPORTED;
  }
  if (args.batch == 0) return MLA_OK;
  if (cluster_shape(args).clusters > 0) return device_status(clear_plan(tiles, splits, stream), "mla_plan", error);
  cudaError_t status =
      launch_plan(decode_shape(args, multiprocessors), static_cast<const int32_t *>(seq_lens.data),
                  static_cast<int32_t *>(tiles.data), static_cast<int32_t *>(splits.data), stream);
  return device_status(status, "mla_plan", error);
}

mla_status decode(const mla_decode_args &args, int multiprocessors, cudaStream_t stream, std::string &error) {
  error = unsupported(args);
  if (!error.empty()) return MLA_UNSUPPORTED;
  const DecodeShape shape = decode_shape(args.plan, multiprocessors);
  if (shape.batch == 0 || shape.rows == 0) return MLA_OK;

  const ClusterShape cluster = cluster_shape(args.plan);
  if (cluster.clusters > 0) return decode_by_clusters(args, cluster, shape, stream, error);

  const DecodeParams params = decode_params(args, shape);
  if (shape.team > 1) {
    const mla_status status = decode_by_teams(args, shape, params, stream, error);
    if (status != MLA_OK || shape.most_splits == 1) return status;
    return device_status(launch_combine(shape, params, stream), "mla_decode", error);
  }

  DecodeMaps maps = {};
  const mla_tensor &q = args.q, &cache = args.cache;
  if (!encode_row_map(maps.queries, q.data, kHeadDim, shape.rows, q.stride[2], shape.batch, q.stride[0], kStepTokens) ||
      !encode_atom_map(maps.cache, cache.data, kHeadDim, kBlockTokens, cache.stride[1], cache.shape[0], cache.stride[0],
                       kStepTokens / shape.cluster) ||
      (shape.joins && !encode_map(maps.partials, args.workspace.data, 64, kPartialBoxRows, 64,
                                  partial_rows(shape) / kWarpRows * 2, kPartialBoxRows * 64, kPartialBoxRows))) {
    error = "mla_decode: the driver did not make a tensor map; is it of CUDA 12 or later?";
    return MLA_UNSUPPORTED;
  }

  auto launch = [&](auto cluster) {
    constexpr int kCluster = decltype(cluster)::value;
    if (shape.joins) return launch_decode<kCluster, Splits::kJoined>(shape, maps, params, stream);
    if (shape.rule.fixed()) return launch_decode<kCluster, Splits::kByRule>(shape, maps, params, stream);
    return launch_decode<kCluster, Splits::kCombined>(shape, maps, params, stream);
  };
  cudaError_t status = shape.cluster == 2 ? launch(std::integral_constant<int, 2>()) : launch(std::integral_constant<int, 1>());
  if (status == cudaSuccess && !shape.joins && shape.most_splits != 1) status = launch_combine(shape, params, stream);
  return device_status(status, "mla_decode", error);
}

}  // namespace mla::cuda
