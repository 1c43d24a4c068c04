package io.github.sparkmla.checkpoint.jinja;

import java.util.Iterator;
import java.util.List;

/** The variable {@code loop}, which drives its loop as well: looking ahead takes elements early, as in jinja2. */
final class LoopContext implements PyTypes.Callable {
    /** Renders the loop's body for inner elements, one level deeper. */
    interface Recursion {
        String render(Object iterable, int depth);
    }

    private static final Object NONE = new Object();

    private final Values values;
    private final Object iterable;
    private final Recursion recursion;
    private final int depth0;
    private Iterator<Object> iterator;
    private long index0 = -1;
    private long length = -1;
    private Object before = NONE;
    private Object current = NONE;
    private Object after = NONE;
    private Object lastChanged = NONE;

    /** {@code recursion} is null for loops that are not recursive. */
    LoopContext(Values values, Object iterable, Recursion recursion, int depth0) {
        this.values = values;
        this.iterable = iterable;
        this.iterator = values.iterate(iterable);
        this.recursion = recursion;
        this.depth0 = depth0;
    }

    boolean hasNext() {
        return after != NONE || iterator.hasNext();
    }

    Object next() {
        values.limits.step(1);
        Object next = after != NONE ? after : iterator.next();
        after = NONE;
        index0++;
        before = current;
        current = next;
        return next;
    }

    long index0() {
        return index0;
    }

    long length() {
        if (length < 0) {
            if (Values.isSized(iterable)) {
                length = values.length(iterable);
            } else {
                List<Object> rest = values.list(new PyTypes.Once(iterator));
                iterator = rest.iterator();
                length = rest.size() + index0 + 1 + (after != NONE ? 1 : 0);
            }
        }
        return length;
    }

    private boolean peek() {
        if (after == NONE && iterator.hasNext()) {
            after = iterator.next();
        }
        return after != NONE;
    }

    /** An attribute by name, {@link Attributes#ABSENT} for none. */
    Object attribute(String name) {
        return switch (name) {
            case "index0" -> index0;
            case "index" -> index0 + 1;
            case "revindex0" -> length() - index0 - 1;
            case "revindex" -> length() - index0;
            case "first" -> index0 == 0;
            case "last" -> !peek();
            case "length" -> length();
            case "depth0" -> (long) depth0;
            case "depth" -> depth0 + 1L;
            case "previtem" -> index0 == 0 ? new Undefined("there is no previous item") : before;
            case "nextitem" -> peek() ? after : new Undefined("there is no next item");
            case "cycle" -> (PyTypes.Callable) this::cycle;
            case "changed" -> (PyTypes.Callable) this::changed;
            default -> Attributes.ABSENT;
        };
    }

    private Object cycle(Arguments arguments) {
        List<Object> items = arguments.positional();
        if (items.isEmpty() || !arguments.named().isEmpty()) {
            throw JinjaException.error("no items for cycling given");
        }
        return items.get((int) (index0 % items.size()));
    }

    private Object changed(Arguments arguments) {
        if (!arguments.named().isEmpty()) {
            throw JinjaException.error("changed() takes no keyword arguments");
        }
        List<Object> value = arguments.positional();
        if (lastChanged != NONE && values.equal(lastChanged, value)) {
            return false;
        }
        lastChanged = value;
        return true;
    }

    @Override
    public Object call(Arguments arguments) {
        if (recursion == null) {
            throw JinjaException.error("The loop must have the 'recursive' marker to be called recursively.");
        }
        return recursion.render(arguments.bind("loop", 1, "iterable")[0], depth0 + 1);
    }
}
