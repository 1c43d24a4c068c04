package io.github.sparkmla.checkpoint.jinja;

import io.github.sparkmla.checkpoint.jinja.Node.ArgumentList;
import io.github.sparkmla.checkpoint.jinja.Node.Expr;
import io.github.sparkmla.checkpoint.jinja.Node.Stmt;
import java.util.ArrayList;
import java.util.HashSet;
import java.util.List;
import java.util.Set;

/**
 * Binds every name of a template to a variable, frame by frame, and refuses what jinja2 refuses when it compiles:
 * unknown filters and tests outside of conditions, {@code break} outside of a loop, assignments to {@code loop}.
 */
final class Binder {
    private static final int MAX_LOOPS = 20;

    /** Where a statement stands: in how many loops of this function, and whether inside a condition. */
    private record Place(Symbols symbols, int loops, boolean soft) {
        Place soften() {
            return new Place(symbols, loops, true);
        }

        Place inner(Symbols inner) {
            return new Place(inner, loops, false);
        }

        Place loop(Symbols inner) {
            return new Place(inner, loops + 1, false);
        }

        Place function(Symbols inner) {
            return new Place(inner, 0, false);
        }
    }

    private Binder() {}

    /** Binds a whole template; returns the variables that it loads first. */
    static Node.Scope bind(List<Stmt> template) {
        Symbols symbols = new Symbols(null);
        SymbolCollector.statements(symbols, template);
        bindAll(template, new Place(symbols, 0, false));
        Node.Scope scope = new Node.Scope();
        scope.loads = symbols.loads();
        return scope;
    }

    private static void bindAll(List<Stmt> statements, Place place) {
        statements.forEach(statement -> bind(statement, place));
    }

    private static void bind(Stmt statement, Place place) {
        if (statement instanceof Node.Output output) {
            expr(output.value(), place);
        } else if (statement instanceof Node.If node) {
            bindIf(node, place);
        } else if (statement instanceof Node.For loop) {
            bindFor(loop, place);
        } else if (statement instanceof Node.Set set) {
            expr(set.target(), place);
            expr(set.value(), place);
        } else if (statement instanceof Node.SetBlock set) {
            bindSetBlock(set, place);
        } else if (statement instanceof Node.Macro macro) {
            bindMacro(macro.body(), macro.line(), place);
            macro.binding().variable = place.symbols.find(macro.name());
        } else if (statement instanceof Node.CallBlock block) {
            bindMacro(block.body(), block.line(), place);
            if (block.call() != null) {
                expr(block.call(), place);
            }
        } else if (statement instanceof Node.FilterBlock block) {
            bindFilterBlock(block, place);
        } else if (statement instanceof Node.With with) {
            bindWith(with, place);
        } else if (place.loops == 0 && (statement instanceof Node.Break || statement instanceof Node.Continue)) {
            throw JinjaException.error("'break' or 'continue' outside of a loop")
                    .at(statement.line());
        }
    }

    private static void bindIf(Node.If node, Place place) {
        Place soft = place.soften();
        node.tests().forEach(test -> expr(test, soft));
        node.branches().forEach(branch -> bindAll(branch, soft));
        bindAll(node.otherwise(), soft);
    }

    private static void bindFor(Node.For node, Place place) {
        if (place.loops >= MAX_LOOPS) {
            throw JinjaException.error("more than " + MAX_LOOPS + " nested loops")
                    .at(node.line());
        }
        SymbolCollector.refuseAssignmentsToLoop(node);
        Symbols body = new Symbols(place.symbols);
        if (node.recursive()
                || SymbolCollector.mentions(node.body(), Set.of("loop")).contains("loop")) {
            node.scopes().loopVariable = body.parameter("loop");
        }
        SymbolCollector.target(body, node.target());
        SymbolCollector.statements(body, node.body());
        expr(node.iterable(), place);
        expr(node.target(), place.inner(body));
        bindAll(node.body(), node.recursive() ? new Place(body, 1, false) : place.loop(body));
        node.scopes().body.loads = body.loads();
        if (node.test() != null) {
            Symbols test = new Symbols(place.symbols);
            SymbolCollector.target(test, node.target());
            SymbolCollector.expr(test, node.test());
            expr(node.test(), place.inner(test));
            node.scopes().test.loads = test.loads();
        }
        if (node.otherwise() != null) {
            Symbols otherwise = new Symbols(place.symbols);
            SymbolCollector.statements(otherwise, node.otherwise());
            bindAll(node.otherwise(), node.recursive() ? place.function(otherwise) : place.inner(otherwise));
            node.scopes().otherwise.loads = otherwise.loads();
        }
    }

