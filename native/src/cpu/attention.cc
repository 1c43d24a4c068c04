// MLA attention in absorbed form, for decode and prefill alike: one query at a time, so that its result cannot depend
// on how queries are grouped into calls.
#include "cpu.h"

#include <cmath>

namespace mla::cpu {
namespace {

// Heads of one query that are computed together: a task. They share every load of a key.
constexpr int64_t kTaskHeads = 16;

// One query, `heads` of its heads, and the keys that it sees.
struct Query {
  const float *const *q;   // [heads] rows of D
  int64_t heads;
  const int32_t *blocks;   // its sequence's row of the block table
  int64_t keys;            // > 0
  Ahead next;              // keys that this thread is likely to read after these
};

struct Shape {
  int64_t width;  // D
  int64_t latent; // L
  float scale;
};

// What a query needs beside its result: scores [heads, 64], and per head a row's address, maximum, sum, correction.
struct Work {
  float scores[kTaskHeads * MLA_BLOCK_TOKENS];
  const float *score_rows[kTaskHeads];
  float maximum[kTaskHeads];
  float sum[kTaskHeads];
  float keep[kTaskHeads];
};

// The keys from `first`, the first of a block, to the end of that block or of the sequence.
Ahead keys_in(const mla_tensor &cache, const int32_t *blocks, int64_t first, int64_t keys) {
  const int64_t count = std::min<int64_t>(MLA_BLOCK_TOKENS, keys - first);
  return {static_cast<const char *>(address(cache, blocks[first / MLA_BLOCK_TOKENS])),
          std::max<int64_t>(0, count) * cache.stride[1] * element_bytes(cache.dtype)};
}

// out [heads, L] = softmax(scale q k^T) k[:L], with the running maximum and sum of Milakov & Gimelshein 2018 over
// blocks of 64 keys in order; lse [heads].
void attend(const Kernels &kernels, const Query &query, const Shape &shape, const mla_tensor &cache, float *out,
            int64_t out_stride, float *lse) {
  Work work;
  for (int64_t h = 0; h < query.heads; h++) {
    work.score_rows[h] = work.scores + h * MLA_BLOCK_TOKENS;
    work.maximum[h] = -INFINITY;
    work.sum[h] = 0;
  }
  for (int64_t first = 0; first < query.keys; first += MLA_BLOCK_TOKENS) {
    const int64_t keys = std::min<int64_t>(MLA_BLOCK_TOKENS, query.keys - first);
    const Matrix block = {address(cache, query.blocks[first / MLA_BLOCK_TOKENS]), cache.stride[1], is_bf16(cache)};
    kernels.scores(query.q, query.heads, block, keys, shape.width, work.scores, MLA_BLOCK_TOKENS);
    for (int64_t h = 0; h < query.heads; h++) {
      float *scores = work.scores + h * MLA_BLOCK_TOKENS;
      const float maximum = std::max(work.maximum[h], kernels.max(scores, keys) * shape.scale);
      work.keep[h] = std::exp(work.maximum[h] - maximum);
      work.sum[h] = work.sum[h] * work.keep[h] + kernels.exp_sum(scores, keys, shape.scale, maximum, scores);
      work.maximum[h] = maximum;
    }
    const int64_t done = first + keys;
    kernels.gemm_nn(work.score_rows, query.heads, block, shape.latent, keys, first == 0 ? nullptr : work.keep, out,
                    out_stride, done < query.keys ? keys_in(cache, query.blocks, done, query.keys) : query.next);
  }
  for (int64_t h = 0; h < query.heads; h++) {
    kernels.multiply(1.0f / work.sum[h], shape.latent, out + h * out_stride);
    lse[h] = work.maximum[h] + std::log(work.sum[h]);
  }
}

// A sequence's length and blocks, checked: reading a wild block would be a crash.
void check_sequence(int64_t sequence, int64_t length, const mla_tensor &block_table, const mla_tensor &cache) {
  check_index("seq_lens", sequence, length, 0, block_table.shape[1] * MLA_BLOCK_TOKENS);
  for (int64_t i = 0; i * MLA_BLOCK_TOKENS < length; i++) {
    const int32_t block = *at<int32_t>(block_table, sequence, i);
    if (block < 0 || block >= cache.shape[0]) {
      fail(MLA_INVALID_ARGUMENT, "block_table[%lld, %lld] is %d; the cache has blocks [0, %lld)",
           static_cast<long long>(sequence), static_cast<long long>(i), block,
           static_cast<long long>(cache.shape[0]));
    }
  }
}

// Queries as the two calls see them: where each lies, where its result goes, what it sees.
struct Place {
  int64_t sequence;
  int64_t keys;  // may be 0
  const void *q; // [heads, D]
  int64_t q_stride;
  void *out;     // [heads, L]
  int64_t out_stride;
  float *lse;    // head h's at lse[h * lse_stride]; nullptr if nobody asks
  int64_t lse_stride;
};

// Runs all queries: a task is one of them and up to kTaskHeads of its heads.
template <class PlaceOf>
void attend_all(Cpu &cpu, int64_t queries, int64_t heads, const Shape &shape, const mla_tensor &cache,
                const mla_tensor &block_table, const mla_tensor &out, int64_t mean_keys, PlaceOf place_of) {
  // Fewer heads a task where there are fewer tasks than threads; no result depends on it.
  const bool few = queries * ((heads + kTaskHeads - 1) / kTaskHeads) < 2 * cpu.pool.threads();
  const int64_t group = few ? std::min<int64_t>(heads, 4) : kTaskHeads;
  const int64_t groups = (heads + group - 1) / group;
  const PerThread scratch(cpu, kTaskHeads * (shape.width + shape.latent));
  const int64_t flops = 2 * std::min(group, heads) * mean_keys * (shape.width + shape.latent);
  parallel(cpu, queries * groups, flops, [&](int64_t task, int thread) {
    const Place place = place_of(task / groups);
    const int64_t first = task % groups * group;
    const int64_t count = std::min(group, heads - first);
    const int64_t bytes = element_bytes(out.dtype);
    float lse[kTaskHeads];
    std::fill_n(lse, kTaskHeads, INFINITY);
    float *const wide = scratch.of(thread);
    void *const rows_out = static_cast<char *>(place.out) + first * place.out_stride * bytes;
    float *const result = result_row(out, rows_out, wide + kTaskHeads * shape.width);
    const int64_t result_stride = is_bf16(out) ? shape.latent : place.out_stride;
    if (place.keys > 0) {
      const float *rows[kTaskHeads];
      for (int64_t h = 0; h < count; h++) {
        const void *row = static_cast<const char *>(place.q) + (first + h) * place.q_stride * bytes;
        rows[h] = read_row(cpu.kernels, cache, row, shape.width, wide + h * shape.width);
      }
      // Threads take tasks in turn. Where the next one is of the same sequence its keys are here already.
      const int64_t next = std::min(queries - 1, (task + cpu.pool.threads()) / groups);
      const Place after = place_of(next);
      Ahead ahead = {nullptr, 0};
      if (after.sequence != place.sequence && after.keys > 0) {
        ahead = keys_in(cache, at<int32_t>(block_table, after.sequence), 0, after.keys);
      }
      attend(cpu.kernels, {rows, count, at<int32_t>(block_table, place.sequence), place.keys, ahead}, shape, cache,
             result, result_stride, lse);
    } else {
      for (int64_t h = 0; h < count; h++) {
        std::fill_n(result + h * result_stride, shape.latent, 0.0f);
      }
    }
    for (int64_t h = 0; h < count; h++) {
      write_row(cpu.kernels, out, result + h * result_stride, shape.latent,
                static_cast<char *>(rows_out) + h * place.out_stride * bytes);
      if (place.lse != nullptr) {
        place.lse[(first + h) * place.lse_stride] = lse[h];
      }
    }
  });
}

}  // namespace

void decode(Cpu &cpu, const mla_decode_args &args) {
  const int64_t batch = args.q.shape[0];
  const int64_t s_q = args.q.shape[1];
  int64_t tokens = 0;
  for (int64_t b = 0; b < batch; b++) {
    const int32_t length = *at<int32_t>(args.seq_lens, b);
    check_sequence(b, length, args.block_table, args.cache);
    tokens += length;
  }
  const Shape shape = {args.q.shape[3], args.out.shape[3], args.softmax_scale};
  attend_all(cpu, batch * s_q, args.q.shape[2], shape, args.cache, args.block_table, args.out,
             tokens / std::max<int64_t>(1, batch), [&](int64_t query) {
               const int64_t b = query / s_q;
               const int64_t i = query % s_q;
               const int64_t keys = std::max<int64_t>(0, *at<int32_t>(args.seq_lens, b) - s_q + i + 1);
               return Place{b, keys, address(args.q, b, i), args.q.stride[2], address(args.out, b, i),
                            args.out.stride[2], at<float>(args.lse, b, 0, i), args.lse.stride[1]};
             });
}

void prefill(Cpu &cpu, const mla_prefill_args &args) {
  const int64_t batch = args.seq_lens.shape[0];
  const int64_t queries = args.q.shape[0];
  int64_t tokens = 0;
  int64_t *sequence_of = cpu.tasks.of(queries);
  for (int64_t b = 0; b < batch; b++) {
    const int32_t length = *at<int32_t>(args.seq_lens, b);
    const int64_t begin = *at<int32_t>(args.query_start, b);
    const int64_t end = *at<int32_t>(args.query_start, b + 1);
    check_index("query_start", b, begin, 0, queries);
    check_index("query_start", b + 1, end, begin, std::min<int64_t>(queries, begin + length));
    check_sequence(b, length, args.block_table, args.cache);
    std::fill(sequence_of + begin, sequence_of + end, b);
    tokens += (end - begin) * length;
  }
  check_index("query_start", 0, *at<int32_t>(args.query_start, 0), 0, 0);
  check_index("query_start", batch, *at<int32_t>(args.query_start, batch), queries, queries);
  const Shape shape = {args.q.shape[2], args.out.shape[2], args.softmax_scale};
  attend_all(cpu, queries, args.q.shape[1], shape, args.cache, args.block_table, args.out,
             tokens / std::max<int64_t>(1, queries), [&](int64_t query) {
               const int64_t b = sequence_of[query];
               const int64_t keys =
                   *at<int32_t>(args.seq_lens, b) - (*at<int32_t>(args.query_start, b + 1) - query) + 1;
               return Place{b, keys, address(args.q, query), args.q.stride[1], address(args.out, query),
                            args.out.stride[1], nullptr, 0};
             });
}

}  // namespace mla::cpu
