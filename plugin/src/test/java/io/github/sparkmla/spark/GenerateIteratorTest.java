package io.github.sparkmla.spark;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertNotSame;
import static org.junit.jupiter.api.Assertions.assertNull;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import io.github.sparkmla.engine.EngineSettings;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;
import java.util.Map;
import java.util.concurrent.CancellationException;
import java.util.stream.IntStream;
import java.util.stream.Stream;
import org.apache.spark.TaskKilledException;
import org.apache.spark.sql.Row;
import org.apache.spark.sql.catalyst.CatalystTypeConverters;
import org.apache.spark.sql.catalyst.InternalRow;
import org.apache.spark.sql.catalyst.expressions.Attribute;
import org.apache.spark.sql.catalyst.expressions.AttributeReference;
import org.apache.spark.sql.catalyst.expressions.ExprId;
import org.apache.spark.sql.catalyst.expressions.GenericInternalRow;
import org.apache.spark.sql.catalyst.expressions.NamedExpression$;
import org.apache.spark.sql.execution.metric.SQLMetric;
import org.apache.spark.sql.types.DataType;
import org.apache.spark.sql.types.DataTypes;
import org.apache.spark.sql.types.Metadata;
import org.apache.spark.sql.types.StructField;
import org.apache.spark.sql.types.StructType;
import org.apache.spark.unsafe.types.UTF8String;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.Timeout;
import scala.jdk.javaapi.CollectionConverters;

/** The operator over a model whose completions come in the order that the test wants. */
@Timeout(60)
class GenerateIteratorTest {
    private static final Engines.Key KEY = new Engines.Key(Path.of("m"), EngineSettings.defaults());
    private static final int WINDOW = 4;
    private static final Attribute ID = column("id", DataTypes.IntegerType);
    private static final Attribute PROMPT = column("prompt", DataTypes.StringType);
    private static final InputColumns COLUMNS = new InputColumns(PROMPT, ScalaSeq.of(), ScalaSeq.of(ID, PROMPT));

    private static Attribute column(String name, DataType type) {
        ExprId id = NamedExpression$.MODULE$.newExprId();
        return new AttributeReference(name, type, true, Metadata.empty(), id, ScalaSeq.of());
    }

    private final Engines engines = new Engines(key -> new FakeModel());
    private final Engines.Lease lease = engines.lease(KEY).await(() -> {});
    private final FakeModel model = (FakeModel) lease.model();
    private volatile boolean killed;

    private GenerateIterator generate(boolean failOnError, String... prompts) {
        return generate(MlaConf.of(Map.of("spark.mla.task.window", "" + WINDOW)), failOnError, prompts);
    }

    private GenerateIterator generate(MlaConf conf, boolean failOnError, String... prompts) {
        GenerateSpec.Decoding greedy = new GenerateSpec.Decoding(8, 0, 0, 1, 0, -1, false);
        GenerateSpec spec = new GenerateSpec("m", conf, null, greedy, failOnError);
        List<InternalRow> rows = new ArrayList<>();
        for (String prompt : prompts) {
            rows.add(new GenericInternalRow(new Object[] {rows.size(), UTF8String.fromString(prompt)}));
        }
        TaskProgress progress =
                new TaskProgress("test", new GenerateMetrics(metric -> new SQLMetric("average", 0)), System::nanoTime);
        Runnable checkKilled = () -> {
            if (killed) {
                throw new TaskKilledException("by the test");
            }
        };
        return new GenerateIterator(rows.iterator(), spec, COLUMNS, lease, checkKilled, progress, "partition 3");
    }

    /** The next row: id, prompt, and the fields of the result. */
    private static Row next(GenerateIterator rows) {
        StructType type = new StructType().add("id", DataTypes.IntegerType).add("prompt", DataTypes.StringType);
        StructType joined = new StructType(Stream.of(type, ResultColumn.TYPE)
                .flatMap(t -> Arrays.stream(t.fields()))
                .toArray(StructField[]::new));
        return (Row) CatalystTypeConverters.createToScalaConverter(joined).apply(rows.next());
    }

    private static String[] prompts(int count) {
        return IntStream.range(0, count).mapToObj(i -> "prompt " + i).toArray(String[]::new);
    }

    @Test
    void rowsKeepTheirOrderAndColumnsHoweverTheyEnd() {
        GenerateIterator rows = generate(false, prompts(4));
        assertTrue(rows.hasNext());
        for (int i : new int[] {3, 1, 0, 2}) {
            model.complete(i);
        }
        for (int i = 0; i < 4; i++) {
            Row row = next(rows);
            assertEquals(2 + 8, row.size());
            assertEquals(i, row.getInt(0));
            assertEquals("prompt " + i, row.getString(1));
            assertEquals("prompt " + i, row.getString(2), "the fake model echoes");
            assertEquals("stop", row.getString(4));
            assertNull(row.get(8), "log-probabilities were not asked for");
        }
        assertFalse(rows.hasNext());
    }

