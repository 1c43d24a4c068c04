package io.github.sparkmla.checkpoint.jinja;

import java.util.regex.Pattern;

/** The filters {@code int} and {@code float}: Python's own parsing of numbers, a default where it fails. */
final class NumberParsing {
    private static final Pattern DECIMAL = Pattern.compile("[-+]?[0-9]+(?:_[0-9]+)*+");
    private static final Pattern FLOAT = Pattern.compile("[-+]?(?:[0-9]+(?:_[0-9]+)*+\\.?(?:[0-9]+(?:_[0-9]+)*+)?"
            + "|\\.[0-9]+(?:_[0-9]+)*+)(?:[eE][-+]?[0-9]+(?:_[0-9]+)*+)?");
    private static final Pattern NOT_FINITE = Pattern.compile("[-+]?(?:inf|infinity|nan)", Pattern.CASE_INSENSITIVE);
    private static final int MAX_LENGTH = 1000;

    private NumberParsing() {}

    static Object toInt(Object value, Object otherwise, Object base) {
        if (value instanceof Undefined undefined) {
            throw undefined.error();
        }
        if (Numbers.isInt(value)) {
            return Numbers.toLong(value);
        }
        if (value instanceof String text) {
            if (!base.equals(10L)) {
                throw JinjaException.unsupported("the filter 'int' with another base than 10");
            }
            String digits = strip(text);
            if (DECIMAL.matcher(digits).matches()) {
                try {
                    return Long.parseLong(digits.replace("_", ""));
                } catch (NumberFormatException e) {
                    throw JinjaException.unsupported("integers of more than 64 bits");
                }
            }
        }
        Object number = toFloat(value, null);
        if (number == null) {
            return otherwise;
        }
        double whole = (Double) number;
        if (Math.abs(whole) > 1L << 53) {
            throw JinjaException.unsupported("floats beyond 2**53 as integers");
        }
        return (long) whole;
    }

    static Object toFloat(Object value, Object otherwise) {
        if (value instanceof Undefined undefined) {
            throw undefined.error();
        }
        if (Numbers.isNumber(value)) {
            return Numbers.toDouble(value);
        }
        if (!(value instanceof String text)) {
            return otherwise;
        }
        String digits = strip(text);
        if (NOT_FINITE.matcher(digits).matches()) {
            throw JinjaException.unsupported("floats that are infinite or not a number");
        }
        return FLOAT.matcher(digits).matches()
                ? (Object) Numbers.finite(Double.parseDouble(digits.replace("_", "")))
                : otherwise;
    }

    private static String strip(String text) {
        String stripped = Text.lstrip(Text.rstrip(text));
        if (stripped.length() > MAX_LENGTH) {
            throw JinjaException.unsupported("numbers of more than " + MAX_LENGTH + " characters");
        }
        if (stripped.codePoints().anyMatch(c -> c > 0x7f && Character.isDigit(c))) {
            throw JinjaException.unsupported("digits beyond ASCII in a number");
        }
        return stripped;
    }
}
