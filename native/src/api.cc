// The operations of mla.h: checks every argument, once and for all backends, and hands it on.
#include "check.h"
#include "context.h"

using namespace mla;

// ---- dense operations -----------------------------------------------------------------------------------------------

mla_status mla_convert(mla_context *ctx, const mla_tensor *x, const mla_tensor *scale, int32_t block, mla_tensor *out) {
  return guarded(__func__, ctx, [&] {
    Backend &backend = backend_of(ctx);
    expect("x", x, kFloat, {kAny, kAny});
    expect("out", out, kAct, {x->shape[0], x->shape[1]});
    if (scale != nullptr) {
      expect_range("block", block, 1, 1 << 20);
      expect("scale", scale, only(MLA_F32), {(x->shape[0] + block - 1) / block, (x->shape[1] + block - 1) / block});
    }
    require_ok(backend, backend.convert(*x, scale, block, *out));
  });
}

mla_status mla_fill_normal(mla_context *ctx, mla_tensor *out, float std, int64_t seed) {
  return guarded(__func__, ctx, [&] {
    Backend &backend = backend_of(ctx);
    expect_packed("out", out, kAct);
    if (!(std >= 0 && std <= 1e30f)) {
      fail(MLA_INVALID_ARGUMENT, "std is %g; it must be finite and not negative", static_cast<double>(std));
    }
    require_ok(backend, backend.fill_normal(*out, std, seed));
  });
}

mla_status mla_embedding(mla_context *ctx, const mla_tensor *table, const mla_tensor *ids, mla_tensor *out) {
  return guarded(__func__, ctx, [&] {
    Backend &backend = backend_of(ctx);
    expect("table", table, kWeight, {kAny, kAny});
    expect("ids", ids, only(MLA_I32), {kAny});
    expect("out", out, kAct, {ids->shape[0], table->shape[1]});
    require_ok(backend, backend.embedding(*table, *ids, *out));
  });
}

mla_status mla_rms_norm(mla_context *ctx, const mla_tensor *x, mla_tensor *residual, const mla_tensor *weight,
                        float eps, mla_tensor *out) {
  return guarded(__func__, ctx, [&] {
    Backend &backend = backend_of(ctx);
    expect("out", out, kAct, {kAny, kAny});
    const unsigned wide = only(out->dtype) | only(MLA_F32);
    expect("x", x, wide, {out->shape[0], out->shape[1]});
    if (residual != nullptr) {
      expect("residual", residual, wide, {out->shape[0], out->shape[1]});
    }
    expect("weight", weight, kWeight, {out->shape[1]});
    require_ok(backend, backend.rms_norm(*x, residual, *weight, eps, *out));
  });
}

// Of a matrix [.., N, K], one of the two must be contiguous.
static void expect_contiguous_side(const mla_tensor &w) {
  const int k = w.rank - 1;
  if (w.stride[k - 1] != 1 && w.stride[k] != 1 && w.shape[k - 1] > 1 && w.shape[k] > 1) {
    fail(MLA_INVALID_ARGUMENT, "w, %s, has strides %lld and %lld; N or K must be contiguous (1)", describe(w).c_str(),
         static_cast<long long>(w.stride[k - 1]), static_cast<long long>(w.stride[k]));
  }
}

static const mla_tensor &expect_unpacked(const mla_tensor *w) {
  if (w != nullptr && w->rank == 3) {
    expect("w", w, kWeight, {kAny, kAny, kAny}, Inner::kStrided);
  } else {
    expect("w", w, kWeight, {kAny, kAny}, Inner::kStrided);
  }
  expect_contiguous_side(*w);
  return *w;
}

mla_status mla_packed_bytes(mla_context *ctx, const mla_tensor *w, int64_t *bytes) {
  return guarded(__func__, ctx, [&] {
    Backend &backend = backend_of(ctx);
    if (bytes == nullptr) {
      fail(MLA_INVALID_ARGUMENT, "bytes must not be NULL");
    }
    *bytes = backend.packed_bytes(expect_unpacked(w));
  });
}

