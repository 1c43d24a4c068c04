package io.github.sparkmla.checkpoint.jinja;

import io.github.sparkmla.checkpoint.jinja.Node.ArgumentList;
import io.github.sparkmla.checkpoint.jinja.Node.Expr;
import io.github.sparkmla.checkpoint.jinja.Token.Kind;
import java.util.ArrayList;
import java.util.List;
import java.util.Set;
import java.util.function.Supplier;

/** Expressions, from the loosest binding (conditional) to the tightest (primary), with jinja2's quirks of order. */
final class ExpressionParser {
    private static final int MAX_NESTING = 100;
    private static final Set<String> COMPARISONS = Set.of("==", "!=", "<", "<=", ">", ">=");
    private static final Set<String> CONSTANT_NAMES = Set.of("true", "false", "none", "True", "False", "None");

    private final TokenStream stream;
    private int nesting = 0;

    ExpressionParser(TokenStream stream) {
        this.stream = stream;
    }

    /** One expression or, with commas, a tuple of them. */
    Expr tuple(boolean conditional) {
        return tuple(conditional ? this::expression : this::or, false);
    }

    private Expr tuple(Supplier<Expr> item, boolean parentheses) {
        int line = stream.current().line();
        List<Expr> items = new ArrayList<>();
        boolean isTuple = false;
        while (true) {
            if (!items.isEmpty()) {
                stream.expectOperator(",");
            }
            if (isTupleEnd()) {
                break;
            }
            items.add(item.get());
            if (!stream.current().isOperator(",")) {
                break;
            }
            isTuple = true;
        }
        if (!isTuple) {
            if (!items.isEmpty()) {
                return items.get(0);
            }
            if (!parentheses) {
                throw stream.fail(
                        "Expected an expression, got " + stream.current().describe());
            }
        }
        return new Node.TupleExpr(items, line);
    }

    private boolean isTupleEnd() {
        Token token = stream.current();
        return token.is(Kind.VARIABLE_END) || token.is(Kind.BLOCK_END) || token.isOperator(")");
    }

    /** What {@code set}, {@code for} and {@code with} assign to. */
    Expr target(boolean namespaces) {
        return asTarget(tuple(() -> primary(namespaces), false));
    }

    Node.Name targetName() {
        Token token = stream.expect(Kind.NAME);
        return (Node.Name) asTarget(new Node.Name(token.text(), new Node.Binding(false), token.line()));
    }

    private Expr asTarget(Expr expr) {
        if (expr instanceof Node.Name name && !CONSTANT_NAMES.contains(name.name())) {
            return new Node.Name(name.name(), new Node.Binding(true), name.line());
        }
        if (expr instanceof Node.NamespaceRef) {
            return expr;
        }
        if (expr instanceof Node.TupleExpr tuple) {
            return new Node.TupleExpr(tuple.items().stream().map(this::asTarget).toList(), tuple.line());
        }
        throw JinjaException.error("can't assign to this expression").at(expr.line());
    }

    Expr expression() {
        if (++nesting > MAX_NESTING) {
            throw stream.fail("expressions nested more than " + MAX_NESTING + " deep");
        }
        Expr result = or();
        while (stream.current().isName("if")) {
            int line = stream.next().line();
            Expr test = or();
            Expr otherwise = stream.skipName("else") ? expression() : null;
            result = new Node.Conditional(test, result, otherwise, line);
        }
        nesting--;
        return result;
    }

    private Expr or() {
        Expr left = and();
        while (stream.current().isName("or")) {
            int line = stream.next().line();
            left = new Node.Binary("or", left, and(), line);
        }
        return left;
    }

    private Expr and() {
        Expr left = not();
        while (stream.current().isName("and")) {
            int line = stream.next().line();
            left = new Node.Binary("and", left, not(), line);
        }
        return left;
    }

    private Expr not() {
        List<Integer> lines = new ArrayList<>();
        while (stream.current().isName("not")) {
            lines.add(stream.next().line());
        }
        Expr result = compare();
        for (int line : lines) {
            result = new Node.Unary("not", result, line);
        }
        return result;
    }

