#include "cpu.h"

#include <cstring>

namespace mla::cpu {

void embedding(Cpu &cpu, const mla_tensor &table, const mla_tensor &ids, const mla_tensor &out) {
  const int64_t tokens = ids.shape[0];
  const int64_t hidden = table.shape[1];
  for (int64_t t = 0; t < tokens; t++) {
    check_index("ids", t, *at<int32_t>(ids, t), 0, table.shape[0] - 1);
  }
  parallel_rows(cpu, tokens, hidden, [&](int64_t t, int) {
    const void *row = address(table, *at<int32_t>(ids, t));
    if (table.dtype == out.dtype) {
      memcpy(address(out, t), row, hidden * element_bytes(out.dtype));
    } else if (is_bf16(table)) {
      cpu.kernels.widen(static_cast<const uint16_t *>(row), hidden, at<float>(out, t));
    } else {
      cpu.kernels.narrow(static_cast<const float *>(row), hidden, at<uint16_t>(out, t));
    }
  });
}

}  // namespace mla::cpu
