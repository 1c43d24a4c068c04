package io.github.sparkmla.checkpoint.jinja;

import io.github.sparkmla.checkpoint.jinja.Node.ArgumentList;
import io.github.sparkmla.checkpoint.jinja.Node.Expr;
import java.util.ArrayList;
import java.util.Collections;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;

/** Computes the values of expressions. */
final class Evaluator {
    private static final String FILTER_TEXT = "text of the filter block";

    private final Values values;
    private final Operators operators;
    private final Attributes attributes;
    private final Filters filters;
    private final Tests tests;

    Evaluator(Values values) {
        this.values = values;
        this.operators = new Operators(values);
        this.attributes = new Attributes(values);
        this.tests = new Tests(values);
        this.filters = new Filters(values, attributes, operators, tests);
    }

    Object eval(Expr expr, Env env) {
        try {
            values.limits.step(1);
            values.limits.enter();
            Object value = compute(expr, env);
            values.limits.leave();
            return value;
        } catch (JinjaException e) {
            throw e.at(expr.line());
        }
    }

    private Object compute(Expr expr, Env env) {
        if (expr instanceof Node.Const constant) {
            return constant.value();
        } else if (expr instanceof Node.Name name) {
            return name(name, env);
        } else if (expr instanceof Node.Attribute attribute) {
            return attributes.attribute(eval(attribute.object(), env), attribute.name());
        } else if (expr instanceof Node.Item item) {
            Object object = eval(item.object(), env);
            return attributes.item(object, eval(item.key(), env));
        } else if (expr instanceof Node.Slice slice) {
            return slice(slice, env);
        } else if (expr instanceof Node.Call call) {
            Object function = eval(call.function(), env);
            return call(function, arguments(call.arguments(), env));
        } else if (expr instanceof Node.Filter filter) {
            Object input = filter.input() == null ? env.get(FILTER_TEXT) : eval(filter.input(), env);
            return filters.apply(filter.name(), input, arguments(filter.arguments(), env));
        } else if (expr instanceof Node.Test test) {
            Object input = eval(test.input(), env);
            return tests.apply(test.name(), input, arguments(test.arguments(), env));
        }
        return operation(expr, env);
    }

    private Object operation(Expr expr, Env env) {
        if (expr instanceof Node.Binary binary) {
            return binary(binary, env);
        } else if (expr instanceof Node.Unary unary) {
            Object operand = eval(unary.operand(), env);
            return unary.operator().equals("not")
                    ? (Object) !values.truth(operand)
                    : operators.unary(unary.operator(), operand);
        } else if (expr instanceof Node.Compare compare) {
            return compare(compare, env);
        } else if (expr instanceof Node.Concat concat) {
            return concat(concat, env);
        } else if (expr instanceof Node.Conditional conditional) {
            return conditional(conditional, env);
        } else if (expr instanceof Node.ListExpr list) {
            return all(list.items(), env);
        } else if (expr instanceof Node.TupleExpr tuple) {
            return new PyTypes.Tuple(all(tuple.items(), env));
        } else if (expr instanceof Node.DictExpr dict) {
            return dict(dict, env);
        }
        throw new IllegalStateException("no such expression: " + expr);
    }

    private static Object name(Node.Name name, Env env) {
        Object value = env.get(name.binding().variable);
        if (value == Env.UNSET) {
            if (name.binding().parameter) {
                throw JinjaException.unsupported("reading '" + name.name() + "' outside of its loop or macro");
            }
            return Undefined.variable(name.name());
        }
        return value;
    }

    private List<Object> all(List<Expr> exprs, Env env) {
        List<Object> list = new ArrayList<>(exprs.size());
        for (Expr expr : exprs) {
            list.add(eval(expr, env));
        }
        return Collections.unmodifiableList(list);
    }

    private Object dict(Node.DictExpr node, Env env) {
        PyTypes.Dict dict = new PyTypes.Dict();
        for (int i = 0; i < node.keys().size(); i++) {
            Object key = eval(node.keys().get(i), env);
            dict.put(values.hashKey(key), key, eval(node.values().get(i), env));
        }
        return dict;
    }