    private static void bindSetBlock(Node.SetBlock node, Place place) {
        Symbols symbols = new Symbols(place.symbols);
        SymbolCollector.statements(symbols, node.body());
        Place inner = place.inner(symbols);
        bindAll(node.body(), inner);
        expr(node.target(), place);
        if (node.filter() != null) {
            expr(node.filter(), inner);
        }
        node.scope().loads = symbols.loads();
    }

    private static void bindFilterBlock(Node.FilterBlock node, Place place) {
        Symbols symbols = new Symbols(place.symbols);
        SymbolCollector.statements(symbols, node.body());
        SymbolCollector.expr(symbols, node.filter());
        Place inner = place.inner(symbols);
        bindAll(node.body(), inner);
        expr(node.filter(), inner);
        node.scope().loads = symbols.loads();
    }

    private static void bindWith(Node.With node, Place place) {
        Symbols symbols = new Symbols(place.symbols);
        node.targets().forEach(target -> SymbolCollector.target(symbols, target));
        SymbolCollector.statements(symbols, node.body());
        node.values().forEach(value -> expr(value, place));
        Place inner = place.inner(symbols);
        node.targets().forEach(target -> expr(target, inner));
        bindAll(node.body(), inner);
        node.scope().loads = symbols.loads();
    }

    private static void bindMacro(Node.MacroBody macro, int line, Place place) {
        Symbols symbols = new Symbols(place.symbols);
        SymbolCollector.macro(symbols, macro);
        Set<String> parameters = new HashSet<>();
        macro.parameters().forEach(parameter -> parameters.add(parameter.name()));
        Set<String> implicit = SymbolCollector.mentions(macro.body(), Set.of("caller", "kwargs", "varargs"));
        macro.scope().explicitCaller = parameters.contains("caller");
        if (implicit.contains("caller")) {
            if (!macro.scope().explicitCaller) {
                macro.scope().callerVariable = symbols.parameter("caller");
            } else if (isRequired(macro, "caller")) {
                throw JinjaException.error("the special \"caller\" argument must be omitted or be given a default")
                        .at(line);
            }
        }
        if (implicit.contains("kwargs") && !parameters.contains("kwargs")) {
            macro.scope().kwargsVariable = symbols.parameter("kwargs");
        }
        if (implicit.contains("varargs") && !parameters.contains("varargs")) {
            macro.scope().varargsVariable = symbols.parameter("varargs");
        }
        SymbolCollector.macro(symbols, macro);
        Place inner = place.function(symbols);
        macro.parameters().forEach(parameter -> expr(parameter, inner));
        macro.defaults().forEach(value -> expr(value, inner));
        bindAll(macro.body(), inner);
        macro.scope().body.loads = symbols.loads();
    }

    private static boolean isRequired(Node.MacroBody macro, String name) {
        int required = macro.parameters().size() - macro.defaults().size();
        return macro.parameters().subList(0, required).stream()
                .anyMatch(parameter -> parameter.name().equals(name));
    }

    private static void expr(Expr expr, Place place) {
        if (expr instanceof Node.Name name) {
            name.binding().variable = bound(name.name(), name.line(), place);
            name.binding().parameter = place.symbols.isParameter(name.binding().variable);
        } else if (expr instanceof Node.NamespaceRef ref) {
            ref.binding().variable = bound(ref.name(), ref.line(), place);
        } else if (expr instanceof Node.Filter filter && !place.soft && !Filters.NAMES.contains(filter.name())) {
            throw JinjaException.error("No filter named '" + filter.name() + "'.")
                    .at(filter.line());
        } else if (expr instanceof Node.Test test && !place.soft && !Tests.NAMES.contains(test.name())) {
            throw JinjaException.error("No test named '" + test.name() + "'.").at(test.line());
        }
        if (expr instanceof Node.DictExpr dict
                && dict.keys().stream().anyMatch(key -> key instanceof Node.ListExpr || key instanceof Node.DictExpr)) {
            throw JinjaException.error("unhashable type as the key of a dict").at(expr.line());
        }
        Place inner = expr instanceof Node.Conditional ? place.soften() : place;
        SymbolCollector.children(expr).forEach(child -> expr(child, inner));
    }

    private static String bound(String name, int line, Place place) {
        if (name.equals("self")) {
            throw JinjaException.unsupported("the variable 'self'").at(line);
        }
        String variable = place.symbols.find(name);
        if (variable == null) {
            throw JinjaException.error("the name '" + name + "' is not known here")
                    .at(line);
        }
        return variable;
    }

    /** All arguments in the order in which they are evaluated. */
    static List<Expr> flatten(ArgumentList arguments) {
        List<Expr> all = new ArrayList<>(arguments.positional());
        if (arguments.star() != null) {
            all.add(arguments.star());
        }
        all.addAll(arguments.named());
        if (arguments.doubleStar() != null) {
            all.add(arguments.doubleStar());
        }
        return all;
    }
}
