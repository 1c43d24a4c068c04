package io.github.sparkmla.spark;

import io.github.sparkmla.checkpoint.ChatTemplate;
import io.github.sparkmla.checkpoint.Tokenizer;
import io.github.sparkmla.spark.BadRowException.Kind;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.Objects;
import org.apache.spark.sql.Row;
import org.apache.spark.sql.catalyst.CatalystTypeConverters;
import org.apache.spark.sql.catalyst.InternalRow;
import org.apache.spark.sql.catalyst.expressions.UnsafeProjection;
import org.apache.spark.sql.types.ArrayType;
import org.apache.spark.sql.types.DataType;
import org.apache.spark.sql.types.MapType;
import org.apache.spark.sql.types.StructType;
import scala.Function1;
import scala.collection.Seq;
import scala.jdk.javaapi.CollectionConverters;

/** Turns the input column of a row into the tokens of its prompt, and finds the key of its randomness. */
final class PromptReader {
    private final GenerateSpec spec;
    private final InputColumns columns;
    private final UnsafeProjection projection;
    private final Function1<Object, Object> toScala;
    private final Tokenizer tokenizer;
    private final ChatTemplate template;
    private final int maxPromptTokens;
    private final int[] emptyPrompt;

    /**
     * @param template needed where the input is messages, else null
     * @param maxModelLen most tokens of prompt and completion
     */
    PromptReader(GenerateSpec spec, InputColumns columns, Tokenizer tokenizer, ChatTemplate template, int maxModelLen) {
        this.spec = spec;
        this.columns = columns;
        this.projection = columns.projection();
        this.toScala = CatalystTypeConverters.createToScalaConverter(columns.promptType());
        this.tokenizer = tokenizer;
        this.template = template;
        this.maxPromptTokens = maxModelLen - 1;
        this.emptyPrompt = tokenizer.encode("", true);
    }

    /** The tokens of a row's prompt: not empty, and with room for one more in the context. */
    int[] promptIds(InternalRow row) throws BadRowException {
        Object prompt = toScala.apply(projection.apply(row).get(0, columns.promptType()));
        if (prompt == null) {
            throw new BadRowException(Kind.NULL_PROMPT, "nothing to generate from");
        }
        int[] ids = spec.messageType() != null ? chatIds((Seq<?>) prompt) : textIds((String) prompt);
        if (ids.length == 0 || (spec.messageType() == null && Arrays.equals(ids, emptyPrompt))) {
            throw new BadRowException(Kind.EMPTY_PROMPT, "it has no token of its own", ids.length);
        }
        if (ids.length > maxPromptTokens) {
            throw new BadRowException(
                    Kind.LONG_PROMPT,
                    "%d tokens, but the context holds %d and at least one is generated"
                            .formatted(ids.length, maxPromptTokens + 1),
                    ids.length);
        }
        return ids;
    }

    /**
     * What distinguishes this row's randomness from that of others with the same seed: the value of the key column, or
     * the tokens of the prompt. Never a position or a partition, so that a row's completion does not change with how
     * the data is partitioned or with a retry.
     */
    long rowKey(InternalRow row, int[] promptIds) throws BadRowException {
        if (!columns.hasKey()) {
            return RowKey.of(promptIds);
        }
        Object key = projection.apply(row).get(1, columns.keyType());
        if (key == null) {
            throw new BadRowException(Kind.NULL_KEY, "every row needs a value in the key column", promptIds.length);
        }
        return RowKey.of(key.toString());
    }

    private int[] textIds(String text) throws BadRowException {
        return encode(text, true, Kind.BAD_PROMPT);
    }

    private int[] chatIds(Seq<?> messages) throws BadRowException {
        List<Map<String, Object>> converted = new ArrayList<>();
        for (Object message : CollectionConverters.asJava(messages)) {
            converted.add(message((Row) message, converted.size()));
        }
        if (converted.isEmpty()) {
            throw new BadRowException(Kind.BAD_MESSAGES, "the list is empty");
        }
        return encode(render(converted), false, Kind.BAD_MESSAGES);
    }

    private Map<String, Object> message(Row message, int index) throws BadRowException {
        if (message == null) {
            throw new BadRowException(Kind.BAD_MESSAGES, "message " + index + " is null");
        }
        Map<String, Object> fields = fields(message, spec.messageType());
        if (fields.containsKey("tool_calls")) {
            fields.putIfAbsent("content", null); // who only calls tools says nothing
        }
        for (String needed : List.of("role", "content")) {
            if (!fields.containsKey(needed)) {
                throw new BadRowException(Kind.BAD_MESSAGES, "message " + index + " has no " + needed);
            }
        }
        return fields;
    }

    /** Null fields are left out: a schema inferred over many messages gives each the fields of all others. */
    private static Map<String, Object> fields(Row row, StructType type) {
        Map<String, Object> fields = new LinkedHashMap<>();
        for (int i = 0; i < row.size(); i++) {
            if (!row.isNullAt(i)) {
                fields.put(type.fieldNames()[i], toJava(row.get(i), type.fields()[i].dataType()));
            }
        }
        return fields;
    }

    /** Structs, arrays and maps as a template sees them; anything else as it is. */
    private static Object toJava(Object value, DataType type) {
        if (value != null && type instanceof StructType struct) {
            return fields((Row) value, struct);
        }
        if (value != null && type instanceof ArrayType array) {
            List<Object> elements = new ArrayList<>();
            CollectionConverters.asJava((Seq<?>) value)
                    .forEach(element -> elements.add(toJava(element, array.elementType())));
            return elements;
        }
        if (value instanceof scala.collection.Map<?, ?> map && type instanceof MapType entryTypes) {
            Map<String, Object> entries = new LinkedHashMap<>();
            CollectionConverters.asJava(map)
                    .forEach((key, entry) -> entries.put(key.toString(), toJava(entry, entryTypes.valueType())));
            return entries;
        }
        return value;
    }

    private String render(List<Map<String, Object>> messages) throws BadRowException {
        Objects.requireNonNull(template, "messages need a chat template");
        try {
            return template.render(messages, true, null);
        } catch (RuntimeException e) { // whatever a template raises, it is about these messages
            throw new BadRowException(Kind.BAD_MESSAGES, "the chat template refused them: " + e.getMessage());
        }
    }

    private int[] encode(String text, boolean addSpecialTokens, Kind kind) throws BadRowException {
        try {
            return tokenizer.encode(text, addSpecialTokens);
        } catch (RuntimeException e) { // the tokenizer was good enough for the empty text: it is about this one
            throw new BadRowException(kind, "it cannot be tokenized: " + e.getMessage());
        }
    }
}
