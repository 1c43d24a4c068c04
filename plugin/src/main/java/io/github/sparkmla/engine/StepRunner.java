package io.github.sparkmla.engine;

import io.github.sparkmla.engine.Completion.TokenLogprobs;
import java.util.List;
import java.util.Map;

/** Computes steps: the model behind the engine, or a fake one in tests of the scheduling. */
interface StepRunner extends AutoCloseable {
    /** What is the result of a step, in the order of the work given: the next token of each work that completes. */
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

    /** Computes the tokens of the step and hands over the next token of each sequence that is complete. */
    void run(List<Scheduler.Work> step, Sink sink);

    /** Does the same and tells where the time went: milliseconds on the device by section. */
    default Map<String, Double> profile(List<Scheduler.Work> step, Sink sink) {
        run(step, sink);
        return Map.of();
    }

    @Override
    void close();
}
