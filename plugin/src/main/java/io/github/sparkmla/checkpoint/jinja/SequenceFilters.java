package io.github.sparkmla.checkpoint.jinja;

import java.util.ArrayList;
import java.util.Collections;
import java.util.Comparator;
import java.util.HashSet;
import java.util.Iterator;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.Set;
import java.util.function.Function;

/** The filters that go through the elements of a value. */
final class SequenceFilters {
    private final Values values;
    private final Operators operators;
    private final Filters filters;
    private final Tests tests;
    private final AttributePath paths;

    SequenceFilters(Values values, Attributes attributes, Operators operators, Filters filters, Tests tests) {
        this.values = values;
        this.operators = operators;
        this.filters = filters;
        this.tests = tests;
        this.paths = new AttributePath(values, attributes);
    }

    Object apply(String name, Object value, Arguments arguments) {
        return switch (name) {
            case "list" -> {
                arguments.positionalOnly(name, 0, 0);
                yield values.list(value);
            }
            case "first" -> {
                arguments.positionalOnly(name, 0, 0);
                Iterator<Object> elements = values.iterate(value);
                yield elements.hasNext() ? elements.next() : new Undefined("No first item, sequence was empty.");
            }
            case "last" -> {
                arguments.positionalOnly(name, 0, 0);
                List<Object> reversed = reversed(value);
                yield reversed.isEmpty() ? new Undefined("No last item, sequence was empty.") : reversed.get(0);
            }
            case "reverse" -> {
                arguments.positionalOnly(name, 0, 0);
                yield backwards(value);
            }
            case "join" -> join(value, arguments);
            case "map" -> map(value, arguments);
            case "select", "reject", "selectattr", "rejectattr" -> select(name, value, arguments);
            case "items" -> {
                arguments.positionalOnly(name, 0, 0);
                yield items(value);
            }
            case "sum" -> sum(value, arguments);
            case "batch", "slice" -> parts(name, value, arguments);
            default -> ordered(name, value, arguments);
        };
    }

    /** What {@code reversed()} goes through. */
    private List<Object> reversed(Object value) {
        if (value instanceof PyTypes.Once || !Values.isIterable(value) || value instanceof LoopContext) {
            throw JinjaException.error("'" + PyTypes.name(value) + "' object is not reversible");
        }
        List<Object> list = values.list(value);
        Collections.reverse(list);
        return list;
    }

    private Object backwards(Object value) {
        if (value instanceof String text) {
            return Text.reverse(text);
        }
        if (value instanceof PyTypes.Once) {
            List<Object> list = values.list(value);
            Collections.reverse(list);
            return list;
        }
        return new PyTypes.Once(reversed(value).iterator());
    }

    private Object join(Object value, Arguments arguments) {
        Object[] bound = arguments.bind("join", 0, "d", "attribute");
        String separator = values.str(Arguments.orDefault(bound[0], ""));
        Function<Object, Object> path = paths.of(Arguments.orDefault(bound[1], null), false, null);
        StringBuilder out = new StringBuilder();
        boolean first = true;
        Iterator<Object> elements = values.iterate(value);
        while (elements.hasNext()) {
            values.limits.step(1);
            String text = values.str(path.apply(elements.next()));
            values.limits.allocate((long) text.length() + separator.length());
            out.append(first ? "" : separator).append(text);
            first = false;
        }
        values.limits.allocate(out.length());
        return out.toString();
    }

    private Object map(Object value, Arguments arguments) {
        return lazy(value, new LazyFunction() {
            @Override
            public Function<Object, Object> prepare() {
                Map<String, Object> named = new LinkedHashMap<>(arguments.named());
                if (arguments.positional().isEmpty() && named.containsKey("attribute")) {
                    Object attribute = named.remove("attribute");
                    Object otherwise = named.remove("default");
                    if (!named.isEmpty()) {
                        throw JinjaException.error("Unexpected keyword argument '"
                                + named.keySet().iterator().next() + "'");
                    }
                    return paths.of(attribute, false, otherwise);
                }
                if (arguments.positional().isEmpty()) {
                    throw JinjaException.error("map requires a filter argument");
                }
                Arguments rest = rest(arguments, 1);
                return element -> filters.apply(nameOf(arguments.positional().get(0), "filter"), element, rest);
            }
        });
    }

