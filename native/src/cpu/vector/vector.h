// One register of floats for the instruction set that this file is compiled for. Included by kernels.cc alone.
#ifndef MLA_CPU_VECTOR_H
#define MLA_CPU_VECTOR_H

// No C++ headers here: their inline functions, compiled for AVX-512, could be the ones the linker keeps for all.
#include <immintrin.h>
#include <stdint.h>
#include <string.h>

namespace mla::cpu::MLA_ISA {
namespace {

#if defined(__AVX512F__)
constexpr int kLanes = 16;
#elif defined(__AVX2__)
constexpr int kLanes = 8;
#else
constexpr int kLanes = 4;
#endif

typedef float Floats __attribute__((vector_size(kLanes * 4)));
typedef int32_t Ints __attribute__((vector_size(kLanes * 4)));
typedef uint32_t Words __attribute__((vector_size(kLanes * 4)));
typedef uint16_t Halves __attribute__((vector_size(kLanes * 2)));

#define MLA_INLINE inline __attribute__((always_inline))

// a * b + c, rounded once where the hardware can.
MLA_INLINE Floats fma(Floats a, Floats b, Floats c) {
#if defined(__AVX512F__)
  return (Floats)_mm512_fmadd_ps((__m512)a, (__m512)b, (__m512)c);
#elif defined(__AVX2__)
  return (Floats)_mm256_fmadd_ps((__m256)a, (__m256)b, (__m256)c);
#else
  return a * b + c;
#endif
}

MLA_INLINE Floats all(float x) { return x - Floats{}; }  // no operation but the broadcast: x - 0 is x

MLA_INLINE Floats load(const float *x) {
  Floats v;
  memcpy(&v, x, sizeof v);
  return v;
}

MLA_INLINE Floats load(const uint16_t *bf16) {
  Halves h;
  memcpy(&h, bf16, sizeof h);
  return (Floats)(__builtin_convertvector(h, Words) << 16);
}

// The first n < kLanes elements, then zeros; reads nothing beyond them.
template <class T>
MLA_INLINE Floats load_part(const T *x, int64_t n) {
  T part[kLanes] = {};
  memcpy(part, x, n * sizeof(T));
  return load(part);
}

MLA_INLINE void store(Floats v, float *out) { memcpy(out, &v, sizeof v); }
MLA_INLINE void store_part(Floats v, int64_t n, float *out) { memcpy(out, &v, n * sizeof(float)); }

MLA_INLINE Floats select(Ints mask, Floats a, Floats b) { return (Floats)((mask & (Ints)a) | (~mask & (Ints)b)); }
MLA_INLINE Floats maximum(Floats a, Floats b) { return select(a > b, a, b); }

// One step of the tree of every horizontal sum. a and b hold segments of 2 * half lanes each; the result holds the
// segments of a, then those of b, each halved: lane i of a segment plus lane i + half.
template <int kHalf>
MLA_INLINE Floats fold(Floats a, Floats b) {
  Ints low, high;
  for (int i = 0; i < kLanes; i++) {
    low[i] = i / kHalf * 2 * kHalf + i % kHalf;
    high[i] = low[i] + kHalf;
  }
  return __builtin_shuffle(a, b, low) + __builtin_shuffle(a, b, high);
}

// Sums of the lanes of kCount vectors, kCount a power of two up to kLanes: lane i of the result is the sum of v[i]. The
// tree is the same for every vector, whatever kCount.
template <int kCount, int kHalf = kLanes / 2>
MLA_INLINE Floats sum_lanes(const Floats *v) {
  constexpr int kNext = kCount > 1 ? kCount / 2 : 1;
  Floats folded[kNext];
  for (int i = 0; i < kNext; i++) {
    folded[i] = fold<kHalf>(v[kCount > 1 ? 2 * i : 0], v[kCount > 1 ? 2 * i + 1 : 0]);
  }
  if constexpr (kHalf == 1) {
    return folded[0];
  } else {
    return sum_lanes<kNext, kHalf / 2>(folded);
  }
}

// exp by Cephes' expf: x = n ln 2 + r, |r| <= ln 2 / 2, a polynomial of degree 6 in r. 0 below the normal numbers.
MLA_INLINE Floats exp(Floats x) {
  const Floats kRound = all(12582912.0f);  // 1.5 * 2^23: adding it rounds to an integer
  const Floats clamped = select(x > 89.0f, all(89.0f), select(x < -88.0f, all(-88.0f), x));
  const Floats n = fma(clamped, all(1.44269504088896341f), kRound) - kRound;
  Floats r = fma(n, all(-0.693359375f), clamped);
  r = fma(n, all(2.12194440e-4f), r);
  Floats p = all(1.9875691500e-4f);
  p = fma(p, r, all(1.3981999507e-3f));
  p = fma(p, r, all(8.3334519073e-3f));
  p = fma(p, r, all(4.1665795894e-2f));
  p = fma(p, r, all(1.6666665459e-1f));
  p = fma(p, r, all(5.0000001201e-1f));
  p = fma(p, r * r, r) + 1.0f;
  // In two steps, for 2^128 is no float.
  const Ints exponent = __builtin_convertvector(n, Ints);
  const Ints half = exponent >> 1;
  const Floats y = p * (Floats)((half + 127) << 23) * (Floats)((exponent - half + 127) << 23);
  return select(x < -87.33654f, Floats{}, y);
}

}  // namespace
}  // namespace mla::cpu::MLA_ISA

#endif
