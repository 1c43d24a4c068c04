package io.github.sparkmla.checkpoint.jinja;

import java.util.Iterator;
import java.util.NoSuchElementException;

/** An iterator that finds its next element when asked whether there is one, as a Python generator would. */
abstract class Lookahead implements Iterator<Object> {
    static final Object END = new Object();
    private static final Object NOT_YET = new Object();

    private Object next = NOT_YET;

    /** The next element, or END. */
    protected abstract Object advance();

    @Override
    public final boolean hasNext() {
        if (next == NOT_YET) {
            next = advance();
        }
        return next != END;
    }

    @Override
    public final Object next() {
        if (!hasNext()) {
            throw new NoSuchElementException();
        }
        Object element = next;
        next = NOT_YET;
        return element;
    }
}
