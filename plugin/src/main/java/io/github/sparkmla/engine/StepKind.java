package io.github.sparkmla.engine;

/** What a step computes. */
public enum StepKind {
    /** One token of every sequence, each yielding the next. */
    DECODE,
    /** Tokens of prompts, possibly beside decoding sequences. */
    PREFILL
}
