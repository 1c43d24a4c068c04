package io.github.sparkmla.spark;

import io.github.sparkmla.checkpoint.Checkpoint;
import io.github.sparkmla.engine.GpuMemory;
import io.github.sparkmla.engine.GpuProbe;
import java.time.Duration;
import java.util.List;
import java.util.Map;
import java.util.function.IntFunction;
import org.apache.spark.resource.ResourceInformation;
import org.slf4j.Logger;
import org.slf4j.LoggerFactory;

/**
 * Which GPU an executor works on: the one that Spark gave to it. Everything that can be wrong with it is refused before
 * there is work to lose: on the driver where the settings show it, else when the executor starts, which ends it.
 */
final class GpuPinning {
    private static final Logger log = LoggerFactory.getLogger(GpuPinning.class);

    static final String RESOURCE = "gpu";
    private static final String AMOUNT = "spark.executor.resource.gpu.amount";
    private static final String SCRIPT = "spark.executor.resource.gpu.discoveryScript (conf/getGpusResources.sh)";

    /** What an engine needs beside weights and KV cache, at the least. */
    private static final long LEAST_FREE = 1L << 30;

    /** How long an executor waits for the memory of one that was killed: the driver takes it back in a second or two. */
    static final Duration ROOM_PATIENCE = Duration.ofSeconds(20);

    private static final long LOOK_AGAIN_MILLIS = 500;

    private GpuPinning() {}

    /** The GPU's ordinal among those that were given, or -1 where there is none; throws where there are several. */
    static int ordinal(Map<String, ResourceInformation> resources, String whose) {
        ResourceInformation gpu = resources.get(RESOURCE);
        if (gpu == null || gpu.addresses().length == 0) {
            return -1;
        }
        if (gpu.addresses().length > 1) {
            throw new IllegalArgumentException(
                    "%s has the GPUs %s, but an engine works on one: set %s=1 and run an"
                                    .formatted(whose, String.join(", ", gpu.addresses()), AMOUNT)
                            + " executor for each GPU, with spark.task.resource.gpu.amount a fraction so that its tasks share it");
        }
        try {
            return Integer.parseInt(gpu.addresses()[0]);
        } catch (NumberFormatException e) {
            throw new IllegalArgumentException(
                    "%s has the GPU '%s', but must have the number that CUDA gives it: use %s"
                            .formatted(whose, gpu.addresses()[0], SCRIPT));
        }
    }

    /** Refuses, on the driver of a cluster, settings that would give executors no GPU or several. */
    static void checkSettings(MlaConf conf, Map<String, String> entries) {
        String amount = entries.getOrDefault(AMOUNT, "0");
        if (conf.device().equals("cuda") && amount.equals("0")) {
            throw new IllegalArgumentException(("spark.mla.device is cuda, but executors ask Spark for no GPU: set %s=1"
                            + " and %s, or spark.mla.device=cpu")
                    .formatted(AMOUNT, SCRIPT));
        }
        if (!conf.device().equals("cpu") && !List.of("0", "1").contains(amount)) {
            throw new IllegalArgumentException(
                    "%s is %s, but an engine works on one GPU: set it to 1 and run an executor for each GPU"
                            .formatted(AMOUNT, amount));
        }
    }

    /** Refuses, on the driver, a transformation for which there would be no GPU, or no room beside RAPIDS. */
    static void checkTransform(MlaConf conf, Map<String, String> entries, boolean local, Checkpoint checkpoint) {
        if (!local) {
            checkSettings(conf, entries);
        } else if (conf.device().equals("cuda")) {
            open(conf, SparkMlaPlugin.gpuOrdinal(Map.of()), GpuProbe::of);
        }
        if (!conf.device().equals("cpu")) { // where RAPIDS is, there is a GPU
            new RapidsSettings(entries)
                    .checkReserve(
                            GpuMemory.of(checkpoint, conf.engineSettings(0)),
                            checkpoint.folder().toString());
        }
    }

