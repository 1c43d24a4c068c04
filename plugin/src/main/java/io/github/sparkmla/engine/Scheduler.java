package io.github.sparkmla.engine;

import java.util.ArrayDeque;
import java.util.ArrayList;
import java.util.Deque;
import java.util.List;

/**
 * Picks the tokens of each step. One rule covers prefill, chunked prefill and decode: a sequence is owed the tokens that
 * are known, or being drawn by the step before, but not computed, under the step's token budget and the free KV blocks. When blocks run out, the youngest
 * running sequence is preempted: its blocks are freed and it is computed again later, from its known tokens: all at once,
 * or, where it has to come out the same bit for bit, as at first: the prompt's tokens, then the generated ones, one a step.
 *
 * <p>Pure: no threads, no device, no clock.
 */
final class Scheduler {
    /**
     * Tokens [from, to) of a sequence, to be computed in this step.
     *
     * @param completes whether the step draws the sequence's next token
     */
    record Work(Sequence sequence, int from, int to, boolean completes) {
        int tokens() {
            return to - from;
        }

        /** Whether this is one generated token. */
        boolean decodes() {
            return tokens() == 1 && from >= sequence.promptLength();
        }
    }

    private final BlockPool pool;
    private final int maxSequences;
    private final int maxBatchTokens;
    private final int prefillChunk;
    private final boolean replays;
    private final Deque<Sequence> waiting = new ArrayDeque<>();
    private final List<Sequence> running = new ArrayList<>(); // oldest first
    private long preemptions;

    /** @param replays whether a preempted sequence's generated tokens are computed one a step again */
    Scheduler(BlockPool pool, EngineSettings settings, boolean replays) {
        this.pool = pool;
        this.maxSequences = settings.maxSequences();
        this.maxBatchTokens = settings.maxBatchTokens();
        this.prefillChunk = settings.prefillChunk() == 0 ? Integer.MAX_VALUE : settings.prefillChunk();
        this.replays = replays;
    }

    void add(Sequence sequence) {
        waiting.addLast(sequence);
    }

    /** Forgets a sequence, wherever it is, and frees its blocks. */
    void remove(Sequence sequence) {
        sequence.release(pool);
        if (!running.remove(sequence)) {
            waiting.remove(sequence);
        }
    }

    boolean isEmpty() {
        return running.isEmpty() && waiting.isEmpty();
    }

    /** Every sequence, running or waiting. */
    List<Sequence> all() {
        List<Sequence> all = new ArrayList<>(running);
        all.addAll(waiting);
        return all;
    }

    long preemptions() {
        return preemptions;
    }

    /**
     * The next step: oldest sequences first, then as many of the waiting as fit. Empty only when nothing waits but for steps
     * under way. What is returned counts as computed from here on, and what it draws as a token of its sequence.
     */
    List<Work> schedule() {
        List<Work> step = new ArrayList<>();
        int budget = maxBatchTokens;
        for (int i = 0; i < running.size() && budget > 0; i++) {
            Sequence sequence = running.get(i);
            int to = target(sequence, budget);
            if (to == sequence.computed()) {
                continue; // its last token is being drawn
            }
            while (sequence.blocksMissing(to) > pool.free() && running.size() > i + 1) {
                preemptYoungest();
            }
            if (sequence.blocksMissing(to) > pool.free()) {
                preemptYoungest(); // itself; alone it always fits, so an older one is running
                break;
            }
            budget -= plan(sequence, to, step);
        }
        while (budget > 0 && running.size() < maxSequences && !waiting.isEmpty()) {
            Sequence sequence = waiting.peekFirst();
            // All known tokens get their blocks, or a sequence of several steps would be started only to be preempted.
            if (sequence.blocksMissing(sequence.wanted()) > pool.free()) {
                break;
            }
            sequence.reserve(sequence.wanted(), pool);
            running.add(waiting.removeFirst());
            budget -= plan(sequence, target(sequence, budget), step);
        }
        return step;
    }

    private int target(Sequence sequence, int budget) {
        int owed = sequence.wanted() - sequence.computed();
        if (replays) {
            owed = Math.min(owed, Math.max(1, sequence.promptLength() - sequence.computed()));
        }
        return sequence.computed() + Math.min(owed, Math.min(budget, prefillChunk));
    }

    private int plan(Sequence sequence, int to, List<Work> step) {
        sequence.reserve(to, pool);
        Work work = new Work(sequence, sequence.computed(), to, to == sequence.length());
        step.add(work);
        sequence.advance(to);
        if (work.completes()) {
            sequence.expectToken();
        }
        return work.tokens();
    }

    private void preemptYoungest() {
        Sequence youngest = running.remove(running.size() - 1);
        youngest.release(pool);
        waiting.addFirst(youngest);
        preemptions++;
    }
}
