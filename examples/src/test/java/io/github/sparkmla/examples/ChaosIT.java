package io.github.sparkmla.examples;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import io.github.sparkmla.spark.MlaGenerator;
import java.io.File;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.List;
import java.util.Map;
import java.util.Random;
import java.util.Set;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.ConcurrentHashMap;
import java.util.concurrent.ExecutionException;
import java.util.concurrent.atomic.AtomicInteger;
import java.util.function.BooleanSupplier;
import java.util.function.Supplier;
import java.util.stream.IntStream;
import org.apache.spark.SparkEnv;
import org.apache.spark.TaskContext;
import org.apache.spark.api.java.function.MapFunction;
import org.apache.spark.scheduler.SparkListener;
import org.apache.spark.scheduler.SparkListenerExecutorAdded;
import org.apache.spark.scheduler.SparkListenerExecutorRemoved;
import org.apache.spark.scheduler.SparkListenerTaskEnd;
import org.apache.spark.scheduler.SparkListenerTaskStart;
import org.apache.spark.sql.Dataset;
import org.apache.spark.sql.Encoder;
import org.apache.spark.sql.Row;
import org.apache.spark.sql.SparkSession;
import org.junit.jupiter.api.AfterAll;
import org.junit.jupiter.api.BeforeAll;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.TestInstance;
import org.junit.jupiter.api.Timeout;
import org.junit.jupiter.api.io.TempDir;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.MethodSource;

/**
 * Jobs on a cluster of two executors that are disturbed in the middle: whatever happens, the output has every row once
 * and is that of the undisturbed run. {@code -Dchaos.runs=20} for more than a first impression.
 *
 * <p>With {@code -Dchaos.device=cuda} both executors work on GPU 0, which nobody else may use meanwhile, and its memory
 * must return to what it was: after each run to that of two executors with an idle engine each, at the end to that before
 * all. examples/chaos-tests.sh runs it where there is no Maven.
 */
@Timeout(300)
@TestInstance(TestInstance.Lifecycle.PER_CLASS)
class ChaosIT {
    private static final int RUNS = Integer.getInteger("chaos.runs", 4);
    private static final boolean GPU = System.getProperty("chaos.device", "cpu").equals("cuda");
    private static final int ROWS = 160;
    private static final int PARTITIONS = 8;
    private static final int EXECUTORS = 2;
    private static final int CORES = 2; // of an executor: its tasks share an engine
    private static final int PATIENCE_SECONDS = 60;

    /** Of an executor on the GPU: much more than the tolerance, so that an engine that is left over is seen. */
    private static final String KV_MEMORY = GPU ? "1g" : "64m";

    /** Graphs and kernels are loaded when a batch first needs them, about as much as this in all. */
    private static final long TOLERANCE_MIB = 256;

    /** What is done to a job. */
    private enum Disturbance {
        EXECUTOR_KILLED,
        TASK_KILLED,
        STRAGGLER,
        JOB_CANCELLED
    }

    @TempDir
    private static Path temp;

    private StandaloneCluster cluster;
    private SparkSession spark;
    private List<Row> undisturbed;
    private long unusedMib; // of the GPU's memory in use, before all
    private long idleMib; // ... by executors that have nothing to do
    private int ended; // executors
    private final Set<Long> running = ConcurrentHashMap.newKeySet();
    private final Set<String> added = ConcurrentHashMap.newKeySet();
    private final Map<String, String> removed = new ConcurrentHashMap<>();
    private final AtomicInteger overtaken = new AtomicInteger();

    @BeforeAll
    void start() throws Exception {
        unusedMib = usedMib();
        Map<String, String> gpu = Map.of(
                "spark.worker.resource.gpu.amount",
                "1",
                "spark.worker.resource.gpu.discoveryScript",
                Repository.ROOT.resolve("conf/getGpusResources.sh").toString());
        cluster =
                new StandaloneCluster(Repository.TARGET.resolve("chaos"), EXECUTORS, CORES, "1g", GPU ? gpu : Map.of());
        SparkSession.Builder builder = ClusterIT.builder(cluster.master());
        if (GPU) {
            builder.config("spark.mla.device", "cuda")
                    .config("spark.mla.deterministic", "true")
                    .config("spark.executor.resource.gpu.amount", "1")
                    .config("spark.task.resource.gpu.amount", "" + 1.0 / CORES);
        }
        spark = builder.config("spark.mla.kv.memory", KV_MEMORY)
                .config("spark.executor.memory", "1g")
                .config("spark.cores.max", "" + EXECUTORS * CORES)
                .config("spark.scheduler.minRegisteredResourcesRatio", "1")
                .config("spark.task.maxFailures", "8")
                .config("spark.speculation", "true")
                .config("spark.speculation.interval", "50ms")
                .config("spark.speculation.multiplier", "1.5")
                .config("spark.speculation.quantile", "0.5")
                .getOrCreate();
        added.addAll(List.of("0", "1")); // these are there when the session is
        spark.sparkContext().addSparkListener(new Watch());
        write("undisturbed", rows(-1));
        undisturbed = read("undisturbed");
        assertEquals(ROWS, undisturbed.size());
        settle();
        idleMib = usedMib();
        System.out.println(
                GPU
                        ? "GPU memory in use: " + unusedMib + " MiB before all, " + idleMib + " MiB with idle engines"
                        : "on the CPU; GPU memory is not looked at");
    }

