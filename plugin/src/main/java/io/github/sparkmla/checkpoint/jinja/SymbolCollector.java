package io.github.sparkmla.checkpoint.jinja;

import io.github.sparkmla.checkpoint.jinja.Node.Expr;
import io.github.sparkmla.checkpoint.jinja.Node.Stmt;
import java.util.ArrayList;
import java.util.HashSet;
import java.util.LinkedHashSet;
import java.util.List;
import java.util.Set;

/** Enters the names that statements mention into the symbols of their frame, in the order of mention. */
final class SymbolCollector {
    private SymbolCollector() {}

    static void statements(Symbols symbols, List<Stmt> statements) {
        statements.forEach(statement -> statement(symbols, statement));
    }

    /** Frames of their own (bodies of loops, macros, blocks) are left out: only what runs in this frame counts. */
    private static void statement(Symbols symbols, Stmt statement) {
        if (statement instanceof Node.Output output) {
            expr(symbols, output.value());
        } else if (statement instanceof Node.If node) {
            branches(symbols, node);
        } else if (statement instanceof Node.For loop) {
            expr(symbols, loop.iterable());
        } else if (statement instanceof Node.Set set) {
            expr(symbols, set.value());
            expr(symbols, set.target());
        } else if (statement instanceof Node.SetBlock set) {
            expr(symbols, set.target());
        } else if (statement instanceof Node.Macro macro) {
            symbols.store(macro.name());
        } else if (statement instanceof Node.CallBlock block && block.call() != null) {
            expr(symbols, block.call());
        } else if (statement instanceof Node.FilterBlock block) {
            expr(symbols, block.filter());
        } else if (statement instanceof Node.With with) {
            with.values().forEach(value -> expr(symbols, value));
        }
    }

    private static void branches(Symbols symbols, Node.If node) {
        expr(symbols, node.tests().get(0));
        Symbols body = symbols.branch();
        statements(body, node.branches().get(0));
        Symbols elif = symbols.branch();
        for (int i = 1; i < node.tests().size(); i++) {
            expr(elif, node.tests().get(i));
            Symbols branch = elif.branch();
            statements(branch, node.branches().get(i));
            elif.merge(List.of(branch, elif.branch(), elif.branch()));
        }
        Symbols otherwise = symbols.branch();
        statements(otherwise, node.otherwise());
        symbols.merge(List.of(body, elif, otherwise));
    }

    static void expr(Symbols symbols, Expr expr) {
        if (expr instanceof Node.Name name) {
            if (name.binding().store) {
                symbols.store(name.name());
            } else {
                symbols.load(name.name());
            }
        } else if (expr instanceof Node.NamespaceRef ref) {
            symbols.load(ref.name());
        }
        children(expr).forEach(child -> expr(symbols, child));
    }

    /** The names of a target that the frame is entered with. */
    static void target(Symbols symbols, Expr target) {
        if (target instanceof Node.Name name) {
            symbols.parameter(name.name());
        }
        children(target).forEach(child -> target(symbols, child));
    }

    static void macro(Symbols symbols, Node.MacroBody macro) {
        macro.parameters().forEach(parameter -> symbols.parameter(parameter.name()));
        macro.defaults().forEach(value -> expr(symbols, value));
        statements(symbols, macro.body());
    }