mla_status mla_pack(mla_context *ctx, const mla_tensor *w, mla_tensor *out) {
  return guarded(__func__, ctx, [&] {
    Backend &backend = backend_of(ctx);
    const unsigned panels = only(expect_unpacked(w).dtype == MLA_BF16 ? MLA_BF16_PANELS : MLA_F32_PANELS);
    if (w->rank == 3) {
      expect("out", out, panels, {w->shape[0], w->shape[1], w->shape[2]});
    } else {
      expect("out", out, panels, {w->shape[0], w->shape[1]});
    }
    if (element_count(*w) > 0 && backend.packed_bytes(*w) == 0) {
      fail(MLA_UNSUPPORTED, "this backend reads weights as they are");
    }
    require_ok(backend, backend.pack(*w, *out));
  });
}

mla_status mla_gemm(mla_context *ctx, const mla_tensor *x, const mla_tensor *w, const mla_tensor *bias,
                    mla_tensor *out) {
  return guarded(__func__, ctx, [&] {
    Backend &backend = backend_of(ctx);
    expect("x", x, kAct, {kAny, kAny});
    expect("w", w, kMatrix, {kAny, x->shape[1]});
    if (bias != nullptr) {
      expect("bias", bias, kWeight, {w->shape[0]});
    }
    expect("out", out, only(x->dtype) | only(MLA_F32), {x->shape[0], w->shape[0]});
    require_ok(backend, backend.gemm(*x, *w, bias, *out));
  });
}

mla_status mla_batched_gemm(mla_context *ctx, const mla_tensor *x, const mla_tensor *w, mla_tensor *out) {
  return guarded(__func__, ctx, [&] {
    Backend &backend = backend_of(ctx);
    expect("x", x, kAct, {kAny, kAny, kAny});
    expect("w", w, kMatrix, {x->shape[0], kAny, x->shape[2]}, Inner::kStrided);
    expect_contiguous_side(*w);
    expect("out", out, only(x->dtype), {x->shape[0], x->shape[1], w->shape[1]});
    require_ok(backend, backend.batched_gemm(*x, *w, *out));
  });
}

mla_status mla_silu_mul(mla_context *ctx, const mla_tensor *gate_up, mla_tensor *out) {
  return guarded(__func__, ctx, [&] {
    Backend &backend = backend_of(ctx);
    expect("out", out, kAct, {kAny, kAny});
    expect("gate_up", gate_up, only(out->dtype), {out->shape[0], 2 * out->shape[1]});
    require_ok(backend, backend.silu_mul(*gate_up, *out));
  });
}

// ---- attention ------------------------------------------------------------------------------------------------------

mla_status mla_rope_and_append_kv(mla_context *ctx, const mla_rope_args *args) {
  return guarded(__func__, ctx, [&] {
    Backend &backend = backend_of(ctx);
    const mla_rope_args &a = expect_args(args);
    expect("q_rope", &a.q_rope, kAct, {kAny, kAny, kAny});
    const int64_t tokens = a.q_rope.shape[0];
    const int64_t rope = a.q_rope.shape[2];
    const unsigned act = only(a.q_rope.dtype);
    expect("q_out", &a.q_out, act, {tokens, a.q_rope.shape[1], rope});
    if (rope % 2 != 0) {
      fail(MLA_INVALID_ARGUMENT, "q_rope is %s; its last dimension must be even", describe(a.q_rope).c_str());
    }
    expect("latent", &a.latent, act, {tokens, kAny});
    expect("k_rope", &a.k_rope, act | only(MLA_F32), {tokens, rope});
    expect("cos_sin", &a.cos_sin, only(MLA_F32), {kAny, rope});
    expect("positions", &a.positions, only(MLA_I32), {tokens});
    expect("slots", &a.slots, only(MLA_I64), {tokens});
    expect("cache", &a.cache, act, {kAny, MLA_BLOCK_TOKENS, a.latent.shape[1] + rope});
    require_ok(backend, backend.rope_and_append_kv(a));
  });
}

