package io.github.sparkmla.checkpoint.jinja;

/** What one rendering may use, so that a hostile template or prompt ends in an error and not in a dead executor. */
final class Limits {
    static final int MAX_OUTPUT = 16 << 20;
    private static final long MAX_STEPS = 10_000_000;
    private static final long MAX_ALLOCATED = 256L << 20;
    private static final int MAX_DEPTH = 600;

    private long steps = 0;
    private long allocated = 0;
    private int depth = 0;

    /** Counts work: an evaluated node, a passed element. */
    void step(long count) {
        steps += count;
        if (steps > MAX_STEPS) {
            throw JinjaException.error("the template takes more than " + MAX_STEPS + " steps");
        }
    }

    /** Counts the characters or elements of a new value before it is made. */
    void allocate(long size) {
        if (size > MAX_OUTPUT) {
            throw JinjaException.error("the template makes a text or list longer than " + MAX_OUTPUT);
        }
        allocated += size;
        if (allocated > MAX_ALLOCATED) {
            throw JinjaException.error("the template makes more than " + MAX_ALLOCATED + " characters in all");
        }
    }

    void enter() {
        if (++depth > MAX_DEPTH) {
            throw JinjaException.error("the template or a value nests or recurses too deeply");
        }
    }

    void leave() {
        depth--;
    }
}
