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
import java.util.concurrent.atomic.AtomicInteger;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.EnumSource;

/**
 * Steps as they run on a GPU, with a real model on the CPU: they overlap, and in deterministic mode generated tokens are
 * computed one by one, also after a preemption. Tokens that the host does not know yet come from the step before, and the
 * rows are the same, bit for bit.
 */
class OverlapTest {
    private final Checkpoint checkpoint = Engine.check(Golden.TINY_V3.folder());

    /** A runner that says what one on a GPU says; on the CPU steps are done when they are launched. */
    private record AsOnGpu(StepRunner runner, boolean replays, AtomicInteger replayed) implements StepRunner {
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
            for (Scheduler.Work work : step) {
                assertTrue(!replays || FakeRunner.keepsKindsApart(work), work::toString);
                replayed.addAndGet(work.decodes() && !work.completes() ? 1 : 0);
            }
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
                    new SamplingParams(1 + random.nextInt(120), i % 2 == 0 ? 0 : 0.9f, 50, 0.95f, 42, i % 3 - 1, false);
            requests.add(new Request(prompt, sampling, random.nextLong()));
        }
        return requests;
    }

    private enum Steps {
        PLAIN,
        OVERLAPPING,
        REPLAYING
    }

    private List<Completion> run(Steps steps, int blocks) throws Exception {
        long blockBytes;
        try (Device device = Device.open("cpu", 0, 1)) {
            blockBytes = MlaModel.kvBlockBytes(checkpoint.config(), device);
        }
        EngineSettings settings = new EngineSettings("cpu", 0, 0, blocks * blockBytes, 8, 64, 0, 512);
        StepRunner runner = ModelRunner.open(checkpoint, settings);
        List<Completion> completions = new ArrayList<>();
        AtomicInteger replayed = new AtomicInteger();
        StepRunner asked = steps == Steps.PLAIN ? runner : new AsOnGpu(runner, steps == Steps.REPLAYING, replayed);
        try (Engine engine = new Engine(asked, settings)) {
            List<CompletableFuture<Completion>> futures =
                    requests().stream().map(engine::submit).toList();
            for (CompletableFuture<Completion> future : futures) {
                completions.add(future.get());
            }
            assertTrue(blocks > 100 || engine.preemptions() > 0, "nothing was preempted");
            assertEquals(engine.totalBlocks(), engine.freeBlocks(), "blocks leaked");
            assertEquals(steps == Steps.REPLAYING && blocks < 100, replayed.get() > 50, "replayed: " + replayed);
        }
        return completions;
    }

    @ParameterizedTest
    @EnumSource(names = {"OVERLAPPING", "REPLAYING"})
    void rowsAreTheSame(Steps steps) throws Exception {
        List<Completion> expected = run(Steps.PLAIN, 128);
        for (int blocks : new int[] {128, 6}) {
            List<Completion> actual = run(steps, blocks);
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
