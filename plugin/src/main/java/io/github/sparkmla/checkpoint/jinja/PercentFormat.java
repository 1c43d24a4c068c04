package io.github.sparkmla.checkpoint.jinja;

import java.util.List;

/** {@code format % value}: the conversions s, r, d, i, f, x, X, o, c and %; other ones are refused. */
final class PercentFormat {
    private final Values values;
    private final String format;
    private final Object value;
    private final List<Object> positional;
    private final StringBuilder out = new StringBuilder();
    private int at = 0;
    private int used = 0;

    PercentFormat(Values values, String format, Object value) {
        this.values = values;
        this.format = format;
        this.value = value;
        this.positional =
                value instanceof PyTypes.Tuple tuple ? tuple.items : java.util.Collections.singletonList(value);
    }

    String render() {
        while (at < format.length()) {
            char c = format.charAt(at++);
            if (c == '%') {
                conversion();
            } else {
                out.append(c);
            }
        }
        boolean mapping = value instanceof PyTypes.Dict || value instanceof List || value instanceof PyTypes.Range;
        if (used < positional.size() && !mapping) {
            throw JinjaException.error("not all arguments converted during string formatting");
        }
        return out.toString();
    }

    private void conversion() {
        boolean named = peek() == '(';
        Object argument = named ? mapped() : null;
        FormatSpec spec = new FormatSpec(values);
        while ("-+ 0#".indexOf(peek()) >= 0) {
            char flag = format.charAt(at++);
            switch (flag) {
                case '-' -> spec.leftAlign();
                case '+' -> spec.sign = '+';
                case '0' -> spec.zeroPad();
                case ' ' -> spec.sign = spec.sign == '+' ? '+' : ' ';
                default -> throw JinjaException.unsupported("the flag # in a % format");
            }
        }
        spec.width = number();
        if (peek() == '.') {
            at++;
            spec.precision = Math.max(0, number());
        }
        char type = peek();
        at++;
        if (type == '%') {
            out.append('%');
            return;
        }
        if (type == 0) {
            throw JinjaException.error("incomplete format");
        }
        out.append(spec.percent(type, named ? argument : next()));
    }

    private Object mapped() {
        int close = format.indexOf(')', at);
        if (close < 0) {
            throw JinjaException.error("incomplete format key");
        }
        String key = format.substring(at + 1, close);
        if (!(value instanceof PyTypes.Dict dict)) {
            throw JinjaException.error("format requires a mapping");
        }
        if (key.indexOf('(') >= 0) {
            throw JinjaException.unsupported("parentheses in the key of a % format");
        }
        if (!dict.contains(key)) {
            throw JinjaException.error("KeyError: '" + key + "'");
        }
        at = close + 1;
        return dict.get(key);
    }

    private Object next() {
        if (used >= positional.size()) {
            throw JinjaException.error("not enough arguments for format string");
        }
        return positional.get(used++);
    }

    /** Digits here, or -1. */
    private int number() {
        int start = at;
        while (peek() >= '0' && peek() <= '9') {
            at++;
        }
        if (at - start > 6) {
            throw JinjaException.unsupported("such a wide % format");
        }
        return at == start ? -1 : Integer.parseInt(format.substring(start, at));
    }

    private char peek() {
        return at < format.length() ? format.charAt(at) : 0;
    }
}
