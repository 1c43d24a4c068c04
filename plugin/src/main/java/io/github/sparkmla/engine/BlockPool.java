package io.github.sparkmla.engine;

import io.github.sparkmla.model.StepInputs;

/** The free blocks of the paged KV cache. A block holds {@value #BLOCK_TOKENS} tokens; one id addresses every layer. */
final class BlockPool {
    static final int BLOCK_TOKENS = StepInputs.BLOCK_TOKENS;

    private final int[] free;
    private int count;

    BlockPool(int blocks) {
        free = new int[blocks];
        for (int i = 0; i < blocks; i++) {
            free[i] = blocks - 1 - i;
        }
        count = blocks;
    }

    static int blocksFor(int tokens) {
        return StepInputs.blocksFor(tokens);
    }

    int free() {
        return count;
    }

    int total() {
        return free.length;
    }

    int take() {
        return free[--count];
    }

    void giveBack(int block) {
        free[count++] = block;
    }
}
