package io.github.sparkmla.engine;

/**
 * How one request is decoded.
 *
 * @param maxTokens most tokens to generate, at least 1
 * @param temperature 0 is greedy; otherwise logits are divided by it
 * @param topK keep the k most likely tokens; 0 keeps all
 * @param topP keep the smallest set of most likely tokens whose probability reaches this, in (0, 1]; 1 keeps all
 * @param seed with the request's row key and the position, the only source of randomness
 * @param logprobs how many of the most likely tokens to report at each step; -1 reports nothing, 0 the chosen one alone
 * @param ignoreEos go on past the end-of-sequence token, to the token limit
 */
public record SamplingParams(
        int maxTokens, float temperature, int topK, float topP, long seed, int logprobs, boolean ignoreEos) {

    /** The most alternatives a step may report. */
    public static final int MAX_LOGPROBS = 20;

    public SamplingParams {
        require(maxTokens >= 1, "maxTokens must be at least 1, got " + maxTokens);
        require(temperature >= 0 && temperature <= 100, "temperature must be in [0, 100], got " + temperature);
        require(topK >= 0, "topK must be at least 0 (0: off), got " + topK);
        require(topP > 0 && topP <= 1, "topP must be in (0, 1], got " + topP);
        require(logprobs >= -1 && logprobs <= MAX_LOGPROBS, "logprobs must be -1 to 20, got " + logprobs);
    }

    /** Greedy decoding of at most {@code maxTokens} tokens. */
    public static SamplingParams greedy(int maxTokens) {
        return new SamplingParams(maxTokens, 0, 0, 1, 0, -1, false);
    }

    /** The same, reporting the {@code n} most likely tokens at each step. */
    public SamplingParams withLogprobs(int n) {
        return new SamplingParams(maxTokens, temperature, topK, topP, seed, n, ignoreEos);
    }

    private static void require(boolean condition, String message) {
        if (!condition) {
            throw new IllegalArgumentException(message);
        }
    }
}
