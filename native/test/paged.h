// A paged cache for the attention cases: shuffled blocks, NaN wherever no token lies, wild block numbers past the end.
#ifndef MLA_TEST_PAGED_H
#define MLA_TEST_PAGED_H

#include "harness.h"

namespace mla::test {

struct Paged {
  // One sequence a length; room for `spare` blocks more than are needed.
  Paged(Lab &lab, Random &random, int32_t act, std::vector<int64_t> lengths, int64_t width, int64_t spare = 3);

  std::vector<int64_t> lengths;
  int64_t width;
  int64_t max_blocks;
  Operand cache;        // [blocks, 64, width]
  Operand block_table;  // [batch, max_blocks]
  Operand seq_lens;     // [batch]
  std::vector<std::vector<double>> keys;  // of each sequence, [length, width], as the cache's type holds them
};

// The result of one query [width] that sees the first `visible` keys: out [latent] and the log-sum-exp.
std::vector<double> attend(const double *query, const std::vector<double> &keys, int64_t visible, int64_t width,
                           int64_t latent, double scale, double *lse);

// mla_decode with its plan made first; out [batch, s_q, heads, latent], lse [batch, heads, s_q].
struct Decode {
  Decode(Lab &lab, Paged &paged, const Operand &q, Operand &out, Operand &lse, double scale);
  mla_status run();

  Lab &lab;
  mla_decode_args args{};
  std::unique_ptr<Operand> tiles, splits, workspace;
};

mla_prefill_args prefill_args(Paged &paged, const Operand &q, const Operand &query_start, Operand &out, double scale);

}  // namespace mla::test

#endif
