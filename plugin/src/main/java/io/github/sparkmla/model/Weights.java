package io.github.sparkmla.model;

import io.github.sparkmla.checkpoint.Checkpoint;
import io.github.sparkmla.checkpoint.ModelConfig;
import io.github.sparkmla.tensor.Linear;
import io.github.sparkmla.tensor.Tensor;
import java.util.ArrayList;
import java.util.List;

/**
 * The weights of a model by role: this file is where names of the checkpoint become tensors. Matrices are [out, in].
 *
 * @param embedding [vocab, hidden]
 * @param layers the decoder layers
 * @param finalNorm [hidden]
 * @param lmHead [vocab, hidden]; the embedding itself where the two are tied
 */
record Weights(Tensor embedding, List<Layer> layers, Tensor finalNorm, Linear lmHead) {

    /** One decoder layer. */
    record Layer(Tensor inputNorm, Attention attention, Tensor postAttentionNorm, FeedForward feedForward) {}

    /**
     * Attention.
     *
     * @param qA [qLoraRank, hidden], null where the query is not compressed
     * @param qANorm [qLoraRank], null with {@code qA}
     * @param q from the compressed query, or from the hidden state: [heads * qkHeadDim, ...]
     * @param kvA latent and rope key: [kvLoraRank + qkRopeHeadDim, hidden]
     * @param kvANorm [kvLoraRank]
     * @param kvB per head the rows of the nope key, then of the value: [heads * (nope + v), kvLoraRank]
     * @param o [hidden, heads * v]
     */
    record Attention(Linear qA, Tensor qANorm, Linear q, Linear kvA, Tensor kvANorm, Tensor kvB, Linear o) {}

    /** What follows attention in a layer. */
    sealed interface FeedForward permits Dense, Moe {}

    /** A gated network: down(silu(gate x) * up x). */
    record Dense(Linear gate, Linear up, Linear down) implements FeedForward {}

    /**
     * A mixture of experts.
     *
     * @param router [experts, hidden]
     * @param bias F32 [experts] or null
     * @param gate of every expert [width, hidden]
     * @param up of every expert [width, hidden]
     * @param down of every expert [hidden, width]
     * @param shared the shared experts as one network, or null
     */
    record Moe(Linear router, Tensor bias, Tensor[] gate, Tensor[] up, Tensor[] down, Dense shared)
            implements FeedForward {}

    /** Where the tensors come from; {@link WeightLoader} loads them or, on the driver, only checks them. */
    interface Source {
        /** A matrix [out, in]. */
        Tensor matrix(String name, long out, long in);

        /** A vector; as float32 when {@code exact}. */
        Tensor vector(String name, long size, boolean exact);
    }

    /** Checks, without reading weights, that a checkpoint holds every tensor that its config needs. */
    static void check(Checkpoint checkpoint) {
        WeightLoader.checking(checkpoint).weights();
    }

    static Weights of(ModelConfig config, Source source) {
        int hidden = config.hiddenSize();
        Tensor embedding = source.matrix("model.embed_tokens.weight", config.vocabSize(), hidden);
        List<Layer> layers = new ArrayList<>();
        for (int i = 0; i < config.numLayers(); i++) {
            String prefix = "model.layers." + i + ".";
            layers.add(new Layer(
                    source.vector(prefix + "input_layernorm.weight", hidden, false),
                    attention(config, source, prefix + "self_attn."),
                    source.vector(prefix + "post_attention_layernorm.weight", hidden, false),
                    config.isMoe(i)
                            ? moe(config, source, prefix + "mlp.")
                            : dense(source, prefix + "mlp.", hidden, config.intermediateSize())));
        }
        Tensor norm = source.vector("model.norm.weight", hidden, false);
        Tensor lmHead =
                config.tieWordEmbeddings() ? embedding : source.matrix("lm_head.weight", config.vocabSize(), hidden);
        return new Weights(embedding, layers, norm, new Linear(lmHead, null));
    }

    private static Attention attention(ModelConfig config, Source source, String prefix) {
        long hidden = config.hiddenSize();
        long heads = config.numHeads();
        long latent = config.kvLoraRank();
        boolean compressed = config.qLoraRank() > 0;
        boolean bias = config.attentionBias();
        return new Attention(
                compressed ? linear(source, prefix + "q_a_proj", config.qLoraRank(), hidden, bias) : null,
                compressed ? source.vector(prefix + "q_a_layernorm.weight", config.qLoraRank(), false) : null,
                compressed
                        ? linear(source, prefix + "q_b_proj", heads * config.qkHeadDim(), config.qLoraRank(), false)
                        : linear(source, prefix + "q_proj", heads * config.qkHeadDim(), hidden, false),
                linear(source, prefix + "kv_a_proj_with_mqa", config.kvDim(), hidden, bias),
                source.vector(prefix + "kv_a_layernorm.weight", latent, false),
                source.matrix(
                        prefix + "kv_b_proj.weight", heads * (config.qkNopeHeadDim() + config.vHeadDim()), latent),
                linear(source, prefix + "o_proj", hidden, heads * config.vHeadDim(), bias));
    }

    private static Dense dense(Source source, String prefix, long hidden, long width) {
        return new Dense(
                linear(source, prefix + "gate_proj", width, hidden, false),
                linear(source, prefix + "up_proj", width, hidden, false),
                linear(source, prefix + "down_proj", hidden, width, false));
    }

    private static Moe moe(ModelConfig config, Source source, String prefix) {
        ModelConfig.Moe moe = config.moe();
        long hidden = config.hiddenSize();
        long width = moe.intermediateSize();
        Tensor[] gate = new Tensor[moe.experts()];
        Tensor[] up = new Tensor[moe.experts()];
        Tensor[] down = new Tensor[moe.experts()];
        for (int e = 0; e < moe.experts(); e++) {
            String expert = prefix + "experts." + e + ".";
            gate[e] = source.matrix(expert + "gate_proj.weight", width, hidden);
            up[e] = source.matrix(expert + "up_proj.weight", width, hidden);
            down[e] = source.matrix(expert + "down_proj.weight", hidden, width);
        }
        return new Moe(
                linear(source, prefix + "gate", moe.experts(), hidden, false),
                moe.hasCorrectionBias()
                        ? source.vector(prefix + "gate.e_score_correction_bias", moe.experts(), true)
                        : null,
                gate,
                up,
                down,
                moe.sharedExperts() > 0
                        ? dense(source, prefix + "shared_experts.", hidden, moe.sharedExperts() * width)
                        : null);
    }

    private static Linear linear(Source source, String prefix, long out, long in, boolean bias) {
        return new Linear(
                source.matrix(prefix + ".weight", out, in), bias ? source.vector(prefix + ".bias", out, false) : null);
    }
}
