package io.github.sparkmla.checkpoint.jinja;

/** What Python calls white space, and positions in a string counted in code points as Python counts them. */
final class Text {
    private Text() {}

    static boolean isSpace(int c) {
        return (c >= 0x09 && c <= 0x0d)
                || (c >= 0x1c && c <= 0x20)
                || c == 0x85
                || c == 0xa0
                || c == 0x1680
                || (c >= 0x2000 && c <= 0x200a)
                || c == 0x2028
                || c == 0x2029
                || c == 0x202f
                || c == 0x205f
                || c == 0x3000;
    }

    static boolean isNameStart(char c) {
        return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_';
    }

    static boolean isNamePart(char c) {
        return isNameStart(c) || (c >= '0' && c <= '9');
    }

    /** Whether there is text from here on and all of it is white space. */
    static boolean isBlank(String text, int from) {
        return from < text.length() && text.chars().skip(from).allMatch(Text::isSpace);
    }

    static String rstrip(String text) {
        int end = text.length();
        while (end > 0 && isSpace(text.charAt(end - 1))) {
            end--;
        }
        return text.substring(0, end);
    }

    static String lstrip(String text) {
        int start = 0;
        while (start < text.length() && isSpace(text.charAt(start))) {
            start++;
        }
        return text.substring(start);
    }

    static int length(String text) {
        return text.codePointCount(0, text.length());
    }

    /** Code points from {@code start} to {@code end}; both must lie within the text. */
    static String substring(String text, int start, int end) {
        if (length(text) == text.length()) {
            return text.substring(start, end);
        }
        int from = text.offsetByCodePoints(0, start);
        return text.substring(from, text.offsetByCodePoints(from, end - start));
    }

    static String reverse(String text) {
        return new StringBuilder(text).reverse().toString();
    }

    /** Python strings may hold lone surrogates, Java would join them in silence: refuse them. */
    static String requireWellFormed(String text) {
        for (int i = 0; i < text.length(); i++) {
            char c = text.charAt(i);
            if (Character.isSurrogate(c)) {
                if (!Character.isHighSurrogate(c)
                        || i + 1 == text.length()
                        || !Character.isLowSurrogate(text.charAt(i + 1))) {
                    throw JinjaException.unsupported("unpaired surrogates in a string");
                }
                i++;
            }
        }
        return text;
    }
}
