package io.github.sparkmla.checkpoint.jinja;

import java.util.ArrayList;
import java.util.Collections;
import java.util.List;

/** How str cuts a text into pieces; {@code limit} is the most cuts that are made. */
final class Splitting {
    private Splitting() {}

    static List<String> parts(String text, String delimiter, long limit) {
        List<String> parts = new ArrayList<>();
        int start = 0;
        int at = text.indexOf(delimiter);
        while (at >= 0 && parts.size() < limit) {
            parts.add(text.substring(start, at));
            start = at + delimiter.length();
            at = text.indexOf(delimiter, start);
        }
        parts.add(text.substring(start));
        return parts;
    }

    static List<String> partsFromRight(String text, String delimiter, long limit) {
        List<String> parts = new ArrayList<>();
        int end = text.length();
        int at = text.lastIndexOf(delimiter);
        while (at >= 0 && parts.size() < limit) {
            parts.add(text.substring(at + delimiter.length(), end));
            end = at;
            at = end < delimiter.length() ? -1 : text.lastIndexOf(delimiter, end - delimiter.length());
        }
        parts.add(text.substring(0, end));
        Collections.reverse(parts);
        return parts;
    }

    /** Words between white space. */
    static List<String> words(String text, long limit) {
        List<String> words = new ArrayList<>();
        int start = skipSpace(text, 0);
        while (start < text.length()) {
            int end = start;
            while (end < text.length() && !Text.isSpace(text.charAt(end))) {
                end++;
            }
            if (words.size() == limit) {
                words.add(text.substring(start));
                return words;
            }
            words.add(text.substring(start, end));
            start = skipSpace(text, end);
        }
        return words;
    }

    private static int skipSpace(String text, int at) {
        while (at < text.length() && Text.isSpace(text.charAt(at))) {
            at++;
        }
        return at;
    }

    static List<String> wordsFromRight(String text, long limit) {
        List<String> words = new ArrayList<>();
        int end = Text.rstrip(text).length();
        while (end > 0) {
            int start = end;
            while (start > 0 && !Text.isSpace(text.charAt(start - 1))) {
                start--;
            }
            if (words.size() == limit) {
                words.add(text.substring(0, end));
                break;
            }
            words.add(text.substring(start, end));
            end = start;
            while (end > 0 && Text.isSpace(text.charAt(end - 1))) {
                end--;
            }
        }
        Collections.reverse(words);
        return words;
    }

    /** Lines as {@code splitlines} cuts them: at every Unicode line boundary, without an empty last one. */
    static List<String> lines(String text, boolean keepEnds) {
        List<String> lines = new ArrayList<>();
        int start = 0;
        for (int i = 0; i < text.length(); i++) {
            char c = text.charAt(i);
            boolean boundary =
                    (c >= 0x0a && c <= 0x0d) || (c >= 0x1c && c <= 0x1e) || c == 0x85 || c == 0x2028 || c == 0x2029;
            if (boundary) {
                int end = i;
                if (c == '\r' && text.startsWith("\n", i + 1)) {
                    i++;
                }
                lines.add(text.substring(start, keepEnds ? i + 1 : end));
                start = i + 1;
            }
        }
        if (start < text.length()) {
            lines.add(text.substring(start));
        }
        return lines;
    }
}
