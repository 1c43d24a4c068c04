package io.github.sparkmla.examples;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import java.io.File;
import java.nio.file.Path;
import java.util.List;
import java.util.Map;
import java.util.Random;
import java.util.Set;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.ConcurrentHashMap;
import java.util.concurrent.ExecutionException;
import java.util.stream.IntStream;
import org.apache.spark.TaskContext;
import org.apache.spark.api.java.function.MapFunction;
import org.apache.spark.scheduler.SparkListener;
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
 */
@Timeout(300)
@TestInstance(TestInstance.Lifecycle.PER_CLASS)
class ChaosIT {
    private static final int RUNS = Integer.getInteger("chaos.runs", 4);
    private static final int ROWS = 160;
    private static final int PARTITIONS = 8;

    /** What is done to a job. */
    private enum Disturbance {
        EXECUTOR_KILLED,
        TASK_KILLED,
        STRAGGLER,
        JOB_CANCELLED
    }

    @TempDir
    private static Path temp;

    private SparkSession spark;
    private List<Row> undisturbed;
    private final Set<Long> running = ConcurrentHashMap.newKeySet();
    private final Map<String, String> removed = new ConcurrentHashMap<>();

    @BeforeAll
    void start() {
        spark = ClusterIT.builder(ClusterIT.CLUSTER)
                .config("spark.task.maxFailures", "8")
                .config("spark.speculation", "true")
                .config("spark.speculation.interval", "50ms")
                .config("spark.speculation.multiplier", "1.5")
                .config("spark.speculation.quantile", "0.5")
                .getOrCreate();
        spark.sparkContext().addSparkListener(new Watch());
        write("undisturbed", rows(-1));
        undisturbed = read("undisturbed");
        assertEquals(ROWS, undisturbed.size());
    }

    @AfterAll
    void stop() {
        spark.stop();
    }

    /** Knows which tasks run, and why executors went. */
    private final class Watch extends SparkListener {
        @Override
        public void onTaskStart(SparkListenerTaskStart start) {
            running.add(start.taskInfo().taskId());
        }

        @Override
        public void onTaskEnd(SparkListenerTaskEnd end) {
            running.remove(end.taskInfo().taskId());
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
        return ClusterIT.generator()
                .setMaxTokens(24)
                .setTemperature(1)
                .setSeed(11)
                .setLogprobs(1)
                .transform(prompts.map(new Crawl(slowPartition), encoder));
    }

    private record Crawl(int partition) implements MapFunction<Row, Row> {
        @Override
        public Row call(Row row) throws InterruptedException {
            TaskContext task = TaskContext.get();
            if (task.partitionId() == partition && task.attemptNumber() == 0) {
                Thread.sleep(250);
            }
            return row;
        }
    }

    /** Says by a file that a row in the middle is done, the first time, and then gives the disturbance time to come. */
    private record Halfway(String marker, long id) implements MapFunction<Row, Row> {
        @Override
        public Row call(Row row) throws Exception {
            if (row.<Long>getAs("id") == id && new File(marker).createNewFile()) {
                Thread.sleep(2000);
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
        Path marker = temp.resolve("halfway-" + run);
        int slow = disturbance == Disturbance.STRAGGLER ? random.nextInt(PARTITIONS) : -1;
        CompletableFuture<Void> job = CompletableFuture.runAsync(() -> {
            spark.sparkContext().setJobGroup(group, group, interrupt);
            Dataset<Row> generated = rows(slow);
            write("disturbed", generated.map(new Halfway(marker.toString(), row), generated.encoder()));
        });
        while (!marker.toFile().exists() && !job.isDone()) {
            Thread.sleep(10);
        }
        assertFalse(job.isDone(), "the job ended before row " + row);
        Thread.sleep(delay);
        disturb(disturbance, group, interrupt, random);
        if (disturbance == Disturbance.JOB_CANCELLED) {
            assertThrows(ExecutionException.class, job::get, "the job was to be cancelled");
            write("disturbed", rows(-1));
        } else {
            job.get();
        }
        assertEquals(undisturbed, read("disturbed"));
    }

    private void disturb(Disturbance disturbance, String group, boolean interrupt, Random random) {
        switch (disturbance) {
            case EXECUTOR_KILLED -> {
                List<ProcessHandle> executors = executors();
                assertTrue(executors.get(random.nextInt(executors.size())).destroyForcibly());
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

    private static List<ProcessHandle> executors() {
        return ProcessHandle.current()
                .descendants()
                .filter(process -> process.info().commandLine().orElse("").contains("CoarseGrainedExecutorBackend"))
                .toList();
    }

    @Test
    void aLostDeviceEndsTheExecutorWithItsOwnCode() throws Exception {
        Path marker = temp.resolve("lost");
        Dataset<Row> generated = rows(-1);
        write("lost-device", generated.map(new LoseDevice(marker.toString()), generated.encoder()));
        assertEquals(undisturbed, read("lost-device"));
        assertTrue(marker.toFile().exists(), "no device was lost");
        for (int i = 0; i < 100 && removed.values().stream().noneMatch(reason -> reason.contains("120")); i++) {
            Thread.sleep(100);
        }
        assertTrue(removed.values().stream().anyMatch(reason -> reason.contains("code 120")), removed::toString);
        assertFalse(removed.isEmpty());
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
