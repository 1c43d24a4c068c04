package io.github.sparkmla.spark;

import static org.junit.jupiter.api.Assertions.assertDoesNotThrow;
import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import io.github.sparkmla.engine.GpuMemory;
import java.util.HashMap;
import java.util.Map;
import org.junit.jupiter.api.Test;

class RapidsSettingsTest {
    private static final String OURS = SparkMlaPlugin.class.getName();
    private static final String BOTH = RapidsSettings.PLUGIN + "," + OURS;
    private static final long GIB = 1L << 30;
    private static final GpuMemory NEEDS = new GpuMemory(30 * GIB, 2 * GIB, 8 * GIB, false);

    private static RapidsSettings settings(String plugins, String... more) {
        Map<String, String> entries = new HashMap<>(Map.of("spark.plugins", plugins));
        for (int i = 0; i < more.length; i += 2) {
            entries.put("spark.rapids." + more[i], more[i + 1]);
        }
        return new RapidsSettings(entries);
    }

    private static String refusal(GpuMemory needs, String... more) {
        return assertThrows(
                        IllegalArgumentException.class,
                        () -> settings(BOTH, more).checkReserve(needs, "/m"))
                .getMessage();
    }

    private static void accepts(RapidsSettings settings) {
        assertDoesNotThrow(() -> settings.checkReserve(NEEDS, "/m"));
    }

    @Test
    void rapidsComesFirst() {
        settings(BOTH).checkOrder();
        settings(OURS).checkOrder();
        settings(RapidsSettings.PLUGIN).checkOrder();
        String message = assertThrows(
                        IllegalArgumentException.class,
                        () -> settings(OURS + ", " + RapidsSettings.PLUGIN).checkOrder())
                .getMessage();
        assertTrue(message.contains("name RAPIDS first"), message);
    }

    @Test
    void theMessageSaysWhatTheReserveMustBe() {
        assertEquals(
                "spark.rapids.memory.gpu.reserve is 640 MiB (the default), and the RAPIDS Accelerator takes the rest of the"
                        + " card: /m does not fit. It takes about 40.0 GiB: 30.0 of weights, 2.0 of workspace, 8.0 of KV"
                        + " cache. Set spark.rapids.memory.gpu.reserve=42949672960",
                refusal(NEEDS));
        String set = refusal(NEEDS, "memory.gpu.reserve", "31g");
        assertTrue(set.startsWith("spark.rapids.memory.gpu.reserve is 31744 MiB, and"), set);
        accepts(settings(BOTH, "memory.gpu.reserve", "42949672960"));
        accepts(settings(BOTH, "memory.gpu.reserve", "33g")); // a small KV cache, but one
    }

    @Test
    void whatWasAskedOfTheKvCacheCounts() {
        GpuMemory asked = new GpuMemory(30 * GIB, 2 * GIB, 8 * GIB, true);
        assertTrue(refusal(asked, "memory.gpu.reserve", "33g")
                .contains("Set spark.rapids.memory.gpu.reserve=42949672960"));
    }

    @Test
    void aReserveThatWouldKeepRapidsFromStartingNeedsItsOtherSetting() {
        GpuMemory large = new GpuMemory(60 * GIB, 2 * GIB, 8 * GIB, false);
        assertTrue(
                refusal(large).endsWith("=75161927680 and spark.rapids.memory.gpu.minAllocFraction=0"), refusal(large));
        assertTrue(
                refusal(large, "memory.gpu.reserve", "70g").contains("set spark.rapids.memory.gpu.minAllocFraction=0"));
        assertDoesNotThrow(() -> settings(BOTH, "memory.gpu.reserve", "70g", "memory.gpu.minAllocFraction", "0")
                .checkReserve(large, "/m"));
    }

    @Test
    void withoutAPoolThereIsNothingToReserve() {
        accepts(settings(OURS));
        accepts(settings(BOTH, "memory.gpu.pool", "NONE"));
        accepts(settings(BOTH, "sql.mode", "explainOnly"));
        accepts(settings(BOTH, "memory.gpu.allocFraction", "0.3"));
        assertTrue(refusal(NEEDS, "memory.gpu.allocFraction", "1.0").contains("640 MiB"));
    }
}
