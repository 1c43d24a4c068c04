package io.github.sparkmla.engine;

import java.util.List;

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
    int largestStep;
    int mostSequences;
    boolean closed;
    volatile RuntimeException failure;

    FakeRunner(int blocks) {
        cache = new long[blocks * BlockPool.BLOCK_TOKENS];
    }

    /** The tokens that any correct schedule must yield, END included. */
    static int[] expected(int[] prompt, int maxTokens, int maxModelLen) {
        java.util.ArrayList<Integer> out = new java.util.ArrayList<>();
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
    public void run(List<Scheduler.Work> step, Sink sink) {
        if (failure != null) {
            throw failure;
        }
        int tokens = 0;
        for (Scheduler.Work work : step) {
            tokens += work.to() - work.from();
            for (int p = work.from(); p < work.to(); p++) {
                cache[slot(work.sequence(), p)] = work.sequence().tokens()[p];
            }
        }
        largestStep = Math.max(largestStep, tokens);
        mostSequences = Math.max(mostSequences, step.size());
        for (Scheduler.Work work : step) {
            if (work.completes()) {
                long hash = 0;
                for (int p = 0; p < work.to(); p++) {
                    hash = step(hash, p, cache[slot(work.sequence(), p)]);
                }
                boolean poisoned = work.sequence().tokens()[0] == POISON;
                sink.token(work, poisoned ? -1 : token(hash), null);
            }
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
