package io.github.sparkmla.engine;

/** Hears of every step, on the engine's thread: for measuring. */
public interface StepListener {
    /**
     * A step is done.
     *
     * @param kind what it computed
     * @param sequences that took part
     * @param tokens that were computed, of all of them
     * @param nanos from scheduling to the tokens' being known
     */
    void step(StepKind kind, int sequences, int tokens, long nanos);
}