static const mla_plan_args &expect_plan(const mla_plan_args *args) {
  const mla_plan_args &a = expect_args(args);
  expect_range("batch", a.batch, 0, INT32_MAX);
  expect_range("s_q", a.s_q, 1, INT32_MAX);
  expect_range("heads", a.heads, 1, INT32_MAX);
  expect_range("max_len", a.max_len, 0, INT32_MAX);
  return a;
}

mla_status mla_plan_size(mla_context *ctx, const mla_plan_args *args, int64_t *parts, int64_t *workspace_bytes) {
  return guarded(__func__, ctx, [&] {
    Backend &backend = backend_of(ctx);
    expect_plan(args);
    if (parts == nullptr || workspace_bytes == nullptr) {
      fail(MLA_INVALID_ARGUMENT, "parts and workspace_bytes must not be NULL");
    }
    require_ok(backend, backend.plan_size(*args, parts, workspace_bytes));
  });
}

// The plan's own tensors, as mla_plan_size asks for them. Returns the bytes of workspace that a decode needs.
static int64_t expect_plan_tensors(Backend &backend, const mla_plan_args &plan, const mla_tensor *seq_lens,
                                   const mla_tensor *tiles, const mla_tensor *splits) {
  int64_t parts = 0;
  int64_t workspace_bytes = 0;
  require_ok(backend, backend.plan_size(plan, &parts, &workspace_bytes));
  expect("seq_lens", seq_lens, only(MLA_I32), {plan.batch});
  expect("tiles", tiles, only(MLA_I32), {parts, 8});
  expect("splits", splits, only(MLA_I32), {plan.batch + 1});
  return workspace_bytes;
}

mla_status mla_plan(mla_context *ctx, const mla_plan_args *args, const mla_tensor *seq_lens, mla_tensor *tiles,
                    mla_tensor *splits) {
  return guarded(__func__, ctx, [&] {
    Backend &backend = backend_of(ctx);
    expect_plan_tensors(backend, expect_plan(args), seq_lens, tiles, splits);
    require_ok(backend, backend.plan(*args, *seq_lens, *tiles, *splits));
  });
}

mla_status mla_decode(mla_context *ctx, const mla_decode_args *args) {
  return guarded(__func__, ctx, [&] {
    Backend &backend = backend_of(ctx);
    const mla_decode_args &a = expect_args(args);
    const mla_plan_args &plan = expect_plan(&a.plan);
    const int64_t workspace_bytes = expect_plan_tensors(backend, plan, &a.seq_lens, &a.tiles, &a.splits);
    expect("q", &a.q, kAct, {plan.batch, plan.s_q, plan.heads, kAny});
    const unsigned act = only(a.q.dtype);
    expect("cache", &a.cache, act, {kAny, MLA_BLOCK_TOKENS, a.q.shape[3]});
    expect("block_table", &a.block_table, only(MLA_I32), {plan.batch, kAny});
    expect("out", &a.out, act, {plan.batch, plan.s_q, plan.heads, kAny});
    expect_range("out's last dimension", a.out.shape[3], 1, a.q.shape[3]);
    expect("lse", &a.lse, only(MLA_F32), {plan.batch, plan.heads, plan.s_q});
    expect("workspace", &a.workspace, only(MLA_F32), {kAny});
    expect_range("workspace's size", a.workspace.shape[0], (workspace_bytes + 3) / 4, INT64_MAX);
    require_ok(backend, backend.decode(a));
  });
}

mla_status mla_prefill(mla_context *ctx, const mla_prefill_args *args) {
  return guarded(__func__, ctx, [&] {
    Backend &backend = backend_of(ctx);
    const mla_prefill_args &a = expect_args(args);
    expect("q", &a.q, kAct, {kAny, kAny, kAny});
    const unsigned act = only(a.q.dtype);
    expect("seq_lens", &a.seq_lens, only(MLA_I32), {kAny});
    const int64_t batch = a.seq_lens.shape[0];
    expect("query_start", &a.query_start, only(MLA_I32), {batch + 1});
    expect("cache", &a.cache, act, {kAny, MLA_BLOCK_TOKENS, a.q.shape[2]});
    expect("block_table", &a.block_table, only(MLA_I32), {batch, kAny});
    expect("out", &a.out, act, {a.q.shape[0], a.q.shape[1], kAny});
    expect_range("out's last dimension", a.out.shape[2], 1, a.q.shape[2]);
    require_ok(backend, backend.prefill(a));
  });
}

