package io.github.sparkmla.checkpoint.jinja;

import java.util.ArrayList;
import java.util.List;
import java.util.function.Function;

/** The dotted paths that filters look up in elements: {@code a.b.0}. */
final class AttributePath {
    private final Values values;
    private final Attributes attributes;

    AttributePath(Values values, Attributes attributes) {
        this.values = values;
        this.attributes = attributes;
    }

    /**
     * A look-up of one path; null gives the element itself.
     *
     * @param otherwise what stands in for undefined, or null for none
     */
    Function<Object, Object> of(Object path, boolean ignoreCase, Object otherwise) {
        List<Object> parts = parts(path);
        return element -> {
            Object value = element;
            for (Object part : parts) {
                value = attributes.item(value, part);
                if (otherwise != null && value instanceof Undefined) {
                    value = otherwise;
                }
            }
            return fold(value, ignoreCase);
        };
    }

    /** A look-up of several paths between commas, which gives a list. */
    Function<Object, Object> several(Object paths, boolean ignoreCase) {
        List<Function<Object, Object>> lookups = new ArrayList<>();
        if (paths instanceof String text) {
            for (String path : text.split(",", -1)) {
                lookups.add(of(path, ignoreCase, null));
            }
        } else {
            lookups.add(of(paths, ignoreCase, null));
        }
        return element -> {
            List<Object> key = new ArrayList<>();
            lookups.forEach(lookup -> key.add(lookup.apply(element)));
            values.limits.step(key.size());
            return key;
        };
    }

    static Object fold(Object value, boolean ignoreCase) {
        return ignoreCase && value instanceof String text ? Letters.lower(text) : value;
    }

    private static List<Object> parts(Object path) {
        List<Object> parts = new ArrayList<>();
        if (path instanceof String text) {
            for (String part : text.split("\\.", -1)) {
                boolean number = !part.isEmpty() && part.chars().allMatch(c -> c >= '0' && c <= '9');
                parts.add(number ? NumberParsing.toInt(part, null, 10L) : part);
            }
        } else if (path != null) {
            parts.add(path);
        }
        return parts;
    }
}
