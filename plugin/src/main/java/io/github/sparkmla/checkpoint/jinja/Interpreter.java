package io.github.sparkmla.checkpoint.jinja;

import io.github.sparkmla.checkpoint.jinja.Node.Expr;
import io.github.sparkmla.checkpoint.jinja.Node.Stmt;
import java.time.Clock;
import java.util.ArrayList;
import java.util.Iterator;
import java.util.List;
import java.util.Map;

/** Runs the statements of a template. One instance a rendering. */
final class Interpreter {
    /** How a run of statements ended. */
    private enum End {
        NORMAL,
        BREAK,
        CONTINUE
    }

    final Values values;
    private final Evaluator evaluator;
    private final Map<String, Object> context;

    /** {@code context} holds converted values, see {@link ContextValues}. */
    Interpreter(Map<String, Object> context, Limits limits, Clock clock) {
        this.values = new Values(limits);
        this.evaluator = new Evaluator(values);
        this.context = context;
        Globals.of(values, clock).forEach((name, global) -> {
            if (!context.containsKey(name)) {
                context.put(name, global);
            }
        });
    }

    String run(List<Stmt> template, Node.Scope scope) {
        Env env = new Env(null);
        TextOutput out = new TextOutput(values.limits);
        enter(scope, env);
        run(template, env, out);
        return out.text();
    }

    private End run(List<Stmt> statements, Env env, TextOutput out) {
        for (Stmt statement : statements) {
            End end;
            try {
                values.limits.step(1);
                values.limits.enter();
                end = run(statement, env, out);
                values.limits.leave();
            } catch (JinjaException e) {
                throw e.at(statement.line());
            }
            if (end != End.NORMAL) {
                return end;
            }
        }
        return End.NORMAL;
    }

    private End run(Stmt statement, Env env, TextOutput out) {
        if (statement instanceof Node.Data data) {
            out.write(data.text());
        } else if (statement instanceof Node.Output output) {
            out.write(values.str(evaluator.eval(output.value(), env)));
        } else if (statement instanceof Node.If node) {
            return runIf(node, env, out);
        } else if (statement instanceof Node.For loop) {
            return runFor(loop, env, out);
        } else if (statement instanceof Node.Set set) {
            set(set, env);
        } else if (statement instanceof Node.SetBlock block) {
            return setBlock(block, env);
        } else if (statement instanceof Node.Macro macro) {
            env.set(macro.binding().variable, new Macro(this, macro.name(), macro.body(), env));
        } else if (statement instanceof Node.CallBlock block) {
            out.write(call(block, env));
        } else if (statement instanceof Node.FilterBlock block) {
            return filterBlock(block, env, out);
        } else if (statement instanceof Node.With with) {
            return with(with, env, out);
        } else if (statement instanceof Node.Break) {
            return End.BREAK;
        } else if (statement instanceof Node.Continue) {
            return End.CONTINUE;
        }
        return End.NORMAL;
    }

    /** Gives the variables of a frame the values that they start from. */
    private void enter(Node.Scope scope, Env env) {
        for (Symbols.Load load : scope.loads) {
            switch (load.source()) {
                case CONTEXT -> env.set(load.variable(), context.getOrDefault(load.from(), Env.UNSET));
                case OUTER -> env.set(load.variable(), env.get(load.from()));
                case NOWHERE -> env.set(load.variable(), Env.UNSET);
                case PARAMETER -> {}
            }
        }
    }

    private void leave(Node.Scope scope, Env env) {
        for (Symbols.Load load : scope.loads) {
            env.set(load.variable(), Env.UNSET);
        }
    }

    private End runIf(Node.If node, Env env, TextOutput out) {
        for (int i = 0; i < node.tests().size(); i++) {
            if (values.truth(evaluator.eval(node.tests().get(i), env))) {
                return run(node.branches().get(i), env, out);
            }
        }
        return run(node.otherwise(), env, out);
    }

    private End runFor(Node.For loop, Env env, TextOutput out) {
        if (!loop.recursive()) {
            return iterate(loop, evaluator.eval(loop.iterable(), env), env, out, null, 0);
        }
        out.write(recurse(loop, evaluator.eval(loop.iterable(), env), env, 0));
        return End.NORMAL;
    }

    /** One level of a recursive loop: a function of its own with its own variables. */
    private String recurse(Node.For loop, Object iterable, Env env, int depth) {
        TextOutput out = new TextOutput(values.limits);
        values.limits.enter();
        iterate(loop, iterable, new Env(env), out, (inner, level) -> recurse(loop, inner, env, level), depth);
        values.limits.leave();
        return out.text();
    }

    private End iterate(
            Node.For loop, Object iterable, Env env, TextOutput out, LoopContext.Recursion recursion, int depth) {
        Node.LoopScopes scopes = loop.scopes();
        Object elements = loop.test() == null ? iterable : new PyTypes.Once(filtered(loop, iterable, env));
        LoopContext context = new LoopContext(values, elements, recursion, depth);
        boolean completed = false;
        End end = End.NORMAL;
        while (end != End.BREAK && context.hasNext()) {
            assign(loop.target(), context.next(), env);
            if (scopes.loopVariable != null) {
                env.set(scopes.loopVariable, context);
            }
            enter(scopes.body, env);
            end = run(loop.body(), env, out);
            // As in jinja2, an else runs unless some iteration reached its end: break and continue do not.
            completed |= end == End.NORMAL;
        }
        leave(scopes.body, env);
        if (loop.otherwise() != null && !completed) {
            enter(scopes.otherwise, env);
            end = run(loop.otherwise(), env, out);
            leave(scopes.otherwise, env);
            return end;
        }
        return End.NORMAL;
    }