// ---- mixture of experts ---------------------------------------------------------------------------------------------

mla_status mla_moe_route(mla_context *ctx, const mla_route_args *args) {
  return guarded(__func__, ctx, [&] {
    Backend &backend = backend_of(ctx);
    const mla_route_args &a = expect_args(args);
    expect("logits", &a.logits, only(MLA_F32), {kAny, kAny});
    const int64_t tokens = a.logits.shape[0];
    const int64_t experts = a.logits.shape[1];
    expect("weights", &a.weights, only(MLA_F32), {tokens, kAny});
    expect("experts", &a.experts, only(MLA_I32), {tokens, a.weights.shape[1]});
    if (a.bias != nullptr) {
      expect("bias", a.bias, only(MLA_F32), {experts});
    }
    expect_range("scoring", a.scoring, MLA_SOFTMAX, MLA_SIGMOID);
    expect_range("group_score", a.group_score, MLA_GROUP_MAX, MLA_GROUP_TOP2_SUM);
    expect_range("groups", a.groups, 1, experts);
    if (experts % a.groups != 0) {
      fail(MLA_INVALID_ARGUMENT, "logits is %s: %d groups do not divide the experts", describe(a.logits).c_str(),
           a.groups);
    }
    expect_range("top_groups", a.top_groups, 1, a.groups);
    const int64_t group = experts / a.groups;
    if (a.groups > 1 && a.group_score == MLA_GROUP_TOP2_SUM) {
      expect_range("a group's size, for the sum of its best two,", group, 2, experts);
    }
    expect_range("weights' last dimension, top_k,", a.weights.shape[1], 1, a.top_groups * group);
    require_ok(backend, backend.moe_route(a));
  });
}

mla_status mla_moe_sort(mla_context *ctx, const mla_tensor *experts, mla_tensor *rows, mla_tensor *places,
                        mla_tensor *offsets) {
  return guarded(__func__, ctx, [&] {
    Backend &backend = backend_of(ctx);
    expect("experts", experts, only(MLA_I32), {kAny, kAny});
    expect("rows", rows, only(MLA_I32), {experts->shape[0] * experts->shape[1]});
    expect("places", places, only(MLA_I32), {experts->shape[0], experts->shape[1]});
    expect("offsets", offsets, only(MLA_I32), {kAny});
    expect_range("offsets' size", offsets->shape[0], 2, INT32_MAX);
    require_ok(backend, backend.moe_sort(*experts, *rows, *places, *offsets));
  });
}

mla_status mla_moe_gemm(mla_context *ctx, const mla_tensor *x, const mla_tensor *rows, const mla_tensor *offsets,
                        const mla_tensor *weights, int32_t num_experts, mla_activation activation, mla_tensor *out) {
  return guarded(__func__, ctx, [&] {
    Backend &backend = backend_of(ctx);
    expect("x", x, kAct, {kAny, kAny});
    expect("out", out, only(x->dtype), {rows == nullptr ? x->shape[0] : kAny, kAny});
    if (rows != nullptr) {
      expect("rows", rows, only(MLA_I32), {out->shape[0]});
    }
    expect_range("num_experts", num_experts, 1, INT32_MAX - 1);
    expect("offsets", offsets, only(MLA_I32), {num_experts + 1});
    if (weights == nullptr) {
      fail(MLA_INVALID_ARGUMENT, "weights is NULL; it must be an array of %d tensors", num_experts);
    }
    expect_range("activation", activation, MLA_IDENTITY, MLA_SILU_MUL);
    const int64_t weight_rows = activation == MLA_SILU_MUL ? 2 * out->shape[1] : out->shape[1];
    expect("weights[0]", weights, kMatrix, {weight_rows, x->shape[1]});
    for (int32_t e = 1; e < num_experts; e++) {
      const std::string name = "weights[" + std::to_string(e) + "]";
      expect(name.c_str(), &weights[e], only(weights->dtype), {weight_rows, x->shape[1]});
    }
    require_ok(backend, backend.moe_gemm(*x, rows, *offsets, weights, num_experts, activation, *out));
  });
}

