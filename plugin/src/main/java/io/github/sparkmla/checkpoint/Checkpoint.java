package io.github.sparkmla.checkpoint;

import java.nio.file.Path;
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
    /** Reads all but the weights; throws {@link CheckpointException} on the first thing that is wrong. */
    public static Checkpoint open(Path folder) {
        throw new UnsupportedOperationException(folder.toString());
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
