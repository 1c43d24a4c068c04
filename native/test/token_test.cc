// sample and log_softmax_top_k against plain code in double, and mla_uniform against its published generator.
#include "harness.h"

#include <algorithm>
#include <cmath>
#include <numeric>

namespace mla::test {
namespace {

using Values = std::vector<double>;

std::vector<int64_t> descending(const Values &values) {
  std::vector<int64_t> order(values.size());
  std::iota(order.begin(), order.end(), 0);
  std::stable_sort(order.begin(), order.end(), [&](int64_t a, int64_t b) { return values[a] > values[b]; });
  return order;
}

struct Row {
  double temperature;
  int64_t top_k;
  double top_p;
};

// Probabilities of what Hugging Face's warpers keep, by a full sort.
Values kept(const double *logits, int64_t n, const Row &row) {
  Values scaled(n);
  for (int64_t i = 0; i < n; i++) {
    scaled[i] = static_cast<float>(logits[i] / row.temperature);
  }
  const std::vector<int64_t> order = descending(scaled);
  if (row.top_k > 0 && row.top_k < n) {
    const double last = scaled[order[row.top_k - 1]];
    for (double &value : scaled) {
      value = value < last ? -INFINITY : value;
    }
  }
  Values p(n);
  double sum = 0;
  for (int64_t i = 0; i < n; i++) {
    p[i] = std::exp(scaled[i] - scaled[order[0]]);
    sum += p[i];
  }
  double mass = 0;
  for (int64_t i = 0; i < n; i++) {
    double &value = p[order[i]];
    value /= sum;
    const double before = mass;
    mass += value;
    if (row.top_p < 1 && i > 0 && before >= row.top_p - 1e-9) {
      value = 0;
    }
  }
  return p;
}

// Whether a draw of id with u is right, give or take a rounding at the borders of its share.
bool right_draw(const Values &p, int64_t id, double u) {
  const double sum = std::accumulate(p.begin(), p.end(), 0.0);
  const double before = std::accumulate(p.begin(), p.begin() + id, 0.0) / sum;
  return p[id] > 0 && u >= before - 1e-5 && u <= before + p[id] / sum + 1e-5;
}

Case sample_case(const std::string &name, int64_t n, std::vector<Row> rows, double spread, bool timed = false) {
  const auto batch = static_cast<int64_t>(rows.size());
  return {text("sample v=%ld b=%ld %s", n, batch, name.c_str()),
          [=](Lab &lab, Random &random) {
            struct Operands {
              Operand logits, temperature, top_k, top_p, seed, position, ids;
            };
            auto o = std::shared_ptr<Operands>(new Operands{{lab, MLA_F32, {batch, n}, 5},
                                                            {lab, MLA_F32, {batch}},
                                                            {lab, MLA_I32, {batch}},
                                                            {lab, MLA_F32, {batch}},
                                                            {lab, MLA_I64, {batch}},
                                                            {lab, MLA_I32, {batch}},
                                                            {lab, MLA_I32, {batch}}});
            Values temperature, top_k, top_p, seed, position;
            for (const Row &row : rows) {
              temperature.push_back(row.temperature);
              top_k.push_back(static_cast<double>(row.top_k));
              top_p.push_back(row.top_p);
              seed.push_back(static_cast<double>(random.integer(-1000000, 1000000)));
              position.push_back(static_cast<double>(random.integer(0, 5000)));
            }
            Values values = random.uniforms(batch * n, -spread, spread);
            for (double &value : values) {
              value = name == "ties" ? std::round(value) : value;
            }
            o->logits.set(values);
            o->temperature.set(temperature);
            o->top_k.set(top_k);
            o->top_p.set(top_p);
            o->seed.set(seed);
            o->position.set(position);
            auto args = std::make_shared<mla_sample_args>(
                mla_sample_args{o->logits.tensor, o->temperature.tensor, o->top_k.tensor, o->top_p.tensor,
                                o->seed.tensor, o->position.tensor, o->ids.tensor});
            Problem problem;
            problem.call = [=, &lab] { return mla_sample(lab.context, args.get()); };
            problem.check = [=] {
              const Values logits = o->logits.values();
              const Values ids = o->ids.values();
              for (int64_t b = 0; b < batch; b++) {
                const double *own = &logits[b * n];
                const auto id = static_cast<int64_t>(ids[b]);
                if (id < 0 || id >= n) {
                  fail("row %ld: id %ld", b, id);
                }
                if (rows[b].temperature == 0) {
                  const int64_t best = std::max_element(own, own + n) - own;
                  if (id != best) {
                    fail("row %ld: greedy id %ld, the largest is at %ld", b, id, best);
                  }
                  continue;
                }
                Row rounded = rows[b];
                rounded.temperature = static_cast<float>(rounded.temperature);
                rounded.top_p = static_cast<float>(rounded.top_p);
                const float u = mla_uniform(static_cast<int64_t>(seed[b]), static_cast<int32_t>(position[b]));
                if (!right_draw(kept(own, n, rounded), id, u)) {
                  fail("row %ld: id %ld is not what u = %.7f draws", b, id, static_cast<double>(u));
                }
              }
              o->ids.check_surroundings("ids");
            };
            return problem;
          },
          timed};
}

// Rows whose result is known by hand.
Case sample_by_hand() {
  return check_case("sample by hand", [](Lab &lab, Random &) {
    const double kInf = INFINITY;
    const std::vector<Values> logits = {
        {1, 3, 3, 2},              // greedy tie: the lower id
        {-kInf, -kInf, 5, -kInf},  // one choice
        {2, 2, 2, 2},              // top_k 2 keeps ties: all four
        {2, 2, 2, 2},              // top_p 0.5 of equals: the two lowest ids
        {0, 9, 0, 0},              // top_p 0: the best alone
        {1, NAN, 2, 3},            // broken
        {-kInf, -kInf, -kInf, -kInf},
        {1, kInf, 2, 3},
    };
    const Values temperature = {0, 1, 1, 1, 0.7, 1, 0, 0};
    const Values top_k = {0, 0, 2, 0, 0, 0, 0, 0};
    const Values top_p = {1, 1, 1, 0.5, 0, 1, 1, 1};
    const auto batch = static_cast<int64_t>(logits.size());
    for (int32_t position = 0; position < 200; position++) {
      Operand l(lab, MLA_F32, {batch, 4}), t(lab, MLA_F32, {batch}), k(lab, MLA_I32, {batch}), p(lab, MLA_F32, {batch}),
          s(lab, MLA_I64, {batch}), at(lab, MLA_I32, {batch}), ids(lab, MLA_I32, {batch});
      Values flat;
      for (const Values &row : logits) {
        flat.insert(flat.end(), row.begin(), row.end());
      }
      l.set(flat);
      t.set(temperature);
      k.set(top_k);
      p.set(top_p);
      s.set(Values(batch, 42));
      at.set(Values(batch, position));
      const mla_sample_args args = {l.tensor, t.tensor, k.tensor, p.tensor, s.tensor, at.tensor, ids.tensor};
      require_ok(mla_sample(lab.context, &args));
      const double u = static_cast<double>(mla_uniform(42, position));
      compare_exact("ids", ids, {1, 2, std::floor(u * 4), std::floor(u * 2), 1, -1, -1, -1});
    }
  });
}

// Reference values of SplitMix64 with seed 1234567, as published with the generator's test vectors.
Case uniform_by_hand() {
  return check_case("uniform by hand", [](Lab &, Random &) {
    const uint64_t published[] = {6457827717110365317u, 3203168211198807973u, 9817491932198370423u,
                                  4593380528125082431u, 16408922859458223821u};
    for (int32_t position = 0; position < 5; position++) {
      const float want = static_cast<float>(published[position] >> 40) / 16777216.0f;
      if (mla_uniform(1234567, position) != want) {
        fail("position %d: %.9g instead of %.9g", position, static_cast<double>(mla_uniform(1234567, position)),
             static_cast<double>(want));
      }
    }
    double sum = 0;
    for (int32_t position = 0; position < 100000; position++) {
      const float u = mla_uniform(-7, position);
      if (!(u >= 0 && u < 1)) {
        fail("position %d: %g", position, static_cast<double>(u));
      }
      sum += u;
    }
    if (std::fabs(sum / 100000 - 0.5) > 0.005) {
      fail("the mean of 100,000 draws is %g", sum / 100000);
    }
  });
}

Case log_softmax_case(int64_t batch, int64_t n, int64_t top, double spread, bool timed = false) {
  return {text("log_softmax b=%ld v=%ld top=%ld spread=%g", batch, n, top, spread),
          [=](Lab &lab, Random &random) {
            auto logits = std::make_shared<Operand>(lab, MLA_F32, Shape{batch, n}, 3);
            auto ids = std::make_shared<Operand>(lab, MLA_I32, Shape{batch});
            auto chosen = std::make_shared<Operand>(lab, MLA_F32, Shape{batch});
            auto top_ids = std::make_shared<Operand>(lab, MLA_I32, Shape{batch, top}, 1);
            auto best = std::make_shared<Operand>(lab, MLA_F32, Shape{batch, top}, 2);
            Values values = random.uniforms(batch * n, -spread, spread);
            for (double &value : values) {
              value = std::round(value * 64) / 64;  // ties
            }
            logits->set(values);
            Values picks(batch);
            for (double &pick : picks) {
              pick = static_cast<double>(random.integer(-1, n - 1));
            }
            ids->set(picks);
            Problem problem;
            problem.call = [=, &lab] {
              return mla_log_softmax_top_k(lab.context, &logits->tensor, &ids->tensor, &chosen->tensor,
                                           top > 0 ? &top_ids->tensor : nullptr, top > 0 ? &best->tensor : nullptr);
            };
            problem.check = [=] {
              Values want_chosen;
              Values want_ids;
              Values want_best;
              for (int64_t b = 0; b < batch; b++) {
                const Values row(values.begin() + b * n, values.begin() + (b + 1) * n);
                const std::vector<int64_t> order = descending(row);
                double sum = 0;
                for (const double value : row) {
                  sum += std::exp(value - row[order[0]]);
                }
                const double normalizer = row[order[0]] + std::log(sum);
                want_chosen.push_back(picks[b] < 0 ? NAN : row[static_cast<int64_t>(picks[b])] - normalizer);
                for (int64_t i = 0; i < top; i++) {
                  want_ids.push_back(static_cast<double>(order[i]));
                  want_best.push_back(row[order[i]] - normalizer);
                }
              }
              const Values size(want_chosen.size(), spread);
              compare("chosen", *chosen, want_chosen, size, 1e-6);
              if (top > 0) {
                compare_exact("top_ids", *top_ids, want_ids);
                compare("top", *best, want_best, Values(want_best.size(), spread), 1e-6);
              }
            };
            return problem;
          },
          timed};
}

}  // namespace

std::vector<Case> token_cases() {
  std::vector<Case> cases = {sample_by_hand(), uniform_by_hand()};
  const std::vector<Row> rows = {{0, 0, 1},     {1, 0, 1},      {0.7, 0, 1}, {1, 1, 1},      {1, 5, 1},
                                 {1.3, 50, 1},  {1, 0, 0.9},    {0.6, 0, 0.5}, {2, 0, 0.99}, {0.8, 20, 0.8},
                                 {1, 3, 0.1},   {1, 100000, 1}, {0.01, 0, 0.95}, {1, 7, 0.999}};
  for (const int64_t n : {1, 2, 3, 63, 64, 65, 257, 2048}) {
    cases.push_back(sample_case("narrow", n, rows, 1));
    cases.push_back(sample_case("wide", n, rows, 12));
    cases.push_back(sample_case("ties", n, rows, 3));
  }
  cases.push_back(sample_case("none", 8, {}, 1));
  cases.push_back(sample_case("greedy", 2048, std::vector<Row>(64, {0, 0, 1}), 8, true));
  cases.push_back(sample_case("large", 129280, {{1, 0, 1}, {0.6, 0, 0.95}, {1, 50, 1}, {0, 0, 1}}, 8, true));
  cases.push_back(model_case(sample_case("narrow", 102400, rows, 1)));
  cases.push_back(model_case(sample_case("wide", 163840, rows, 12)));
  cases.push_back(model_case(sample_case("flat", 102400, rows, 0.05)));
  cases.push_back(model_case(sample_case("ties", 102400, rows, 3)));
  for (const int64_t n : {102400, 163840}) {
    cases.push_back(model_case(sample_case("greedy", n, std::vector<Row>(3, {0, 0, 1}), 8)));
    cases.push_back(model_case(log_softmax_case(2, n, 20, 10)));
    cases.push_back(model_case(log_softmax_case(3, n, 0, 10)));
  }
  cases.push_back(log_softmax_case(0, 5, 2, 3));
  for (const int64_t n : {1, 3, 64, 67, 2048}) {
    cases.push_back(log_softmax_case(3, n, 0, 10));
    cases.push_back(log_softmax_case(3, n, 1, 10));
    cases.push_back(log_softmax_case(2, n, std::min<int64_t>(n, 20), 10));
  }
  cases.push_back(log_softmax_case(2, 129280, 20, 10, true));
  cases.push_back(log_softmax_case(64, 2048, 5, 10, true));
  return cases;
}

}  // namespace mla::test