    private Object select(String name, Object value, Arguments arguments) {
        boolean byAttribute = name.endsWith("attr");
        boolean wanted = name.startsWith("select");
        return lazy(value, new LazyFunction() {
            @Override
            public Function<Object, Object> prepare() {
                int skip = byAttribute ? 1 : 0;
                if (byAttribute && arguments.positional().isEmpty()) {
                    throw JinjaException.error("Missing parameter for attribute name");
                }
                Function<Object, Object> path =
                        byAttribute ? paths.of(arguments.positional().get(0), false, null) : element -> element;
                boolean tested = arguments.positional().size() > skip;
                Arguments rest = rest(arguments, skip + 1);
                return element -> {
                    Object tried = path.apply(element);
                    boolean passes = tested
                            ? tests.apply(nameOf(arguments.positional().get(skip), "test"), tried, rest)
                            : values.truth(tried);
                    return passes == wanted ? element : Lookahead.END;
                };
            }
        });
    }

    private static String nameOf(Object name, String kind) {
        if (name instanceof String text) {
            return text;
        }
        throw JinjaException.error("No " + kind + " named " + PyTypes.name(name) + ".");
    }

    private static Arguments rest(Arguments arguments, int from) {
        List<Object> positional = arguments.positional();
        return new Arguments(
                positional.subList(Math.min(from, positional.size()), positional.size()), arguments.named());
    }

    /** What becomes of each element, worked out when the first one is asked for; END drops an element. */
    private interface LazyFunction {
        Function<Object, Object> prepare();
    }

    private PyTypes.Once lazy(Object value, LazyFunction lazy) {
        return new PyTypes.Once(new Lookahead() {
            private Iterator<Object> elements;
            private Function<Object, Object> function;

            @Override
            protected Object advance() {
                if (elements == null) {
                    boolean any = values.truth(value);
                    function = any ? lazy.prepare() : null;
                    elements = any ? values.iterate(value) : Collections.emptyIterator();
                }
                while (elements.hasNext()) {
                    values.limits.step(1);
                    Object result = function.apply(elements.next());
                    if (result != END) {
                        return result;
                    }
                }
                return END;
            }
        });
    }

    private Object items(Object value) {
        if (value instanceof PyTypes.Dict dict) {
            return new PyTypes.Once(dict.items().iterator());
        }
        if (value instanceof Undefined) {
            return new PyTypes.Once(Collections.emptyIterator());
        }
        throw JinjaException.error("Can only get item pairs from a mapping.");
    }

    private Object sum(Object value, Arguments arguments) {
        Object[] bound = arguments.bind("sum", 0, "attribute", "start");
        Function<Object, Object> path = paths.of(Arguments.orDefault(bound[0], null), false, null);
        Object total = Arguments.orDefault(bound[1], 0L);
        if (total instanceof String) {
            throw JinjaException.error("sum() can't sum strings [use ''.join(seq) instead]");
        }
        int floats = 0;
        Iterator<Object> elements = values.iterate(value);
        while (elements.hasNext()) {
            Object element = path.apply(elements.next());
            floats += element instanceof Double ? 1 : 0;
            if (floats > 1) {
                throw JinjaException.unsupported("the sum of several floats, which differs between Python's versions");
            }
            total = operators.binary("+", total, element);
        }
        return total;
    }

    private Object parts(String name, Object value, Arguments arguments) {
        boolean batch = name.equals("batch");
        Object[] bound = arguments.bind(name, 1, batch ? "linecount" : "slices", "fill_with");
        if (!(bound[0] instanceof Long size) || size < 1 || size > 100_000) {
            throw JinjaException.unsupported("the filter '" + name + "' with such a count");
        }
        Object fill = Arguments.orDefault(bound[1], null);
        List<Object> elements = values.list(value);
        List<Object> parts = batch ? batches(elements, size.intValue(), fill) : slices(elements, size.intValue(), fill);
        return new PyTypes.Once(parts.iterator());
    }

    private List<Object> batches(List<Object> elements, int size, Object fill) {
        List<Object> batches = new ArrayList<>();
        for (int start = 0; start < elements.size(); start += size) {
            List<Object> batch = new ArrayList<>(elements.subList(start, Math.min(start + size, elements.size())));
            while (fill != null && batch.size() < size) {
                batch.add(fill);
            }
            values.limits.allocate(batch.size());
            batches.add(batch);
        }
        return batches;
    }

    private List<Object> slices(List<Object> elements, int count, Object fill) {
        List<Object> slices = new ArrayList<>();
        int start = 0;
        for (int i = 0; i < count; i++) {
            boolean extra = i < elements.size() % count;
            int end = start + elements.size() / count + (extra ? 1 : 0);
            List<Object> slice = new ArrayList<>(elements.subList(start, end));
            if (fill != null && !extra) {
                slice.add(fill);
            }
            values.limits.allocate(slice.size() + 8L);
            slices.add(slice);
            start = end;
        }
        return slices;
    }