mla_status mla_moe_combine(mla_context *ctx, const mla_tensor *y, const mla_tensor *places, const mla_tensor *weights,
                           const mla_tensor *base, mla_tensor *out) {
  return guarded(__func__, ctx, [&] {
    Backend &backend = backend_of(ctx);
    expect("weights", weights, only(MLA_F32), {kAny, kAny});
    expect("places", places, only(MLA_I32), {weights->shape[0], weights->shape[1]});
    expect("y", y, kAct, {weights->shape[0] * weights->shape[1], kAny});
    expect("out", out, only(y->dtype) | only(MLA_F32), {weights->shape[0], y->shape[1]});
    if (base != nullptr) {
      expect("base", base, only(out->dtype), {weights->shape[0], y->shape[1]});
    }
    require_ok(backend, backend.moe_combine(*y, *places, *weights, base, *out));
  });
}

// ---- from logits to tokens ------------------------------------------------------------------------------------------

mla_status mla_sample(mla_context *ctx, const mla_sample_args *args) {
  return guarded(__func__, ctx, [&] {
    Backend &backend = backend_of(ctx);
    const mla_sample_args &a = expect_args(args);
    expect("logits", &a.logits, only(MLA_F32), {kAny, kAny});
    const int64_t batch = a.logits.shape[0];
    expect_range("logits' last dimension", a.logits.shape[1], 1, INT32_MAX);
    expect("temperature", &a.temperature, only(MLA_F32), {batch});
    expect("top_k", &a.top_k, only(MLA_I32), {batch});
    expect("top_p", &a.top_p, only(MLA_F32), {batch});
    expect("seed", &a.seed, only(MLA_I64), {batch});
    expect("positions", &a.positions, only(MLA_I32), {batch});
    expect("ids", &a.ids, only(MLA_I32), {batch});
    require_ok(backend, backend.sample(a));
  });
}

float mla_uniform(int64_t seed, int32_t position) {
  uint64_t z = static_cast<uint64_t>(seed) + (static_cast<uint64_t>(position) + 1) * 0x9E3779B97F4A7C15u;
  z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9u;
  z = (z ^ (z >> 27)) * 0x94D049BB133111EBu;
  z ^= z >> 31;
  return static_cast<float>(z >> 40) * 0x1p-24f;
}

mla_status mla_log_softmax_top_k(mla_context *ctx, const mla_tensor *logits, const mla_tensor *ids, mla_tensor *chosen,
                                 mla_tensor *top_ids, mla_tensor *top) {
  return guarded(__func__, ctx, [&] {
    Backend &backend = backend_of(ctx);
    expect("logits", logits, only(MLA_F32), {kAny, kAny});
    expect_range("logits' last dimension", logits->shape[1], 1, INT32_MAX);
    expect("ids", ids, only(MLA_I32), {logits->shape[0]});
    expect("chosen", chosen, only(MLA_F32), {logits->shape[0]});
    if ((top_ids == nullptr) != (top == nullptr)) {
      fail(MLA_INVALID_ARGUMENT, "top_ids and top must both be there or both be NULL");
    }
    if (top != nullptr) {
      expect("top", top, only(MLA_F32), {logits->shape[0], kAny});
      expect("top_ids", top_ids, only(MLA_I32), {logits->shape[0], top->shape[1]});
      expect_range("top's last dimension", top->shape[1], 0, logits->shape[1]);
    }
    require_ok(backend, backend.log_softmax_top_k(*logits, *ids, *chosen, top_ids, top));
  });
}
