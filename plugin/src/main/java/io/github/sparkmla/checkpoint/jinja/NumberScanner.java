package io.github.sparkmla.checkpoint.jinja;

/** A number literal: decimal, binary, octal or hexadecimal integers and decimal floats, underscores between digits. */
final class NumberScanner {
    private final String source;
    private final int start;
    private int end;

    NumberScanner(String source, int start) {
        this.source = source;
        this.start = start;
    }

    /** Where the literal ended. */
    int end() {
        return end;
    }

    /** A Long or a Double. */
    Object scan() {
        int floatEnd = start > 0 && source.charAt(start - 1) == '.' ? -1 : floatEnd();
        if (floatEnd >= 0) {
            end = floatEnd;
            double value = Double.parseDouble(text(start));
            if (Double.isInfinite(value)) {
                throw JinjaException.unsupported("the float literal " + text(start) + ", which is infinite");
            }
            return value;
        }
        return integer();
    }

    private Object integer() {
        int radix = 10;
        if (source.charAt(start) == '0') {
            radix = switch (charAt(start + 1)) {
                case 'b', 'B' -> 2;
                case 'o', 'O' -> 8;
                case 'x', 'X' -> 16;
                default -> 10;
            };
            if (radix != 10) {
                end = digits(start + 2, radix, true);
                if (end > start + 2) {
                    return parse(start + 2, radix);
                }
            }
            end = start + 1;
            while (charAt(end) == '0' || (charAt(end) == '_' && charAt(end + 1) == '0')) {
                end++;
            }
            return 0L;
        }
        end = digits(start, 10, true);
        return parse(start, radix);
    }

    private Object parse(int from, int radix) {
        try {
            return Long.parseLong(text(from), radix);
        } catch (NumberFormatException e) {
            throw JinjaException.unsupported("the integer " + text(from) + ", which needs more than 64 bits");
        }
    }

    /** The end of a float that starts here, or -1 where none does. */
    private int floatEnd() {
        int whole = digits(start, 10, false);
        int fraction = charAt(whole) == '.' ? digits(whole + 1, 10, false) : -1;
        if (fraction == whole + 1) {
            fraction = -1;
        }
        int exponent = exponentEnd(fraction >= 0 ? fraction : whole);
        return exponent >= 0 ? exponent : fraction;
    }

    private int exponentEnd(int at) {
        if (charAt(at) != 'e' && charAt(at) != 'E') {
            return -1;
        }
        int first = charAt(at + 1) == '+' || charAt(at + 1) == '-' ? at + 2 : at + 1;
        int last = digits(first, 10, false);
        return last > first ? last : -1;
    }

    /** The end of digits with single underscores between them (or before the first, if leading). */
    private int digits(int at, int radix, boolean leading) {
        int from = at;
        while (true) {
            if (isDigit(at, radix)) {
                at++;
            } else if (charAt(at) == '_' && isDigit(at + 1, radix) && (leading || at > from)) {
                at += 2;
            } else {
                return at;
            }
        }
    }

    private boolean isDigit(int at, int radix) {
        char c = charAt(at);
        return c < 128 && Character.digit(c, radix) >= 0;
    }

    private char charAt(int at) {
        return at < source.length() ? source.charAt(at) : ' ';
    }

    private String text(int from) {
        return source.substring(from, end).replace("_", "");
    }
}
