// embedding: rows of a table by index.
#include "kernel.cuh"
#include "ops.h"
#include "rows.cuh"

namespace mla::cuda {
namespace {

constexpr int kThreads = 256;

struct Gather {
  const char *table;
  const int32_t *ids;
  char *out;
  int64_t rows;  // of the table
  int64_t table_stride, out_stride;  // in bytes
  int pieces;    // of a row
};

// A row a block. T: what is copied at once.
template <class T>
__global__ void __launch_bounds__(kThreads) gather_kernel(Gather p) {
  begin_kernel();
  const int64_t t = blockIdx.x;
  const int32_t id = p.ids[t];
  // mla_sample's -1, for a row that has no token, may come here before the host has seen it.
  const int64_t row = id >= 0 && id < p.rows ? id : 0;
  const T *from = reinterpret_cast<const T *>(p.table + row * p.table_stride);
  T *to = reinterpret_cast<T *>(p.out + t * p.out_stride);
  for (int i = threadIdx.x; i < p.pieces; i += kThreads) {
    to[i] = from[i];
  }
}

}  // namespace

void embedding(const Device &device, const mla_tensor &table, const mla_tensor &ids, const mla_tensor &out) {
  if (table.dtype != out.dtype) {
    unsupported("mla_embedding", "out, of another type than table,", out);
  }
  const int64_t bytes = element_bytes(out.dtype);
  const int wide = static_cast<int>(16 / bytes);
  const bool fits = in_pieces(table, wide) && in_pieces(out, wide);
  Gather p = {static_cast<const char *>(table.data), static_cast<const int32_t *>(ids.data),
              static_cast<char *>(out.data), table.shape[0], table.stride[0] * bytes, out.stride[0] * bytes,
              static_cast<int>(fits ? out.shape[1] / wide : out.shape[1])};
  const auto kernel = fits ? gather_kernel<uint4> : bytes == 4 ? gather_kernel<uint32_t> : gather_kernel<uint16_t>;
  launch(device, "mla_embedding", {out.shape[1] == 0 ? 0 : ids.shape[0], kThreads}, kernel, p);
}

}  // namespace mla::cuda
