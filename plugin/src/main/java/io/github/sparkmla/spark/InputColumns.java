package io.github.sparkmla.spark;

import java.io.Serializable;
import org.apache.spark.sql.catalyst.expressions.Attribute;
import org.apache.spark.sql.catalyst.expressions.Expression;
import org.apache.spark.sql.catalyst.expressions.UnsafeProjection;
import org.apache.spark.sql.types.DataType;
import scala.collection.immutable.Seq;

/**
 * Where a row has its prompt and its key.
 *
 * @param prompt the column of prompts or messages
 * @param key the column that keys a row's randomness, or none where the prompt does
 * @param input the columns of a row
 */
record InputColumns(Expression prompt, Seq<Expression> key, Seq<Attribute> input) implements Serializable {

    DataType promptType() {
        return prompt.dataType();
    }

    boolean hasKey() {
        return !key.isEmpty();
    }

    DataType keyType() {
        return key.head().dataType();
    }

    /** Makes of a row one with the prompt first and then the key, if there is one. For one thread. */
    UnsafeProjection projection() {
        return UnsafeProjection.create(ScalaSeq.concat(ScalaSeq.of(prompt), key), input);
    }
}
