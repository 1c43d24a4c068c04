// moe_route, moe_sort, moe_gemm, moe_combine against plain code in double.
#include "harness.h"

#include <algorithm>
#include <cmath>
#include <numeric>

namespace mla::test {
namespace {

using Values = std::vector<double>;

struct Router {
  const char *name;
  int64_t experts;
  int32_t top_k, scoring, groups, top_groups, group_score;
  bool normalize, bias;
  float scale;
};

// The HF checkpoints' routers, and small ones at the edges.
const Router kRouters[] = {
    {"tiny v3", 8, 2, MLA_SIGMOID, 2, 1, MLA_GROUP_TOP2_SUM, true, true, 2.5f},
    {"v2-lite", 64, 6, MLA_SOFTMAX, 1, 1, MLA_GROUP_MAX, false, false, 1.0f},
    {"v2", 160, 6, MLA_SOFTMAX, 8, 3, MLA_GROUP_MAX, false, false, 16.0f},
    {"v3", 256, 8, MLA_SIGMOID, 8, 4, MLA_GROUP_TOP2_SUM, true, true, 2.5f},
    {"kimi", 384, 8, MLA_SIGMOID, 1, 1, MLA_GROUP_TOP2_SUM, true, true, 2.827f},
    {"one", 1, 1, MLA_SOFTMAX, 1, 1, MLA_GROUP_MAX, true, false, 1.0f},
    {"all", 5, 5, MLA_SIGMOID, 1, 1, MLA_GROUP_MAX, true, true, 1.0f},
    {"last group", 6, 2, MLA_SOFTMAX, 3, 1, MLA_GROUP_MAX, false, false, 1.0f},
};

std::vector<int64_t> descending(const Values &values) {
  std::vector<int64_t> order(values.size());
  std::iota(order.begin(), order.end(), 0);
  std::stable_sort(order.begin(), order.end(), [&](int64_t a, int64_t b) { return values[a] > values[b]; });
  return order;
}

// One token's experts, best first, and their weights.
void route(const Router &r, const double *logits, const Values &bias, std::vector<int64_t> &chosen, Values &weights) {
  Values scores(r.experts);
  double sum = 0;
  const double largest = *std::max_element(logits, logits + r.experts);
  for (int64_t e = 0; e < r.experts; e++) {
    scores[e] = r.scoring == MLA_SIGMOID ? 1 / (1 + std::exp(-logits[e])) : std::exp(logits[e] - largest);
    sum += scores[e];
  }
  Values choice(r.experts);
  for (int64_t e = 0; e < r.experts; e++) {
    scores[e] /= r.scoring == MLA_SOFTMAX ? sum : 1;
    choice[e] = scores[e] + bias[e];
  }
  const int64_t size = r.experts / r.groups;
  Values group_scores;
  for (int32_t g = 0; g < r.groups; g++) {
    Values own(choice.begin() + g * size, choice.begin() + (g + 1) * size);
    std::sort(own.rbegin(), own.rend());
    group_scores.push_back(own[0] + (r.group_score == MLA_GROUP_TOP2_SUM && size > 1 ? own[1] : 0));
  }
  const std::vector<int64_t> groups = descending(group_scores);
  for (int32_t g = r.top_groups; g < r.groups; g++) {
    std::fill_n(choice.begin() + groups[g] * size, size, -INFINITY);
  }
  chosen = descending(choice);
  chosen.resize(r.top_k);
  double total = 1e-20;
  for (const int64_t e : chosen) {
    total += scores[e];
  }
  weights.clear();
  for (const int64_t e : chosen) {
    weights.push_back(scores[e] / (r.normalize ? total : 1) * r.scale);
  }
}

Case route_case(const Router &r, int64_t tokens, bool ties) {
  return {text("moe_route %s t=%ld%s", r.name, tokens, ties ? " ties" : ""), [=](Lab &lab, Random &random) {
            auto logits = std::make_shared<Operand>(lab, MLA_F32, Shape{tokens, r.experts}, 3);
            auto bias = std::make_shared<Operand>(lab, MLA_F32, Shape{r.experts});
            auto weights = std::make_shared<Operand>(lab, MLA_F32, Shape{tokens, r.top_k}, 1);
            auto experts = std::make_shared<Operand>(lab, MLA_I32, Shape{tokens, r.top_k}, 2);
            Values values = random.uniforms(tokens * r.experts, -4, 4);
            for (double &value : values) {
              value = ties ? std::round(value / 4) : value;
            }
            logits->set(values);
            bias->set(ties ? Values(r.experts, 0) : random.uniforms(r.experts, -0.2, 0.2));
            auto args = std::make_shared<mla_route_args>();
            *args = {logits->tensor, weights->tensor, experts->tensor, r.bias ? &bias->tensor : nullptr,
                     r.scoring,      r.groups,        r.top_groups,    r.group_score, r.normalize, r.scale};
            Problem problem;
            problem.call = [=, &lab] { return mla_moe_route(lab.context, args.get()); };
            problem.check = [=] {
              const Values rows = logits->values();
              const Values offsets = r.bias ? bias->values() : Values(r.experts, 0);
              Values want_experts;
              Values want_weights;
              for (int64_t t = 0; t < tokens; t++) {
                std::vector<int64_t> chosen;
                Values shares;
                route(r, &rows[t * r.experts], offsets, chosen, shares);
                want_experts.insert(want_experts.end(), chosen.begin(), chosen.end());
                want_weights.insert(want_weights.end(), shares.begin(), shares.end());
              }
              compare_exact("experts", *experts, want_experts);
              compare("weights", *weights, want_weights, want_weights, 1e-6);
            };
            return problem;
          }};
}

Case sort_case(int64_t tokens, int64_t top_k, int64_t experts) {
  return {text("moe_sort t=%ld top_k=%ld e=%ld", tokens, top_k, experts), [=](Lab &lab, Random &random) {
            auto chosen = std::make_shared<Operand>(lab, MLA_I32, Shape{tokens, top_k}, 1);
            auto rows = std::make_shared<Operand>(lab, MLA_I32, Shape{tokens * top_k});
            auto places = std::make_shared<Operand>(lab, MLA_I32, Shape{tokens, top_k}, 2);
            auto offsets = std::make_shared<Operand>(lab, MLA_I32, Shape{experts + 1});
            Values values(tokens * top_k);
            for (double &value : values) {
              value = static_cast<double>(random.integer(0, experts - 1) / 2 * 2);  // odd experts stay empty
            }
            chosen->set(values);
            Problem problem;
            problem.call = [=, &lab] {
              return mla_moe_sort(lab.context, &chosen->tensor, &rows->tensor, &places->tensor, &offsets->tensor);
            };
            problem.check = [=] {
              Values want_rows;
              Values want_offsets = {0};
              Values want_places(tokens * top_k);
              for (int64_t e = 0; e < experts; e++) {
                for (int64_t i = 0; i < tokens * top_k; i++) {
                  if (values[i] == static_cast<double>(e)) {
                    want_places[i] = static_cast<double>(want_rows.size());
                    want_rows.push_back(static_cast<double>(i / top_k));
                  }
                }
                want_offsets.push_back(static_cast<double>(want_rows.size()));
              }
              compare_exact("rows", *rows, want_rows);
              compare_exact("places", *places, want_places);
              compare_exact("offsets", *offsets, want_offsets);
            };
            return problem;
          }};
}

struct GroupedShape {
  int64_t tokens, top_k, experts, n, k;  // top_k 0: without rows
  int32_t act, weight;
  bool timed;
  bool model = false;
};

Case grouped_case(GroupedShape s) {
  const std::string name = text("moe_gemm t=%ld top_k=%ld e=%ld n=%ld k=%ld %s*%s", s.tokens, s.top_k, s.experts, s.n,
                                s.k, dtype_name(s.act), dtype_name(s.weight));
  return {name,
          [s](Lab &lab, Random &random) {
            const int64_t pairs = s.tokens * std::max<int64_t>(1, s.top_k);
            const int64_t gap = s.timed || s.model ? 0 : 3;
            auto x = std::make_shared<Operand>(lab, s.act, Shape{s.tokens, s.k}, gap);
            auto rows = std::make_shared<Operand>(lab, MLA_I32, Shape{pairs});
            auto offsets = std::make_shared<Operand>(lab, MLA_I32, Shape{s.experts + 1});
            auto weights = std::make_shared<Operand>(lab, s.weight, Shape{s.experts, s.n, s.k}, gap);
            auto out = std::make_shared<Operand>(lab, s.act, Shape{pairs, s.n}, gap);
            x->set(random.uniforms(x->count(), -1, 1));
            weights->set(random.uniforms(weights->count(), -1, 1));
            Values token(pairs);
            Values bounds(s.experts + 1, 0);
            for (int64_t i = 0; i < pairs; i++) {
              token[i] = static_cast<double>(s.top_k > 0 ? random.integer(0, s.tokens - 1) : i);
              bounds[random.integer(1, s.experts)]++;
            }
            std::partial_sum(bounds.begin(), bounds.end(), bounds.begin());
            rows->set(token);
            offsets->set(bounds);
            auto list = std::make_shared<std::vector<mla_tensor>>(s.experts, weights->tensor);
            for (int64_t e = 0; e < s.experts; e++) {
              mla_tensor &w = (*list)[e];
              w.data = static_cast<char *>(w.data) + e * w.stride[0] * (s.weight == MLA_F32 ? 4 : 2);
              w.rank = 2;
              w.shape[0] = s.n;
              w.shape[1] = s.k;
              w.stride[0] = w.stride[1];
              w.stride[1] = 1;
            }
            Problem problem;
            problem.call = [=, &lab] {
              return mla_moe_gemm(lab.context, &x->tensor, s.top_k > 0 ? &rows->tensor : nullptr, &offsets->tensor,
                                  list->data(), static_cast<int32_t>(s.experts), MLA_IDENTITY, &out->tensor);
            };
            problem.check = [=] {
              const Values a = x->values();
              const Values b = weights->values();
              Values want(pairs * s.n);
              Values scale(pairs * s.n);
              for (int64_t e = 0; e < s.experts; e++) {
                for (auto i = static_cast<int64_t>(bounds[e]); i < static_cast<int64_t>(bounds[e + 1]); i++) {
                  for (int64_t j = 0; j < s.n; j++) {
                    for (int64_t k = 0; k < s.k; k++) {
                      const double term = a[static_cast<int64_t>(token[i]) * s.k + k] * b[(e * s.n + j) * s.k + k];
                      want[i * s.n + j] += term;
                      scale[i * s.n + j] += std::fabs(term);
                    }
                  }
                }
              }
              compare("out", *out, want, scale);
            };
            problem.flops = 2.0 * pairs * s.n * s.k;
            return problem;
          },
          s.timed};
}

enum class Base { kNone, kOther, kOut };

Case combine_case(int64_t tokens, int64_t top_k, int64_t hidden, ActTypes types, Base kind, bool model = false) {
  static const char *const kinds[] = {"alone", "base", "in place"};
  return {text("moe_combine t=%ld top_k=%ld h=%ld %s %s", tokens, top_k, hidden, name_of(types).c_str(),
               kinds[static_cast<int>(kind)]),
          [=](Lab &lab, Random &random) {
            auto y = std::make_shared<Operand>(lab, types.act, Shape{tokens * top_k, hidden}, gap_of(model, 1));
            auto places = std::make_shared<Operand>(lab, MLA_I32, Shape{tokens, top_k}, 1);
            auto weights = std::make_shared<Operand>(lab, MLA_F32, Shape{tokens, top_k}, 2);
            auto out = std::make_shared<Operand>(lab, types.wide, Shape{tokens, hidden}, gap_of(model, 3));
            y->set(random.uniforms(y->count(), -1, 1));
            weights->set(random.uniforms(weights->count(), 0, 2));
            const Shape shape = {tokens, hidden};
            auto base = kind == Base::kOut     ? out
                        : kind == Base::kOther ? std::make_shared<Operand>(lab, types.wide, shape, gap_of(model, 1))
                                               : nullptr;
            if (base) {
              base->set(random.uniforms(base->count(), -1, 1));
            }
            Values order(tokens * top_k);
            for (int64_t i = 0; i < tokens * top_k; i++) {
              order[i] = static_cast<double>(i);
              std::swap(order[i], order[random.integer(0, i)]);
            }
            places->set(order);
            const Values before = base ? base->values() : Values(tokens * hidden, 0);
            Problem problem;
            problem.call = [=, &lab] {
              return mla_moe_combine(lab.context, &y->tensor, &places->tensor, &weights->tensor,
                                     base ? &base->tensor : nullptr, &out->tensor);
            };
            problem.check = [=] {
              const Values rows = y->values();
              const Values shares = weights->values();
              Values want = before;
              Values scale(want.size(), 1.0 + 2 * static_cast<double>(top_k));
              for (int64_t i = 0; i < tokens * hidden; i++) {
                for (int64_t j = i / hidden * top_k; j < (i / hidden + 1) * top_k; j++) {
                  want[i] += shares[j] * rows[static_cast<int64_t>(order[j]) * hidden + i % hidden];
                }
              }
              compare("out", *out, want, scale, 2e-7);
            };
            return problem;
          }};
}

}  // namespace

std::vector<Case> moe_cases() {
  std::vector<Case> cases;
  for (const Router &router : kRouters) {
    for (const int64_t tokens : {0, 1, 67}) {
      cases.push_back(route_case(router, tokens, false));
    }
    cases.push_back(route_case(router, 65, true));
  }
  // DeepSeek-V2-Lite: 64 experts, 6 a token; K2's router has the most experts.
  for (const int64_t tokens : {1, 130, 1000}) {
    cases.push_back(model_case(route_case(kRouters[1], tokens, false)));
    cases.push_back(model_case(route_case(kRouters[4], tokens, true)));
    cases.push_back(model_case(sort_case(tokens, 6, 64)));
    cases.push_back(model_case(sort_case(tokens, 8, 384)));
    for (const Base kind : {Base::kNone, Base::kOther, Base::kOut}) {
      cases.push_back(model_case(combine_case(tokens, 6, 2048, kWide, kind, true)));
    }
  }
  cases.push_back(model_case(sort_case(8192, 6, 64)));
  cases.push_back(model_case(sort_case(8192, 8, 384)));
  for (const int64_t tokens : {1, 4, 33, 200}) {
    cases.push_back(model_case(grouped_case({tokens, 6, 64, 64, 2048, MLA_BF16, MLA_BF16, false, true})));
    cases.push_back(model_case(grouped_case({tokens, 0, 64, 128, 1408, MLA_BF16, MLA_BF16, false, true})));
  }
  for (const int64_t tokens : {0, 1, 3, 64, 131}) {
    cases.push_back(sort_case(tokens, 2, 8));
    cases.push_back(sort_case(tokens, 1, 1));
    cases.push_back(sort_case(tokens, 6, 65));
    for (const ActTypes types : {kF32, kBf16, kWide}) {
      for (const Base kind : {Base::kNone, Base::kOther, Base::kOut}) {
        cases.push_back(combine_case(tokens, 2, 67, types, kind));
        cases.push_back(combine_case(tokens, 6, 192, types, kind));
        cases.push_back(combine_case(tokens, 1, 1, types, kind));
      }
    }
  }
  for (const int64_t tokens : {1, 3, 65, 131}) {
    cases.push_back(grouped_case({tokens, 2, 8, 33, 67, MLA_F32, MLA_BF16, false}));
    cases.push_back(grouped_case({tokens, 0, 3, 65, 64, MLA_F32, MLA_F32, false}));
    cases.push_back(grouped_case({tokens, 6, 64, 17, 48, MLA_BF16, MLA_BF16, false}));
    cases.push_back(grouped_case({tokens, 0, 1, 1, 1, MLA_BF16, MLA_BF16, false}));
  }
  cases.push_back(grouped_case({0, 0, 4, 5, 6, MLA_F32, MLA_BF16, false}));
  cases.push_back(grouped_case({64, 2, 8, 256, 192, MLA_F32, MLA_BF16, true}));
  cases.push_back(grouped_case({128, 0, 8, 192, 128, MLA_F32, MLA_BF16, true}));
  return cases;
}

}  // namespace mla::test
