// The host side of mla_prefill: what is supported, tensor maps, launches.

#include "prefill.h"

#include <algorithm>

#include "decode.h"
#include "launch.h"
#include "prefill_kernel.cuh"

namespace mla::cuda {
namespace {

// What the kernel cannot take; empty when it can. Shapes agree with each other already.
std::string unsupported(const mla_prefill_args &args, const void *workspace) {
  const mla_tensor &q = args.q, &cache = args.cache;
  if (q.dtype != MLA_BF16) return "mla_prefill on CUDA takes BF16 queries and cache only";
  if (q.shape[2] != kHeadDim || args.out.shape[2] != kValueDim) {
    return "mla_prefill on CUDA takes keys of 512 + 64 values and outputs of 512 only, not " +
           std::to_string(q.shape[2]) + " and " + std::to_string(args.out.shape[2]);
  }
  if (q.shape[0] * q.shape[1] >= int64_t{1} << 31) {
    return "mla_prefill on CUDA takes fewer than 2^31 query rows in a call, not " +
           std::to_string(q.shape[0] * q.shape[1]) + "; use smaller chunks";
  }
  if (args.seq_lens.shape[0] > kMaxPlanBatch) {
    return "mla_prefill on CUDA takes at most " + std::to_string(kMaxPlanBatch) + " sequences, not " +
           std::to_string(args.seq_lens.shape[0]);
  }
  bool rows_merge = q.shape[0] == 1 || q.stride[0] == q.shape[1] * q.stride[1];
  if (!rows_merge || q.stride[1] % 8 != 0 || !aligned16(q)) {
    return "mla_prefill on CUDA: q must have evenly spaced rows of tokens and heads, 16-byte aligned";
  }
  if (cache.stride[1] % 8 != 0 || cache.stride[0] % 8 != 0 || !aligned16(cache)) {
    return "mla_prefill on CUDA: cache rows must be 16-byte aligned";
  }
  if (!contiguous(args.out) || !contiguous(args.seq_lens) || !contiguous(args.query_start) ||
      args.block_table.stride[1] != 1 || !aligned16(args.out) || reinterpret_cast<uintptr_t>(workspace) % 32 != 0) {
    return "mla_prefill on CUDA: out, seq_lens and query_start must be contiguous, the block table's rows too; out 16-byte "
           "and the workspace 32-byte aligned";
  }
  return "";
}

cudaError_t launch_prefill(const DecodeMaps &maps, const PrefillParams &params, int clusters, cudaStream_t stream) {
  cudaError_t status =
      cudaFuncSetAttribute(prefill_kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, sizeof(DecodeSmem));
  if (status != cudaSuccess) return status;
  Launch launch(dim3(clusters * kPrefillCluster), kDecodeThreads, sizeof(DecodeSmem), stream);
  launch.set_cluster(kPrefillCluster);
  return cudaLaunchKernelEx(&launch.config, prefill_kernel, maps, params);
}

}  // namespace

int64_t prefill_workspace_bytes(int64_t tokens, int64_t heads, int64_t batch) {
  return static_cast<int64_t>(sizeof(PrefillPlan)) + most_items(tokens, heads, batch) * sizeof(PrefillItem);
}

mla_status prefill(const mla_prefill_args &args, void *workspace, int multiprocessors, cudaStream_t stream,
                   std::string &error) {
  error = unsupported(args, workspace);
  if (!error.empty()) return MLA_UNSUPPORTED;
  const mla_tensor &q = args.q, &cache = args.cache;
  const int64_t tokens = q.shape[0], heads = q.shape[1], batch = args.seq_lens.shape[0];
  if (tokens == 0 || heads == 0 || batch == 0) return MLA_OK;

  DecodeMaps maps;
  if (!encode_row_map(maps.queries, q.data, kHeadDim, tokens * heads, q.stride[1], 1, tokens * heads * q.stride[1],
                      kStepTokens) ||
      !encode_atom_map(maps.cache, cache.data, kHeadDim, kBlockTokens, cache.stride[1], cache.shape[0], cache.stride[0],
                       kStepTokens / kPrefillCluster)) {
    error = "mla_prefill: the driver did not make a tensor map of q or the cache; is it of CUDA 12 or later?";
    return MLA_UNSUPPORTED;
  }

  auto *plan = static_cast<PrefillPlan *>(workspace);
  PrefillParams params;
  params.block_table = static_cast<const int32_t *>(args.block_table.data);
  params.table_stride = args.block_table.stride[0];
  params.plan = plan;
  params.out = static_cast<__nv_bfloat16 *>(args.out.data);
  params.heads = static_cast<int>(heads);
  params.scale_log2 = args.softmax_scale * 1.44269504088896341f;

  cudaError_t status = launch_prefill_plan(static_cast<const int32_t *>(args.query_start.data),
                                           static_cast<const int32_t *>(args.seq_lens.data), static_cast<int>(batch),
                                           params.heads, plan, stream);
  const int64_t clusters =
      std::min<int64_t>(multiprocessors / kPrefillCluster, most_items(tokens, heads, batch));
  if (status == cudaSuccess) status = launch_prefill(maps, params, static_cast<int>(clusters), stream);
  return device_status(status, "mla_prefill", error);
}

}  // namespace mla::cuda