    @Test
    void theWindowBoundsWhatIsInFlight() {
        GenerateIterator rows = generate(false, prompts(100));
        for (int i = 0; i < 100; i++) {
            assertTrue(rows.hasNext());
            assertEquals(Math.min(100, i + WINDOW), model.requests.size());
            model.complete(i);
            rows.next();
        }
        assertFalse(rows.hasNext());
    }

    @Test
    void tasksOfAnEngineShareTheWindow() {
        MlaConf conf = MlaConf.of(Map.of()); // 4 times as many rows in flight as the model decodes in one step
        Engines.Lease other = engines.lease(KEY);
        GenerateIterator rows = generate(conf, false, prompts(100));
        assertTrue(rows.hasNext());
        assertEquals(4 * FakeModel.MAX_SEQUENCES / 2, model.requests.size());
        other.close();
        assertTrue(rows.hasNext());
        assertEquals(4 * FakeModel.MAX_SEQUENCES, model.requests.size());
        rows.close();
    }

    @Test
    void badRowsGetAnErrorAndTheRestGoesOn() {
        GenerateIterator rows = generate(false, null, "", "word ".repeat(200), "fine");
        assertTrue(rows.hasNext());
        model.complete(0);
        assertError(next(rows), "prompt is null: nothing to generate from", 0);
        assertError(next(rows), "prompt is empty: it has no token of its own", 1);
        Row tooLong = next(rows);
        assertTrue(
                tooLong.getString(9)
                        .matches(
                                "prompt is too long: \\d+ tokens, but the context holds 64 and at least one is generated"),
                tooLong.getString(9));
        assertTrue(tooLong.getInt(5) >= 64);
        assertEquals("fine", next(rows).getString(2));
    }

    private static void assertError(Row row, String message, int promptTokens) {
        assertEquals(
                Arrays.asList(null, null, "error", promptTokens, 0, 0, null, message),
                CollectionConverters.asJava(row.toSeq()).subList(2, 10));
    }

    @Test
    void failOnErrorFailsTheTaskWithTheRow() {
        GenerateIterator rows = generate(true, "fine", "");
        assertTrue(rows.hasNext());
        model.complete(0);
        rows.next();
        assertEquals(
                "row 1 of partition 3: prompt is empty: it has no token of its own (failOnError is set)",
                assertThrows(IllegalStateException.class, rows::next).getMessage());
    }

    @Test
    void closingCancelsWhatIsInFlight() {
        GenerateIterator rows = generate(false, prompts(10));
        assertTrue(rows.hasNext());
        model.complete(0);
        rows.next();
        rows.close();
        assertFalse(model.completions.get(0).isCancelled());
        assertTrue(model.completions.subList(1, WINDOW).stream().allMatch(c -> c.isCancelled()));
    }

    @Test
    void aKilledTaskStopsWaiting() throws Exception {
        GenerateIterator rows = generate(false, prompts(2));
        assertTrue(rows.hasNext());
        Thread killer = new Thread(() -> killed = true);
        killer.start();
        assertThrows(TaskKilledException.class, rows::next);
        rows.close();
        assertTrue(model.completions.stream().allMatch(c -> c.isCancelled()));
        killer.join();
    }

    @Test
    void anEngineThatDiedFailsTheTaskAndIsReplaced() {
        GenerateIterator rows = generate(false, prompts(2));
        assertTrue(rows.hasNext());
        model.completions.get(0).completeExceptionally(new IllegalStateException("illegal address"));
        assertEquals(
                "the engine of m died: illegal address",
                assertThrows(IllegalStateException.class, rows::next).getMessage());
        rows.close();
        assertTrue(model.closed);
        assertNotSame(model, engines.lease(KEY).await(() -> {}).model());
    }

    @Test
    void anEngineThatIsClosedUnderATaskFailsIt() {
        GenerateIterator rows = generate(false, prompts(2));
        assertTrue(rows.hasNext());
        model.completions.get(0).cancel(false);
        assertThrows(CancellationException.class, rows::next);
    }

    @Test
    void equalPromptsHaveEqualKeysWhereverTheyStand() {
        GenerateIterator rows = generate(false, "same", "other", "same");
        assertTrue(rows.hasNext());
        assertEquals(model.requests.get(0).rowKey(), model.requests.get(2).rowKey());
        assertTrue(model.requests.get(0).rowKey() != model.requests.get(1).rowKey());
    }
}
