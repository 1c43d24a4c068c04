// rope_and_append_kv, plan, decode, prefill against loops in double.
#include "paged.h"

#include <algorithm>
#include <cmath>

namespace mla::test {
namespace {

using Values = std::vector<double>;

// ---- rope -----------------------------------------------------------------------------------------------------------

// Rotates one row in double, as mla.h says.
Values rotated(const double *row, const double *cos_sin, int64_t rope, bool interleaved) {
  Values out(rope);
  const int64_t half = rope / 2;
  for (int64_t i = 0; i < half; i++) {
    const int64_t first = interleaved ? 2 * i : i;
    const int64_t second = interleaved ? 2 * i + 1 : i + half;
    out[first] = row[first] * cos_sin[i] - row[second] * cos_sin[half + i];
    out[second] = row[first] * cos_sin[half + i] + row[second] * cos_sin[i];
  }
  return out;
}

Case rope_case(int64_t tokens, int64_t heads, int64_t latent, int64_t rope, ActTypes types, bool interleaved,
               bool in_place, bool model = false) {
  const std::string name = text("rope t=%ld heads=%ld l=%ld r=%ld %s%s%s", tokens, heads, latent, rope,
                                name_of(types).c_str(), interleaved ? " interleaved" : " halves", in_place ? " in place" : "");
  return {name, [=](Lab &lab, Random &random) {
            constexpr int64_t kPositions = 50;
            const int64_t blocks = tokens / MLA_BLOCK_TOKENS + 2;
            const int32_t act = types.act;
            // The rope part is the end of each head's row of nope + rope.
            auto q = std::make_shared<Operand>(lab, act, Shape{tokens, heads, rope},
                                               Shape{heads * (rope + gap_of(model, 5)), rope + gap_of(model, 5), 1});
            auto kv = std::make_shared<Operand>(lab, act, Shape{tokens, latent}, gap_of(model, 3));
            auto k = std::make_shared<Operand>(lab, types.wide, Shape{tokens, rope}, gap_of(model, 1));
            auto table = std::make_shared<Operand>(lab, MLA_F32, Shape{kPositions, rope});
            auto positions = std::make_shared<Operand>(lab, MLA_I32, Shape{tokens});
            auto slots = std::make_shared<Operand>(lab, MLA_I64, Shape{tokens});
            auto cache = std::make_shared<Operand>(lab, act, Shape{blocks, MLA_BLOCK_TOKENS, latent + rope});
            auto rotated_q =
                in_place ? q : std::make_shared<Operand>(lab, act, Shape{tokens, heads, rope}, gap_of(model, 3));
            q->set(random.uniforms(q->count(), -1, 1));
            kv->set(random.uniforms(kv->count(), -1, 1));
            k->set(random.uniforms(k->count(), -1, 1));
            Values angles(kPositions * rope);
            for (int64_t p = 0; p < kPositions; p++) {
              for (int64_t i = 0; i < rope / 2; i++) {
                angles[p * rope + i] = std::cos(p * std::pow(10000.0, -2.0 * i / rope));
                angles[p * rope + rope / 2 + i] = std::sin(p * std::pow(10000.0, -2.0 * i / rope));
              }
            }
            table->set(angles);
            Values at(tokens);
            Values slot(tokens);
            for (int64_t t = 0; t < tokens; t++) {
              at[t] = static_cast<double>(random.integer(0, kPositions - 1));
              slot[t] = static_cast<double>(blocks * MLA_BLOCK_TOKENS - 1 - t);
            }
            positions->set(at);
            slots->set(slot);
            const Values before = q->values();
            auto args = std::make_shared<mla_rope_args>(
                mla_rope_args{q->tensor, rotated_q->tensor, kv->tensor, k->tensor, table->tensor, positions->tensor,
                              slots->tensor, cache->tensor, interleaved});
            Problem problem;
            problem.call = [=, &lab] { return mla_rope_and_append_kv(lab.context, args.get()); };
            problem.owned = {q, positions, slots};
            problem.check = [=] {
              const Values cos_sin = table->values();
              const Values latents = kv->values();
              const Values ropes = k->values();
              Values want_q;
              Values want_cache(cache->count(), NAN);  // what no slot names stays as it was
              for (int64_t t = 0; t < tokens; t++) {
                const double *angle = &cos_sin[static_cast<int64_t>(at[t]) * rope];
                for (int64_t h = 0; h < heads; h++) {
                  const Values row = rotated(&before[(t * heads + h) * rope], angle, rope, interleaved);
                  want_q.insert(want_q.end(), row.begin(), row.end());
                }
                double *key = &want_cache[static_cast<int64_t>(slot[t]) * (latent + rope)];
                std::copy_n(&latents[t * latent], latent, key);
                const Values row = rotated(&ropes[t * rope], angle, rope, interleaved);
                std::copy(row.begin(), row.end(), key + latent);
              }
              compare("q_out", *rotated_q, want_q, Values(want_q.size(), 1), 1e-6);
              compare("cache", *cache, want_cache, Values(want_cache.size(), 1), 1e-6);
            };
            return problem;
          }};
}

// ---- decode ---------------------------------------------------------------------------------------------------------

struct DecodeShape {
  std::vector<int64_t> lengths;
  int64_t s_q, heads, latent, rope;
  int32_t act;
  bool timed;
  bool model = false;
};

std::string words_of(const std::vector<int64_t> &lengths) {
  if (lengths.size() > 6) {
    return text("%zux%ld", lengths.size(), lengths[0]);
  }
  std::string words;
  for (const int64_t length : lengths) {
    words += (words.empty() ? "" : ",") + std::to_string(length);
  }
  return words;
}

struct DecodeOperands {
  DecodeOperands(Lab &lab, Random &random, const DecodeShape &s)
      : paged(lab, random, s.act, s.lengths, s.latent + s.rope),
        q(lab, s.act, {batch(s), s.s_q, s.heads, s.latent + s.rope}, s.timed || s.model ? 0 : 3),
        out(lab, s.act, {batch(s), s.s_q, s.heads, s.latent}, s.timed || s.model ? 0 : 1),
        lse(lab, MLA_F32, {batch(s), s.heads, s.s_q}, s.model ? 0 : 1) {
    q.set(random.uniforms(q.count(), -1, 1));
    decode = std::make_unique<Decode>(lab, paged, q, out, lse, scale);
  }
  static int64_t batch(const DecodeShape &s) { return static_cast<int64_t>(s.lengths.size()); }

