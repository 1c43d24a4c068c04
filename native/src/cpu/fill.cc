#include "cpu.h"

#include <cmath>

namespace mla::cpu {
namespace {

// Two independent standard normal numbers (Box and Muller 1958), from pair `pair` of the stream that mla.h names.
void normal_pair(int64_t seed, int64_t pair, float *out) {
  uint64_t z = static_cast<uint64_t>(seed) + (static_cast<uint64_t>(pair) + 1) * 0x9E3779B97F4A7C15u;
  z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9u;
  z = (z ^ (z >> 27)) * 0x94D049BB133111EBu;
  z ^= z >> 31;
  const float u = static_cast<float>(z >> 40) * 0x1p-24f;
  const float v = static_cast<float>(z >> 16 & 0xFFFFFF) * 0x1p-24f;
  const float radius = std::sqrt(-2 * std::log(1 - u));
  const float angle = 6.28318530717958648f * v;
  out[0] = radius * std::cos(angle);
  out[1] = radius * std::sin(angle);
}

}  // namespace

void fill_normal(Cpu &cpu, const mla_tensor &out, float std, int64_t seed) {
  constexpr int64_t kPiece = 256;  // elements, even
  const int64_t count = element_count(out);
  const PerThread scratch(cpu, kPiece);
  parallel_rows(cpu, (count + kPiece - 1) / kPiece, 50 * kPiece, [&](int64_t piece, int thread) {
    const int64_t begin = piece * kPiece;
    const int64_t n = std::min(kPiece, count - begin);
    float *values = scratch.of(thread);
    for (int64_t i = 0; i < n; i += 2) {
      normal_pair(seed, (begin + i) / 2, values + i);
    }
    cpu.kernels.multiply(std, n, values);
    void *to = static_cast<char *>(out.data) + begin * element_bytes(out.dtype);
    if (is_bf16(out)) {
      cpu.kernels.narrow(values, n, static_cast<uint16_t *>(to));
    } else {
      std::copy_n(values, n, static_cast<float *>(to));
    }
  });
}

}  // namespace mla::cpu
