package io.github.sparkmla.spark;

import io.github.sparkmla.engine.Completion;
import java.util.function.LongSupplier;
import org.slf4j.Logger;
import org.slf4j.LoggerFactory;

/** Counts what one task has done, for Spark's metrics, and says so in the log: every ten seconds, and at the end. */
final class TaskProgress {
    private static final Logger log = LoggerFactory.getLogger(TaskProgress.class);
    private static final long PERIOD_NANOS = 10_000_000_000L;

    private final String task;
    private final GenerateMetrics metrics;
    private final LongSupplier nanoTime;
    private final long start;
    private long lastLine;
    private long rows;
    private long errors;
    private long promptTokens;
    private long outputTokens;
    private double kvPeak;

    /**
     * @param task how the log names it
     * @param metrics what Spark shows
     * @param nanoTime the clock
     */
    TaskProgress(String task, GenerateMetrics metrics, LongSupplier nanoTime) {
        this.task = task;
        this.metrics = metrics;
        this.nanoTime = nanoTime;
        this.start = nanoTime.getAsLong();
        this.lastLine = start;
    }

    void completed(Completion completion) {
        rows++;
        promptTokens += completion.promptTokens();
        outputTokens += completion.tokenIds().length;
        metrics.completed(completion);
    }

    void failed() {
        rows++;
        errors++;
        metrics.failed();
    }

    /** Waited for a completion; with the share of the KV cache that is in use, 0 to 1. */
    void waited(long nanos, double kvInUse) {
        metrics.waited(nanos);
        kvPeak = Math.max(kvPeak, kvInUse);
    }

    /** Rows returned so far, those with errors among them. */
    long rows() {
        return rows;
    }

    /** Logs a line when the last is ten seconds old. */
    void tick() {
        long now = nanoTime.getAsLong();
        if (now - lastLine >= PERIOD_NANOS) {
            lastLine = now;
            log.info("{}: {}", task, summary());
        }
    }

    /** The end of the task; with the preemptions of its engine that no task has counted yet. */
    void finish(long preemptions) {
        log.info("{} ended: {}", task, summary());
        metrics.finish(outputTokens / seconds(), kvPeak, preemptions);
    }

    private double seconds() {
        return Math.max((nanoTime.getAsLong() - start) / 1e9, 1e-3);
    }

    String summary() {
        double seconds = seconds();
        return "%,d rows (%,d with errors), %,d prompt tokens, %,d output tokens in %.1f s: %,.1f output tokens/s"
                .formatted(rows, errors, promptTokens, outputTokens, seconds, outputTokens / seconds);
    }
}
