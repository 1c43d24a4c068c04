package io.github.sparkmla.spark;

import java.util.concurrent.CompletableFuture;
import java.util.concurrent.ExecutionException;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.TimeoutException;

/** How a task thread waits: in Java, and never long without looking whether it was killed. */
final class Waiting {
    private static final long POLL_MILLIS = 100;

    private Waiting() {}

    /** What a future failed with, in words. Errors of the JVM need their name to be understood. */
    static String describe(Throwable cause) {
        return cause instanceof Exception && cause.getMessage() != null ? cause.getMessage() : cause.toString();
    }

    /**
     * The value of a future.
     *
     * @param poll called at least every 100 ms; what it throws ends the wait
     * @throws ExecutionException what the future failed with
     */
    static <T> T await(CompletableFuture<T> future, Runnable poll) throws ExecutionException {
        while (true) {
            poll.run();
            try {
                return future.get(POLL_MILLIS, TimeUnit.MILLISECONDS);
            } catch (TimeoutException stillWaiting) {
                // poll, and wait on
            } catch (InterruptedException e) {
                Thread.currentThread().interrupt();
                poll.run(); // Spark interrupts a task that it kills: say so rather than the below
                throw new IllegalStateException("interrupted while waiting for the engine", e);
            }
        }
    }
}
