package io.github.sparkmla.tensor;

import static io.github.sparkmla.tensor.NativeException.check;

import io.github.sparkmla.natives.Mla;
import org.bytedeco.javacpp.LongPointer;

/**
 * The operations of mla.h over tensors; see there for shapes, types and formulas. Nothing here allocates: argument
 * structs are made once and filled anew for each call.
 */
public final class Ops {
    private final Mla.mla_context context;
    private final Mla.mla_rope_args rope = new Mla.mla_rope_args();
    private final Mla.mla_decode_args decode = new Mla.mla_decode_args();
    private final Mla.mla_prefill_args prefill = new Mla.mla_prefill_args();
    private final Mla.mla_route_args route = new Mla.mla_route_args();
    private final Mla.mla_sample_args sample = new Mla.mla_sample_args();

    private Profile profile;

    public Ops(Device device) {
        this.context = device.context;
    }

    /** Times the sections of the coming calls; null ends that. */
    public void setProfile(Profile profile) {
        this.profile = profile;
    }

    /** Names what follows, for {@link Profile}. */
    public void section(String name) {
        if (profile != null) {
            profile.begin(name);
        }
    }

    public void convert(Tensor x, Tensor scale, int block, Tensor out) {
        check(Mla.mla_convert(context, x.handle, orNull(scale), block, out.handle));
    }

    /** Dummy weights: seeded normal values times {@code std}. */
    public void fillNormal(Tensor out, float std, long seed) {
        check(Mla.mla_fill_normal(context, out.handle, std, seed));
    }

    public void embedding(Tensor table, Tensor ids, Tensor out) {
        check(Mla.mla_embedding(context, table.handle, ids.handle, out.handle));
    }

    /** {@code residual} may be null. */
    public void rmsNorm(Tensor x, Tensor residual, Tensor weight, float eps, Tensor out) {
        check(Mla.mla_rms_norm(context, x.handle, orNull(residual), weight.handle, eps, out.handle));
    }

    public void gemm(Tensor x, Linear linear, Tensor out) {
        check(Mla.mla_gemm(context, x.handle, linear.weight().handle, orNull(linear.bias()), out.handle));
    }

    public void batchedGemm(Tensor x, Tensor w, Tensor out) {
        check(Mla.mla_batched_gemm(context, x.handle, w.handle, out.handle));
    }

    public void siluMul(Tensor gateUp, Tensor out) {
        check(Mla.mla_silu_mul(context, gateUp.handle, out.handle));
    }

    /** What {@link #ropeAndAppendKv} reads of the step: positions I32 [T], slots I64 [T] and the table of angles. */
    public record Positions(Tensor cosSin, Tensor positions, Tensor slots, boolean interleaved) {}

    /** {@code qOut} may be {@code qRope}. */
    public void ropeAndAppendKv(
            Tensor qRope, Tensor qOut, Tensor latent, Tensor kRope, Positions positions, Tensor cache) {
        rope.q_rope(qRope.handle).q_out(qOut.handle).latent(latent.handle).k_rope(kRope.handle);
        rope.cos_sin(positions.cosSin.handle)
                .positions(positions.positions.handle)
                .slots(positions.slots.handle);
        rope.cache(cache.handle).interleaved(positions.interleaved ? 1 : 0);
        check(Mla.mla_rope_and_append_kv(context, rope));
    }

    /** A decode plan's memory; sized once for the largest step. */
    public static final class Plan {
        private final Mla.mla_plan_args args = new Mla.mla_plan_args();
        private final LongPointer parts = new LongPointer(1);
        private final LongPointer workspaceBytes = new LongPointer(1);
        private final Tensor tiles;
        private final Tensor splits;
        private final Tensor workspace;

        /**
         * For at most {@code batch} sequences of at most {@code maxLen} tokens, one query each.
         *
         * @param deterministic how a sequence is split depends on its own length alone
         */
        public Plan(Arena arena, int batch, int heads, int maxLen, boolean deterministic) {
            args.batch(batch).s_q(1).heads(heads).max_len(maxLen);
            args.flags(deterministic ? Mla.MLA_PLAN_DETERMINISTIC : 0);
            check(Mla.mla_plan_size(arena.device().context, args, parts, workspaceBytes));
            tiles = arena.allocate(DType.I32, Math.max(1, parts.get()), 8);
            splits = arena.allocate(DType.I32, batch + 1);
            workspace = arena.allocate(DType.F32, Math.max(1, workspaceBytes.get() / DType.F32.bytes()));
        }
    }

    /** Plans the decode of {@code seqLens.size(0)} sequences. */
    public void plan(Plan plan, Tensor seqLens) {
        plan.args.batch((int) seqLens.size(0));
        check(Mla.mla_plan_size(context, plan.args, plan.parts, plan.workspaceBytes));
        plan.tiles.resize(plan.parts.get());
        plan.splits.resize(seqLens.size(0) + 1);
        check(Mla.mla_plan(context, plan.args, seqLens.handle, plan.tiles.handle, plan.splits.handle));
    }

