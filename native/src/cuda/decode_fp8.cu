// The host side of the FP8 cache's decode, and the kernel that appends to the cache.

#include "decode_fp8.h"

#include <cuda_fp8.h>

#include <algorithm>

#include "decode_fp8_kernel.cuh"
#include "decode_launch.cuh"
#include "launch.h"

namespace mla::cuda {
namespace {

constexpr int kAppendWarps = 8;
constexpr float kLargestE4m3 = 448.0f;

struct AppendParams {
  const __nv_bfloat16 *latent, *rope;
  const int64_t *slots;
  uint8_t *cache;
  int64_t latent_stride, rope_stride;  // in elements
  int tokens;
};

// A warp a token: 16 latent values a lane, so that eight lanes share a scale.
__global__ void __launch_bounds__(kAppendWarps * 32) append_fp8_kernel(AppendParams p) {
  const int token = blockIdx.x * kAppendWarps + threadIdx.x / 32, lane = threadIdx.x % 32;
  if (token >= p.tokens) return;
  uint8_t *target = p.cache + p.slots[token] * kFp8TokenBytes;

  uint4 raw[2];
  const auto *source = reinterpret_cast<const uint4 *>(p.latent + token * p.latent_stride + lane * 16);
  raw[0] = source[0];
  raw[1] = source[1];
  float2 v[8];
  float top = 0.0f;
  bool wrong = false;
#pragma unroll
  for (int i = 0; i < 8; ++i) {
    v[i] = __bfloat1622float2(reinterpret_cast<const __nv_bfloat162 *>(raw)[i]);
    top = fmaxf(top, fmaxf(fabsf(v[i].x), fabsf(v[i].y)));
    wrong = wrong || isnan(v[i].x) || isnan(v[i].y);
  }
  for (int step = 1; step < 8; step *= 2) top = fmaxf(top, __shfl_xor_sync(~0u, top, step));
  const uint32_t group = 0xFFu << lane / 8 * 8;
  // Decode takes no e4m3 bits for a NaN, so that one shows in the scale.
  const float scale = __ballot_sync(~0u, wrong) & group ? NAN : top / kLargestE4m3;
  alignas(16) uint16_t packed[8];
#pragma unroll
  for (int i = 0; i < 8; ++i) {
    const float2 x = top > 0.0f ? make_float2(v[i].x / scale, v[i].y / scale) : make_float2(0.0f, 0.0f);
    packed[i] = __nv_cvt_float2_to_fp8x2(x, __NV_SATFINITE, __NV_E4M3);
  }
  *reinterpret_cast<uint4 *>(target + lane * 16) = *reinterpret_cast<const uint4 *>(packed);
  if (lane % 8 == 0) *reinterpret_cast<float *>(target + kFp8ScalesAt + lane / 8 * 4) = scale;
  reinterpret_cast<uint32_t *>(target + kFp8RopeAt)[lane] =
      reinterpret_cast<const uint32_t *>(p.rope + token * p.rope_stride)[lane];
}

bool is_fp8_cache(const mla_tensor &cache) {
  return cache.dtype == MLA_F8_E4M3 && cache.rank == 3 && cache.shape[1] == kBlockTokens &&
         cache.shape[2] == kFp8TokenBytes && contiguous(cache) && aligned16(cache);
}

// What the kernels cannot take; empty when they can.
std::string unsupported(const mla_decode_args &args) {
  const mla_tensor &q = args.q;
  if (q.dtype != MLA_BF16 || q.shape[3] != kHeadDim) {
    return "decode_fp8 takes BF16 queries of 512 + 64 values only, not of " + std::to_string(q.shape[3]);
  }
  if (!is_fp8_cache(args.cache)) {
    return "decode_fp8 takes a contiguous e4m3 cache [blocks, 64, 656], 16-byte aligned, only";
  }
  bool rows_merge = q.shape[1] == 1 || q.stride[1] == q.shape[2] * q.stride[2];
  if (!rows_merge || q.stride[2] % 8 != 0 || q.stride[0] % 8 != 0 || !aligned16(q)) {
    return "decode_fp8: q must have evenly spaced rows of queries and heads, 16-byte aligned";
  }
  if (!contiguous(args.out) || !contiguous(args.lse) || !contiguous(args.seq_lens) || !contiguous(args.tiles) ||
      args.block_table.stride[1] != 1 || !aligned16(args.out) || !aligned16(args.tiles) || !aligned16(args.workspace)) {
    return "decode_fp8: out, lse, seq_lens and tiles must be contiguous, the block table's rows too; out, tiles and "
           "workspace 16-byte aligned";
  }
  return "";
}

int row_tiles(int rows) { return rows > 16 ? 2 : 1; }  // of 16 rows, in a thread block

template <int kTiles>
cudaError_t launch_decode_fp8(const DecodeShape &shape, const Fp8Params &params, cudaStream_t stream) {
  auto kernel = decode_fp8_kernel<kTiles>;
  constexpr int kBytes = sizeof(Fp8Smem<kTiles>);
  cudaError_t status = cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, kBytes);
  if (status != cudaSuccess) return status;
  Launch launch(dim3(shape.tiles, shape.parts), kFp8Threads, kBytes, stream);
  return cudaLaunchKernelEx(&launch.config, kernel, params);
}

}  // namespace

