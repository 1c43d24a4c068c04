package io.github.sparkmla.checkpoint;

import com.fasterxml.jackson.databind.JsonNode;
import io.github.sparkmla.checkpoint.jinja.JinjaException;
import io.github.sparkmla.checkpoint.jinja.Template;
import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.Optional;

/**
 * A checkpoint's chat template: from chat_template.jinja, else chat_template.json, else tokenizer_config.json. Renders
 * as transformers' {@code apply_chat_template(tokenize=False)} does, with the same variables. Thread-safe.
 */
public final class ChatTemplate {
    private static final String JINJA_FILE = "chat_template.jinja";
    private static final String JSON_FILE = "chat_template.json";
    private static final String KEY = "chat_template";
    private static final String DEFAULT = "default";
    private static final String TOOL_USE = "tool_use";

    /** By name; a checkpoint with one template has it as {@link #DEFAULT}. */
    private final Map<String, Template> templates;

    private final Map<String, String> specialTokens;

    private ChatTemplate(Map<String, Template> templates, Map<String, String> specialTokens) {
        this.templates = templates;
        this.specialTokens = specialTokens;
    }

    /** The template of a checkpoint folder, empty where it has none; throws {@link CheckpointException}. */
    public static Optional<ChatTemplate> load(Path folder) {
        TokenizerConfig config = TokenizerConfig.load(folder);
        Map<String, Template> templates = templates(folder, config.json());
        return templates.isEmpty()
                ? Optional.empty()
                : Optional.of(new ChatTemplate(Map.copyOf(templates), config.namedTokens()));
    }

    private static Map<String, Template> templates(Path folder, JsonObject tokenizerConfig) {
        Path jinjaFile = folder.resolve(JINJA_FILE);
        Path jsonFile = folder.resolve(JSON_FILE);
        if (Files.exists(jinjaFile)) {
            return Map.of(DEFAULT, parse(jinjaFile, readText(jinjaFile)));
        }
        if (Files.exists(jsonFile)) {
            return named(JsonObject.read(jsonFile));
        }
        return tokenizerConfig != null && tokenizerConfig.hasValue(KEY) ? named(tokenizerConfig) : Map.of();
    }

    private static String readText(Path file) {
        if (!Files.isRegularFile(file)) {
            throw new CheckpointException(file + ": not a regular file");
        }
        try {
            return Files.readString(file);
        } catch (IOException e) {
            throw new CheckpointException(file + ": cannot be read as UTF-8 text (" + e.getMessage() + ")", e);
        }
    }

    /** The key holds a template, or a list of named ones of which one is the default. */
    private static Map<String, Template> named(JsonObject json) {
        JsonNode value = json.get(KEY);
        if (value == null || !value.isArray()) {
            return Map.of(DEFAULT, parse(json.file(), json.string(KEY)));
        }
        Map<String, Template> templates = new HashMap<>();
        for (JsonNode entry : value) {
            if (!entry.path("name").isTextual() || !entry.path("template").isTextual()) {
                throw json.wrong(KEY, "a string or a list of objects with \"name\" and \"template\"");
            }
            templates.put(
                    entry.path("name").asText(),
                    parse(json.file(), entry.path("template").asText()));
        }
        if (!templates.containsKey(DEFAULT)) {
            throw json.wrong(KEY, "a template named \"default\" among those listed");
        }
        return templates;
    }

    private static Template parse(Path file, String source) {
        try {
            return Template.parse(source);
        } catch (JinjaException e) {
            throw new CheckpointException(file + ": the chat template cannot be parsed: " + e.getMessage(), e);
        }
    }

    /**
     * Renders a conversation. Special tokens are in the text already, so tokenize it with {@code addSpecialTokens}
     * false.
     *
     * @param messages each with {@code role}, {@code content} and whatever else the template knows; not empty
     * @param addGenerationPrompt whether to end with the opening of the assistant's turn
     * @param tools JSON schemas of functions, null for none
     * @throws JinjaException where the template refuses the messages
     */
    public String render(
            List<Map<String, Object>> messages, boolean addGenerationPrompt, List<Map<String, Object>> tools) {
        if (messages.isEmpty()) {
            throw new IllegalArgumentException("a conversation needs at least one message");
        }
        Map<String, Object> context = new HashMap<>(specialTokens);
        context.put("messages", messages);
        context.put("tools", tools);
        context.put("documents", null);
        context.put("add_generation_prompt", addGenerationPrompt);
        String name = tools != null && templates.containsKey(TOOL_USE) ? TOOL_USE : DEFAULT;
        return templates.get(name).render(context);
    }
}
