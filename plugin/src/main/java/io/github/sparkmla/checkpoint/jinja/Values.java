package io.github.sparkmla.checkpoint.jinja;

import java.util.ArrayList;
import java.util.Comparator;
import java.util.Iterator;
import java.util.List;
import java.util.Map;

/** What Python does with values of any type: truth, text, equality, order, iteration. One instance a rendering. */
final class Values {
    final Limits limits;

    Values(Limits limits) {
        this.limits = limits;
    }

    boolean truth(Object value) {
        if (value == null || value instanceof Undefined) {
            return false;
        }
        if (value instanceof Boolean flag) {
            return flag;
        }
        if (Numbers.isNumber(value)) {
            return Numbers.toDouble(value) != 0;
        }
        if (value instanceof String text) {
            return !text.isEmpty();
        }
        return !isSized(value) || length(value) > 0;
    }

    /** Whether {@code len()} works. */
    static boolean isSized(Object value) {
        return value instanceof String
                || value instanceof List
                || value instanceof PyTypes.Tuple
                || value instanceof PyTypes.Dict
                || value instanceof PyTypes.DictView
                || value instanceof PyTypes.Range
                || value instanceof LoopContext
                || value instanceof PyTypes.Markup
                || value instanceof Undefined;
    }

    long length(Object value) {
        if (value instanceof String text) {
            return Text.length(text);
        } else if (value instanceof PyTypes.Markup markup) {
            return Text.length(markup.text());
        } else if (value instanceof PyTypes.Dict dict) {
            return dict.size();
        } else if (value instanceof LoopContext loop) {
            return loop.length();
        } else if (value instanceof Undefined) {
            return 0;
        }
        List<Object> elements = elements(value);
        if (elements == null) {
            throw JinjaException.error("object of type '" + PyTypes.name(value) + "' has no len()");
        }
        return elements.size();
    }

    /** The elements of a list, tuple, range or dict view; null for anything else. */
    @SuppressWarnings("unchecked")
    static List<Object> elements(Object value) {
        if (value instanceof List<?> list) {
            return (List<Object>) list;
        } else if (value instanceof PyTypes.Tuple tuple) {
            return tuple.items;
        } else if (value instanceof PyTypes.Range range) {
            return range.elements();
        } else if (value instanceof PyTypes.DictView view) {
            return view.elements();
        }
        return null;
    }

    static boolean isIterable(Object value) {
        return value instanceof PyTypes.Once || isSized(value);
    }

    Iterator<Object> iterate(Object value) {
        List<Object> elements = elements(value);
        if (elements != null) {
            return elements.iterator();
        } else if (value instanceof PyTypes.Once once) {
            return once.iterator();
        } else if (value instanceof PyTypes.Dict dict) {
            return dict.keys().iterator();
        } else if (value instanceof String text) {
            return text.codePoints()
                    .mapToObj(c -> (Object) Character.toString(c))
                    .iterator();
        } else if (value instanceof Undefined) {
            return List.of().iterator();
        } else if (value instanceof LoopContext || value instanceof PyTypes.Markup) {
            throw JinjaException.unsupported("iterating over a " + PyTypes.name(value));
        }
        throw JinjaException.error("'" + PyTypes.name(value) + "' object is not iterable");
    }

    List<Object> list(Object value) {
        List<Object> list = new ArrayList<>();
        Iterator<Object> iterator = iterate(value);
        while (iterator.hasNext()) {
            limits.step(1);
            list.add(iterator.next());
        }
        limits.allocate(list.size());
        return list;
    }

    /** {@code str(value)}. */
    String str(Object value) {
        if (value instanceof String text) {
            return text;
        }
        if (value instanceof PyTypes.Markup markup) {
            return markup.text();
        }
        return value instanceof Undefined ? "" : repr(value);
    }

    String repr(Object value) {
        return new Repr(this).of(value);
    }

    boolean equal(Object left, Object right) {
        limits.step(1);
        if (left == right) {
            return true;
        }
        if (left instanceof PyTypes.Markup || right instanceof PyTypes.Markup) {
            return equal(plain(left), plain(right));
        }
        if (Numbers.isNumber(left) && Numbers.isNumber(right)) {
            return Numbers.compare(left, right) == 0;
        }
        if (left instanceof List<?> a && right instanceof List<?> b) {
            return equalElements(a, b);
        } else if (left instanceof PyTypes.Tuple a && right instanceof PyTypes.Tuple b) {
            return equalElements(a.items, b.items);
        } else if (left instanceof PyTypes.Dict a && right instanceof PyTypes.Dict b) {
            return equalDicts(a, b);
        } else if (left instanceof PyTypes.Range a && right instanceof PyTypes.Range b) {
            return equalElements(a.elements(), b.elements());
        } else if (left instanceof PyTypes.DictView && right instanceof PyTypes.DictView) {
            throw JinjaException.unsupported("comparing dict views");
        }
        return (left instanceof String || left instanceof Undefined) && left.equals(right);
    }

