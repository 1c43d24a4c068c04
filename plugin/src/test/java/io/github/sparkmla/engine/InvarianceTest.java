package io.github.sparkmla.engine;

import static org.junit.jupiter.api.Assertions.assertArrayEquals;
import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertTrue;

import io.github.sparkmla.Golden;
import io.github.sparkmla.checkpoint.Checkpoint;
import io.github.sparkmla.model.MlaModel;
import io.github.sparkmla.tensor.Device;
import java.util.ArrayList;
import java.util.Collections;
import java.util.List;
import java.util.Random;
import java.util.concurrent.CompletableFuture;
import org.junit.jupiter.api.BeforeAll;
import org.junit.jupiter.api.RepeatedTest;
import org.junit.jupiter.api.RepetitionInfo;
import org.junit.jupiter.api.TestInstance;

/**
 * A row's tokens and log-probabilities are the same, bit for bit, whatever shares its batch: batch sizes, prefill chunks,
 * token budgets, preemptions, threads and the order of arrival, over seeded combinations.
 */
@TestInstance(TestInstance.Lifecycle.PER_CLASS)
class InvarianceTest {
    private static final int ROWS = 24;
    private static final int[] BATCHES = {1, 7, 64};
    private static final int[] CHUNKS = {16, 64, 0};

    private final List<Request> requests = new ArrayList<>();
    private List<Completion> reference;
    private long blockBytes;
    private int preempted;

    @BeforeAll
    void referenceOneRowAtATime() throws Exception {
        Random random = new Random(20261121);
        for (int i = 0; i < ROWS; i++) {
            int[] prompt = random.ints(1 + random.nextInt(i % 4 == 0 ? 200 : 30), 5, 2048)
                    .toArray();
            SamplingParams sampling = i % 2 == 0
                    ? SamplingParams.greedy(8 + random.nextInt(30)).withLogprobs(3)
                    : new SamplingParams(8 + random.nextInt(30), 0.8f, 50, 0.95f, 42, 2, false);
            requests.add(new Request(prompt, sampling, random.nextLong()));
        }
        Checkpoint checkpoint = Checkpoint.open(Golden.TINY_V3.folder());
        try (Device device = Device.open("cpu", 0, 0)) {
            blockBytes = MlaModel.kvBlockBytes(checkpoint.config(), device);
        }
        reference = new ArrayList<>();
        try (Engine engine = Engine.load(checkpoint, settings(2, 1, 4096, 0, 64))) {
            for (Request request : requests) {
                reference.add(engine.submit(request).get());
            }
        }
    }

    private EngineSettings settings(int threads, int sequences, int tokens, int chunk, int blocks) {
        return new EngineSettings("cpu", 0, threads, blocks * blockBytes, sequences, tokens, chunk, 0);
    }

    @RepeatedTest(36)
    void rowsDoNotDependOnTheirNeighbours(RepetitionInfo info) throws Exception {
        int combination = info.getCurrentRepetition() - 1;
        Random random = new Random(combination * 0x9E3779B97F4A7C15L);
        int batch = BATCHES[combination % 3];
        int chunk = CHUNKS[combination / 3 % 3];
        boolean scarce = combination / 9 % 2 == 0;
        int blocks = scarce ? 5 + random.nextInt(4) : 256; // the longest row alone needs 4 of them
        int tokens = Math.max(batch, 16 + random.nextInt(500));
        int threads = 1 + random.nextInt(2);
        List<Integer> order = new ArrayList<>();
        for (int i = 0; i < ROWS; i++) {
            order.add(i);
        }
        Collections.shuffle(order, random);
        try (Engine engine = Engine.load(
                Checkpoint.open(Golden.TINY_V3.folder()), settings(threads, batch, tokens, chunk, blocks))) {
            List<CompletableFuture<Completion>> futures = new ArrayList<>(Collections.nCopies(ROWS, null));
            for (int i : order) {
                futures.set(i, engine.submit(requests.get(i)));
            }
            for (int i = 0; i < ROWS; i++) {
                assertSame(reference.get(i), futures.get(i).get(), "row " + i + " of combination " + combination);
            }
            preempted += engine.preemptions() > 0 ? 1 : 0;
            System.out.printf(
                    "combination %d: batch %d, chunk %d, %d blocks, %d tokens, %d threads, %d preemptions%n",
                    combination, batch, chunk, blocks, tokens, threads, engine.preemptions());
        }
        if (info.getCurrentRepetition() == info.getTotalRepetitions()) {
            assertTrue(preempted >= 10, "only " + preempted + " combinations preempted a sequence");
        }
    }

    private static void assertSame(Completion expected, Completion actual, String where) {
        assertArrayEquals(expected.tokenIds(), actual.tokenIds(), where);
        assertEquals(expected.finishReason(), actual.finishReason(), where);
        assertEquals(expected.logprobs().size(), actual.logprobs().size(), where);
        for (int step = 0; step < expected.logprobs().size(); step++) {
            var e = expected.logprobs().get(step);
            var a = actual.logprobs().get(step);
            assertEquals(Float.floatToIntBits(e.logprob()), Float.floatToIntBits(a.logprob()), where);
            assertArrayEquals(e.topIds(), a.topIds(), where);
            assertArrayEquals(e.topLogprobs(), a.topLogprobs(), 0f, where);
        }
    }
}
