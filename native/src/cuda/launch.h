// What the entry points of the kernels share on the host: tensor maps, checks of tensors, launches.
#pragma once

#include <cudaTypedefs.h>
#include <cuda_runtime_api.h>

#include <cstdint>
#include <string>

#include "mla.h"

namespace mla::cuda {

// cuTensorMapEncodeTiled, from the driver that is loaded: nothing links to libcuda. Null where there is none.
inline PFN_cuTensorMapEncodeTiled_v12000 tensor_map_encoder() {
  static const PFN_cuTensorMapEncodeTiled_v12000 encoder = [] {
    void *function = nullptr;
    cudaDriverEntryPointQueryResult found;
#if CUDART_VERSION >= 12050
    cudaError_t status =
        cudaGetDriverEntryPointByVersion("cuTensorMapEncodeTiled", &function, 12000, cudaEnableDefault, &found);
#else
    cudaError_t status = cudaGetDriverEntryPoint("cuTensorMapEncodeTiled", &function, cudaEnableDefault, &found);
#endif
    bool usable = status == cudaSuccess && found == cudaDriverEntryPointSuccess;
    return usable ? reinterpret_cast<PFN_cuTensorMapEncodeTiled_v12000>(function) : nullptr;
  }();
  return encoder;
}

// A map of a BF16 tensor, swizzled by 128 bytes; strides in bytes, without the innermost. What a box covers beyond the tensor
// reads as 0.
template <int kRank>
bool encode_bf16_map(CUtensorMap &map, void *data, const cuuint64_t (&shape)[kRank], const cuuint64_t (&stride)[kRank - 1],
                     const cuuint32_t (&box)[kRank]) {
  auto encode = tensor_map_encoder();
  if (encode == nullptr) return false;
  cuuint32_t step[kRank];
  for (cuuint32_t &one : step) one = 1;
  return encode(&map, CU_TENSOR_MAP_DATA_TYPE_BFLOAT16, kRank, data, shape, stride, box, step, CU_TENSOR_MAP_INTERLEAVE_NONE,
                CU_TENSOR_MAP_SWIZZLE_128B, CU_TENSOR_MAP_L2_PROMOTION_L2_256B,
                CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE) == CUDA_SUCCESS;
}

// A map of [depth, rows, columns] with boxes of box_depth x box_rows x 64 values; strides in elements.
inline bool encode_map(CUtensorMap &map, void *data, int64_t columns, int64_t rows, int64_t row_stride, int64_t depth,
                       int64_t depth_stride, int box_rows, int box_depth = 1) {
  const cuuint64_t shape[] = {static_cast<cuuint64_t>(columns), static_cast<cuuint64_t>(rows), static_cast<cuuint64_t>(depth)};
  const cuuint64_t stride[] = {static_cast<cuuint64_t>(row_stride) * 2, static_cast<cuuint64_t>(depth_stride) * 2};
  const cuuint32_t box[] = {64, static_cast<cuuint32_t>(box_rows), static_cast<cuuint32_t>(box_depth)};
  return encode_bf16_map(map, data, shape, stride, box);
}

// A map of [depth, rows, columns] whose boxes are box_rows rows, whole or box_columns of them, in columns of 64 values that lie one
// behind the other, each box_rows x 128 bytes; strides in elements.
inline bool encode_row_map(CUtensorMap &map, void *data, int64_t columns, int64_t rows, int64_t row_stride, int64_t depth,
                           int64_t depth_stride, int box_rows, int64_t box_columns) {
  const auto chunks = static_cast<cuuint32_t>(columns / 64);
  const cuuint64_t shape[] = {64, static_cast<cuuint64_t>(rows), chunks, static_cast<cuuint64_t>(depth)};
  const cuuint64_t stride[] = {static_cast<cuuint64_t>(row_stride) * 2, 128, static_cast<cuuint64_t>(depth_stride) * 2};
  const cuuint32_t box[] = {64, static_cast<cuuint32_t>(box_rows), static_cast<cuuint32_t>(box_columns / 64), 1};
  return encode_bf16_map(map, data, shape, stride, box);
}
inline bool encode_row_map(CUtensorMap &map, void *data, int64_t columns, int64_t rows, int64_t row_stride, int64_t depth,
                           int64_t depth_stride, int box_rows) {
  return encode_row_map(map, data, columns, rows, row_stride, depth, depth_stride, box_rows, columns);
}

// A map of [depth, rows, columns] whose boxes are box_rows whole rows, a multiple of 8, in atoms of eight rows x 64 values that lie
// one behind the other: those of the same rows, then those of the next eight; strides in elements.
inline bool encode_atom_map(CUtensorMap &map, void *data, int64_t columns, int64_t rows, int64_t row_stride, int64_t depth,
                            int64_t depth_stride, int box_rows) {
  const auto chunks = static_cast<cuuint32_t>(columns / 64);
  const cuuint64_t shape[] = {64, 8, chunks, static_cast<cuuint64_t>(rows / 8), static_cast<cuuint64_t>(depth)};
  const cuuint64_t stride[] = {static_cast<cuuint64_t>(row_stride) * 2, 128, static_cast<cuuint64_t>(row_stride) * 16,
                               static_cast<cuuint64_t>(depth_stride) * 2};
  const cuuint32_t box[] = {64, 8, chunks, static_cast<cuuint32_t>(box_rows / 8), 1};
  return encode_bf16_map(map, data, shape, stride, box);
}

inline bool aligned16(const void *data) { return reinterpret_cast<uintptr_t>(data) % 16 == 0; }
inline bool aligned16(const mla_tensor &t) { return aligned16(t.data); }

inline bool contiguous(const mla_tensor &t) {
  int64_t expected = 1;
  for (int i = t.rank - 1; i >= 0; --i) {
    if (t.shape[i] > 1 && t.stride[i] != expected) return false;
    expected *= t.shape[i];
  }
  return true;
}

// The configuration of a launch. The kernel may start while the one before it ends: it waits by itself before it reads
// anything that one wrote.
struct Launch {
  cudaLaunchConfig_t config = {};
  cudaLaunchAttribute attributes[2];

  Launch(dim3 grid, int threads, size_t smem, cudaStream_t stream) {
    config.gridDim = grid;
    config.blockDim = dim3(threads);
    config.dynamicSmemBytes = smem;
    config.stream = stream;
    config.attrs = attributes;
    attributes[0].id = cudaLaunchAttributeProgrammaticStreamSerialization;
    attributes[0].val.programmaticStreamSerializationAllowed = 1;
    config.numAttrs = 1;
  }
  void set_cluster(int blocks) {
    attributes[1].id = cudaLaunchAttributeClusterDimension;
    attributes[1].val.clusterDim.x = blocks;
    attributes[1].val.clusterDim.y = 1;
    attributes[1].val.clusterDim.z = 1;
    config.numAttrs = 2;
  }
};

// MLA_OK, or MLA_DEVICE_ERROR with the reason in `error`.
inline mla_status device_status(cudaError_t status, const char *what, std::string &error) {
  if (status == cudaSuccess) return MLA_OK;
  error = std::string(what) + ": " + cudaGetErrorString(status);
  return MLA_DEVICE_ERROR;
}

}  // namespace mla::cuda
