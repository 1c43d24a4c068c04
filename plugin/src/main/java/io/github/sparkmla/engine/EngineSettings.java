package io.github.sparkmla.engine;

/**
 * What an engine is started with.
 *
 * @param device {@code auto} (a GPU where there is one, else the CPU), {@code cpu} or {@code cuda}
 * @param deviceOrdinal which GPU; 0 on the CPU
 * @param threads CPU threads of the CPU backend; 0 for all that the process may use
 * @param kvBytes bytes of the paged KV cache
 * @param maxSequences most sequences in one step
 * @param maxBatchTokens most tokens in one step, prefill and decode together
 * @param prefillChunk most tokens of one prompt in one step; 0 leaves it to {@code maxBatchTokens}
 * @param maxModelLen most tokens of prompt and completion; 0 for the model's own limit
 */
public record EngineSettings(
        String device,
        int deviceOrdinal,
        int threads,
        long kvBytes,
        int maxSequences,
        int maxBatchTokens,
        int prefillChunk,
        int maxModelLen) {

    /** The embedded default: the CPU, a quarter of a gigabyte of KV cache. */
    public static EngineSettings defaults() {
        return new EngineSettings("auto", 0, 0, 256L << 20, 256, 2048, 0, 0);
    }
}
