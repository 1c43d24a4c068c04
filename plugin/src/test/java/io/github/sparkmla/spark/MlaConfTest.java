package io.github.sparkmla.spark;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import io.github.sparkmla.engine.EngineSettings;
import java.util.Map;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.CsvSource;

class MlaConfTest {
    @Test
    void defaultsAreThoseOfTheEngine() {
        MlaConf conf = MlaConf.of(Map.of("spark.master", "local"));
        assertEquals(EngineSettings.defaults(), conf.engineSettings(0));
        assertEquals(4 * 256, conf.window(256, 1));
        assertEquals(4 * 256 / 8, conf.window(256, 8));
        assertEquals(1, conf.window(256, 5000));
    }

    @Test
    void everyKeyReachesItsPlace() {
        MlaConf conf = MlaConf.of(Map.of(
                "spark.mla.device", "cpu",
                "spark.mla.cpu.threads", "3",
                "spark.mla.kv.memory", "2g",
                "spark.mla.batch.maxSequences", "7",
                "spark.mla.batch.maxTokens", "512",
                "spark.mla.prefill.chunk", "64",
                "spark.mla.maxModelLen", "1000",
                "spark.mla.task.window", "5",
                "spark.mla.loadFormat", "dummy"));
        EngineSettings expected =
                new EngineSettings("cpu", 0, 3, 2L << 30, 7, 512, 64, 1000).with(EngineSettings.LoadFormat.DUMMY);
        assertEquals(expected, conf.engineSettings(1));
        assertEquals(5, conf.window(256, 1));
        assertEquals(5, conf.window(256, 8));
    }

    @Test
    void theDeviceThatIsFoundSaysTheBatch() {
        EngineSettings auto = MlaConf.of(Map.of()).engineSettings(1);
        assertEquals(new EngineSettings("auto", 1, 0, 0, 1024, 8192, 0, 0), auto.on(true));
        assertEquals(new EngineSettings("auto", 1, 0, 0, 256, 2048, 0, 0), auto.on(false));
        MlaConf asked = MlaConf.of(Map.of("spark.mla.device", "cuda", "spark.mla.batch.maxSequences", "64"));
        assertEquals(
                new EngineSettings("cuda", 1, 0, 0, 64, 8192, 0, 0),
                asked.engineSettings(1).on(true));
    }

    @Test
    void theSettingsOfAGpu() {
        MlaConf conf = MlaConf.of(Map.of("spark.mla.memory.fraction", "0.4", "spark.mla.deterministic", "true"));
        assertEquals(
                new EngineSettings.Gpu(0.4, true, true), conf.engineSettings(0).gpu());
    }

    @ParameterizedTest
    @CsvSource(
            delimiter = '|',
            value = {
                "spark.mla.device | gpu | one of auto, cpu, cuda",
                "spark.mla.cpu.threads | -1 | a whole number, 0 to 4096",
                "spark.mla.cpu.threads | many | a whole number, 0 to 4096",
                "spark.mla.kv.memory | 3 apples | auto, or a size such as 256m or 4g, at least 1m",
                "spark.mla.kv.memory | 1k | auto, or a size such as 256m or 4g, at least 1m",
                "spark.mla.memory.fraction | 1.5 | a number greater than 0, at most 1",
                "spark.mla.loadFormat | pickle | one of safetensors, dummy",
                "spark.mla.batch.maxSequences | -1 | a whole number, 0 to 65536",
            })
    void aBadValueIsNamedWithWhatIsAllowed(String key, String value, String allowed) {
        String message = assertThrows(IllegalArgumentException.class, () -> MlaConf.of(Map.of(key, value)))
                .getMessage();
        assertTrue(message.startsWith(key + " is '" + value + "', but must be " + allowed), message);
    }

    @Test
    void anUnknownKeyIsNamedWithTheNearest() {
        String message = assertThrows(
                        IllegalArgumentException.class, () -> MlaConf.of(Map.of("spark.mla.kv.memroy", "1g")))
                .getMessage();
        assertTrue(
                message.startsWith(
                        "there is no configuration key spark.mla.kv.memroy; did you mean spark.mla.kv.memory?"),
                message);
    }

    @Test
    void thereAreAtMostTwentyKeys() {
        assertTrue(MlaConf.Key.values().length <= 20);
    }
}
