package io.github.sparkmla.engine;

/** Hears of every step, on the engine's thread: for measuring. */
public interface StepListener {
    /**
     * A step that is done.
     *
     * @param kind what it computed
     * @param sequences that took part
     * @param tokens that were computed, of all of them
     * @param context tokens in the KV cache of all of them, those of the step included
     * @param nanos from scheduling, or the end of the step before where that is later, to the tokens' being known
     * @param profiled whether it ran call by call between timers, and so slower
     */
    record Step(StepKind kind, int sequences, int tokens, long context, long nanos, boolean profiled) {}

    void step(Step step);
}
