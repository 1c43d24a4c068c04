package io.github.sparkmla.checkpoint.jinja;

import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;

/** The arguments of one call, positional and named. */
record Arguments(List<Object> positional, Map<String, Object> named) {
    static final Arguments NONE = new Arguments(List.of(), Map.of());

    /** Stands for an argument that was not given. */
    static final Object MISSING = new Object();

    static Arguments of(Object... positional) {
        return new Arguments(java.util.Arrays.asList(positional), Map.of());
    }

    /**
     * The arguments by parameter, MISSING where not given.
     *
     * @param required how many of the parameters must be given
     */
    Object[] bind(String function, int required, String... parameters) {
        if (positional.size() > parameters.length) {
            throw JinjaException.error(
                    function + "() takes " + parameters.length + " arguments but " + positional.size() + " were given");
        }
        Object[] bound = new Object[parameters.length];
        Map<String, Object> left = new LinkedHashMap<>(named);
        for (int i = 0; i < parameters.length; i++) {
            boolean isNamed = left.containsKey(parameters[i]);
            if (i < positional.size() && isNamed) {
                throw JinjaException.error(function + "() got multiple values for argument '" + parameters[i] + "'");
            }
            bound[i] = i < positional.size() ? positional.get(i) : isNamed ? left.remove(parameters[i]) : MISSING;
            if (bound[i] == MISSING && i < required) {
                throw JinjaException.error(function + "() missing required argument: '" + parameters[i] + "'");
            }
        }
        if (!left.isEmpty()) {
            throw JinjaException.error(function + "() got an unexpected keyword argument '"
                    + left.keySet().iterator().next() + "'");
        }
        return bound;
    }

    /** For functions that take no names: {@code bind} by position only. */
    Object[] positionalOnly(String function, int required, int most) {
        if (!named.isEmpty()) {
            throw JinjaException.error(function + "() takes no keyword arguments");
        }
        if (positional.size() < required || positional.size() > most) {
            throw JinjaException.error(
                    function + "() takes " + required + " to " + most + " arguments, " + positional.size() + " given");
        }
        Object[] bound = new Object[most];
        for (int i = 0; i < most; i++) {
            bound[i] = i < positional.size() ? positional.get(i) : MISSING;
        }
        return bound;
    }

    static Object orDefault(Object argument, Object value) {
        return argument == MISSING ? value : argument;
    }
}
