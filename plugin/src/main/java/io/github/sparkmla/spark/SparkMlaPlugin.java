package io.github.sparkmla.spark;

import io.github.sparkmla.engine.GpuProbe;
import java.util.Map;
import org.apache.spark.SparkContext;
import org.apache.spark.api.plugin.DriverPlugin;
import org.apache.spark.api.plugin.ExecutorPlugin;
import org.apache.spark.api.plugin.PluginContext;
import org.apache.spark.api.plugin.SparkPlugin;
import org.apache.spark.resource.ResourceInformation;
import org.slf4j.Logger;
import org.slf4j.LoggerFactory;

/**
 * Ties the engines of an executor to its life ({@code spark.plugins=io.github.sparkmla.spark.SparkMlaPlugin}): checks
 * the configuration and the executor's GPU before anything starts, closes the engines when the executor ends.
 * Models load at first use. Without the plugin all works the same, but the engines end with the JVM.
 */
public final class SparkMlaPlugin implements SparkPlugin {
    private static final Logger log = LoggerFactory.getLogger(SparkMlaPlugin.class);

    /** What Spark gave to this executor, its GPU for one; null where the plugin is not configured. */
    private static volatile Map<String, ResourceInformation> executorResources;

    @Override
    public DriverPlugin driverPlugin() {
        return new Driver();
    }

    @Override
    public ExecutorPlugin executorPlugin() {
        return new Executor();
    }

    /** Whether the engines of this JVM end with its executor. */
    static boolean isConfigured() {
        return executorResources != null;
    }

    /** The GPU of a task: its own, else the executor's, else 0. */
    static int gpuOrdinal(Map<String, ResourceInformation> taskResources) {
        Map<String, ResourceInformation> executor = executorResources;
        int gpu = GpuPinning.ordinal(taskResources, "a task");
        if (gpu < 0 && executor != null) {
            gpu = GpuPinning.ordinal(executor, "the executor");
        }
        return Math.max(gpu, 0);
    }

    private static final class Driver implements DriverPlugin {
        @Override
        public Map<String, String> init(SparkContext context, PluginContext pluginContext) {
            Map<String, String> entries = SparkSettings.of(pluginContext.conf());
            MlaConf conf = MlaConf.of(entries); // throws for what is wrong, as the others do
            new RapidsSettings(entries).checkOrder();
            if (!context.isLocal()) {
                GpuPinning.checkSettings(conf, entries);
            }
            return Map.of();
        }
    }

    private static final class Executor implements ExecutorPlugin {
        @Override
        public void init(PluginContext context, Map<String, String> extraConf) {
            Map<String, String> entries = SparkSettings.of(context.conf());
            boolean local = context.executorID().equals(SparkSettings.DRIVER);
            int gpu = GpuPinning.ordinal(context.resources(), "the executor");
            boolean rapids = new RapidsSettings(entries).isPlugin();
            GpuPinning.checkExecutor(MlaConf.of(entries), gpu, local, rapids, GpuProbe::of, GpuPinning.ROOM_PATIENCE);
            executorResources = Map.copyOf(context.resources());
            log.info(
                    "Spark MLA is ready on executor {}; a model loads when a task first needs it",
                    context.executorID());
        }

        @Override
        public void shutdown() {
            Engines.ofThisJvm().closeAll();
            executorResources = null;
        }
    }
}
