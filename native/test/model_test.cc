// The vocabulary's product, which is too large for the plain reference: some of its elements, in double.
#include "harness.h"

#include <cmath>
#include <cstring>

namespace mla::test {
namespace {

float from_bf16(uint16_t bits) {
  const uint32_t wide = static_cast<uint32_t>(bits) << 16;
  float value;
  memcpy(&value, &wide, sizeof value);
  return value;
}

// A matrix of random BF16 in the context's memory, whose rows can be looked at one by one.
class Matrix {
 public:
  Matrix(Lab &lab, int64_t rows, int64_t columns, int64_t seed) : lab_(lab), columns_(columns) {
    require_ok(mla_buffer_create(lab.context, rows * columns * 2, &buffer_));
    tensor = {mla_buffer_data(buffer_), MLA_BF16, 2, {rows, columns}, {columns, 1}};
    require_ok(mla_fill_normal(lab.context, &tensor, 0.5f, seed));
  }
  ~Matrix() { mla_buffer_destroy(buffer_); }
  Matrix(const Matrix &) = delete;
  Matrix &operator=(const Matrix &) = delete;

  std::vector<double> row(int64_t index) const {
    std::vector<uint16_t> bits(columns_);
    require_ok(mla_copy_to_host(lab_.context, bits.data(), static_cast<uint16_t *>(tensor.data) + index * columns_,
                                columns_ * 2));
    std::vector<double> values;
    for (const uint16_t b : bits) {
      values.push_back(static_cast<double>(from_bf16(b)));
    }
    return values;
  }

  mla_tensor tensor{};

 private:
  Lab &lab_;
  int64_t columns_;
  mla_buffer *buffer_ = nullptr;
};

Case logits_case(int64_t tokens, int64_t vocabulary, int64_t hidden) {
  return model_case(check_case(text("logits t=%ld v=%ld h=%ld", tokens, vocabulary, hidden), [=](Lab &lab, Random &random) {
    Matrix x(lab, tokens, hidden, 1), w(lab, vocabulary, hidden, 2);
    mla_buffer *buffer = nullptr;
    require_ok(mla_buffer_create(lab.context, tokens * vocabulary * 4, &buffer));
    mla_tensor out = {mla_buffer_data(buffer), MLA_F32, 2, {tokens, vocabulary}, {vocabulary, 1}};
    require_ok(mla_gemm(lab.context, &x.tensor, &w.tensor, nullptr, &out));
    std::vector<float> logits(tokens * vocabulary);
    require_ok(mla_copy_to_host(lab.context, logits.data(), out.data, tokens * vocabulary * 4));
    mla_buffer_destroy(buffer);
    for (int i = 0; i < 300; i++) {
      const int64_t column = i == 0 ? vocabulary - 1 : random.integer(0, vocabulary - 1);
      const int64_t token = random.integer(0, tokens - 1);
      const std::vector<double> a = x.row(token);
      const std::vector<double> b = w.row(column);
      double want = 0;
      for (int64_t k = 0; k < hidden; k++) {
        want += a[k] * b[k];
      }
      const auto got = static_cast<double>(logits[token * vocabulary + column]);
      if (!(std::fabs(got - want) <= 1e-5 * static_cast<double>(hidden) * 0.25)) {
        fail("logit %ld of token %ld is %.9g, the reference says %.9g", column, token, got, want);
      }
    }
  }));
}

}  // namespace

std::vector<Case> model_cases() { return {logits_case(1, 102400, 2048), logits_case(33, 102400, 2048)}; }

}  // namespace mla::test
