package io.github.sparkmla.checkpoint.jinja;

import java.util.List;
import java.util.Map;

/** The methods of lists, tuples, dicts and cyclers. */
final class Methods {
    private final Values values;

    Methods(Values values) {
        this.values = values;
    }

    Object dict(PyTypes.Dict dict, String name, Arguments arguments) {
        if (name.equals("get")) {
            Object[] bound = arguments.positionalOnly("get", 1, 2);
            Object hash = values.hashKey(bound[0]);
            return dict.contains(hash) ? dict.get(hash) : Arguments.orDefault(bound[1], null);
        }
        if (name.equals("fromkeys")) {
            throw JinjaException.unsupported("dict.fromkeys");
        }
        arguments.positionalOnly(name, 0, 0);
        return switch (name) {
            case "keys" -> new PyTypes.DictView("dict_keys", dict.keys());
            case "values" -> new PyTypes.DictView("dict_values", dict.values());
            case "items" -> new PyTypes.DictView("dict_items", dict.items());
            default -> copy(dict);
        };
    }

    private PyTypes.Dict copy(PyTypes.Dict dict) {
        PyTypes.Dict copy = new PyTypes.Dict();
        for (Map.Entry<Object, Object> entry : dict.entries()) {
            copy.put(values.hashKey(entry.getKey()), entry.getKey(), entry.getValue());
        }
        return copy;
    }

    Object list(List<?> list, String name, Arguments arguments) {
        if (name.equals("copy")) {
            arguments.positionalOnly(name, 0, 0);
            return new java.util.ArrayList<>(list);
        }
        Object[] bound = arguments.positionalOnly(name, 1, name.equals("index") ? 3 : 1);
        if (name.equals("count")) {
            return list.stream().filter(item -> values.equal(item, bound[0])).count();
        }
        if (bound[1] != Arguments.MISSING) {
            throw JinjaException.unsupported("index() with a start");
        }
        for (int i = 0; i < list.size(); i++) {
            if (values.equal(list.get(i), bound[0])) {
                return (long) i;
            }
        }
        throw JinjaException.error(values.repr(bound[0]) + " is not in list");
    }

    /** An attribute of a cycler, {@link Attributes#ABSENT} for none. */
    Object cycler(PyTypes.Cycler cycler, String name) {
        return switch (name) {
            case "current" -> cycler.values.get(cycler.position);
            case "next" ->
                (PyTypes.Callable) arguments -> {
                    arguments.positionalOnly(name, 0, 0);
                    Object value = cycler.values.get(cycler.position);
                    cycler.position = (cycler.position + 1) % cycler.values.size();
                    return value;
                };
            case "reset" ->
                (PyTypes.Callable) arguments -> {
                    arguments.positionalOnly(name, 0, 0);
                    cycler.position = 0;
                    return null;
                };
            case "pos" -> (long) cycler.position;
            case "items" -> new PyTypes.Tuple(cycler.values);
            default -> Attributes.ABSENT;
        };
    }
}
