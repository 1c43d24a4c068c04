// What is timed on a GPU: the operations that move bytes, at the sizes of DeepSeek-V2-Lite (hidden 2048, 16 heads, 64
// experts of 1408, 6 a token, vocabulary 102,400), for a step of decode and for one of prefill. bytes counts each input
// and output once: beside what a copy reaches on the device, it tells how near an operation is to the memory's speed.
#include "harness.h"

namespace mla::test {
namespace {

constexpr int64_t kHidden = 2048, kTopK = 6, kExperts = 64, kExpertWidth = 1408, kVocabulary = 102400;

// Device memory without sentinels: there is too much of it to be looked at from the host.
class Memory {
 public:
  Memory(Lab &lab, int32_t dtype, Shape shape) : lab_(lab) {
    tensor.dtype = dtype;
    tensor.rank = static_cast<int32_t>(shape.size());
    count_ = 1;
    for (int i = tensor.rank - 1; i >= 0; i--) {
      tensor.shape[i] = shape[i];
      tensor.stride[i] = count_;
      count_ *= shape[i];
    }
    require_ok(mla_buffer_create(lab.context, bytes(), &buffer_));
    tensor.data = mla_buffer_data(buffer_);
  }
  ~Memory() { mla_buffer_destroy(buffer_); }
  Memory(const Memory &) = delete;
  Memory &operator=(const Memory &) = delete;

  int64_t bytes() const {
    static const int64_t sizes[] = {4, 2, 2, 1, 4, 8};
    return count_ * sizes[tensor.dtype];
  }
  Memory &random(float std) {
    require_ok(mla_fill_normal(lab_.context, &tensor, std, 5));
    return *this;
  }
  template <class T>
  Memory &set(const std::vector<T> &values) {
    require_ok(mla_copy_from_host(lab_.context, tensor.data, values.data(), bytes()));
    return *this;
  }

  mla_tensor tensor{};