    private Object binary(Node.Binary node, Env env) {
        Object left = eval(node.left(), env);
        if (node.operator().equals("and")) {
            return values.truth(left) ? eval(node.right(), env) : left;
        }
        if (node.operator().equals("or")) {
            return values.truth(left) ? left : eval(node.right(), env);
        }
        return operators.binary(node.operator(), left, eval(node.right(), env));
    }

    private Object compare(Node.Compare node, Env env) {
        Object left = eval(node.first(), env);
        for (int i = 0; i < node.operators().size(); i++) {
            Object right = eval(node.rest().get(i), env);
            if (!operators.compare(node.operators().get(i), left, right)) {
                return false;
            }
            left = right;
        }
        return true;
    }

    private Object concat(Node.Concat node, Env env) {
        StringBuilder text = new StringBuilder();
        for (Object part : all(node.parts(), env)) {
            String piece = values.str(part);
            values.limits.allocate(text.length() + (long) piece.length());
            text.append(piece);
        }
        return text.toString();
    }

    private Object conditional(Node.Conditional node, Env env) {
        if (values.truth(eval(node.test(), env))) {
            return eval(node.then(), env);
        }
        return node.otherwise() != null
                ? eval(node.otherwise(), env)
                : new Undefined("the inline if-expression on line " + node.line()
                        + " evaluated to false and no else section was defined.");
    }

    private Object slice(Node.Slice node, Env env) {
        Object object = eval(node.object(), env);
        Object start = node.start() == null ? null : eval(node.start(), env);
        Object stop = node.stop() == null ? null : eval(node.stop(), env);
        Object step = node.step() == null ? null : eval(node.step(), env);
        return operators.slice(object, start, stop, step);
    }

    /** A filter, and those it is chained on, applied to the text of a block. */
    Object filterText(Node.Filter filter, String text, Env env) {
        env.set(FILTER_TEXT, text);
        return eval(filter, env);
    }

    /** The call of a call block: the block's body goes along as {@code caller}. */
    Object callWithCaller(Node.Call call, Macro caller, Env env) {
        Object function = eval(call.function(), env);
        Arguments arguments = arguments(call.arguments(), env);
        Map<String, Object> named = new LinkedHashMap<>(arguments.named());
        if (named.put("caller", caller) != null) {
            throw JinjaException.error("keyword argument repeated: caller");
        }
        return call(function, new Arguments(arguments.positional(), named));
    }

    private static Object call(Object function, Arguments arguments) {
        if (function instanceof PyTypes.Callable callable) {
            return callable.call(arguments);
        }
        if (function instanceof Undefined undefined) {
            throw undefined.error();
        }
        throw JinjaException.error("'" + PyTypes.name(function) + "' object is not callable");
    }

    private Arguments arguments(ArgumentList node, Env env) {
        List<Object> positional = new ArrayList<>(all(node.positional(), env));
        if (node.star() != null) {
            positional.addAll(values.list(eval(node.star(), env)));
        }
        Map<String, Object> named = new LinkedHashMap<>();
        for (int i = 0; i < node.names().size(); i++) {
            named.put(node.names().get(i), eval(node.named().get(i), env));
        }
        if (node.doubleStar() != null) {
            addNamed(named, eval(node.doubleStar(), env));
        }
        return new Arguments(positional, named);
    }

    private static void addNamed(Map<String, Object> named, Object mapping) {
        if (!(mapping instanceof PyTypes.Dict dict)) {
            throw JinjaException.error("argument after ** must be a mapping, not " + PyTypes.name(mapping));
        }
        for (Map.Entry<Object, Object> entry : dict.entries()) {
            if (!(entry.getKey() instanceof String name)) {
                throw JinjaException.error("keywords must be strings");
            }
            if (named.containsKey(name)) {
                throw JinjaException.error("got multiple values for keyword argument '" + name + "'");
            }
            named.put(name, entry.getValue());
        }
    }
}
