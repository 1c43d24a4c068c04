package io.github.sparkmla.checkpoint.jinja;

import java.util.List;

/** The tree of a template. Every node knows its line; names and scopes are bound by {@link Binder}. */
sealed interface Node {
    int line();

    /** Something with a value. */
    sealed interface Expr extends Node {}

    /** Something that writes or assigns. */
    sealed interface Stmt extends Node {}

    /** A literal: null, Boolean, Long, Double or String. */
    record Const(Object value, int line) implements Expr {}

    /** A variable, read or written. */
    record Name(String name, Binding binding, int line) implements Expr {}

    /** {@code namespace.attribute} as the target of an assignment. */
    record NamespaceRef(String name, String attribute, Binding binding, int line) implements Expr {}

    record TupleExpr(List<Expr> items, int line) implements Expr {}

    record ListExpr(List<Expr> items, int line) implements Expr {}

    record DictExpr(List<Expr> keys, List<Expr> values, int line) implements Expr {}

    record Unary(String operator, Expr operand, int line) implements Expr {}

    /** Arithmetic, {@code and} and {@code or}. */
    record Binary(String operator, Expr left, Expr right, int line) implements Expr {}

    /** {@code a ~ b ~ c}. */
    record Concat(List<Expr> parts, int line) implements Expr {}

    /** {@code first op rest[0] op rest[1] ...}, evaluated as a chain. */
    record Compare(Expr first, List<String> operators, List<Expr> rest, int line) implements Expr {}

    /** {@code then if test else otherwise}; otherwise may be null. */
    record Conditional(Expr test, Expr then, Expr otherwise, int line) implements Expr {}

    record Attribute(Expr object, String name, int line) implements Expr {}

    record Item(Expr object, Expr key, int line) implements Expr {}

    /** {@code object[start:stop:step]}; each bound may be null. */
    record Slice(Expr object, Expr start, Expr stop, Expr step, int line) implements Expr {}

    /** Arguments of a call, a filter or a test; the starred ones may be null. */
    record ArgumentList(List<Expr> positional, List<String> names, List<Expr> named, Expr star, Expr doubleStar) {
        static final ArgumentList EMPTY = new ArgumentList(List.of(), List.of(), List.of(), null, null);
    }

    record Call(Expr function, ArgumentList arguments, int line) implements Expr {}

    /** {@code input|name(arguments)}; input is null for the text of a filter block. */
    record Filter(Expr input, String name, ArgumentList arguments, int line) implements Expr {}

    record Test(Expr input, String name, ArgumentList arguments, int line) implements Expr {}

    /** Literal text. */
    record Data(String text, int line) implements Stmt {}

    record Output(Expr value, int line) implements Stmt {}

    /** One branch a test; otherwise may be empty. */
    record If(List<Expr> tests, List<List<Stmt>> branches, List<Stmt> otherwise, int line) implements Stmt {}

    /** Test may be null; otherwise is null where there is no else. */
    record For(
            Expr target,
            Expr iterable,
            Expr test,
            boolean recursive,
            List<Stmt> body,
            List<Stmt> otherwise,
            LoopScopes scopes,
            int line)
            implements Stmt {}

    record Set(Expr target, Expr value, int line) implements Stmt {}

    /** {@code {% set x %}...{% endset %}}; filter may be null. */
    record SetBlock(Expr target, Filter filter, List<Stmt> body, Scope scope, int line) implements Stmt {}

    record Macro(String name, Binding binding, MacroBody body, int line) implements Stmt {}

    /** {@code {% call(parameters) call %}body}; a {@code {% generation %}} block is one without a call. */
    record CallBlock(Call call, MacroBody body, int line) implements Stmt {}

    record FilterBlock(Filter filter, List<Stmt> body, Scope scope, int line) implements Stmt {}

    record With(List<Expr> targets, List<Expr> values, List<Stmt> body, Scope scope, int line) implements Stmt {}

    record Break(int line) implements Stmt {}

    record Continue(int line) implements Stmt {}

    /** What a macro and the body of a call block share; the last defaults belong to the last parameters. */
    record MacroBody(List<Name> parameters, List<Expr> defaults, List<Stmt> body, MacroScope scope) {}

    /** Which variable a name means; filled in once by {@link Binder}. */
    final class Binding {
        final boolean store;
        String variable;
        /** Whether the frame is entered with this variable set; then it must be. */
        boolean parameter;

        Binding(boolean store) {
            this.store = store;
        }
    }

    /** The variables that a frame loads when it is entered; filled in once by {@link Binder}. */
    final class Scope {
        List<Symbols.Load> loads = List.of();
    }

    /** The scopes of a for loop. */
    final class LoopScopes {
        final Scope body = new Scope();
        final Scope test = new Scope();
        final Scope otherwise = new Scope();
        /** The variable of {@code loop}, or null where the body never mentions it. */
        String loopVariable;
    }

    /** The scope of a macro and which of its implicit parameters its body uses (null: not used). */
    final class MacroScope {
        final Scope body = new Scope();
        boolean explicitCaller;
        String callerVariable;
        String kwargsVariable;
        String varargsVariable;
    }
}
