package io.github.sparkmla.checkpoint.jinja;

import io.github.sparkmla.checkpoint.jinja.Token.Kind;
import java.util.List;

/** The tokens of a template with a cursor. The last one is always EOF and is never passed. */
final class TokenStream {
    private final List<Token> tokens;
    private int position = 0;

    TokenStream(List<Token> tokens) {
        this.tokens = tokens;
    }

    Token current() {
        return tokens.get(position);
    }

    Token look() {
        return tokens.get(Math.min(position + 1, tokens.size() - 1));
    }

    /** The current token; the cursor moves on. */
    Token next() {
        Token token = current();
        position = Math.min(position + 1, tokens.size() - 1);
        return token;
    }

    boolean skipName(String name) {
        return skipIf(current().isName(name));
    }

    boolean skipOperator(String symbol) {
        return skipIf(current().isOperator(symbol));
    }

    private boolean skipIf(boolean matches) {
        if (matches) {
            next();
        }
        return matches;
    }

    Token expect(Kind kind) {
        return expect(current().is(kind), "'" + kind.description + "'");
    }

    Token expectName(String name) {
        return expect(current().isName(name), "'" + name + "'");
    }

    Token expectOperator(String symbol) {
        return expect(current().isOperator(symbol), "'" + symbol + "'");
    }

    private Token expect(boolean matches, String what) {
        if (!matches) {
            throw fail("expected token " + what + ", got " + current().describe());
        }
        return next();
    }

    JinjaException fail(String message) {
        return JinjaException.error(message).at(current().line());
    }
}
