package io.github.sparkmla.spark;

/** A row that cannot be generated for, through no fault of the job. The message starts with the kind's words. */
final class BadRowException extends Exception {

    /** What may be wrong with a row. */
    enum Kind {
        NULL_PROMPT("prompt is null"),
        EMPTY_PROMPT("prompt is empty"),
        LONG_PROMPT("prompt is too long"),
        BAD_PROMPT("prompt is not usable"),
        BAD_MESSAGES("messages are not usable"),
        NULL_KEY("row key is null");

        final String words;

        Kind(String words) {
            this.words = words;
        }
    }

    private final int promptTokens;

    BadRowException(Kind kind, String detail) {
        this(kind, detail, 0);
    }

    /** With the length of the prompt, where that is known. */
    BadRowException(Kind kind, String detail, int promptTokens) {
        super(kind.words + ": " + detail);
        this.promptTokens = promptTokens;
    }

    int promptTokens() {
        return promptTokens;
    }
}
