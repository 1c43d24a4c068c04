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

void add(Cpu &cpu, const mla_tensor &x, const mla_tensor &out) {
  const int64_t hidden = x.shape[1];
  const PerThread scratch(cpu, 2 * hidden);
  parallel_rows(cpu, x.shape[0], 2 * hidden, [&](int64_t row, int thread) {
    float *mine = scratch.of(thread);
    const float *values = read_row(cpu.kernels, x, address(x, row), hidden, mine);
    float *sum = result_row(out, address(out, row), mine + hidden);
    read_row(cpu.kernels, out, address(out, row), hidden, sum);
    cpu.kernels.add_scaled(values, 1.0f, hidden, sum);
    write_row(cpu.kernels, out, sum, hidden, address(out, row));
  });
}

}  // namespace mla::cpu
