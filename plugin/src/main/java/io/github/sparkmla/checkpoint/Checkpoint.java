package io.github.sparkmla.checkpoint;

import io.github.sparkmla.checkpoint.ModelConfig.Fp8;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.Arrays;
import java.util.Optional;

/**
 * A checkpoint folder whose parts have all been found good.
 *
 * @param folder the folder
 * @param config its architecture
 * @param tensors its weights, not yet read
 * @param chatTemplate its chat template, if it has one
 */
public record Checkpoint(Path folder, ModelConfig config, Safetensors tensors, Optional<ChatTemplate> chatTemplate) {
    private static final String FP8_SCALE = "_scale_inv";

    /**
     * Reads all but the weights, and loads the tokenizer once to see that it can be. Throws {@link CheckpointException}
     * on the first thing that is wrong. Meant for the Spark driver, before any task, and for executors alike.
     */
    public static Checkpoint open(Path folder) {
        Checkpoint checkpoint = openWithoutTokenizer(folder);
        checkpoint.openTokenizer().close();
        return checkpoint;
    }

    /** The same but for the tokenizer: for those who open it anyway. */
    public static Checkpoint openWithoutTokenizer(Path folder) {
        if (!Files.isDirectory(folder)) {
            String fault = Files.exists(folder) ? "not a folder" : "no such folder";
            throw new CheckpointException(folder + ": " + fault + ", expected a folder with config.json, "
                    + "model.safetensors (or its index and shards) and tokenizer.json");
        }
        ModelConfig config = ModelConfig.load(folder);
        Safetensors tensors = Safetensors.open(folder);
        tensors.tensors().values().forEach(tensor -> requireWeight(tensor, config.fp8(), tensors));
        return new Checkpoint(folder, config, tensors, ChatTemplate.load(folder));
    }

    /** Reads config.json and the chat template alone: for dummy weights. The checkpoint has no tensors. */
    public static Checkpoint openWithoutWeights(Path folder) {
        return new Checkpoint(folder, ModelConfig.load(folder), Safetensors.none(folder), ChatTemplate.load(folder));
    }

    private static void requireWeight(TensorInfo tensor, Fp8 fp8, Safetensors tensors) {
        if (!tensor.dtype().isWeight()) {
            throw new CheckpointException(tensor.file() + ": tensor \"" + tensor.name() + "\" has dtype "
                    + tensor.dtype() + ", expected BF16, F16, F32 or F8_E4M3");
        }
        if (tensor.dtype() == DType.F8_E4M3) {
            requireScale(tensor, fp8, tensors);
        }
    }

    private static void requireScale(TensorInfo tensor, Fp8 fp8, Safetensors tensors) {
        if (fp8 == null) {
            throw new CheckpointException(tensor.file() + ": tensor \"" + tensor.name()
                    + "\" has dtype F8_E4M3, but config.json has no quantization_config to scale it by");
        }
        if (tensor.shape().length != 2) {
            throw new CheckpointException(tensor.file() + ": tensor \"" + tensor.name() + "\" has dtype F8_E4M3 and "
                    + "shape " + Arrays.toString(tensor.shape()) + ", expected a matrix");
        }
        long rowBlocks = blocks(tensor.shape()[0], fp8.block());
        long columnBlocks = blocks(tensor.shape()[1], fp8.block());
        TensorInfo scale = tensors.require(tensor.name() + FP8_SCALE, rowBlocks, columnBlocks);
        if (scale.dtype() != DType.F32) {
            throw new CheckpointException(
                    scale.file() + ": tensor \"" + scale.name() + "\" has dtype " + scale.dtype() + ", expected F32");
        }
    }

    /** How many blocks cover a dimension; the last may be ragged. */
    private static long blocks(long size, int block) {
        return size / block + (size % block == 0 ? 0 : 1);
    }

    /** A new tokenizer, which the caller closes. */
    public Tokenizer openTokenizer() {
        return Tokenizer.open(folder);
    }

    /** Longest sequence, in tokens. */
    public int maxPositions() {
        return config.maxPositions();
    }
}
