package io.github.sparkmla.engine;

import io.github.sparkmla.engine.Completion.TokenLogprobs;
import io.github.sparkmla.tensor.Arena;
import io.github.sparkmla.tensor.DType;
import io.github.sparkmla.tensor.Ops;
import io.github.sparkmla.tensor.Staged;
import io.github.sparkmla.tensor.Tensor;

/**
 * From logits to tokens, on the device. A draw is keyed by (seed, row key, position) and by nothing else, so that a
 * retried row, or a row in another batch, draws the same.
 */
final class Sampler {
    private final Ops ops;
    private final Staged temperature;
    private final Staged topK;
    private final Staged topP;
    private final Staged seed;
    private final Staged position;
    private final Staged ids;
    private final Staged chosen;
    private final Staged topIds;
    private final Staged top;
    private final Ops.Draws draws;
    private int rows;
    private int logprobs;

    Sampler(Arena arena, Ops ops, int maxRows) {
        this.ops = ops;
        temperature = arena.staged(DType.F32, maxRows);
        topK = arena.staged(DType.I32, maxRows);
        topP = arena.staged(DType.F32, maxRows);
        seed = arena.staged(DType.I64, maxRows);
        position = arena.staged(DType.I32, maxRows);
        ids = arena.staged(DType.I32, maxRows);
        chosen = arena.staged(DType.F32, maxRows);
        topIds = arena.staged(DType.I32, maxRows, SamplingParams.MAX_LOGPROBS);
        top = arena.staged(DType.F32, maxRows, SamplingParams.MAX_LOGPROBS);
        draws = new Ops.Draws(temperature.tensor(), topK.tensor(), topP.tensor(), seed.tensor(), position.tensor());
    }

    /** Starts a new step. */
    void clear() {
        rows = 0;
        logprobs = -1;
    }

    /** Adds the row of a sequence that is about to get its next token. */
    void add(Sequence sequence) {
        SamplingParams params = sequence.request.sampling();
        temperature.floats().put(rows, params.temperature());
        topK.ints().put(rows, params.topK());
        topP.floats().put(rows, params.topP());
        seed.longs().put(rows, mix(params.seed(), sequence.request.rowKey()));
        position.ints().put(rows, sequence.length());
        logprobs = Math.max(logprobs, params.logprobs());
        rows++;
    }

    /** Draws a token for every row of logits F32 [rows, vocab]. */
    void sample(Tensor logits) {
        for (Staged input : new Staged[] {temperature, topK, topP, seed, position}) {
            input.upload(rows);
        }
        ids.resize(rows);
        ops.sample(logits, draws, ids.tensor());
        if (logprobs >= 0) {
            // Always the widest list: the rows of one step may ask for lists of different lengths.
            chosen.resize(rows);
            topIds.resize(rows);
            top.resize(rows);
            ops.logSoftmaxTopK(logits, ids.tensor(), chosen.tensor(), topIds.tensor(), top.tensor());
            chosen.download();
            topIds.download();
            top.download();
        }
        ids.download();
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

    /** One 64-bit key of two: the finaliser of SplitMix64, a bijection of each for a fixed other. */
    private static long mix(long seed, long rowKey) {
        long z = seed * 0x9E3779B97F4A7C15L + rowKey;
        z = (z ^ (z >>> 30)) * 0xBF58476D1CE4E5B9L;
        z = (z ^ (z >>> 27)) * 0x94D049BB133111EBL;
        return z ^ (z >>> 31);
    }
}
