package io.github.sparkmla.spark;

import static org.junit.jupiter.api.Assertions.assertDoesNotThrow;
import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import io.github.sparkmla.engine.GpuProbe;
import java.time.Duration;
import java.util.HashMap;
import java.util.Map;
import java.util.concurrent.atomic.AtomicInteger;
import java.util.function.IntFunction;
import org.apache.spark.resource.ResourceInformation;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.CsvSource;

/** Which GPU an executor gets, and what is refused with which words. */
class GpuPinningTest {
    private static final IntFunction<GpuProbe> NEVER = ordinal -> {
        throw new AssertionError("looked at GPU " + ordinal);
    };
    private static final IntFunction<GpuProbe> AMPERE = ordinal -> {
        throw new IllegalStateException("device " + ordinal + " has compute capability 8.0, and 9.0 is needed");
    };

    private static IntFunction<GpuProbe> free(long mebibytes) {
        return ordinal -> new GpuProbe("NVIDIA H100", mebibytes << 20);
    }

    private static Map<String, ResourceInformation> gpus(String... addresses) {
        return Map.of("gpu", new ResourceInformation("gpu", addresses));
    }

    private static MlaConf conf(String... entries) {
        Map<String, String> map = new HashMap<>();
        for (int i = 0; i < entries.length; i += 2) {
            map.put("spark.mla." + entries[i], entries[i + 1]);
        }
        return MlaConf.of(map);
    }

    private static void check(MlaConf conf, int gpu, boolean local, boolean rapids, IntFunction<GpuProbe> probe) {
        GpuPinning.checkExecutor(conf, gpu, local, rapids, probe, Duration.ZERO);
    }

    private static String refusal(MlaConf conf, int gpu, boolean local, IntFunction<GpuProbe> probe) {
        return assertThrows(IllegalArgumentException.class, () -> check(conf, gpu, local, false, probe))
                .getMessage();
    }

    @Test
    void theOrdinalIsTheAddressThatSparkGave() {
        assertEquals(-1, GpuPinning.ordinal(Map.of(), "the executor"));
        assertEquals(3, GpuPinning.ordinal(gpus("3"), "the executor"));
    }

    @Test
    void severalGpusAreRefused() {
        String message = assertThrows(
                        IllegalArgumentException.class, () -> GpuPinning.ordinal(gpus("0", "1"), "the executor"))
                .getMessage();
        assertEquals(
                "the executor has the GPUs 0, 1, but an engine works on one: set spark.executor.resource.gpu.amount=1 and"
                        + " run an executor for each GPU, with spark.task.resource.gpu.amount a fraction so that its tasks"
                        + " share it",
                message);
    }

    @Test
    void anAddressThatIsNoNumberIsRefused() {
        String message = assertThrows(
                        IllegalArgumentException.class, () -> GpuPinning.ordinal(gpus("GPU-5a1"), "the executor"))
                .getMessage();
        assertTrue(message.contains("'GPU-5a1'") && message.contains("conf/getGpusResources.sh"), message);
    }

    @ParameterizedTest
    @CsvSource(
            delimiter = '|',
            value = {
                "cuda | 0 | executors ask Spark for no GPU: set spark.executor.resource.gpu.amount=1",
                "cuda | 2 | spark.executor.resource.gpu.amount is 2, but an engine works on one GPU",
                "auto | 2 | spark.executor.resource.gpu.amount is 2, but an engine works on one GPU",
                "cuda | 1 | ",
                "auto | 0 | ",
                "cpu | 0 | ",
                "cpu | 2 | ",
            })
    void aClustersSettingsAreCheckedOnTheDriver(String device, String amount, String refused) {
        Map<String, String> entries = Map.of("spark.executor.resource.gpu.amount", amount);
        if (refused == null) {
            assertDoesNotThrow(() -> GpuPinning.checkSettings(conf("device", device), entries));
        } else {
            String message = assertThrows(
                            IllegalArgumentException.class,
                            () -> GpuPinning.checkSettings(conf("device", device), entries))
                    .getMessage();
            assertTrue(message.contains(refused), message);
        }
    }

    @Test
    void onlyAnExecutorThatIsToUseAGpuLooksAtIt() {
        check(conf("device", "cpu"), 0, false, false, NEVER);
        check(conf("device", "auto"), -1, false, false, NEVER);
        check(conf("device", "auto"), -1, true, false, NEVER);
        check(conf("device", "cuda"), 1, false, false, free(80_000));
        check(conf("device", "cuda"), -1, true, false, free(80_000));
    }

    @Test
    void onTheCpuTheExecutorsGpuIsNoMatter() {
        assertEquals(0, conf("device", "cpu").engineSettings(1).deviceOrdinal());
        assertEquals(1, conf("device", "cuda").engineSettings(1).deviceOrdinal());
    }

    @Test
    void cudaNeverBecomesCpu() {
        assertTrue(refusal(conf("device", "cuda"), -1, false, NEVER)
                .contains("Spark gave this executor no GPU: set spark.executor.resource.gpu.amount=1"));
        assertEquals(
                "spark.mla.device is cuda, but GPU 2 cannot be used: device 2 has compute capability 8.0, and 9.0 is"
                        + " needed. Give executors Hopper GPUs with a driver for CUDA 12 or later"
                        + " (conf/getGpusResources.sh lists them), or set spark.mla.device=cpu",
                refusal(conf("device", "cuda"), 2, false, AMPERE));
        check(conf("device", "auto"), 2, false, false, AMPERE); // it says so in the log
    }

    @Test
    void theMemoryOfAnExecutorThatWasKilledIsWaitedFor() {
        AtomicInteger looks = new AtomicInteger();
        IntFunction<GpuProbe> returning =
                ordinal -> free(looks.incrementAndGet() < 3 ? 500 : 80_000).apply(ordinal);
        GpuPinning.checkExecutor(conf("device", "cuda"), 0, false, false, returning, Duration.ofMinutes(1));
        assertEquals(3, looks.get());
    }

    @Test
    void aCardWithoutRoomIsRefused() {
        String message = refusal(conf("device", "cuda", "kv.memory", "8g"), 0, false, free(9_000));
        assertTrue(
                message.startsWith("GPU 0 (NVIDIA H100) has 9000 MiB free, and an engine needs more than 9216"),
                message);
        assertTrue(message.endsWith("lower spark.mla.kv.memory"), message);
        check(conf("device", "cuda", "kv.memory", "8g"), 0, false, false, free(9_300));
        // What RAPIDS should have left is said when the model is known.
        check(conf("device", "cuda", "kv.memory", "8g"), 0, false, true, free(600));
    }
}
