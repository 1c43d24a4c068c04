package io.github.sparkmla.spark;

import io.github.sparkmla.engine.Completion;
import java.util.function.LongSupplier;
import org.slf4j.Logger;
import org.slf4j.LoggerFactory;

/** Counts what one task has done, and says so in the log: every ten seconds, and at the end. */
final class TaskProgress {
    private static final Logger log = LoggerFactory.getLogger(TaskProgress.class);
    private static final long PERIOD_NANOS = 10_000_000_000L;

    private final String task;
    private final LongSupplier nanoTime;
    private final long start;
    private long lastLine;
    private long rows;
    private long errors;
    private long promptTokens;
    private long outputTokens;

    /**
     * @param task how the log names it
     * @param nanoTime the clock
     */
    TaskProgress(String task, LongSupplier nanoTime) {
        this.task = task;
        this.nanoTime = nanoTime;
        this.start = nanoTime.getAsLong();
        this.lastLine = start;
    }

    void completed(Completion completion) {
        rows++;
        promptTokens += completion.promptTokens();
        outputTokens += completion.tokenIds().length;
    }

    void failed() {
        rows++;
        errors++;
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

    void finish() {
        log.info("{} ended: {}", task, summary());
    }

    String summary() {
        double seconds = (nanoTime.getAsLong() - start) / 1e9;
        return "%,d rows (%,d with errors), %,d prompt tokens, %,d output tokens in %.1f s: %,.1f output tokens/s"
                .formatted(rows, errors, promptTokens, outputTokens, seconds, outputTokens / Math.max(seconds, 1e-3));
    }
}
