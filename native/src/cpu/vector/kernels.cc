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

// Starts a tile's sums one by one: an array set to {} becomes a call of memset, and its sums leave their registers.
template <int kRows, int kColumns>
MLA_INLINE void clear(Floats (&sums)[kRows][kColumns]) {
  for (int i = 0; i < kRows; i++) {
    for (int j = 0; j < kColumns; j++) {
      sums[i][j] = Floats{};
    }
  }
}

// Rows of x that share a load of w, and vectors of w's columns that share a load of x.
constexpr int kTileRows = 4;
constexpr int kTileColumns = kLanes == 16 ? 4 : 2;

// The same for scores, whose tile is of kLanes sums: all heads of a small model share the one pass over a key.
constexpr int kScoreRows = kLanes / 2;
constexpr int kScoreColumns = 2;
constexpr int kAhead = 4;  // keys asked for in advance

// Lanes run over k, so keys are read as they lie and every sum has the same order whatever the tile.
template <int kRows, int kColumns, class W>
MLA_INLINE void tile_scores(const float *const *x, const W *w, int64_t stride, int64_t k, float *out,
                            int64_t out_stride) {
  constexpr int kCount = kRows * kColumns;
  static_assert((kCount & (kCount - 1)) == 0 && kCount <= kLanes, "sum_lanes takes a power of two");
  Floats sums[kRows][kColumns];
  clear(sums);
  const auto accumulate = [&](auto load_at) __attribute__((always_inline)) {
    Floats row[kRows];
    for (int i = 0; i < kRows; i++) {
      row[i] = load_at(x[i]);
    }
    for (int j = 0; j < kColumns; j++) {
      const Floats column = load_at(w + j * stride);
      for (int i = 0; i < kRows; i++) {
        sums[i][j] = fma(row[i], column, sums[i][j]);
      }
    }
  };
  int64_t at = 0;
  for (; at + kLanes <= k; at += kLanes) {
    for (int j = 0; j < kColumns; j++) {
      __builtin_prefetch(w + (kAhead + j) * stride + at);
    }
    accumulate([at](const auto *p) __attribute__((always_inline)) { return load(p + at); });
  }
  if (at < k) {
    accumulate([at, k](const auto *p) __attribute__((always_inline)) { return load_part(p + at, k - at); });
  }
  float totals[kLanes];
  store(sum_lanes<kCount>(&sums[0][0]), totals);
  for (int i = 0; i < kRows; i++) {
    memcpy(out + i * out_stride, totals + i * kColumns, kColumns * sizeof(float));
  }
}

template <int kColumns, class W>
MLA_INLINE void column_scores(const float *const *x, int64_t m, const W *w, int64_t stride, int64_t k, float *out,
                              int64_t out_stride) {
  int64_t i = 0;
  for (; i + kScoreRows <= m; i += kScoreRows) {
    tile_scores<kScoreRows, kColumns>(x + i, w, stride, k, out + i * out_stride, out_stride);
  }
  for (; i + kScoreRows / 2 <= m; i += kScoreRows / 2) {
    tile_scores<kScoreRows / 2, kColumns>(x + i, w, stride, k, out + i * out_stride, out_stride);
  }
  for (; i < m; i++) {
    tile_scores<1, kColumns>(x + i, w, stride, k, out + i * out_stride, out_stride);
  }
}

template <class W>
void scores_of(const float *const *x, int64_t m, const W *w, int64_t stride, int64_t n, int64_t k, float *out,
               int64_t out_stride) {
  int64_t j = 0;
  for (; j + kScoreColumns <= n; j += kScoreColumns) {
    column_scores<kScoreColumns>(x, m, w + j * stride, stride, k, out + j, out_stride);
  }
  for (; j < n; j++) {
    column_scores<1>(x, m, w + j * stride, stride, k, out + j, out_stride);
  }
}

void scores(const float *const *x, int64_t m, Matrix w, int64_t n, int64_t k, float *out, int64_t out_stride) {
  if (w.bf16) {
    scores_of(x, m, static_cast<const uint16_t *>(w.data), w.stride, n, k, out, out_stride);
  } else {
    scores_of(x, m, static_cast<const float *>(w.data), w.stride, n, k, out, out_stride);
  }
}

