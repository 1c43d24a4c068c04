package io.github.sparkmla.examples;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertTrue;

import io.github.sparkmla.spark.MlaGenerator;
import java.io.File;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.List;
import org.apache.spark.api.java.function.MapFunction;
import org.apache.spark.sql.Dataset;
import org.apache.spark.sql.Encoders;
import org.apache.spark.sql.Row;
import org.apache.spark.sql.SparkSession;
import org.apache.spark.util.CollectionAccumulator;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.Timeout;
import org.junit.jupiter.api.io.TempDir;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.ValueSource;

/** Local sessions and clusters of executors in JVMs of their own, which get the plugin as {@code --jars} does. */
@Timeout(1200)
class ClusterIT {
    /** Prompts of the streaming test; {@code -Dstreaming.rows} makes it shorter. */
    private static final int ROWS = Integer.getInteger("streaming.rows", 100_000);

    private static final int PARTITIONS = 4;

    /** A row carries this much that has nothing to do with generation: were rows kept, the heap would show it. */
    private static final int PAYLOAD_BYTES = 4_000;

    static final String CLUSTER = "local-cluster[2,1,1024]";

    static SparkSession session(String master) {
        return builder(master).getOrCreate();
    }

    static SparkSession.Builder builder(String master) {
        String nativeMemory = "-Dorg.bytedeco.javacpp.maxbytes=0 -Dorg.bytedeco.javacpp.maxphysicalbytes=0";
        return SparkSession.builder()
                .master(master)
                .appName("test")
                .config("spark.jars", Repository.PLUGIN_JAR.toString())
                .config("spark.executor.extraClassPath", classes())
                .config("spark.executor.extraJavaOptions", nativeMemory)
                .config("spark.plugins", "io.github.sparkmla.spark.SparkMlaPlugin")
                .config("spark.mla.device", "cpu")
                .config("spark.mla.kv.memory", "64m")
                .config("spark.ui.enabled", "false")
                .config("spark.driver.host", "127.0.0.1")
                .config("spark.driver.bindAddress", "127.0.0.1")
                .config("spark.sql.shuffle.partitions", "2");
    }

    /** Where these tests are, for the executors. */
    private static String classes() {
        return new File(ClusterIT.class
                        .getProtectionDomain()
                        .getCodeSource()
                        .getLocation()
                        .getPath())
                .getAbsolutePath();
    }

    static MlaGenerator generator() {
        return new MlaGenerator().setModel(Repository.TINY_V2_LITE.toString()).setInputCol("prompt");
    }

    @ParameterizedTest
    @ValueSource(strings = {"local[2]", CLUSTER})
    void everyRowComesOnceAndTheHeapStaysFlat(String master) throws Exception {
        try (SparkSession spark = session(master)) {
            Dataset<Row> prompts = spark.range(0, ROWS, 1, PARTITIONS)
                    .selectExpr(
                            "id",
                            "concat('King ', id % 97) AS prompt",
                            "concat(id, repeat('x', " + PAYLOAD_BYTES + ")) AS payload");
            CollectionAccumulator<Long> growth = spark.sparkContext().collectionAccumulator("heap growth");
            int every = ROWS / PARTITIONS / 5;
            Dataset<Long> ids = generator()
                    .setMaxTokens(1)
                    .transform(prompts)
                    .mapPartitions(new HeapProbe(every, growth), Encoders.LONG());
            Dataset<Row> perId = ids.groupBy("value").count().cache();
            assertEquals(ROWS, perId.count());
            assertEquals(
                    0,
                    perId.where("count <> 1 OR value < 0 OR value >= " + ROWS).count());
            assertEquals(PARTITIONS, growth.value().size());
            long kept = (long) (ROWS / PARTITIONS - 2 * every) * PAYLOAD_BYTES;
            System.out.printf("%s: heap growth %s bytes; rows kept would be %d%n", master, growth.value(), kept);
            growth.value().forEach(bytes -> assertTrue(bytes < kept / 2, "the heap grew by " + bytes + " bytes"));
        }
    }

    @TempDir
    private Path temp;

    @Test
    void aLostExecutorLosesAndChangesNoRow() throws Exception {
        try (SparkSession spark = session(CLUSTER)) {
            Dataset<Row> prompts = spark.range(0, 60, 1, 4).selectExpr("id", "concat('Queen ', id, ':') AS prompt");
            Dataset<Row> generated =
                    generator().setMaxTokens(8).setTemperature(1).setSeed(5).transform(prompts);
            List<Row> undisturbed = generated.collectAsList();
            Path marker = temp.resolve("died");
            List<Row> disturbed = generated
                    .map(new DieOnce(marker.toString()), generated.encoder())
                    .collectAsList();
            assertTrue(Files.exists(marker), "no executor died");
            assertEquals(60, disturbed.size());
            assertEquals(undisturbed, disturbed);
        }
    }

    /** Ends the executor's JVM at a row in the middle of a partition, the first time that it comes. */
    private record DieOnce(String marker) implements MapFunction<Row, Row> {
        @Override
        public Row call(Row row) throws Exception {
            if (row.<Long>getAs("id") == 20 && new File(marker).createNewFile()) {
                Runtime.getRuntime().halt(1);
            }
            return row;
        }
    }
}
