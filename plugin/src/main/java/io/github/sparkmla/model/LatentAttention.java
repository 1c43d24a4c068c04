package io.github.sparkmla.model;

import io.github.sparkmla.checkpoint.ModelConfig;
import io.github.sparkmla.tensor.Arena;
import io.github.sparkmla.tensor.DType;
import io.github.sparkmla.tensor.Ops;
import io.github.sparkmla.tensor.Tensor;

/**
 * Multi-head latent attention in absorbed form (DeepSeek-V2, arXiv 2405.04434, section 2.1): the key up-projection is
 * folded into the query and the value up-projection into the output, so that all heads attend over the one cached latent
 * vector of a token. Holds the scratch memory that all layers share.
 *
 * <p>In the shapes T is tokens, n heads, L the latent, R the rope part, N the nope part, V the value of a head.
 */
final class LatentAttention {
    private final Ops ops;
    private final ModelConfig config;
    private final float softmaxScale;
    private final Ops.Positions positions;
    private final Ops.Plan plan;

    private final Tensor qA; // F32 [T, qLoraRank]
    private final Tensor qANormed; // [T, qLoraRank]
    private final Tensor q; // [T, n * (N + R)]
    private final Tensor qNope; // [n, T, N], of q
    private final Tensor qRope; // [T, n, R], of q
    private final Tensor kv; // F32 [T, L + R]
    private final Tensor kvLatent; // [T, L], of kv
    private final Tensor kRope; // [T, R], of kv
    private final Tensor latent; // [T, L], normalised
    private final Tensor query; // [T, n, L + R]
    private final Tensor queryLatent; // [n, T, L], of query
    private final Tensor queryRope; // [T, n, R], of query
    private final Tensor context; // [T, n, L]
    private final Tensor contextByHead; // [n, T, L], of context
    private final Tensor values; // [T, n * V]
    private final Tensor valuesByHead; // [n, T, V], of values
    private final Tensor lse; // [decodes, n, 1]
    private final Tensor decodeQuery; // [decodes, 1, n, L + R], of query
    private final Tensor decodeContext; // [decodes, 1, n, L], of context
    private final Tensor prefillQuery; // [T - decodes, n, L + R], of query
    private final Tensor prefillContext; // [T - decodes, n, L], of context

    LatentAttention(Arena arena, Ops ops, ModelConfig config, StepInputs inputs, MlaModel.Limits limits) {
        DType act = MlaModel.activations(arena.device());
        this.ops = ops;
        this.config = config;
        this.softmaxScale = config.softmaxScale();
        int n = config.numHeads();
        int latentDim = config.kvLoraRank();
        int rope = config.qkRopeHeadDim();
        int nope = config.qkNopeHeadDim();
        int head = config.qkHeadDim();
        int v = config.vHeadDim();
        int d = config.kvDim();
        long t = limits.maxTokens();

        boolean lowRank = config.qLoraRank() > 0;
        qA = lowRank ? arena.allocate(DType.F32, t, config.qLoraRank()) : null;
        qANormed = lowRank ? arena.allocate(act, t, config.qLoraRank()) : null;
        q = arena.allocate(act, t, (long) n * head);
        qNope = q.view(0, new long[] {n, t, nope}, new long[] {head, (long) n * head, 1});
        qRope = q.view(nope, new long[] {t, n, rope}, new long[] {(long) n * head, head, 1});
        kv = arena.allocate(DType.F32, t, d);
        kvLatent = kv.columns(0, latentDim);
        kRope = kv.columns(latentDim, d);
        latent = arena.allocate(act, t, latentDim);
        query = arena.allocate(act, t, n, d);
        queryLatent = query.view(0, new long[] {n, t, latentDim}, new long[] {d, (long) n * d, 1});
        queryRope = query.columns(latentDim, d);
        context = arena.allocate(act, t, n, latentDim);
        contextByHead = context.view(0, new long[] {n, t, latentDim}, new long[] {latentDim, (long) n * latentDim, 1});
        values = arena.allocate(act, t, (long) n * v);
        valuesByHead = values.view(0, new long[] {n, t, v}, new long[] {v, (long) n * v, 1});
        lse = arena.allocate(DType.F32, limits.maxSequences(), n, 1);
        decodeQuery = query.reshape(t, 1, n, d);
        decodeContext = context.reshape(t, 1, n, latentDim);
        prefillQuery = query.alias();
        prefillContext = context.alias();
        positions = new Ops.Positions(
                Rotary.table(arena, config, limits.maxModelLen()),
                inputs.positions(),
                inputs.slots(),
                config.rope().interleaved());
        plan = new Ops.Plan(arena, limits.maxSequences(), n, limits.maxModelLen(), limits.deterministic());
    }

    /** Sizes the scratch for a step and plans its decode. */
    void begin(StepInputs inputs) {
        int tokens = inputs.tokens();
        int decodes = inputs.decodes();
        for (Tensor byToken : new Tensor[] {q, qRope, kv, kvLatent, kRope, latent, query, queryRope, context, values}) {
            byToken.resize(tokens);
        }
        for (Tensor byHead : new Tensor[] {qNope, queryLatent, contextByHead, valuesByHead}) {
            byHead.resize(1, tokens);
        }
        if (qA != null) {
            qA.resize(tokens);
            qANormed.resize(tokens);
        }
        decodeQuery.resize(decodes);
        decodeContext.resize(decodes);
        lse.resize(decodes);
        prefillQuery.moveTo(query, decodes, tokens - decodes);
        prefillContext.moveTo(context, decodes, tokens - decodes);
        if (decodes > 0) {
            ops.section("plan");
            ops.plan(plan, inputs.decodeSeqLens());
        }
    }

    /** out F32 [T, hidden] = attention of x [T, hidden]; appends this step's keys to the layer's cache [blocks, 64, L + R]. */
    void forward(LayerWeights weights, Tensor x, StepInputs inputs, Tensor cache, Tensor out) {
        Weights.Attention w = weights.attention();
        ops.section("query and latent");
        if (qA == null) {
            ops.gemm(x, w.q(), q);
        } else {
            ops.gemm(x, w.qA(), qA);
            ops.rmsNorm(qA, null, w.qANorm(), config.loraNormEps(), qANormed);
            ops.gemm(qANormed, w.q(), q);
        }
        ops.gemm(x, w.kvA(), kv);
        ops.rmsNorm(kvLatent, null, w.kvANorm(), config.loraNormEps(), latent);
        ops.section("absorb");
        ops.batchedGemm(qNope, weights.keyUp(), queryLatent);
        ops.section("rope and append");
        ops.ropeAndAppendKv(qRope, queryRope, latent, kRope, positions, cache);
        if (inputs.decodes() > 0) {
            ops.section("attention: decode");
            ops.decode(
                    decodeQuery,
                    cache,
                    inputs.decodeBlockTable(),
                    inputs.decodeSeqLens(),
                    plan,
                    softmaxScale,
                    decodeContext,
                    lse);
        }
        if (inputs.prefills() > 0) {
            ops.section("attention: prefill");
            ops.prefill(
                    prefillQuery,
                    inputs.queryStart(),
                    cache,
                    inputs.prefillBlockTable(),
                    inputs.prefillSeqLens(),
                    softmaxScale,
                    prefillContext);
        }
        ops.section("absorb");
        ops.batchedGemm(contextByHead, weights.valueUp(), valuesByHead);
        ops.section("output projection");
        ops.gemm(values, w.o(), out);
    }
}
