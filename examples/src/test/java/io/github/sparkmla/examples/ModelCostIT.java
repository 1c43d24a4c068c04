package io.github.sparkmla.examples;

import static org.junit.jupiter.api.Assertions.assertEquals;

import io.github.sparkmla.checkpoint.Checkpoint;
import io.github.sparkmla.checkpoint.ModelConfig;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.CsvSource;

/** What a model costs, against published sizes and figures worked out by hand. */
class ModelCostIT {
    private static ModelConfig config(String shape) {
        return Checkpoint.openWithoutWeights(Repository.EXAMPLES.resolve("benchmarks/shapes/" + shape))
                .config();
    }

    /** The model cards say 15.7 B, 16 B and 30 B. */
    @ParameterizedTest
    @CsvSource({"deepseek-v2-lite, 15.7, 0.05", "moonlight-16b-a3b, 16.0, 0.05", "glm-4.7-flash, 30, 0.5"})
    void parametersAreThosePublished(String shape, double billions, double tolerance) {
        assertEquals(billions, new ModelCost(config(shape)).parameters() / 1e9, tolerance);
    }

    /** DeepSeek-V2-Lite at a context of 384 and 3,060 GB/s: 23,100, 42,400 and 72,700 tokens/s. */
    @ParameterizedTest
    @CsvSource({"256, 23100", "512, 42400", "1024, 72700"})
    void theFloorOfADecodeStep(int batch, double tokensPerSecond) {
        ModelCost cost = new ModelCost(config("deepseek-v2-lite"));
        double bytes = cost.weightBytes(batch) + (double) batch * 384 * cost.kvBytes();
        assertEquals(tokensPerSecond, batch / (bytes / 3060e9), 0.01 * tokensPerSecond);
    }

    /** One layer by hand: 2 operations a weight and token, and 2 * 16 * (192 + 128) a pair of query and key. */
    @Test
    void usefulOperationsOfAPrefill() {
        ModelCost cost = new ModelCost(config("deepseek-v2-lite"));
        long attention = 2048L * 3072 + 2048L * 576 + 16L * 256 * 512 + 2048L * 2048;
        long dense = 3L * 2048 * 10944;
        long experts = 3L * 2048 * 1408 * 8 + 64L * 2048;
        double products = 4096.0 * (27 * attention + dense + 26 * experts) + 102_400L * 2048;
        double pairs = 27.0 * 4096 * 4097 / 2 * 16 * (192 + 128);
        assertEquals(2 * (products + pairs), cost.prefillOperations(4096), 1e6);
    }
}