    private static Object plain(Object value) {
        return value instanceof PyTypes.Markup markup ? markup.text() : value;
    }

    private boolean equalElements(List<?> left, List<?> right) {
        limits.enter();
        boolean equal = left.size() == right.size();
        for (int i = 0; equal && i < left.size(); i++) {
            equal = equal(left.get(i), right.get(i));
        }
        limits.leave();
        return equal;
    }

    private boolean equalDicts(PyTypes.Dict left, PyTypes.Dict right) {
        limits.enter();
        boolean equal = left.size() == right.size();
        Iterator<Object> hashes = left.hashes().iterator();
        while (equal && hashes.hasNext()) {
            Object hash = hashes.next();
            equal = right.contains(hash) && equal(left.get(hash), right.get(hash));
        }
        limits.leave();
        return equal;
    }

    /** Below, equal or above zero; {@code operator} is for the error message of types without an order. */
    int compare(String operator, Object left, Object right) {
        limits.step(1);
        if (left instanceof Undefined undefined) {
            throw undefined.error();
        }
        if (right instanceof Undefined undefined) {
            throw undefined.error();
        }
        if (Numbers.isNumber(left) && Numbers.isNumber(right)) {
            return Numbers.compare(left, right);
        }
        if (left instanceof String a && right instanceof String b) {
            return compareText(a, b);
        }
        boolean lists = left instanceof List && right instanceof List;
        if (lists || (left instanceof PyTypes.Tuple && right instanceof PyTypes.Tuple)) {
            return compareElements(operator, elements(left), elements(right));
        }
        throw JinjaException.error("'" + operator + "' not supported between instances of '" + PyTypes.name(left)
                + "' and '" + PyTypes.name(right) + "'");
    }

    private int compareElements(String operator, List<Object> left, List<Object> right) {
        limits.enter();
        int result = Integer.compare(left.size(), right.size());
        for (int i = 0; i < Math.min(left.size(), right.size()); i++) {
            if (!equal(left.get(i), right.get(i))) {
                result = compare(operator, left.get(i), right.get(i));
                break;
            }
        }
        limits.leave();
        return result;
    }

    /** By code points, where Java's own order is by UTF-16 units. */
    private int compareText(String left, String right) {
        int length = Math.min(left.length(), right.length());
        for (int i = 0; i < length; i++) {
            char a = left.charAt(i);
            char b = right.charAt(i);
            if (a != b) {
                boolean oneIsSurrogate = Character.isSurrogate(a) != Character.isSurrogate(b);
                return oneIsSurrogate ? (Character.isSurrogate(a) ? 1 : -1) : Character.compare(a, b);
            }
        }
        return Integer.compare(left.length(), right.length());
    }

    Comparator<Object> order() {
        return (left, right) -> compare("<", left, right);
    }

    /** {@code item in container}. */
    boolean contains(Object container, Object item) {
        if (container instanceof String text) {
            if (item instanceof String part) {
                limits.step(text.length() / 64);
                return text.contains(part);
            }
            throw JinjaException.error("'in <string>' requires string as left operand, not " + PyTypes.name(item));
        }
        if (container instanceof PyTypes.Dict dict) {
            return dict.contains(hashKey(item));
        }
        if (container instanceof PyTypes.DictView view && !view.type().equals("dict_values")) {
            hashKey(item);
        }
        if (!isIterable(container)) {
            throw JinjaException.error("argument of type '" + PyTypes.name(container) + "' is not iterable");
        }
        Iterator<Object> iterator = iterate(container);
        while (iterator.hasNext()) {
            if (equal(iterator.next(), item)) {
                return true;
            }
        }
        return false;
    }

    /** What stands for a key in a hash table: the same for keys that are equal in Python. */
    Object hashKey(Object key) {
        if (key instanceof Boolean || key instanceof Long) {
            return Numbers.toLong(key);
        }
        if (key instanceof Double number) {
            boolean whole = number == Math.rint(number) && Math.abs(number) < 1e18;
            return whole ? (Object) number.longValue() : number;
        }
        if (key instanceof List || key instanceof PyTypes.Dict || key instanceof PyTypes.DictView) {
            throw unhashable(key);
        }
        if (key instanceof PyTypes.Tuple tuple) {
            limits.enter();
            limits.step(tuple.items.size());
            List<Object> hashes = new ArrayList<>();
            tuple.items.forEach(item -> hashes.add(hashKey(item)));
            limits.leave();
            return Map.entry("tuple", hashes);
        }
        return plain(key);
    }

    private static JinjaException unhashable(Object key) {
        return JinjaException.error("unhashable type: '" + PyTypes.name(key) + "'");
    }

    static boolean isHashable(Object key) {
        return !(key instanceof List || key instanceof PyTypes.Dict || key instanceof PyTypes.DictView)
                && !(key instanceof PyTypes.Tuple tuple && !tuple.items.stream().allMatch(Values::isHashable));
    }
}
