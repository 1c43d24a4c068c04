package io.github.sparkmla.engine;

import static org.junit.jupiter.api.Assertions.assertArrayEquals;
import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertInstanceOf;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import io.github.sparkmla.engine.Completion.FinishReason;
import java.util.ArrayList;
import java.util.List;
import java.util.Random;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.ExecutionException;
import java.util.concurrent.TimeUnit;
import org.junit.jupiter.api.RepeatedTest;
import org.junit.jupiter.api.RepetitionInfo;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.Timeout;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.CsvSource;
import org.junit.jupiter.params.provider.ValueSource;

/** Scheduling, block accounting and cancellation, on a fake model whose tokens betray every mistake. */
@Timeout(value = 60, unit = TimeUnit.SECONDS)
class EngineSchedulingTest {
    private static final int CONTEXT = FakeRunner.CONTEXT;

    private static Engine engine(FakeRunner runner, int sequences, int tokens, int chunk) {
        return new Engine(runner, new EngineSettings("cpu", 0, 1, 0, sequences, tokens, chunk, 0));
    }

    private static int[] prompt(Random random, int length) {
        return random.ints(length, FakeRunner.POISON + 1, FakeRunner.VOCAB).toArray();
    }

    @RepeatedTest(60)
    void everyScheduleYieldsTheSameTokens(RepetitionInfo info) throws Exception {
        long seed = info.getCurrentRepetition();
        Random random = new Random(seed * 0x9E3779B97F4A7C15L);
        int blocks = 7 + random.nextInt(60);
        int sequences = 1 + random.nextInt(20);
        int tokens = sequences + random.nextInt(200);
        int chunk = random.nextBoolean() ? 0 : 1 + random.nextInt(100);
        boolean overlaps = seed % 2 == 0;
        boolean replays = seed % 3 == 0;
        System.out.printf(
                "seed %d: %d blocks, %d sequences, %d tokens, chunk %d, overlap %s, replay %s%n",
                seed, blocks, sequences, tokens, chunk, overlaps, replays);
        FakeRunner runner = new FakeRunner(blocks, overlaps, replays);
        try (Engine engine = engine(runner, sequences, tokens, chunk)) {
            List<int[]> prompts = new ArrayList<>();
            List<Integer> limits = new ArrayList<>();
            List<CompletableFuture<Completion>> futures = new ArrayList<>();
            for (int i = 0; i < 80; i++) {
                prompts.add(prompt(random, 1 + random.nextInt(random.nextInt(4) == 0 ? CONTEXT - 1 : 40)));
                limits.add(1 + random.nextInt(120));
                futures.add(engine.submit(new Request(prompts.get(i), SamplingParams.greedy(limits.get(i)), i)));
            }
            for (int i = 0; i < futures.size(); i++) {
                Completion completion = futures.get(i).get();
                int[] expected = FakeRunner.expected(prompts.get(i), limits.get(i), CONTEXT);
                assertArrayEquals(expected, completion.tokenIds(), "request " + i);
                boolean stopped = expected[expected.length - 1] == FakeRunner.END;
                assertEquals(stopped ? FinishReason.STOP : FinishReason.LENGTH, completion.finishReason());
                assertEquals(prompts.get(i).length, completion.promptTokens());
            }
            assertEquals(engine.totalBlocks(), engine.freeBlocks(), "blocks leaked");
            assertTrue(runner.largestStep <= tokens, "token budget");
            assertTrue(runner.mostSequences <= sequences, "sequence limit");
            assertEquals(overlaps ? 2 : 1, runner.mostUnderWay, "steps under way");
        }
        assertTrue(runner.closed);
    }

    @ParameterizedTest
    @CsvSource({"false, false", "false, true", "true, false", "true, true"})
    void aPoolTooSmallForAllPreemptsAndStillFinishes(boolean overlaps, boolean replays) throws Exception {
        FakeRunner runner = new FakeRunner(7, overlaps, replays);
        try (Engine engine = engine(runner, 8, 64, 0)) {
            Random random = new Random(1);
            List<CompletableFuture<Completion>> futures = new ArrayList<>();
            List<int[]> prompts = new ArrayList<>();
            for (int i = 0; i < 8; i++) {
                prompts.add(prompt(random, 60));
                futures.add(engine.submit(new Request(prompts.get(i), SamplingParams.greedy(200), i)));
            }
            for (int i = 0; i < 8; i++) {
                assertArrayEquals(
                        FakeRunner.expected(prompts.get(i), 200, CONTEXT),
                        futures.get(i).get().tokenIds());
            }
            assertTrue(engine.preemptions() > 0, "nothing was preempted: the test is vacuous");
            System.out.printf(
                    "%d steps, %d preemptions, %d replayed%n", engine.steps(), engine.preemptions(), runner.replayed);
            assertEquals(replays, runner.replayed > 100, "replayed: " + runner.replayed);
        }
    }

