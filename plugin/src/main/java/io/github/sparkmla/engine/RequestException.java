package io.github.sparkmla.engine;

/** What made one request fail, through no fault of the engine: the others go on. */
public final class RequestException extends RuntimeException {
    private static final long serialVersionUID = 1L;

    private final int promptTokens;

    RequestException(int promptTokens, String message) {
        super(message);
        this.promptTokens = promptTokens;
    }

    /** Length of the request's prompt. */
    public int promptTokens() {
        return promptTokens;
    }
}
