// Weights that mla_pack has laid out: products with them equal products with the weights themselves, bit for bit.
#include "harness.h"

#include <algorithm>

namespace mla::test {
namespace {

// A weight [N, K] or [B, N, K], packed where the backend does that.
class Packed {
 public:
  Packed(Lab &lab, const mla_tensor &w) : tensor(w) {
    int64_t bytes = 0;
    require_ok(mla_packed_bytes(lab.context, &w, &bytes));
    if (lab.cuda) {
      if (bytes != 0) {
        fail("%ld bytes; CUDA reads weights as they are", static_cast<long>(bytes));
      }
      return;
    }
    require_ok(mla_buffer_create(lab.context, std::max<int64_t>(1, bytes), &buffer_));
    tensor.data = mla_buffer_data(buffer_);
    tensor.dtype = w.dtype == MLA_BF16 ? MLA_BF16_PANELS : MLA_F32_PANELS;
    int64_t stride = 1;
    for (int i = w.rank - 1; i >= 0; i--) {
      tensor.stride[i] = stride;
      stride *= w.shape[i];
    }
    require_ok(mla_pack(lab.context, &w, &tensor));
  }
  ~Packed() { mla_buffer_destroy(buffer_); }
  Packed(const Packed &) = delete;
  Packed &operator=(const Packed &) = delete;

  mla_tensor tensor;

 private:
  mla_buffer *buffer_ = nullptr;
};

Case gemm_case(int64_t m, int64_t n, int64_t k, int32_t weight) {
  return check_case(text("packed gemm m=%ld n=%ld k=%ld %s", m, n, k, dtype_name(weight)), [=](Lab &lab, Random &random) {
    Operand x(lab, MLA_F32, {m, k}), w(lab, weight, {n, k}, 3), plain(lab, MLA_F32, {m, n}), out(lab, MLA_F32, {m, n}, 2);
    x.set(random.uniforms(m * k, -1, 1));
    w.set(random.uniforms(n * k, -1, 1));
    const Packed packed(lab, w.tensor);
    w.check_surroundings("w", true);
    require_ok(mla_gemm(lab.context, &x.tensor, &w.tensor, nullptr, &plain.tensor));
    require_ok(mla_gemm(lab.context, &x.tensor, &packed.tensor, nullptr, &out.tensor));
    compare_bits("out", plain, out);
    out.check_surroundings("out");
  });
}

Case batched_case(bool n_contiguous, int32_t weight) {
  const std::string name = text("packed batched_gemm %s %s", n_contiguous ? "n" : "k", dtype_name(weight));
  return check_case(name, [=](Lab &lab, Random &random) {
    constexpr int64_t kBatch = 3, kM = 9, kN = 131, kK = 35;
    Operand x(lab, MLA_F32, {kBatch, kM, kK}), plain(lab, MLA_F32, {kBatch, kM, kN}), out(lab, MLA_F32, {kBatch, kM, kN}),
        w(lab, weight, {kBatch, kN, kK}, n_contiguous ? Shape{kN * kK, 1, kN} : Shape{kN * kK, kK, 1});
    x.set(random.uniforms(x.count(), -1, 1));
    w.set(random.uniforms(w.count(), -1, 1));
    const Packed packed(lab, w.tensor);
    require_ok(mla_batched_gemm(lab.context, &x.tensor, &w.tensor, &plain.tensor));
    require_ok(mla_batched_gemm(lab.context, &x.tensor, &packed.tensor, &out.tensor));
    compare_bits("out", plain, out);
  });
}

void experts(Lab &lab, Random &random) {
  constexpr int64_t kRows = 77, kN = 65, kK = 128;
  Operand x(lab, MLA_F32, {kRows, kK}), a(lab, MLA_BF16, {kN, kK}), b(lab, MLA_BF16, {kN, kK}),
      offsets(lab, MLA_I32, {3}), plain(lab, MLA_F32, {kRows, kN}), out(lab, MLA_F32, {kRows, kN});
  x.set(random.uniforms(x.count(), -1, 1));
  a.set(random.uniforms(a.count(), -1, 1));
  b.set(random.uniforms(b.count(), -1, 1));
  offsets.set({0, 6, kRows});
  const Packed packed_a(lab, a.tensor), packed_b(lab, b.tensor);
  const mla_tensor weights[] = {a.tensor, b.tensor};
  const mla_tensor packed[] = {packed_a.tensor, packed_b.tensor};
  require_ok(mla_moe_gemm(lab.context, &x.tensor, nullptr, &offsets.tensor, weights, 2, MLA_IDENTITY, &plain.tensor));
  require_ok(mla_moe_gemm(lab.context, &x.tensor, nullptr, &offsets.tensor, packed, 2, MLA_IDENTITY, &out.tensor));
  compare_bits("out", plain, out);
}

void refusals(Lab &lab, Random &) {
  Operand w(lab, MLA_BF16, {5, 6}), ids(lab, MLA_I32, {1}), out(lab, MLA_F32, {1, 6});
  int64_t bytes = 0;
  require_refused(mla_packed_bytes(lab.context, nullptr, &bytes), "w is NULL");
  require_refused(mla_packed_bytes(lab.context, &w.tensor, nullptr), "bytes must not be NULL");
  mla_tensor scattered = w.tensor;
  scattered.stride[1] = 2;
  require_refused(mla_packed_bytes(lab.context, &scattered, &bytes), "N or K must be contiguous");
  if (lab.cuda) {
    return;
  }
  const Packed packed(lab, w.tensor);
  require_refused(mla_packed_bytes(lab.context, &packed.tensor, &bytes), "w is BF16_PANELS [5, 6]");
  mla_tensor wrong = packed.tensor;
  wrong.dtype = MLA_F32_PANELS;
  require_refused(mla_pack(lab.context, &w.tensor, &wrong), "out is F32_PANELS [5, 6]; it must be BF16_PANELS [5, 6]");
  require_refused(mla_embedding(lab.context, &packed.tensor, &ids.tensor, &out.tensor), "table is BF16_PANELS");
}

}  // namespace

std::vector<Case> pack_cases() {
  std::vector<Case> cases;
  for (const int32_t weight : {MLA_BF16, MLA_F32}) {
    for (const int64_t k : {0, 1, 2, 67, 192}) {
      for (const int64_t m : {1, 7, 8, 9, 64, 65}) {
        cases.push_back(gemm_case(m, 100, k, weight));
      }
    }
    cases.push_back(gemm_case(3, 0, 8, weight));
    cases.push_back(gemm_case(3, 1, 8, weight));
    cases.push_back(batched_case(true, weight));
    cases.push_back(batched_case(false, weight));
  }
  cases.push_back(check_case("packed moe_gemm", experts));
  cases.push_back(check_case("packed refusals", refusals));
  return cases;
}

}  // namespace mla::test