// Weights in panels [k][kPanel]: lanes run over columns, and a sum over k is one chain of fma in order, whatever the tile.
// BF16 panels hold two terms in a 32-bit word, the earlier one below: half of the memory traffic, and two instructions
// make floats of two vectors.
constexpr int kPanelVectors = 2;
constexpr int kPanel = kPanelVectors * kLanes;
constexpr int kPanelRows = kLanes == 16 ? 12 : 4;  // of x that share a load of a panel: as many as there are registers for

template <class W>
void pack_panel(const W *w, int64_t row_stride, int64_t column_stride, int64_t columns, int64_t k, W *panel) {
  constexpr int64_t kTerms = 4 / sizeof(W);  // in a word
  for (int64_t at = 0; at < (k + kTerms - 1) / kTerms * kTerms; at++) {
    for (int64_t j = 0; j < kPanel; j++) {
      const bool there = j < columns && at < k;
      panel[(at / kTerms * kPanel + j) * kTerms + at % kTerms] = there ? w[j * row_stride + at * column_stride] : W{};
    }
  }
}

void pack(const void *w, int64_t row_stride, int64_t column_stride, int64_t n, int64_t k, bool bf16, void *out) {
  char *panel = static_cast<char *>(out);
  for (int64_t j = 0; j < n; j += kPanel, panel += panel_bytes(kPanel, k, bf16)) {
    const int64_t columns = n - j < kPanel ? n - j : kPanel;
    if (bf16) {
      const uint16_t *rows = static_cast<const uint16_t *>(w) + j * row_stride;
      pack_panel(rows, row_stride, column_stride, columns, k, reinterpret_cast<uint16_t *>(panel));
    } else {
      const float *rows = static_cast<const float *>(w) + j * row_stride;
      pack_panel(rows, row_stride, column_stride, columns, k, reinterpret_cast<float *>(panel));
    }
  }
}

// One panel for kRows rows of x.
template <bool kBf16, int kRows>
void tile_linear(const float *const *x, const float *panel, int64_t columns, int64_t k, float *out,
                 int64_t out_stride) {
  Floats sums[kRows][kPanelVectors];
  clear(sums);
  const auto accumulate = [&](const Floats *column, int64_t at) __attribute__((always_inline)) {
    for (int i = 0; i < kRows; i++) {
      const Floats term = all(x[i][at]);
      for (int v = 0; v < kPanelVectors; v++) {
        sums[i][v] = fma(term, column[v], sums[i][v]);
      }
    }
  };
  Floats column[kPanelVectors];
  if constexpr (kBf16) {
    Words pairs[kPanelVectors];
    for (int64_t at = 0; at < k; at += 2, panel += kPanel) {
      for (int v = 0; v < kPanelVectors; v++) {
        pairs[v] = (Words)load(panel + v * kLanes);
        column[v] = (Floats)(pairs[v] << 16);
      }
      accumulate(column, at);
      if (at + 1 < k) {
        for (int v = 0; v < kPanelVectors; v++) {
          column[v] = (Floats)(pairs[v] & 0xffff0000u);
        }
        accumulate(column, at + 1);
      }
    }
  } else {
    for (int64_t at = 0; at < k; at++, panel += kPanel) {
      for (int v = 0; v < kPanelVectors; v++) {
        column[v] = load(panel + v * kLanes);
      }
      accumulate(column, at);
    }
  }
  if (columns == kPanel) {
    for (int i = 0; i < kRows; i++) {
      for (int v = 0; v < kPanelVectors; v++) {
        store(sums[i][v], out + i * out_stride + v * kLanes);
      }
    }
    return;
  }
  for (int i = 0; i < kRows; i++) {
    float row[kPanel];
    for (int v = 0; v < kPanelVectors; v++) {
      store(sums[i][v], row + v * kLanes);
    }
    memcpy(out + i * out_stride, row, columns * sizeof(float));
  }
}

// The tile for `rows` rows, 1 to kPanelRows.
template <bool kBf16, int kRows = kPanelRows>
MLA_INLINE void tile_of(int64_t rows, const float *const *x, const float *panel, int64_t columns, int64_t k, float *out,
                        int64_t out_stride) {
  if constexpr (kRows > 0) {
    if (rows == kRows) {
      tile_linear<kBf16, kRows>(x, panel, columns, k, out, out_stride);
    } else {
      tile_of<kBf16, kRows - 1>(rows, x, panel, columns, k, out, out_stride);
    }
  }
}

