package io.github.sparkmla.checkpoint.jinja;

import java.util.ArrayList;
import java.util.Collections;
import java.util.HashMap;
import java.util.List;
import java.util.Map;

/** Turns what the caller passes (JSON-like Java values) into the interpreter's own values. */
final class ContextValues {
    private final Limits limits;

    private ContextValues(Limits limits) {
        this.limits = limits;
    }

    /** Throws for a value of any other type than those {@link Template#render} names. */
    static Map<String, Object> convert(Map<String, Object> context, Limits limits) {
        ContextValues converter = new ContextValues(limits);
        Map<String, Object> converted = new HashMap<>();
        context.forEach((name, value) -> converted.put(name, converter.convert(name, value)));
        return converted;
    }

    private Object convert(String path, Object value) {
        limits.step(1);
        limits.enter();
        Object converted = convertOne(path, value);
        limits.leave();
        return converted;
    }

    private Object convertOne(String path, Object value) {
        if (value == null || value instanceof Boolean || value instanceof Long) {
            return value;
        } else if (value instanceof Integer number) {
            return number.longValue();
        } else if (value instanceof Double number) {
            return Numbers.finite(number);
        } else if (value instanceof String text) {
            return Text.requireWellFormed(text);
        } else if (value instanceof List<?> list) {
            List<Object> converted = new ArrayList<>(list.size());
            for (Object element : list) {
                converted.add(convert(path, element));
            }
            return Collections.unmodifiableList(converted);
        } else if (value instanceof Map<?, ?> map) {
            return dict(path, map);
        }
        throw JinjaException.error("the template variable '" + path + "' holds a "
                + value.getClass().getName()
                + "; only null, Boolean, Integer, Long, Double, String, List and Map can be rendered");
    }

    private PyTypes.Dict dict(String path, Map<?, ?> map) {
        PyTypes.Dict dict = new PyTypes.Dict();
        for (Map.Entry<?, ?> entry : map.entrySet()) {
            if (!(entry.getKey() instanceof String key)) {
                throw JinjaException.error(
                        "the template variable '" + path + "' holds a map whose keys are not strings");
            }
            dict.put(Text.requireWellFormed(key), key, convert(path, entry.getValue()));
        }
        return dict;
    }
}
