package io.github.sparkmla.spark;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertNotSame;
import static org.junit.jupiter.api.Assertions.assertSame;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import io.github.sparkmla.checkpoint.CheckpointException;
import io.github.sparkmla.engine.EngineSettings;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.Collections;
import java.util.List;
import java.util.concurrent.CountDownLatch;
import java.util.concurrent.ExecutionException;
import java.util.concurrent.ExecutorService;
import java.util.concurrent.Executors;
import java.util.concurrent.Future;
import java.util.concurrent.atomic.AtomicInteger;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.Timeout;

@Timeout(60)
class EnginesTest {
    private static final Engines.Key A = new Engines.Key(Path.of("a"), EngineSettings.defaults());
    private static final Engines.Key B = new Engines.Key(Path.of("b"), EngineSettings.defaults());
    private static final Runnable ALIVE = () -> {};

    private final Engines engines = new Engines(key -> new FakeModel());

    @Test
    void tasksShareOneModelWhichStaysForTheNext() {
        Engines.Lease first = engines.lease(A).await(ALIVE);
        Engines.Lease second = engines.lease(A).await(ALIVE);
        assertSame(first.model(), second.model());
        FakeModel model = (FakeModel) first.model();
        first.close();
        first.close();
        second.close();
        assertFalse(model.closed);
        assertSame(model, engines.lease(A).await(ALIVE).model());
    }

    @Test
    void anIdleModelMakesRoomForAnother() {
        Engines.Lease idle = engines.lease(A).await(ALIVE);
        FakeModel model = (FakeModel) idle.model();
        idle.close();
        engines.lease(B).await(ALIVE);
        assertTrue(model.closed);
    }

    @Test
    void twoModelsInUseLiveBesideEachOther() {
        FakeModel a = (FakeModel) engines.lease(A).await(ALIVE).model();
        FakeModel b = (FakeModel) engines.lease(B).await(ALIVE).model();
        assertNotSame(a, b);
        assertFalse(a.closed);
    }

    @Test
    void aDeadEngineIsReplacedAndClosedWithItsLastLease() {
        Engines.Lease first = engines.lease(A).await(ALIVE);
        Engines.Lease second = engines.lease(A).await(ALIVE);
        FakeModel dead = (FakeModel) first.model();
        first.discard();
        first.close();
        assertFalse(dead.closed);
        assertNotSame(dead, engines.lease(A).await(ALIVE).model());
        second.close();
        assertTrue(dead.closed);
    }

    @Test
    void theEndOfTheExecutorClosesAll() {
        FakeModel inUse = (FakeModel) engines.lease(A).await(ALIVE).model();
        engines.closeAll();
        assertTrue(inUse.closed);
    }

    @Test
    void loadingHappensOnceHoweverManyWait() throws Exception {
        CountDownLatch go = new CountDownLatch(1);
        AtomicInteger loads = new AtomicInteger();
        Engines slow = new Engines(key -> {
            loads.incrementAndGet();
            awaitLatch(go);
            return new FakeModel();
        });
        List<LoadedModel> models =
                inParallel(4, go, () -> slow.lease(A).await(ALIVE).model());
        assertEquals(1, loads.get());
        models.forEach(model -> assertSame(models.get(0), model));
    }

    @Test
    void aFailedLoadFailsAllWhoWaitAndIsTriedAgain() throws Exception {
        AtomicInteger loads = new AtomicInteger();
        CountDownLatch go = new CountDownLatch(1);
        Engines failing = new Engines(key -> {
            awaitLatch(go);
            if (loads.getAndIncrement() == 0) {
                throw new CheckpointException("config.json: no model_type");
            }
            return new FakeModel();
        });
        List<String> messages = inParallel(
                3,
                go,
                () -> assertThrows(
                                IllegalStateException.class,
                                () -> failing.lease(A).await(ALIVE))
                        .getMessage());
        assertEquals(
                List.of("cannot load the model a: config.json: no model_type"),
                messages.stream().distinct().toList());
        assertFalse(((FakeModel) failing.lease(A).await(ALIVE).model()).closed);
        assertEquals(2, loads.get());
    }

    @Test
    void aKilledTaskStopsWaitingForALoad() {
        CountDownLatch never = new CountDownLatch(1);
        Engines stuck = new Engines(key -> {
            awaitLatch(never);
            return new FakeModel();
        });
        AtomicInteger polls = new AtomicInteger();
        Runnable killedAtThirdPoll = () -> {
            if (polls.incrementAndGet() == 3) {
                throw new IllegalStateException("killed");
            }
        };
        assertEquals(
                "killed",
                assertThrows(IllegalStateException.class, () -> stuck.lease(A).await(killedAtThirdPoll))
                        .getMessage());
        never.countDown();
    }

    @Test
    void modelsLoadOneAtATimeAndNobodyWaitsUnasked() throws InterruptedException {
        CountDownLatch go = new CountDownLatch(1);
        AtomicInteger atOnce = new AtomicInteger();
        List<Integer> seen = Collections.synchronizedList(new ArrayList<>());
        Engines slow = new Engines(key -> {
            seen.add(atOnce.incrementAndGet());
            awaitLatch(go);
            atOnce.decrementAndGet();
            return new FakeModel();
        });
        Engines.Lease a = slow.lease(A);
        Engines.Lease b = slow.lease(B);
        assertEquals(2, slow.size());
        Thread.sleep(300); // long enough for a second load to begin beside the first
        assertEquals(List.of(1), seen);
        go.countDown();
        assertNotSame(a.await(ALIVE).model(), b.await(ALIVE).model());
        assertEquals(List.of(1, 1), seen);
    }

    private interface Work<T> {
        T run();
    }

    /** Runs the work on threads that all wait before {@code go} is given. */
    private static <T> List<T> inParallel(int threads, CountDownLatch go, Work<T> work)
            throws InterruptedException, ExecutionException {
        ExecutorService pool = Executors.newFixedThreadPool(threads);
        try {
            List<Future<T>> futures = new ArrayList<>();
            for (int i = 0; i < threads; i++) {
                futures.add(pool.submit(work::run));
            }
            Thread.sleep(300); // long enough for all to wait; a thread that comes late only tests less
            go.countDown();
            List<T> results = new ArrayList<>();
            for (Future<T> future : futures) {
                results.add(future.get());
            }
            return results;
        } finally {
            pool.shutdown();
        }
    }

    private static void awaitLatch(CountDownLatch latch) {
        try {
            latch.await();
        } catch (InterruptedException e) {
            throw new IllegalStateException(e);
        }
    }
}
