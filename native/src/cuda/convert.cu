// convert: any float type, FP8 with block scales among them, to BF16 or F32.
#include <algorithm>

#include "kernel.cuh"
#include "ops.h"
#include "rows.cuh"

namespace mla::cuda {
namespace {

constexpr int kThreads = 256;
constexpr int kWide = 16;  // elements of a piece: 16 bytes of FP8

struct Convert {
  const void *x;
  void *out;
  const float *scale;  // or nullptr
  int64_t x_stride, out_stride, scale_stride;
  int64_t pieces;
  int row_pieces, block;
};

template <class From, class To, int kCount>
__global__ void __launch_bounds__(kThreads) convert_kernel(Convert p) {
  wait_for_work_before();  // no early start of the next: it may be one that reads weights ahead
  const int64_t stride = static_cast<int64_t>(gridDim.x) * kThreads;
  for (int64_t i = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x; i < p.pieces; i += stride) {
    const int64_t row = i / p.row_pieces;
    const int column = static_cast<int>(i % p.row_pieces) * kCount;
    Piece<kCount> piece = load<kCount>(static_cast<const From *>(p.x) + row * p.x_stride + column);
    if (p.scale != nullptr) {
      const float factor = p.scale[row / p.block * p.scale_stride + column / p.block];
#pragma unroll
      for (int k = 0; k < kCount; k++) {
        piece.v[k] *= factor;
      }
    }
    store(static_cast<To *>(p.out) + row * p.out_stride + column, piece);
  }
}

using Kernel = void (*)(Convert);

template <class To, int kCount>
Kernel kernel_from(int32_t dtype) {
  switch (dtype) {
    case MLA_F8_E4M3:
      return convert_kernel<__nv_fp8_e4m3, To, kCount>;
    case MLA_F16:
      return convert_kernel<__half, To, kCount>;
    case MLA_BF16:
      return convert_kernel<bf16, To, kCount>;
    default:
      return convert_kernel<float, To, kCount>;
  }
}

}  // namespace

void convert(const Device &device, const mla_tensor &x, const mla_tensor *scale, int32_t block, const mla_tensor &out) {
  const bool wide = in_pieces(x, kWide) && in_pieces(out, kWide) && (scale == nullptr || block % kWide == 0);
  const int count = wide ? kWide : 1;
  Convert p = {};
  p.x = x.data;
  p.out = out.data;
  p.x_stride = x.stride[0];
  p.out_stride = out.stride[0];
  if (scale != nullptr) {
    p.scale = static_cast<const float *>(scale->data);
    p.scale_stride = scale->stride[0];
  }
  p.block = std::max(block, 1);
  p.pieces = x.shape[0] * x.shape[1] / count;
  p.row_pieces = static_cast<int>(x.shape[1] / count);
  const bool to_bf16 = out.dtype == MLA_BF16;
  const Kernel kernel = wide ? (to_bf16 ? kernel_from<bf16, kWide>(x.dtype) : kernel_from<float, kWide>(x.dtype))
                             : (to_bf16 ? kernel_from<bf16, 1>(x.dtype) : kernel_from<float, 1>(x.dtype));
  const int64_t blocks = std::min<int64_t>(ceil_div(p.pieces, kThreads), device.multiprocessors * 16);
  launch(device, "mla_convert", {blocks, kThreads}, kernel, p);
}

}  // namespace mla::cuda
