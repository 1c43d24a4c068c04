package io.github.sparkmla.engine;

import io.github.sparkmla.engine.Completion.TokenLogprobs;
import java.util.List;
import java.util.Map;

/** Computes steps: the model behind the engine, or a fake one in tests of the scheduling. */
interface StepRunner extends AutoCloseable {
    /** What is the result of a step: the next token of each work that completes. */
    interface Sink {
        /**
         * Takes the next token of a sequence.
         *
         * @param token -1 where the logits are not numbers
         * @param logprobs null when the request did not ask for them
         */
        void token(Scheduler.Work work, int token, TokenLogprobs logprobs);
    }

    int vocabSize();

    /** Longest sequence, in tokens. */
    int maxModelLen();

    /** Blocks of the KV cache. */
    int kvBlocks();

    boolean isEndOfSequence(int token);

    /** Whether a step may be launched before the one before it has been collected; at most one. */
    boolean overlaps();

    /**
     * Whether a sequence only comes out the same, bit for bit, if the tokens that were generated are always computed one by
     * one, and those of the prompt never as such.
     */
    boolean replays();

    /** Starts to compute the tokens of a step, and to draw the next token of each work that completes. */
    void launch(List<Scheduler.Work> step);

    /** Does the same, waits, and tells where the time went: milliseconds on the device by section. */
    Map<String, Double> launchProfiled(List<Scheduler.Work> step);

    /** Waits for the oldest step under way and hands over what it drew. */
    void collect(Sink sink);

    @Override
    void close();
}
