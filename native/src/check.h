// What api.cc checks of every operand: there, of the right type and shape, contiguous where the contract says so.
#ifndef MLA_CHECK_H
#define MLA_CHECK_H

#include "error.h"
#include "tensor.h"

#include <initializer_list>

namespace mla {

// Sets of dtypes, a bit each.
constexpr unsigned only(int32_t dtype) { return 1u << dtype; }
constexpr unsigned kAct = only(MLA_F32) | only(MLA_BF16);
constexpr unsigned kWeight = kAct;
constexpr unsigned kMatrix = kWeight | only(MLA_BF16_PANELS) | only(MLA_F32_PANELS);  // of a product
constexpr unsigned kFloat = kAct | only(MLA_F16) | only(MLA_F8_E4M3);

constexpr int64_t kAny = -1;  // a dimension of any size

enum class Inner { kContiguous, kStrided };

inline std::string expectation(unsigned dtypes, std::initializer_list<int64_t> shape) {
  std::string words;
  for (int32_t dtype = 0; dtype <= kLastDtype; dtype++) {
    if (dtypes & only(dtype)) {
      words += (words.empty() ? "" : " or ") + std::string(dtype_name(dtype));
    }
  }
  words += " [";
  bool first = true;
  for (const int64_t size : shape) {
    words += (first ? "" : ", ") + (size == kAny ? std::string("*") : std::to_string(size));
    first = false;
  }
  return words + "]";
}

inline bool matches(const mla_tensor &t, unsigned dtypes, std::initializer_list<int64_t> shape) {
  if (t.rank != static_cast<int32_t>(shape.size()) || t.dtype < 0 || t.dtype > kLastDtype || !(dtypes & only(t.dtype))) {
    return false;
  }
  int i = 0;
  for (const int64_t size : shape) {
    if (t.shape[i] < 0 || (size != kAny && t.shape[i] != size)) {
      return false;
    }
    i++;
  }
  return true;
}

// Returns *t if it is one of the dtypes and of the shape; MLA_INVALID_ARGUMENT with the operand's name if not.
inline const mla_tensor &expect(const char *name, const mla_tensor *t, unsigned dtypes,
                                std::initializer_list<int64_t> shape, Inner inner = Inner::kContiguous) {
  if (t == nullptr) {
    fail(MLA_INVALID_ARGUMENT, "%s is NULL; it must be %s", name, expectation(dtypes, shape).c_str());
  }
  if (!matches(*t, dtypes, shape)) {
    fail(MLA_INVALID_ARGUMENT, "%s is %s; it must be %s", name, describe(*t).c_str(),
         expectation(dtypes, shape).c_str());
  }
  if (element_count(*t) == 0) {
    return *t;
  }
  const int last = t->rank - 1;
  if (inner == Inner::kContiguous && t->shape[last] > 1 && t->stride[last] != 1) {
    fail(MLA_INVALID_ARGUMENT, "%s, %s, has stride %lld in its last dimension; it must be contiguous there (1)", name,
         describe(*t).c_str(), static_cast<long long>(t->stride[last]));
  }
  for (int i = 0; i < t->rank; i++) {
    if (t->shape[i] > 1 && t->stride[i] < 0) {
      fail(MLA_INVALID_ARGUMENT, "%s, %s, has the negative stride %lld in dimension %d", name, describe(*t).c_str(),
           static_cast<long long>(t->stride[i]), i);
    }
  }
  if (t->data == nullptr || reinterpret_cast<uintptr_t>(t->data) % element_bytes(t->dtype) != 0) {
    fail(MLA_INVALID_ARGUMENT, "%s, %s, is at address %p; it must be there and aligned to its %lld-byte elements", name,
         describe(*t).c_str(), t->data, static_cast<long long>(element_bytes(t->dtype)));
  }
  return *t;
}

// The same of a tensor of any rank, without gaps.
inline const mla_tensor &expect_packed(const char *name, const mla_tensor *t, unsigned dtypes) {
  switch (t == nullptr ? 0 : t->rank) {
    case 2:
      expect(name, t, dtypes, {kAny, kAny});
      break;
    case 3:
      expect(name, t, dtypes, {kAny, kAny, kAny});
      break;
    case 4:
      expect(name, t, dtypes, {kAny, kAny, kAny, kAny});
      break;
    default:
      expect(name, t, dtypes, {kAny});
  }
  int64_t packed = 1;
  for (int i = t->rank - 1; i >= 0; i--) {
    if (t->shape[i] > 1 && t->stride[i] != packed) {
      fail(MLA_INVALID_ARGUMENT, "%s, %s, has stride %lld in dimension %d; packed it would be %lld", name,
           describe(*t).c_str(), static_cast<long long>(t->stride[i]), i, static_cast<long long>(packed));
    }
    packed *= t->shape[i];
  }
  return *t;
}

// A number that must be in [low, high].
inline void expect_range(const char *name, int64_t value, int64_t low, int64_t high) {
  if (value < low || value > high) {
    fail(MLA_INVALID_ARGUMENT, "%s is %lld; it must be in [%lld, %lld]", name, static_cast<long long>(value),
         static_cast<long long>(low), static_cast<long long>(high));
  }
}

template <class Args>
const Args &expect_args(const Args *args) {
  if (args == nullptr) {
    fail(MLA_INVALID_ARGUMENT, "args is NULL");
  }
  return *args;
}

}  // namespace mla

#endif
