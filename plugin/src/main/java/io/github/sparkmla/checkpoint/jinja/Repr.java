package io.github.sparkmla.checkpoint.jinja;

import java.util.List;
import java.util.Map;

/** {@code repr()}: how Python writes a value inside of a container. */
final class Repr {
    private final Values values;
    private final StringBuilder out = new StringBuilder();

    Repr(Values values) {
        this.values = values;
    }

    String of(Object value) {
        write(value);
        return out.toString();
    }

    private void write(Object value) {
        int before = out.length();
        values.limits.enter();
        values.limits.step(1);
        if (value == null) {
            out.append("None");
        } else if (value instanceof Boolean flag) {
            out.append(flag ? "True" : "False");
        } else if (value instanceof Long) {
            out.append(value);
        } else if (value instanceof Double number) {
            out.append(Numbers.repr(number));
        } else if (value instanceof String text) {
            string(text);
        } else if (value instanceof List<?> list) {
            elements("[", list, "]");
        } else if (value instanceof PyTypes.Tuple tuple) {
            elements("(", tuple.items, tuple.items.size() == 1 ? ",)" : ")");
        } else if (value instanceof PyTypes.Dict dict) {
            dict(dict);
        } else if (value instanceof PyTypes.DictView view) {
            elements(view.type() + "([", view.elements(), "])");
        } else if (value instanceof PyTypes.Range range) {
            range(range);
        } else if (value instanceof PyTypes.Namespace namespace) {
            out.append("<Namespace ");
            dict(namespace.attributes());
            out.append('>');
        } else if (value instanceof PyTypes.Markup markup) {
            out.append("Markup(");
            string(markup.text());
            out.append(')');
        } else if (value instanceof Undefined) {
            out.append("Undefined");
        } else if (value instanceof Macro macro) {
            out.append(macro.describe());
        } else if (value instanceof LoopContext loop) {
            out.append("<LoopContext ")
                    .append(loop.index0() + 1)
                    .append('/')
                    .append(loop.length())
                    .append('>');
        } else {
            throw JinjaException.unsupported("printing a " + PyTypes.name(value));
        }
        values.limits.leave();
        if (out.length() - before > 0 && out.length() > Limits.MAX_OUTPUT) {
            values.limits.allocate(out.length());
        }
    }

    private void elements(String open, List<?> elements, String close) {
        out.append(open);
        boolean first = true;
        for (Object element : elements) {
            if (!first) {
                out.append(", ");
            }
            first = false;
            write(element);
        }
        out.append(close);
    }

    private void dict(PyTypes.Dict dict) {
        out.append('{');
        boolean first = true;
        for (Map.Entry<Object, Object> entry : dict.entries()) {
            if (!first) {
                out.append(", ");
            }
            first = false;
            write(entry.getKey());
            out.append(": ");
            write(entry.getValue());
        }
        out.append('}');
    }

    private void range(PyTypes.Range range) {
        out.append("range(").append(range.start()).append(", ").append(range.stop());
        if (range.step() != 1) {
            out.append(", ").append(range.step());
        }
        out.append(')');
    }

    private void string(String text) {
        values.limits.allocate(text.length());
        char quote = text.indexOf('\'') >= 0 && text.indexOf('"') < 0 ? '"' : '\'';
        out.append(quote);
        text.codePoints().forEach(c -> character(c, quote));
        out.append(quote);
    }

    private void character(int c, char quote) {
        switch (c) {
            case '\n' -> out.append("\\n");
            case '\r' -> out.append("\\r");
            case '\t' -> out.append("\\t");
            default -> {
                if (c == quote || c == '\\') {
                    out.append('\\').append((char) c);
                } else if (Letters.isPrintable(c)) {
                    out.appendCodePoint(c);
                } else if (c < 0x100) {
                    out.append(String.format("\\x%02x", c));
                } else if (c < 0x10000) {
                    out.append(String.format("\\u%04x", c));
                } else {
                    out.append(String.format("\\U%08x", c));
                }
            }
        }
    }
}
