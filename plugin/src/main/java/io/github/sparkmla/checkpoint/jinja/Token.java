package io.github.sparkmla.checkpoint.jinja;

/**
 * One token of a template.
 *
 * @param kind what it is
 * @param value the decoded text of DATA, NAME, STRING and OPERATOR; a Long or Double for numbers; null otherwise
 * @param line where it starts, from 1
 */
record Token(Kind kind, Object value, int line) {
    enum Kind {
        DATA("template data / text"),
        VARIABLE_BEGIN("begin of print statement"),
        VARIABLE_END("end of print statement"),
        BLOCK_BEGIN("begin of statement block"),
        BLOCK_END("end of statement block"),
        NAME("name"),
        STRING("string"),
        INTEGER("integer"),
        FLOAT("float"),
        OPERATOR("operator"),
        EOF("end of template");

        final String description;

        Kind(String description) {
            this.description = description;
        }
    }

    boolean is(Kind other) {
        return kind == other;
    }

    boolean isOperator(String symbol) {
        return kind == Kind.OPERATOR && value.equals(symbol);
    }

    boolean isName(String name) {
        return kind == Kind.NAME && value.equals(name);
    }

    String text() {
        return (String) value;
    }

    /** For error messages: the word itself where there is one. */
    String describe() {
        return kind == Kind.NAME || kind == Kind.OPERATOR ? "'" + value + "'" : "'" + kind.description + "'";
    }
}
