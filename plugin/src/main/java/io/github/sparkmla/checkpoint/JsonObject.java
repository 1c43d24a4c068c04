package io.github.sparkmla.checkpoint;

import com.fasterxml.jackson.core.JsonProcessingException;
import com.fasterxml.jackson.core.StreamReadFeature;
import com.fasterxml.jackson.databind.DeserializationFeature;
import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.json.JsonMapper;
import com.fasterxml.jackson.databind.node.ArrayNode;
import com.fasterxml.jackson.databind.node.ObjectNode;
import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.LinkedHashMap;
import java.util.Map;
import java.util.OptionalInt;

/**
 * A JSON object of a checkpoint's file, whose getters say where and what when a value is not as expected.
 *
 * <p>A getter without a fallback needs the key. An explicit {@code null} is never silently a fallback.
 */
final class JsonObject {
    /** Larger JSON files than this (the largest known tokenizer.json has 33 MB) are refused unread. */
    private static final long MAX_FILE_BYTES = 64L << 20;

    static final JsonMapper MAPPER = JsonMapper.builder()
            .enable(StreamReadFeature.STRICT_DUPLICATE_DETECTION)
            .enable(DeserializationFeature.FAIL_ON_TRAILING_TOKENS)
            .build();

    private final Path file;
    private final String prefix;
    private final ObjectNode node;

    private JsonObject(Path file, String prefix, ObjectNode node) {
        this.file = file;
        this.prefix = prefix;
        this.node = node;
    }

    /** Reads a file that holds one JSON object. */
    static JsonObject read(Path file) {
        if (!Files.isRegularFile(file)) {
            throw new CheckpointException(file + ": " + (Files.exists(file) ? "not a regular file" : "no such file"));
        }
        try {
            if (Files.size(file) > MAX_FILE_BYTES) {
                throw new CheckpointException(file + ": " + Files.size(file) + " bytes, expected at most "
                        + MAX_FILE_BYTES + " for a JSON file");
            }
            return parse(file, "", Files.readAllBytes(file));
        } catch (IOException e) {
            throw new CheckpointException(file + ": cannot be read (" + e.getMessage() + ")", e);
        }
    }

    /** Parses the JSON object that a part of a file holds; {@code part} names the part in messages. */
    static JsonObject parse(Path file, String part, byte[] json) {
        String where = part.isEmpty() ? file + ": " : file + ": " + part + " ";
        try {
            if (MAPPER.readTree(json) instanceof ObjectNode object) {
                return new JsonObject(file, "", object);
            }
            throw new CheckpointException(where + "is not a JSON object");
        } catch (JsonProcessingException e) {
            String location = e.getLocation() == null
                    ? ""
                    : " at line " + e.getLocation().getLineNr() + ", column "
                            + e.getLocation().getColumnNr();
            throw new CheckpointException(where + "is not valid JSON" + location + ": " + e.getOriginalMessage(), e);
        } catch (IOException e) {
            throw new CheckpointException(where + "is not valid JSON: " + e.getMessage(), e);
        }
    }

    Path file() {
        return file;
    }

    ObjectNode node() {
        return node;
    }

    /** Whether the key is there, be it with null. */
    boolean has(String key) {
        return node.has(key);
    }

    /** Whether the key is there with a value other than null. */
    boolean hasValue(String key) {
        return node.hasNonNull(key);
    }

    JsonNode get(String key) {
        return node.get(key);
    }

    int integer(String key, int min, int max) {
        JsonNode value = node.get(key);
        if (value == null || !value.canConvertToInt() || !value.isIntegralNumber()) {
            throw wrong(key, "an integer from " + min + " to " + max);
        }
        if (value.intValue() < min || value.intValue() > max) {
            throw wrong(key, "an integer from " + min + " to " + max);
        }
        return value.intValue();
    }

    /** An integer, or empty where the key is missing or null. */
    OptionalInt integerOrNull(String key, int min, int max) {
        return hasValue(key) ? OptionalInt.of(integer(key, min, max)) : OptionalInt.empty();
    }

    /** A finite number that is greater than {@code above}. */
    double number(String key, double above) {
        JsonNode value = node.get(key);
        // Float.MAX_VALUE, since the numbers end up in float32.
        if (value == null
                || !value.isNumber()
                || !(value.doubleValue() > above)
                || !(value.doubleValue() <= Float.MAX_VALUE)) {
            throw wrong(key, "a finite number greater than " + above);
        }
        return value.doubleValue();
    }

    boolean bool(String key) {
        JsonNode value = node.get(key);
        if (value == null || !value.isBoolean()) {
            throw wrong(key, "true or false");
        }
        return value.booleanValue();
    }

    /** Null counts as false, as in Python. */
    boolean boolOrNull(String key) {
        return hasValue(key) && bool(key);
    }

    String string(String key) {
        JsonNode value = node.get(key);
        if (value == null || !value.isTextual()) {
            throw wrong(key, "a string");
        }
        return value.textValue();
    }

    JsonObject object(String key) {
        if (node.get(key) instanceof ObjectNode object) {
            return new JsonObject(file, prefix + key + ".", object);
        }
        throw wrong(key, "an object");
    }

    /** A list of objects, each in a holder of its own, by the index that messages name it by. */
    Map<String, JsonObject> objects(String key) {
        if (!(node.get(key) instanceof ArrayNode array)) {
            throw wrong(key, "a list of objects");
        }
        Map<String, JsonObject> elements = new LinkedHashMap<>();
        for (int i = 0; i < array.size(); i++) {
            ObjectNode holder = MAPPER.createObjectNode();
            holder.set("" + i, array.get(i));
            elements.put("" + i, new JsonObject(file, prefix + key + ".", holder));
        }
        return elements;
    }

    /** The complaint about a key: where, what is there, what should be. */
    CheckpointException wrong(String key, String expected) {
        JsonNode value = node.get(key);
        String found = value == null ? "missing" : abbreviated(value.toString());
        return new CheckpointException(file + ": \"" + prefix + key + "\" is " + found + ", expected " + expected);
    }

    private static String abbreviated(String value) {
        return value.length() <= 80 ? value : value.substring(0, 77) + "...";
    }
}
