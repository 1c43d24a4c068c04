package io.github.sparkmla.checkpoint;

/** A checkpoint folder that cannot be used; the message names the file, the key or tensor, what was found and expected. */
public final class CheckpointException extends RuntimeException {
    public CheckpointException(String message) {
        super(message);
    }

    public CheckpointException(String message, Throwable cause) {
        super(message, cause);
    }
}