    private Expr compare() {
        int line = stream.current().line();
        Expr first = sum();
        List<String> operators = new ArrayList<>();
        List<Expr> rest = new ArrayList<>();
        while (true) {
            Token token = stream.current();
            if (token.is(Kind.OPERATOR) && COMPARISONS.contains(token.text())) {
                operators.add(stream.next().text());
            } else if (stream.skipName("in")) {
                operators.add("in");
            } else if (token.isName("not") && stream.look().isName("in")) {
                stream.next();
                stream.next();
                operators.add("not in");
            } else {
                break;
            }
            rest.add(sum());
        }
        return operators.isEmpty() ? first : new Node.Compare(first, operators, rest, line);
    }

    private Expr sum() {
        return leftAssociative(this::concat, Set.of("+", "-"));
    }

    private Expr concat() {
        int line = stream.current().line();
        List<Expr> parts = new ArrayList<>();
        do {
            parts.add(leftAssociative(this::power, Set.of("*", "/", "//", "%")));
        } while (stream.skipOperator("~"));
        return parts.size() == 1 ? parts.get(0) : new Node.Concat(parts, line);
    }

    private Expr power() {
        return leftAssociative(() -> unary(true), Set.of("**"));
    }

    private Expr leftAssociative(Supplier<Expr> operand, Set<String> operators) {
        Expr left = operand.get();
        while (stream.current().is(Kind.OPERATOR)
                && operators.contains(stream.current().text())) {
            Token operator = stream.next();
            left = new Node.Binary(operator.text(), left, operand.get(), operator.line());
        }
        return left;
    }

    private Expr unary(boolean withFilters) {
        if (++nesting > MAX_NESTING) {
            throw stream.fail("expressions nested more than " + MAX_NESTING + " deep");
        }
        Token token = stream.current();
        Expr node;
        if (token.isOperator("-") || token.isOperator("+")) {
            stream.next();
            node = new Node.Unary(token.text(), unary(false), token.line());
        } else {
            node = primary(false);
        }
        node = postfix(node);
        nesting--;
        return withFilters ? filtersAndTests(node) : node;
    }

    private Expr primary(boolean namespaces) {
        Token token = stream.next();
        return switch (token.kind()) {
            case NAME -> name(token, namespaces);
            case STRING -> string(token);
            case INTEGER, FLOAT -> new Node.Const(token.value(), token.line());
            case OPERATOR -> display(token);
            default ->
                throw JinjaException.error("unexpected " + token.describe()).at(token.line());
        };
    }

    private Expr name(Token token, boolean namespaces) {
        return switch (token.text()) {
            case "true", "True" -> new Node.Const(true, token.line());
            case "false", "False" -> new Node.Const(false, token.line());
            case "none", "None" -> new Node.Const(null, token.line());
            default -> {
                if (namespaces && stream.skipOperator(".")) {
                    String attribute = stream.expect(Kind.NAME).text();
                    yield new Node.NamespaceRef(token.text(), attribute, new Node.Binding(false), token.line());
                }
                yield new Node.Name(token.text(), new Node.Binding(false), token.line());
            }
        };
    }

    private Expr string(Token first) {
        StringBuilder text = new StringBuilder(first.text());
        while (stream.current().is(Kind.STRING)) {
            text.append(stream.next().text());
        }
        return new Node.Const(text.toString(), first.line());
    }

    private Expr display(Token token) {
        return switch (token.text()) {
            case "(" -> {
                Expr inner = tuple(this::expression, true);
                stream.expectOperator(")");
                yield inner;
            }
            case "[" -> {
                List<Expr> items = new ArrayList<>();
                elements("]", () -> items.add(expression()));
                yield new Node.ListExpr(items, token.line());
            }
            case "{" -> {
                List<Expr> keys = new ArrayList<>();
                List<Expr> values = new ArrayList<>();
                elements("}", () -> {
                    keys.add(expression());
                    stream.expectOperator(":");
                    values.add(expression());
                });
                yield new Node.DictExpr(keys, values, token.line());
            }
            default ->
                throw JinjaException.error("unexpected " + token.describe()).at(token.line());
        };
    }

    /** Elements between commas, one of which may come last, up to the closing bracket. */
    void elements(String close, Runnable element) {
        boolean first = true;
        while (!stream.current().isOperator(close)) {
            if (!first) {
                stream.expectOperator(",");
                if (stream.current().isOperator(close)) {
                    break;
                }
            }
            first = false;
            element.run();
        }
        stream.expectOperator(close);
    }

