package io.github.sparkmla.spark;

import io.github.sparkmla.engine.Completion;
import io.github.sparkmla.engine.Completion.TokenLogprobs;
import java.util.List;
import java.util.Locale;
import org.apache.spark.sql.Row;
import org.apache.spark.sql.catalyst.expressions.GenericRowWithSchema;
import org.apache.spark.sql.types.ArrayType;
import org.apache.spark.sql.types.DataTypes;
import org.apache.spark.sql.types.StructType;
import scala.collection.immutable.ArraySeq;

/** The struct column that holds what was generated for a row. */
final class ResultColumn {
    /** A row that could not be generated for: {@code error} says why, the other text and token fields are null. */
    static final String ERROR = "error";

    private static final StructType TOP =
            new StructType().add("token_id", DataTypes.IntegerType, false).add("logprob", DataTypes.FloatType, false);

    private static final StructType LOGPROBS = TOP.add("top", array(TOP), false);

    static final StructType TYPE = new StructType()
            .add("text", DataTypes.StringType)
            .add("token_ids", DataTypes.createArrayType(DataTypes.IntegerType, false))
            .add("finish_reason", DataTypes.StringType, false)
            .add("prompt_tokens", DataTypes.IntegerType, false)
            .add("completion_tokens", DataTypes.IntegerType, false)
            .add("cached_tokens", DataTypes.IntegerType, false)
            .add("logprobs", array(LOGPROBS))
            .add(ERROR, DataTypes.StringType);

    private ResultColumn() {}

    private static ArrayType array(StructType element) {
        return DataTypes.createArrayType(element, false);
    }

    /**
     * The value for a completion.
     *
     * @param text the detokenised completion
     * @param withLogprobs whether they were asked for; the field is null where not
     */
    static Row of(String text, Completion completion, boolean withLogprobs) {
        int[] ids = completion.tokenIds();
        return row(
                TYPE,
                text,
                new ArraySeq.ofInt(ids),
                completion.finishReason().name().toLowerCase(Locale.ROOT),
                completion.promptTokens(),
                ids.length,
                completion.cachedTokens(),
                withLogprobs ? logprobs(ids, completion.logprobs()) : null,
                null);
    }

    /** The value for a row that nothing could be generated for. */
    static Row ofError(String message, int promptTokens) {
        return row(TYPE, null, null, ERROR, promptTokens, 0, 0, null, message);
    }

    /** A row that knows its fields by name: a typed operation after ours may get it as it is. */
    static Row row(StructType type, Object... values) {
        return new GenericRowWithSchema(values, type);
    }

    private static ArraySeq<Row> logprobs(int[] ids, List<TokenLogprobs> steps) {
        Row[] rows = new Row[ids.length];
        for (int i = 0; i < ids.length; i++) {
            TokenLogprobs step = steps.get(i);
            Row[] top = new Row[step.topIds().length];
            for (int j = 0; j < top.length; j++) {
                top[j] = row(TOP, step.topIds()[j], step.topLogprobs()[j]);
            }
            rows[i] = row(LOGPROBS, ids[i], step.logprob(), new ArraySeq.ofRef<>(top));
        }
        return new ArraySeq.ofRef<>(rows);
    }
}
