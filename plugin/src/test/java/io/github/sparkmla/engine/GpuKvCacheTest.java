package io.github.sparkmla.engine;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertTrue;

import io.github.sparkmla.Golden;
import io.github.sparkmla.tensor.Device;
import org.junit.jupiter.api.Tag;
import org.junit.jupiter.api.Test;

/** The KV cache takes its fraction of the GPU and no more, and an engine gives everything back. */
@Tag("gpu")
class GpuKvCacheTest {
    private static long freeBytes() {
        try (Device device = Device.open("cuda", 0, 0)) {
            return device.freeBytes();
        }
    }

    @Test
    void theCacheTakesItsFractionAndGivesItBack() throws Exception {
        EngineSettings settings =
                new EngineSettings("cuda", 0, 0, 0, 4096, 4096, 0, 0).with(new EngineSettings.Gpu(0.05, false, true));
        run(settings); // whatever CUDA loads once is there from now on
        long before = freeBytes();
        long taken = before - run(settings);
        assertTrue(taken < before / 10, "took " + taken + " of " + before);
        assertTrue(Math.abs(before - freeBytes()) < 64L << 20, "free before " + before + ", after " + freeBytes());
    }

    @Test
    void whoeverFindsTheGpuByItselfGetsItsBatch() {
        EngineSettings settings = new EngineSettings("auto", 0, 0, 64L << 20, 0, 0, 0, 0);
        try (Engine engine = Engine.load(Golden.TINY_V3.folder(), settings)) {
            assertEquals(EngineSettings.CUDA_SEQUENCES, engine.maxSequences());
        }
    }

    /** Bytes that are free while an engine runs. */
    private static long run(EngineSettings settings) throws Exception {
        try (Engine engine = Engine.load(Golden.TINY_V3.folder(), settings)) {
            Request request = new Request(new int[] {5, 6, 7}, new SamplingParams(5, 0, 0, 1, 0, -1, true), 0);
            assertEquals(5, engine.submit(request).get().tokenIds().length);
            long free = freeBytes();
            System.out.printf("%d bytes free beside %d KV blocks%n", free, engine.totalBlocks());
            return free;
        }
    }
}
