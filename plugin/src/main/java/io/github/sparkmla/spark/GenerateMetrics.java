package io.github.sparkmla.spark;

import io.github.sparkmla.engine.Completion;
import java.io.Serializable;
import java.util.Arrays;
import java.util.EnumMap;
import java.util.function.BiFunction;
import java.util.function.Function;
import org.apache.spark.SparkContext;
import org.apache.spark.sql.execution.metric.SQLMetric;
import org.apache.spark.sql.execution.metric.SQLMetrics;
import scala.Tuple2;
import scala.collection.immutable.Map;

/** What Spark's UI shows at the operator. Made on the driver; every task adds to its own copy. */
final class GenerateMetrics implements Serializable {
    private static final long serialVersionUID = 1L;

    enum Metric {
        ROWS("numOutputRows", "number of output rows", SQLMetrics::createMetric),
        ERRORS("numErrors", "rows with an error", SQLMetrics::createMetric),
        PROMPT_TOKENS("promptTokens", "prompt tokens", SQLMetrics::createMetric),
        OUTPUT_TOKENS("outputTokens", "output tokens", SQLMetrics::createMetric),
        RATE("tokensPerSecond", "output tokens/s of a task", SQLMetrics::createAverageMetric),
        KV_PEAK("kvPeak", "KV cache in use at the peak, percent", SQLMetrics::createAverageMetric),
        PREEMPTIONS("preemptions", "preempted sequences", SQLMetrics::createMetric),
        LOAD_TIME("loadTime", "time waiting for the model to load", GenerateMetrics::nanos),
        WAIT_TIME("waitTime", "time waiting for the engine", GenerateMetrics::nanos);

        final String name;
        final String words;
        final BiFunction<SparkContext, String, SQLMetric> create;

        Metric(String name, String words, BiFunction<SparkContext, String, SQLMetric> create) {
            this.name = name;
            this.words = words;
            this.create = create;
        }
    }

    private final EnumMap<Metric, SQLMetric> metrics = new EnumMap<>(Metric.class);

    /** Registers them with Spark. */
    GenerateMetrics(SparkContext context) {
        this(metric -> metric.create.apply(context, metric.words));
    }

    GenerateMetrics(Function<Metric, SQLMetric> create) {
        for (Metric metric : Metric.values()) {
            metrics.put(metric, create.apply(metric));
        }
    }

    private static SQLMetric nanos(SparkContext context, String words) {
        return SQLMetrics.createNanoTimingMetric(context, words, SQLMetrics.createNanoTimingMetric$default$3());
    }

    /** By the names that Spark knows them by. */
    Map<String, SQLMetric> byName() {
        return Map.from(ScalaSeq.of(Arrays.stream(Metric.values())
                .map(metric -> new Tuple2<>(metric.name, metrics.get(metric)))
                .toList()));
    }

    void completed(Completion completion) {
        add(Metric.ROWS, 1);
        add(Metric.PROMPT_TOKENS, completion.promptTokens());
        add(Metric.OUTPUT_TOKENS, completion.tokenIds().length);
    }

    void failed() {
        add(Metric.ROWS, 1);
        add(Metric.ERRORS, 1);
    }

    void loaded(long nanos) {
        add(Metric.LOAD_TIME, nanos);
    }

    void waited(long nanos) {
        add(Metric.WAIT_TIME, nanos);
    }

    /** At the end of a task. */
    void finish(double tokensPerSecond, double kvPeak, long preemptions) {
        metrics.get(Metric.RATE).set(tokensPerSecond);
        metrics.get(Metric.KV_PEAK).set(100 * kvPeak);
        add(Metric.PREEMPTIONS, preemptions);
    }

    private void add(Metric metric, long value) {
        metrics.get(metric).add(value);
    }
}
