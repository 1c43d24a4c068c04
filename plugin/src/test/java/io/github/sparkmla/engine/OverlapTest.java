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
import java.util.Map;
import java.util.Random;
import java.util.concurrent.CompletableFuture;
import org.junit.jupiter.api.Test;

/**
 * Steps that overlap, as they do on a GPU, with a real model on the CPU: tokens that the host does not know yet come from the
 * step before, and the rows are the same, bit for bit.
 */
class OverlapTest {
    private final Checkpoint checkpoint = Engine.check(Golden.TINY_V3.folder());

    /** A runner that says that its steps overlap; on the CPU they are done when they are launched. */
    private record Overlapping(StepRunner runner) implements StepRunner {
        @Override
        public boolean overlaps() {
            return true;
        }

        @Override
        public int vocabSize() {
            return runner.vocabSize();
        }

        @Override
        public int maxModelLen() {
            return runner.maxModelLen();
        }

        @Override
        public int kvBlocks() {
            return runner.kvBlocks();
        }

        @Override
        public boolean isEndOfSequence(int token) {
            return runner.isEndOfSequence(token);
        }

        @Override
        public void launch(List<Scheduler.Work> step) {
            runner.launch(step);
        }

        @Override
        public Map<String, Double> launchProfiled(List<Scheduler.Work> step) {
            return runner.launchProfiled(step);
        }

        @Override
        public void collect(Sink sink) {
            runner.collect(sink);
        }

        @Override
        public void close() {
            runner.close();
        }
    }

    private static List<Request> requests() {
        Random random = new Random(20261122);
        List<Request> requests = new ArrayList<>();
        for (int i = 0; i < 24; i++) {
            int[] prompt = random.ints(1 + random.nextInt(i % 4 == 0 ? 150 : 30), 5, 2048)
                    .toArray();
            SamplingParams sampling =
                    new SamplingParams(1 + random.nextInt(40), i % 2 == 0 ? 0 : 0.9f, 50, 0.95f, 42, i % 3 - 1, false);
            requests.add(new Request(prompt, sampling, random.nextLong()));
        }
        return requests;
    }

    private List<Completion> run(boolean overlap, int blocks) throws Exception {
        long blockBytes;
        try (Device device = Device.open("cpu", 0, 1)) {
            blockBytes = MlaModel.kvBlockBytes(checkpoint.config(), device);
        }
        EngineSettings settings = new EngineSettings("cpu", 0, 0, blocks * blockBytes, 8, 64, 0, 512);
        StepRunner runner = ModelRunner.open(checkpoint, settings);
        List<Completion> completions = new ArrayList<>();
        try (Engine engine = new Engine(overlap ? new Overlapping(runner) : runner, settings)) {
            List<CompletableFuture<Completion>> futures =
                    requests().stream().map(engine::submit).toList();
            for (CompletableFuture<Completion> future : futures) {
                completions.add(future.get());
            }
            assertTrue(blocks > 100 || engine.preemptions() > 0, "nothing was preempted");
            assertEquals(engine.totalBlocks(), engine.freeBlocks(), "blocks leaked");
        }
        return completions;
    }

    @Test
    void rowsAreTheSame() throws Exception {
        List<Completion> expected = run(false, 128);
        for (int blocks : new int[] {128, 6}) {
            List<Completion> actual = run(true, blocks);
            for (int i = 0; i < expected.size(); i++) {
                String where = "row " + i + ", " + blocks + " blocks";
                assertArrayEquals(expected.get(i).tokenIds(), actual.get(i).tokenIds(), where);
                assertEquals(expected.get(i).finishReason(), actual.get(i).finishReason(), where);
                assertEquals(
                        expected.get(i).logprobs().size(),
                        actual.get(i).logprobs().size(),
                        where);
                for (int step = 0; step < expected.get(i).logprobs().size(); step++) {
                    assertEquals(
                            Float.floatToIntBits(
                                    expected.get(i).logprobs().get(step).logprob()),
                            Float.floatToIntBits(
                                    actual.get(i).logprobs().get(step).logprob()),
                            where);
                }
            }
        }
    }
}
