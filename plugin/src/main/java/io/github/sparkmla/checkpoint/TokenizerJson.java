package io.github.sparkmla.checkpoint;

import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.node.ArrayNode;
import java.nio.file.Path;
import java.util.Map;
import java.util.Set;
import java.util.TreeSet;

/**
 * Looks through a tokenizer.json before the native tokenizer library gets it, and completes it.
 *
 * <p>The library panics on some malformed files, and a panic ends the process: so everything it is known to panic on is
 * refused here, and of its components only those are let through that byte-pair encoders of language models use. A
 * wrong type inside such a component the library reports by itself. What stays possible is a regular expression that
 * exhausts the matcher's limits on some text.
 */
final class TokenizerJson {
    private static final Set<String> MODELS = new TreeSet<>(Set.of("BPE", "WordLevel"));
    private static final Set<String> NORMALIZERS = new TreeSet<>(Set.of(
            "Sequence", "NFC", "NFD", "NFKC", "NFKD", "Lowercase", "Prepend", "Replace", "Strip", "StripAccents"));
    private static final Set<String> PRE_TOKENIZERS = new TreeSet<>(Set.of(
            "Sequence", "ByteLevel", "Digits", "Metaspace", "Punctuation", "Split", "Whitespace", "WhitespaceSplit"));
    private static final Set<String> POST_PROCESSORS =
            new TreeSet<>(Set.of("Sequence", "ByteLevel", "TemplateProcessing"));
    private static final Set<String> DECODERS =
            new TreeSet<>(Set.of("Sequence", "ByteFallback", "ByteLevel", "Fuse", "Metaspace", "Replace", "Strip"));

    private final JsonObject json;

    private TokenizerJson(JsonObject json) {
        this.json = json;
    }

    /** Reads, checks and completes a tokenizer.json; throws {@link CheckpointException}. */
    static JsonObject read(Path file, TokenizerConfig config) {
        TokenizerJson tokenizer = new TokenizerJson(JsonObject.read(file));
        tokenizer.checkText(tokenizer.json.node());
        tokenizer.checkModel();
        checkComponent(tokenizer.json, "normalizer", NORMALIZERS, "normalizers");
        checkComponent(tokenizer.json, "pre_tokenizer", PRE_TOKENIZERS, "pretokenizers");
        checkComponent(tokenizer.json, "post_processor", POST_PROCESSORS, "processors");
        checkComponent(tokenizer.json, "decoder", DECODERS, "decoders");
        AddedTokens.complete(tokenizer.json, config);
        tokenizer.json.node().putNull("truncation").putNull("padding");
        return tokenizer.json;
    }

    /** JSON can express unpaired surrogates, UTF-8 cannot. */
    private void checkText(JsonNode node) {
        if (node.isTextual() && hasLoneSurrogate(node.textValue())) {
            throw new CheckpointException(json.file() + ": holds a string that is not Unicode text: " + node);
        }
        node.properties().forEach(entry -> {
            if (hasLoneSurrogate(entry.getKey())) {
                throw new CheckpointException(json.file() + ": holds a key that is not Unicode text");
            }
            checkText(entry.getValue());
        });
        if (node.isArray()) {
            node.forEach(this::checkText);
        }
    }

    static boolean hasLoneSurrogate(String text) {
        return text.codePoints()
                .anyMatch(point -> point >= Character.MIN_SURROGATE && point <= Character.MAX_SURROGATE);
    }

    private void checkModel() {
        JsonObject model = json.object("model");
        if (!MODELS.contains(model.string("type"))) {
            throw model.wrong("type", "one of " + String.join(", ", MODELS));
        }
        // The library cuts the prefix off every merged token without looking.
        for (String key : new String[] {"continuing_subword_prefix", "end_of_word_suffix"}) {
            if (model.hasValue(key) && !model.string(key).isEmpty()) {
                throw model.wrong(key, "null");
            }
        }
        if (model.hasValue("dropout") && model.number("dropout", -1) != 0) {
            throw model.wrong("dropout", "null: a text must always have the same tokens");
        }
        JsonObject vocabulary = model.object("vocab");
        vocabulary.node().fieldNames().forEachRemaining(token -> vocabulary.integer(token, 0, Integer.MAX_VALUE - 1));
    }

    private static void checkComponent(JsonObject holder, String key, Set<String> types, String parts) {
        if (!holder.hasValue(key)) {
            return;
        }
        JsonObject component = holder.object(key);
        String type = component.string("type");
        if (!types.contains(type)) {
            throw component.wrong("type", "one of " + String.join(", ", types));
        }
        switch (type) {
            case "Sequence" ->
                component.objects(parts).forEach((index, part) -> checkComponent(part, index, types, parts));
            case "TemplateProcessing" -> checkTemplate(component);
            case "Replace" -> checkReplace(component);
            case "Prepend" -> requireText(component, "prepend");
            case "Strip" -> checkStrip(component, parts);
            default -> {}
        }
    }

    /** A pattern that can match between two characters breaks the library's book-keeping. */
    private static void checkReplace(JsonObject replace) {
        JsonObject pattern = replace.object("pattern");
        if (pattern.has("Regex")) {
            throw pattern.wrong("Regex", "\"String\" instead: regular expressions are implemented for Split only");
        }
        requireText(pattern, "String");
    }

    private static void requireText(JsonObject component, String key) {
        if (component.string(key).isEmpty()) {
            throw component.wrong(key, "text");
        }
    }

    /** The library looks up what a template names when it encodes, and panics on what it does not find. */
    private static void checkTemplate(JsonObject template) {
        JsonObject known = template.object("special_tokens");
        for (String key : new String[] {"single", "pair"}) {
            if (!(template.get(key) instanceof ArrayNode pieces)) {
                throw template.wrong(key, "a list");
            }
            for (JsonNode piece : pieces) {
                if (key.equals("single")
                        && piece.path("Sequence").path("id").asText().equals("B")) {
                    throw template.wrong(key, "a single sequence, A");
                }
                JsonNode id = piece.path("SpecialToken").path("id");
                if (!id.isMissingNode() && !known.hasValue(id.asText())) {
                    throw template.wrong(key, "pieces that special_tokens knows; it lacks " + id);
                }
            }
        }
        for (Map.Entry<String, JsonNode> entry : known.node().properties()) {
            JsonNode token = entry.getValue();
            if (!token.path("ids").isArray()
                    || token.path("ids").size() != token.path("tokens").size()) {
                throw known.wrong(entry.getKey(), "\"ids\" and \"tokens\" of the same length");
            }
        }
    }

    /** The decoder of this name cuts a number of characters from the end without looking whether there are so many. */
    private static void checkStrip(JsonObject strip, String parts) {
        if (parts.equals("decoders") && strip.integer("stop", 0, Integer.MAX_VALUE) != 0) {
            throw strip.wrong("stop", "0");
        }
    }
}