    @ParameterizedTest
    @ValueSource(booleans = {false, true})
    void cancelledSequencesFreeTheirBlocks(boolean overlaps) throws Exception {
        try (Engine engine = engine(new FakeRunner(64, overlaps, false), 4, 16, 0)) {
            Random random = new Random(2);
            List<CompletableFuture<Completion>> futures = new ArrayList<>();
            for (int i = 0; i < 40; i++) {
                futures.add(engine.submit(new Request(prompt(random, 300), SamplingParams.greedy(90), i)));
            }
            for (int i = 0; i < 40; i += 2) {
                futures.get(i).cancel(true);
            }
            for (int i = 1; i < 40; i += 2) {
                futures.get(i).get();
            }
            int[] last = prompt(random, 3);
            engine.submit(new Request(last, SamplingParams.greedy(1), 0)).get(); // one more step, to let go
            assertEquals(engine.totalBlocks(), engine.freeBlocks());
        }
    }

    @Test
    void whatCanNeverRunIsRefusedAtOnce() {
        try (Engine engine = engine(new FakeRunner(3), 4, 16, 0)) {
            SamplingParams one = SamplingParams.greedy(1);
            assertMessage(engine, new Request(new int[0], one, 0), "empty");
            assertMessage(engine, new Request(new int[CONTEXT], one, 0), "context is 400");
            assertMessage(
                    engine, new Request(new int[] {5, FakeRunner.VOCAB}, one, 0), "token 1 of the prompt is 1000");
            assertMessage(engine, new Request(new int[300], one, 0), "needs 5 blocks");
        }
    }

    private static void assertMessage(Engine engine, Request request, String part) {
        String message = assertThrows(IllegalArgumentException.class, () -> engine.submit(request))
                .getMessage();
        assertTrue(message.contains(part), message);
    }

    @ParameterizedTest
    @ValueSource(booleans = {false, true})
    void aRowWithoutNumbersFailsAlone(boolean overlaps) throws Exception {
        try (Engine engine = engine(new FakeRunner(8, overlaps, false), 4, 16, 0)) {
            SamplingParams five = SamplingParams.greedy(5);
            int[] good = {1, 2, 3};
            var poisoned = engine.submit(new Request(new int[] {FakeRunner.POISON, 2}, five, 0));
            var sound = engine.submit(new Request(good, five, 0));
            ExecutionException e = assertThrows(ExecutionException.class, poisoned::get);
            RequestException cause = assertInstanceOf(RequestException.class, e.getCause());
            assertTrue(
                    cause.getMessage().contains("after 2 tokens the model's logits are not numbers"),
                    cause::getMessage);
            assertEquals(2, cause.promptTokens());
            assertArrayEquals(FakeRunner.expected(good, 5, CONTEXT), sound.get().tokenIds());
            assertEquals(engine.totalBlocks(), engine.freeBlocks());
        }
    }

    @Test
    void aDeadEngineFailsItsRequestsWithTheCause() {
        FakeRunner runner = new FakeRunner(8);
        Engine engine = engine(runner, 4, 16, 0);
        runner.failure = new IllegalStateException("the device is gone");
        var future = engine.submit(new Request(new int[] {1, 2}, SamplingParams.greedy(5), 0));
        ExecutionException e = assertThrows(ExecutionException.class, future::get);
        assertTrue(e.getMessage().contains("the device is gone"), e.getMessage());
        ExecutionException later = assertThrows(
                ExecutionException.class,
                () -> engine.submit(new Request(new int[] {1}, SamplingParams.greedy(1), 0))
                        .get());
        assertTrue(later.getMessage().contains("the device is gone"), later.getMessage());
        engine.close();
        assertTrue(runner.closed);
    }

    @Test
    void closingFailsWhatIsLeft() {
        Engine engine = engine(new FakeRunner(64), 1, 1, 1);
        List<CompletableFuture<Completion>> futures = new ArrayList<>();
        for (int i = 0; i < 50; i++) {
            futures.add(engine.submit(new Request(new int[300], SamplingParams.greedy(90), i)));
        }
        engine.close();
        assertTrue(futures.stream().allMatch(CompletableFuture::isDone));
        assertThrows(ExecutionException.class, () -> futures.get(49).get());
    }
}
