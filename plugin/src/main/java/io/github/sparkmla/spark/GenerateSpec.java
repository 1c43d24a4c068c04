package io.github.sparkmla.spark;

import io.github.sparkmla.engine.SamplingParams;
import java.io.Serializable;
import org.apache.spark.sql.types.StructType;

/**
 * What a task must know to generate for its rows; made on the driver, where everything in it was checked.
 *
 * @param model folder of the checkpoint, the same on every executor
 * @param conf the session's {@code spark.mla.*} settings
 * @param messageType a message, where the input is a conversation; null where it is a plain prompt
 * @param decoding how to decode
 * @param failOnError whether a row that cannot be generated for fails the job
 */
record GenerateSpec(String model, MlaConf conf, StructType messageType, Decoding decoding, boolean failOnError)
        implements Serializable {

    /** {@link SamplingParams} in a form that Spark can ship. */
    record Decoding(
            int maxTokens, double temperature, int topK, double topP, long seed, int logprobs, boolean ignoreEos)
            implements Serializable {

        /** Throws IllegalArgumentException, naming the parameter, for a value out of range. */
        SamplingParams toSamplingParams() {
            return new SamplingParams(maxTokens, (float) temperature, topK, (float) topP, seed, logprobs, ignoreEos);
        }
    }
}
