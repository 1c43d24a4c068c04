package io.github.sparkmla.engine;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import org.junit.jupiter.api.Test;

class KvMemoryTest {
    /** DeepSeek-V2-Lite in BF16: 27 layers of 64 tokens of 576 values. */
    private static final long BLOCK = 27L * 64 * 576 * 2;

    private static EngineSettings settings(long kvBytes, int sequences, double fraction) {
        return new EngineSettings("auto", 0, 0, kvBytes, sequences, 8192, 0, 0)
                .with(new EngineSettings.Gpu(fraction, false, true));
    }

    @Test
    void aGpuGivesAFractionOfWhatIsFree() {
        // 46 GB free: 0.9 of it, after one block for the dump, is 41.4 GB, 20,796 blocks of 1.99 MB.
        assertEquals(20_796, KvMemory.blocks(settings(0, 1024, 0.9), true, 46_000_000_000L, BLOCK, 163_840));
        long all = 1000 * BLOCK;
        assertEquals(999, KvMemory.blocks(settings(0, 1024, 1.0), true, all, BLOCK, 163_840), "with the dump, all");
    }

    @Test
    void askedForBytesAreExact() {
        for (boolean gpu : new boolean[] {true, false}) {
            assertEquals(7, KvMemory.blocks(settings(8 * BLOCK - 1, 64, 0.9), gpu, 1, BLOCK, 4096));
            assertEquals(8, KvMemory.blocks(settings(8 * BLOCK, 64, 0.9), gpu, 1, BLOCK, 4096));
        }
        assertEquals((256L << 20) / BLOCK, KvMemory.blocks(settings(0, 64, 0.9), false, 1, BLOCK, 163_840));
    }

    @Test
    void noMoreThanAllSequencesCanFill() {
        assertEquals(3 * 2, KvMemory.blocks(settings(0, 3, 0.9), true, 46_000_000_000L, BLOCK, 128));
        assertEquals(3 * 3, KvMemory.blocks(settings(0, 3, 0.9), true, 46_000_000_000L, BLOCK, 129));
    }

    @Test
    void tooLittleIsRefusedWithWhatToChange() {
        IllegalArgumentException gpu = assertThrows(
                IllegalArgumentException.class,
                () -> KvMemory.blocks(settings(0, 64, 0.9), true, 2 * BLOCK, BLOCK, 4096));
        assertTrue(gpu.getMessage().contains("raise spark.mla.memory.fraction"), gpu.getMessage());
        IllegalArgumentException cpu = assertThrows(
                IllegalArgumentException.class,
                () -> KvMemory.blocks(settings(BLOCK - 1, 64, 0.9), false, 0, BLOCK, 4096));
        assertTrue(cpu.getMessage().contains("raise spark.mla.kv.memory"), cpu.getMessage());
    }
}