// Rows in tiles of nearly equal heights: a panel is read as seldom as can be.
template <bool kBf16>
void linear_of(const float *const *x, int64_t m, const char *panel, int64_t n, int64_t k, float *out,
               int64_t out_stride) {
  const int64_t tiles = (m + kPanelRows - 1) / kPanelRows;
  for (int64_t j = 0; j < n; j += kPanel, panel += panel_bytes(kPanel, k, kBf16)) {
    const int64_t columns = n - j < kPanel ? n - j : kPanel;
    for (int64_t tile = 0, row = 0; tile < tiles; tile++) {
      const int64_t rows = (m - row + tiles - tile - 1) / (tiles - tile);
      tile_of<kBf16>(rows, x + row, reinterpret_cast<const float *>(panel), columns, k, out + row * out_stride + j,
                     out_stride);
      row += rows;
    }
  }
}

void linear(const float *const *x, int64_t m, Panels w, int64_t n, int64_t k, float *out, int64_t out_stride) {
  if (w.bf16) {
    linear_of<true>(x, m, static_cast<const char *>(w.data), n, k, out, out_stride);
  } else {
    linear_of<false>(x, m, static_cast<const char *>(w.data), n, k, out, out_stride);
  }
}

// Two cache lines, into the second level: the first is full of what is being computed.
MLA_INLINE void ask_for_some(Ahead &ahead) {
  if (ahead.bytes > 0) {
    __builtin_prefetch(ahead.data, 0, 2);
    __builtin_prefetch(ahead.data + 64, 0, 2);
    ahead.data += 128;
    ahead.bytes -= 128;
  }
}

// Lanes run over the columns of w; `part` of them in the last vector of a ragged edge, else kLanes.
template <int kRows, int kVectors, bool kWhole, class W>
MLA_INLINE void tile_nn(const float *const *x, const W *w, int64_t stride, int64_t k, const float *keep, float *out,
                        int64_t out_stride, int64_t part, Ahead &ahead) {
  const auto load_columns = [part](const auto *p) __attribute__((always_inline)) {
    if constexpr (kWhole) {
      return load(p);
    } else {
      return load_part(p, part);
    }
  };
  Floats sums[kRows][kVectors];
  clear(sums);
  if (keep != nullptr) {
    for (int i = 0; i < kRows; i++) {
      for (int v = 0; v < kVectors; v++) {
        sums[i][v] = keep[i] * load_columns(out + i * out_stride + v * kLanes);
      }
    }
  }
  for (int64_t at = 0; at < k; at++) {
    ask_for_some(ahead);
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
                          float *out, int64_t out_stride, int64_t part, Ahead &ahead) {
  const auto tile = [&](auto rows, int64_t i) __attribute__((always_inline)) {
    tile_nn<decltype(rows)::value, kVectors, kWhole>(x + i, w, stride, k, keep == nullptr ? keep : keep + i,
                                                     out + i * out_stride, out_stride, part, ahead);
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
                float *out, int64_t out_stride, Ahead ahead) {
  constexpr int kWide = kTileColumns * kLanes;
  int64_t j = 0;
  for (; j + kWide <= n; j += kWide) {
    column_nn<kTileColumns, true>(x, m, w + j, stride, k, keep, out + j, out_stride, kLanes, ahead);
  }
  for (; j + kLanes <= n; j += kLanes) {
    column_nn<1, true>(x, m, w + j, stride, k, keep, out + j, out_stride, kLanes, ahead);
  }
  if (j < n) {
    column_nn<1, false>(x, m, w + j, stride, k, keep, out + j, out_stride, n - j, ahead);
  }
}

void gemm_nn(const float *const *x, int64_t m, Matrix w, int64_t n, int64_t k, const float *keep, float *out,
             int64_t out_stride, Ahead ahead) {
  if (w.bf16) {
    gemm_nn_of(x, m, static_cast<const uint16_t *>(w.data), w.stride, n, k, keep, out, out_stride, ahead);
  } else {
    gemm_nn_of(x, m, static_cast<const float *>(w.data), w.stride, n, k, keep, out, out_stride, ahead);
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

extern const Kernels kernels = {widen,       narrow, scores,  kPanel,    pack,     linear,     gemm_nn,
                                sum_squares, max,    exp_sum, scale_mul, silu_mul, add_scaled, multiply};

}  // namespace mla::cpu::MLA_ISA
