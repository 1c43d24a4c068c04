package io.github.sparkmla.checkpoint;

import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.node.ObjectNode;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;

/**
 * tokenizer_config.json (and, where that lists no added tokens, the older special_tokens_map.json), as transformers
 * 5.18 merges them. A folder may have neither.
 */
final class TokenizerConfig {
    private static final String CONFIG_FILE = "tokenizer_config.json";
    private static final String SPECIAL_TOKENS_FILE = "special_tokens_map.json";
    private static final String ADDED_TOKENS = "added_tokens_decoder";

    /** Null where the folder has no tokenizer_config.json. */
    private final JsonObject config;

    private final Map<String, JsonNode> namedTokens = new LinkedHashMap<>();
    private final List<JsonNode> otherTokens = new ArrayList<>();

    private TokenizerConfig(Path folder) {
        Path configFile = folder.resolve(CONFIG_FILE);
        this.config = Files.exists(configFile) ? JsonObject.read(configFile) : null;
        if (config != null) {
            collectTokens(config);
        }
        boolean listed = config != null && config.hasValue(ADDED_TOKENS);
        if (listed) {
            config.object(ADDED_TOKENS).node().forEach(otherTokens::add);
        } else if (Files.exists(folder.resolve(SPECIAL_TOKENS_FILE))) {
            collectTokens(JsonObject.read(folder.resolve(SPECIAL_TOKENS_FILE)));
        }
    }

    static TokenizerConfig load(Path folder) {
        return new TokenizerConfig(folder);
    }

    private void collectTokens(JsonObject from) {
        for (Map.Entry<String, JsonNode> entry : from.node().properties()) {
            JsonNode value = entry.getValue();
            if (entry.getKey().endsWith("_token") && (value.isTextual() || value.isObject())) {
                requireContent(from, entry.getKey(), value);
                namedTokens.put(entry.getKey(), value);
            }
        }
        collectExtraTokens(
                from, from.hasValue("extra_special_tokens") ? "extra_special_tokens" : "additional_special_tokens");
    }

    /** A list of tokens, or an object of further named ones. */
    private void collectExtraTokens(JsonObject from, String key) {
        if (!from.hasValue(key)) {
            return;
        }
        if (from.get(key) instanceof ObjectNode named) {
            named.properties().forEach(entry -> {
                requireContent(from, key, entry.getValue());
                namedTokens.put(entry.getKey(), entry.getValue());
            });
            return;
        }
        for (JsonNode token : from.get(key)) {
            requireContent(from, key, token);
            otherTokens.add(token);
        }
    }

    private static void requireContent(JsonObject from, String key, JsonNode token) {
        if (!token.isTextual() && !token.path("content").isTextual()) {
            throw from.wrong(key, "a string or an object with \"content\"");
        }
    }

    /** Text of the named special tokens (bos_token, eos_token, ...), as a chat template gets them. */
    Map<String, String> namedTokens() {
        Map<String, String> texts = new LinkedHashMap<>();
        namedTokens.forEach((name, token) -> texts.put(name, content(token)));
        return texts;
    }

    /** Every token that the tokenizer must treat as one, a string or an object with {@code content} and flags. */
    List<JsonNode> addedTokens() {
        List<JsonNode> tokens = new ArrayList<>(otherTokens);
        tokens.addAll(namedTokens.values());
        return tokens;
    }

    static String content(JsonNode token) {
        return token.isTextual() ? token.textValue() : token.path("content").asText();
    }

    /** The file, or empty (null) where the folder has none. */
    JsonObject json() {
        return config;
    }

    /** Whether a flag is set; absent is false. */
    boolean flag(String key) {
        return config != null && config.boolOrNull(key);
    }
}