    private Object ordered(String name, Object value, Arguments arguments) {
        return switch (name) {
            case "sort" -> {
                Object[] bound = arguments.bind(name, 0, "reverse", "case_sensitive", "attribute");
                Function<Object, Object> keys = paths.several(Arguments.orDefault(bound[2], null), !flag(bound[1]));
                yield sorted(values.list(value), keys, reverse(bound[0]));
            }
            case "dictsort" -> dictSort(value, arguments);
            case "groupby" -> groupBy(value, arguments);
            case "unique" -> unique(value, arguments);
            default -> extreme(name, value, arguments);
        };
    }

    private boolean flag(Object argument) {
        return values.truth(Arguments.orDefault(argument, false));
    }

    /** Python's sort takes a number as its switch, nothing else. */
    private static boolean reverse(Object argument) {
        Object reverse = Arguments.orDefault(argument, false);
        if (!Numbers.isInt(reverse)) {
            throw JinjaException.error("'" + PyTypes.name(reverse) + "' object cannot be interpreted as an integer");
        }
        return Numbers.toLong(reverse) != 0;
    }

    private List<Object> sorted(List<Object> elements, Function<Object, Object> key, boolean reverse) {
        List<Map.Entry<Object, Object>> keyed = new ArrayList<>();
        for (Object element : elements) {
            keyed.add(new java.util.AbstractMap.SimpleEntry<>(key.apply(element), element));
        }
        Comparator<Map.Entry<Object, Object>> order = Comparator.comparing(Map.Entry::getKey, values.order());
        keyed.sort(reverse ? order.reversed() : order);
        List<Object> sorted = new ArrayList<>();
        keyed.forEach(entry -> sorted.add(entry.getValue()));
        return sorted;
    }

    private Object dictSort(Object value, Arguments arguments) {
        Object[] bound = arguments.bind("dictsort", 0, "case_sensitive", "by", "reverse");
        Object by = Arguments.orDefault(bound[1], "key");
        if (!by.equals("key") && !by.equals("value")) {
            throw JinjaException.error("You can only sort by either \"key\" or \"value\"");
        }
        if (!(value instanceof PyTypes.Dict dict)) {
            throw value instanceof Undefined undefined
                    ? undefined.error()
                    : JinjaException.error("'" + PyTypes.name(value) + "' object has no attribute 'items'");
        }
        boolean ignoreCase = !flag(bound[0]);
        int position = by.equals("key") ? 0 : 1;
        return sorted(
                dict.items(),
                item -> AttributePath.fold(((PyTypes.Tuple) item).items.get(position), ignoreCase),
                reverse(bound[2]));
    }

    private Object groupBy(Object value, Arguments arguments) {
        Object[] bound = arguments.bind("groupby", 1, "attribute", "default", "case_sensitive");
        Object otherwise = Arguments.orDefault(bound[1], null);
        Function<Object, Object> exact = paths.of(bound[0], false, otherwise);
        Function<Object, Object> folded = paths.of(bound[0], !flag(bound[2]), otherwise);
        List<Object> groups = new ArrayList<>();
        List<Object> members = new ArrayList<>();
        for (Object element : sorted(values.list(value), folded, false)) {
            if (!members.isEmpty() && !values.equal(folded.apply(members.get(0)), folded.apply(element))) {
                groups.add(new PyTypes.Group(exact.apply(members.get(0)), members));
                members = new ArrayList<>();
            }
            members.add(element);
        }
        if (!members.isEmpty()) {
            groups.add(new PyTypes.Group(exact.apply(members.get(0)), members));
        }
        return groups;
    }

    private Object unique(Object value, Arguments arguments) {
        Object[] bound = arguments.bind("unique", 0, "case_sensitive", "attribute");
        Function<Object, Object> key = paths.of(Arguments.orDefault(bound[1], null), !flag(bound[0]), null);
        Set<Object> seen = new HashSet<>();
        Iterator<Object> elements = values.iterate(value);
        return new PyTypes.Once(new Lookahead() {
            @Override
            protected Object advance() {
                while (elements.hasNext()) {
                    values.limits.step(1);
                    Object element = elements.next();
                    if (seen.add(values.hashKey(key.apply(element)))) {
                        return element;
                    }
                }
                return END;
            }
        });
    }

    private Object extreme(String name, Object value, Arguments arguments) {
        Object[] bound = arguments.bind(name, 0, "case_sensitive", "attribute");
        Function<Object, Object> key = paths.of(Arguments.orDefault(bound[1], null), !flag(bound[0]), null);
        String operator = name.equals("min") ? "<" : ">";
        List<Object> elements = values.list(value);
        if (elements.isEmpty()) {
            return new Undefined("No aggregated item, sequence was empty.");
        }
        Object best = elements.get(0);
        Object bestKey = key.apply(best);
        for (Object element : elements.subList(1, elements.size())) {
            Object elementKey = key.apply(element);
            if (operators.compare(operator, elementKey, bestKey)) {
                best = element;
                bestKey = elementKey;
            }
        }
        return best;
    }
}
