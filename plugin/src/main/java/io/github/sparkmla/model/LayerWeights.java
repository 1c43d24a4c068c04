package io.github.sparkmla.model;

import io.github.sparkmla.checkpoint.ModelConfig;
import io.github.sparkmla.tensor.Arena;
import io.github.sparkmla.tensor.Ops;
import io.github.sparkmla.tensor.Tensor;

/**
 * A layer's weights as the operations take them.
 *
 * @param keyUp W_UK as [heads, latent, nope], of kv_b_proj
 * @param valueUp W_UV as [heads, v, latent], of kv_b_proj
 * @param experts null for a dense layer
 */
record LayerWeights(Weights.Layer layer, Tensor keyUp, Tensor valueUp, Experts experts) {

    /** The routed experts of a layer and the router's rule. */
    record Experts(Ops.Routing routing, Ops.ExpertWeights gateUp, Ops.ExpertWeights down) {}

    static LayerWeights of(ModelConfig config, Weights.Layer layer, Arena arena) {
        long n = config.numHeads();
        long nope = config.qkNopeHeadDim();
        long v = config.vHeadDim();
        long latent = config.kvLoraRank();
        Tensor kvB = layer.attention().kvB();
        long head = (nope + v) * latent;
        return new LayerWeights(
                layer,
                arena.pack(kvB.view(0, new long[] {n, latent, nope}, new long[] {head, 1, latent})),
                arena.pack(kvB.view(nope * latent, new long[] {n, v, latent}, new long[] {head, latent, 1})),
                layer.feedForward() instanceof Weights.Moe moe ? experts(config.moe(), moe) : null);
    }

    private static Experts experts(ModelConfig.Moe config, Weights.Moe moe) {
        return new Experts(
                new Ops.Routing(
                        moe.bias(),
                        config.scoring() == ModelConfig.Scoring.SIGMOID,
                        config.groups(),
                        config.topGroups(),
                        config.groupScore() == ModelConfig.GroupScore.TOP2_SUM,
                        config.normalize(),
                        config.scale()),
                new Ops.ExpertWeights(moe.gateUp()),
                new Ops.ExpertWeights(moe.down()));
    }

    Weights.Attention attention() {
        return layer.attention();
    }
}
