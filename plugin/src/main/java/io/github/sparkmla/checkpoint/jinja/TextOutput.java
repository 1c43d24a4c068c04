package io.github.sparkmla.checkpoint.jinja;

/** Where statements write to: the rendering itself or the buffer of a block. */
final class TextOutput {
    private final Limits limits;
    private final StringBuilder text = new StringBuilder();

    TextOutput(Limits limits) {
        this.limits = limits;
    }

    void write(String part) {
        if (text.length() + (long) part.length() > Limits.MAX_OUTPUT) {
            limits.allocate(text.length() + (long) part.length());
        }
        limits.allocate(part.length());
        text.append(part);
    }

    String text() {
        return text.toString();
    }
}
