package io.github.sparkmla.model;

import io.github.sparkmla.checkpoint.Checkpoint;
import io.github.sparkmla.checkpoint.ModelConfig;
import io.github.sparkmla.tensor.Linear;
import io.github.sparkmla.tensor.Tensor;
import java.util.ArrayList;
import java.util.List;
import java.util.function.IntFunction;

/**
 * The weights of a model by role: this file is where names of the checkpoint become tensors. Matrices are [out, in].
 *
 * @param embedding [vocab, hidden]
 * @param layers the decoder layers
 * @param finalNorm [hidden]
 * @param lmHead [vocab, hidden]
 */
record Weights(Tensor embedding, List<Layer> layers, Tensor finalNorm, Linear lmHead) {
    private static final String EMBEDDING = "model.embed_tokens.weight";
    private static final String LM_HEAD = "lm_head.weight";

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

    /** A gated network: down(silu(gate x) * up x), gate above up in one matrix [2 * width, hidden]. */
    record Dense(Linear gateUp, Linear down) implements FeedForward {}

    /**
     * A mixture of experts.
     *
     * @param router [experts, hidden]
     * @param bias F32 [experts] or null
     * @param gateUp of every expert [2 * width, hidden]
     * @param down of every expert [hidden, width]
     * @param shared the shared experts as one network, or null
     */
    record Moe(Linear router, Tensor bias, Tensor[] gateUp, Tensor[] down, Dense shared) implements FeedForward {}

    /**
     * Where the tensors come from: {@link WeightLoader} loads them or, on the driver, only checks them; {@link
     * DummyWeights} makes them up.
     */
    interface Source {
        /** The first of two names, or the second where there is no such tensor. */
        default String eitherOf(String name, String substitute) {
            return name;
        }

        /** The matrices [out, in] of these names, one below the other: [names * out, in]. */
        Tensor matrix(long out, long in, String... names);

        /** The same for products alone, as {@link io.github.sparkmla.tensor.Arena#pack} lays it out. */
        Tensor weight(long out, long in, String... names);

        /** Such a weight for each expert, by number; on a GPU at equal distances in one piece of memory. */
        Tensor[] experts(int count, long out, long in, IntFunction<String[]> names);

        /** A vector; as float32 when {@code exact}. */
        Tensor vector(String name, long size, boolean exact);
    }

    /** Checks, without reading weights, that a checkpoint holds every tensor that its config needs. */
    static void check(Checkpoint checkpoint) {
        Weights unused = of(checkpoint.config(), WeightLoader.checking(checkpoint));
    }

    static Weights of(ModelConfig config, Source source) {
        int hidden = config.hiddenSize();
        boolean tied = config.tieWordEmbeddings();
        Tensor embedding =
                source.matrix(config.vocabSize(), hidden, tied ? source.eitherOf(EMBEDDING, LM_HEAD) : EMBEDDING);
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
        // As in transformers: a head that is in the files is not tied, whatever the config says.
        Tensor lmHead = source.weight(config.vocabSize(), hidden, tied ? source.eitherOf(LM_HEAD, EMBEDDING) : LM_HEAD);
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
                        heads * (config.qkNopeHeadDim() + config.vHeadDim()), latent, prefix + "kv_b_proj.weight"),
                linear(source, prefix + "o_proj", hidden, heads * config.vHeadDim(), bias));
    }

    private static Dense dense(Source source, String prefix, long hidden, long width) {
        String[] gateUp = {prefix + "gate_proj.weight", prefix + "up_proj.weight"};
        return new Dense(
                new Linear(source.weight(width, hidden, gateUp), null),
                linear(source, prefix + "down_proj", hidden, width, false));
    }

    private static Moe moe(ModelConfig config, Source source, String prefix) {
        ModelConfig.Moe moe = config.moe();
        int experts = moe.experts();
        long hidden = config.hiddenSize();
        long width = moe.intermediateSize();
        String expert = prefix + "experts.";
        return new Moe(
                linear(source, prefix + "gate", experts, hidden, false),
                moe.hasCorrectionBias() ? source.vector(prefix + "gate.e_score_correction_bias", experts, true) : null,
                source.experts(experts, width, hidden, e ->
                        new String[] {expert + e + ".gate_proj.weight", expert + e + ".up_proj.weight"}),
                source.experts(experts, hidden, width, e -> new String[] {expert + e + ".down_proj.weight"}),
                moe.sharedExperts() > 0
                        ? dense(source, prefix + "shared_experts.", hidden, moe.sharedExperts() * width)
                        : null);
    }

    private static Linear linear(Source source, String prefix, long out, long in, boolean bias) {
        return new Linear(
                source.weight(out, in, prefix + ".weight"), bias ? source.vector(prefix + ".bias", out, false) : null);
    }
}
