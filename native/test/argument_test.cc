// Each wrong operand is refused, with words that name it. For every operation: a call that works, then the same with
// one operand spoilt at a time.
#include "harness.h"

#include <cmath>
#include <cstring>
#include <map>

namespace mla::test {
namespace {

// Named operands that a call reads by name, so that any of them can be replaced.
class Operands {
 public:
  explicit Operands(Lab &lab) : lab_(lab) {}

  Operands &add(const char *name, int32_t dtype, Shape shape, double value = 0) {
    auto operand = std::make_unique<Operand>(lab_, dtype, shape);
    operand->set(std::vector<double>(operand->count(), value));
    tensors_[name] = operand->tensor;
    order_.push_back(name);
    owned_.push_back(std::move(operand));
    return *this;
  }
  mla_tensor *operator[](const char *name) { return &tensors_.at(name); }
  const std::vector<std::string> &names() const { return order_; }

 private:
  Lab &lab_;
  std::map<std::string, mla_tensor> tensors_;
  std::vector<std::string> order_;
  std::vector<std::unique_ptr<Operand>> owned_;
};

using Call = std::function<mla_status(Operands &)>;

// Spoils dtype, rank, shape, stride, address and alignment of each operand in turn.
void spoil_each(Operands &operands, const Call &call) {
  require_ok(call(operands));
  for (const std::string &name : operands.names()) {
    mla_tensor &t = *operands[name.c_str()];
    const mla_tensor good = t;
    const auto refuse = [&](const char *what) {
      const mla_status status = call(operands);
      t = good;
      try {
        require_refused(status, name);
      } catch (const Failure &failure) {
        fail("%s with a wrong %s: %s", name.c_str(), what, failure.words.c_str());
      }
    };
    t.dtype = t.dtype == MLA_I32 ? MLA_I64 : MLA_I32;
    refuse("dtype");
    t.dtype = 77;
    refuse("dtype");
    t.dtype = -1;
    refuse("dtype");
    t.rank = t.rank == 1 ? 2 : 1;
    refuse("rank");
    t.rank = 0;
    refuse("rank");
    t.rank = 5;
    refuse("rank");
    t.shape[0] = -1;
    refuse("shape");
    t.data = nullptr;
    refuse("address");
    t.data = static_cast<char *>(t.data) + 1;
    refuse("alignment");
    if (t.shape[t.rank - 1] > 1) {
      t.stride[t.rank - 1] = 2;
      if (name != "w of batched_gemm") {
        refuse("inner stride");
      }
      t = good;
    }
    if (t.rank > 1 && t.shape[0] > 1) {
      t.stride[0] = -t.stride[0];
      refuse("negative stride");
    }
  }
}

// A dimension that must agree with another's is made larger by one.
void grow(Operands &operands, const Call &call, const char *name, int dimension, const char *blamed = nullptr) {
  mla_tensor &t = *operands[name];
  const mla_tensor good = t;
  t.shape[dimension]++;
  const mla_status status = call(operands);
  t = good;
  require_refused(status, blamed == nullptr ? name : blamed);
}

void dense(Lab &lab, Random &) {
  mla_context *ctx = lab.context;
  Operands gemm(lab);
  gemm.add("x", MLA_F32, {3, 4}).add("w", MLA_BF16, {5, 4}).add("bias", MLA_BF16, {5}).add("out", MLA_F32, {3, 5});
  const Call call_gemm = [=](Operands &o) { return mla_gemm(ctx, o["x"], o["w"], o["bias"], o["out"]); };
  spoil_each(gemm, call_gemm);
  grow(gemm, call_gemm, "x", 1, "w is BF16 [5, 4]; it must be F32 or BF16 or BF16_PANELS or F32_PANELS [*, 5]");
  grow(gemm, call_gemm, "bias", 0);
  grow(gemm, call_gemm, "out", 0, "out is F32 [4, 5]; it must be F32 [3, 5]");
  require_refused(mla_gemm(ctx, nullptr, gemm["w"], nullptr, gemm["out"]), "x is NULL");
  require_refused(mla_gemm(nullptr, gemm["x"], gemm["w"], nullptr, gemm["out"]), "context is NULL");
  gemm["out"]->dtype = MLA_BF16;
  require_refused(call_gemm(gemm), "out is BF16");

  Operands batched(lab);
  batched.add("x", MLA_F32, {2, 3, 4}).add("w of batched_gemm", MLA_BF16, {2, 5, 4}).add("out", MLA_F32, {2, 3, 5});
  mla_tensor *w = batched["w of batched_gemm"];
  const Call call_batched = [=](Operands &o) { return mla_batched_gemm(ctx, o["x"], w, o["out"]); };
  require_ok(call_batched(batched));
  grow(batched, call_batched, "x", 2, "w is");
  grow(batched, call_batched, "out", 2);
  w->stride[2] = 2;
  require_refused(call_batched(batched), "N or K must be contiguous");

  Operands norm(lab);
  norm.add("x", MLA_F32, {3, 4}).add("residual", MLA_F32, {3, 4});
  norm.add("weight", MLA_BF16, {4}).add("out", MLA_F32, {3, 4});
  const Call call_norm = [=](Operands &o) {
    return mla_rms_norm(ctx, o["x"], o["residual"], o["weight"], 1e-6f, o["out"]);
  };
  spoil_each(norm, call_norm);
  grow(norm, call_norm, "residual", 0);
  grow(norm, call_norm, "weight", 0);
  norm["residual"]->dtype = MLA_BF16;
  require_refused(call_norm(norm), "residual is BF16 [3, 4]; it must be F32 [3, 4]");

  Operands rows(lab);
  rows.add("x", MLA_F32, {3, 4}).add("out", MLA_F32, {3, 4});
  spoil_each(rows, [=](Operands &o) { return mla_convert(ctx, o["x"], nullptr, 0, o["out"]); });
  Operands fill(lab);
  fill.add("out", MLA_BF16, {3, 4});
  spoil_each(fill, [=](Operands &o) { return mla_fill_normal(ctx, o["out"], 1, 7); });
  fill["out"]->stride[0] = 5;
  require_refused(mla_fill_normal(ctx, fill["out"], 1, 7), "packed it would be 4");
  fill["out"]->stride[0] = 4;
  require_refused(mla_fill_normal(ctx, fill["out"], -1, 7), "std is -1");
  require_refused(mla_fill_normal(ctx, fill["out"], NAN, 7), "std is nan");
  Operands silu(lab);
  silu.add("gate_up", MLA_F32, {3, 8}).add("out", MLA_F32, {3, 4});
  const Call call_silu = [=](Operands &o) { return mla_silu_mul(ctx, o["gate_up"], o["out"]); };
  spoil_each(silu, call_silu);
  grow(silu, call_silu, "gate_up", 1);

  Operands scaled(lab);
  scaled.add("x", MLA_F32, {3, 4}).add("scale", MLA_F32, {2, 2}, 1).add("out", MLA_F32, {3, 4});
  const auto call_scaled = [=](int32_t block) {
    return [=](Operands &o) { return mla_convert(ctx, o["x"], o["scale"], block, o["out"]); };
  };
  spoil_each(scaled, call_scaled(2));
  require_refused(call_scaled(0)(scaled), "block is 0");
  require_refused(call_scaled(1)(scaled), "scale is F32 [2, 2]; it must be F32 [3, 4]");

  Operands gather(lab);
  gather.add("table", MLA_BF16, {7, 4}).add("ids", MLA_I32, {3}, 6).add("out", MLA_F32, {3, 4});
  const Call call_gather = [=](Operands &o) { return mla_embedding(ctx, o["table"], o["ids"], o["out"]); };
  spoil_each(gather, call_gather);
  gather["table"]->shape[0] = 6;
  require_refused(call_gather(gather), "ids[0] is 6; it must be in [0, 5]");
}

void attention(Lab &lab, Random &) {
  mla_context *ctx = lab.context;
  Operands rope(lab);
  rope.add("q_rope", MLA_F32, {3, 2, 4})
      .add("q_out", MLA_F32, {3, 2, 4})
      .add("latent", MLA_F32, {3, 6})
      .add("k_rope", MLA_F32, {3, 4})
      .add("cos_sin", MLA_F32, {10, 4})
      .add("positions", MLA_I32, {3}, 9)
      .add("slots", MLA_I64, {3}, 127)
      .add("cache", MLA_F32, {2, 64, 10});
  const Call call_rope = [=](Operands &o) {
    const mla_rope_args args = {*o["q_rope"],  *o["q_out"],     *o["latent"], *o["k_rope"],
                                *o["cos_sin"], *o["positions"], *o["slots"],  *o["cache"], 1};
    return mla_rope_and_append_kv(ctx, &args);
  };
  spoil_each(rope, call_rope);
  grow(rope, call_rope, "latent", 1, "cache");
  grow(rope, call_rope, "q_out", 1);
  require_refused(mla_rope_and_append_kv(ctx, nullptr), "args is NULL");
  rope["cos_sin"]->shape[0] = 9;
  require_refused(call_rope(rope), "positions[0] is 9; it must be in [0, 8]");
  rope["cos_sin"]->shape[0] = 10;
  rope["cache"]->shape[0] = 1;
  require_refused(call_rope(rope), "slots[0] is 127; it must be in [0, 63]");

  Operands decode(lab);
  decode.add("q", MLA_F32, {2, 1, 3, 10})
      .add("cache", MLA_F32, {2, 64, 10})
      .add("block_table", MLA_I32, {2, 2}, 1)
      .add("seq_lens", MLA_I32, {2}, 65)
      .add("tiles", MLA_I32, {1, 8})
      .add("splits", MLA_I32, {3})
      .add("workspace", MLA_F32, {64})
      .add("out", MLA_F32, {2, 1, 3, 8})
      .add("lse", MLA_F32, {2, 3, 1});
  mla_plan_args plan = {2, 1, 3, 65, 0};
  const Call call_decode = [&plan, ctx](Operands &o) {
    const mla_decode_args args = {*o["q"],      *o["cache"],     *o["block_table"], *o["seq_lens"], *o["tiles"],
                                  *o["splits"], *o["workspace"], *o["out"],         *o["lse"],      plan,
                                  0.1f};
    return mla_decode(ctx, &args);
  };
  spoil_each(decode, call_decode);
  grow(decode, call_decode, "q", 3, "cache");
  grow(decode, call_decode, "lse", 1);
  decode["block_table"]->shape[1] = 1;
  require_refused(call_decode(decode), "seq_lens[0] is 65; it must be in [0, 64]");
  decode["block_table"]->shape[1] = 2;
  decode["cache"]->shape[0] = 1;
  require_refused(call_decode(decode), "block_table[0, 0] is 1; the cache has blocks [0, 1)");
  plan.heads = 4;
  require_refused(call_decode(decode), "q is F32 [2, 1, 3, 10]; it must be F32 or BF16 [2, 1, 4, *]");
  plan.heads = 0;
  require_refused(call_decode(decode), "heads is 0");
  int64_t size = 0;
  require_refused(mla_plan_size(ctx, &plan, &size, &size), "heads is 0");
  require_refused(mla_plan_size(ctx, nullptr, &size, &size), "args is NULL");

  Operands prefill(lab);
  prefill.add("q", MLA_F32, {2, 3, 10})
      .add("query_start", MLA_I32, {2})
      .add("cache", MLA_F32, {2, 64, 10})
      .add("block_table", MLA_I32, {1, 2}, 1)
      .add("seq_lens", MLA_I32, {1}, 65)
      .add("out", MLA_F32, {2, 3, 8});
  const int32_t starts[] = {0, 2};
  require_ok(mla_copy_from_host(ctx, prefill["query_start"]->data, starts, sizeof starts));
  const Call call_prefill = [ctx](Operands &o) {
    const mla_prefill_args args = {*o["q"],           *o["query_start"], *o["cache"],
                                   *o["block_table"], *o["seq_lens"],    *o["out"], 0.1f};
    return mla_prefill(ctx, &args);
  };
  spoil_each(prefill, call_prefill);
  grow(prefill, call_prefill, "seq_lens", 0, "query_start");
  const int32_t wrong[][2] = {{1, 2}, {0, 1}, {0, 3}, {2, 0}};
  for (const auto &pair : wrong) {
    require_ok(mla_copy_from_host(ctx, prefill["query_start"]->data, pair, sizeof pair));
    require_refused(call_prefill(prefill), "query_start[");
  }
}

void moe(Lab &lab, Random &) {
  mla_context *ctx = lab.context;
  Operands route(lab);
  route.add("logits", MLA_F32, {3, 8})
      .add("weights", MLA_F32, {3, 2})
      .add("experts", MLA_I32, {3, 2})
      .add("bias", MLA_F32, {8});
  mla_route_args settings{};
  settings.groups = 4;
  settings.top_groups = 2;
  settings.group_score = MLA_GROUP_TOP2_SUM;
  settings.scale = 1;
  const auto call_with = [ctx](mla_route_args changed) {
    return [=](Operands &o) {
      mla_route_args args = changed;
      args.logits = *o["logits"];
      args.weights = *o["weights"];
      args.experts = *o["experts"];
      args.bias = o["bias"];
      return mla_moe_route(ctx, &args);
    };
  };
  spoil_each(route, call_with(settings));
  grow(route, call_with(settings), "bias", 0);
  grow(route, call_with(settings), "experts", 1);
  const auto refuse = [&](int32_t mla_route_args::*field, int32_t value, const char *words) {
    mla_route_args changed = settings;
    changed.*field = value;
    require_refused(call_with(changed)(route), words);
  };
  refuse(&mla_route_args::groups, 3, "3 groups do not divide");
  refuse(&mla_route_args::groups, 0, "groups is 0");
  refuse(&mla_route_args::groups, 8, "a group's size");
  refuse(&mla_route_args::top_groups, 5, "top_groups is 5");
  refuse(&mla_route_args::scoring, 2, "scoring is 2");
  refuse(&mla_route_args::group_score, -1, "group_score is -1");
  route["weights"]->shape[1] = route["experts"]->shape[1] = 5;
  require_refused(call_with(settings)(route), "top_k, is 5; it must be in [1, 4]");

  Operands sort(lab);
  sort.add("experts", MLA_I32, {3, 2}, 4).add("rows", MLA_I32, {6});
  sort.add("places", MLA_I32, {3, 2}).add("offsets", MLA_I32, {6});
  const Call call_sort = [=](Operands &o) {
    return mla_moe_sort(ctx, o["experts"], o["rows"], o["places"], o["offsets"]);
  };
  spoil_each(sort, call_sort);
  grow(sort, call_sort, "rows", 0);
  if (!lab.cuda) {  // which trusts what lies in its memory
    sort["offsets"]->shape[0] = 5;
    require_refused(call_sort(sort), "experts[0] is 4; it must be in [0, 3]");
  }

  Operands grouped(lab);
  grouped.add("x", MLA_F32, {3, 4})
      .add("rows", MLA_I32, {6}, 2)
      .add("offsets", MLA_I32, {3}, 6)
      .add("weights", MLA_BF16, {5, 4})
      .add("out", MLA_F32, {6, 5});
  const int32_t good_offsets[] = {0, 6, 6};
  require_ok(mla_copy_from_host(ctx, grouped["offsets"]->data, good_offsets, sizeof good_offsets));
  const Call call_grouped = [=](Operands &o) {
    const mla_tensor weights[] = {*o["weights"], *o["weights"]};
    return mla_moe_gemm(ctx, o["x"], o["rows"], o["offsets"], weights, 2, MLA_IDENTITY, o["out"]);
  };
  spoil_each(grouped, call_grouped);
  grow(grouped, call_grouped, "x", 1, "weights[0]");
  require_refused(mla_moe_gemm(ctx, grouped["x"], nullptr, grouped["offsets"], grouped["weights"], 2,
                               MLA_IDENTITY, grouped["out"]),
                  "out is F32 [6, 5]");
  mla_tensor mixed[] = {*grouped["weights"], *grouped["weights"]};
  mixed[1].shape[0] = 4;
  require_refused(mla_moe_gemm(ctx, grouped["x"], grouped["rows"], grouped["offsets"], mixed, 2, MLA_IDENTITY,
                               grouped["out"]),
                  "weights[1]");
  require_refused(mla_moe_gemm(ctx, grouped["x"], grouped["rows"], grouped["offsets"], nullptr, 2, MLA_IDENTITY,
                               grouped["out"]),
                  "weights is NULL");
  require_refused(mla_moe_gemm(ctx, grouped["x"], grouped["rows"], grouped["offsets"], mixed, 2, MLA_SILU_MUL,
                               grouped["out"]),
                  "weights[0] is BF16 [5, 4]; it must be");
  require_refused(mla_moe_gemm(ctx, grouped["x"], grouped["rows"], grouped["offsets"], mixed, 2,
                               static_cast<mla_activation>(2), grouped["out"]),
                  "activation is 2; it must be in [0, 1]");
  const int32_t bad_offsets[] = {0, 6, 5};
  require_ok(mla_copy_from_host(ctx, grouped["offsets"]->data, bad_offsets, sizeof bad_offsets));
  require_refused(call_grouped(grouped), "offsets[2] is 5; it must be in [6, 6]");
  require_ok(mla_copy_from_host(ctx, grouped["offsets"]->data, good_offsets, sizeof good_offsets));
  grouped["x"]->shape[0] = 2;
  require_refused(call_grouped(grouped), "rows[0] is 2; it must be in [0, 1]");

  Operands combine(lab);
  combine.add("y", MLA_F32, {6, 4}).add("places", MLA_I32, {3, 2}, 5).add("weights", MLA_F32, {3, 2});
  combine.add("base", MLA_F32, {3, 4}).add("out", MLA_F32, {3, 4});
  const Call call_combine = [=](Operands &o) {
    return mla_moe_combine(ctx, o["y"], o["places"], o["weights"], o["base"], o["out"]);
  };
  spoil_each(combine, call_combine);
  grow(combine, call_combine, "places", 1);
}

void tokens(Lab &lab, Random &) {
  mla_context *ctx = lab.context;
  Operands sample(lab);
  sample.add("logits", MLA_F32, {3, 9})
      .add("temperature", MLA_F32, {3}, 1)
      .add("top_k", MLA_I32, {3})
      .add("top_p", MLA_F32, {3}, 1)
      .add("seed", MLA_I64, {3})
      .add("positions", MLA_I32, {3})
      .add("ids", MLA_I32, {3});
  const Call call_sample = [=](Operands &o) {
    const mla_sample_args args = {*o["logits"], *o["temperature"], *o["top_k"], *o["top_p"],
                                  *o["seed"],   *o["positions"],   *o["ids"]};
    return mla_sample(ctx, &args);
  };
  spoil_each(sample, call_sample);
  grow(sample, call_sample, "top_p", 0);
  const auto refuse_value = [&](const char *name, auto value, const char *words) {
    char kept[4];
    require_ok(mla_copy_to_host(ctx, kept, sample[name]->data, sizeof kept));
    require_ok(mla_copy_from_host(ctx, sample[name]->data, &value, sizeof value));
    require_refused(call_sample(sample), words);
    require_ok(mla_copy_from_host(ctx, sample[name]->data, kept, sizeof kept));
  };
  if (!lab.cuda) {
    refuse_value("temperature", -1.0f, "row 0: temperature -1");
    refuse_value("temperature", NAN, "temperature nan");
    refuse_value("top_p", 1.5f, "top_p 1.5");
    refuse_value("top_k", int32_t{-1}, "top_k[0] is -1");
  }

  Operands logs(lab);
  logs.add("logits", MLA_F32, {3, 9})
      .add("ids", MLA_I32, {3}, 8)
      .add("chosen", MLA_F32, {3})
      .add("top_ids", MLA_I32, {3, 2})
      .add("top", MLA_F32, {3, 2});
  const Call call_logs = [=](Operands &o) {
    return mla_log_softmax_top_k(ctx, o["logits"], o["ids"], o["chosen"], o["top_ids"], o["top"]);
  };
  spoil_each(logs, call_logs);
  grow(logs, call_logs, "top_ids", 1);
  require_refused(mla_log_softmax_top_k(ctx, logs["logits"], logs["ids"], logs["chosen"], nullptr, logs["top"]),
                  "top_ids and top");
  if (!lab.cuda) {
    logs["logits"]->shape[1] = 8;
    require_refused(call_logs(logs), "ids[0] is 8; it must be in [-1, 7]");
  }
}

}  // namespace

std::vector<Case> argument_cases() {
  return {check_case("arguments dense", dense), check_case("arguments attention", attention),
          check_case("arguments moe", moe), check_case("arguments tokens", tokens)};
}

}  // namespace mla::test
