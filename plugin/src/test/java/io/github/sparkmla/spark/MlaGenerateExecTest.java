package io.github.sparkmla.spark;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertTrue;

import io.github.sparkmla.Golden;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.Iterator;
import java.util.List;
import org.apache.spark.rdd.RDD;
import org.apache.spark.sql.Dataset;
import org.apache.spark.sql.Row;
import org.apache.spark.sql.SparkSession;
import org.apache.spark.sql.catalyst.CatalystTypeConverters;
import org.apache.spark.sql.catalyst.InternalRow;
import org.apache.spark.sql.catalyst.expressions.Attribute;
import org.apache.spark.sql.execution.SparkPlan;
import org.apache.spark.sql.types.StructType;
import org.apache.spark.sql.vectorized.ColumnarBatch;
import org.junit.jupiter.api.AfterAll;
import org.junit.jupiter.api.BeforeAll;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.Timeout;
import org.junit.jupiter.api.io.TempDir;
import scala.jdk.javaapi.CollectionConverters;

/** How the operator is planned, and its columnar form. */
@Timeout(300)
class MlaGenerateExecTest {
    private static SparkSession spark;

    @TempDir
    private static Path temp;

    @BeforeAll
    static void start() {
        spark = TestSpark.local("local[2]")
                .config("spark.sql.adaptive.enabled", "false")
                // Many batches in and out, and rows of several in flight.
                .config("spark.sql.parquet.columnarReaderBatchSize", "5")
                .config("spark.sql.inMemoryColumnarStorage.batchSize", "7")
                .getOrCreate();
        spark.range(0, 60, 1, 2)
                .selectExpr(
                        "id",
                        "if(id % 7 = 3, null, concat('King ', id, ':')) AS prompt",
                        "array(id, null, id + 1) AS list",
                        "named_struct('a', id, 'b', date '2026-01-01') AS nested",
                        "cast(id AS decimal(30, 3)) AS amount",
                        "map('k', timestamp '2026-01-01 00:00:00') AS map",
                        "array(named_struct('role', 'user', 'content', concat('Speak, ', id))) AS chat")
                .write()
                .parquet(temp.resolve("in").toString());
    }

    @AfterAll
    static void stop() {
        spark.stop();
    }

    private static Dataset<Row> input(SparkSession session) {
        return session.read().parquet(temp.resolve("in").toString());
    }

    private static MlaGenerator generator() {
        return TestSpark.generator(Golden.TINY_V2_LITE).setMaxTokens(3);
    }

    private static MlaGenerateExec find(SparkPlan plan) {
        if (plan instanceof MlaGenerateExec found) {
            return found;
        }
        return CollectionConverters.asJava(plan.children()).stream()
                .map(MlaGenerateExecTest::find)
                .filter(found -> found != null)
                .findFirst()
                .orElse(null);
    }

    private static SparkPlan executed(Dataset<Row> dataset) {
        return ((org.apache.spark.sql.classic.Dataset<Row>) dataset)
                .queryExecution()
                .executedPlan();
    }

    private static List<String> output(Dataset<Row> dataset) {
        return CollectionConverters.asJava(find(executed(dataset)).output()).stream()
                .map(Attribute::name)
                .toList();
    }

    @Test
    void columnsInAndOutGiveTheRowsThatRowsDo() {
        Dataset<Row> generated = generator()
                .setLogprobs(2)
                .setTemperature(1)
                .setSeed(4)
                .setKeyCol("id")
                .transform(input(spark));
        assertColumnsAsRows(generated);
    }

    @Test
    void conversationsInColumnsToo() {
        assertColumnsAsRows(TestSpark.generator(Golden.TINY_V3)
                .setMaxTokens(2)
                .setInputCol("chat")
                .transform(input(spark)));
    }

    private static void assertColumnsAsRows(Dataset<Row> generated) {
        SparkPlan plan = ((org.apache.spark.sql.classic.Dataset<Row>) generated)
                .queryExecution()
                .sparkPlan(); // before Spark chose rows, which it does where nobody wants columns
        MlaGenerateExec operator = find(plan);
        assertTrue(operator.supportsColumnar());
        StructType type = operator.schema();
        RDD<ColumnarBatch> batches = operator.executeColumnar();
        List<Row> columns =
                batches.toJavaRDD().flatMap(batch -> rows(batch, type)).collect();
        List<Row> rows = generated.collectAsList();
        assertEquals(60, rows.size());
        assertEquals(rows.stream().map(MlaGenerateExecTest::flat).toList(), columns);
    }

