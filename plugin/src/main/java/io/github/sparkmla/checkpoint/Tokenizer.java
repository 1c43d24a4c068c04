package io.github.sparkmla.checkpoint;

import java.nio.file.Path;

/** Placeholder: a Hugging Face tokenizer. Thread-safe. */
public final class Tokenizer implements AutoCloseable {
    private Tokenizer() {}

    /** Loads tokenizer.json of a checkpoint folder. */
    public static Tokenizer open(Path folder) {
        throw new UnsupportedOperationException(folder.toString());
    }

    /** Token ids of a text, never truncated or padded. */
    public int[] encode(String text, boolean addSpecialTokens) {
        throw new UnsupportedOperationException(text + addSpecialTokens);
    }

    /** The text of token ids. */
    public String decode(int[] ids, boolean skipSpecialTokens) {
        throw new UnsupportedOperationException("" + ids.length + skipSpecialTokens);
    }

    @Override
    public void close() {}
}
