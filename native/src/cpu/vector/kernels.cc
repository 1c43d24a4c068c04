// Compiled once an instruction set, with MLA_ISA naming it; see CMakeLists.txt.
#include "kernels.h"
#include "vector.h"

namespace mla::cpu::MLA_ISA {
namespace {

// Calls body(offset, count) for whole vectors, count = kLanes, and once for what is left.
template <class Body>
MLA_INLINE void for_each_vector(int64_t n, Body body) {
  int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes) {
    body(i, kLanes);
  }
  if (i < n) {
    body(i, n - i);
  }
}

template <class T>
MLA_INLINE Floats load_some(const T *x, int64_t n) {
  return n == kLanes ? load(x) : load_part(x, n);
}

MLA_INLINE void store_some(Floats v, int64_t n, float *out) {
  if (n == kLanes) {
    store(v, out);
  } else {
    store_part(v, n, out);
  }
}

template <class T>
MLA_INLINE void widen_row(const T *x, int64_t n, float *out) {
  for_each_vector(n, [&](int64_t i, int64_t count) { store_some(load_some(x + i, count), count, out + i); });
}

// ---- matrix products ------------------------------------------------------------------------------------------------

// Rows of x and of w that a register tile holds: 16 sums of 16 lanes with AVX-512, else 8.
constexpr int kTileRows = 4;
constexpr int kTileColumns = kLanes == 16 ? 4 : 2;

// A sum over k is taken in pieces of this many terms, from the first on: operands of a piece stay in the first-level
// cache. All of the latent and rope dimensions, 576, fit in one.
constexpr int64_t kPiece = 640;

// The piece of k that a pass computes.
struct Piece {
  int64_t begin, count;
};

// Whether w comes from memory, where it pays to ask for columns ahead, or from the first-level cache.
enum class From { kMemory, kCache };

// Lanes run over k, so weights are read as they lie and every sum has the same order whatever the tile. w begins at the
// piece; the sum is added to out from the second piece on.
template <From kFrom, int kRows, int kColumns, class W>
MLA_INLINE void tile_nt(const float *const *x, const W *w, int64_t stride, Piece k, float *out, int64_t out_stride) {
  constexpr int kCount = kRows * kColumns <= 1   ? 1
                         : kRows * kColumns <= 2 ? 2
                         : kRows * kColumns <= 4 ? 4
                         : kRows * kColumns <= 8 ? 8
                                                 : 16;
  Floats sums[kCount] = {};
  const float *rows[kRows];
  for (int i = 0; i < kRows; i++) {
    rows[i] = x[i] + k.begin;
  }
  const auto accumulate = [&](auto load_at) __attribute__((always_inline)) {
    Floats row[kRows];
    for (int i = 0; i < kRows; i++) {
      row[i] = load_at(rows[i]);
    }
    for (int j = 0; j < kColumns; j++) {
      const Floats column = load_at(w + j * stride);
      for (int i = 0; i < kRows; i++) {
        sums[i * kColumns + j] = fma(row[i], column, sums[i * kColumns + j]);
      }
    }
  };
  int64_t at = 0;
  for (; at + kLanes <= k.count; at += kLanes) {
    for (int j = 0; j < kColumns && kFrom == From::kMemory; j++) {
      __builtin_prefetch(w + (2 * kColumns + j) * stride + at);
    }
    accumulate([at](const auto *p) __attribute__((always_inline)) { return load(p + at); });
  }
  if (at < k.count) {
    accumulate([at, k](const auto *p) __attribute__((always_inline)) { return load_part(p + at, k.count - at); });
  }
  constexpr int kGroup = kCount < kLanes ? kCount : kLanes;
  float totals[kCount < kLanes ? kLanes : kCount];
  for (int g = 0; g < kCount; g += kGroup) {
    store(sum_lanes<kGroup>(sums + g), totals + g);
  }
  for (int i = 0; i < kRows; i++) {
    for (int j = 0; j < kColumns && k.begin > 0; j++) {
      totals[i * kColumns + j] += out[i * out_stride + j];
    }
    memcpy(out + i * out_stride, totals + i * kColumns, kColumns * sizeof(float));
  }
}

template <From kFrom, int kRows, class W>
MLA_INLINE void row_nt(const float *const *x, const W *w, int64_t stride, int64_t n, Piece k, float *out,
                       int64_t out_stride) {
  int64_t j = 0;
  for (; j + kTileColumns <= n; j += kTileColumns) {
    tile_nt<kFrom, kRows, kTileColumns>(x, w + j * stride, stride, k, out + j, out_stride);
  }
  for (; j < n; j++) {
    tile_nt<kFrom, kRows, 1>(x, w + j * stride, stride, k, out + j, out_stride);
  }
}

template <From kFrom, class W>
void block_nt(const float *const *x, int64_t m, const W *w, int64_t stride, int64_t n, Piece k, float *out,
              int64_t out_stride) {
  int64_t i = 0;
  for (; i + kTileRows <= m; i += kTileRows) {
    row_nt<kFrom, kTileRows>(x + i, w, stride, n, k, out + i * out_stride, out_stride);
  }
  switch (m - i) {
    case 3:
      return row_nt<kFrom, 3>(x + i, w, stride, n, k, out + i * out_stride, out_stride);
    case 2:
      return row_nt<kFrom, 2>(x + i, w, stride, n, k, out + i * out_stride, out_stride);
    case 1:
      return row_nt<kFrom, 1>(x + i, w, stride, n, k, out + i * out_stride, out_stride);
  }
}

// Columns that share a pass over x: as many as stay in the first-level cache, but one tile's where x itself stays
// there. BF16 columns that serve several tiles of rows are widened once.
template <class W>
void gemm_nt_of(const float *const *x, int64_t m, const W *w, int64_t stride, int64_t n, int64_t depth, float *out,
                int64_t out_stride) {
  constexpr int64_t kCached = 8 * (kPiece + kLanes);  // floats: 21 of 32 KiB
  alignas(64) float wide[kCached];
  Piece k = {0, 0};
  do {
    k = {k.begin, depth - k.begin < kPiece ? depth - k.begin : kPiece};
    const int64_t wide_stride = (k.count + kLanes) / kLanes * kLanes;  // > 0
    const int64_t fitting = kCached / wide_stride / kTileColumns * kTileColumns;
    const bool x_cached = m * k.count <= kCached;
    const int64_t block = x_cached ? kTileColumns : fitting;
    for (int64_t j = 0; j < n; j += block) {
      const int64_t count = n - j < block ? n - j : block;
      const W *columns = w + j * stride + k.begin;
      if (sizeof(W) < sizeof(float) && m > kTileRows) {
        for (int64_t column = 0; column < count; column++) {
          widen_row(columns + column * stride, k.count, wide + column * wide_stride);
        }
        block_nt<From::kCache>(x, m, wide, wide_stride, count, k, out + j, out_stride);
      } else if (x_cached) {
        block_nt<From::kMemory>(x, m, columns, stride, count, k, out + j, out_stride);
      } else {
        block_nt<From::kCache>(x, m, columns, stride, count, k, out + j, out_stride);
      }
    }
    k.begin += k.count;
  } while (k.begin < depth);
}

void gemm_nt(const float *const *x, int64_t m, Matrix w, int64_t n, int64_t k, float *out, int64_t out_stride) {
  if (w.bf16) {
    gemm_nt_of(x, m, static_cast<const uint16_t *>(w.data), w.stride, n, k, out, out_stride);
  } else {
    gemm_nt_of(x, m, static_cast<const float *>(w.data), w.stride, n, k, out, out_stride);
  }
}

// Lanes run over the columns of w; `part` of them in the last vector of a ragged edge, else kLanes.
template <int kRows, int kVectors, bool kWhole, class W>
MLA_INLINE void tile_nn(const float *const *x, const W *w, int64_t stride, int64_t k, const float *keep, float *out,
                        int64_t out_stride, int64_t part) {
  const auto load_columns = [part](const auto *p) __attribute__((always_inline)) {
    if constexpr (kWhole) {
      return load(p);
    } else {
      return load_part(p, part);
    }
  };
  Floats sums[kRows][kVectors] = {};
  if (keep != nullptr) {
    for (int i = 0; i < kRows; i++) {
      for (int v = 0; v < kVectors; v++) {
        sums[i][v] = keep[i] * load_columns(out + i * out_stride + v * kLanes);
      }
    }
  }
  for (int64_t at = 0; at < k; at++) {
    Floats row[kVectors];
    for (int v = 0; v < kVectors; v++) {
      row[v] = load_columns(w + at * stride + v * kLanes);
    }
    for (int i = 0; i < kRows; i++) {
      for (int v = 0; v < kVectors; v++) {
        sums[i][v] = fma(all(x[i][at]), row[v], sums[i][v]);
      }
    }
  }
  for (int i = 0; i < kRows; i++) {
    for (int v = 0; v < kVectors; v++) {
      if constexpr (kWhole) {
        store(sums[i][v], out + i * out_stride + v * kLanes);
      } else {
        store_part(sums[i][v], part, out + i * out_stride + v * kLanes);
      }
    }
  }
}

template <int kValue>
struct Constant {
  static constexpr int value = kValue;
};

template <int kVectors, bool kWhole, class W>
MLA_INLINE void column_nn(const float *const *x, int64_t m, const W *w, int64_t stride, int64_t k, const float *keep,
                          float *out, int64_t out_stride, int64_t part) {
  const auto tile = [&](auto rows, int64_t i) __attribute__((always_inline)) {
    tile_nn<decltype(rows)::value, kVectors, kWhole>(x + i, w, stride, k, keep == nullptr ? keep : keep + i,
                                                     out + i * out_stride, out_stride, part);
  };
  int64_t i = 0;
  for (; i + kTileRows <= m; i += kTileRows) {
    tile(Constant<kTileRows>{}, i);
  }
  for (; i < m; i++) {
    tile(Constant<1>{}, i);
  }
}

template <class W>
void gemm_nn_of(const float *const *x, int64_t m, const W *w, int64_t stride, int64_t n, int64_t k, const float *keep,
                float *out, int64_t out_stride) {
  constexpr int kWide = kTileColumns * kLanes;
  int64_t j = 0;
  for (; j + kWide <= n; j += kWide) {
    column_nn<kTileColumns, true>(x, m, w + j, stride, k, keep, out + j, out_stride, kLanes);
  }
  for (; j + kLanes <= n; j += kLanes) {
    column_nn<1, true>(x, m, w + j, stride, k, keep, out + j, out_stride, kLanes);
  }
  if (j < n) {
    column_nn<1, false>(x, m, w + j, stride, k, keep, out + j, out_stride, n - j);
  }
}

void gemm_nn(const float *const *x, int64_t m, Matrix w, int64_t n, int64_t k, const float *keep, float *out,
             int64_t out_stride) {
  if (w.bf16) {
    gemm_nn_of(x, m, static_cast<const uint16_t *>(w.data), w.stride, n, k, keep, out, out_stride);
  } else {
    gemm_nn_of(x, m, static_cast<const float *>(w.data), w.stride, n, k, keep, out, out_stride);
  }
}

// ---- rows -----------------------------------------------------------------------------------------------------------

void widen(const uint16_t *bf16, int64_t n, float *out) { widen_row(bf16, n, out); }

void narrow(const float *x, int64_t n, uint16_t *bf16) {
  for_each_vector(n, [&](int64_t i, int64_t count) {
    const Floats v = load_some(x + i, count);
    const Words bits = (Words)v;
    const Words rounded = (bits + 0x7fff + ((bits >> 16) & 1)) >> 16;
    const Words quiet = (bits >> 16) | 0x40;  // a NaN stays one
    const Words is_nan = (Words)(v != v);
    const Halves halves = __builtin_convertvector((is_nan & quiet) | (~is_nan & rounded), Halves);
    memcpy(bf16 + i, &halves, count * sizeof(uint16_t));
  });
}

float sum_squares(const float *x, int64_t n) {
  Floats sum = {};
  for_each_vector(n, [&](int64_t i, int64_t count) {
    const Floats v = load_some(x + i, count);
    sum = fma(v, v, sum);
  });
  return sum_lanes<1>(&sum)[0];
}

float max(const float *x, int64_t n) {
  Floats best = all(-__builtin_inff());
  int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes) {
    best = maximum(load(x + i), best);
  }
  float result = best[0];
  for (int lane = 1; lane < kLanes; lane++) {
    result = best[lane] > result ? best[lane] : result;
  }
  for (; i < n; i++) {
    result = x[i] > result ? x[i] : result;
  }
  return result;
}

