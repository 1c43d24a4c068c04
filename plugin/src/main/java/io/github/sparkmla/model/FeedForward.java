package io.github.sparkmla.model;

import io.github.sparkmla.checkpoint.ModelConfig;
import io.github.sparkmla.tensor.Arena;
import io.github.sparkmla.tensor.DType;
import io.github.sparkmla.tensor.Ops;
import io.github.sparkmla.tensor.Tensor;

/**
 * The feed-forward half of a layer: a gated network, or a mixture of them (DeepSeekMoE, arXiv 2401.06066, and
 * DeepSeek-V3, arXiv 2412.19437, section 2.1.2). Holds the scratch memory that all layers share.
 *
 * <p>In the shapes T is tokens, H hidden, I a network's width, E experts, K experts a token, P = T * K pairs.
 */
final class FeedForward {
    private final Ops ops;
    private final int topK;

    private final Gated dense;
    private final Gated shared;
    private final Tensor routerLogits; // F32 [T, E]
    private final Tensor expertWeights; // F32 [T, K]
    private final Tensor experts; // I32 [T, K]
    private final Tensor rows; // I32 [P]
    private final Tensor places; // I32 [T, K]
    private final Tensor offsets; // I32 [E + 1]
    private final Tensor expertProduct; // [P, I]
    private final Tensor expertOut; // [P, H]

    /** Scratch of one gated network: gate and up side by side, then their product. */
    private final class Gated {
        final Tensor gateUp; // [rows, 2 I]
        final Tensor product; // [rows, I]

        Gated(Arena arena, DType act, long rows, long width) {
            gateUp = arena.allocate(act, rows, 2 * width);
            product = arena.allocate(act, rows, width);
        }

        void resize(long rows) {
            gateUp.resize(rows);
            product.resize(rows);
        }

        void forward(Weights.Dense w, Tensor x, Tensor out) {
            ops.gemm(x, w.gateUp(), gateUp);
            ops.siluMul(gateUp, product);
            ops.gemm(product, w.down(), out);
        }
    }

    FeedForward(Arena arena, Ops ops, ModelConfig config, DType act, int maxTokens) {
        this.ops = ops;
        dense = new Gated(arena, act, maxTokens, config.intermediateSize());
        ModelConfig.Moe moe = config.moe();
        if (moe == null) {
            topK = 0;
            shared = null;
            routerLogits = expertWeights = experts = rows = places = offsets = expertProduct = expertOut = null;
            return;
        }
        topK = moe.topK();
        long pairs = (long) maxTokens * topK;
        shared = moe.sharedExperts() > 0
                ? new Gated(arena, act, maxTokens, (long) moe.sharedExperts() * moe.intermediateSize())
                : null;
        routerLogits = arena.allocate(DType.F32, maxTokens, moe.experts());
        expertWeights = arena.allocate(DType.F32, maxTokens, topK);
        experts = arena.allocate(DType.I32, maxTokens, topK);
        rows = arena.allocate(DType.I32, pairs);
        places = arena.allocate(DType.I32, maxTokens, topK);
        offsets = arena.allocate(DType.I32, moe.experts() + 1L);
        expertProduct = arena.allocate(act, pairs, moe.intermediateSize());
        expertOut = arena.allocate(act, pairs, config.hiddenSize());
    }

    /** Sizes the scratch for a step. */
    void begin(long tokens) {
        dense.resize(tokens);
        if (topK > 0) {
            for (Tensor byToken : new Tensor[] {routerLogits, expertWeights, experts, places}) {
                byToken.resize(tokens);
            }
            rows.resize(tokens * topK);
            expertProduct.resize(tokens * topK);
            expertOut.resize(tokens * topK);
        }
        if (shared != null) {
            shared.resize(tokens);
        }
    }

    /** out F32 [T, H] of x [T, H]. */
    void forward(LayerWeights weights, Tensor x, Tensor out) {
        if (weights.layer().feedForward() instanceof Weights.Moe w) {
            mixture(w, weights.experts(), x, out);
        } else {
            ops.section("dense feed-forward");
            dense.forward((Weights.Dense) weights.layer().feedForward(), x, out);
        }
    }

    private void mixture(Weights.Moe w, LayerWeights.Experts e, Tensor x, Tensor out) {
        ops.section("router");
        ops.gemm(x, w.router(), routerLogits);
        ops.route(routerLogits, e.routing(), expertWeights, experts);
        ops.moeSort(experts, rows, places, offsets);
        ops.section("experts: gate and up");
        ops.moeGemm(x, rows, offsets, e.gateUp(), true, expertProduct);
        ops.section("experts: down");
        ops.moeGemm(expertProduct, null, offsets, e.down(), false, expertOut);
        if (w.shared() != null) {
            ops.section("shared experts");
            shared.forward(w.shared(), x, out);
        }
        ops.section("experts: combine");
        ops.moeCombine(expertOut, places, expertWeights, w.shared() == null ? null : out, out);
    }
}
