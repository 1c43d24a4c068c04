package io.github.sparkmla.checkpoint.jinja;

import io.github.sparkmla.checkpoint.jinja.Token.Kind;
import java.util.ArrayDeque;
import java.util.ArrayList;
import java.util.Deque;
import java.util.List;

/**
 * Cuts a template into tokens as jinja2 3.1 does with trim_blocks and lstrip_blocks on and keep_trailing_newline off:
 * the newline after a block or comment tag goes, and so does the white space before one that starts its line.
 */
final class Lexer {
    private static final List<String> OPERATORS = List.of(
            "//", "**", "==", "!=", ">=", "<=", "+", "-", "/", "*", "%", "~", "[", "]", "(", ")", "{", "}", ">", "<",
            "=", ".", ":", "|", ",", ";");
    private static final String OPENING = "{([";
    private static final String CLOSING = "})]";

    private final String source;
    private final List<Token> tokens = new ArrayList<>();
    private int position = 0;
    private int line = 1;
    /** Whether the last match ended with a newline: then white space up to the next tag is indentation. */
    private boolean lineStarting = true;

    private Lexer(String source) {
        String normalised = source.replace("\r\n", "\n").replace('\r', '\n');
        this.source = normalised.endsWith("\n") ? normalised.substring(0, normalised.length() - 1) : normalised;
    }

    static List<Token> tokenize(String source) {
        Lexer lexer = new Lexer(source);
        lexer.run();
        return lexer.tokens;
    }

    private void run() {
        while (position < source.length()) {
            int tag = nextTag();
            if (tag < 0) {
                addData(source.substring(position));
                position = source.length();
            } else {
                switch (source.charAt(tag + 1)) {
                    case '{' -> variable(tag);
                    case '#' -> comment(tag);
                    default -> block(tag);
                }
            }
        }
        add(Kind.EOF, null);
    }

    private int nextTag() {
        for (int at = source.indexOf('{', position); at >= 0; at = source.indexOf('{', at + 1)) {
            if (at + 1 < source.length() && "{%#".indexOf(source.charAt(at + 1)) >= 0) {
                return at;
            }
        }
        return -1;
    }

    private void variable(int tag) {
        int inside = leadIn(tag, false);
        add(Kind.VARIABLE_BEGIN, null);
        inside(inside, true);
    }

    private void block(int tag) {
        int rawEnd = rawTagEnd(tag);
        if (rawEnd >= 0) {
            leadIn(tag, true);
            raw(tag, rawEnd);
            return;
        }
        int inside = leadIn(tag, true);
        add(Kind.BLOCK_BEGIN, null);
        inside(inside, false);
    }

    private void comment(int tag) {
        int inside = leadIn(tag, true);
        int close = source.indexOf("#}", inside);
        if (close < 0) {
            throw JinjaException.error("Missing end of comment tag").at(line);
        }
        boolean strip = close > inside && source.charAt(close - 1) == '-';
        boolean keep = close > inside && source.charAt(close - 1) == '+';
        int end = close + 2;
        moveTo(strip ? skipSpace(end) : keep ? end : skipNewline(end));
    }

    /** The data before a tag, its white space cut as the tag's sign asks; returns the position after the sign. */
    private int leadIn(int tag, boolean lstrip) {
        char sign = tag + 2 < source.length() ? source.charAt(tag + 2) : ' ';
        addData(cutBeforeTag(source.substring(position, tag), sign, lstrip));
        line += countNewlines(position, tag);
        position = sign == '-' || sign == '+' ? tag + 3 : tag + 2;
        return position;
    }

    private String cutBeforeTag(String text, char sign, boolean lstrip) {
        if (sign == '-') {
            return Text.rstrip(text);
        }
        if (sign != '+' && lstrip) {
            int lineStart = text.lastIndexOf('\n') + 1;
            if ((lineStart > 0 || lineStarting) && Text.isBlank(text, lineStart)) {
                return text.substring(0, lineStart);
            }
        }
        return text;
    }

    /** The end of a {@code {% raw %}} tag that starts here, or -1. */
    private int rawTagEnd(int tag) {
        int at = tag + 2;
        if (at < source.length() && (source.charAt(at) == '-' || source.charAt(at) == '+')) {
            at++;
        }
        at = skipSpace(at);
        if (!source.startsWith("raw", at)) {
            return -1;
        }
        at = skipSpace(at + 3);
        if (source.startsWith("-%}", at)) {
            return skipSpace(at + 3);
        }
        return source.startsWith("%}", at) ? at + 2 : -1;
    }

