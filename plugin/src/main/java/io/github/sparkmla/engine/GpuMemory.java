package io.github.sparkmla.engine;

import io.github.sparkmla.checkpoint.Checkpoint;
import io.github.sparkmla.checkpoint.ModelConfig;
import io.github.sparkmla.model.MlaModel;

/**
 * What an engine takes of a GPU's memory, in bytes, before it has one: so that somebody else on the same card leaves it.
 *
 * @param weights in BF16, whatever the files have
 * @param workspace of the largest step, with what CUDA takes for itself; an estimate from above
 * @param kvCache what was asked for, else enough for {@value #TYPICAL_TOKENS} tokens of every sequence of a full batch
 * @param kvAsked whether it was asked for; else an engine makes do with less
 */
public record GpuMemory(long weights, long workspace, long kvCache, boolean kvAsked) {
    private static final int TYPICAL_TOKENS = 1024;

    /** The context, the kernels' code and cuBLAS's scratch memory. */
    private static final long CUDA_BYTES = 1L << 30;

    private static final int BF16 = 2;
    private static final int F32 = 4;

    /** For a model and settings, on a GPU. */
    public static GpuMemory of(Checkpoint checkpoint, EngineSettings asked) {
        EngineSettings settings = asked.on(true);
        ModelConfig config = checkpoint.config();
        int context = settings.maxModelLen() > 0
                ? Math.min(settings.maxModelLen(), checkpoint.maxPositions())
                : checkpoint.maxPositions();
        boolean kvAsked = settings.kvBytes() > 0;
        long blocks = (long) settings.maxSequences() * BlockPool.blocksFor(Math.min(context, TYPICAL_TOKENS));
        long blockBytes = (long) BlockPool.BLOCK_TOKENS * config.kvDim() * config.numLayers() * BF16;
        return new GpuMemory(
                MlaModel.weightBytes(config),
                workspace(config, settings),
                kvAsked
                        ? settings.kvBytes()
                        : (long) (blocks * blockBytes / settings.gpu().memoryFraction()),
                kvAsked);
    }

    /** A row of activations for each token, and of logits for each sequence. */
    private static long workspace(ModelConfig config, EngineSettings settings) {
        long attention = config.numHeads() * (2L * config.kvDim() + config.qkHeadDim() + config.vHeadDim());
        long dense = 3L * config.intermediateSize();
        long experts = config.moe() == null
                ? 0
                : (long) config.moe().topK() * (config.moe().intermediateSize() + 2L * config.hiddenSize());
        long token = BF16 * (5L * config.hiddenSize() + attention + Math.max(dense, experts));
        long sequence = 2L * F32 * config.vocabSize();
        return CUDA_BYTES + settings.maxBatchTokens() * token + settings.maxSequences() * sequence;
    }

    public long total() {
        return weights + workspace + kvCache;
    }

    /** With less than this an engine does not start. */
    public long least() {
        return kvAsked ? total() : weights + workspace;
    }

    /** For messages. */
    @Override
    public String toString() {
        return "%.1f GiB: %.1f of weights, %.1f of workspace, %.1f of KV cache"
                .formatted(gib(total()), gib(weights), gib(workspace), gib(kvCache));
    }

    private static double gib(long bytes) {
        return bytes / (double) (1L << 30);
    }
}
