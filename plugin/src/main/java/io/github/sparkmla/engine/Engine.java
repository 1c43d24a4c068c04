package io.github.sparkmla.engine;

import java.nio.file.Path;
import java.util.concurrent.CompletableFuture;

/** Placeholder: the signatures that the Spark layer builds on. */
public final class Engine implements AutoCloseable {
    /** Loads a checkpoint folder and starts the engine thread. Throws with a clear message on a bad checkpoint. */
    public static Engine load(Path folder, EngineSettings settings) {
        throw new UnsupportedOperationException(folder + " " + settings);
    }

    /**
     * Queues a request; thread-safe. Throws IllegalArgumentException at once for a request that can never run (empty
     * prompt, prompt longer than the context, token id out of the vocabulary). The future completes with the
     * completion, or exceptionally when the engine died; cancelling it frees the sequence within one step.
     */
    public CompletableFuture<Completion> submit(Request request) {
        throw new UnsupportedOperationException(request.toString());
    }

    /** Longest prompt plus completion, in tokens. */
    public int maxModelLen() {
        throw new UnsupportedOperationException();
    }

    /** Whether no request is queued or running. */
    public boolean isIdle() {
        throw new UnsupportedOperationException();
    }

    /** Stops the thread, fails what is left, frees all native memory. */
    @Override
    public void close() {}
}
