// What every case of the table shares: operands with guarded surroundings, comparison, timing.
//
// A case prepares a Problem: a call through mla.h and a check against a plain reference in double. The test runs both,
// the benchmark times the call. Operands live in the context's memory, so a case serves every backend.
#ifndef MLA_TEST_HARNESS_H
#define MLA_TEST_HARNESS_H

#include "mla.h"

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

namespace mla::test {

using Shape = std::vector<int64_t>;

// A failed expectation, with words.
struct Failure {
  std::string words;
};

// A call that this backend has no kernel for: such a case is skipped on CUDA, unless it has a model's shapes.
struct Unsupported {
  std::string words;
};

[[noreturn]] __attribute__((format(printf, 1, 2))) void fail(const char *format, ...);
__attribute__((format(printf, 1, 2))) std::string text(const char *format, ...);

// SplitMix64; every case starts from its own name, so that a case alone sees what it sees in the whole table.
class Random {
 public:
  explicit Random(const std::string &name);
  uint64_t bits();
  double uniform(double low, double high);
  int64_t integer(int64_t low, int64_t high);  // both included
  std::vector<double> uniforms(int64_t count, double low, double high);

 private:
  uint64_t state_;
};

class Lab;

/*
 * A tensor in the context's memory. Around it, and in the gaps that its strides leave, lie sentinels (NaN as floats):
 * whoever reads them shows it in the result, whoever writes them is caught by check_surroundings().
 */
class Operand {
 public:
  // gap: elements between the end of a row (the innermost dimension) and the next row's begin.
  Operand(Lab &lab, int32_t dtype, Shape shape, int64_t gap = 0);
  Operand(Lab &lab, int32_t dtype, Shape shape, Shape strides);
  ~Operand();
  Operand(const Operand &) = delete;
  Operand &operator=(const Operand &) = delete;

  mla_tensor tensor{};


  // Elements in row-major order of the shape, rounded to the dtype on the way in.
  Operand &set(const std::vector<double> &values);
  Operand &set_bits(const std::vector<uint64_t> &bits);
  std::vector<double> values() const;
  std::vector<uint64_t> bits() const;

  int64_t count() const;
  bool on_cuda() const;
  // That no byte beside the elements has changed since the last set; with elements, that none at all has.
  void check_surroundings(const char *name, bool elements = false) const;

 private:
  int64_t position(int64_t index) const;  // of an element, in bytes from the buffer's begin

  Lab &lab_;
  mla_buffer *buffer_ = nullptr;
  std::vector<uint8_t> image_;  // what was last written there
};

// A context to run cases on, and what may be expected of it.
class Lab {
 public:
  Lab(const std::string &device, const std::string &library, int threads);
  ~Lab();
  Lab(const Lab &) = delete;
  Lab &operator=(const Lab &) = delete;

  mla_context *context = nullptr;
  std::string name;
  const bool cuda;
};

void require_ok(mla_status status);
// That a call was refused as an invalid argument, with words that hold `words`.
void require_refused(mla_status status, const std::string &words);

// |got - want| <= relative * scale[i] + rounding of the dtype; NaN and infinities must agree. On CUDA, where products are
// summed in another order and probabilities rounded to BF16, a BF16 tensor may also be right as a whole: a normalised mean
// square error of 1e-5 at most, and no element farther off than 1/32 of itself and of the tensor's root mean square. F32: 1e-9, 1e-3.
void compare(const char *name, const Operand &got, const std::vector<double> &want, const std::vector<double> &scale,
             double relative = 1e-6);
void compare_exact(const char *name, const Operand &got, const std::vector<double> &want);
void compare_bits(const char *name, const Operand &a, const Operand &b);

double round_to(int32_t dtype, double value);
const char *dtype_name(int32_t dtype);

// The types of a call with act and wide operands.
struct ActTypes {
  int32_t act, wide;
};
constexpr ActTypes kF32 = {MLA_F32, MLA_F32}, kBf16 = {MLA_BF16, MLA_BF16}, kWide = {MLA_BF16, MLA_F32};
std::string name_of(ActTypes types);  // "F32", "BF16", "BF16 of F32"

struct Problem {
  std::function<mla_status()> call;
  std::function<void()> check;
  std::vector<std::shared_ptr<void>> owned;  // operands that neither of them holds
  double flops = 0;
  double bytes = 0;
  bool by_wall_clock = false;  // on CUDA: a call that cannot be captured in a graph
};

struct Case {
  std::string name;
  std::function<Problem(Lab &, Random &)> prepare;
  bool timed = false;  // stands in the benchmark's table
  bool model = false;  // has a model's shapes and types, which every backend must take
};

// Marks a case so.
Case model_case(Case one);
// The gap after a row: odd, or for a model's shapes a multiple of 16 bytes.
inline int64_t gap_of(bool model, int64_t odd) { return model ? 8 * odd : odd; }

// The table, a part a file.
std::vector<Case> dense_cases();
std::vector<Case> attention_cases();
std::vector<Case> moe_cases();
std::vector<Case> token_cases();
std::vector<Case> invariance_cases();
std::vector<Case> argument_cases();
std::vector<Case> memory_cases();
std::vector<Case> stream_cases();
std::vector<Case> pack_cases();
std::vector<Case> model_cases();
std::vector<Case> cuda_benchmarks();  // calls alone, without checks

// A case that is a check alone.
Case check_case(const std::string &name, std::function<void(Lab &, Random &)> check);

}  // namespace mla::test

#endif