    /**
     * Looks at the executor's GPU as an engine would, when the executor starts.
     *
     * @param gpu its ordinal, or -1 where Spark gave none
     * @param local whether the driver is the executor: nobody gives it resources, and cuda means the first GPU
     * @param rapids whether the RAPIDS Accelerator has taken its part of the card: then {@link #checkTransform}, which
     *     knows the model, says how much it should have left
     * @param patience how long to wait for room: where this executor replaces one that was killed, the memory of that one
     *     may not have come back yet
     */
    static void checkExecutor(
            MlaConf conf, int gpu, boolean local, boolean rapids, IntFunction<GpuProbe> probe, Duration patience) {
        boolean explicit = conf.device().equals("cuda");
        if (conf.device().equals("cpu") || (gpu < 0 && !explicit)) {
            return;
        }
        if (gpu < 0 && !local) {
            throw new IllegalArgumentException(
                    "spark.mla.device is cuda, but Spark gave this executor no GPU: set %s=1 and %s"
                            .formatted(AMOUNT, SCRIPT));
        }
        try {
            awaitRoom(conf, Math.max(gpu, 0), rapids, probe, patience);
        } catch (IllegalArgumentException e) {
            if (explicit) {
                throw e;
            }
            log.warn("Spark gave this executor a GPU that it may not be able to use", e);
        }
    }

    private static GpuProbe open(MlaConf conf, int ordinal, IntFunction<GpuProbe> probe) {
        try {
            return probe.apply(ordinal);
        } catch (RuntimeException e) {
            throw new IllegalArgumentException(
                    ("spark.mla.device is %s, but GPU %d cannot be used: %s. Give executors Hopper GPUs with a driver for"
                                    + " CUDA 12 or later (conf/getGpusResources.sh lists them), or set"
                                    + " spark.mla.device=cpu")
                            .formatted(conf.device(), ordinal, e.getMessage()),
                    e);
        }
    }

    private static void awaitRoom(
            MlaConf conf, int ordinal, boolean rapids, IntFunction<GpuProbe> probe, Duration patience) {
        long needed = LEAST_FREE + conf.engineSettings(ordinal).kvBytes();
        long end = System.nanoTime() + patience.toNanos();
        GpuProbe found = open(conf, ordinal, probe);
        while (!rapids && found.freeBytes() < needed && System.nanoTime() < end) {
            log.warn("GPU {} has {} MiB free, {} are needed: looking again", ordinal, mib(found), needed >> 20);
            sleep();
            found = open(conf, ordinal, probe);
        }
        log.info("GPU {} ({}) has {} MiB free", ordinal, found.name(), mib(found));
        if (!rapids && found.freeBytes() < needed) {
            throw new IllegalArgumentException(
                    ("GPU %d (%s) has %d MiB free, and an engine needs more than %d even without a model's weights: end"
                                    + " what else runs on it, or lower spark.mla.kv.memory")
                            .formatted(ordinal, found.name(), mib(found), needed >> 20));
        }
    }

    private static long mib(GpuProbe found) {
        return found.freeBytes() >> 20;
    }

    private static void sleep() {
        try {
            Thread.sleep(LOOK_AGAIN_MILLIS);
        } catch (InterruptedException e) {
            Thread.currentThread().interrupt();
            throw new IllegalStateException("interrupted while waiting for room on the GPU", e);
        }
    }

    /** What to say of a model that found no room on the GPU. */
    static String noRoom(GpuMemory needs) {
        return ("it does not fit into what is free on the GPU. It takes about %s. Lower spark.mla.kv.memory,"
                        + " spark.mla.batch.maxSequences or spark.mla.batch.maxTokens; with the RAPIDS Accelerator in the"
                        + " executor set spark.rapids.memory.gpu.reserve=%d (its pool has taken what it was not told to"
                        + " leave)")
                .formatted(needs, needs.total());
    }
}
