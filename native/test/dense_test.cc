// convert, embedding, rms_norm, gemm, batched_gemm, silu_mul against loops in double.
#include "harness.h"

#include <cmath>

namespace mla::test {
namespace {

using Values = std::vector<double>;
using Op = std::shared_ptr<Operand>;

Op make(Lab &lab, int32_t dtype, Shape shape, int64_t gap = 0) {
  return std::make_shared<Operand>(lab, dtype, shape, gap);
}

double silu(double v) { return v / (1 + std::exp(-v)); }

// ---- gemm -----------------------------------------------------------------------------------------------------------

struct GemmShape {
  int64_t m, n, k;
  int32_t x, w, out;
  bool bias;
  bool timed;
  bool model = false;
};

Case gemm_case(GemmShape s) {
  const std::string name = text("gemm m=%ld n=%ld k=%ld %s*%s->%s%s", s.m, s.n, s.k, dtype_name(s.x), dtype_name(s.w),
                                dtype_name(s.out), s.bias ? " bias" : "");
  return {name,
          [s](Lab &lab, Random &random) {
            const int64_t gap = s.timed || s.model ? 0 : 3;  // timed rows lie on cache lines, as a model's do
            Op x = make(lab, s.x, {s.m, s.k}, gap);
            Op w = make(lab, s.w, {s.n, s.k}, gap);
            Op bias = s.bias ? make(lab, s.w, {s.n}) : nullptr;
            Op out = make(lab, s.out, {s.m, s.n}, gap);
            x->set(random.uniforms(s.m * s.k, -1, 1));
            w->set(random.uniforms(s.n * s.k, -1, 1));
            if (bias) {
              bias->set(random.uniforms(s.n, -1, 1));
            }
            Problem problem;
            problem.call = [=, &lab] {
              return mla_gemm(lab.context, &x->tensor, &w->tensor, bias ? &bias->tensor : nullptr, &out->tensor);
            };
            problem.check = [=] {
              const Values a = x->values();
              const Values b = w->values();
              const Values c = bias ? bias->values() : Values(s.n, 0);
              Values want(s.m * s.n);
              Values scale(s.m * s.n);
              for (int64_t i = 0; i < s.m; i++) {
                for (int64_t j = 0; j < s.n; j++) {
                  double sum = c[j];
                  double size = std::fabs(c[j]);
                  for (int64_t k = 0; k < s.k; k++) {
                    const double term = a[i * s.k + k] * b[j * s.k + k];
                    sum += term;
                    size += std::fabs(term);
                  }
                  want[i * s.n + j] = sum;
                  scale[i * s.n + j] = size;
                }
              }
              compare("out", *out, want, scale);
              x->check_surroundings("x", true);
              w->check_surroundings("w", true);
            };
            problem.flops = 2.0 * s.m * s.n * s.k;
            problem.bytes = s.n * s.k * (s.w == MLA_F32 ? 4.0 : 2.0);
            return problem;
          },
          s.timed};
}

void add_gemms(std::vector<Case> &cases) {
  const int64_t ragged[] = {0, 1, 2, 3, 4, 5, 63, 64, 65, 131};
  for (const int64_t m : ragged) {
    cases.push_back(gemm_case({m, 65, 67, MLA_F32, MLA_BF16, MLA_F32, false, false}));
    cases.push_back(gemm_case({m, 33, 128, MLA_BF16, MLA_BF16, MLA_BF16, true, false}));
    cases.push_back(gemm_case({5, m, 64, MLA_F32, MLA_F32, MLA_F32, true, false}));
    cases.push_back(gemm_case({7, 9, m, MLA_BF16, MLA_F32, MLA_F32, false, false}));
  }
  // The tiny model's: q_a, kv_a, q_b, o, experts' gate and up, down, dense, vocabulary.
  const int64_t shapes[][2] = {{128, 192},  {576, 192}, {768, 128}, {192, 256}, {256, 192},
                               {192, 128}, {1024, 192}, {192, 512}, {2048, 192}};
  for (const auto &shape : shapes) {
    for (const int64_t m : {1, 64}) {
      cases.push_back(gemm_case({m, shape[0], shape[1], MLA_F32, MLA_BF16, MLA_F32, false, true}));
    }
  }
  cases.push_back(gemm_case({64, 1024, 192, MLA_BF16, MLA_BF16, MLA_BF16, false, true}));
  // Sums in several pieces.
  for (const int64_t k : {639, 640, 641, 1280, 1999}) {
    cases.push_back(gemm_case({7, 13, k, MLA_F32, MLA_BF16, MLA_F32, false, false}));
    cases.push_back(gemm_case({70, 5, k, MLA_BF16, MLA_BF16, MLA_BF16, true, false}));
    cases.push_back(gemm_case({1, 6, k, MLA_F32, MLA_F32, MLA_F32, false, false}));
  }
  cases.push_back(gemm_case({256, 2048, 2048, MLA_F32, MLA_BF16, MLA_F32, false, true}));
}

// ---- batched gemm ---------------------------------------------------------------------------------------------------

struct BatchedShape {
  int64_t batch, m, n, k;
  int32_t act, w;
  bool n_contiguous;
  bool timed;
  bool model = false;
};

Case batched_case(BatchedShape s) {
  const std::string name = text("batched_gemm b=%ld m=%ld n=%ld k=%ld %s*%s %s", s.batch, s.m, s.n, s.k,
                                dtype_name(s.act), dtype_name(s.w), s.n_contiguous ? "n" : "k");
  return {name,
          [s](Lab &lab, Random &random) {
            // Heads are slices of a token's row: x [b, m, k] lies as [m, b, k + gap].
            const int64_t gap = s.timed || s.model ? 0 : 3;
            Op x = std::make_shared<Operand>(lab, s.act, Shape{s.batch, s.m, s.k},
                                             Shape{s.k + gap, s.batch * (s.k + gap), 1});
            Op w = std::make_shared<Operand>(
                lab, s.w, Shape{s.batch, s.n, s.k},
                s.n_contiguous ? Shape{(s.n + gap) * s.k, 1, s.n + gap} : Shape{s.n * (s.k + gap), s.k + gap, 1});
            Op out = std::make_shared<Operand>(lab, s.act, Shape{s.batch, s.m, s.n},
                                               Shape{s.n + gap, s.batch * (s.n + gap), 1});
            x->set(random.uniforms(x->count(), -1, 1));
            w->set(random.uniforms(w->count(), -1, 1));
            Problem problem;
            problem.call = [=, &lab] {
              return mla_batched_gemm(lab.context, &x->tensor, &w->tensor, &out->tensor);
            };
            problem.check = [=] {
              const Values a = x->values();
              const Values b = w->values();
              Values want(s.batch * s.m * s.n);
              Values scale(want.size());
              for (int64_t i = 0; i < s.batch * s.m; i++) {
                for (int64_t j = 0; j < s.n; j++) {
                  for (int64_t k = 0; k < s.k; k++) {
                    const double term = a[i * s.k + k] * b[(i / s.m * s.n + j) * s.k + k];
                    want[i * s.n + j] += term;
                    scale[i * s.n + j] += std::fabs(term);
                  }
                }
              }
              compare("out", *out, want, scale);
            };
            problem.flops = 2.0 * s.batch * s.m * s.n * s.k;
            problem.bytes = s.batch * s.n * s.k * (s.w == MLA_F32 ? 4.0 : 2.0);
            return problem;
          },
          s.timed};
}

void add_batched(std::vector<Case> &cases) {
  for (const int64_t m : {0, 1, 3, 4, 65}) {
    for (const bool n_contiguous : {false, true}) {
      cases.push_back(batched_case({3, m, 67, 33, MLA_F32, MLA_BF16, n_contiguous, false}));
      cases.push_back(batched_case({2, m, 130, 64, MLA_BF16, MLA_BF16, n_contiguous, false}));
      cases.push_back(batched_case({1, m, 17, 5, MLA_F32, MLA_F32, n_contiguous, false}));
      cases.push_back(batched_case({2, m, 1, 1, MLA_BF16, MLA_F32, n_contiguous, false}));
    }
  }
  for (const int64_t m : {1, 64}) {
    cases.push_back(batched_case({8, m, 512, 32, MLA_F32, MLA_BF16, true, true}));
    cases.push_back(batched_case({8, m, 32, 512, MLA_F32, MLA_BF16, false, true}));
  }
}

// ---- rows -----------------------------------------------------------------------------------------------------------

Case rms_norm_case(int64_t rows, int64_t hidden, ActTypes types, int32_t weight, bool residual, bool in_place, bool timed,
                   bool model = false) {
  const std::string name = text("rms_norm t=%ld h=%ld %s*%s%s%s", rows, hidden, name_of(types).c_str(), dtype_name(weight),
                                residual ? " residual" : "", in_place ? " in place" : "");
  return {name,
          [=](Lab &lab, Random &random) {
            constexpr float kEps = 1e-6f;
            Op x = make(lab, types.wide, {rows, hidden}, gap_of(model, 2));
            Op r = residual ? make(lab, types.wide, {rows, hidden}, gap_of(model, 1)) : nullptr;
            Op w = make(lab, weight, {hidden});
            Op out = in_place ? x : make(lab, types.act, {rows, hidden}, gap_of(model, 3));
            x->set(random.uniforms(rows * hidden, -2, 2));
            w->set(random.uniforms(hidden, 0.5, 1.5));
            if (r) {
              r->set(random.uniforms(rows * hidden, -2, 2));
            }
            const Values before = x->values();
            const Values carried = r ? r->values() : Values(rows * hidden, 0);
            Problem problem;
            problem.call = [=, &lab] {
              return mla_rms_norm(lab.context, &x->tensor, r ? &r->tensor : nullptr, &w->tensor, kEps, &out->tensor);
            };
            problem.check = [=] {
              const Values weights = w->values();
              Values sums(rows * hidden);
              Values want(rows * hidden);
              for (int64_t t = 0; t < rows; t++) {
                double squares = 0;
                for (int64_t i = t * hidden; i < (t + 1) * hidden; i++) {
                  sums[i] = residual ? round_to(types.wide, before[i] + carried[i]) : before[i];
                  squares += sums[i] * sums[i];
                }
                const double scale = 1 / std::sqrt(squares / hidden + kEps);
                for (int64_t i = 0; i < hidden; i++) {
                  want[t * hidden + i] = sums[t * hidden + i] * scale * weights[i];
                }
              }
              compare("out", *out, want, want, 1e-6);
              if (r) {
                compare_exact("residual", *r, sums);
              }
            };
            problem.bytes = rows * hidden * 8.0;
            return problem;
          },
          timed};
}

Case silu_case(int64_t rows, int64_t width, int32_t act, bool timed, bool model = false) {
  return {text("silu_mul t=%ld i=%ld %s", rows, width, dtype_name(act)),
          [=](Lab &lab, Random &random) {
            Op x = make(lab, act, {rows, 2 * width}, gap_of(model, 3));
            Op out = make(lab, act, {rows, width}, gap_of(model, 1));
            x->set(random.uniforms(rows * 2 * width, -12, 12));
            if (rows > 0 && width > 1) {
              Values extreme = x->values();
              extreme[0] = -200;  // silu is -0 there, and exp(200) infinite
              extreme[1] = 200;
              x->set(extreme);
            }
            Problem problem;
            problem.call = [=, &lab] { return mla_silu_mul(lab.context, &x->tensor, &out->tensor); };
            problem.check = [=] {
              const Values a = x->values();
              Values want(rows * width);
              for (int64_t i = 0; i < rows * width; i++) {
                const int64_t at = i / width * 2 * width + i % width;
                want[i] = silu(a[at]) * a[at + width];
              }
              compare("out", *out, want, want, 1e-6);
            };
            problem.bytes = rows * width * 12.0;
            return problem;
          },
          timed};
}

Case embedding_case(int64_t tokens, int64_t hidden, int32_t table, int32_t act, bool model = false) {
  return {text("embedding t=%ld h=%ld %s->%s", tokens, hidden, dtype_name(table), dtype_name(act)),
          [=](Lab &lab, Random &random) {
            constexpr int64_t kRows = 11;
            Op rows = make(lab, table, {kRows, hidden}, gap_of(model, 3));
            Op ids = make(lab, MLA_I32, {tokens});
            Op out = make(lab, act, {tokens, hidden}, gap_of(model, 1));
            rows->set(random.uniforms(kRows * hidden, -2, 2));
            Values chosen(tokens);
            for (int64_t t = 0; t < tokens; t++) {
              chosen[t] = static_cast<double>(t == 0 ? kRows - 1 : random.integer(0, kRows - 1));
            }
            ids->set(chosen);
            Problem problem;
            problem.call = [=, &lab] { return mla_embedding(lab.context, &rows->tensor, &ids->tensor, &out->tensor); };
            problem.check = [=] {
              const Values a = rows->values();
              Values want(tokens * hidden);
              for (int64_t i = 0; i < tokens * hidden; i++) {
                want[i] = round_to(act, a[static_cast<int64_t>(chosen[i / hidden]) * hidden + i % hidden]);
              }
              compare_exact("out", *out, want);
            };
            return problem;
          }};
}

// ---- fill -----------------------------------------------------------------------------------------------------------

// Element i by mla.h's formula; the moments are those of the normal distribution.
Case fill_case(Shape shape, int32_t dtype, double std, int64_t seed) {
  return {text("fill_normal %zu-D %s std=%g", shape.size(), dtype_name(dtype), std), [=](Lab &lab, Random &) {
            Op out = make(lab, dtype, shape);
            Problem problem;
            problem.call = [=, &lab] {
              return mla_fill_normal(lab.context, &out->tensor, static_cast<float>(std), seed);
            };
            problem.check = [=] {
              const int64_t count = out->count();
              Values want(count);
              double sum = 0;
              double squares = 0;
              for (int64_t i = 0; i < count; i++) {
                uint64_t z = static_cast<uint64_t>(seed) + (static_cast<uint64_t>(i / 2) + 1) * 0x9E3779B97F4A7C15u;
                z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9u;
                z = (z ^ (z >> 27)) * 0x94D049BB133111EBu;
                z ^= z >> 31;
                const double u = std::ldexp(static_cast<double>(z >> 40), -24);
                const double v = std::ldexp(static_cast<double>(z >> 16 & 0xFFFFFF), -24);
                const double angle = 2 * M_PI * v;
                want[i] = std * std::sqrt(-2 * std::log(1 - u)) * (i % 2 == 0 ? std::cos(angle) : std::sin(angle));
                sum += want[i] / std;
                squares += want[i] * want[i] / std / std;
              }
              compare("out", *out, want, Values(count, std), 4e-6);
              const auto n = static_cast<double>(count);
              if (count > 10000 && (std::fabs(sum / n) > 0.02 || std::fabs(squares / n - 1) > 0.03)) {
                fail("mean %g and mean square %g of %ld numbers", sum / n, squares / n, count);
              }
            };
            return problem;
          }};
}

// ---- convert --------------------------------------------------------------------------------------------------------

// The value of a small float, by its definition.
double small_float(uint64_t bits, int exponent_bits, int mantissa_bits, bool has_infinity) {
  const int64_t mantissa = bits & ((1 << mantissa_bits) - 1);
  const int64_t exponent = bits >> mantissa_bits & ((1 << exponent_bits) - 1);
  const double sign = bits >> (exponent_bits + mantissa_bits) & 1 ? -1 : 1;
  const int64_t top = (1 << exponent_bits) - 1;
  const int bias = (1 << (exponent_bits - 1)) - 1;
  if (exponent == top && has_infinity) {
    return mantissa == 0 ? sign * INFINITY : NAN;
  }
  if (exponent == top && mantissa == (1 << mantissa_bits) - 1) {
    return NAN;
  }
  const double fraction = std::ldexp(static_cast<double>(mantissa), -mantissa_bits);
  return exponent == 0 ? sign * std::ldexp(fraction, 1 - bias)
                       : sign * std::ldexp(1 + fraction, static_cast<int>(exponent) - bias);
}

// Every bit pattern of an 8- or 16-bit float.
Case convert_all_case(int32_t from, int32_t to) {
  return {text("convert every %s->%s", dtype_name(from), dtype_name(to)), [=](Lab &lab, Random &) {
            const int64_t rows = from == MLA_F8_E4M3 ? 1 : 256;
            Op x = make(lab, from, {rows, 256}, 1);
            Op out = make(lab, to, {rows, 256}, 1);
            std::vector<uint64_t> bits(rows * 256);
            Values want(rows * 256);
            for (size_t i = 0; i < bits.size(); i++) {
              bits[i] = i;
              const double value = from == MLA_F8_E4M3 ? small_float(i, 4, 3, false)
                                   : from == MLA_F16   ? small_float(i, 5, 10, true)
                                                       : small_float(i, 8, 7, true);
              want[i] = round_to(to, value);
            }
            x->set_bits(bits);
            Problem problem;
            problem.call = [=, &lab] { return mla_convert(lab.context, &x->tensor, nullptr, 0, &out->tensor); };
            problem.check = [=] { compare_exact("out", *out, want); };
            return problem;
          }};
}

Case convert_scaled_case(int64_t rows, int64_t columns, int32_t block, int32_t to, bool model = false) {
  return {text("convert f8 [%ld, %ld] by blocks of %d->%s", rows, columns, block, dtype_name(to)),
          [=](Lab &lab, Random &random) {
            const int64_t down = (rows + block - 1) / block;
            const int64_t across = (columns + block - 1) / block;
            Op x = make(lab, MLA_F8_E4M3, {rows, columns}, model ? 0 : 1);
            Op scale = make(lab, MLA_F32, {down, across}, 2);
            Op out = make(lab, to, {rows, columns}, model ? 0 : 1);
            std::vector<uint64_t> bits(rows * columns);
            for (uint64_t &b : bits) {
              b = static_cast<uint64_t>(random.integer(0, 126)) | static_cast<uint64_t>(random.integer(0, 1)) << 7;
            }
            x->set_bits(bits);
            scale->set(random.uniforms(down * across, 1e-4, 2e-4));
            const Values factors = scale->values();
            Problem problem;
            problem.call = [=, &lab] {
              return mla_convert(lab.context, &x->tensor, &scale->tensor, block, &out->tensor);
            };
            problem.check = [=] {
              Values want(rows * columns);
              for (int64_t i = 0; i < rows * columns; i++) {
                const int64_t at = i / columns / block * across + i % columns / block;
                want[i] = round_to(to, static_cast<float>(small_float(bits[i], 4, 3, false) * factors[at]));
              }
              compare_exact("out", *out, want);
            };
            return problem;
          }};
}

// The shapes of DeepSeek-V2-Lite, and the longest rows of its family. The vocabulary's product is in model_test.cc.
void add_model_shapes(std::vector<Case> &cases) {
  const int64_t columns[] = {3072, 576, 2048, 5632};  // q, kv_a, o, shared experts' gate and up
  for (const int64_t m : {1, 7, 130}) {
    for (const int64_t n : columns) {
      if (m > 100 && n > 1000) {
        continue;  // the plain reference is slow
      }
      cases.push_back(model_case(gemm_case({m, n, 512, MLA_BF16, MLA_BF16, MLA_BF16, false, false, true})));
    }
    cases.push_back(model_case(gemm_case({m, 64, 2048, MLA_BF16, MLA_BF16, MLA_F32, false, false, true})));
    cases.push_back(model_case(batched_case({16, m, 512, 128, MLA_BF16, MLA_BF16, true, false, true})));
    cases.push_back(model_case(batched_case({16, m, 128, 512, MLA_BF16, MLA_BF16, false, false, true})));
    for (const int64_t hidden : {512, 1536, 2048, 5120, 7168}) {
      cases.push_back(model_case(rms_norm_case(m, hidden, kWide, MLA_BF16, true, false, false, true)));
      cases.push_back(model_case(rms_norm_case(m, hidden, kWide, MLA_BF16, false, false, false, true)));
    }
    cases.push_back(model_case(silu_case(m, 1408, MLA_BF16, false, true)));
    cases.push_back(model_case(silu_case(m, 10944, MLA_BF16, false, true)));
    cases.push_back(model_case(embedding_case(m, 2048, MLA_BF16, MLA_BF16, true)));
    cases.push_back(model_case(embedding_case(m, 2048, MLA_BF16, MLA_F32, true)));
  }
  cases.push_back(model_case(convert_scaled_case(576, 7168, 128, MLA_BF16, true)));
  cases.push_back(model_case(convert_scaled_case(300, 256, 128, MLA_F32, true)));
}

}  // namespace

std::vector<Case> dense_cases() {
  std::vector<Case> cases;
  add_model_shapes(cases);
  add_gemms(cases);
  add_batched(cases);
  for (const int32_t act : {MLA_F32, MLA_BF16}) {
    for (const int64_t rows : {0, 1, 3, 64}) {
      for (const int64_t width : {1, 7, 64, 67, 192}) {
        const ActTypes types = {act, act};
        cases.push_back(rms_norm_case(rows, width, types, MLA_BF16, false, false, false));
        cases.push_back(rms_norm_case(rows, width, types, MLA_F32, true, true, false));
        cases.push_back(silu_case(rows, width, act, false));
        cases.push_back(embedding_case(rows, width, MLA_BF16, act));
        cases.push_back(embedding_case(rows, width, MLA_F32, act));
      }
    }
    for (const int32_t from : {MLA_BF16, MLA_F16, MLA_F8_E4M3}) {
      cases.push_back(convert_all_case(from, act));
    }
    cases.push_back(convert_scaled_case(576, 200, 128, act));
    cases.push_back(convert_scaled_case(1, 1, 128, act));
    cases.push_back(convert_scaled_case(5, 37, 4, act));
  }
  for (const int64_t width : {1, 67, 192}) {
    cases.push_back(rms_norm_case(3, width, kWide, MLA_BF16, false, false, false));
    cases.push_back(rms_norm_case(3, width, kWide, MLA_F32, true, false, false));
  }
  cases.push_back(fill_case({40001}, MLA_BF16, 0.02, 7));
  cases.push_back(fill_case({5, 3, 1001}, MLA_F32, 1, -1));
  cases.push_back(fill_case({0, 4}, MLA_BF16, 1, 1));
  cases.push_back(rms_norm_case(64, 192, kF32, MLA_BF16, true, false, true));
  cases.push_back(silu_case(64, 512, MLA_F32, true));
  return cases;
}

}  // namespace mla::test
