package io.github.sparkmla.engine;

/**
 * One prompt to continue.
 *
 * @param promptIds the tokens of the prompt, special tokens included; not empty
 * @param sampling how to decode
 * @param rowKey what distinguishes this row's randomness from that of others with the same seed; a retried row must
 *     bring the same key
 */
public record Request(int[] promptIds, SamplingParams sampling, long rowKey) {}
