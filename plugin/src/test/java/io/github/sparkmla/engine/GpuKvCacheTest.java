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
    void theCacheTakesItsFraction() throws Exception {
        long before = freeBytes();
        EngineSettings settings =
                new EngineSettings("cuda", 0, 0, 0, 4096, 4096, 0, 0).with(new EngineSettings.Gpu(0.05, false, true));
        try (Engine engine = Engine.load(Golden.TINY_V3.folder(), settings)) {
            assertEquals(
                    5,
                    engine.submit(new Request(new int[] {5, 6, 7}, SamplingParams.greedy(5), 0))
                            .get()
                            .tokenIds()
                            .length);
            long taken = before - freeBytes();
            System.out.printf("free before %d, taken %d, %d KV blocks%n", before, taken, engine.totalBlocks());
            assertTrue(taken < before / 10, "took " + taken + " of " + before);
        }
        assertTrue(Math.abs(before - freeBytes()) < 64L << 20, "free before " + before + ", after " + freeBytes());
    }
}
