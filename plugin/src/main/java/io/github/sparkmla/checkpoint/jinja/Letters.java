package io.github.sparkmla.checkpoint.jinja;

import java.util.Locale;

/**
 * Case and classes of characters. Java's Unicode tables may be older than Python's: characters that Java does not know
 * are refused where their case or class could matter.
 */
final class Letters {
    /** From here on there are symbols, pictographs and ideographs, which have no case. */
    private static final int CASELESS_FROM = 0x1F000;

    private static final int SIGMA = 0x3A3;

    private Letters() {}

    /** Whether {@code repr} shows the character itself. */
    static boolean isPrintable(int c) {
        return switch (Character.getType(c)) {
            case Character.UNASSIGNED -> {
                if ((c & 0xFFFE) != 0xFFFE && !(c >= 0xFDD0 && c <= 0xFDEF)) {
                    throw unknown(c);
                }
                yield false;
            }
            case Character.CONTROL,
                    Character.FORMAT,
                    Character.SURROGATE,
                    Character.PRIVATE_USE,
                    Character.LINE_SEPARATOR,
                    Character.PARAGRAPH_SEPARATOR -> false;
            case Character.SPACE_SEPARATOR -> c == ' ';
            default -> true;
        };
    }

    static String lower(String text) {
        requireKnown(text);
        if (text.indexOf(SIGMA) >= 0 && text.length() > 1) {
            throw JinjaException.unsupported("lower case of a capital sigma, which depends on its neighbours");
        }
        return text.length() == 1 && text.charAt(0) == SIGMA ? "\u03c3" : text.toLowerCase(Locale.ROOT);
    }

    static String upper(String text) {
        return requireKnown(text).toUpperCase(Locale.ROOT);
    }

    /** First character in title case, the others in lower case. */
    static String capitalize(String text) {
        if (text.isEmpty()) {
            return text;
        }
        int first = requireKnown(text).codePointAt(0);
        return title(first) + lower(text.substring(Character.charCount(first)));
    }

    /** {@code str.title()}: each run of letters capitalised. */
    static String title(String text) {
        requireKnown(text);
        StringBuilder out = new StringBuilder();
        boolean[] inWord = {false};
        text.codePoints().forEach(c -> {
            out.append(inWord[0] ? lower(Character.toString(c)) : title(c));
            if (inWord[0] && c == SIGMA) {
                throw JinjaException.unsupported("title case of a capital sigma, which depends on its neighbours");
            }
            inWord[0] = isCased(c);
        });
        return out.toString();
    }

    static String swapcase(String text) {
        requireKnown(text);
        StringBuilder out = new StringBuilder();
        text.codePoints().forEach(c -> {
            if (c == SIGMA) {
                throw JinjaException.unsupported("swapcase of a capital sigma, which depends on its neighbours");
            }
            String character = Character.toString(c);
            out.append(
                    Character.isUpperCase(c)
                            ? lower(character)
                            : Character.isLowerCase(c) ? upper(character) : character);
        });
        return out.toString();
    }

    private static String title(int c) {
        String character = Character.toString(c);
        String upper = upper(character);
        if (upper.codePointCount(0, upper.length()) > 1) {
            throw JinjaException.unsupported("title case of '" + character + "'");
        }
        return Character.toString(Character.toTitleCase(c));
    }

    static boolean isCased(int c) {
        return Character.isUpperCase(c) || Character.isLowerCase(c) || Character.isTitleCase(c);
    }

    /** {@code islower()} or, with {@code upper}, {@code isupper()}. */
    static boolean isAllCase(String text, boolean upper) {
        boolean[] cased = {false};
        boolean uniform = requireKnown(text).codePoints().allMatch(c -> {
            cased[0] |= isCased(c);
            return !isCased(c) || (upper ? Character.isUpperCase(c) : Character.isLowerCase(c));
        });
        return uniform && cased[0];
    }

    static boolean isAlpha(int c) {
        requireKnown(Character.toString(c));
        return Character.isLetter(c);
    }

    static boolean isDecimal(int c) {
        requireKnown(Character.toString(c));
        return Character.isDigit(c);
    }

    /** Digits, decimal or not; {@code numeric} asks for fractions and numerals as well. */
    static boolean isNumeric(int c, boolean numeric) {
        int type = Character.getType(c);
        boolean unsure = type == Character.OTHER_NUMBER
                || type == Character.LETTER_NUMBER
                || (numeric && c >= 0x2E80 && Character.isIdeographic(c));
        if (unsure) {
            throw JinjaException.unsupported("whether '" + Character.toString(c) + "' is a digit");
        }
        return isDecimal(c);
    }

    static String requireKnown(String text) {
        text.codePoints().forEach(c -> {
            if (c < CASELESS_FROM && Character.getType(c) == Character.UNASSIGNED) {
                throw unknown(c);
            }
        });
        return text;
    }

    private static JinjaException unknown(int c) {
        return JinjaException.unsupported(String.format("the character U+%04X, which this Java does not know", c));
    }
}
