package io.github.sparkmla.checkpoint.jinja;

import java.util.HashMap;
import java.util.Map;

/** The variables of one running function (the template, a macro, a recursive loop); macros see those around them. */
final class Env {
    /** The value of a variable that is bound but not set. */
    static final Object UNSET = new Object();

    private final Env outer;
    private final Map<String, Object> variables = new HashMap<>();

    /** {@code outer} is null for the template itself. */
    Env(Env outer) {
        this.outer = outer;
    }

    Object get(String variable) {
        for (Env env = this; env != null; env = env.outer) {
            Object value = env.variables.getOrDefault(variable, ABSENT);
            if (value != ABSENT) {
                return value;
            }
        }
        return UNSET;
    }

    void set(String variable, Object value) {
        variables.put(variable, value);
    }

    private static final Object ABSENT = new Object();
}