mla_status append_fp8(const mla_tensor &latent, const mla_tensor &k_rope, const mla_tensor &slots, const mla_tensor &cache,
                      cudaStream_t stream, std::string &error) {
  if (latent.dtype != MLA_BF16 || latent.shape[1] != kValueDim || latent.stride[0] % 8 != 0 || !aligned16(latent) ||
      k_rope.dtype != MLA_BF16 || k_rope.shape[1] != kHeadDim - kValueDim || k_rope.stride[0] % 2 != 0) {
    error = "append_fp8 takes BF16 latents of 512 values, 16-byte aligned, and rotated keys of 64, 4-byte aligned";
    return MLA_UNSUPPORTED;
  }
  if (!is_fp8_cache(cache) || !contiguous(slots)) {
    error = "append_fp8 takes a contiguous e4m3 cache [blocks, 64, 656], 16-byte aligned, and contiguous slots";
    return MLA_UNSUPPORTED;
  }
  const int tokens = static_cast<int>(latent.shape[0]);
  if (tokens == 0) return MLA_OK;
  append_fp8_kernel<<<(tokens + kAppendWarps - 1) / kAppendWarps, kAppendWarps * 32, 0, stream>>>(
      {static_cast<const __nv_bfloat16 *>(latent.data), static_cast<const __nv_bfloat16 *>(k_rope.data),
       static_cast<const int64_t *>(slots.data), static_cast<uint8_t *>(cache.data), latent.stride[0], k_rope.stride[0],
       tokens});
  return device_status(cudaGetLastError(), "append_fp8", error);
}

DecodeShape decode_fp8_shape(const mla_plan_args &args, int multiprocessors) {
  DecodeShape shape = decode_shape(args, multiprocessors);
  const bool deterministic = args.flags & MLA_PLAN_DETERMINISTIC;
  // Without teams few sequences want shorter splits.
  shape.rule = !deterministic           ? SplitRule{}
               : args.heads > 64        ? SplitRule{24, 2, 64}
               : shape.rows > kWarpRows ? SplitRule{24, 2, 128}
                                        : SplitRule{10, 4, 32};
  shape.most_splits = deterministic ? shape.rule.most_splits(steps_of(args.max_len)) : 0;
  const int block_rows = row_tiles(shape.rows) * 16;
  shape.tiles = (shape.rows + block_rows - 1) / block_rows;
  shape.cluster = shape.team = 1;
  shape.parts = std::max(1, multiprocessors / shape.tiles);
  shape.sequence_overhead = 6;  // all measured: docs/fp8.md
  shape.split_overhead = 2;
  shape.least_steps = shape.least_piece = 2;
  shape.slots = deterministic ? static_cast<int64_t>(args.batch) * shape.most_splits : int64_t{2} * shape.parts;
  shape.joins = shape.ordered = false;
  return shape;
}

mla_status decode_fp8(const mla_decode_args &args, int multiprocessors, cudaStream_t stream, std::string &error) {
  error = unsupported(args);
  if (!error.empty()) return MLA_UNSUPPORTED;
  const DecodeShape shape = decode_fp8_shape(args.plan, multiprocessors);
  if (shape.batch == 0 || shape.rows == 0) return MLA_OK;

  Fp8Params params;
  params.decode = decode_params(args, shape);
  params.cache = static_cast<const uint8_t *>(args.cache.data);
  params.q = static_cast<const __nv_bfloat16 *>(args.q.data);
  params.q_batch_stride = args.q.stride[0];
  params.q_row_stride = args.q.stride[2];

  cudaError_t status = row_tiles(shape.rows) == 1 ? launch_decode_fp8<1>(shape, params, stream)
                                                  : launch_decode_fp8<2>(shape, params, stream);
  if (status == cudaSuccess) status = launch_combine(shape, params.decode, stream);
  return device_status(status, "decode_fp8", error);
}

}  // namespace mla::cuda
