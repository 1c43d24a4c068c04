package io.github.sparkmla.checkpoint.jinja;

import java.util.regex.Matcher;
import java.util.regex.Pattern;

/** {@code str.format}: fields by position or name with simple specifications; nested fields and look-ups are refused. */
final class BraceFormat {
    private static final Pattern SPEC = Pattern.compile(
            "(?:(?<fill>[^{}])?(?<align>[<>^=]))?(?<sign>[-+ ])?(?<zero>0)?(?<width>[1-9][0-9]{0,5})?(?<group>,)?"
                    + "(?:\\.(?<precision>[0-9]{1,3}))?(?<type>[a-zA-Z%])?");

    private final Values values;
    private final String format;
    private final Arguments arguments;
    private final StringBuilder out = new StringBuilder();
    private int automatic = 0;
    private boolean numbered = false;

    BraceFormat(Values values, String format, Arguments arguments) {
        this.values = values;
        this.format = format;
        this.arguments = arguments;
    }

    String render() {
        int at = 0;
        while (at < format.length()) {
            char c = format.charAt(at);
            boolean doubled = at + 1 < format.length() && format.charAt(at + 1) == c;
            if ((c == '{' || c == '}') && doubled) {
                out.append(c);
                at += 2;
            } else if (c == '{') {
                int close = format.indexOf('}', at);
                if (close < 0) {
                    throw JinjaException.error("expected '}' before end of string");
                }
                String field = format.substring(at + 1, close);
                if (field.indexOf('{') >= 0) {
                    throw JinjaException.unsupported("nested fields in str.format");
                }
                field(field);
                at = close + 1;
            } else if (c == '}') {
                throw JinjaException.error("Single '}' encountered in format string");
            } else {
                out.append(c);
                at++;
            }
        }
        return out.toString();
    }

    private void field(String field) {
        int colon = field.indexOf(':');
        String head = colon < 0 ? field : field.substring(0, colon);
        String spec = colon < 0 ? "" : field.substring(colon + 1);
        int bang = head.indexOf('!');
        Object value = argument(bang < 0 ? head : head.substring(0, bang));
        if (bang >= 0) {
            String conversion = head.substring(bang + 1);
            if (!conversion.equals("r") && !conversion.equals("s")) {
                throw JinjaException.unsupported("the conversion !" + conversion);
            }
            value = conversion.equals("r") ? values.repr(value) : values.str(value);
        }
        out.append(spec.isEmpty() ? values.str(value) : formatted(spec, value));
        values.limits.allocate(out.length());
    }

    private Object argument(String name) {
        if (name.isEmpty() || name.chars().allMatch(c -> c >= '0' && c <= '9')) {
            if (!name.isEmpty()) {
                numbered = true;
            }
            if ((numbered && (automatic > 0 || name.isEmpty())) || name.length() > 4) {
                throw JinjaException.error("cannot mix numbered and automatic fields");
            }
            int index = name.isEmpty() ? automatic++ : Integer.parseInt(name);
            if (index >= arguments.positional().size()) {
                throw JinjaException.error("Replacement index " + index + " out of range for positional args tuple");
            }
            return arguments.positional().get(index);
        }
        if (name.indexOf('.') >= 0 || name.indexOf('[') >= 0) {
            throw JinjaException.unsupported("look-ups inside the fields of str.format");
        }
        if (!arguments.named().containsKey(name)) {
            throw JinjaException.error("KeyError: '" + name + "'");
        }
        return arguments.named().get(name);
    }

    private String formatted(String text, Object value) {
        Matcher matcher = SPEC.matcher(text);
        if (!matcher.matches()) {
            throw JinjaException.unsupported("the format specification '" + text + "'");
        }
        FormatSpec spec = new FormatSpec(values);
        if (matcher.group("align") != null) {
            spec.align = matcher.group("align").charAt(0);
            spec.fill = matcher.group("fill") == null ? " " : matcher.group("fill");
        }
        if (matcher.group("sign") != null) {
            spec.sign = matcher.group("sign").charAt(0);
        }
        if (matcher.group("zero") != null) {
            if (spec.align != 0) {
                throw JinjaException.unsupported("the format specification '" + text + "'");
            }
            spec.zeroPad();
        }
        spec.grouping = matcher.group("group") != null;
        spec.width = matcher.group("width") == null ? -1 : Integer.parseInt(matcher.group("width"));
        spec.precision = matcher.group("precision") == null ? -1 : Integer.parseInt(matcher.group("precision"));
        return spec.field(
                matcher.group("type") == null ? 0 : matcher.group("type").charAt(0), value);
    }
}
