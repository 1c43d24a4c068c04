package io.github.sparkmla.engine;

import static org.junit.jupiter.api.Assertions.assertArrayEquals;
import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertTrue;

import io.github.sparkmla.Golden;
import io.github.sparkmla.checkpoint.Checkpoint;
import io.github.sparkmla.model.MlaModel;
import io.github.sparkmla.tensor.Device;
import java.util.ArrayList;
import java.util.List;
import java.util.Random;
import java.util.concurrent.CompletableFuture;
import org.junit.jupiter.api.Tag;
import org.junit.jupiter.api.Test;

/**
 * On a GPU in deterministic mode a row's tokens are the same, bit for bit, whatever shares its batch. Some rows are so long
 * that a decode splits their keys, which a prefill does not: preempted ones have to replay what they had generated.
 */
@Tag("gpu")
class GpuInvarianceTest {
    private static final int ROWS = 256;
    private static final int ALONE = 24; // rows that also run one at a time

    private final Checkpoint checkpoint = Engine.check(Golden.TINY_V3.folder());
    private final List<Request> requests = requests();

    private static List<Request> requests() {
        Random random = new Random(20261122);
        List<Request> requests = new ArrayList<>();
        for (int i = 0; i < ROWS; i++) {
            if (i % 16 == 3) {
                int[] prompt = random.ints(200 + random.nextInt(200), 5, 2048).toArray();
                SamplingParams sampling =
                        new SamplingParams(300 + random.nextInt(150), i % 32 == 3 ? 0 : 0.8f, 50, 0.95f, 42, 2, true);
                requests.add(new Request(prompt, sampling, random.nextLong()));
                continue;
            }
            int[] prompt = random.ints(1 + random.nextInt(i % 4 == 0 ? 200 : 40), 5, 2048)
                    .toArray();
            SamplingParams sampling = i % 2 == 0
                    ? SamplingParams.greedy(16 + random.nextInt(48)).withLogprobs(3)
                    : new SamplingParams(16 + random.nextInt(48), 0.8f, 50, 0.95f, 42, 2, false);
            requests.add(new Request(prompt, sampling, random.nextLong()));
        }
        return requests;
    }

    private EngineSettings settings(int sequences, int tokens, int chunk, long kvBytes, boolean graphs) {
        return new EngineSettings("cuda", 0, 0, kvBytes, sequences, tokens, chunk, 1024)
                .with(new EngineSettings.Gpu(0.9, true, graphs));
    }

    private List<Completion> run(EngineSettings settings, List<Request> rows, boolean preempts) throws Exception {
        List<Completion> completions = new ArrayList<>();
        try (Engine engine = Engine.load(checkpoint, settings)) {
            List<CompletableFuture<Completion>> futures =
                    rows.stream().map(engine::submit).toList();
            for (CompletableFuture<Completion> future : futures) {
                completions.add(future.get());
            }
            System.out.printf(
                    "%d rows, %d blocks: %d steps, %d preemptions%n",
                    rows.size(), engine.totalBlocks(), engine.steps(), engine.preemptions());
            assertEquals(preempts, engine.preemptions() > 0, "preemptions: " + engine.preemptions());
            assertEquals(engine.totalBlocks(), engine.freeBlocks(), "blocks leaked");
        }
        return completions;
    }

    @Test
    void rowsDoNotDependOnTheirNeighbours() throws Exception {
        long plenty = 1L << 30;
        List<Completion> together = run(settings(ROWS, 2048, 0, plenty, true), requests, false);
        List<Completion> alone = run(settings(1, 2048, 0, plenty, true), requests.subList(0, ALONE), false);
        for (int i = 0; i < ALONE; i++) {
            assertSame(together.get(i), alone.get(i), "alone, row " + i);
        }
        assertAllSame(together, run(settings(64, 300, 16, plenty, true), requests, false), "chunks of 16");
        assertAllSame(together, run(settings(ROWS, 512, 64, plenty, false), requests, false), "no graphs");
        long scarce = 40 * blockBytes();
        assertAllSame(together, run(settings(64, 512, 0, scarce, true), requests, true), "40 blocks");
        assertAllSame(together, run(settings(16, 100, 40, scarce, false), requests, true), "40 blocks, chunks of 40");
    }

    private long blockBytes() {
        try (Device device = Device.open("cuda", 0, 0)) {
            return MlaModel.kvBlockBytes(checkpoint.config(), device);
        }
    }

    private static void assertAllSame(List<Completion> expected, List<Completion> actual, String where) {
        assertTrue(expected.size() == actual.size() && !actual.isEmpty(), where);
        for (int i = 0; i < expected.size(); i++) {
            assertSame(expected.get(i), actual.get(i), where + ", row " + i);
        }
    }

    private static void assertSame(Completion expected, Completion actual, String where) {
        assertArrayEquals(expected.tokenIds(), actual.tokenIds(), where);
        for (int step = 0; step < expected.logprobs().size(); step++) {
            assertEquals(
                    Float.floatToIntBits(expected.logprobs().get(step).logprob()),
                    Float.floatToIntBits(actual.logprobs().get(step).logprob()),
                    where + ", step " + step);
        }
    }
}
