package io.github.sparkmla.engine;

import io.github.sparkmla.engine.Completion.TokenLogprobs;
import io.github.sparkmla.model.StepInputs;
import io.github.sparkmla.tensor.DType;
import io.github.sparkmla.tensor.Device;
import io.github.sparkmla.tensor.Ops;
import io.github.sparkmla.tensor.Staging;
import io.github.sparkmla.tensor.Tensor;

/**
 * From logits to tokens, on the device. The ids stay there for the next step; they, and the log-probabilities where somebody
 * wants them, also come back to the host. A draw is keyed by (seed, row key, position) and
 * by nothing else, so that a retried row, or a row in another batch, draws the same.
 */
final class Sampler implements AutoCloseable {
    private final Ops ops;
    private final StepInputs inputs;
    private final Staging staging;
    private final Staging.Section chosen;
    private final Staging.Section topIds;
    private final Staging.Section top;

    Sampler(Device device, Ops ops, StepInputs inputs, int maxRows) {
        this.ops = ops;
        this.inputs = inputs;
        staging = new Staging(device, StepInputs.HOST_BUFFERS);
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

    /** Draws a token for every row of logits F32 [rows, vocab], as the inputs say and to where they say. */
    void sample(Tensor logits, boolean logprobs) {
        long rows = logits.size(0);
        Tensor ids = inputs.drawnIds();
        ops.section("sampling");
        ops.sample(logits, inputs.draws(), ids);
        if (logprobs) {
            // Always the widest list: the rows of one step may ask for lists of different lengths.
            chosen.tensor().resize(rows);
            topIds.tensor().resize(rows);
            top.tensor().resize(rows);
            ops.logSoftmaxTopK(logits, ids, chosen.tensor(), topIds.tensor(), top.tensor());
        }
    }

    /** Asks for the rows' tokens; they are in the host buffer once the device is done. */
    void fetch(int hostBuffer, int rows, boolean logprobs) {
        inputs.fetchDrawn(rows);
        if (logprobs) {
            staging.use(hostBuffer);
            staging.download(chosen, top, rows);
        }
    }

    int token(int hostBuffer, int row) {
        return inputs.drawn(hostBuffer, row);
    }

    /** The row's log-probabilities, as many as were asked for; null for none. */
    TokenLogprobs logprobs(int hostBuffer, int row, int n) {
        if (n < 0) {
            return null;
        }
        int[] best = new int[n];
        float[] theirs = new float[n];
        topIds.ints(hostBuffer).get(row * SamplingParams.MAX_LOGPROBS, best);
        top.floats(hostBuffer).get(row * SamplingParams.MAX_LOGPROBS, theirs);
        return new TokenLogprobs(chosen.floats(hostBuffer).get(row), best, theirs);
    }

    @Override
    public void close() {
        staging.close();
    }
}
