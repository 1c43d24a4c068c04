package io.github.sparkmla.checkpoint.jinja;

import java.util.ArrayList;
import java.util.Collection;
import java.util.Iterator;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;

/**
 * The Python types that Java has no exact counterpart of. None is null, bool Boolean, int Long, float Double (finite),
 * str String (well-formed), list {@link java.util.List}; no value can be changed but a {@link Namespace}.
 */
final class PyTypes {
    private PyTypes() {}

    /** A tuple. */
    static class Tuple {
        final List<Object> items;

        Tuple(List<Object> items) {
            this.items = items;
        }

        static Tuple of(Object... items) {
            List<Object> list = new ArrayList<>();
            for (Object item : items) {
                list.add(item);
            }
            return new Tuple(list);
        }
    }

    /** What {@code groupby} yields: a pair with names. */
    static final class Group extends Tuple {
        Group(Object grouper, List<Object> list) {
            super(Tuple.of(grouper, list).items);
        }
    }

    /** A dict: insertion order, keys that are equal in Python (1, 1.0, true) are one. */
    static final class Dict {
        private final Map<Object, Map.Entry<Object, Object>> entries = new LinkedHashMap<>();

        /** {@code hash} is what {@link Values#hashKey} gives for the key; an existing key object stays. */
        void put(Object hash, Object key, Object value) {
            Map.Entry<Object, Object> old = entries.get(hash);
            entries.put(hash, new java.util.AbstractMap.SimpleEntry<>(old == null ? key : old.getKey(), value));
        }

        boolean contains(Object hash) {
            return entries.containsKey(hash);
        }

        Object get(Object hash) {
            Map.Entry<Object, Object> entry = entries.get(hash);
            return entry == null ? null : entry.getValue();
        }

        int size() {
            return entries.size();
        }

        Collection<Map.Entry<Object, Object>> entries() {
            return entries.values();
        }

        Iterable<Object> hashes() {
            return entries.keySet();
        }

        List<Object> keys() {
            List<Object> keys = new ArrayList<>();
            entries().forEach(entry -> keys.add(entry.getKey()));
            return keys;
        }

        List<Object> values() {
            List<Object> values = new ArrayList<>();
            entries().forEach(entry -> values.add(entry.getValue()));
            return values;
        }

        List<Object> items() {
            List<Object> items = new ArrayList<>();
            entries().forEach(entry -> items.add(Tuple.of(entry.getKey(), entry.getValue())));
            return items;
        }
    }

    /** {@code dict.keys()}, {@code dict.values()} or {@code dict.items()}. */
    record DictView(String type, List<Object> elements) {}

    /** A range; never longer than the sandbox' 100,000 elements. */
    record Range(long start, long stop, long step) {
        private static final int MAX = 100_000;

        Range {
            if (step == 0) {
                throw JinjaException.error("range() arg 3 must not be zero");
            }
            if (Math.abs((double) start) > 1e15 || Math.abs((double) stop) > 1e15 || Math.abs((double) step) > 1e15) {
                throw JinjaException.unsupported("ranges beyond 10**15");
            }
            if (length(start, stop, step) > MAX) {
                throw JinjaException.error(
                        "Range too big. The sandbox blocks ranges larger than MAX_RANGE (" + MAX + ").");
            }
        }

        private static long length(long start, long stop, long step) {
            long span = step > 0 ? stop - start : start - stop;
            return span <= 0 ? 0 : (span - 1) / Math.abs(step) + 1;
        }

        List<Object> elements() {
            int length = (int) length(start, stop, step);
            List<Object> elements = new ArrayList<>(length);
            for (int i = 0; i < length; i++) {
                elements.add(start + i * step);
            }
            return elements;
        }
    }

    /** An iterator that can be gone through once: what {@code map}, {@code select} and the like give. */
    record Once(Iterator<Object> iterator) {}

    /** Attributes that can be set; the one value that changes. */
    record Namespace(Dict attributes) {}

    /**
     * A string marked as safe: prints as it is. Python escapes what is added to it; what else it does with such a string
     * is refused.
     */
    record Markup(String text) {
        /** Text with the characters that mean something in HTML escaped. */
        static Markup escaped(String text) {
            return new Markup(text.replace("&", "&amp;")
                    .replace(">", "&gt;")
                    .replace("<", "&lt;")
                    .replace("'", "&#39;")
                    .replace("\"", "&#34;"));
        }
    }

    /** Goes through its values round and round. */
    static final class Cycler {
        final List<Object> values;
        int position = 0;

        Cycler(List<Object> values) {
            this.values = values;
        }
    }

    /** A function of the interpreter, or a method bound to its object. */
    interface Callable {
        Object call(Arguments arguments);
    }

    /** The name of a value's type in error messages. */
    static String name(Object value) {
        if (value == null) {
            return "NoneType";
        } else if (value instanceof Boolean) {
            return "bool";
        } else if (value instanceof Long) {
            return "int";
        } else if (value instanceof Double) {
            return "float";
        } else if (value instanceof String) {
            return "str";
        } else if (value instanceof List) {
            return "list";
        } else if (value instanceof Tuple) {
            return "tuple";
        } else if (value instanceof Dict) {
            return "dict";
        } else if (value instanceof DictView view) {
            return view.type();
        } else if (value instanceof Undefined) {
            return "Undefined";
        } else if (value instanceof Once) {
            return "generator";
        } else if (value instanceof LoopContext) {
            return "LoopContext";
        } else if (value instanceof Callable) {
            return "function";
        }
        return value.getClass().getSimpleName().toLowerCase(java.util.Locale.ROOT);
    }
}
