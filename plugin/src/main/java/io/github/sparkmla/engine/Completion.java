package io.github.sparkmla.engine;

import java.util.List;

/**
 * What became of a request.
 *
 * @param tokenIds the generated tokens; the last is the end-of-sequence token where one ended them
 * @param finishReason why generation ended
 * @param promptTokens length of the prompt
 * @param cachedTokens how many of them were not computed because another sequence's KV cache held them
 * @param logprobs an entry a token of {@code tokenIds}; empty when not asked for
 */
public record Completion(
        int[] tokenIds, FinishReason finishReason, int promptTokens, int cachedTokens, List<TokenLogprobs> logprobs) {

    /** Why a completion ended. */
    public enum FinishReason {
        /** The model chose an end-of-sequence token. */
        STOP,
        /** The token limit of the request, or the model's context, was reached. */
        LENGTH
    }

    /**
     * Log-probabilities of one step, of the raw logits (before temperature, top-k and top-p).
     *
     * @param logprob of the chosen token
     * @param topIds the most likely tokens, best first
     * @param topLogprobs theirs
     */
    public record TokenLogprobs(float logprob, int[] topIds, float[] topLogprobs) {}
}
