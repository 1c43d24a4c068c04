package io.github.sparkmla.engine;

import java.util.ArrayDeque;
import java.util.ArrayList;
import java.util.Deque;
import java.util.HashMap;
import java.util.List;
import java.util.Map;

/**
 * A model for tests of the scheduling: the next token is a hash of all tokens before it, which it reads back through the
 * sequence's blocks from a paged cache of its own. A token computed twice, skipped, or overwritten by a neighbour
 * changes every token that follows.
 */
final class FakeRunner implements StepRunner {
    static final int VOCAB = 1000;
    static final int END = 7;

    /** The model has no numbers for a sequence that starts with this token. */
    static final int POISON = 13;

    static final int CONTEXT = 400;

    private final long[] cache;
    private final boolean overlaps;
    private final boolean replays;
    private final Deque<List<Drawn>> underWay = new ArrayDeque<>();
    private final Map<Sequence, Integer> newest = new HashMap<>(); // token of each sequence, as a device has it

    private record Drawn(Scheduler.Work work, int token) {}

    int largestStep;
    int mostSequences;
    int mostUnderWay;
    int replayed; // generated tokens computed to draw nothing
    boolean closed;
    volatile RuntimeException failure;

    /** One that computes while it is asked. */
    FakeRunner(int blocks) {
        this(blocks, false, false);
    }

    /**
     * With {@code overlaps} the host learns of a step's tokens only when the next one is under way. With {@code replays} it
     * takes generated tokens one by one alone.
     */
    FakeRunner(int blocks, boolean overlaps, boolean replays) {
        this.overlaps = overlaps;
        this.replays = replays;
        cache = new long[blocks * BlockPool.BLOCK_TOKENS];
    }

    /** The tokens that any correct schedule must yield, END included. */
    static int[] expected(int[] prompt, int maxTokens, int maxModelLen) {
        List<Integer> out = new ArrayList<>();
        long hash = 0;
        for (int i = 0; i < prompt.length; i++) {
            hash = step(hash, i, prompt[i]);
        }
        int length = prompt.length;
        while (out.size() < maxTokens && length < maxModelLen) {
            int token = token(hash);
            out.add(token);
            hash = step(hash, length++, token);
            if (token == END) {
                break;
            }
        }
        return out.stream().mapToInt(Integer::intValue).toArray();
    }

    private static long step(long hash, int position, long token) {
        return (hash ^ (token + 31L * position)) * 0x9E3779B97F4A7C15L;
    }

    private static int token(long hash) {
        return (int) ((hash >>> 20) % VOCAB);
    }

    @Override
    public int vocabSize() {
        return VOCAB;
    }

    @Override
    public int maxModelLen() {
        return CONTEXT;
    }

    @Override
    public int kvBlocks() {
        return cache.length / BlockPool.BLOCK_TOKENS;
    }

    @Override
    public boolean isEndOfSequence(int token) {
        return token == END;
    }

    @Override
    public boolean overlaps() {
        return overlaps;
    }

    @Override
    public boolean replays() {
        return replays;
    }

    /** Whether a work is of the prompt alone, or of one generated token. */
    static boolean keepsKindsApart(Scheduler.Work work) {
        return work.decodes() || work.to() <= work.sequence().promptLength();
    }

    @Override
    public Map<String, Double> launchProfiled(List<Scheduler.Work> step) {
        launch(step);
        return Map.of("all", 1.0);
    }

    @Override
    public void launch(List<Scheduler.Work> step) {
        if (failure != null) {
            throw failure;
        }
        int tokens = 0;
        for (Scheduler.Work work : step) {
            if (replays && !keepsKindsApart(work)) {
                throw new AssertionError("tokens " + work.from() + " to " + work.to() + " at once, of a prompt of "
                        + work.sequence().promptLength());
            }
            replayed += work.decodes() && !work.completes() ? 1 : 0;
            tokens += work.to() - work.from();
            for (int p = work.from(); p < work.to(); p++) {
                Sequence sequence = work.sequence();
                boolean drawn = sequence.rowThatDraws(p) >= 0;
                cache[slot(sequence, p)] = drawn ? newest.get(sequence) : sequence.tokens()[p];
            }
        }
        largestStep = Math.max(largestStep, tokens);
        mostSequences = Math.max(mostSequences, step.size());
        List<Drawn> drawn = new ArrayList<>();
        for (Scheduler.Work work : step) {
            if (work.completes()) {
                long hash = 0;
                for (int p = 0; p < work.to(); p++) {
                    hash = step(hash, p, cache[slot(work.sequence(), p)]);
                }
                int token = work.sequence().tokens()[0] == POISON ? -1 : token(hash);
                newest.put(work.sequence(), token);
                work.sequence().drawnIn(drawn.size());
                drawn.add(new Drawn(work, token));
            }
        }
        underWay.add(drawn);
        mostUnderWay = Math.max(mostUnderWay, underWay.size());
    }

    @Override
    public void collect(Sink sink) {
        for (Drawn drawn : underWay.remove()) {
            sink.token(drawn.work, drawn.token, null);
        }
    }

    private static int slot(Sequence sequence, int position) {
        return sequence.blocks()[position / BlockPool.BLOCK_TOKENS] * BlockPool.BLOCK_TOKENS
                + position % BlockPool.BLOCK_TOKENS;
    }

    @Override
    public void close() {
        closed = true;
    }
}