    @AfterAll
    void stop() throws Exception {
        spark.stop();
        cluster.stop();
        awaitUsedMib("after all", unusedMib, TOLERANCE_MIB / 4);
    }

    /** Sees to it that every executor is there, has its engine, and nothing to do: by undisturbed jobs until each took part in one. */
    private void settle() throws Exception {
        await(
                () -> removed.size() == ended && added.size() == EXECUTORS + ended,
                () -> "executors came: " + added + ", went: " + removed + ", should have gone: " + ended);
        Path present = Files.createTempDirectory(temp, "present");
        await(
                () -> {
                    Dataset<Row> generated = rows(-1);
                    write("settled", generated.map(new RollCall(present.toString()), generated.encoder()));
                    assertSameRows("settled");
                    return present.toFile().list().length == EXECUTORS;
                },
                () -> "only executors " + List.of(present.toFile().list()) + " take part");
    }

    private void assertSameRows(String name) {
        List<Row> rows = read(name);
        assertEquals(ROWS, rows.size());
        for (int i = 0; i < ROWS; i++) {
            assertEquals(undisturbed.get(i), rows.get(i), "row " + i + ", " + name);
        }
    }

    /** Waits until the GPU's memory in use is what it should be. */
    private static void awaitUsedMib(String when, long expected, long tolerance) throws Exception {
        if (!GPU) {
            return;
        }
        await(
                () -> Math.abs(usedMib() - expected) <= tolerance,
                () -> "GPU memory in use " + when + ": " + usedMib() + " MiB, should be " + expected);
        System.out.println("GPU memory in use " + when + ": " + usedMib() + " MiB");
    }

    /** Memory in use on GPU 0, whoever uses it; 0 without a GPU. */
    private static long usedMib() {
        if (!GPU) {
            return 0;
        }
        Repository.Outcome outcome = Repository.run(
                Path.of("/"),
                Map.of(),
                List.of("nvidia-smi", "--id=0", "--query-gpu=memory.used", "--format=csv,noheader,nounits"));
        assertEquals(0, outcome.code(), outcome.output());
        return Long.parseLong(outcome.output().trim());
    }

    private static void await(BooleanSupplier condition, Supplier<String> otherwise) throws InterruptedException {
        long end = System.nanoTime() + PATIENCE_SECONDS * 1_000_000_000L;
        while (!condition.getAsBoolean()) {
            assertTrue(System.nanoTime() < end, otherwise);
            Thread.sleep(50);
        }
    }

    /** Knows which tasks run, how many copies overtook their first attempt, and which executors came and went. */
    private final class Watch extends SparkListener {
        @Override
        public void onTaskStart(SparkListenerTaskStart start) {
            running.add(start.taskInfo().taskId());
        }

        @Override
        public void onTaskEnd(SparkListenerTaskEnd end) {
            running.remove(end.taskInfo().taskId());
            if (end.taskInfo().speculative() && end.taskInfo().successful()) {
                overtaken.incrementAndGet();
            }
        }

        @Override
        public void onExecutorAdded(SparkListenerExecutorAdded event) {
            added.add(event.executorId());
        }

        @Override
        public void onExecutorRemoved(SparkListenerExecutorRemoved event) {
            removed.put(event.executorId(), event.reason());
        }
    }

    /** The generated rows; the first attempt of one partition crawls, if that is not negative. */
    private Dataset<Row> rows(int slowPartition) {
        Dataset<Row> prompts = spark.range(0, ROWS, 1, PARTITIONS)
                .selectExpr("id", "concat('King ', id, ', ', repeat('the lord ', id % 7)) AS prompt");
        Encoder<Row> encoder = prompts.encoder();
        return new MlaGenerator()
                .setModel(Repository.TINY_V3.toString())
                .setInputCol("prompt")
                .setMaxTokens(24)
                .setTemperature(1)
                .setSeed(11)
                .setLogprobs(1)
                .transform(prompts.map(new Crawl(slowPartition), encoder));
    }

    /** An executor that has generated a row puts its name down; slowly, so that there is work left for the others. */
    private record RollCall(String present) implements MapFunction<Row, Row> {
        @Override
        public Row call(Row row) throws Exception {
            if (new File(present, SparkEnv.get().executorId()).createNewFile()
                    || row.<Long>getAs("id") % (ROWS / PARTITIONS) == 0) {
                Thread.sleep(400);
            }
            return row;
        }
    }

    private record Crawl(int partition) implements MapFunction<Row, Row> {
        @Override
        public Row call(Row row) throws InterruptedException {
            TaskContext task = TaskContext.get();
            if (task.partitionId() == partition && task.attemptNumber() == 0) {
                Thread.sleep(500);
            }
            return row;
        }
    }

