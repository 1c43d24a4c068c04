// embedding: rows of a table by index, as they are or widened.
#include <type_traits>

#include "kernel.cuh"
#include "ops.h"
#include "rows.cuh"

namespace mla::cuda {
namespace {

constexpr int kThreads = 256;

struct Gather {
  const void *table;
  const int32_t *ids;
  void *out;
  int64_t rows;  // of the table
  int64_t table_stride, out_stride;
  int pieces;    // of a row
};

// A row a block, in pieces of kCount.
template <class From, class To, int kCount>
__global__ void __launch_bounds__(kThreads) gather_kernel(Gather p) {
  begin_kernel();
  const int64_t t = blockIdx.x;
  const int32_t id = p.ids[t];
  // mla_sample's -1, for a row that has no token, may come here before the host has seen it.
  const int64_t row = id >= 0 && id < p.rows ? id : 0;
  const From *from = static_cast<const From *>(p.table) + row * p.table_stride;
  To *to = static_cast<To *>(p.out) + t * p.out_stride;
  for (int i = threadIdx.x; i < p.pieces; i += kThreads) {
    if constexpr (std::is_same_v<From, To>) {
      reinterpret_cast<Raw<To, kCount> *>(to)[i] = reinterpret_cast<const Raw<From, kCount> *>(from)[i];
    } else {
      store(to + i * kCount, load<kCount>(from + i * kCount));
    }
  }
}

template <class From, class To>
void gather(const Device &device, const mla_tensor &table, const mla_tensor &ids, const mla_tensor &out) {
  constexpr int kWide = 16 / sizeof(From);
  const bool wide = in_pieces(table, kWide) && in_pieces(out, kWide);
  const Gather p = {table.data, static_cast<const int32_t *>(ids.data), out.data, table.shape[0], table.stride[0],
                    out.stride[0], static_cast<int>(wide ? out.shape[1] / kWide : out.shape[1])};
  launch(device, "mla_embedding", {out.shape[1] == 0 ? 0 : ids.shape[0], kThreads},
         wide ? gather_kernel<From, To, kWide> : gather_kernel<From, To, 1>, p);
}

}  // namespace

void embedding(const Device &device, const mla_tensor &table, const mla_tensor &ids, const mla_tensor &out) {
  if (table.dtype == MLA_BF16 && out.dtype == MLA_F32) {
    gather<bf16, float>(device, table, ids, out);
  } else if (table.dtype != out.dtype) {
    unsupported("mla_embedding", "out, beside such a table,", out);
  } else if (out.dtype == MLA_F32) {
    gather<uint32_t, uint32_t>(device, table, ids, out);
  } else {
    gather<uint16_t, uint16_t>(device, table, ids, out);
  }
}

}  // namespace mla::cuda
