package io.github.sparkmla.examples;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;
import static org.junit.jupiter.api.Assumptions.assumeFalse;

import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.nio.file.attribute.PosixFilePermissions;
import java.util.HashMap;
import java.util.HashSet;
import java.util.List;
import java.util.Map;
import java.util.Set;
import org.apache.spark.SparkContext$;
import org.apache.spark.SparkEnv;
import org.apache.spark.TaskContext;
import org.apache.spark.api.java.JavaSparkContext;
import org.apache.spark.sql.SparkSession;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.Timeout;
import org.junit.jupiter.api.io.TempDir;

/** Executors that get GPUs from Spark, through discovery on a worker that pretends to have some. */
@Timeout(300)
class PinningIT {
    @TempDir
    private Path temp;

    /** Two workers of one core with one executor each; every worker lists the GPUs given. */
    private SparkSession.Builder cluster(String addresses) throws IOException {
        Path script = temp.resolve("discover");
        Files.writeString(script, "#!/bin/sh\necho '{\"name\": \"gpu\", \"addresses\": [" + addresses + "]}'\n");
        Files.setPosixFilePermissions(script, PosixFilePermissions.fromString("rwxr-xr-x"));
        return ClusterIT.builder("local-cluster[1,2,2048]")
                .config("spark.executor.cores", "1")
                .config("spark.worker.resource.gpu.discoveryScript", script.toString())
                .config("spark.executor.resource.gpu.amount", "1")
                .config("spark.task.resource.gpu.amount", "1");
    }

    @Test
    void everyExecutorWorksOnAGpuOfItsOwn() throws Exception {
        try (SparkSession spark = cluster("\"4\", \"6\"")
                .config("spark.worker.resource.gpu.amount", "2")
                .config("spark.executor.memory", "1g")
                .config("spark.scheduler.minRegisteredResourcesRatio", "1")
                .getOrCreate()) {
            Map<String, Integer> gpus = new HashMap<>();
            for (int round = 0; round < 30 && gpus.size() < 2; round++) {
                for (String found : JavaSparkContext.fromSparkContext(spark.sparkContext())
                        .parallelize(List.of(1, 2, 3, 4), 4)
                        .map(i -> executorAndGpu())
                        .collect()) {
                    int space = found.indexOf(' ');
                    Integer gpu = Integer.valueOf(found.substring(space + 1));
                    assertEquals(gpu, gpus.getOrDefault(found.substring(0, space), gpu), "an executor never changes");
                    gpus.put(found.substring(0, space), gpu);
                }
            }
            assertEquals(2, gpus.size(), "executors");
            assertEquals(Set.of(4, 6), new HashSet<>(gpus.values()));
        }
    }

    /** What an engine of this task would be started on. */
    private static String executorAndGpu() throws ReflectiveOperationException, InterruptedException {
        Thread.sleep(300); // so that both executors get some
        ClassLoader plugin = Thread.currentThread().getContextClassLoader();
        var ordinal = Class.forName("io.github.sparkmla.spark.SparkMlaPlugin", true, plugin)
                .getDeclaredMethod("gpuOrdinal", Map.class);
        ordinal.setAccessible(true);
        Object gpu = ordinal.invoke(null, TaskContext.get().resourcesJMap());
        return SparkEnv.get().executorId() + " " + gpu;
    }

    @Test
    void anExecutorWhoseGpuCannotBeUsedEndsAndSaysWhy() throws Exception {
        assumeFalse(Files.exists(Path.of("/dev/nvidia0")), "this machine has a GPU");
        String application;
        try (SparkSession spark = cluster("\"0\"")
                .config("spark.worker.resource.gpu.amount", "1")
                .config("spark.executor.memory", "1g")
                .config("spark.mla.device", "cuda")
                .config("spark.deploy.maxExecutorRetries", "1")
                .getOrCreate()) {
            application = spark.sparkContext().applicationId();
            assertThrows(Exception.class, () -> spark.range(10).count());
        }
        awaitStop();
        Path log = Repository.TARGET.resolve("spark/work/" + application + "/0/stderr");
        String said = Files.readString(log);
        assertTrue(said.contains("spark.mla.device is cuda, but GPU 0 cannot be used: "), said);
        assertTrue(said.contains("or set spark.mla.device=cpu"), said);
    }

    /** Spark stops itself, in a thread of its own, when the master gives its application up: close() does not wait for that. */
    private static void awaitStop() throws InterruptedException {
        for (int i = 0; i < 600 && SparkContext$.MODULE$.getActive().isDefined(); i++) {
            Thread.sleep(50);
        }
        assertTrue(SparkContext$.MODULE$.getActive().isEmpty(), "Spark does not stop");
    }
}