    /** Says by a file that a row in the middle is done, and holds it back until another says that the job is disturbed. */
    private record Halfway(String reached, String disturbed, long id) implements MapFunction<Row, Row> {
        @Override
        public Row call(Row row) throws Exception {
            if (row.<Long>getAs("id") == id) {
                new File(reached).createNewFile();
                while (!new File(disturbed).exists()) {
                    Thread.sleep(10);
                }
            }
            return row;
        }
    }

    private void write(String name, Dataset<Row> rows) {
        rows.write().mode("overwrite").parquet(temp.resolve(name).toString());
    }

    private List<Row> read(String name) {
        return spark.read().parquet(temp.resolve(name).toString()).orderBy("id").collectAsList();
    }

    static List<Integer> runs() {
        return IntStream.range(0, RUNS).boxed().toList();
    }

    @ParameterizedTest
    @MethodSource("runs")
    void aDisturbedJobGivesTheRowsOfAnUndisturbedOne(int run) throws Exception {
        Random random = new Random(20261122 + run);
        Disturbance disturbance = Disturbance.values()[run % Disturbance.values().length];
        int row = random.nextInt(ROWS);
        int delay = random.nextInt(500);
        boolean interrupt = random.nextBoolean();
        System.out.printf(
                "chaos run %d: %s %d ms after row %d, interrupt %s%n", run, disturbance, delay, row, interrupt);
        String group = "run " + run;
        Path reached = temp.resolve("reached-" + run);
        Path disturbed = temp.resolve("disturbed-" + run);
        int overtakenBefore = overtaken.get();
        int slow = disturbance == Disturbance.STRAGGLER ? random.nextInt(PARTITIONS) : -1;
        CompletableFuture<Void> job = CompletableFuture.runAsync(() -> {
            spark.sparkContext().setJobGroup(group, group, interrupt);
            Dataset<Row> generated = rows(slow);
            write(
                    "disturbed",
                    generated.map(new Halfway(reached.toString(), disturbed.toString(), row), generated.encoder()));
        });
        await(() -> reached.toFile().exists() || job.isDone(), () -> "row " + row + " does not come");
        assertFalse(job.isDone(), "the job ended before row " + row);
        Thread.sleep(delay);
        disturb(disturbance, group, interrupt, random);
        Files.createFile(disturbed);
        if (disturbance == Disturbance.JOB_CANCELLED) {
            assertThrows(ExecutionException.class, job::get, "the job was to be cancelled");
            write("disturbed", rows(-1));
        } else {
            job.get();
        }
        assertSameRows("disturbed");
        if (disturbance == Disturbance.STRAGGLER) {
            await(() -> overtaken.get() > overtakenBefore, () -> "no copy overtook the straggler");
        }
        settle();
        awaitUsedMib("after run " + run, idleMib, TOLERANCE_MIB);
    }

    private void disturb(Disturbance disturbance, String group, boolean interrupt, Random random) {
        switch (disturbance) {
            case EXECUTOR_KILLED -> {
                List<ProcessHandle> executors = cluster.executors();
                assertEquals(EXECUTORS, executors.size());
                assertTrue(executors.get(random.nextInt(EXECUTORS)).destroyForcibly());
                ended++;
            }
            case TASK_KILLED -> {
                List<Long> tasks = List.copyOf(running);
                long task = tasks.get(random.nextInt(tasks.size()));
                spark.sparkContext().killTaskAttempt(task, interrupt, "by the test");
            }
            case JOB_CANCELLED -> spark.sparkContext().cancelJobGroup(group);
            case STRAGGLER -> {
                // Its copy on the other executor overtakes it.
            }
        }
    }

    @Test
    void aLostDeviceEndsTheExecutorWithItsOwnCode() throws Exception {
        Path marker = temp.resolve("lost");
        Dataset<Row> generated = rows(-1);
        write("lost-device", generated.map(new LoseDevice(marker.toString()), generated.encoder()));
        assertSameRows("lost-device");
        assertTrue(marker.toFile().exists(), "no device was lost");
        ended++;
        await(() -> removed.values().stream().anyMatch(reason -> reason.contains("code 120")), removed::toString);
        settle();
        awaitUsedMib("after the device was lost", idleMib, TOLERANCE_MIB);
    }

    /** Tells the plugin at a row in the middle, once, what an engine does whose device is lost. */
    private record LoseDevice(String marker) implements MapFunction<Row, Row> {
        private static final int MLA_DEVICE_ERROR = 6;

        @Override
        public Row call(Row row) throws Exception {
            if (row.<Long>getAs("id") == ROWS / 2 && new File(marker).createNewFile()) {
                ClassLoader plugin = Thread.currentThread().getContextClassLoader();
                var error = Class.forName("io.github.sparkmla.tensor.NativeException", true, plugin)
                        .getDeclaredConstructor(int.class, String.class);
                error.setAccessible(true);
                var exit = Class.forName("io.github.sparkmla.spark.FatalDevice", true, plugin)
                        .getDeclaredMethod("exitIfLost", Throwable.class);
                exit.setAccessible(true);
                exit.invoke(null, error.newInstance(MLA_DEVICE_ERROR, "an illegal address, by the test"));
            }
            return row;
        }
    }
}
