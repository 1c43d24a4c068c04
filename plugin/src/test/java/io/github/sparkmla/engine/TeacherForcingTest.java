package io.github.sparkmla.engine;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertTrue;

import io.github.sparkmla.Golden;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.EnumSource;

/** The measure that {@link GpuGoldenTest} applies to a GPU, on the CPU, which has to be exact. */
class TeacherForcingTest {
    @ParameterizedTest
    @EnumSource
    void theCpuDoesNotStray(Golden golden) {
        EngineSettings settings = new EngineSettings("cpu", 0, 0, 64L << 20, 16, 1024, 0, 512);
        TeacherForcing.Deviation deviation = TeacherForcing.run(golden.folder(), settings);
        System.out.println(golden + ": " + deviation);
        assertTrue(deviation.steps() >= 16 * 32, "too few steps: " + deviation);
        assertEquals(0, deviation.otherChoices());
        assertEquals(0, deviation.max(), 1e-3);
    }
}