    private void raw(int tag, int begin) {
        line += countNewlines(tag, begin);
        position = begin;
        lineStarting = source.charAt(begin - 1) == '\n';
        for (int at = source.indexOf("{%", begin); at >= 0; at = source.indexOf("{%", at + 1)) {
            int sign = at + 2;
            boolean signed = sign < source.length() && (source.charAt(sign) == '-' || source.charAt(sign) == '+');
            int word = skipSpace(signed ? sign + 1 : sign);
            if (source.startsWith("endraw", word)) {
                int end = blockEnd(skipSpace(word + 6));
                if (end >= 0) {
                    addData(cutBeforeTag(source.substring(begin, at), signed ? source.charAt(sign) : ' ', true));
                    moveTo(end);
                    return;
                }
            }
        }
        throw JinjaException.error("Missing end of raw directive").at(line);
    }

    /** The expression tokens up to the end of the tag. */
    private void inside(int start, boolean variable) {
        position = start;
        Deque<Character> open = new ArrayDeque<>();
        while (position < source.length()) {
            int end = open.isEmpty() ? (variable ? variableEnd(position) : blockEnd(position)) : -1;
            if (end >= 0) {
                add(variable ? Kind.VARIABLE_END : Kind.BLOCK_END, null);
                moveTo(end);
                return;
            }
            expressionToken(open);
        }
    }

    private int variableEnd(int at) {
        if (source.startsWith("-}}", at)) {
            return skipSpace(at + 3);
        }
        return source.startsWith("}}", at) ? at + 2 : -1;
    }

    private int blockEnd(int at) {
        if (source.startsWith("+%}", at)) {
            return at + 3;
        }
        if (source.startsWith("-%}", at)) {
            return skipSpace(at + 3);
        }
        return source.startsWith("%}", at) ? skipNewline(at + 2) : -1;
    }

    private void expressionToken(Deque<Character> open) {
        char c = source.charAt(position);
        if (Text.isSpace(c)) {
            moveTo(skipSpace(position));
        } else if (c >= '0' && c <= '9') {
            number();
        } else if (Text.isNameStart(c)) {
            int end = position;
            while (end < source.length() && Text.isNamePart(source.charAt(end))) {
                end++;
            }
            add(Kind.NAME, source.substring(position, end));
            moveTo(end);
        } else if (c == '\'' || c == '"') {
            string(c);
        } else {
            operator(open);
        }
    }

    private void number() {
        NumberScanner scanner = new NumberScanner(source, position);
        try {
            Object value = scanner.scan();
            add(value instanceof Long ? Kind.INTEGER : Kind.FLOAT, value);
        } catch (JinjaException e) {
            throw e.at(line);
        }
        moveTo(scanner.end());
    }

    private void string(char quote) {
        int end = position + 1;
        while (end < source.length() && source.charAt(end) != quote) {
            end += source.charAt(end) == '\\' ? 2 : 1;
        }
        if (end >= source.length()) {
            throw unexpectedCharacter();
        }
        try {
            add(Kind.STRING, StringLiteral.decode(source.substring(position + 1, end)));
        } catch (JinjaException e) {
            throw e.at(line);
        }
        moveTo(end + 1);
    }

    private void operator(Deque<Character> open) {
        for (String operator : OPERATORS) {
            if (source.startsWith(operator, position)) {
                balance(operator, open);
                add(Kind.OPERATOR, operator);
                moveTo(position + operator.length());
                return;
            }
        }
        if (Character.isUnicodeIdentifierPart(source.codePointAt(position))) {
            throw JinjaException.unsupported("names with letters or digits beyond ASCII")
                    .at(line);
        }
        throw unexpectedCharacter();
    }

    private void balance(String operator, Deque<Character> open) {
        char c = operator.charAt(0);
        if (OPENING.indexOf(c) >= 0) {
            open.push(CLOSING.charAt(OPENING.indexOf(c)));
        } else if (CLOSING.indexOf(c) >= 0) {
            Character expected = open.poll();
            if (expected == null) {
                throw JinjaException.error("unexpected '" + c + "'").at(line);
            }
            if (expected != c) {
                throw JinjaException.error("unexpected '" + c + "', expected '" + expected + "'")
                        .at(line);
            }
        }
    }

    private JinjaException unexpectedCharacter() {
        return JinjaException.error("unexpected char '" + Character.toString(source.codePointAt(position)) + "'")
                .at(line);
    }

    private void add(Kind kind, Object value) {
        tokens.add(new Token(kind, value, line));
    }

    private void addData(String text) {
        if (!text.isEmpty()) {
            add(Kind.DATA, text);
        }
    }

    private void moveTo(int end) {
        line += countNewlines(position, end);
        lineStarting = end > 0 && source.charAt(end - 1) == '\n';
        position = end;
    }

    private int countNewlines(int from, int to) {
        return (int) source.substring(from, to).chars().filter(c -> c == '\n').count();
    }

    private int skipSpace(int at) {
        while (at < source.length() && Text.isSpace(source.charAt(at))) {
            at++;
        }
        return at;
    }

    private int skipNewline(int at) {
        return source.startsWith("\n", at) ? at + 1 : at;
    }
}