float exp_sum(const float *x, int64_t n, float scale, float shift, float *out) {
  Floats sum = {};
  for_each_vector(n, [&](int64_t i, int64_t count) {
    const Floats y = exp(load_some(x + i, count) * scale - shift);
    store_some(y, count, out + i);
    sum += count == kLanes ? y : load_part(out + i, count);
  });
  return sum_lanes<1>(&sum)[0];
}

void scale_mul(const float *x, float scale, const float *weight, int64_t n, float *out) {
  for_each_vector(n, [&](int64_t i, int64_t count) {
    store_some(load_some(x + i, count) * scale * load_some(weight + i, count), count, out + i);
  });
}

void silu_mul(const float *gate, const float *up, int64_t n, float *out) {
  for_each_vector(n, [&](int64_t i, int64_t count) {
    const Floats v = load_some(gate + i, count);
    store_some(v / (1.0f + exp(-v)) * load_some(up + i, count), count, out + i);
  });
}

void add_scaled(const float *x, float scale, int64_t n, float *out) {
  for_each_vector(n, [&](int64_t i, int64_t count) {
    store_some(fma(load_some(x + i, count), all(scale), load_some(out + i, count)), count, out + i);
  });
}

void multiply(float scale, int64_t n, float *out) {
  for_each_vector(n, [&](int64_t i, int64_t count) {
    store_some(load_some(out + i, count) * scale, count, out + i);
  });
}

}  // namespace

extern const Kernels kernels = {widen,   narrow,    gemm_nt,  gemm_nn,    sum_squares, max,
                                exp_sum, scale_mul, silu_mul, add_scaled, multiply};

}  // namespace mla::cpu::MLA_ISA
