// silu_mul, fill_normal: an element of the output from its own inputs.
#include "kernel.cuh"
#include "ops.h"
#include "rows.cuh"
#include "silu.cuh"

namespace mla::cuda {
namespace {

constexpr int kThreads = 256;
constexpr int kUnroll = 4;  // pieces of a thread, all on their way before the first is used

struct SiluMul {
  const bf16 *gate_up;
  bf16 *out;
  int64_t in_stride, out_stride;
  int width;       // of out
  int row_pieces;  // width / kCount
  int pieces;
};

template <int kCount>
__global__ void __launch_bounds__(kThreads) silu_mul_kernel(SiluMul p) {
  begin_kernel();
  Piece<kCount> gate[kUnroll];
  Piece<kCount> up[kUnroll];
  const int first = static_cast<int>(blockIdx.x) * kThreads * kUnroll + static_cast<int>(threadIdx.x);
#pragma unroll
  for (int u = 0; u < kUnroll; u++) {
    const int piece = first + u * kThreads;
    if (piece < p.pieces) {
      const bf16 *row = p.gate_up + piece / p.row_pieces * p.in_stride + piece % p.row_pieces * kCount;
      gate[u] = load<kCount>(row);
      up[u] = load<kCount>(row + p.width);
    }
  }
#pragma unroll
  for (int u = 0; u < kUnroll; u++) {
    const int piece = first + u * kThreads;
    if (piece < p.pieces) {
#pragma unroll
      for (int i = 0; i < kCount; i++) {
        gate[u].v[i] = silu_mul(gate[u].v[i], up[u].v[i]);
      }
      store(p.out + piece / p.row_pieces * p.out_stride + piece % p.row_pieces * kCount, gate[u]);
    }
  }
}

template <class T>
__global__ void __launch_bounds__(kThreads) fill_normal_kernel(T *out, int64_t count, float std, int64_t seed) {
  wait_for_work_before();  // no early start of the next: it may be one that reads weights ahead
  const int64_t pairs = (count + 1) / 2;
  const int64_t stride = static_cast<int64_t>(gridDim.x) * kThreads;
  for (int64_t pair = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x; pair < pairs; pair += stride) {
    uint64_t z = static_cast<uint64_t>(seed) + (static_cast<uint64_t>(pair) + 1) * 0x9E3779B97F4A7C15u;
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9u;
    z = (z ^ (z >> 27)) * 0x94D049BB133111EBu;
    z ^= z >> 31;
    const float u = static_cast<float>(static_cast<uint32_t>(z >> 40)) * 0x1p-24f;
    const float v = static_cast<float>(static_cast<uint32_t>(z >> 16) & 0xFFFFFFu) * 0x1p-24f;
    const float radius = sqrtf(-2.0f * logf(1.0f - u)) * std;
    float sine, cosine;
    sincospif(2.0f * v, &sine, &cosine);
    out[2 * pair] = narrow<T>(radius * cosine);
    if (2 * pair + 1 < count) {
      out[2 * pair + 1] = narrow<T>(radius * sine);
    }
  }
}

}  // namespace

void silu_mul(const Device &device, const mla_tensor &gate_up, const mla_tensor &out) {
  require("mla_silu_mul", "out", out, MLA_BF16);
  const int count = in_pieces(gate_up, kPiece) && in_pieces(out, kPiece) ? kPiece : 1;
  const int64_t pieces = out.shape[0] * out.shape[1] / count;
  if (pieces > INT32_MAX - kThreads * kUnroll) {
    unsupported("mla_silu_mul", "out", out);
  }
  SiluMul p = {static_cast<const bf16 *>(gate_up.data), static_cast<bf16 *>(out.data), gate_up.stride[0],
               out.stride[0], static_cast<int>(out.shape[1]), static_cast<int>(out.shape[1] / count),
               static_cast<int>(pieces)};
  launch(device, "mla_silu_mul", {ceil_div(pieces, kThreads * kUnroll), kThreads},
         count == kPiece ? silu_mul_kernel<kPiece> : silu_mul_kernel<1>, p);
}

void fill_normal(const Device &device, const mla_tensor &out, float std, int64_t seed) {
  const int64_t count = element_count(out);
  const int64_t blocks = std::min<int64_t>(ceil_div(count, 2 * kThreads), device.multiprocessors * 8);
  if (out.dtype == MLA_BF16) {
    launch(device, "mla_fill_normal", {blocks, kThreads}, fill_normal_kernel<bf16>, static_cast<bf16 *>(out.data), count,
           std, seed);
  } else {
    launch(device, "mla_fill_normal", {blocks, kThreads}, fill_normal_kernel<float>, static_cast<float *>(out.data),
           count, std, seed);
  }
}

}  // namespace mla::cuda
