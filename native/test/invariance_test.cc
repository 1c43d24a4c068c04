// What must be equal bit for bit: a row alone and among others, decode and prefill, any chunking, any number of
// threads.
#include "paged.h"

#include <algorithm>

namespace mla::test {
namespace {

using Values = std::vector<double>;

// Rows [first, first + count) of a tensor, as a view.
mla_tensor rows_of(const Operand &t, int64_t first, int64_t count) {
  mla_tensor view = t.tensor;
  const int64_t bytes = view.dtype == MLA_BF16 ? 2 : view.dtype == MLA_I64 ? 8 : 4;
  view.data = static_cast<char *>(view.data) + first * view.stride[0] * bytes;
  view.shape[0] = count;
  return view;
}

// Runs call(first, count) for all rows at once, then for pieces of 1, 2, 3, 4, 5, 1, ... rows.
template <class Call>
void in_pieces(int64_t rows, Call call) {
  int64_t piece = 1;
  for (int64_t first = 0; first < rows; piece = piece % 5 + 1) {
    const int64_t count = std::min(piece, rows - first);
    require_ok(call(first, count));
    first += count;
  }
}

Case gemm_rows(int64_t n, int64_t k, int32_t act, int32_t weight) {
  return check_case(text("invariance gemm rows n=%ld k=%ld %s*%s", n, k, dtype_name(act), dtype_name(weight)),
                    [=](Lab &lab, Random &random) {
                      constexpr int64_t kRows = 131;
                      Operand x(lab, act, {kRows, k}), w(lab, weight, {n, k}), all(lab, act, {kRows, n}),
                          pieces(lab, act, {kRows, n});
                      x.set(random.uniforms(kRows * k, -1, 1));
                      w.set(random.uniforms(n * k, -1, 1));
                      require_ok(mla_gemm(lab.context, &x.tensor, &w.tensor, nullptr, &all.tensor));
                      in_pieces(kRows, [&](int64_t first, int64_t count) {
                        const mla_tensor in = rows_of(x, first, count);
                        mla_tensor out = rows_of(pieces, first, count);
                        return mla_gemm(lab.context, &in, &w.tensor, nullptr, &out);
                      });
                      compare_bits("out", all, pieces);
                    });
}

Case batched_gemm_rows(bool n_contiguous) {
  return check_case(text("invariance batched_gemm rows %s", n_contiguous ? "n" : "k"), [=](Lab &lab, Random &random) {
    constexpr int64_t kRows = 67, kBatch = 3, kN = 83, kK = 96;
    Operand x(lab, MLA_F32, {kBatch, kRows, kK}, Shape{kK, kBatch * kK, 1}),
        w(lab, MLA_BF16, {kBatch, kN, kK}, n_contiguous ? Shape{kN * kK, 1, kN} : Shape{kN * kK, kK, 1}),
        all(lab, MLA_F32, {kBatch, kRows, kN}), pieces(lab, MLA_F32, {kBatch, kRows, kN});
    x.set(random.uniforms(x.count(), -1, 1));
    w.set(random.uniforms(w.count(), -1, 1));
    require_ok(mla_batched_gemm(lab.context, &x.tensor, &w.tensor, &all.tensor));
    in_pieces(kRows, [&](int64_t first, int64_t count) {
      mla_tensor in = x.tensor;
      mla_tensor out = pieces.tensor;
      for (mla_tensor *t : {&in, &out}) {
        t->data = static_cast<float *>(t->data) + first * t->stride[1];
        t->shape[1] = count;
      }
      return mla_batched_gemm(lab.context, &in, &w.tensor, &out);
    });
    compare_bits("out", all, pieces);
  });
}

// A token's experts give the same rows whoever shares the experts.
Case moe_rows() {
  return check_case("invariance moe_gemm rows against gemm", [](Lab &lab, Random &random) {
    constexpr int64_t kRows = 77, kN = 65, kK = 128, kExperts = 3;
    Operand x(lab, MLA_F32, {kRows, kK}), w(lab, MLA_BF16, {kExperts * kN, kK}), offsets(lab, MLA_I32, {kExperts + 1}),
        all(lab, MLA_F32, {kRows, kN}), alone(lab, MLA_F32, {kRows, kN});
    const int64_t bounds[] = {0, 5, 70, kRows};
    x.set(random.uniforms(x.count(), -1, 1));
    w.set(random.uniforms(w.count(), -1, 1));
    offsets.set({0, 5, 70, kRows});
    mla_tensor weights[kExperts];
    for (int64_t e = 0; e < kExperts; e++) {
      weights[e] = rows_of(w, e * kN, kN);
      for (int64_t i = bounds[e]; i < bounds[e + 1]; i++) {
        const mla_tensor in = rows_of(x, i, 1);
        mla_tensor out = rows_of(alone, i, 1);
        require_ok(mla_gemm(lab.context, &in, &weights[e], nullptr, &out));
      }
    }
    require_ok(mla_moe_gemm(lab.context, &x.tensor, nullptr, &offsets.tensor, weights, kExperts, MLA_IDENTITY,
                            &all.tensor));
    compare_bits("out", all, alone);
  });
}

// An activation in the product, and after it.
Case moe_silu(int64_t rows, int64_t width, int64_t k, int32_t act, bool model) {
  return {text("invariance moe_gemm with silu t=%ld i=%ld k=%ld %s", rows, width, k, dtype_name(act)),
          [=](Lab &lab, Random &random) {
            constexpr int64_t kExperts = 3;
            auto x = std::make_shared<Operand>(lab, act, Shape{rows, k}, gap_of(model, 1));
            auto w = std::make_shared<Operand>(lab, MLA_BF16, Shape{kExperts * 2 * width, k});
            auto offsets = std::make_shared<Operand>(lab, MLA_I32, Shape{kExperts + 1});
            auto gate_up = std::make_shared<Operand>(lab, act, Shape{rows, 2 * width});
            auto apart = std::make_shared<Operand>(lab, act, Shape{rows, width});
            auto together = std::make_shared<Operand>(lab, act, Shape{rows, width}, gap_of(model, 3));
            x->set(random.uniforms(x->count(), -1, 1));
            w->set(random.uniforms(w->count(), -0.3, 0.3));
            const auto first = static_cast<double>(random.integer(0, rows));
            offsets->set({0, first, first, static_cast<double>(rows)});
            auto weights = std::make_shared<std::vector<mla_tensor>>();
            for (int64_t e = 0; e < kExperts; e++) {
              weights->push_back(rows_of(*w, e * 2 * width, 2 * width));
            }
            auto multiply = [=, &lab](mla_activation activation, Operand &out) {
              return mla_moe_gemm(lab.context, &x->tensor, nullptr, &offsets->tensor, weights->data(), kExperts, activation,
                                  &out.tensor);
            };
            Problem problem;
            problem.owned = {w};
            problem.call = [=] { return multiply(MLA_SILU_MUL, *together); };
            problem.check = [=, &lab] {
              require_ok(multiply(MLA_IDENTITY, *gate_up));
              require_ok(mla_silu_mul(lab.context, &gate_up->tensor, &apart->tensor));
              compare_bits("out", *together, *apart);
            };
            return problem;
          },
          false, model};
}

// One sequence: prefilled whole, prefilled in chunks, and decoded token by token.
Case attention_ways(int64_t length, int64_t heads, int32_t act) {
  return check_case(text("invariance attention len=%ld heads=%ld %s", length, heads, dtype_name(act)),
                    [=](Lab &lab, Random &random) {
                      constexpr int64_t kLatent = 512, kWidth = 576;
                      constexpr double kScale = 0.1;
                      Paged paged(lab, random, act, {length}, kWidth);
                      Operand q(lab, act, {length, heads, kWidth}), start(lab, MLA_I32, {2}),
                          whole(lab, act, {length, heads, kLatent}), chunked(lab, act, {length, heads, kLatent}),
                          decoded(lab, act, {length, heads, kLatent}), lse(lab, MLA_F32, {1, heads, 1});
                      q.set(random.uniforms(q.count(), -1, 1));
                      start.set({0, static_cast<double>(length)});
                      mla_prefill_args args = prefill_args(paged, q, start, whole, kScale);
                      require_ok(mla_prefill(lab.context, &args));

                      int64_t chunk = 1;
                      for (int64_t first = 0; first < length; chunk = chunk * 3 + 1) {
                        const int64_t count = std::min(chunk, length - first);
                        paged.seq_lens.set({static_cast<double>(first + count)});
                        start.set({0, static_cast<double>(count)});
                        args.q = rows_of(q, first, count);
                        args.out = rows_of(chunked, first, count);
                        require_ok(mla_prefill(lab.context, &args));
                        first += count;
                      }
                      compare_bits("whole against chunks", whole, chunked);

                      Operand one(lab, act, {1, 1, heads, kWidth}), result(lab, act, {1, 1, heads, kLatent});
                      Decode decode(lab, paged, one, result, lse, kScale);
                      for (int64_t t = 0; t < length; t++) {
                        paged.seq_lens.set({static_cast<double>(t + 1)});
                        decode.args.q.data = rows_of(q, t, 1).data;
                        decode.args.out.data = rows_of(decoded, t, 1).data;
                        require_ok(mla_plan(lab.context, &decode.args.plan, &decode.args.seq_lens, &decode.args.tiles,
                                            &decode.args.splits));
                        require_ok(decode.run());
                      }
                      compare_bits("prefill against decode", whole, decoded);
                    });
}

// A batch of sequences against each of them alone.
Case decode_neighbours() {
  return check_case("invariance decode neighbours", [](Lab &lab, Random &random) {
    constexpr int64_t kHeads = 5, kLatent = 512, kWidth = 576;
    const std::vector<int64_t> lengths = {64, 1, 300, 0, 129};
    const auto batch = static_cast<int64_t>(lengths.size());
    Paged paged(lab, random, MLA_BF16, lengths, kWidth);
    Operand q(lab, MLA_BF16, {batch, 1, kHeads, kWidth}), all(lab, MLA_BF16, {batch, 1, kHeads, kLatent}),
        alone(lab, MLA_BF16, {batch, 1, kHeads, kLatent}), lse(lab, MLA_F32, {batch, kHeads, 1}),
        lse_alone(lab, MLA_F32, {batch, kHeads, 1});
    q.set(random.uniforms(q.count(), -1, 1));
    Decode decode(lab, paged, q, all, lse, 0.1);
    require_ok(decode.run());
    for (int64_t b = 0; b < batch; b++) {
      mla_decode_args args = decode.args;
      args.plan.batch = 1;
      args.q = rows_of(q, b, 1);
      args.out = rows_of(alone, b, 1);
      args.lse = rows_of(lse_alone, b, 1);
      args.seq_lens = rows_of(paged.seq_lens, b, 1);
      args.block_table = rows_of(paged.block_table, b, 1);
      args.splits.shape[0] = 2;
      int64_t workspace_bytes = 0;
      require_ok(mla_plan_size(lab.context, &args.plan, &args.tiles.shape[0], &workspace_bytes));
      require_ok(mla_plan(lab.context, &args.plan, &args.seq_lens, &args.tiles, &args.splits));
      require_ok(mla_decode(lab.context, &args));
    }
    compare_bits("out", all, alone);
    compare_bits("lse", lse, lse_alone);
  });
}

// The same products and attention on one thread and on several.
Case threads(int count) {
  return check_case(text("invariance threads 1 against %d", count), [=](Lab &, Random &random) {
    Lab one("cpu", "", 1);
    Lab many("cpu", "", count);
    const Values x_values = random.uniforms(67 * 256, -1, 1);
    const Values w_values = random.uniforms(200 * 256, -1, 1);
    const Values q_values = random.uniforms(67 * 8 * 576, -1, 1);
    const uint64_t keys = random.bits();
    const auto run = [&](Lab &lab, Operand &product, Operand &attention) {
      Operand x(lab, MLA_F32, {67, 256}), w(lab, MLA_BF16, {200, 256});
      x.set(x_values);
      w.set(w_values);
      require_ok(mla_gemm(lab.context, &x.tensor, &w.tensor, nullptr, &product.tensor));
      Random own(std::to_string(keys));
      Paged paged(lab, own, MLA_F32, {300}, 576);
      Operand q(lab, MLA_F32, {67, 8, 576}), start(lab, MLA_I32, {2});
      q.set(q_values);
      start.set({0, 67});
      const mla_prefill_args args = prefill_args(paged, q, start, attention, 0.1);
      require_ok(mla_prefill(lab.context, &args));
    };
    Operand product_one(one, MLA_F32, {67, 200}), product_many(many, MLA_F32, {67, 200}),
        attention_one(one, MLA_F32, {67, 8, 512}), attention_many(many, MLA_F32, {67, 8, 512});
    run(one, product_one, attention_one);
    for (int round = 0; round < 20; round++) {
      run(many, product_many, attention_many);
      compare_bits("gemm", product_one, product_many);
      compare_bits("attention", attention_one, attention_many);
    }
  });
}

// On CUDA rows are independent on request only.
Case deterministic(Case one) {
  const auto prepare = one.prepare;
  one.prepare = [prepare](Lab &lab, Random &random) {
    Problem problem = prepare(lab, random);
    const auto check = problem.check;
    problem.check = [check, &lab] {
      require_ok(mla_set_deterministic(lab.context, 1));
      try {
        check();
      } catch (...) {
        mla_set_deterministic(lab.context, 0);
        throw;
      }
      require_ok(mla_set_deterministic(lab.context, 0));
    };
    return problem;
  };
  return one;
}

}  // namespace

std::vector<Case> invariance_cases() {
  std::vector<Case> cases;
  for (const int32_t act : {MLA_F32, MLA_BF16}) {
    cases.push_back(gemm_rows(192, 128, act, MLA_BF16));
    cases.push_back(gemm_rows(65, 67, act, MLA_F32));
    cases.push_back(gemm_rows(31, 1337, act, MLA_BF16));
    cases.push_back(attention_ways(200, 8, act));
    cases.push_back(attention_ways(67, 3, act));
    cases.push_back(attention_ways(130, 17, act));
  }
  cases.push_back(batched_gemm_rows(true));
  cases.push_back(batched_gemm_rows(false));
  cases.push_back(moe_rows());
  for (const int64_t rows : {1, 77, 1000}) {
    cases.push_back(moe_silu(rows, 24, 64, MLA_BF16, true));
    cases.push_back(moe_silu(rows, 200, 136, MLA_BF16, true));
  }
  cases.push_back(moe_silu(77, 33, 65, MLA_F32, false));
  cases.push_back(decode_neighbours());
  cases.push_back(threads(2));
  cases.push_back(threads(5));
  for (Case &one : cases) {
    one = deterministic(std::move(one));
  }
  return cases;
}

}  // namespace mla::test
