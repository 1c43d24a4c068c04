// rms_norm, with or without a residual: a row a block, held in registers between the sum and the result.
#include "kernel.cuh"
#include "ops.h"
#include "rows.cuh"

namespace mla::cuda {
namespace {

struct RmsNorm {
  const float *x;
  float *residual;  // or nullptr
  const void *weight;
  bf16 *out;
  int64_t x_stride, residual_stride, out_stride;
  int hidden;
  float eps;
};

// The row as pieces of kCount, of which each thread holds kPieces, a block's width apart.
template <class Weight, int kCount, int kPieces>
__global__ void rms_norm_kernel(RmsNorm p) {
  begin_kernel();
  __shared__ float scratch[32];
  const int64_t row = blockIdx.x;
  const int row_pieces = p.hidden / kCount;
  const float *x = p.x + row * p.x_stride;
  float *residual = p.residual == nullptr ? nullptr : p.residual + row * p.residual_stride;
  Piece<kCount> values[kPieces];
  Piece<kCount> weights[kPieces];
#pragma unroll
  for (int k = 0; k < kPieces; k++) {
    const int piece = static_cast<int>(threadIdx.x) + k * static_cast<int>(blockDim.x);
    if (piece < row_pieces) {
      values[k] = load<kCount>(x + piece * kCount);
      weights[k] = load<kCount>(static_cast<const Weight *>(p.weight) + piece * kCount);
    }
  }
  float squares = 0;
#pragma unroll
  for (int k = 0; k < kPieces; k++) {
    const int piece = static_cast<int>(threadIdx.x) + k * static_cast<int>(blockDim.x);
    if (piece >= row_pieces) {
      break;
    }
    if (residual != nullptr) {
      const Piece<kCount> carried = load<kCount>(residual + piece * kCount);
#pragma unroll
      for (int i = 0; i < kCount; i++) {
        values[k].v[i] += carried.v[i];
      }
      store(residual + piece * kCount, values[k]);
    }
#pragma unroll
    for (int i = 0; i < kCount; i++) {
      squares += values[k].v[i] * values[k].v[i];
    }
  }
  const float scale = rsqrtf(block_sum(squares, scratch) / static_cast<float>(p.hidden) + p.eps);
#pragma unroll
  for (int k = 0; k < kPieces; k++) {
    const int piece = static_cast<int>(threadIdx.x) + k * static_cast<int>(blockDim.x);
    if (piece < row_pieces) {
#pragma unroll
      for (int i = 0; i < kCount; i++) {
        values[k].v[i] *= scale * weights[k].v[i];
      }
      store(p.out + row * p.out_stride + piece * kCount, values[k]);
    }
  }
}

template <class Weight>
void launch_rms_norm(const Device &device, const RmsNorm &p, int64_t rows, bool wide) {
  const int64_t pieces = wide ? p.hidden / kPiece : p.hidden;
  const int held = wide ? (pieces <= 512 ? 2 : 4) : 8;
  const int64_t threads = ceil_div(ceil_div(pieces, held), 32) * 32;
  if (threads > 1024) {
    fail(MLA_UNSUPPORTED, "mla_rms_norm on CUDA: rows of %d elements%s are too long", p.hidden,
         wide ? "" : ", not aligned to 16 bytes,");
  }
  launch(device, "mla_rms_norm", {rows, static_cast<int>(threads)},
         !wide       ? rms_norm_kernel<Weight, 1, 8>
         : held == 2 ? rms_norm_kernel<Weight, kPiece, 2>
                     : rms_norm_kernel<Weight, kPiece, 4>,
         p);
}

}  // namespace

void rms_norm(const Device &device, const mla_tensor &x, const mla_tensor *residual, const mla_tensor &weight, float eps,
              const mla_tensor &out) {
  require("mla_rms_norm", "x", x, MLA_F32);
  require("mla_rms_norm", "out", out, MLA_BF16);
  if (residual != nullptr) {
    require("mla_rms_norm", "residual", *residual, MLA_F32);
  }
  if (x.shape[1] == 0) {
    return;
  }
  const RmsNorm p = {static_cast<const float *>(x.data),
                     residual == nullptr ? nullptr : static_cast<float *>(residual->data),
                     weight.data,
                     static_cast<bf16 *>(out.data),
                     x.stride[0],
                     residual == nullptr ? 0 : residual->stride[0],
                     out.stride[0],
                     static_cast<int>(x.shape[1]),
                     eps};
  const bool wide = in_pieces(x, kPiece) && in_pieces(out, kPiece) && in_pieces(weight, kPiece) &&
                    (residual == nullptr || in_pieces(*residual, kPiece));
  if (weight.dtype == MLA_BF16) {
    launch_rms_norm<bf16>(device, p, x.shape[0], wide);
  } else {
    launch_rms_norm<float>(device, p, x.shape[0], wide);
  }
}

}  // namespace mla::cuda