 private:
  Lab &lab_;
  mla_buffer *buffer_ = nullptr;
  int64_t count_;
};

using Mem = std::shared_ptr<Memory>;

Mem memory(Lab &lab, int32_t dtype, Shape shape) { return std::make_shared<Memory>(lab, dtype, shape); }
Mem activations(Lab &lab, Shape shape) {
  Mem x = memory(lab, MLA_BF16, shape);
  x->random(1);
  return x;
}
Mem wide(Lab &lab, Shape shape) {
  Mem x = memory(lab, MLA_F32, shape);
  x->random(1);
  return x;
}

Problem problem_of(double bytes, std::function<mla_status()> call) {
  Problem problem;
  problem.bytes = bytes;
  problem.call = std::move(call);
  return problem;
}

Case timed(const std::string &name, std::function<Problem(Lab &, Random &)> prepare) { return {name, prepare, true}; }

std::vector<int32_t> random_ids(Random &random, int64_t count, int64_t bound) {
  std::vector<int32_t> ids(count);
  for (int32_t &id : ids) {
    id = static_cast<int32_t>(random.integer(0, bound - 1));
  }
  return ids;
}

Case norm_case(int64_t rows, int64_t hidden, bool with_residual) {
  return timed(text("rms_norm t=%ld h=%ld%s", rows, hidden, with_residual ? " residual" : ""), [=](Lab &lab, Random &) {
    Mem x = wide(lab, {rows, hidden}), weight = activations(lab, {hidden}), out = activations(lab, {rows, hidden});
    Mem residual = with_residual ? wide(lab, {rows, hidden}) : nullptr;
    return problem_of((with_residual ? 3.0 : 1.0) * x->bytes() + out->bytes(), [=, &lab] {
      return mla_rms_norm(lab.context, &x->tensor, residual ? &residual->tensor : nullptr, &weight->tensor, 1e-6f,
                          &out->tensor);
    });
  });
}

Case silu_bench(int64_t rows) {
  return timed(text("silu_mul t=%ld i=%ld", rows, kExpertWidth), [=](Lab &lab, Random &) {
    Mem x = activations(lab, {rows, 2 * kExpertWidth}), out = activations(lab, {rows, kExpertWidth});
    return problem_of(1.0 * x->bytes() + out->bytes(),
                      [=, &lab] { return mla_silu_mul(lab.context, &x->tensor, &out->tensor); });
  });
}

Case combine_bench(int64_t tokens) {
  return timed(text("moe_combine t=%ld top_k=%ld h=%ld in place", tokens, kTopK, kHidden), [=](Lab &lab, Random &random) {
    Mem y = activations(lab, {tokens * kTopK, kHidden}), out = wide(lab, {tokens, kHidden});
    Mem weights = memory(lab, MLA_F32, {tokens, kTopK}), places = memory(lab, MLA_I32, {tokens, kTopK});
    weights->random(1);
    std::vector<int32_t> order(tokens * kTopK);
    for (size_t i = 0; i < order.size(); i++) {
      order[i] = static_cast<int32_t>(i);
      std::swap(order[i], order[random.integer(0, static_cast<int64_t>(i))]);
    }
    places->set(order);
    return problem_of(1.0 * y->bytes() + 2.0 * out->bytes(), [=, &lab] {
      return mla_moe_combine(lab.context, &y->tensor, &places->tensor, &weights->tensor, &out->tensor, &out->tensor);
    });
  });
}

Case rope_bench(int64_t tokens, int64_t heads) {
  return timed(text("rope_and_append_kv t=%ld heads=%ld", tokens, heads), [=](Lab &lab, Random &random) {
    const int64_t blocks = (tokens + MLA_BLOCK_TOKENS - 1) / MLA_BLOCK_TOKENS;
    Mem q = activations(lab, {tokens, heads, 64}), out = activations(lab, {tokens, heads, 64});
    Mem latent = activations(lab, {tokens, 512}), k = wide(lab, {tokens, 64});
    Mem cos_sin = memory(lab, MLA_F32, {4096, 64}), cache = activations(lab, {blocks, MLA_BLOCK_TOKENS, 576});
    Mem positions = memory(lab, MLA_I32, {tokens}), slots = memory(lab, MLA_I64, {tokens});
    cos_sin->random(1);
    positions->set(random_ids(random, tokens, 4096));
    std::vector<int64_t> at(tokens);
    for (int64_t t = 0; t < tokens; t++) {
      at[t] = t;
    }
    slots->set(at);
    auto args = std::make_shared<mla_rope_args>(mla_rope_args{q->tensor, out->tensor, latent->tensor, k->tensor,
                                                              cos_sin->tensor, positions->tensor, slots->tensor,
                                                              cache->tensor, 1});
    Problem problem = problem_of(2.0 * (q->bytes() + latent->bytes() + k->bytes()) + 256.0 * tokens,
                                 [=, &lab] { return mla_rope_and_append_kv(lab.context, args.get()); });
    problem.owned = {q, out, latent, k, cos_sin, cache, positions, slots};
    return problem;
  });
}

Case route_bench(int64_t tokens) {
  return timed(text("moe_route t=%ld e=%ld", tokens, kExperts), [=](Lab &lab, Random &) {
    Mem logits = memory(lab, MLA_F32, {tokens, kExperts}), weights = memory(lab, MLA_F32, {tokens, kTopK}),
        experts = memory(lab, MLA_I32, {tokens, kTopK});
    logits->random(2);
    auto args = std::make_shared<mla_route_args>();
    *args = {logits->tensor, weights->tensor, experts->tensor, nullptr, MLA_SOFTMAX, 1, 1, MLA_GROUP_MAX, 0, 1.0f};
    Problem problem = problem_of(1.0 * logits->bytes() + 2.0 * weights->bytes(),
                                 [=, &lab] { return mla_moe_route(lab.context, args.get()); });
    problem.owned = {logits, weights, experts};
    return problem;
  });
}

Case sort_bench(int64_t tokens, int64_t top_k, int64_t experts) {
  return timed(text("moe_sort t=%ld top_k=%ld e=%ld", tokens, top_k, experts), [=](Lab &lab, Random &random) {
    Mem chosen = memory(lab, MLA_I32, {tokens, top_k}), rows = memory(lab, MLA_I32, {tokens * top_k}),
        places = memory(lab, MLA_I32, {tokens, top_k}), offsets = memory(lab, MLA_I32, {experts + 1});
    chosen->set(random_ids(random, tokens * top_k, experts));
    return problem_of(3.0 * chosen->bytes(), [=, &lab] {
      return mla_moe_sort(lab.context, &chosen->tensor, &rows->tensor, &places->tensor, &offsets->tensor);
    });
  });
}

Case embedding_bench(int64_t tokens) {
  return timed(text("embedding t=%ld h=%ld", tokens, kHidden), [=](Lab &lab, Random &random) {
    Mem table = activations(lab, {kVocabulary, kHidden}), ids = memory(lab, MLA_I32, {tokens}),
        out = wide(lab, {tokens, kHidden});
    ids->set(random_ids(random, tokens, kVocabulary));
    return problem_of(1.5 * out->bytes(),
                      [=, &lab] { return mla_embedding(lab.context, &table->tensor, &ids->tensor, &out->tensor); });
  });
}

Case convert_bench() {
  return timed("convert f8 [18432, 7168] by blocks of 128->bf16", [=](Lab &lab, Random &) {
    Mem x = memory(lab, MLA_F8_E4M3, {18432, 7168}), scale = memory(lab, MLA_F32, {144, 56}),
        out = activations(lab, {18432, 7168});
    scale->random(1e-4f);
    require_ok(mla_copy_from_host(lab.context, x->tensor.data, std::vector<uint8_t>(x->bytes(), 0x35).data(), x->bytes()));
    return problem_of(1.0 * x->bytes() + out->bytes(), [=, &lab] {
      return mla_convert(lab.context, &x->tensor, &scale->tensor, 128, &out->tensor);
    });
  });
}

Case fill_bench() {
  return timed("fill_normal [65536, 2048] bf16", [=](Lab &lab, Random &) {
    Mem out = memory(lab, MLA_BF16, {65536, 2048});
    return problem_of(1.0 * out->bytes(), [=, &lab] { return mla_fill_normal(lab.context, &out->tensor, 1, 3); });
  });
}

Case sample_bench(int64_t batch, const char *name, float temperature, int32_t top_k, float top_p) {
  return timed(text("sample b=%ld v=%ld %s", batch, kVocabulary, name), [=](Lab &lab, Random &) {
    Mem logits = memory(lab, MLA_F32, {batch, kVocabulary}), temperatures = memory(lab, MLA_F32, {batch}),
        top_ks = memory(lab, MLA_I32, {batch}), top_ps = memory(lab, MLA_F32, {batch}),
        seeds = memory(lab, MLA_I64, {batch}), positions = memory(lab, MLA_I32, {batch}),
        ids = memory(lab, MLA_I32, {batch});
    logits->random(2);
    temperatures->set(std::vector<float>(batch, temperature));
    top_ks->set(std::vector<int32_t>(batch, top_k));
    top_ps->set(std::vector<float>(batch, top_p));
    seeds->set(std::vector<int64_t>(batch, 1));
    positions->set(std::vector<int32_t>(batch, 1));
    auto args = std::make_shared<mla_sample_args>(mla_sample_args{logits->tensor, temperatures->tensor, top_ks->tensor,
                                                                  top_ps->tensor, seeds->tensor, positions->tensor,
                                                                  ids->tensor});
    Problem problem = problem_of(logits->bytes(), [=, &lab] { return mla_sample(lab.context, args.get()); });
    problem.owned = {logits, temperatures, top_ks, top_ps, seeds, positions, ids};
    return problem;
  });
}

Case log_softmax_bench(int64_t batch, int64_t top) {
  return timed(text("log_softmax b=%ld v=%ld top=%ld", batch, kVocabulary, top), [=](Lab &lab, Random &random) {
    Mem logits = memory(lab, MLA_F32, {batch, kVocabulary}), ids = memory(lab, MLA_I32, {batch}),
        chosen = memory(lab, MLA_F32, {batch}), top_ids = memory(lab, MLA_I32, {batch, top}),
        best = memory(lab, MLA_F32, {batch, top});
    logits->random(2);
    ids->set(random_ids(random, batch, kVocabulary));
    return problem_of(logits->bytes(), [=, &lab] {
      return mla_log_softmax_top_k(lab.context, &logits->tensor, &ids->tensor, &chosen->tensor, &top_ids->tensor,
                                   &best->tensor);
    });
  });
}

Case upload_bench() {
  return timed("copy_from_host 512 MiB of plain memory", [=](Lab &lab, Random &) {
    auto from = std::make_shared<std::vector<uint8_t>>(int64_t{512} << 20, 1);
    Mem to = memory(lab, MLA_BF16, {int64_t{256} << 20});
    Problem problem = problem_of(to->bytes(), [=, &lab] {
      return mla_copy_from_host(lab.context, to->tensor.data, from->data(), to->bytes());
    });
    problem.by_wall_clock = true;
    return problem;
  });
}

}  // namespace

std::vector<Case> cuda_benchmarks() {
  std::vector<Case> cases = {norm_case(512, 512, false), route_bench(512), route_bench(16384), sort_bench(1, 6, 64),
                             sort_bench(512, 6, 64), sort_bench(8192, 8, 384), embedding_bench(512),
                             embedding_bench(16384), convert_bench(), fill_bench(), upload_bench()};
  for (const int64_t tokens : {512, 16384}) {
    cases.push_back(norm_case(tokens, kHidden, true));
    cases.push_back(silu_bench(tokens * kTopK));
    cases.push_back(combine_bench(tokens));
    cases.push_back(rope_bench(tokens, 16));
  }
  cases.push_back(norm_case(16384, 7168, true));
  for (const int64_t batch : {1, 512, 1024}) {
    cases.push_back(sample_bench(batch, "greedy", 0, 0, 1));
    cases.push_back(sample_bench(batch, "temperature", 0.8f, 0, 1));
    cases.push_back(sample_bench(batch, "top_p", 0.8f, 0, 0.95f));
    cases.push_back(sample_bench(batch, "top_k, top_p", 0.8f, 50, 0.95f));
    cases.push_back(log_softmax_bench(batch, 5));
  }
  cases.push_back(log_softmax_bench(512, 20));
  return cases;
}

}  // namespace mla::test
