package io.github.sparkmla.checkpoint.jinja;

import java.util.List;
import java.util.Set;

/** {@code object.name} and {@code object[key]}: one looks for attributes first, the other for elements. */
final class Attributes {
    /** What look-ups give that find nothing. */
    static final Object ABSENT = new Object();

    private static final Set<String> LIST_CHANGES =
            Set.of("append", "clear", "pop", "reverse", "insert", "sort", "extend", "remove");
    private static final Set<String> DICT_CHANGES = Set.of("clear", "pop", "popitem", "setdefault", "update");
    private static final Set<String> LIST_METHODS = Set.of("copy", "count", "index");
    private static final Set<String> TUPLE_METHODS = Set.of("count", "index");
    private static final Set<String> DICT_METHODS = Set.of("copy", "fromkeys", "get", "items", "keys", "values");
    private static final Set<String> INT_ATTRIBUTES = Set.of(
            "as_integer_ratio",
            "bit_count",
            "bit_length",
            "conjugate",
            "denominator",
            "from_bytes",
            "imag",
            "is_integer",
            "numerator",
            "real",
            "to_bytes");
    private static final Set<String> FLOAT_ATTRIBUTES =
            Set.of("as_integer_ratio", "conjugate", "fromhex", "hex", "imag", "is_integer", "real", "from_number");
    private static final Set<String> RANGE_ATTRIBUTES = Set.of("count", "index", "start", "step", "stop");
    private static final Set<String> VIEW_ATTRIBUTES = Set.of("isdisjoint", "mapping");

    private final Values values;
    private final Methods methods;
    private final StringMethods stringMethods;

    Attributes(Values values) {
        this.values = values;
        this.methods = new Methods(values);
        this.stringMethods = new StringMethods(values);
    }

    /** {@code object.name}: an attribute, else an element, else undefined. */
    Object attribute(Object object, String name) {
        Object value = own(object, name);
        if (value == ABSENT) {
            value = element(object, name);
        }
        return value == ABSENT ? Undefined.attribute(object, name) : value;
    }

    /** {@code object[key]}: an element, else an attribute, else undefined. */
    Object item(Object object, Object key) {
        Object value = element(object, key);
        if (value == ABSENT && key instanceof String name) {
            value = own(object, name);
        }
        return value == ABSENT ? Undefined.attribute(object, key) : value;
    }

    /** {@code object|attr(name)}: an attribute, else undefined. */
    Object attributeOnly(Object object, String name) {
        Object value = own(object, name);
        return value == ABSENT ? Undefined.attribute(object, name) : value;
    }

    private Object element(Object object, Object key) {
        if (object instanceof Undefined undefined) {
            throw undefined.error();
        }
        if (object instanceof PyTypes.Dict dict) {
            Object hash = Values.isHashable(key) ? values.hashKey(key) : ABSENT;
            return dict.contains(hash) ? dict.get(hash) : ABSENT;
        }
        if (object instanceof PyTypes.Markup && Numbers.isInt(key)) {
            throw JinjaException.unsupported("the look-up of a number in text marked as safe");
        }
        boolean indexed = object instanceof String
                || object instanceof List
                || object instanceof PyTypes.Tuple
                || object instanceof PyTypes.Range;
        if (!indexed || !Numbers.isInt(key)) {
            return ABSENT;
        }
        long length = values.length(object);
        long index = Numbers.toLong(key);
        index = index < 0 ? index + length : index;
        if (index < 0 || index >= length) {
            return ABSENT;
        }
        return object instanceof String text
                ? Text.substring(text, (int) index, (int) index + 1)
                : Values.elements(object).get((int) index);
    }

    /** What Python's getattr finds, with the sandbox' restrictions. */
    private Object own(Object object, String name) {
        if (object instanceof Undefined undefined) {
            if (name.startsWith("_")) {
                throw JinjaException.unsupported("the attribute '" + name + "'");
            }
            throw undefined.error();
        }
        if (name.startsWith("_") && (name.startsWith("__") || !isPlain(object))) {
            throw JinjaException.unsupported("the attribute '" + name + "'");
        }
        if (object instanceof String text) {
            return stringMethods.bound(text, name);
        } else if (object instanceof PyTypes.Dict dict) {
            return known(object, name, DICT_CHANGES, DICT_METHODS, args -> methods.dict(dict, name, args));
        } else if (object instanceof List<?> list) {
            return known(object, name, LIST_CHANGES, LIST_METHODS, args -> methods.list(list, name, args));
        } else if (object instanceof PyTypes.Group group && (name.equals("grouper") || name.equals("list"))) {
            return group.items.get(name.equals("grouper") ? 0 : 1);
        } else if (object instanceof PyTypes.Tuple tuple) {
            return known(object, name, Set.of(), TUPLE_METHODS, args -> methods.list(tuple.items, name, args));
        }
        return ofOther(object, name);
    }

    private Object ofOther(Object object, String name) {
        if (object instanceof PyTypes.Namespace namespace) {
            return namespace.attributes().contains(name)
                    ? namespace.attributes().get(name)
                    : ABSENT;
        } else if (object instanceof LoopContext loop) {
            return loop.attribute(name);
        } else if (object instanceof PyTypes.Cycler cycler) {
            return methods.cycler(cycler, name);
        } else if (object == null) {
            return ABSENT;
        }
        Set<String> unsupported = object instanceof Double
                ? FLOAT_ATTRIBUTES
                : Numbers.isInt(object)
                        ? INT_ATTRIBUTES
                        : object instanceof PyTypes.Range
                                ? RANGE_ATTRIBUTES
                                : object instanceof PyTypes.DictView ? VIEW_ATTRIBUTES : null;
        if (unsupported == null || unsupported.contains(name)) {
            throw JinjaException.unsupported("the attribute '" + name + "' of a " + PyTypes.name(object));
        }
        return ABSENT;
    }

    private static Object known(
            Object object, String name, Set<String> changes, Set<String> known, PyTypes.Callable method) {
        if (changes.contains(name)) {
            return Undefined.unsafe(object, name);
        }
        return known.contains(name) ? method : ABSENT;
    }

    /** Whether a value of this type has no attributes that start with one underscore. */
    private static boolean isPlain(Object object) {
        return object == null
                || Numbers.isNumber(object)
                || object instanceof String
                || object instanceof List
                || object instanceof PyTypes.Dict
                || (object instanceof PyTypes.Tuple && !(object instanceof PyTypes.Group));
    }
}
