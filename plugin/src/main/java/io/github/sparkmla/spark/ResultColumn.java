package io.github.sparkmla.spark;

import io.github.sparkmla.engine.Completion;
import io.github.sparkmla.engine.Completion.TokenLogprobs;
import java.util.List;
import java.util.Locale;
import org.apache.spark.sql.catalyst.InternalRow;
import org.apache.spark.sql.catalyst.expressions.GenericInternalRow;
import org.apache.spark.sql.catalyst.expressions.UnsafeArrayData;
import org.apache.spark.sql.catalyst.util.ArrayData;
import org.apache.spark.sql.catalyst.util.GenericArrayData;
import org.apache.spark.sql.types.ArrayType;
import org.apache.spark.sql.types.DataTypes;
import org.apache.spark.sql.types.StructType;
import org.apache.spark.unsafe.types.UTF8String;

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
     * The fields' values for a completion.
     *
     * @param text the detokenised completion
     * @param withLogprobs whether they were asked for; the field is null where not
     */
    static InternalRow of(String text, Completion completion, boolean withLogprobs) {
        int[] ids = completion.tokenIds();
        return row(
                UTF8String.fromString(text),
                UnsafeArrayData.fromPrimitiveArray(ids),
                UTF8String.fromString(completion.finishReason().name().toLowerCase(Locale.ROOT)),
                completion.promptTokens(),
                ids.length,
                completion.cachedTokens(),
                withLogprobs ? logprobs(ids, completion.logprobs()) : null,
                null);
    }

    /** The fields' values for a row that nothing could be generated for. */
    static InternalRow ofError(String message, int promptTokens) {
        return row(null, null, UTF8String.fromString(ERROR), promptTokens, 0, 0, null, UTF8String.fromString(message));
    }

    private static InternalRow row(Object... values) {
        return new GenericInternalRow(values);
    }

    private static ArrayData logprobs(int[] ids, List<TokenLogprobs> steps) {
        Object[] rows = new Object[ids.length];
        for (int i = 0; i < ids.length; i++) {
            TokenLogprobs step = steps.get(i);
            Object[] top = new Object[step.topIds().length];
            for (int j = 0; j < top.length; j++) {
                top[j] = row(step.topIds()[j], step.topLogprobs()[j]);
            }
            rows[i] = row(ids[i], step.logprob(), new GenericArrayData(top));
        }
        return new GenericArrayData(rows);
    }
}