  static constexpr double scale = 0.1;
  Paged paged;
  Operand q, out, lse;
  std::unique_ptr<Decode> decode;
};

void check_decode(const DecodeShape &s, DecodeOperands &o) {
  const Values queries = o.q.values();
  const int64_t width = s.latent + s.rope;
  Values want;
  Values want_lse(o.lse.count());
  for (size_t b = 0; b < s.lengths.size(); b++) {
    for (int64_t i = 0; i < s.s_q; i++) {
      for (int64_t h = 0; h < s.heads; h++) {
        double lse = 0;
        const Values row = attend(&queries[((b * s.s_q + i) * s.heads + h) * width], o.paged.keys[b],
                                  s.lengths[b] - s.s_q + i + 1, width, s.latent, o.scale, &lse);
        want.insert(want.end(), row.begin(), row.end());
        want_lse[(b * s.heads + h) * s.s_q + i] = lse;
      }
    }
  }
  compare("out", o.out, want, Values(want.size(), 1), 3e-6);
  compare("lse", o.lse, want_lse, Values(want_lse.size(), 1), 1e-5);
  o.paged.cache.check_surroundings("cache", true);
}

Case decode_case(DecodeShape s) {
  const std::string name = text("decode len=%s s_q=%ld heads=%ld l=%ld r=%ld %s", words_of(s.lengths).c_str(), s.s_q,
                                s.heads, s.latent, s.rope, dtype_name(s.act));
  return {name,
          [s](Lab &lab, Random &random) {
            auto operands = std::make_shared<DecodeOperands>(lab, random, s);
            Problem problem;
            problem.call = [operands] { return operands->decode->run(); };
            problem.check = [s, operands] { check_decode(s, *operands); };
            for (const int64_t length : s.lengths) {
              problem.flops += 2.0 * s.s_q * s.heads * length * (2 * s.latent + s.rope);
              problem.bytes += 1.0 * length * (s.latent + s.rope) * (s.act == MLA_F32 ? 4 : 2);
            }
            return problem;
          },
          s.timed};
}

// ---- prefill --------------------------------------------------------------------------------------------------------

struct PrefillShape {
  std::vector<int64_t> lengths;
  std::vector<int64_t> queries;  // the last so many tokens of each sequence
  int64_t heads, latent, rope;
  int32_t act;
  bool timed;
  bool model = false;
};

Case prefill_case(PrefillShape s) {
  const std::string name = text("prefill len=%s queries=%s heads=%ld l=%ld r=%ld %s", words_of(s.lengths).c_str(),
                                words_of(s.queries).c_str(), s.heads, s.latent, s.rope, dtype_name(s.act));
  return {name,
          [s](Lab &lab, Random &random) {
            constexpr double kScale = 0.1;
            const int64_t width = s.latent + s.rope;
            Values starts = {0};
            for (const int64_t n : s.queries) {
              starts.push_back(starts.back() + static_cast<double>(n));
            }
            const auto tokens = static_cast<int64_t>(starts.back());
            auto paged = std::make_shared<Paged>(lab, random, s.act, s.lengths, width);
            auto q = std::make_shared<Operand>(lab, s.act, Shape{tokens, s.heads, width}, s.timed || s.model ? 0 : 3);
            auto start = std::make_shared<Operand>(lab, MLA_I32, Shape{static_cast<int64_t>(starts.size())});
            auto out = std::make_shared<Operand>(lab, s.act, Shape{tokens, s.heads, s.latent}, s.model ? 0 : 1);
            q->set(random.uniforms(q->count(), -1, 1));
            start->set(starts);
            auto args = std::make_shared<mla_prefill_args>(prefill_args(*paged, *q, *start, *out, kScale));
            Problem problem;
            problem.call = [=, &lab] { return mla_prefill(lab.context, args.get()); };
            problem.owned = {start};
            problem.check = [=] {
              const Values queries = q->values();
              Values want;
              for (size_t b = 0; b < s.lengths.size(); b++) {
                for (int64_t i = 0; i < s.queries[b]; i++) {
                  for (int64_t h = 0; h < s.heads; h++) {
                    const int64_t at = static_cast<int64_t>(starts[b]) + i;
                    double lse = 0;
                    const Values row = attend(&queries[(at * s.heads + h) * width], paged->keys[b],
                                              s.lengths[b] - s.queries[b] + i + 1, width, s.latent, kScale, &lse);
                    want.insert(want.end(), row.begin(), row.end());
                  }
                }
              }
              compare("out", *out, want, Values(want.size(), 1), 3e-6);
              paged->cache.check_surroundings("cache", true);
            };
            for (size_t b = 0; b < s.lengths.size(); b++) {
              problem.flops += 2.0 * s.queries[b] * s.heads * (s.lengths[b] - s.queries[b] / 2.0) * (width + s.latent);
            }
            return problem;
          },
          s.timed};
}

}  // namespace

std::vector<Case> attention_cases() {
  std::vector<Case> cases;
  for (const ActTypes types : {kF32, kBf16, kWide}) {
    for (const bool interleaved : {true, false}) {
      for (const bool in_place : {true, false}) {
        cases.push_back(rope_case(0, 2, 16, 8, types, interleaved, in_place));
        cases.push_back(rope_case(1, 1, 512, 64, types, interleaved, in_place));
        cases.push_back(rope_case(3, 5, 7, 2, types, interleaved, in_place));
        cases.push_back(rope_case(67, 8, 32, 32, types, interleaved, in_place));
      }
    }
  }
  for (const int32_t act : {MLA_F32, MLA_BF16}) {
    cases.push_back(decode_case({{}, 1, 8, 512, 64, act, false}));
    cases.push_back(decode_case({{0}, 1, 8, 512, 64, act, false}));
    cases.push_back(decode_case({{0, 1, 3, 63, 64, 65}, 1, 8, 512, 64, act, false}));
    cases.push_back(decode_case({{131, 0, 200, 1}, 1, 3, 512, 64, act, false}));
    cases.push_back(decode_case({{1000, 7}, 1, 17, 512, 64, act, false}));
    cases.push_back(decode_case({{2, 130, 0, 66}, 3, 5, 512, 64, act, false}));
    cases.push_back(decode_case({{129, 5}, 1, 8, 256, 32, act, false}));
    cases.push_back(decode_case({{70, 64, 1}, 2, 1, 13, 6, act, false}));
    cases.push_back(decode_case({{97, 300}, 1, 128, 64, 16, act, false}));
    cases.push_back(prefill_case({{}, {}, 8, 512, 64, act, false}));
    cases.push_back(prefill_case({{1}, {1}, 8, 512, 64, act, false}));
    cases.push_back(prefill_case({{70, 5, 64}, {70, 0, 3}, 8, 512, 64, act, false}));
    cases.push_back(prefill_case({{65, 0, 200}, {1, 0, 131}, 3, 512, 64, act, false}));
    cases.push_back(prefill_case({{67, 130}, {67, 63}, 17, 13, 6, act, false}));
  }
  for (const int64_t tokens : {1, 130}) {
    for (const int64_t heads : {16, 128}) {
      cases.push_back(model_case(rope_case(tokens, heads, 512, 64, kWide, true, false, true)));
      cases.push_back(model_case(rope_case(tokens, heads, 512, 64, kWide, false, true, true)));
    }
  }
  for (const int64_t heads : {16, 20, 128}) {
    cases.push_back(
        model_case(decode_case({{300, 1, 64, 65, 0, 200, 5, 129, 31, 96}, 1, heads, 512, 64, MLA_BF16, false, true})));
    cases.push_back(model_case(prefill_case({{1}, {1}, heads, 512, 64, MLA_BF16, false, true})));
    cases.push_back(model_case(prefill_case({{70, 0, 200}, {70, 0, 3}, heads, 512, 64, MLA_BF16, false, true})));
  }
  cases.push_back(model_case(decode_case({{2000}, 1, 16, 512, 64, MLA_BF16, false, true})));
  cases.push_back(model_case(prefill_case({{256, 65, 300}, {256, 1, 100}, 16, 512, 64, MLA_BF16, false, true})));
  cases.push_back(decode_case({std::vector<int64_t>(64, 100), 1, 8, 512, 64, MLA_F32, true}));
  cases.push_back(decode_case({std::vector<int64_t>(64, 100), 1, 8, 512, 64, MLA_BF16, true}));
  cases.push_back(decode_case({{4096}, 1, 8, 512, 64, MLA_F32, true}));
  cases.push_back(decode_case({{1024, 1024}, 1, 128, 512, 64, MLA_BF16, true}));
  cases.push_back(prefill_case({{256}, {256}, 8, 512, 64, MLA_F32, true}));
  return cases;
}

}  // namespace mla::test
