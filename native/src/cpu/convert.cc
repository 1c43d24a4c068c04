#include "cpu.h"

#include <bit>
#include <cmath>

namespace mla::cpu {
namespace {

// IEEE binary16: 1 sign, 5 exponent, 10 mantissa bits.
float from_f16(uint16_t bits) {
  const uint32_t sign = (bits & 0x8000u) << 16;
  const uint32_t exponent = (bits >> 10) & 31;
  const uint32_t mantissa = bits & 1023;
  if (exponent == 0) {
    const float magnitude = static_cast<float>(mantissa) * 0x1p-24f;
    return sign ? -magnitude : magnitude;
  }
  const uint32_t wide = exponent == 31 ? 255 : exponent + 112;
  return std::bit_cast<float>(sign | wide << 23 | mantissa << 13);
}

// OCP FP8 E4M3: 1 sign, 4 exponent, 3 mantissa bits, bias 7; no infinity, NaN is all ones.
float from_f8_e4m3(uint8_t bits) {
  const uint32_t sign = (bits & 0x80u) << 24;
  const uint32_t exponent = (bits >> 3) & 15;
  const uint32_t mantissa = bits & 7;
  if (exponent == 15 && mantissa == 7) {
    return NAN;
  }
  if (exponent == 0) {
    const float magnitude = static_cast<float>(mantissa) * 0x1p-9f;
    return sign ? -magnitude : magnitude;
  }
  return std::bit_cast<float>(sign | (exponent + 120) << 23 | mantissa << 20);
}

template <class T, class Decode>
void decode_row(const T *row, int64_t n, float *out, Decode decode) {
  for (int64_t i = 0; i < n; i++) {
    out[i] = decode(row[i]);
  }
}

void widen_row(const Kernels &kernels, const mla_tensor &x, int64_t row, float *out) {
  const int64_t n = x.shape[1];
  switch (x.dtype) {
    case MLA_F16:
      return decode_row(at<uint16_t>(x, row), n, out, from_f16);
    case MLA_F8_E4M3:
      return decode_row(at<uint8_t>(x, row), n, out, from_f8_e4m3);
    case MLA_BF16:
      return kernels.widen(at<uint16_t>(x, row), n, out);
    default:
      std::copy_n(at<float>(x, row), n, out);
  }
}

}  // namespace

void convert(Cpu &cpu, const mla_tensor &x, const mla_tensor *scale, int32_t block, const mla_tensor &out) {
  const int64_t columns = x.shape[1];
  const PerThread scratch(cpu, columns);
  parallel_rows(cpu, x.shape[0], columns, [&](int64_t row, int thread) {
    float *result = result_row(out, address(out, row), scratch.of(thread));
    widen_row(cpu.kernels, x, row, result);
    if (scale != nullptr) {
      for (int64_t begin = 0; begin < columns; begin += block) {
        cpu.kernels.multiply(*at<float>(*scale, row / block, begin / block), std::min<int64_t>(block, columns - begin),
                             result + begin);
      }
    }
    write_row(cpu.kernels, out, result, columns, address(out, row));
  });
}

}  // namespace mla::cpu
