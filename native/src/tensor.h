// Reading mla_tensor: sizes, addresses, words for messages.
#ifndef MLA_TENSOR_H
#define MLA_TENSOR_H

#include "mla.h"

#include <cstddef>
#include <cstdint>
#include <string>

namespace mla {

constexpr int32_t kLastDtype = MLA_F32_PANELS;

// What an address must be a multiple of, too.
inline int64_t element_bytes(int32_t dtype) {
  switch (dtype) {
    case MLA_F8_E4M3:
      return 1;
    case MLA_BF16:
    case MLA_F16:
      return 2;
    case MLA_F32:
    case MLA_I32:
      return 4;
    case MLA_I64:
      return 8;
    case MLA_BF16_PANELS:
    case MLA_F32_PANELS:
      return 64;  // they are read by cache lines
    default:
      return 0;
  }
}

inline const char *dtype_name(int32_t dtype) {
  static const char *const names[] = {"F32", "BF16", "F16", "F8_E4M3", "I32", "I64", "BF16_PANELS", "F32_PANELS"};
  return dtype >= 0 && dtype <= kLastDtype ? names[dtype] : "an unknown dtype";
}

// "BF16 [64, 576]", for messages.
inline std::string describe(const mla_tensor &t) {
  std::string words = dtype_name(t.dtype);
  words += " [";
  for (int i = 0; i < t.rank && i < 4; i++) {
    words += (i ? ", " : "") + std::to_string(t.shape[i]);
  }
  return words + "]";
}

inline int64_t element_count(const mla_tensor &t) {
  int64_t count = 1;
  for (int i = 0; i < t.rank; i++) {
    count *= t.shape[i];
  }
  return count;
}

// The offset of element (i, j, k), in elements.
inline int64_t offset(const mla_tensor &t, int64_t i, int64_t j, int64_t k) {
  return i * t.stride[0] + (t.rank > 1 ? j * t.stride[1] : 0) + (t.rank > 2 ? k * t.stride[2] : 0);
}

// The address of element (i, j, k); T is the tensor's element type.
template <class T>
inline T *at(const mla_tensor &t, int64_t i, int64_t j = 0, int64_t k = 0) {
  return static_cast<T *>(t.data) + offset(t, i, j, k);
}

// The same where the element type is known only at run time.
inline void *address(const mla_tensor &t, int64_t i, int64_t j = 0, int64_t k = 0) {
  return static_cast<char *>(t.data) + offset(t, i, j, k) * element_bytes(t.dtype);
}

}  // namespace mla

#endif
