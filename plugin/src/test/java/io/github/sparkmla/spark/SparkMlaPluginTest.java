package io.github.sparkmla.spark;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import io.github.sparkmla.Golden;
import java.util.List;
import java.util.Map;
import java.util.concurrent.atomic.AtomicInteger;
import org.apache.spark.SparkException;
import org.apache.spark.TaskContext;
import org.apache.spark.api.java.function.MapFunction;
import org.apache.spark.resource.ResourceInformation;
import org.apache.spark.sql.Dataset;
import org.apache.spark.sql.Row;
import org.apache.spark.sql.SparkSession;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.Timeout;

/** The life of the engines, with the executor and across failed tasks. */
@Timeout(300)
class SparkMlaPluginTest {
    @Test
    void aBadConfigurationStopsTheSessionFromStarting() {
        SparkSession.Builder builder = TestSpark.local("local[1]").config("spark.mla.batch.maxSequences", "none");
        Exception e = assertThrows(Exception.class, builder::getOrCreate);
        assertEquals(
                "spark.mla.batch.maxSequences is 'none', but must be a whole number, 0 to 65536 (default 0)",
                e.getMessage());
    }

    @Test
    void enginesEndWithTheExecutor() {
        SparkSession spark = TestSpark.local("local[1]").getOrCreate();
        assertTrue(SparkMlaPlugin.isConfigured());
        TestSpark.generator(Golden.TINY_V2_LITE)
                .setMaxTokens(2)
                .transform(TestSpark.prompts(spark, List.of("a")))
                .collectAsList();
        assertEquals(1, Engines.ofThisJvm().size());
        spark.stop();
        assertEquals(0, Engines.ofThisJvm().size());
        assertFalse(SparkMlaPlugin.isConfigured());
    }

    @Test
    void allWorksWithoutThePlugin() {
        SparkSession spark =
                TestSpark.local("local[1]").config("spark.plugins", "").getOrCreate();
        try {
            assertFalse(SparkMlaPlugin.isConfigured());
            Row row = TestSpark.generator(Golden.TINY_V2_LITE)
                    .setMaxTokens(2)
                    .transform(TestSpark.prompts(spark, List.of("a")))
                    .first();
            assertEquals(2, row.getStruct(2).getInt(4));
        } finally {
            spark.stop();
            Engines.ofThisJvm().closeAll();
        }
    }

    @Test
    void aRetriedTaskReturnsTheSameRows() {
        SparkSession spark = TestSpark.local("local[2, 3]").getOrCreate(); // three attempts a task
        try {
            Dataset<Row> input = TestSpark.prompts(spark, TestSpark.goldenPrompts(Golden.TINY_V3))
                    .repartition(2);
            Dataset<Row> generated = TestSpark.generator(Golden.TINY_V3)
                    .setMaxTokens(8)
                    .setTemperature(1)
                    .setSeed(3)
                    .transform(input);
            List<Row> undisturbed = generated.collectAsList();
            FAILURES.set(0);
            List<Row> retried = generated
                    .map((MapFunction<Row, Row>) SparkMlaPluginTest::failOnce, generated.encoder())
                    .collectAsList();
            assertEquals(2, FAILURES.get(), "both tasks should have failed once");
            assertEquals(undisturbed, retried);
        } finally {
            spark.stop();
        }
    }

    private static final AtomicInteger FAILURES = new AtomicInteger();

    /** Fails the first attempt of every task at a row that is not its first. */
    private static Row failOnce(Row row) throws SparkException {
        boolean first = TaskContext.get().attemptNumber() == 0;
        if (first && row.getInt(0) >= 8) {
            FAILURES.incrementAndGet();
            throw new SparkException("by the test");
        }
        return row;
    }

    @Test
    void theGpuIsTheTasksElseTheExecutors() {
        assertEquals(0, SparkMlaPlugin.gpuOrdinal(Map.of()));
        ResourceInformation gpu = new ResourceInformation("gpu", new String[] {"3"});
        assertEquals(3, SparkMlaPlugin.gpuOrdinal(Map.of("gpu", gpu)));
    }
}
