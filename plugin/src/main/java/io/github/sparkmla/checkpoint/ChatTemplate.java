package io.github.sparkmla.checkpoint;

import java.nio.file.Path;
import java.util.List;
import java.util.Map;
import java.util.Optional;

/** Placeholder: the chat template of a checkpoint. Thread-safe. */
public final class ChatTemplate {
    private ChatTemplate() {}

    /** The template of a checkpoint folder, empty where it has none. */
    public static Optional<ChatTemplate> load(Path folder) {
        throw new UnsupportedOperationException(folder.toString());
    }

    /** Renders messages; tokenize the result with {@code addSpecialTokens} false. {@code tools} may be null. */
    public String render(
            List<Map<String, Object>> messages, boolean addGenerationPrompt, List<Map<String, Object>> tools) {
        throw new UnsupportedOperationException("" + messages + addGenerationPrompt + tools);
    }
}