    /** q [batch, 1, heads, D], out [batch, 1, heads, L], lse [batch, heads, 1]; the plan is of the same lengths. */
    public void decode(
            Tensor q,
            Tensor cache,
            Tensor blockTable,
            Tensor seqLens,
            Plan plan,
            float softmaxScale,
            Tensor out,
            Tensor lse) {
        decode.q(q.handle).cache(cache.handle).block_table(blockTable.handle).seq_lens(seqLens.handle);
        decode.tiles(plan.tiles.handle).splits(plan.splits.handle).workspace(plan.workspace.handle);
        decode.out(out.handle).lse(lse.handle).plan(plan.args).softmax_scale(softmaxScale);
        check(Mla.mla_decode(context, decode));
    }

    /** q [tokens, heads, D], out [tokens, heads, L], queryStart I32 [batch + 1]. */
    public void prefill(
            Tensor q,
            Tensor queryStart,
            Tensor cache,
            Tensor blockTable,
            Tensor seqLens,
            float softmaxScale,
            Tensor out) {
        prefill.q(q.handle).query_start(queryStart.handle).cache(cache.handle).block_table(blockTable.handle);
        prefill.seq_lens(seqLens.handle).out(out.handle).softmax_scale(softmaxScale);
        check(Mla.mla_prefill(context, prefill));
    }

    /** The router's rule, as {@code mla_route_args}; {@code bias} F32 [E] or null. */
    public record Routing(
            Tensor bias, boolean sigmoid, int groups, int topGroups, boolean top2Sum, boolean normalize, float scale) {}

    public void route(Tensor logits, Routing rule, Tensor weights, Tensor experts) {
        route.logits(logits.handle)
                .weights(weights.handle)
                .experts(experts.handle)
                .bias(orNull(rule.bias));
        route.scoring(rule.sigmoid ? Mla.MLA_SIGMOID : Mla.MLA_SOFTMAX);
        route.groups(rule.groups).top_groups(rule.topGroups);
        route.group_score(rule.top2Sum ? Mla.MLA_GROUP_TOP2_SUM : Mla.MLA_GROUP_MAX);
        route.normalize(rule.normalize ? 1 : 0).scale(rule.scale);
        check(Mla.mla_moe_route(context, route));
    }

    public void moeSort(Tensor experts, Tensor rows, Tensor places, Tensor offsets) {
        check(Mla.mla_moe_sort(context, experts.handle, rows.handle, places.handle, offsets.handle));
    }

    /** One weight of every expert, as the grouped GEMM takes them; a view of the tensors given. */
    public static final class ExpertWeights {
        private final Mla.mla_tensor array;
        private final int count;

        public ExpertWeights(Tensor[] weights) {
            count = weights.length;
            array = new Mla.mla_tensor(count);
            for (int e = 0; e < count; e++) {
                array.getPointer(e).put(weights[e].handle);
            }
        }
    }

    /** {@code rows} may be null; {@code siluMul}: what {@link #siluMul} makes of the products. */
    public void moeGemm(Tensor x, Tensor rows, Tensor offsets, ExpertWeights weights, boolean siluMul, Tensor out) {
        check(Mla.mla_moe_gemm(
                context,
                x.handle,
                orNull(rows),
                offsets.handle,
                weights.array,
                weights.count,
                siluMul ? Mla.MLA_SILU_MUL : Mla.MLA_IDENTITY,
                out.handle));
    }

    /** {@code base} may be null, or {@code out}. */
    public void moeCombine(Tensor y, Tensor places, Tensor weights, Tensor base, Tensor out) {
        check(Mla.mla_moe_combine(context, y.handle, places.handle, weights.handle, orNull(base), out.handle));
    }

    /** Per row: temperature F32, topK I32, topP F32, seed I64, position I32. */
    public record Draws(Tensor temperature, Tensor topK, Tensor topP, Tensor seed, Tensor position) {}

    public void sample(Tensor logits, Draws draws, Tensor ids) {
        sample.logits(logits.handle)
                .ids(ids.handle)
                .temperature(draws.temperature.handle)
                .top_k(draws.topK.handle);
        sample.top_p(draws.topP.handle).seed(draws.seed.handle).positions(draws.position.handle);
        check(Mla.mla_sample(context, sample));
    }

    /** {@code topIds} and {@code top} may both be null. */
    public void logSoftmaxTopK(Tensor logits, Tensor ids, Tensor chosen, Tensor topIds, Tensor top) {
        check(Mla.mla_log_softmax_top_k(
                context, logits.handle, ids.handle, chosen.handle, orNull(topIds), orNull(top)));
    }

    private static Mla.mla_tensor orNull(Tensor tensor) {
        return tensor == null ? null : tensor.handle;
    }
}
