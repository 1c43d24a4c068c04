package io.github.sparkmla.checkpoint.jinja;

import io.github.sparkmla.checkpoint.jinja.Node.Expr;
import io.github.sparkmla.checkpoint.jinja.Node.Stmt;
import io.github.sparkmla.checkpoint.jinja.Token.Kind;
import java.util.ArrayList;
import java.util.List;
import java.util.Set;

/** Statements: everything between the marks of a block, and the text around. */
final class Parser {
    /** Python itself stops at 20 nested loops; with deeper blocks the generated program would not compile. */
    private static final int MAX_NESTING = 60;

    private static final Set<String> REFUSED =
            Set.of("block", "extends", "include", "import", "from", "autoescape", "do", "trans", "debug");

    private final TokenStream stream;
    private final ExpressionParser expressions;
    private int nesting = 0;

    private Parser(List<Token> tokens) {
        this.stream = new TokenStream(tokens);
        this.expressions = new ExpressionParser(stream);
    }

    static List<Stmt> parse(String source) {
        return new Parser(Lexer.tokenize(source)).statements(Set.of());
    }

    /** Statements up to one of the end words, which is left as the current token, or to the end of the template. */
    private List<Stmt> statements(Set<String> endWords) {
        if (++nesting > MAX_NESTING) {
            throw stream.fail("more than " + MAX_NESTING + " nested blocks");
        }
        List<Stmt> body = new ArrayList<>();
        while (!stream.current().is(Kind.EOF)) {
            Token token = stream.next();
            if (token.is(Kind.DATA)) {
                body.add(new Node.Data(token.text(), token.line()));
            } else if (token.is(Kind.VARIABLE_BEGIN)) {
                body.add(new Node.Output(expressions.tuple(true), token.line()));
                stream.expect(Kind.VARIABLE_END);
            } else {
                if (stream.current().is(Kind.NAME)
                        && endWords.contains(stream.current().text())) {
                    nesting--;
                    return body;
                }
                statement(body);
                stream.expect(Kind.BLOCK_END);
            }
        }
        if (!endWords.isEmpty()) {
            throw stream.fail(
                    "unexpected end of template, expected " + String.join(" or ", new java.util.TreeSet<>(endWords)));
        }
        nesting--;
        return body;
    }

    /** The body of a block after its head: an optional colon, the end of the tag, statements. */
    private List<Stmt> block(String... endWords) {
        stream.skipOperator(":");
        stream.expect(Kind.BLOCK_END);
        return statements(Set.of(endWords));
    }

    private List<Stmt> blockThrough(String endWord) {
        List<Stmt> body = block(endWord);
        stream.next();
        return body;
    }

    private void statement(List<Stmt> body) {
        Token token = stream.expect(Kind.NAME);
        int line = token.line();
        switch (token.text()) {
            case "if" -> body.add(ifStatement(line));
            case "for" -> body.add(forStatement(line));
            case "set" -> body.add(setStatement(line));
            case "macro" -> body.add(macro(line));
            case "call" -> body.add(callBlock(line));
            case "filter" -> body.add(filterBlock(line));
            case "with" -> body.add(with(line));
            case "print" -> print(body);
            case "generation" -> body.add(new Node.CallBlock(null, macroBody("endgeneration"), line));
            case "break" -> body.add(new Node.Break(line));
            case "continue" -> body.add(new Node.Continue(line));
            default ->
                throw REFUSED.contains(token.text())
                        ? JinjaException.unsupported("the tag '" + token.text() + "'")
                                .at(line)
                        : JinjaException.error("Encountered unknown tag '" + token.text() + "'.")
                                .at(line);
        }
    }

    private Stmt ifStatement(int line) {
        List<Expr> tests = new ArrayList<>();
        List<List<Stmt>> branches = new ArrayList<>();
        List<Stmt> otherwise = List.of();
        String word;
        do {
            tests.add(expressions.tuple(false));
            branches.add(block("elif", "else", "endif"));
            word = stream.next().text();
        } while (word.equals("elif"));
        if (word.equals("else")) {
            otherwise = blockThrough("endif");
        }
        return new Node.If(tests, branches, otherwise, line);
    }

