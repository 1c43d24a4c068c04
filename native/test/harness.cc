#include "harness.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstdarg>
#include <cstdio>
#include <cstring>

namespace mla::test {
namespace {

constexpr int64_t kGuardBytes = 256;
constexpr uint8_t kSentinel = 0xFF;  // NaN in every float dtype, -1 as an integer

int64_t element_bytes(int32_t dtype) {
  static const int64_t bytes[] = {4, 2, 2, 1, 4, 8};
  return bytes[dtype];
}

uint32_t bf16_bits(float value) {
  const uint32_t bits = std::bit_cast<uint32_t>(value);
  if (std::isnan(value)) {
    return (bits >> 16) | 0x40;
  }
  return (bits + 0x7FFF + ((bits >> 16) & 1)) >> 16;
}

uint64_t to_bits(int32_t dtype, double value) {
  switch (dtype) {
    case MLA_F32:
      return std::bit_cast<uint32_t>(static_cast<float>(value));
    case MLA_BF16:
      return bf16_bits(static_cast<float>(value));
    case MLA_I32:
      return static_cast<uint32_t>(static_cast<int32_t>(value));
    case MLA_I64:
      return static_cast<uint64_t>(static_cast<int64_t>(value));
    default:
      fail("set values of %s by their bits", dtype_name(dtype));
  }
}

double from_bits(int32_t dtype, uint64_t bits) {
  switch (dtype) {
    case MLA_F32:
      return std::bit_cast<float>(static_cast<uint32_t>(bits));
    case MLA_BF16:
      return std::bit_cast<float>(static_cast<uint32_t>(bits << 16));
    case MLA_I32:
      return static_cast<int32_t>(bits);
    case MLA_I64:
      return static_cast<double>(static_cast<int64_t>(bits));
    default:
      fail("no values of %s", dtype_name(dtype));
  }
}

Shape strides_of(const Shape &shape, int64_t gap) {
  Shape strides(shape.size(), 1);
  for (int i = static_cast<int>(shape.size()) - 2; i >= 0; i--) {
    strides[i] = strides[i + 1] * shape[i + 1] + (i == static_cast<int>(shape.size()) - 2 ? gap : 0);
  }
  return strides;
}

}  // namespace

std::string text(const char *format, ...) {
  char words[1024];
  va_list arguments;
  va_start(arguments, format);
  vsnprintf(words, sizeof words, format, arguments);
  va_end(arguments);
  return words;
}

void fail(const char *format, ...) {
  char words[1024];
  va_list arguments;
  va_start(arguments, format);
  vsnprintf(words, sizeof words, format, arguments);
  va_end(arguments);
  throw Failure{words};
}

std::string name_of(ActTypes types) {
  return types.act == types.wide ? dtype_name(types.act) : text("%s of %s", dtype_name(types.act), dtype_name(types.wide));
}

const char *dtype_name(int32_t dtype) {
  static const char *const names[] = {"f32", "bf16", "f16", "f8", "i32", "i64"};
  return names[dtype];
}

double round_to(int32_t dtype, double value) { return from_bits(dtype, to_bits(dtype, value)); }

// ---- Random ---------------------------------------------------------------------------------------------------------

Random::Random(const std::string &name) : state_(0x5EED) {
  for (const char c : name) {
    state_ = (state_ ^ static_cast<uint8_t>(c)) * 0x100000001B3u;
  }
}

uint64_t Random::bits() {
  uint64_t z = state_ += 0x9E3779B97F4A7C15u;
  z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9u;
  z = (z ^ (z >> 27)) * 0x94D049BB133111EBu;
  return z ^ (z >> 31);
}

double Random::uniform(double low, double high) {
  return low + (high - low) * static_cast<double>(bits() >> 11) * 0x1p-53;
}

int64_t Random::integer(int64_t low, int64_t high) {
  return low + static_cast<int64_t>(bits() % static_cast<uint64_t>(high - low + 1));
}

std::vector<double> Random::uniforms(int64_t count, double low, double high) {
  std::vector<double> values(count);
  for (double &value : values) {
    value = uniform(low, high);
  }
  return values;
}

// ---- Operand --------------------------------------------------------------------------------------------------------

Operand::Operand(Lab &lab, int32_t dtype, Shape shape, int64_t gap)
    : Operand(lab, dtype, shape, strides_of(shape, gap)) {}

Operand::Operand(Lab &lab, int32_t dtype, Shape shape, Shape strides) : lab_(lab) {
  tensor.dtype = dtype;
  tensor.rank = static_cast<int32_t>(shape.size());
  int64_t last = 0;
  for (size_t i = 0; i < shape.size(); i++) {
    tensor.shape[i] = shape[i];
    tensor.stride[i] = strides[i];
    last += std::max<int64_t>(0, shape[i] - 1) * strides[i];
  }
  image_.assign((last + 1) * element_bytes(dtype) + 2 * kGuardBytes, kSentinel);
  require_ok(mla_buffer_create(lab.context, static_cast<int64_t>(image_.size()), &buffer_));
  tensor.data = static_cast<char *>(mla_buffer_data(buffer_)) + kGuardBytes;
  require_ok(mla_copy_from_host(lab.context, mla_buffer_data(buffer_), image_.data(), image_.size()));
}

Operand::~Operand() { mla_buffer_destroy(buffer_); }

int64_t Operand::count() const {
  int64_t count = 1;
  for (int i = 0; i < tensor.rank; i++) {
    count *= tensor.shape[i];
  }
  return count;
}

bool Operand::on_cuda() const { return lab_.cuda; }

int64_t Operand::position(int64_t index) const {
  int64_t offset = 0;
  for (int i = tensor.rank - 1; i >= 0; i--) {
    offset += index % tensor.shape[i] * tensor.stride[i];
    index /= tensor.shape[i];
  }
  return kGuardBytes + offset * element_bytes(tensor.dtype);
}

Operand &Operand::set_bits(const std::vector<uint64_t> &bits) {
  if (static_cast<int64_t>(bits.size()) != count()) {
    fail("the case sets %zu of %lld elements", bits.size(), static_cast<long long>(count()));
  }
  for (int64_t i = 0; i < count(); i++) {
    memcpy(&image_[position(i)], &bits[i], element_bytes(tensor.dtype));
  }
  require_ok(mla_copy_from_host(lab_.context, mla_buffer_data(buffer_), image_.data(), image_.size()));
  return *this;
}

Operand &Operand::set(const std::vector<double> &values) {
  std::vector<uint64_t> bits(values.size());
  std::transform(values.begin(), values.end(), bits.begin(), [&](double v) { return to_bits(tensor.dtype, v); });
  return set_bits(bits);
}

std::vector<uint64_t> Operand::bits() const {
  std::vector<uint8_t> now(image_.size());
  require_ok(mla_copy_to_host(lab_.context, now.data(), mla_buffer_data(buffer_), now.size()));
  std::vector<uint64_t> bits(count());
  for (int64_t i = 0; i < count(); i++) {
    memcpy(&bits[i], &now[position(i)], element_bytes(tensor.dtype));
  }
  return bits;
}

std::vector<double> Operand::values() const {
  const std::vector<uint64_t> raw = bits();
  std::vector<double> values(raw.size());
  std::transform(raw.begin(), raw.end(), values.begin(), [&](uint64_t b) { return from_bits(tensor.dtype, b); });
  return values;
}

void Operand::check_surroundings(const char *name, bool elements) const {
  std::vector<uint8_t> now(image_.size());
  require_ok(mla_copy_to_host(lab_.context, now.data(), mla_buffer_data(buffer_), now.size()));
  std::vector<bool> may_change(image_.size(), false);
  for (int64_t i = 0; i < count() && !elements; i++) {
    std::fill_n(may_change.begin() + position(i), element_bytes(tensor.dtype), true);
  }
  for (size_t i = 0; i < now.size(); i++) {
    if (!may_change[i] && now[i] != image_[i]) {
      fail("%s: byte %lld was written, which is %s", name, static_cast<long long>(i) - kGuardBytes,
           elements ? "an input's" : "outside of the tensor");
    }
  }
}

// ---- Lab, comparison ------------------------------------------------------------------------------------------------

Lab::Lab(const std::string &device, const std::string &library, int threads) : cuda(device == "cuda") {
  require_ok(
      mla_context_create(device.c_str(), 0, threads, library.empty() ? nullptr : library.c_str(), &context));
  int64_t free_bytes = 0;
  int64_t total_bytes = 0;
  char words[128];
  require_ok(mla_device_info(context, &free_bytes, &total_bytes, words, sizeof words));
  name = words;
}

Lab::~Lab() { mla_context_destroy(context); }

void require_ok(mla_status status) {
  if (status == MLA_UNSUPPORTED) {
    throw Unsupported{mla_last_error()};
  }
  if (status != MLA_OK) {
    fail("status %d: %s", status, mla_last_error());
  }
}

void require_refused(mla_status status, const std::string &words) {
  if (status != MLA_INVALID_ARGUMENT) {
    fail("status %d instead of a refusal that tells of \"%s\"", status, words.c_str());
  }
  if (std::string(mla_last_error()).find(words) == std::string::npos) {
    fail("\"%s\" does not tell of \"%s\"", mla_last_error(), words.c_str());
  }
}

namespace {

bool same(double a, double b) { return a == b || (std::isnan(a) && std::isnan(b)); }

// compare()'s second chance, on CUDA; empty or what is wrong.
std::string compare_whole(const Operand &got, const std::vector<double> &values, const std::vector<double> &want) {
  const bool bf16 = got.tensor.dtype == MLA_BF16;
  double error = 0;
  double size = 0;
  int64_t finite = 0;
  for (size_t i = 0; i < want.size(); i++) {
    if (std::isfinite(want[i])) {
      error += (values[i] - want[i]) * (values[i] - want[i]);
      size += want[i] * want[i];
      finite++;
    }
  }
  const double rms = std::sqrt(size / std::max<int64_t>(1, finite));
  const double most = bf16 ? 1.0 / 32 : 1e-3;
  for (size_t i = 0; i < want.size(); i++) {
    if (!same(values[i], want[i]) && !(std::fabs(values[i] - want[i]) <= most * (std::fabs(want[i]) + rms))) {
      return text("element %zu is %.9g, the reference says %.9g, root mean square %.3g", i, values[i], want[i], rms);
    }
  }
  const double allowed = bf16 ? 1e-5 : 1e-9;
  return error <= allowed * size ? "" : text("normalised mean square error %.3g", error / size);
}

}  // namespace

void compare(const char *name, const Operand &got, const std::vector<double> &want, const std::vector<double> &scale,
             double relative) {
  const std::vector<double> values = got.values();
  const double rounding = got.tensor.dtype == MLA_BF16 ? 0x1p-8 : 0x1p-23;
  for (size_t i = 0; i < want.size(); i++) {
    const double allowed = relative * std::fabs(scale[i]) + rounding * std::fabs(want[i]) + 1e-37;
    if (same(values[i], want[i]) || std::fabs(values[i] - want[i]) <= allowed) {
      continue;
    }
    const std::string whole = got.on_cuda() && relative > 0 ? compare_whole(got, values, want) : "only exact will do";
    if (whole.empty()) {
      break;
    }
    fail("%s[%zu] is %.9g, the reference says %.9g, allowed error %.3g; %s", name, i, values[i], want[i], allowed,
         whole.c_str());
  }
  got.check_surroundings(name);
}

void compare_exact(const char *name, const Operand &got, const std::vector<double> &want) {
  compare(name, got, want, std::vector<double>(want.size(), 0), 0);
  const std::vector<double> values = got.values();
  for (size_t i = 0; i < want.size(); i++) {
    if (!same(values[i], want[i])) {
      fail("%s[%zu] is %.9g, it must be %.9g", name, i, values[i], want[i]);
    }
  }
}

void compare_bits(const char *name, const Operand &a, const Operand &b) {
  const std::vector<uint64_t> left = a.bits();
  const std::vector<uint64_t> right = b.bits();
  if (left.size() != right.size()) {
    fail("%s: %zu elements against %zu", name, left.size(), right.size());
  }
  for (size_t i = 0; i < left.size(); i++) {
    if (left[i] != right[i]) {
      fail("%s[%zu] differs in its bits: %.9g and %.9g", name, i, from_bits(a.tensor.dtype, left[i]),
           from_bits(b.tensor.dtype, right[i]));
    }
  }
}

Case model_case(Case one) {
  one.name = "model " + one.name;
  one.model = true;
  return one;
}

Case check_case(const std::string &name, std::function<void(Lab &, Random &)> check) {
  return {name, [check](Lab &lab, Random &random) {
            Problem problem;
            problem.call = [] { return MLA_OK; };
            problem.check = [check, &lab, &random] { check(lab, random); };
            return problem;
          }};
}

}  // namespace mla::test