    private Expr postfix(Expr node) {
        while (true) {
            if (stream.skipOperator(".")) {
                node = dot(node);
            } else if (stream.current().isOperator("[")) {
                node = subscript(node);
            } else if (stream.current().isOperator("(")) {
                node = call(node);
            } else {
                return node;
            }
        }
    }

    private Expr dot(Expr node) {
        Token token = stream.next();
        return switch (token.kind()) {
            case NAME -> new Node.Attribute(node, token.text(), token.line());
            case INTEGER -> new Node.Item(node, new Node.Const(token.value(), token.line()), token.line());
            default -> throw JinjaException.error("expected name or number").at(token.line());
        };
    }

    private Expr subscript(Expr node) {
        int line = stream.next().line();
        List<Expr> keys = new ArrayList<>();
        Expr slice = null;
        while (!stream.current().isOperator("]")) {
            if (!keys.isEmpty()) {
                stream.expectOperator(",");
            }
            Expr start = stream.current().isOperator(":") ? null : expression();
            if (stream.skipOperator(":")) {
                slice = slice(node, start, line);
            }
            keys.add(start);
        }
        stream.expectOperator("]");
        if (slice != null) {
            if (keys.size() > 1) {
                throw JinjaException.unsupported("several slices in one subscript")
                        .at(line);
            }
            return slice;
        }
        return new Node.Item(node, keys.size() == 1 ? keys.get(0) : new Node.TupleExpr(keys, line), line);
    }

    private Expr slice(Expr node, Expr start, int line) {
        Expr stop = atSliceEnd() || stream.current().isOperator(":") ? null : expression();
        Expr step = stream.skipOperator(":") && !atSliceEnd() ? expression() : null;
        return new Node.Slice(node, start, stop, step, line);
    }

    private boolean atSliceEnd() {
        return stream.current().isOperator("]") || stream.current().isOperator(",");
    }

    private Expr call(Expr function) {
        int line = stream.current().line();
        return new Node.Call(function, new ArgumentParser(stream, this).parse(), line);
    }

    private Expr filtersAndTests(Expr node) {
        while (true) {
            if (stream.current().isOperator("|")) {
                node = filters(node);
            } else if (stream.current().isName("is")) {
                node = test(node);
            } else if (stream.current().isOperator("(")) {
                node = call(node);
            } else {
                return node;
            }
        }
    }

    /** All filters that follow, applied to the node; the node itself where none does. */
    Expr filters(Expr node) {
        while (stream.skipOperator("|")) {
            node = filter(node);
        }
        return node;
    }

    Node.Filter filter(Expr input) {
        int line = stream.current().line();
        String name = dottedName();
        ArgumentList arguments =
                stream.current().isOperator("(") ? new ArgumentParser(stream, this).parse() : ArgumentList.EMPTY;
        return new Node.Filter(input, name, arguments, line);
    }

    private Expr test(Expr input) {
        int line = stream.next().line();
        boolean negated = stream.skipName("not");
        String name = dottedName();
        ArgumentList arguments = ArgumentList.EMPTY;
        if (stream.current().isOperator("(")) {
            arguments = new ArgumentParser(stream, this).parse();
        } else if (startsTestArgument(stream.current())) {
            if (stream.current().isName("is")) {
                throw stream.fail("You cannot chain multiple tests with is");
            }
            Expr argument = postfix(primary(false));
            arguments = new ArgumentList(List.of(argument), List.of(), List.of(), null, null);
        }
        Expr result = new Node.Test(input, name, arguments, line);
        return negated ? new Node.Unary("not", result, line) : result;
    }

    private static boolean startsTestArgument(Token token) {
        return switch (token.kind()) {
            case NAME -> !token.isName("else") && !token.isName("or") && !token.isName("and");
            case STRING, INTEGER, FLOAT -> true;
            case OPERATOR -> token.isOperator("[") || token.isOperator("{");
            default -> false;
        };
    }

    private String dottedName() {
        StringBuilder name = new StringBuilder(stream.expect(Kind.NAME).text());
        while (stream.skipOperator(".")) {
            name.append('.').append(stream.expect(Kind.NAME).text());
        }
        return name.toString();
    }
}
