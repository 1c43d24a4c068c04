package io.github.sparkmla.engine;

/**
 * What an engine is started with.
 *
 * @param device {@code auto} (a GPU where there is one, else the CPU), {@code cpu} or {@code cuda}
 * @param deviceOrdinal which GPU; 0 on the CPU
 * @param threads CPU threads of the CPU backend; 0 for all that the process may use
 * @param kvBytes bytes of the paged KV cache; 0 for 256 MiB on the CPU, and on a GPU for what {@link Gpu} says
 * @param maxSequences most sequences in one step; 0 for what the device calls for, see {@link #on}
 * @param maxBatchTokens most tokens in one step, prefill and decode together; 0 as for {@code maxSequences}
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

    public static final int CPU_SEQUENCES = 256;
    public static final int CPU_TOKENS = 2048;

    /** A GPU reads all weights for a step however many tokens share it, and fills its matrix units with thousands of them. */
    public static final int CUDA_SEQUENCES = 1024;

    public static final int CUDA_TOKENS = 8192;

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

    /** The embedded default: a GPU where there is one, and the batch that it calls for. */
    public static EngineSettings defaults() {
        return new EngineSettings("auto", 0, 0, 0, 0, 0, 0, 0);
    }

    /** The same with a batch for a GPU, or for the CPU, where none was asked for. */
    public EngineSettings on(boolean cuda) {
        int sequences = maxSequences > 0 ? maxSequences : cuda ? CUDA_SEQUENCES : CPU_SEQUENCES;
        int tokens = maxBatchTokens > 0 ? maxBatchTokens : cuda ? CUDA_TOKENS : CPU_TOKENS;
        return with(sequences, tokens, loadFormat, gpu);
    }

    /** The same with weights from elsewhere. */
    public EngineSettings with(LoadFormat format) {
        return with(maxSequences, maxBatchTokens, format, gpu);
    }

    /** The same with other settings of the GPU. */
    public EngineSettings with(Gpu other) {
        return with(maxSequences, maxBatchTokens, loadFormat, other);
    }

    private EngineSettings with(int sequences, int tokens, LoadFormat format, Gpu other) {
        return new EngineSettings(
                device, deviceOrdinal, threads, kvBytes, sequences, tokens, prefillChunk, maxModelLen, format, other);
    }
}
