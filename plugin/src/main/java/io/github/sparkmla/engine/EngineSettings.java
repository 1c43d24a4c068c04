package io.github.sparkmla.engine;

/**
 * What an engine is started with.
 *
 * @param device {@code auto} (a GPU where there is one, else the CPU), {@code cpu} or {@code cuda}
 * @param deviceOrdinal which GPU; 0 on the CPU
 * @param threads CPU threads of the CPU backend; 0 for all that the process may use
 * @param kvBytes bytes of the paged KV cache; 0 for 256 MiB on the CPU, and on a GPU for what {@link Gpu} says
 * @param maxSequences most sequences in one step
 * @param maxBatchTokens most tokens in one step, prefill and decode together
 * @param prefillChunk most tokens of one prompt in one step; 0 leaves it to {@code maxBatchTokens}
 * @param maxModelLen most tokens of prompt and completion; 0 for the model's own limit
 * @param loadFormat where the weights come from
 * @param gpu what only a GPU looks at
 */
public record EngineSettings(
        String device,
        int deviceOrdinal,
        int threads,
        long kvBytes,
        int maxSequences,
        int maxBatchTokens,
        int prefillChunk,
        int maxModelLen,
        LoadFormat loadFormat,
        Gpu gpu) {

    /** Where the weights come from. */
    public enum LoadFormat {
        /** The folder's safetensors files. */
        SAFETENSORS,
        /** Nowhere: random ones of the shapes that config.json asks for. */
        DUMMY
    }

    /**
     * What only a GPU looks at.
     *
     * @param memoryFraction of the memory that is free after weights and workspace, how much the KV cache gets
     * @param deterministic a row's result does not depend on the other rows, bit for bit, at some cost; always so on the CPU
     * @param graphs steps that only decode are captured into CUDA graphs
     */
    public record Gpu(double memoryFraction, boolean deterministic, boolean graphs) {
        /** Nine tenths of the free memory, fast, with graphs. */
        public static Gpu defaults() {
            return new Gpu(0.9, false, true);
        }
    }

    /** With a checkpoint's weights and a GPU's defaults. */
    public EngineSettings(
            String device,
            int deviceOrdinal,
            int threads,
            long kvBytes,
            int maxSequences,
            int maxBatchTokens,
            int prefillChunk,
            int maxModelLen) {
        this(
                device,
                deviceOrdinal,
                threads,
                kvBytes,
                maxSequences,
                maxBatchTokens,
                prefillChunk,
                maxModelLen,
                LoadFormat.SAFETENSORS,
                Gpu.defaults());
    }

    /** The embedded default: a GPU where there is one, 256 sequences a step. */
    public static EngineSettings defaults() {
        return new EngineSettings("auto", 0, 0, 0, 256, 2048, 0, 0);
    }

    /** The same with weights from elsewhere. */
    public EngineSettings with(LoadFormat format) {
        return new EngineSettings(
                device,
                deviceOrdinal,
                threads,
                kvBytes,
                maxSequences,
                maxBatchTokens,
                prefillChunk,
                maxModelLen,
                format,
                gpu);
    }

    /** The same with other settings of the GPU. */
    public EngineSettings with(Gpu other) {
        return new EngineSettings(
                device,
                deviceOrdinal,
                threads,
                kvBytes,
                maxSequences,
                maxBatchTokens,
                prefillChunk,
                maxModelLen,
                loadFormat,
                other);
    }
}