    /** The elements that pass the loop's test, found one by one as the loop asks for them. */
    private Iterator<Object> filtered(Node.For loop, Object iterable, Env outer) {
        Iterator<Object> source = values.iterate(iterable);
        Env env = new Env(outer);
        boolean[] entered = {false};
        return new Lookahead() {
            @Override
            protected Object advance() {
                if (!entered[0]) {
                    enter(loop.scopes().test, env);
                    entered[0] = true;
                }
                while (source.hasNext()) {
                    values.limits.step(1);
                    Object element = source.next();
                    assign(loop.target(), element, env);
                    if (values.truth(evaluator.eval(loop.test(), env))) {
                        return rebuild(loop.target(), env);
                    }
                }
                return END;
            }
        };
    }

    /** The value of a target's variables, as the test of a loop passes it on: unpacked elements become tuples. */
    private Object rebuild(Expr target, Env env) {
        if (target instanceof Node.TupleExpr tuple) {
            List<Object> items = new ArrayList<>();
            tuple.items().forEach(item -> items.add(rebuild(item, env)));
            return new PyTypes.Tuple(items);
        }
        return env.get(((Node.Name) target).binding().variable);
    }

    private void set(Node.Set set, Env env) {
        checkNamespaces(set.target(), env);
        assign(set.target(), evaluator.eval(set.value(), env), env);
    }

    private void checkNamespaces(Expr target, Env env) {
        if (target instanceof Node.NamespaceRef ref) {
            namespace(ref, env);
        }
        SymbolCollector.children(target).forEach(child -> checkNamespaces(child, env));
    }

    private static PyTypes.Namespace namespace(Node.NamespaceRef ref, Env env) {
        if (env.get(ref.binding().variable) instanceof PyTypes.Namespace namespace) {
            return namespace;
        }
        throw JinjaException.error("cannot assign attribute on non-namespace object");
    }

    private void assign(Expr target, Object value, Env env) {
        if (target instanceof Node.Name name) {
            env.set(name.binding().variable, value);
        } else if (target instanceof Node.NamespaceRef ref) {
            namespace(ref, env).attributes().put(ref.attribute(), ref.attribute(), value);
        } else if (target instanceof Node.TupleExpr tuple) {
            List<Object> parts = values.list(value);
            if (parts.size() != tuple.items().size()) {
                throw JinjaException.error("cannot unpack " + parts.size() + " values into "
                        + tuple.items().size());
            }
            for (int i = 0; i < parts.size(); i++) {
                assign(tuple.items().get(i), parts.get(i), env);
            }
        }
    }

    private End setBlock(Node.SetBlock block, Env env) {
        TextOutput buffer = new TextOutput(values.limits);
        enter(block.scope(), env);
        End end = run(block.body(), env, buffer);
        if (end == End.NORMAL) {
            Object value =
                    block.filter() == null ? buffer.text() : evaluator.filterText(block.filter(), buffer.text(), env);
            assign(block.target(), value, env);
            leave(block.scope(), env);
        }
        return end;
    }

    private End filterBlock(Node.FilterBlock block, Env env, TextOutput out) {
        TextOutput buffer = new TextOutput(values.limits);
        enter(block.scope(), env);
        End end = run(block.body(), env, buffer);
        if (end == End.NORMAL) {
            out.write(requireText(evaluator.filterText(block.filter(), buffer.text(), env)));
            leave(block.scope(), env);
        }
        return end;
    }

    private End with(Node.With with, Env env, TextOutput out) {
        enter(with.scope(), env);
        for (int i = 0; i < with.targets().size(); i++) {
            assign(with.targets().get(i), evaluator.eval(with.values().get(i), env), env);
        }
        End end = run(with.body(), env, out);
        if (end == End.NORMAL) {
            leave(with.scope(), env);
        }
        return end;
    }

    private String call(Node.CallBlock block, Env env) {
        Macro caller = new Macro(this, null, block.body(), env);
        if (block.call() == null) {
            return caller.call(Arguments.NONE);
        }
        return requireText(evaluator.callWithCaller(block.call(), caller, env));
    }

    private static String requireText(Object value) {
        if (value instanceof String text) {
            return text;
        }
        throw JinjaException.error("expected a string, " + PyTypes.name(value) + " found");
    }

    /** The body of a macro, its parameters already set in {@code env} or UNSET. */
    String runMacro(Node.MacroBody macro, Env env) {
        values.limits.enter();
        enter(macro.scope().body, env);
        int required = macro.parameters().size() - macro.defaults().size();
        for (int i = 0; i < macro.parameters().size(); i++) {
            Node.Name parameter = macro.parameters().get(i);
            if (env.get(parameter.binding().variable) == Env.UNSET) {
                Object value = i < required
                        ? new Undefined("parameter '" + parameter.name() + "' was not provided")
                        : evaluator.eval(macro.defaults().get(i - required), env);
                env.set(parameter.binding().variable, value);
            }
        }
        TextOutput out = new TextOutput(values.limits);
        run(macro.body(), env, out);
        values.limits.leave();
        return out.text();
    }
}
