package io.github.sparkmla.checkpoint.jinja;

import java.util.List;
import java.util.Map;
import java.util.Set;

/** jinja2's tests: what may stand after {@code is}. */
final class Tests {
    private static final Map<String, String> COMPARISONS = Map.ofEntries(
            Map.entry("==", "=="),
            Map.entry("eq", "=="),
            Map.entry("equalto", "=="),
            Map.entry("!=", "!="),
            Map.entry("ne", "!="),
            Map.entry(">", ">"),
            Map.entry("gt", ">"),
            Map.entry("greaterthan", ">"),
            Map.entry(">=", ">="),
            Map.entry("ge", ">="),
            Map.entry("<", "<"),
            Map.entry("lt", "<"),
            Map.entry("lessthan", "<"),
            Map.entry("<=", "<="),
            Map.entry("le", "<="));

    static final Set<String> NAMES;

    static {
        Set<String> names = new java.util.HashSet<>(COMPARISONS.keySet());
        names.addAll(List.of(
                "odd",
                "even",
                "divisibleby",
                "defined",
                "undefined",
                "filter",
                "test",
                "none",
                "boolean",
                "false",
                "true",
                "integer",
                "float",
                "lower",
                "upper",
                "string",
                "mapping",
                "number",
                "sequence",
                "iterable",
                "callable",
                "sameas",
                "escaped",
                "in"));
        NAMES = Set.copyOf(names);
    }

    private final Values values;
    private final Operators operators;

    Tests(Values values) {
        this.values = values;
        this.operators = new Operators(values);
    }

    boolean apply(String name, Object value, Arguments arguments) {
        if (!NAMES.contains(name)) {
            throw JinjaException.error("No test named '" + name + "'.");
        }
        String comparison = COMPARISONS.get(name);
        if (comparison != null) {
            return operators.compare(comparison, value, arguments.positionalOnly(name, 1, 1)[0]);
        }
        return switch (name) {
            case "divisibleby" -> isZero(operators.binary("%", value, arguments.bind(name, 1, "num")[0]));
            case "in" -> values.contains(arguments.bind(name, 1, "seq")[0], value);
            case "sameas" -> isSame(value, arguments.bind(name, 1, "other")[0]);
            default -> {
                arguments.positionalOnly(name, 0, 0);
                yield of(name, value);
            }
        };
    }

    private boolean of(String name, Object value) {
        return switch (name) {
            case "odd" -> values.equal(operators.binary("%", value, 2L), 1L);
            case "even" -> isZero(operators.binary("%", value, 2L));
            case "defined" -> !(value instanceof Undefined);
            case "undefined" -> value instanceof Undefined;
            case "filter" -> values.hashKey(value) instanceof String filter && Filters.NAMES.contains(filter);
            case "test" -> values.hashKey(value) instanceof String test && NAMES.contains(test);
            case "none" -> value == null;
            case "boolean" -> value instanceof Boolean;
            case "false" -> Boolean.FALSE.equals(value);
            case "true" -> Boolean.TRUE.equals(value);
            case "integer" -> value instanceof Long;
            case "float" -> value instanceof Double;
            case "lower" -> Letters.isAllCase(values.str(value), false);
            case "upper" -> Letters.isAllCase(values.str(value), true);
            case "string" -> value instanceof String || value instanceof PyTypes.Markup;
            case "mapping" -> value instanceof PyTypes.Dict;
            case "number" -> Numbers.isNumber(value);
            case "sequence" ->
                Values.isSized(value) && !(value instanceof PyTypes.DictView) && !(value instanceof LoopContext);
            case "iterable" -> Values.isIterable(value);
            case "callable" -> value instanceof PyTypes.Callable || value instanceof Undefined;
            default -> value instanceof PyTypes.Markup;
        };
    }

    private boolean isZero(Object number) {
        return values.equal(number, 0L);
    }

    /** Identity is defined for singletons; for other values it would depend on Python's own caches. */
    private static boolean isSame(Object value, Object other) {
        if (isSingleton(value) || isSingleton(other)) {
            return value == other || (value != null && value.equals(other));
        }
        throw JinjaException.unsupported("the test 'sameas' on values other than none, true and false");
    }

    private static boolean isSingleton(Object value) {
        return value == null || value instanceof Boolean;
    }
}
