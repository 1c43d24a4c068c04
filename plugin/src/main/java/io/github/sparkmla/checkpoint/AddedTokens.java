package io.github.sparkmla.checkpoint;

import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.node.ObjectNode;
import java.util.HashSet;
import java.util.LinkedHashMap;
import java.util.Map;
import java.util.Set;

/**
 * The tokens that are looked for in a text before it is tokenized: those of tokenizer.json, completed by those of
 * tokenizer_config.json as transformers does it.
 */
final class AddedTokens {
    /** The native library takes seconds to prepare for a longer one, and hours for a megabyte. */
    private static final int MAX_LENGTH = 1000;

    private final JsonObject json;
    private final JsonNode vocabulary;
    private final Map<String, ObjectNode> added = new LinkedHashMap<>(); // by text
    private final Set<Integer> ids = new HashSet<>();
    private int nextId;

    private AddedTokens(JsonObject tokenizerJson) {
        this.json = tokenizerJson;
        this.vocabulary = tokenizerJson.node().path("model").path("vocab");
        this.nextId = vocabulary.size();
        if (json.hasValue("added_tokens")) {
            json.objects("added_tokens").forEach((index, holder) -> {
                JsonObject token = holder.object(index);
                token.integer("id", 0, Integer.MAX_VALUE - 1);
                put(token.string("content"), token.node());
            });
        }
    }

    /** Replaces {@code added_tokens} of a tokenizer.json. */
    static void complete(JsonObject tokenizerJson, TokenizerConfig config) {
        AddedTokens tokens = new AddedTokens(tokenizerJson);
        tokens.merge(config);
        tokenizerJson.node().putArray("added_tokens").addAll(tokens.added.values());
    }

    /**
     * Listed tokens replace the flags of their namesakes, named ones are special, and those that nothing knows yet get the
     * ids after the last. The model may have no embedding for such an id: a prompt that holds it is refused then.
     */
    private void merge(TokenizerConfig config) {
        Set<String> named = Set.copyOf(config.namedTokens().values());
        if (!config.listsTokens()) {
            added.forEach((content, token) -> {
                if (named.contains(content)) {
                    token.put("special", true);
                }
            });
        }
        config.listedTokens().forEach((id, token) -> {
            String content = TokenizerConfig.content(token);
            if (config.listsTokens() || !(added.containsKey(content) || ids.contains(id))) {
                add(content, token, token.path("special").asBoolean() || named.contains(content));
            }
        });
        for (JsonNode token : config.addedTokens()) {
            String content = TokenizerConfig.content(token);
            if (!added.containsKey(content)) {
                boolean special = token.isTextual() || token.path("special").asBoolean();
                add(content, token, special || named.contains(content));
            }
        }
    }

    /** Adds a token, or gives a known one other flags; what is special once stays so. */
    private void add(String content, JsonNode flags, boolean special) {
        if (content.isEmpty()) {
            return;
        }
        ObjectNode known = added.get(content);
        boolean wasSpecial = known != null && known.path("special").asBoolean();
        ObjectNode token = JsonObject.MAPPER
                .createObjectNode()
                .put("id", known == null ? newId(content) : known.path("id").intValue())
                .put("content", content)
                .put("single_word", flags.path("single_word").asBoolean())
                .put("lstrip", flags.path("lstrip").asBoolean())
                .put("rstrip", flags.path("rstrip").asBoolean())
                .put("normalized", flags.path("normalized").asBoolean(!special))
                .put("special", special || wasSpecial);
        put(content, token);
    }

    private int newId(String content) {
        return vocabulary.has(content) ? vocabulary.get(content).intValue() : nextId;
    }

    private void put(String content, ObjectNode token) {
        if (content.length() > MAX_LENGTH) {
            throw new CheckpointException("%s: an added token, \"%s...\", has %d characters, expected at most %d"
                    .formatted(json.file(), content.substring(0, 20), content.length(), MAX_LENGTH));
        }
        int id = token.path("id").intValue();
        ids.add(id);
        nextId = Math.max(nextId, id + 1);
        added.put(content, token);
    }
}
