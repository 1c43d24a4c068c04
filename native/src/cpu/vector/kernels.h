// The inner loops of the CPU operations, on rows of float32. One table an instruction set, chosen once at run time.
//
// Every result depends on its own operands alone: the order of a sum is a function of its length, never of how many
// rows share the call. Operations build on that for their invariance.
#ifndef MLA_CPU_KERNELS_H
#define MLA_CPU_KERNELS_H

#include <stdint.h>

namespace mla::cpu {

// A row-major matrix of weights or cached keys, BF16 or F32; stride in elements.
struct Matrix {
  const void *data;
  int64_t stride;
  bool bf16;
};

// Memory that will be read soon; bytes 0 for none.
struct Ahead {
  const char *data;
  int64_t bytes;
};

// Weights [n, k] in panels of panel_columns of the n, one behind the other; the last is filled up with zeros.
struct Panels {
  const void *data;
  bool bf16;
};

// Bytes of one panel. BF16 terms come in pairs, so an odd depth is filled up.
inline int64_t panel_bytes(int64_t panel_columns, int64_t k, bool bf16) {
  return panel_columns * 4 * (bf16 ? (k + 1) / 2 : k);
}

struct Kernels {
  void (*widen)(const uint16_t *bf16, int64_t n, float *out);   // exact
  void (*narrow)(const float *x, int64_t n, uint16_t *bf16);    // to nearest, ties to even

  // out[i][j] = sum over k of x[i][k] w[j][k]: i < m rows at the addresses x, j < n. Reads keys as they lie, for few rows.
  void (*scores)(const float *const *x, int64_t m, Matrix w, int64_t n, int64_t k, float *out, int64_t out_stride);

  // The same over weights that pack has laid out: fast for any number of rows, and another order of sums.
  int64_t panel_columns;
  void (*pack)(const void *w, int64_t row_stride, int64_t column_stride, int64_t n, int64_t k, bool bf16, void *out);
  void (*linear)(const float *const *x, int64_t m, Panels w, int64_t n, int64_t k, float *out, int64_t out_stride);

  // out[i][j] = keep[i] out[i][j] + sum over k of x[i][k] w[k][j]; keep NULL starts from 0 without reading out. Meanwhile
  // asks for `ahead`, what is read next: this product finds all it needs in the caches and leaves the memory idle.
  void (*gemm_nn)(const float *const *x, int64_t m, Matrix w, int64_t n, int64_t k, const float *keep, float *out,
                  int64_t out_stride, Ahead ahead);

  float (*sum_squares)(const float *x, int64_t n);
  float (*max)(const float *x, int64_t n);  // -inf for n = 0; a NaN may be passed over
  // out = exp(x * scale - shift), 0 for -inf; returns the sum. out may be x. Relative error about 1e-7.
  float (*exp_sum)(const float *x, int64_t n, float scale, float shift, float *out);
  void (*scale_mul)(const float *x, float scale, const float *weight, int64_t n, float *out);  // x * scale * weight
  void (*silu_mul)(const float *gate, const float *up, int64_t n, float *out);
  void (*add_scaled)(const float *x, float scale, int64_t n, float *out);  // out += scale * x
  void (*multiply)(float scale, int64_t n, float *out);                    // out *= scale
};

namespace baseline {
extern const Kernels kernels;
}
namespace avx2 {
extern const Kernels kernels;
}
namespace avx512 {
extern const Kernels kernels;
}

}  // namespace mla::cpu

#endif
