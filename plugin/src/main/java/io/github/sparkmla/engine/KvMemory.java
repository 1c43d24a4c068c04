package io.github.sparkmla.engine;

/** How large the KV cache is. Pure arithmetic. */
final class KvMemory {
    private static final long CPU_DEFAULT = 256L << 20;

    private KvMemory() {}

    /**
     * Blocks of the cache.
     *
     * @param settings the bytes asked for, or the fraction of {@code freeBytes}
     * @param gpu whether {@code freeBytes} counts; the host's memory is not ours alone
     * @param freeBytes free on the GPU after weights and workspace
     * @param blockBytes of one block over all layers
     * @param context longest sequence, in tokens
     * @throws IllegalArgumentException where not a single block fits, with what to change
     */
    static int blocks(EngineSettings settings, boolean gpu, long freeBytes, long blockBytes, int context) {
        double fraction = settings.gpu().memoryFraction();
        boolean byFraction = gpu && settings.kvBytes() == 0;
        // One block more is allocated than sequences get: the dump of padded steps.
        long bytes = byFraction
                ? (long) (fraction * (freeBytes - blockBytes))
                : settings.kvBytes() == 0 ? CPU_DEFAULT : settings.kvBytes();
        long blocks = bytes / blockBytes;
        if (blocks < 1) {
            throw new IllegalArgumentException(
                    byFraction
                            ? "%d bytes are free on the GPU after weights and workspace, and %s of them hold no block of %d bytes of the KV cache: raise spark.mla.memory.fraction, or lower spark.mla.batch.maxTokens and spark.mla.batch.maxSequences"
                                    .formatted(freeBytes, fraction, blockBytes)
                            : "a KV cache of %d bytes holds no block of %d bytes: raise spark.mla.kv.memory"
                                    .formatted(bytes, blockBytes));
        }
        // More blocks than all sequences can ever fill would only waste memory.
        long useful = (long) settings.maxSequences() * BlockPool.blocksFor(context);
        return (int) Math.min(Math.min(blocks, useful), Integer.MAX_VALUE - 1);
    }
}
