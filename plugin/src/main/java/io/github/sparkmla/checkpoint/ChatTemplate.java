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
 * A checkpoint's chat template: from chat_template.jinja and the folder additional_chat_templates, else
 * tokenizer_config.json, else chat_template.json (which transformers reads for processors alone). Renders as
 * transformers' {@code apply_chat_template(tokenize=False)} does, with the same variables. Thread-safe.
 */
public final class ChatTemplate {
    private static final String JINJA_FILE = "chat_template.jinja";
    private static final String ADDITIONAL_FOLDER = "additional_chat_templates";
    private static final String JSON_FILE = "chat_template.json";
    private static final String KEY = "chat_template";
    private static final String DEFAULT = "default";
    private static final String TOOL_USE = "tool_use";

    /** By name, those that are ever used; a checkpoint with one template has it as {@link #DEFAULT}. */
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
        Map<String, Template> files = ofFiles(folder);
        if (!files.isEmpty()) {
            return files;
        }
        if (tokenizerConfig != null && tokenizerConfig.hasValue(KEY)) {
            return named(tokenizerConfig);
        }
        Path jsonFile = folder.resolve(JSON_FILE);
        return Files.exists(jsonFile) ? named(JsonObject.read(jsonFile)) : Map.of();
    }

    /** The templates in files of their own, of which the additional ones go first. */
    private static Map<String, Template> ofFiles(Path folder) {
        Path additional = folder.resolve(ADDITIONAL_FOLDER);
        Map<String, Template> templates = new HashMap<>();
        for (String name : List.of(DEFAULT, TOOL_USE)) {
            Path file = additional.resolve(name + ".jinja");
            if (Files.exists(file)) {
                templates.put(name, parse(file, readText(file)));
            }
        }
        Path jinjaFile = folder.resolve(JINJA_FILE);
        if (!templates.containsKey(DEFAULT) && Files.exists(jinjaFile)) {
            templates.put(DEFAULT, parse(jinjaFile, readText(jinjaFile)));
        }
        if (!templates.isEmpty() && !templates.containsKey(DEFAULT)) {
            throw new CheckpointException(additional + ": holds a template for tools, but the checkpoint has no "
                    + JINJA_FILE + " for chats without");
        }
        return templates;
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
            String name = entry.path("name").asText();
            if (name.equals(DEFAULT) || name.equals(TOOL_USE)) {
                templates.put(name, parse(json.file(), entry.path("template").asText()));
            }
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
