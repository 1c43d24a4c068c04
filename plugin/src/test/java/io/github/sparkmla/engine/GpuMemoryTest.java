package io.github.sparkmla.engine;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;

import io.github.sparkmla.Golden;
import io.github.sparkmla.checkpoint.Checkpoint;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.EnumSource;

class GpuMemoryTest {
    @ParameterizedTest
    @EnumSource
    void weightsAreThoseOfTheFilesInBf16(Golden golden) {
        Checkpoint checkpoint = Checkpoint.open(golden.folder());
        long expected = checkpoint.tensors().tensors().values().stream()
                .mapToLong(tensor -> {
                    long elements = 1;
                    for (long size : tensor.shape()) {
                        elements *= size;
                    }
                    boolean exact = tensor.name().endsWith("e_score_correction_bias");
                    return elements * (exact ? 4 : 2);
                })
                .sum();
        assertEquals(
                expected, GpuMemory.of(checkpoint, EngineSettings.defaults()).weights());
    }

    @Test
    void theKvCacheIsWhatWasAskedForElseEnoughForATypicalBatch() {
        Checkpoint checkpoint = Checkpoint.open(Golden.TINY_V3.folder());
        GpuMemory asked = GpuMemory.of(checkpoint, new EngineSettings("cuda", 0, 0, 3L << 30, 256, 2048, 0, 0));
        assertEquals(3L << 30, asked.kvCache());
        assertEquals(asked.total(), asked.least());
        GpuMemory auto = GpuMemory.of(checkpoint, EngineSettings.defaults());
        // 1,024 sequences of 16 blocks of 64 tokens of 576 BF16 values in 5 layers, of which the cache is nine tenths.
        assertEquals((long) (1024L * 16 * 64 * 576 * 2 * 5 / 0.9), auto.kvCache());
        assertEquals(auto.weights() + auto.workspace(), auto.least());
        assertFalse(auto.kvAsked());
    }
}
