#include "cpu.h"

#include <cmath>

namespace mla::cpu {

void rms_norm(Cpu &cpu, const mla_tensor &x, const mla_tensor *residual, const mla_tensor &weight, float eps,
              const mla_tensor &out) {
  const int64_t hidden = x.shape[1];
  const float *scales = read_row(cpu.kernels, weight, weight.data, hidden, cpu.wide.of(hidden));
  const PerThread scratch(cpu, 3 * hidden);
  parallel_rows(cpu, x.shape[0], 4 * hidden, [&](int64_t row, int thread) {
    float *mine = scratch.of(thread);
    const float *values = read_row(cpu.kernels, x, address(x, row), hidden, mine);
    if (residual != nullptr) {
      // The sum as the residual's type holds it is what goes on, here as in later layers.
      void *stored = address(*residual, row);
      float *sum = result_row(*residual, stored, mine + hidden);
      read_row(cpu.kernels, *residual, stored, hidden, sum);
      cpu.kernels.add_scaled(values, 1.0f, hidden, sum);
      write_row(cpu.kernels, *residual, sum, hidden, stored);
      values = read_row(cpu.kernels, *residual, stored, hidden, sum);
    }
    const float mean_square = cpu.kernels.sum_squares(values, hidden) / static_cast<float>(hidden);
    float *result = result_row(out, address(out, row), mine + 2 * hidden);
    cpu.kernels.scale_mul(values, 1.0f / std::sqrt(mean_square + eps), scales, hidden, result);
    write_row(cpu.kernels, out, result, hidden, address(out, row));
  });
}

}  // namespace mla::cpu
