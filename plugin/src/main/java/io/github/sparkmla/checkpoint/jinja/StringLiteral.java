package io.github.sparkmla.checkpoint.jinja;

import java.util.Locale;

/** The escapes of a string literal: jinja2 encodes it to ASCII with backslash escapes, then decodes unicode-escape. */
final class StringLiteral {
    private static final String SIMPLE = "\\'\"abfnrtv";
    private static final String SIMPLE_VALUES = "\\'\"\u0007\b\f\n\r\t\u000b";

    private StringLiteral() {}

    static String decode(String literal) {
        return literal.indexOf('\\') < 0 ? Text.requireWellFormed(literal) : unescape(toAscii(literal));
    }

    private static String toAscii(String literal) {
        StringBuilder out = new StringBuilder();
        literal.codePoints().forEach(c -> {
            if (c < 0x80) {
                out.append((char) c);
            } else {
                String format = c < 0x100 ? "\\x%02x" : c < 0x10000 ? "\\u%04x" : "\\U%08x";
                out.append(String.format(Locale.ROOT, format, c));
            }
        });
        return out.toString();
    }

    private static String unescape(String ascii) {
        StringBuilder out = new StringBuilder();
        int at = 0;
        while (at < ascii.length()) {
            char c = ascii.charAt(at++);
            if (c != '\\') {
                out.append(c);
                continue;
            }
            char escape = ascii.charAt(at++);
            int simple = SIMPLE.indexOf(escape);
            if (simple >= 0) {
                out.append(SIMPLE_VALUES.charAt(simple));
            } else if (escape >= '0' && escape <= '7') {
                int end = at;
                while (end < ascii.length() && end < at + 2 && ascii.charAt(end) >= '0' && ascii.charAt(end) <= '7') {
                    end++;
                }
                out.appendCodePoint(Integer.parseInt(ascii, at - 1, end, 8));
                at = end;
            } else if (escape == 'x' || escape == 'u' || escape == 'U') {
                int length = escape == 'x' ? 2 : escape == 'u' ? 4 : 8;
                out.appendCodePoint(hexadecimal(ascii, at, length, escape));
                at += length;
            } else if (escape == 'N') {
                throw JinjaException.unsupported("the string escape \\N");
            } else if (escape != '\n') {
                out.append('\\').append(escape);
            }
        }
        return out.toString();
    }

    private static int hexadecimal(String ascii, int at, int length, char escape) {
        int value = 0;
        for (int i = at; i < at + length; i++) {
            int digit = i < ascii.length() ? Character.digit(ascii.charAt(i), 16) : -1;
            if (digit < 0 || value > 0x10FFFF) {
                throw JinjaException.error("truncated \\" + escape + " escape in a string");
            }
            value = value * 16 + digit;
        }
        if (value > 0x10FFFF) {
            throw JinjaException.error("illegal Unicode character in a string");
        }
        if (value >= 0xD800 && value <= 0xDFFF) {
            throw JinjaException.unsupported("unpaired surrogates in a string");
        }
        return value;
    }
}
