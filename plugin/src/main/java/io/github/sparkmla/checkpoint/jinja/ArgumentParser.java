package io.github.sparkmla.checkpoint.jinja;

import io.github.sparkmla.checkpoint.jinja.Node.ArgumentList;
import io.github.sparkmla.checkpoint.jinja.Node.Expr;
import io.github.sparkmla.checkpoint.jinja.Token.Kind;
import java.util.ArrayList;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;

/** The arguments of a call, a filter or a test. */
final class ArgumentParser {
    private final TokenStream stream;
    private final ExpressionParser expressions;

    ArgumentParser(TokenStream stream, ExpressionParser expressions) {
        this.stream = stream;
        this.expressions = expressions;
    }

    /** From the opening parenthesis through the closing one. */
    ArgumentList parse() {
        int line = stream.current().line();
        stream.expectOperator("(");
        List<Expr> positional = new ArrayList<>();
        Map<String, Expr> named = new LinkedHashMap<>();
        Expr[] starred = new Expr[2];
        expressions.elements(")", () -> {
            boolean ordered;
            if (stream.skipOperator("*")) {
                ordered = starred[0] == null && starred[1] == null;
                starred[0] = expressions.expression();
            } else if (stream.skipOperator("**")) {
                ordered = starred[1] == null;
                starred[1] = expressions.expression();
            } else if (stream.current().is(Kind.NAME) && stream.look().isOperator("=")) {
                ordered = starred[1] == null;
                String name = stream.next().text();
                stream.next();
                if (named.put(name, expressions.expression()) != null) {
                    throw JinjaException.error("keyword argument repeated: " + name)
                            .at(line);
                }
            } else {
                ordered = starred[0] == null && starred[1] == null && named.isEmpty();
                positional.add(expressions.expression());
            }
            if (!ordered) {
                throw JinjaException.error("invalid syntax for function call expression")
                        .at(line);
            }
        });
        return new ArgumentList(
                positional, List.copyOf(named.keySet()), List.copyOf(named.values()), starred[0], starred[1]);
    }
}
