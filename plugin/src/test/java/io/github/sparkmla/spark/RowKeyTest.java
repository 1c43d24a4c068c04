package io.github.sparkmla.spark;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertNotEquals;

import org.junit.jupiter.api.Test;

class RowKeyTest {
    /** The first two outputs of SplitMix64 from state 0, as published with its reference implementation. */
    private static final long FIRST = 0xE220A8397B1DCDAFL;

    private static final long SECOND = 0x6E789E6AA1B965F4L;
    private static final long INCREMENT = 0x9E3779B97F4A7C15L;

    @Test
    void isAChainOfSplitMix64Steps() {
        assertEquals(FIRST, RowKey.of(new int[] {1}));
        // length 2: state 2 ^ 2 = 0 gives FIRST, and FIRST ^ id steps once more
        int id = (int) (FIRST ^ INCREMENT);
        assertNotEquals(FIRST, RowKey.of(new int[] {2, id}));
        assertEquals(SECOND, splitMix64(INCREMENT));
        assertEquals(splitMix64(FIRST ^ id), RowKey.of(new int[] {2, id}));
    }

    @Test
    void tellsNearPromptsApart() {
        assertNotEquals(RowKey.of(new int[] {5, 7}), RowKey.of(new int[] {7, 5}));
        assertNotEquals(RowKey.of(new int[] {5}), RowKey.of(new int[] {5, 0}));
        assertNotEquals(RowKey.of("12"), RowKey.of("21"));
    }

    /** Written down a second time, from the paper. */
    private static long splitMix64(long state) {
        long z = state + INCREMENT;
        z = (z ^ (z >>> 30)) * 0xBF58476D1CE4E5B9L;
        z = (z ^ (z >>> 27)) * 0x94D049BB133111EBL;
        return z ^ (z >>> 31);
    }
}