    private Stmt forStatement(int line) {
        Expr target = expressions.target(false);
        stream.expectName("in");
        Expr iterable = expressions.tuple(false);
        Expr test = stream.skipName("if") ? expressions.expression() : null;
        boolean recursive = stream.skipName("recursive");
        List<Stmt> body = block("endfor", "else");
        List<Stmt> otherwise = null;
        if (stream.next().text().equals("else")) {
            otherwise = blockThrough("endfor");
        }
        return new Node.For(target, iterable, test, recursive, body, otherwise, new Node.LoopScopes(), line);
    }

    private Stmt setStatement(int line) {
        Expr target = expressions.target(true);
        if (stream.skipOperator("=")) {
            return new Node.Set(target, expressions.tuple(true), line);
        }
        Node.Filter filter = (Node.Filter) expressions.filters(null);
        return new Node.SetBlock(target, filter, blockThrough("endset"), new Node.Scope(), line);
    }

    private Stmt macro(int line) {
        Node.Name name = expressions.targetName();
        List<Node.Name> parameters = new ArrayList<>();
        List<Expr> defaults = new ArrayList<>();
        signature(parameters, defaults);
        return new Node.Macro(name.name(), name.binding(), macroBody("endmacro", parameters, defaults), line);
    }

    private void signature(List<Node.Name> parameters, List<Expr> defaults) {
        stream.expectOperator("(");
        while (!stream.current().isOperator(")")) {
            if (!parameters.isEmpty()) {
                stream.expectOperator(",");
            }
            Node.Name parameter = expressions.targetName();
            if (parameters.stream().anyMatch(other -> other.name().equals(parameter.name()))) {
                throw stream.fail("duplicate argument '" + parameter.name() + "'");
            }
            parameters.add(parameter);
            if (stream.skipOperator("=")) {
                defaults.add(expressions.expression());
            } else if (!defaults.isEmpty()) {
                throw stream.fail("non-default argument follows default argument");
            }
        }
        stream.expectOperator(")");
    }

    private Node.MacroBody macroBody(String endWord) {
        return macroBody(endWord, List.of(), List.of());
    }

    private Node.MacroBody macroBody(String endWord, List<Node.Name> parameters, List<Expr> defaults) {
        return new Node.MacroBody(parameters, defaults, blockThrough(endWord), new Node.MacroScope());
    }

    private Stmt callBlock(int line) {
        List<Node.Name> parameters = new ArrayList<>();
        List<Expr> defaults = new ArrayList<>();
        if (stream.current().isOperator("(")) {
            signature(parameters, defaults);
        }
        if (!(expressions.expression() instanceof Node.Call call)) {
            throw JinjaException.error("expected call").at(line);
        }
        return new Node.CallBlock(call, macroBody("endcall", parameters, defaults), line);
    }

    private Stmt filterBlock(int line) {
        Node.Filter filter = (Node.Filter) expressions.filters(expressions.filter(null));
        return new Node.FilterBlock(filter, blockThrough("endfilter"), new Node.Scope(), line);
    }

    private Stmt with(int line) {
        List<Expr> targets = new ArrayList<>();
        List<Expr> values = new ArrayList<>();
        while (!stream.current().is(Kind.BLOCK_END)) {
            if (!targets.isEmpty()) {
                stream.expectOperator(",");
            }
            targets.add(expressions.target(false));
            stream.expectOperator("=");
            values.add(expressions.expression());
        }
        return new Node.With(targets, values, blockThrough("endwith"), new Node.Scope(), line);
    }

    private void print(List<Stmt> body) {
        boolean first = true;
        while (!stream.current().is(Kind.BLOCK_END)) {
            if (!first) {
                stream.expectOperator(",");
            }
            first = false;
            int line = stream.current().line();
            body.add(new Node.Output(expressions.expression(), line));
        }
    }
}
