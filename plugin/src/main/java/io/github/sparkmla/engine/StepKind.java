package io.github.sparkmla.engine;

/** What a step computes. */
public enum StepKind {
    /** One generated token of every sequence, nearly always to get the next. */
    DECODE,
    /** Tokens of prompts, possibly beside decoding sequences. */
    PREFILL
}
