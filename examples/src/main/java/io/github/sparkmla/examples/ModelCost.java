package io.github.sparkmla.examples;

import io.github.sparkmla.checkpoint.ModelConfig;

/**
 * What a model has to read and compute, at least, from its shape alone: weights in BF16, every weight read once a step, every
 * cached token once; embedding rows, norms and activations are left out.
 */
final class ModelCost {
    private static final int BF16 = 2;

    private final ModelConfig config;
    private final long attention; // weights of a layer's attention
    private final int moeLayers;

    ModelCost(ModelConfig config) {
        this.config = config;
        this.moeLayers = (int) config.moeLayers().stream().filter(moe -> moe).count();
        long h = config.hiddenSize();
        long n = config.numHeads();
        long q =
                config.qLoraRank() > 0 ? config.qLoraRank() * (h + n * config.qkHeadDim()) : h * n * config.qkHeadDim();
        attention = q
                + h * config.kvDim()
                + n * (config.qkNopeHeadDim() + config.vHeadDim()) * config.kvLoraRank()
                + n * config.vHeadDim() * h;
    }

    private long head() {
        return (long) config.vocabSize() * config.hiddenSize();
    }

    private long gated(long width) {
        return 3L * config.hiddenSize() * width;
    }

    /** Weights outside the routed experts and the head that every token passes. */
    private long common() {
        long dense = (config.numLayers() - moeLayers) * gated(config.intermediateSize());
        return config.numLayers() * attention + dense + moeLayers * sharedAndRouter();
    }

    private long sharedAndRouter() {
        ModelConfig.Moe moe = config.moe();
        return moe == null
                ? 0
                : gated((long) moe.sharedExperts() * moe.intermediateSize())
                        + (long) moe.experts() * config.hiddenSize();
    }

    /** All weights, the embedding too. */
    long parameters() {
        long routed = config.moe() == null
                ? 0
                : config.moe().experts() * gated(config.moe().intermediateSize());
        return common() + moeLayers * routed + head() * (config.tieWordEmbeddings() ? 1 : 2);
    }

    /** Bytes of weights that a decode step of so many sequences reads, experts being chosen evenly. */
    double weightBytes(int sequences) {
        double routed = 0;
        if (config.moe() != null) {
            ModelConfig.Moe moe = config.moe();
            double untouched = Math.pow(1 - (double) moe.topK() / moe.experts(), sequences);
            routed = moeLayers * moe.experts() * (1 - untouched) * gated(moe.intermediateSize());
        }
        return BF16 * (common() + routed + head());
    }

    /** Bytes of KV cache a token, over all layers. */
    long kvBytes() {
        return (long) BF16 * config.kvDim() * config.numLayers();
    }

    /**
     * Useful operations of the prefill of one prompt that asks for one token: products, and causal attention counted with
     * keys and values per head as in the paper, whatever the kernel does.
     */
    double prefillOperations(long tokens) {
        double routed = config.moe() == null
                ? 0
                : moeLayers * (double) config.moe().topK() * gated(config.moe().intermediateSize());
        double pairs = tokens * (tokens + 1) / 2.0;
        double perPair = (double) config.numHeads() * (config.qkHeadDim() + config.vHeadDim());
        return 2 * (tokens * (common() + routed) + config.numLayers() * pairs * perPair + head());
    }
}
