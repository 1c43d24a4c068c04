package io.github.sparkmla.model;

import static org.junit.jupiter.api.Assertions.assertArrayEquals;
import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertTrue;

import io.github.sparkmla.Golden;
import io.github.sparkmla.checkpoint.Checkpoint;
import io.github.sparkmla.checkpoint.ModelConfig;
import io.github.sparkmla.tensor.Arena;
import io.github.sparkmla.tensor.Device;
import io.github.sparkmla.tensor.HostTensors;
import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.Arrays;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.CsvSource;

class DummyWeightsTest {
    private static final Path SHAPES = Path.of("../examples/benchmarks/shapes");

    @TempDir
    Path folder;

    @Test
    void everyRoleHasTheValuesThatTrainingStartsFrom() {
        ModelConfig config = Checkpoint.open(Golden.TINY_V3.folder()).config();
        try (Device device = Device.open("cpu", 0, 0);
                Arena arena = new Arena(device)) {
            Weights weights = Weights.of(config, new DummyWeights(config, arena));
            float[] embedding = HostTensors.floats(weights.embedding());
            double mean = 0;
            double square = 0;
            for (float value : embedding) {
                mean += value / embedding.length;
                square += (double) value * value / embedding.length;
            }
            double error = 5 * config.initializerRange() / Math.sqrt(embedding.length);
            assertEquals(0, mean, error);
            assertEquals(config.initializerRange(), Math.sqrt(square), error + 1e-4);
            for (float value : HostTensors.floats(weights.finalNorm())) {
                assertEquals(1, value);
            }
            Weights.Moe moe = (Weights.Moe)
                    weights.layers().get(config.moeLayers().indexOf(true)).feedForward();
            assertEquals(config.moe().experts(), moe.gateUp().length);
            assertEquals(
                    "BF16[%d, %d]".formatted(2 * config.moe().intermediateSize(), config.hiddenSize()),
                    moe.gateUp()[1].toString());
            float[] first = HostTensors.floats(moe.gateUp()[0]);
            assertTrue(!Arrays.equals(first, HostTensors.floats(moe.gateUp()[1])), "two experts are the same");
            for (float value : HostTensors.floats(moe.bias())) {
                assertEquals(0, value);
            }
        }
    }

    /** A step of a folder that holds a config.json and nothing else; empty rows change no bit of it. */
    @Test
    void configJsonIsEnoughAndEmptyRowsChangeNothing() throws IOException {
        Files.copy(Golden.TINY_V3.folder().resolve("config.json"), folder.resolve("config.json"));
        ModelConfig config = Checkpoint.openWithoutWeights(folder).config();
        try (Device device = Device.open("cpu", 0, 0);
                MlaModel model = MlaModel.dummy(config, device, new MlaModel.Limits(64, 8, 128, true))) {
            model.allocateCache(2);
            StepInputs inputs = model.inputs();
            inputs.clear(0);
            inputs.add(new int[] {5, 6, 7}, 0, 3, false, -1, new int[] {1});
            inputs.draw(3, 0, 0, 1, 0);
            inputs.upload(inputs.tableWidth());
            model.forward();
            float[] alone = decode(model, 1);
            float[] padded = decode(model, 8);
            assertTrue(Float.isFinite(alone[0]) && alone[0] != alone[1], Arrays.toString(Arrays.copyOf(alone, 4)));
            assertArrayEquals(alone, Arrays.copyOf(padded, alone.length));
        }
    }

    private static float[] decode(MlaModel model, int rows) {
        StepInputs inputs = model.inputs();
        inputs.clear(0);
        inputs.add(new int[] {5, 6, 7, 8}, 3, 4, true, -1, new int[] {1});
        inputs.draw(4, 0, 0, 1, 0);
        inputs.pad(rows, model.dumpBlock());
        inputs.upload(2);
        return HostTensors.floats(model.forward());
    }

    @ParameterizedTest
    @CsvSource({"deepseek-v2-lite, 27, 31104", "moonlight-16b-a3b, 27, 31104", "glm-4.7-flash, 47, 54144"})
    void theShapesOfTheBenchmarksAreRead(String name, int layers, int kvBytes) {
        ModelConfig config = Checkpoint.openWithoutWeights(SHAPES.resolve(name)).config();
        assertEquals(layers, config.numLayers());
        assertEquals(kvBytes, 2 * config.kvDim() * config.numLayers(), "bytes of KV cache a token");
    }
}
