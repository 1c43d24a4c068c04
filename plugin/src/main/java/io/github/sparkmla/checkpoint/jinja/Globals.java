package io.github.sparkmla.checkpoint.jinja;

import java.time.Clock;
import java.time.LocalDateTime;
import java.util.Iterator;
import java.util.List;
import java.util.Map;

/** The functions that every template knows: jinja2's own and those that transformers adds. */
final class Globals {
    private final Values values;

    private Globals(Values values) {
        this.values = values;
    }

    static Map<String, PyTypes.Callable> of(Values values, Clock clock) {
        Globals globals = new Globals(values);
        return Map.of(
                "range", globals::range,
                "dict", globals::dict,
                "namespace", arguments -> new PyTypes.Namespace(globals.dict(arguments)),
                "cycler", globals::cycler,
                "joiner", globals::joiner,
                "lipsum",
                        arguments -> {
                            throw JinjaException.unsupported("lipsum()");
                        },
                "raise_exception", globals::raise,
                "strftime_now",
                        arguments -> {
                            Object format = arguments.bind("strftime_now", 1, "format")[0];
                            return Strftime.format(LocalDateTime.now(clock), requireString("strftime_now", format));
                        });
    }

    private static String requireString(String function, Object value) {
        if (value instanceof String text) {
            return text;
        }
        throw JinjaException.error(function + "() argument must be str, not " + PyTypes.name(value));
    }

    private Object raise(Arguments arguments) {
        Object message = arguments.bind("raise_exception", 1, "message")[0];
        throw JinjaException.raised(values.str(message));
    }

    private Object range(Arguments arguments) {
        Object[] bound = arguments.positionalOnly("range", 1, 3);
        long[] bounds = new long[3];
        for (int i = 0; i < 3; i++) {
            if (bound[i] != Arguments.MISSING && !Numbers.isInt(bound[i])) {
                throw JinjaException.error(
                        "'" + PyTypes.name(bound[i]) + "' object cannot be interpreted as an integer");
            }
            bounds[i] = bound[i] == Arguments.MISSING ? 1 : Numbers.toLong(bound[i]);
        }
        PyTypes.Range range = bound[1] == Arguments.MISSING
                ? new PyTypes.Range(0, bounds[0], 1)
                : new PyTypes.Range(bounds[0], bounds[1], bounds[2]);
        values.limits.step(values.length(range) / 8);
        return range;
    }

    private PyTypes.Dict dict(Arguments arguments) {
        PyTypes.Dict dict = new PyTypes.Dict();
        if (arguments.positional().size() > 1) {
            throw JinjaException.error("dict expected at most 1 argument");
        }
        for (Object source : arguments.positional()) {
            if (source instanceof Undefined undefined) {
                throw undefined.error();
            } else if (source instanceof PyTypes.Dict other) {
                other.entries()
                        .forEach(entry -> dict.put(values.hashKey(entry.getKey()), entry.getKey(), entry.getValue()));
            } else {
                putPairs(dict, values.iterate(source));
            }
        }
        arguments.named().forEach((key, value) -> dict.put(key, key, value));
        return dict;
    }

    private void putPairs(PyTypes.Dict dict, Iterator<Object> pairs) {
        while (pairs.hasNext()) {
            List<Object> pair = values.list(pairs.next());
            if (pair.size() != 2) {
                throw JinjaException.error(
                        "dictionary update sequence element has length " + pair.size() + "; 2 is required");
            }
            dict.put(values.hashKey(pair.get(0)), pair.get(0), pair.get(1));
        }
    }

    private Object cycler(Arguments arguments) {
        if (arguments.positional().isEmpty() || !arguments.named().isEmpty()) {
            throw JinjaException.error("at least one item has to be provided");
        }
        return new PyTypes.Cycler(arguments.positional());
    }

    /** A function that gives nothing the first time and the separator from then on. */
    private Object joiner(Arguments arguments) {
        Object separator = Arguments.orDefault(arguments.bind("joiner", 0, "sep")[0], ", ");
        boolean[] used = {false};
        return (PyTypes.Callable) inner -> {
            inner.positionalOnly("joiner", 0, 0);
            Object result = used[0] ? separator : "";
            used[0] = true;
            return result;
        };
    }
}
