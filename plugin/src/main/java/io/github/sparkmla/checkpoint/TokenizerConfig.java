package io.github.sparkmla.checkpoint;

import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.node.ObjectNode;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.HashSet;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.Set;
import java.util.TreeMap;

/**
 * tokenizer_config.json (and, where that lists no added tokens, the older special_tokens_map.json and
 * added_tokens.json), as transformers 5.18 merges them. A folder may have none of them.
 */
final class TokenizerConfig {
    private static final String CONFIG_FILE = "tokenizer_config.json";
    private static final String SPECIAL_TOKENS_FILE = "special_tokens_map.json";
    private static final String ADDED_TOKENS_FILE = "added_tokens.json";
    private static final String ADDED_TOKENS = "added_tokens_decoder";

    /** The named tokens that every tokenizer has, in transformers' order. */
    private static final List<String> STANDARD_NAMES =
            List.of("bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token");

    /** Null where the folder has no tokenizer_config.json. */
    private final JsonObject config;

    private final boolean listsTokens;
    private final Map<Integer, JsonNode> listedTokens = new TreeMap<>(); // by id
    private final Map<String, JsonNode> namedTokens = new LinkedHashMap<>();
    private final List<JsonNode> extraTokens = new ArrayList<>();

    private TokenizerConfig(Path folder) {
        Path configFile = folder.resolve(CONFIG_FILE);
        this.config = Files.exists(configFile) ? JsonObject.read(configFile) : null;
        this.listsTokens = config != null && config.hasValue(ADDED_TOKENS);
        if (config != null) {
            collectTokens(config);
        }
        if (listsTokens) {
            collectListedTokens(config.object(ADDED_TOKENS));
            return;
        }
        if (Files.exists(folder.resolve(SPECIAL_TOKENS_FILE))) {
            collectTokens(JsonObject.read(folder.resolve(SPECIAL_TOKENS_FILE)));
        }
        if (Files.exists(folder.resolve(ADDED_TOKENS_FILE))) {
            collectOldTokens(JsonObject.read(folder.resolve(ADDED_TOKENS_FILE)));
        }
    }

    private void collectListedTokens(JsonObject from) {
        for (Map.Entry<String, JsonNode> entry : from.node().properties()) {
            try {
                requireContent(from, entry.getKey(), entry.getValue());
                listedTokens.put(Integer.valueOf(entry.getKey()), entry.getValue());
            } catch (NumberFormatException e) {
                throw from.wrong(entry.getKey(), "a token id as its key");
            }
        }
    }

    /** The file holds ids by text; what is not named otherwise is no special token. */
    private void collectOldTokens(JsonObject from) {
        Set<String> special = new HashSet<>();
        addedTokens().forEach(token -> special.add(content(token)));
        for (String text : (Iterable<String>) () -> from.node().fieldNames()) {
            int id = from.integer(text, 0, Integer.MAX_VALUE - 1);
            ObjectNode token = JsonObject.MAPPER.createObjectNode().put("content", text);
            listedTokens.put(id, token.put("special", special.contains(text)));
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
            extraTokens.add(token);
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

    /** Whether the file lists the added tokens of tokenizer.json itself, with flags that go before those there. */
    boolean listsTokens() {
        return listsTokens;
    }

    /** The listed tokens by id (else those of an old added_tokens.json): objects with {@code content} and flags. */
    Map<Integer, JsonNode> listedTokens() {
        return listedTokens;
    }

    /** The other tokens that the tokenizer must treat as one, strings or objects, in the order in which they get ids. */
    List<JsonNode> addedTokens() {
        List<JsonNode> tokens = new ArrayList<>();
        STANDARD_NAMES.stream()
                .filter(namedTokens::containsKey)
                .map(namedTokens::get)
                .forEach(tokens::add);
        namedTokens.forEach((name, token) -> {
            if (!STANDARD_NAMES.contains(name)) {
                tokens.add(token);
            }
        });
        tokens.addAll(extraTokens);
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
