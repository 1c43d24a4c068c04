// moe_combine: the experts' rows of a token, weighed and summed.
#include "kernel.cuh"
#include "ops.h"
#include "rows.cuh"

namespace mla::cuda {
namespace {

constexpr int kThreads = 256;
constexpr int kAhead = 4;  // experts' rows on their way at once

struct Combine {
  const bf16 *y;
  const float *base;  // or nullptr
  const int32_t *places;
  const float *weights;
  float *out;
  int64_t y_stride, base_stride, place_stride, weight_stride, out_stride;
  int top_k, row_pieces, pieces;
};

template <int kCount>
__global__ void __launch_bounds__(kThreads) combine_kernel(Combine p) {
  begin_kernel();
  const int piece = static_cast<int>(blockIdx.x) * kThreads + static_cast<int>(threadIdx.x);
  if (piece >= p.pieces) {
    return;
  }
  const int64_t t = piece / p.row_pieces;
  const int column = piece % p.row_pieces * kCount;
  const int32_t *places = p.places + t * p.place_stride;
  const float *weights = p.weights + t * p.weight_stride;
  Piece<kCount> sum = {};
  if (p.base != nullptr) {
    sum = load<kCount>(p.base + t * p.base_stride + column);
  }
  for (int first = 0; first < p.top_k; first += kAhead) {
    Piece<kCount> rows[kAhead];
#pragma unroll
    for (int j = 0; j < kAhead; j++) {
      if (first + j < p.top_k) {
        rows[j] = load<kCount>(p.y + places[first + j] * p.y_stride + column);
      }
    }
#pragma unroll
    for (int j = 0; j < kAhead; j++) {
      if (first + j < p.top_k) {
        const float weight = weights[first + j];
#pragma unroll
        for (int i = 0; i < kCount; i++) {
          sum.v[i] = fmaf(weight, rows[j].v[i], sum.v[i]);
        }
      }
    }
  }
  store(p.out + t * p.out_stride + column, sum);
}

}  // namespace

void moe_combine(const Device &device, const mla_tensor &y, const mla_tensor &places, const mla_tensor &weights,
                 const mla_tensor *base, const mla_tensor &out) {
  require("mla_moe_combine", "y", y, MLA_BF16);
  require("mla_moe_combine", "out", out, MLA_F32);
  const bool wide = in_pieces(y, kPiece) && in_pieces(out, kPiece) && (base == nullptr || in_pieces(*base, kPiece));
  const int count = wide ? kPiece : 1;
  const int64_t pieces = out.shape[0] * out.shape[1] / count;
  if (pieces > INT32_MAX - kThreads) {
    unsupported("mla_moe_combine", "out", out);
  }
  Combine p = {};
  p.y = static_cast<const bf16 *>(y.data);
  p.base = base == nullptr ? nullptr : static_cast<const float *>(base->data);
  p.places = static_cast<const int32_t *>(places.data);
  p.weights = static_cast<const float *>(weights.data);
  p.out = static_cast<float *>(out.data);
  p.y_stride = y.stride[0];
  p.base_stride = base == nullptr ? 0 : base->stride[0];
  p.place_stride = places.stride[0];
  p.weight_stride = weights.stride[0];
  p.out_stride = out.stride[0];
  p.top_k = static_cast<int>(weights.shape[1]);
  p.row_pieces = static_cast<int>(out.shape[1] / count);
  p.pieces = static_cast<int>(pieces);
  launch(device, "mla_moe_combine", {ceil_div(pieces, kThreads), kThreads},
         wide ? combine_kernel<kPiece> : combine_kernel<1>, p);
}

}  // namespace mla::cuda