    private static Iterator<Row> rows(ColumnarBatch batch, StructType type) {
        assertTrue(batch.numRows() <= 7);
        List<Row> rows = new ArrayList<>();
        Iterator<InternalRow> iterator = batch.rowIterator();
        while (iterator.hasNext()) {
            rows.add((Row) CatalystTypeConverters.createToScalaConverter(type).apply(iterator.next()));
        }
        return rows.iterator();
    }

    /** The input's columns, then the fields of the result. */
    private static Row flat(Row row) {
        List<Object> values = new ArrayList<>(CollectionConverters.asJava(row.toSeq()));
        Row result = (Row) values.remove(values.size() - 1);
        values.addAll(CollectionConverters.asJava(result.toSeq()));
        return Row.fromSeq(ScalaSeq.of(values));
    }

    @Test
    void onlyColumnsThatSomebodyReadsAreReturned() {
        Dataset<Row> generated = generator().transform(input(spark));
        assertEquals(List.of("id", "text"), output(generated.select("generated.text", "id")));
        assertEquals(List.of("completion_tokens"), output(generated.selectExpr("sum(generated.completion_tokens)")));
        assertEquals(
                List.of("text", "error"),
                output(generated.where("generated.error IS NULL").select("generated.text")));
        assertEquals(List.of(), output(generated.groupBy().count()));
        assertEquals(60, generated.groupBy().count().first().getLong(0));
        assertEquals(7 + 8, output(generated).size());
    }

    @Test
    void orderAndPartitioningOfTheInputAreKnownToBeKept() {
        Dataset<Row> sorted = input(spark).repartition(3, new org.apache.spark.sql.Column("id"));
        Dataset<Row> generated = generator().transform(sorted.sortWithinPartitions("id"));
        String plan = executed(generated.groupBy("id").count()).toString();
        assertEquals(1, plan.split("Exchange ", -1).length - 1, plan);
    }

    @Test
    void aGeneratedTableJoinsWithItself() {
        Dataset<Row> generated =
                generator().transform(input(spark).where("id < 10")).select("id", "generated");
        Dataset<Row> joined = generated.as("a").join(generated.as("b"), "id").where("a.generated = b.generated");
        assertEquals(10, joined.count());
        assertEquals(20, generated.union(generated).count());
    }

    @Test
    void everySessionCanPlanIt() {
        generator().transform(input(spark)).createOrReplaceGlobalTempView("generated");
        SparkSession other = spark.newSession();
        assertEquals(
                60,
                other.table("global_temp.generated")
                        .where("generated.prompt_tokens >= 0")
                        .count());
        assertEquals(60, generator().transform(input(other)).count());
    }

    @Test
    void theUiShowsWhatWasDone() {
        Dataset<Row> generated = generator().setIgnoreEos(true).transform(input(spark));
        List<Row> rows = generated.collectAsList();
        var metrics = find(executed(generated)).metrics();
        long errors = rows.stream()
                .map(row -> row.<Row>getAs("generated"))
                .filter(result -> result.<String>getAs("finish_reason").equals("error"))
                .count();
        assertEquals(9, errors, "the prompts that are null");
        assertEquals(60, metrics.apply("numOutputRows").value());
        assertEquals(errors, metrics.apply("numErrors").value());
        assertEquals(3 * (60 - errors), metrics.apply("outputTokens").value());
        long promptTokens = rows.stream()
                .mapToLong(row -> row.<Row>getAs("generated").<Integer>getAs("prompt_tokens"))
                .sum();
        assertEquals(promptTokens, metrics.apply("promptTokens").value());
        assertTrue((Long) metrics.apply("waitTime").value() > 0);
        for (String name : List.of("tokensPerSecond", "kvPeak", "preemptions", "loadTime")) {
            assertFalse(metrics.apply(name).name().isEmpty());
        }
    }
}
