package io.github.sparkmla.engine;

import io.github.sparkmla.engine.Completion.TokenLogprobs;
import io.github.sparkmla.tensor.DType;
import io.github.sparkmla.tensor.Device;
import io.github.sparkmla.tensor.Ops;
import io.github.sparkmla.tensor.Staging;
import io.github.sparkmla.tensor.Tensor;

/**
 * From logits to tokens, on the device, and back to the host in one copy. A draw is keyed by (seed, row key, position) and
 * by nothing else, so that a retried row, or a row in another batch, draws the same.
 */
final class Sampler implements AutoCloseable {
    private final Ops ops;
    private final Staging staging;
    private final Staging.Section ids;
    private final Staging.Section chosen;
    private final Staging.Section topIds;
    private final Staging.Section top;

    Sampler(Device device, Ops ops, int maxRows) {
        this.ops = ops;
        staging = new Staging(device);
        ids = staging.section(DType.I32, maxRows);
        chosen = staging.section(DType.F32, maxRows);
        topIds = staging.section(DType.I32, maxRows, SamplingParams.MAX_LOGPROBS);
        top = staging.section(DType.F32, maxRows, SamplingParams.MAX_LOGPROBS);
        staging.allocate();
    }

    /** One 64-bit key of two: the finaliser of SplitMix64, a bijection of each for a fixed other. */
    static long seed(long seed, long rowKey) {
        long z = seed * 0x9E3779B97F4A7C15L + rowKey;
        z = (z ^ (z >>> 30)) * 0xBF58476D1CE4E5B9L;
        z = (z ^ (z >>> 27)) * 0x94D049BB133111EBL;
        return z ^ (z >>> 31);
    }

    /** Draws a token for every row of logits F32 [rows, vocab]. */
    void sample(Tensor logits, Ops.Draws draws, boolean logprobs) {
        long rows = logits.size(0);
        ops.section("sampling");
        ids.tensor().resize(rows);
        ops.sample(logits, draws, ids.tensor());
        if (logprobs) {
            // Always the widest list: the rows of one step may ask for lists of different lengths.
            chosen.tensor().resize(rows);
            topIds.tensor().resize(rows);
            top.tensor().resize(rows);
            ops.logSoftmaxTopK(logits, ids.tensor(), chosen.tensor(), topIds.tensor(), top.tensor());
        }
    }

    /** Asks for the rows' tokens; they are here once the device is done. */
    void fetch(int rows, boolean logprobs) {
        staging.download(logprobs ? top : ids, rows);
    }

    int token(int row) {
        return ids.ints().get(row);
    }

    /** The row's log-probabilities, as many as were asked for; null for none. */
    TokenLogprobs logprobs(int row, int n) {
        if (n < 0) {
            return null;
        }
        int[] best = new int[n];
        float[] theirs = new float[n];
        topIds.ints().get(row * SamplingParams.MAX_LOGPROBS, best);
        top.floats().get(row * SamplingParams.MAX_LOGPROBS, theirs);
        return new TokenLogprobs(chosen.floats().get(row), best, theirs);
    }

    @Override
    public void close() {
        staging.close();
    }
}
