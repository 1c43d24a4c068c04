package io.github.sparkmla.checkpoint.jinja;

/**
 * A template that cannot be parsed or rendered, or that uses something this interpreter does not render exactly as
 * jinja2 does. The message names the construct and its line; for {@code raise_exception(message)} it is exactly that
 * message.
 */
public final class JinjaException extends RuntimeException {
    private final boolean located;

    private JinjaException(String message, boolean located) {
        super(message);
        this.located = located;
    }

    /** What jinja2 would raise as well, the line still to be added by {@link #at}. */
    static JinjaException error(String message) {
        return new JinjaException(message, false);
    }

    /** What jinja2 accepts and we do not, the line still to be added by {@link #at}. */
    static JinjaException unsupported(String construct) {
        return new JinjaException(
                "not supported by Spark MLA's chat templates: " + construct + "; pass prompts already rendered instead",
                false);
    }

    /** The template's own words: no line is added. */
    static JinjaException raised(String message) {
        return new JinjaException(message, true);
    }

    /** The same failure with the line it happened on; a line already known is kept. */
    JinjaException at(int line) {
        if (located) {
            return this;
        }
        JinjaException placed = new JinjaException("line " + line + ": " + getMessage(), true);
        placed.setStackTrace(getStackTrace());
        return placed;
    }
}
