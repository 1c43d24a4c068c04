#include "cpu.h"

namespace mla::cpu {

void silu_mul(Cpu &cpu, const mla_tensor &gate_up, const mla_tensor &out) {
  const int64_t width = out.shape[1];
  const PerThread scratch(cpu, 3 * width);
  parallel_rows(cpu, out.shape[0], 16 * width, [&](int64_t row, int thread) {
    float *mine = scratch.of(thread);
    const float *gate = read_row(cpu.kernels, gate_up, address(gate_up, row), 2 * width, mine);
    float *result = result_row(out, address(out, row), mine + 2 * width);
    cpu.kernels.silu_mul(gate, gate + width, width, result);
    write_row(cpu.kernels, out, result, width, address(out, row));
  });
}

}  // namespace mla::cpu