    static List<Expr> children(Expr expr) {
        if (expr instanceof Node.TupleExpr tuple) {
            return tuple.items();
        } else if (expr instanceof Node.ListExpr list) {
            return list.items();
        } else if (expr instanceof Node.DictExpr dict) {
            List<Expr> all = new ArrayList<>(dict.keys());
            all.addAll(dict.values());
            return all;
        } else if (expr instanceof Node.Unary unary) {
            return List.of(unary.operand());
        } else if (expr instanceof Node.Binary binary) {
            return List.of(binary.left(), binary.right());
        } else if (expr instanceof Node.Concat concat) {
            return concat.parts();
        } else if (expr instanceof Node.Compare compare) {
            return listOf(compare.rest(), compare.first());
        } else if (expr instanceof Node.Conditional conditional) {
            return listOf(List.of(), conditional.test(), conditional.then(), conditional.otherwise());
        } else if (expr instanceof Node.Attribute attribute) {
            return List.of(attribute.object());
        } else if (expr instanceof Node.Item item) {
            return List.of(item.object(), item.key());
        } else if (expr instanceof Node.Slice slice) {
            return listOf(List.of(), slice.object(), slice.start(), slice.stop(), slice.step());
        } else if (expr instanceof Node.Call call) {
            return listOf(Binder.flatten(call.arguments()), call.function());
        } else if (expr instanceof Node.Filter filter) {
            return listOf(Binder.flatten(filter.arguments()), filter.input());
        } else if (expr instanceof Node.Test test) {
            return listOf(Binder.flatten(test.arguments()), test.input());
        }
        return List.of();
    }

    /** Those of the first that are there, then the rest. */
    private static List<Expr> listOf(List<Expr> rest, Expr... first) {
        List<Expr> all = new ArrayList<>();
        for (Expr expr : first) {
            if (expr != null) {
                all.add(expr);
            }
        }
        all.addAll(rest);
        return all;
    }

    /** Which of the names are read anywhere inside the statements, nested frames included, before they are set. */
    static Set<String> mentions(List<Stmt> statements, Set<String> names) {
        Set<String> open = new HashSet<>(names);
        Set<String> found = new HashSet<>();
        for (Node.Name name : names(statements)) {
            if (!name.binding().store && open.contains(name.name())) {
                found.add(name.name());
            } else {
                open.remove(name.name());
            }
        }
        return found;
    }

    static void refuseAssignmentsToLoop(Node.For loop) {
        List<Node.Name> names = new ArrayList<>(names(List.of(loop)));
        for (Node.Name name : names) {
            if (name.binding().store && name.name().equals("loop")) {
                throw JinjaException.error("Can't assign to special loop variable in for-loop target")
                        .at(name.line());
            }
        }
    }

    private static Set<Node.Name> names(List<Stmt> statements) {
        NameWalk walk = new NameWalk();
        walk.statements(statements);
        return walk.names;
    }

    /** All names below some statements, in jinja2's order: the fields of each node from first to last. */
    private static final class NameWalk {
        final Set<Node.Name> names = new LinkedHashSet<>();

        void statements(List<Stmt> statements) {
            statements.forEach(this::statement);
        }

        private void statement(Stmt statement) {
            if (statement instanceof Node.Output output) {
                expr(output.value());
            } else if (statement instanceof Node.If node) {
                for (int i = 0; i < node.tests().size(); i++) {
                    expr(node.tests().get(i));
                    statements(node.branches().get(i));
                }
                statements(node.otherwise());
            } else if (statement instanceof Node.For loop) {
                expr(loop.target());
                expr(loop.iterable());
                statements(loop.body());
                statements(loop.otherwise() == null ? List.of() : loop.otherwise());
                expr(loop.test());
            } else if (statement instanceof Node.Set set) {
                expr(set.target());
                expr(set.value());
            } else if (statement instanceof Node.SetBlock set) {
                expr(set.target());
                expr(set.filter());
                statements(set.body());
            } else if (statement instanceof Node.Macro macro) {
                macroBody(macro.body());
            } else if (statement instanceof Node.CallBlock block) {
                expr(block.call());
                macroBody(block.body());
            } else if (statement instanceof Node.FilterBlock block) {
                statements(block.body());
                expr(block.filter());
            } else if (statement instanceof Node.With with) {
                with.targets().forEach(this::expr);
                with.values().forEach(this::expr);
                statements(with.body());
            }
        }

        private void macroBody(Node.MacroBody macro) {
            macro.parameters().forEach(this::expr);
            macro.defaults().forEach(this::expr);
            statements(macro.body());
        }

        private void expr(Expr expr) {
            if (expr instanceof Node.Name name) {
                names.add(name);
            } else if (expr != null) {
                children(expr).forEach(this::expr);
            }
        }
    }
}
