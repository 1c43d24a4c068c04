package io.github.sparkmla.checkpoint.jinja;

import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;

/** A macro, or the body of a call block: a function whose value is the text that it writes. */
final class Macro implements PyTypes.Callable {
    private final Interpreter interpreter;
    private final String name;
    private final Node.MacroBody body;
    private final Env outer;

    /** {@code name} is null for the body of a call block; {@code outer} holds the variables where it was defined. */
    Macro(Interpreter interpreter, String name, Node.MacroBody body, Env outer) {
        this.interpreter = interpreter;
        this.name = name;
        this.body = body;
        this.outer = outer;
    }

    String describe() {
        return "<Macro " + (name == null ? "anonymous" : interpreter.values.repr(name)) + ">";
    }

    @Override
    public String call(Arguments arguments) {
        Env env = new Env(outer);
        List<Node.Name> parameters = body.parameters();
        List<Object> positional = arguments.positional();
        Map<String, Object> named = new LinkedHashMap<>(arguments.named());
        boolean foundCaller = positional.size() >= parameters.size() && body.scope().explicitCaller;
        for (int i = 0; i < parameters.size(); i++) {
            String parameter = parameters.get(i).name();
            boolean isNamed = i >= positional.size() && named.containsKey(parameter);
            Object value = i < positional.size() ? positional.get(i) : isNamed ? named.remove(parameter) : Env.UNSET;
            foundCaller |= i >= positional.size() && parameter.equals("caller");
            env.set(parameters.get(i).binding().variable, value);
        }
        passImplicit(env, named, foundCaller);
        passVarargs(env, positional);
        return interpreter.runMacro(body, env);
    }

    private void passImplicit(Env env, Map<String, Object> named, boolean foundCaller) {
        Node.MacroScope scope = body.scope();
        if (scope.callerVariable != null && !foundCaller) {
            Object caller = named.remove("caller");
            env.set(scope.callerVariable, caller == null ? new Undefined("No caller defined") : caller);
        }
        if (scope.kwargsVariable != null) {
            PyTypes.Dict kwargs = new PyTypes.Dict();
            named.forEach((key, value) -> kwargs.put(key, key, value));
            env.set(scope.kwargsVariable, kwargs);
        } else if (!named.isEmpty()) {
            throw JinjaException.error("macro '" + name + "' takes no keyword argument '"
                    + named.keySet().iterator().next() + "'");
        }
    }

    /** Sets what is left of the positional arguments. */
    private void passVarargs(Env env, List<Object> positional) {
        int count = body.parameters().size();
        if (body.scope().varargsVariable != null) {
            List<Object> rest = positional.size() > count ? positional.subList(count, positional.size()) : List.of();
            env.set(body.scope().varargsVariable, new PyTypes.Tuple(rest));
        } else if (positional.size() > count) {
            throw JinjaException.error("macro '" + name + "' takes not more than " + count + " argument(s)");
        }
    }
}
