package io.github.sparkmla.engine;

import static org.junit.jupiter.api.Assertions.assertArrayEquals;
import static org.junit.jupiter.api.Assertions.assertEquals;

import com.fasterxml.jackson.databind.JsonNode;
import io.github.sparkmla.Golden;
import io.github.sparkmla.engine.Completion.TokenLogprobs;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.List;
import java.util.concurrent.CompletableFuture;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.EnumSource;
import org.junit.jupiter.params.provider.ValueSource;

/** The CPU engine against HF transformers: every token, and every log-probability within 1e-3. */
class GoldenTest {
    @ParameterizedTest
    @EnumSource
    void theSharedCheckpoints(Golden golden) throws Exception {
        assertEquals(16, compare(golden.folder()));
    }

    /** Random weights under rules that the two above do not use; see make_checkpoints.py. */
    @ParameterizedTest
    @ValueSource(
            strings = {"tiny-v2", "tiny-moonlight", "tiny-v3-mscale", "tiny-k2", "tiny-glm", "tiny-fp8", "tiny-odd"})
    void everyRuleOfTheModels(String name) throws Exception {
        assertEquals(6, compare(Path.of("src/test/resources/models", name)));
    }

    @Test
    void whereNoBatchIsAskedForTheDeviceSaysIt() {
        EngineSettings settings = new EngineSettings("cpu", 0, 1, 64L << 20, 0, 0, 0, 0);
        try (Engine engine = Engine.load(Golden.TINY_V3.folder(), settings)) {
            assertEquals(EngineSettings.CPU_SEQUENCES, engine.maxSequences());
        }
    }

    /** Runs all of golden.json and returns how many continuations were the same. */
    private static int compare(Path folder) throws Exception {
        EngineSettings settings = new EngineSettings("cpu", 0, 0, 64L << 20, 16, 256, 0, 0);
        JsonNode generations = Golden.json(folder).get("generations");
        double worst = 0;
        try (Engine engine = Engine.load(folder, settings)) {
            List<CompletableFuture<Completion>> futures = new ArrayList<>();
            for (JsonNode g : generations) {
                int tokens = g.get("output_ids").size();
                SamplingParams sampling = new SamplingParams(tokens, 0, 0, 1, 0, 5, true);
                futures.add(engine.submit(new Request(Golden.ints(g.get("prompt_ids")), sampling, 0)));
            }
            for (int i = 0; i < futures.size(); i++) {
                JsonNode g = generations.get(i);
                Completion completion = futures.get(i).get();
                assertArrayEquals(Golden.ints(g.get("output_ids")), completion.tokenIds(), "prompt " + i);
                for (int step = 0; step < completion.tokenIds().length; step++) {
                    worst = Math.max(
                            worst,
                            worstLogprob(
                                    g.get("steps").get(step),
                                    completion.logprobs().get(step)));
                }
            }
        }
        System.out.printf("%s: log-probabilities off by at most %.2e%n", folder, worst);
        assertEquals(0, worst, 1e-3);
        return generations.size();
    }

    private static double worstLogprob(JsonNode expected, TokenLogprobs actual) {
        double worst = Math.abs(expected.get("logprobs").get(0).asDouble() - actual.logprob());
        for (int k = 0; k < 5; k++) {
            double e = expected.get("logprobs").get(k).asDouble();
            worst = Math.max(worst, Math.abs(e - actual.topLogprobs()[k]));
            // Two alternatives closer than the tolerance may swap places.
            int id = expected.get("ids").get(k).asInt();
            if (id != actual.topIds()[k]) {
                for (int j = 0; j < 5; j++) {
                    if (actual.topIds()[j] == id) {
                        worst = Math.max(worst, Math.abs(e - actual.topLogprobs()[j]));
                    }
                }
            }
        }
        return worst;
    }
}
