#include "paged.h"

#include <algorithm>
#include <cmath>
#include <limits>

namespace mla::test {
namespace {

int64_t blocks_of(int64_t length) { return (length + MLA_BLOCK_TOKENS - 1) / MLA_BLOCK_TOKENS; }

int64_t most_blocks(const std::vector<int64_t> &lengths) {
  int64_t most = 0;
  for (const int64_t length : lengths) {
    most = std::max(most, blocks_of(length));
  }
  return most;
}

int64_t all_blocks(const std::vector<int64_t> &lengths) {
  int64_t all = 0;
  for (const int64_t length : lengths) {
    all += blocks_of(length);
  }
  return all;
}

}  // namespace

Paged::Paged(Lab &lab, Random &random, int32_t act, std::vector<int64_t> lengths_, int64_t width_, int64_t spare)
    : lengths(std::move(lengths_)),
      width(width_),
      max_blocks(most_blocks(lengths) + 1),
      cache(lab, act, {all_blocks(lengths) + spare, MLA_BLOCK_TOKENS, width}),
      block_table(lab, MLA_I32, {static_cast<int64_t>(lengths.size()), max_blocks}, 1),
      seq_lens(lab, MLA_I32, {static_cast<int64_t>(lengths.size())}) {
  const int64_t blocks = cache.tensor.shape[0];
  std::vector<int64_t> free_blocks(blocks);
  for (int64_t i = 0; i < blocks; i++) {
    free_blocks[i] = i;
    std::swap(free_blocks[i], free_blocks[random.integer(0, i)]);
  }
  std::vector<double> memory(cache.count(), std::numeric_limits<double>::quiet_NaN());
  std::vector<double> table(block_table.count(), 0x7FFFFFFF);
  for (size_t b = 0; b < lengths.size(); b++) {
    std::vector<double> own = random.uniforms(lengths[b] * width, -1, 1);
    for (double &value : own) {
      value = round_to(act, value);
    }
    for (int64_t t = 0; t < lengths[b]; t++) {
      if (t % MLA_BLOCK_TOKENS == 0) {
        table[b * max_blocks + t / MLA_BLOCK_TOKENS] = static_cast<double>(free_blocks.back());
        free_blocks.pop_back();
      }
      const auto block = static_cast<int64_t>(table[b * max_blocks + t / MLA_BLOCK_TOKENS]);
      std::copy_n(&own[t * width], width, &memory[(block * MLA_BLOCK_TOKENS + t % MLA_BLOCK_TOKENS) * width]);
    }
    keys.push_back(std::move(own));
  }
  cache.set(memory);
  block_table.set(table);
  seq_lens.set(std::vector<double>(lengths.begin(), lengths.end()));
}

std::vector<double> attend(const double *query, const std::vector<double> &keys, int64_t visible, int64_t width,
                           int64_t latent, double scale, double *lse) {
  std::vector<double> out(latent, 0);
  if (visible <= 0) {
    *lse = INFINITY;
    return out;
  }
  std::vector<double> scores(visible);
  double largest = -INFINITY;
  for (int64_t t = 0; t < visible; t++) {
    double dot = 0;
    for (int64_t i = 0; i < width; i++) {
      dot += query[i] * keys[t * width + i];
    }
    scores[t] = dot * scale;
    largest = std::max(largest, scores[t]);
  }
  double sum = 0;
  for (int64_t t = 0; t < visible; t++) {
    const double weight = std::exp(scores[t] - largest);
    sum += weight;
    for (int64_t i = 0; i < latent; i++) {
      out[i] += weight * keys[t * width + i];
    }
  }
  for (double &value : out) {
    value /= sum;
  }
  *lse = largest + std::log(sum);
  return out;
}

Decode::Decode(Lab &lab_, Paged &paged, const Operand &q, Operand &out, Operand &lse, double scale) : lab(lab_) {
  const int64_t longest = paged.lengths.empty() ? 0 : *std::max_element(paged.lengths.begin(), paged.lengths.end());
  args.plan = {static_cast<int32_t>(q.tensor.shape[0]), static_cast<int32_t>(q.tensor.shape[1]),
               static_cast<int32_t>(q.tensor.shape[2]), static_cast<int32_t>(longest), MLA_PLAN_DETERMINISTIC};
  int64_t parts = 0;
  int64_t workspace_bytes = 0;
  require_ok(mla_plan_size(lab.context, &args.plan, &parts, &workspace_bytes));
  tiles = std::make_unique<Operand>(lab, MLA_I32, Shape{parts, 8});
  splits = std::make_unique<Operand>(lab, MLA_I32, Shape{args.plan.batch + 1});
  workspace = std::make_unique<Operand>(lab, MLA_F32, Shape{(workspace_bytes + 3) / 4});
  args.q = q.tensor;
  args.cache = paged.cache.tensor;
  args.block_table = paged.block_table.tensor;
  args.seq_lens = paged.seq_lens.tensor;
  args.tiles = tiles->tensor;
  args.splits = splits->tensor;
  args.workspace = workspace->tensor;
  args.out = out.tensor;
  args.lse = lse.tensor;
  args.softmax_scale = static_cast<float>(scale);
  require_ok(mla_plan(lab.context, &args.plan, &args.seq_lens, &args.tiles, &args.splits));
}

mla_status Decode::run() { return mla_decode(lab.context, &args); }

mla_prefill_args prefill_args(Paged &paged, const Operand &q, const Operand &query_start, Operand &out, double scale) {
  mla_prefill_args args{};
  args.q = q.tensor;
  args.query_start = query_start.tensor;
  args.cache = paged.cache.tensor;
  args.block_table = paged.block_table.tensor;
  args.seq_lens = paged.seq_lens.tensor;
  args.out = out.tensor;
  args.softmax_scale = static_cast<float>(scale);
  return args;
}

}  // namespace mla::test
