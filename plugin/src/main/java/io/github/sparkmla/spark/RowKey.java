package io.github.sparkmla.spark;

/** 64-bit hashes that key a row's randomness; they must never change, or completions do. */
final class RowKey {
    private RowKey() {}

    static long of(int[] tokenIds) {
        long hash = tokenIds.length;
        for (int id : tokenIds) {
            hash = mix(hash ^ id);
        }
        return hash;
    }

    static long of(String value) {
        return of(value.chars().toArray());
    }

    /** The output function of SplitMix64 (Steele, Lea and Flood 2014), with its increment. */
    private static long mix(long state) {
        long z = state + 0x9E3779B97F4A7C15L;
        z = (z ^ (z >>> 30)) * 0xBF58476D1CE4E5B9L;
        z = (z ^ (z >>> 27)) * 0x94D049BB133111EBL;
        return z ^ (z >>> 31);
    }
}
