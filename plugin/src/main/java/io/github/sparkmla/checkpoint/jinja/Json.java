package io.github.sparkmla.checkpoint.jinja;

import java.util.ArrayList;
import java.util.Comparator;
import java.util.List;
import java.util.Map;

/** {@code json.dumps} as transformers' tojson filter calls it. */
final class Json {
    private final Values values;
    private final boolean ensureAscii;
    private final String indent;
    private final String itemSeparator;
    private final String keySeparator;
    private final boolean sortKeys;
    private final StringBuilder out = new StringBuilder();

    private Json(Values values, Object ensureAscii, Object indent, Object separators, Object sortKeys) {
        this.values = values;
        this.ensureAscii = values.truth(ensureAscii);
        this.indent = indentation(indent);
        this.sortKeys = values.truth(sortKeys);
        if (separators == null) {
            this.itemSeparator = this.indent == null ? ", " : ",";
            this.keySeparator = ": ";
        } else {
            List<Object> pair = values.list(separators);
            if (pair.size() != 2 || !(pair.get(0) instanceof String) || !(pair.get(1) instanceof String)) {
                throw JinjaException.error("tojson needs two strings as separators");
            }
            this.itemSeparator = (String) pair.get(0);
            this.keySeparator = (String) pair.get(1);
        }
    }

    /** {@code value|tojson(ensure_ascii, indent, separators, sort_keys)}. */
    static String dumps(Values values, Object value, Arguments arguments) {
        Object[] bound = arguments.bind("tojson", 0, "ensure_ascii", "indent", "separators", "sort_keys");
        Json json = new Json(
                values,
                Arguments.orDefault(bound[0], false),
                Arguments.orDefault(bound[1], null),
                Arguments.orDefault(bound[2], null),
                Arguments.orDefault(bound[3], false));
        json.write(value, 0);
        return json.out.toString();
    }

    private String indentation(Object indent) {
        if (indent == null) {
            return null;
        }
        if (indent instanceof String text) {
            return text;
        }
        if (!Numbers.isInt(indent)) {
            throw JinjaException.error("tojson needs an integer or a string as indent");
        }
        long width = Math.max(0, Numbers.toLong(indent));
        values.limits.allocate(width);
        return " ".repeat((int) width);
    }

    private void write(Object value, int depth) {
        values.limits.step(1);
        values.limits.enter();
        if (value == null) {
            out.append("null");
        } else if (value instanceof Boolean || value instanceof Long) {
            out.append(value);
        } else if (value instanceof Double number) {
            out.append(Numbers.repr(number));
        } else if (value instanceof String text) {
            string(text);
        } else if (value instanceof PyTypes.Markup markup) {
            string(markup.text());
        } else if (value instanceof List || value instanceof PyTypes.Tuple) {
            array(Values.elements(value), depth);
        } else if (value instanceof PyTypes.Dict dict) {
            object(dict, depth);
        } else {
            throw JinjaException.error("Object of type " + PyTypes.name(value) + " is not JSON serializable");
        }
        values.limits.leave();
        if (out.length() > Limits.MAX_OUTPUT) {
            values.limits.allocate(out.length());
        }
    }

    private void array(List<Object> elements, int depth) {
        if (elements.isEmpty()) {
            out.append("[]");
            return;
        }
        out.append('[');
        boolean first = true;
        for (Object element : elements) {
            separate(first, depth + 1);
            first = false;
            write(element, depth + 1);
        }
        newline(depth);
        out.append(']');
    }

    private void object(PyTypes.Dict dict, int depth) {
        if (dict.size() == 0) {
            out.append("{}");
            return;
        }
        List<Map.Entry<Object, Object>> entries = new ArrayList<>(dict.entries());
        if (sortKeys) {
            entries.sort(Comparator.comparing(Map.Entry::getKey, values.order()));
        }
        out.append('{');
        boolean first = true;
        for (Map.Entry<Object, Object> entry : entries) {
            separate(first, depth + 1);
            first = false;
            string(key(entry.getKey()));
            out.append(keySeparator);
            write(entry.getValue(), depth + 1);
        }
        newline(depth);
        out.append('}');
    }

    private static String key(Object key) {
        if (key instanceof String text) {
            return text;
        }
        if (key == null) {
            return "null";
        }
        if (key instanceof Double number) {
            return Numbers.repr(number);
        }
        if (key instanceof Boolean || key instanceof Long) {
            return key.toString();
        }
        throw JinjaException.error("keys must be str, int, float, bool or None, not " + PyTypes.name(key));
    }

    private void separate(boolean first, int depth) {
        if (!first) {
            out.append(itemSeparator);
        }
        newline(depth);
    }

    private void newline(int depth) {
        if (indent != null) {
            values.limits.allocate((long) indent.length() * depth);
            out.append('\n').append(indent.repeat(depth));
        }
    }

    private void string(String text) {
        values.limits.allocate(text.length());
        out.append('"');
        for (int i = 0; i < text.length(); i++) {
            char c = text.charAt(i);
            switch (c) {
                case '"' -> out.append("\\\"");
                case '\\' -> out.append("\\\\");
                case '\n' -> out.append("\\n");
                case '\r' -> out.append("\\r");
                case '\t' -> out.append("\\t");
                case '\f' -> out.append("\\f");
                case '\b' -> out.append("\\b");
                default -> {
                    if (c < 0x20 || (ensureAscii && c > 0x7e)) {
                        out.append(String.format("\\u%04x", (int) c));
                    } else {
                        out.append(c);
                    }
                }
            }
        }
        out.append('"');
    }
}
