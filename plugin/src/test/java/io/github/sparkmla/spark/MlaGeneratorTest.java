package io.github.sparkmla.spark;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertNull;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import com.fasterxml.jackson.databind.JsonNode;
import io.github.sparkmla.Golden;
import io.github.sparkmla.checkpoint.Models;
import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.Collections;
import java.util.List;
import java.util.Set;
import java.util.TreeSet;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.ExecutionException;
import org.apache.spark.SparkException;
import org.apache.spark.api.java.function.MapFunction;
import org.apache.spark.scheduler.SparkListener;
import org.apache.spark.scheduler.SparkListenerTaskStart;
import org.apache.spark.sql.Dataset;
import org.apache.spark.sql.Encoders;
import org.apache.spark.sql.Row;
import org.apache.spark.sql.RowFactory;
import org.apache.spark.sql.SparkSession;
import org.apache.spark.sql.types.DataTypes;
import org.apache.spark.sql.types.StructType;
import org.junit.jupiter.api.AfterAll;
import org.junit.jupiter.api.BeforeAll;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.Timeout;
import org.junit.jupiter.api.io.TempDir;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.EnumSource;
import org.junit.jupiter.params.provider.ValueSource;
import scala.collection.Seq;
import scala.jdk.javaapi.CollectionConverters;

/** The transformer end to end, on a local session. */
@Timeout(300)
class MlaGeneratorTest {
    private static SparkSession spark;

    @BeforeAll
    static void start() {
        spark = TestSpark.local("local[2]").getOrCreate();
    }

    @AfterAll
    static void stop() {
        spark.stop();
    }

    private static List<Integer> ids(JsonNode array) {
        return Arrays.stream(Golden.ints(array)).boxed().toList();
    }

    @ParameterizedTest
    @EnumSource
    void completionsAreThoseOfTransformers(Golden golden) {
        JsonNode generations = golden.json().get("generations");
        int maxTokens = generations.get(0).get("output_ids").size();
        Dataset<Row> prompts =
                TestSpark.prompts(spark, TestSpark.goldenPrompts(golden)).repartition(2);
        List<Row> rows = TestSpark.generator(golden)
                .setMaxTokens(maxTokens)
                .setLogprobs(5)
                .transform(prompts)
                .orderBy("id")
                .collectAsList();
        assertEquals(16, rows.size());
        for (int i = 0; i < 16; i++) {
            JsonNode expected = generations.get(i);
            Row actual = rows.get(i).getStruct(2);
            assertEquals(expected.get("prompt").asText(), rows.get(i).getString(1));
            assertEquals(ids(expected.get("output_ids")), actual.getList(1));
            assertEquals(expected.get("text").asText(), actual.getString(0));
            assertEquals("length", actual.getString(2));
            assertEquals(expected.get("prompt_ids").size(), actual.getInt(3));
            assertEquals(maxTokens, actual.getInt(4));
            assertNull(actual.get(7));
            assertLogprobs(expected, actual.getList(6));
        }
    }

    private static void assertLogprobs(JsonNode expected, List<Row> actual) {
        for (int step = 0; step < actual.size(); step++) {
            double best = expected.get("steps").get(step).get("logprobs").get(0).asDouble();
            assertEquals(
                    expected.get("output_ids").get(step).asInt(),
                    actual.get(step).getInt(0));
            assertEquals(best, actual.get(step).getFloat(1), 1e-3);
            assertEquals(5, actual.get(step).getList(2).size());
            assertEquals(best, ((Row) actual.get(step).getList(2).get(0)).getFloat(1), 1e-3);
        }
    }

    @ParameterizedTest
    @EnumSource
    void aConversationGoesThroughTheChatTemplate(Golden golden) {
        JsonNode chats = golden.json().get("chats");
        List<String> lines = new ArrayList<>();
        List<String> rendered = new ArrayList<>();
        for (JsonNode chat : chats) {
            lines.add("{\"prompt\": " + chat.get("messages") + "}");
            rendered.add(chat.get("rendered").asText());
        }
        Dataset<Row> messages = spark.read().json(spark.createDataset(lines, Encoders.STRING()));
        MlaGenerator generator = TestSpark.generator(golden).setMaxTokens(8);
        List<Row> rows = generator.transform(messages).select("generated.*").collectAsList();
        for (int i = 0; i < chats.size(); i++) {
            assertEquals(chats.get(i).get("ids").size(), rows.get(i).<Integer>getAs("prompt_tokens"));
        }
        // The template's text holds the first special token already; as a plain prompt it gets that one itself.
        List<String> plain = rendered.stream()
                .map(text -> text.replaceFirst("^<｜begin▁of▁sentence｜>", ""))
                .toList();
        List<Row> expected = generator
                .transform(TestSpark.prompts(spark, plain))
                .select("generated.*")
                .collectAsList();
        assertEquals(expected, rows);
    }

    @Test
    void rowsKeepOrderAndColumnsWhateverThePartitions() {
        Dataset<Row> input = spark.range(0, 200, 1, 4)
                .selectExpr(
                        "id",
                        "concat('King ', id, ':') AS prompt",
                        "array(id, id + 1) AS list",
                        "named_struct('a', id, 'b', date '2026-01-01') AS nested",
                        "cast(null AS binary) AS nothing",
                        "cast(id AS decimal(20, 3)) AS amount",
                        "map('k', timestamp '2026-01-01 00:00:00') AS map");
        MlaGenerator generator = TestSpark.generator(Golden.TINY_V2_LITE).setMaxTokens(4);
        List<Row> four = generator.transform(input).collectAsList();
        assertEquals(input.collectAsList(), withoutResult(four));
        List<Row> one = generator.transform(input.coalesce(1)).collectAsList();
        assertEquals(four, one);
    }

    @Test
    void samplingDependsOnSeedAndKeyNotOnPartitions() {
        List<String> prompts = Collections.nCopies(6, "And the LORD said unto");
        Dataset<Row> input = TestSpark.prompts(spark, prompts);
        MlaGenerator generator = TestSpark.generator(Golden.TINY_V3)
                .setMaxTokens(12)
                .setTemperature(1)
                .setSeed(7);
        assertEquals(1, texts(generator.transform(input)).size(), "equal prompts get equal completions");
        generator.setKeyCol("id");
        List<Row> keyed =
                generator.transform(input.repartition(4)).orderBy("id").collectAsList();
        assertEquals(6, texts(generator.transform(input)).size(), "but not where a column keys them");
        assertEquals(keyed, generator.transform(input.coalesce(1)).collectAsList());
        assertFalse(keyed.equals(generator.setSeed(8).transform(input).collectAsList()));
    }

    private static Set<String> texts(Dataset<Row> generated) {
        Set<String> texts = new TreeSet<>();
        generated.select("generated.text").collectAsList().forEach(row -> texts.add(row.getString(0)));
        return texts;
    }

    @Test
    void badRowsGetErrorsAndTheJobGoesOn() {
        Dataset<Row> input = TestSpark.prompts(spark, Arrays.asList("ROMEO:", null, "", "the LORD ".repeat(3000)));
        List<Row> rows = TestSpark.generator(Golden.TINY_V3)
                .setMaxTokens(4)
                .transform(input)
                .select("generated.finish_reason", "generated.error", "generated.text")
                .collectAsList();
        assertEquals(
                List.of("length", "error", "error", "error"),
                rows.stream().map(row -> row.getString(0)).toList());
        assertNull(rows.get(0).get(1));
        assertEquals("prompt is null: nothing to generate from", rows.get(1).get(1));
        assertEquals("prompt is empty: it has no token of its own", rows.get(2).get(1));
        // As golden.json shows, each of the 3000 is two tokens; the first token and the last space are one each.
        assertEquals(
                "prompt is too long: 6002 tokens, but the context holds 2048 and at least one is generated",
                rows.get(3).get(1));
        assertNull(rows.get(3).get(2));
    }

    @Test
    void brokenMessagesGetErrors() {
        Dataset<Row> input = spark.sql("""
                SELECT explode(array(
                  array(named_struct('role', 'user', 'content', 'Speak.')),
                  cast(null AS array<struct<role: string, content: string>>),
                  cast(array() AS array<struct<role: string, content: string>>),
                  array(named_struct('role', 'user', 'content', cast(null AS string))),
                  array(named_struct('role', cast(null AS string), 'content', 'x')),
                  array(named_struct('role', 'user', 'content', 'x'), null))) AS prompt
                """);
        List<String> errors = TestSpark.generator(Golden.TINY_V3)
                .setMaxTokens(4)
                .transform(input)
                .select("generated.error")
                .collectAsList()
                .stream()
                .map(row -> row.getString(0))
                .toList();
        assertEquals(
                Arrays.asList(
                        null,
                        "prompt is null: nothing to generate from",
                        "messages are not usable: the list is empty",
                        "messages are not usable: message 0 has no content",
                        "messages are not usable: message 0 has no role",
                        "messages are not usable: message 1 is null"),
                errors);
    }

    /** As other services' logs have it: content is null in a message that only calls tools. */
    @Test
    void whoOnlyCallsToolsSaysNothing(@TempDir Path folder) throws IOException {
        Models.copy(Golden.TINY_V3.folder(), folder);
        Files.writeString(
                folder.resolve("chat_template.jinja"),
                "{% for m in messages %}{{ m.tool_calls[0].name if m.content is none else m.content }} {% endfor %}");
        Dataset<Row> input = spark.sql("""
                SELECT explode(array(
                  array(named_struct('role', 'user', 'content', 'Who rules?', 'tool_calls', null),
                        named_struct('role', 'assistant', 'content', null, 'tool_calls', array(named_struct('name', 'rulers')))),
                  array(named_struct('role', 'user', 'content', 'Who rules?', 'tool_calls', null),
                        named_struct('role', 'assistant', 'content', 'rulers', 'tool_calls', null)),
                  array(named_struct('role', 'user', 'content', null, 'tool_calls', null)))) AS prompt
                """);
        List<Row> rows = TestSpark.generator(Golden.TINY_V3)
                .setModel(folder.toString())
                .setMaxTokens(8)
                .transform(input)
                .select("generated.*")
                .collectAsList();
        assertNull(rows.get(0).getAs("error"));
        assertEquals(rows.get(1), rows.get(0), "the name stands where the content would");
        assertEquals(
                "messages are not usable: message 0 has no content", rows.get(2).getAs("error"));
    }

    @Test
    void failOnErrorFailsTheJobWithTheRow() {
        Dataset<Row> input =
                TestSpark.prompts(spark, Arrays.asList("a", "b", null)).coalesce(1);
        Dataset<Row> generated = TestSpark.generator(Golden.TINY_V2_LITE)
                .setMaxTokens(2)
                .setFailOnError(true)
                .transform(input);
        Throwable failure = assertThrows(SparkException.class, generated::collectAsList);
        while (failure.getCause() != null) {
            failure = failure.getCause();
        }
        assertEquals(
                "row 2 of partition 0: prompt is null: nothing to generate from (failOnError is set)",
                failure.getMessage());
    }

    @Test
    void aCompletionIsCutAtTheContext() {
        spark.conf().set("spark.mla.maxModelLen", "16");
        try {
            Row result = TestSpark.generator(Golden.TINY_V3)
                    .setMaxTokens(1000)
                    .setIgnoreEos(true)
                    .transform(TestSpark.prompts(spark, List.of("In the beginning")))
                    .select("generated.*")
                    .first();
            assertEquals("length", result.getAs("finish_reason"));
            assertEquals(16, result.<Integer>getAs("prompt_tokens") + result.<Integer>getAs("completion_tokens"));
        } finally {
            spark.conf().unset("spark.mla.maxModelLen");
        }
    }

    @Test
    void twoModelsLiveInOneStage() {
        Dataset<Row> input = TestSpark.prompts(spark, TestSpark.goldenPrompts(Golden.TINY_V3))
                .repartition(4);
        MlaGenerator first =
                TestSpark.generator(Golden.TINY_V3).setOutputCol("a").setMaxTokens(8);
        MlaGenerator second =
                TestSpark.generator(Golden.TINY_V2_LITE).setOutputCol("b").setMaxTokens(8);
        List<Row> both = second.transform(first.transform(input)).orderBy("id").collectAsList();
        assertEquals(
                first.transform(input).orderBy("id").select("a").collectAsList(),
                both.stream().map(row -> RowFactory.create(row.<Row>getAs("a"))).toList());
        assertEquals(
                second.transform(input).orderBy("id").select("b").collectAsList(),
                both.stream().map(row -> RowFactory.create(row.<Row>getAs("b"))).toList());
    }

    /** Between two typed operations Spark hands rows on as they are, without converting them. */
    @Test
    void typedOperationsOnEitherSideSeeEveryField() {
        StructType message = new StructType().add("role", DataTypes.StringType).add("content", DataTypes.StringType);
        StructType schema = new StructType().add("chat", DataTypes.createArrayType(message));
        Dataset<Row> chats = spark.range(1)
                .map(
                        (MapFunction<Long, Row>) id ->
                                RowFactory.create((Object) new Row[] {RowFactory.create("user", "Speak, Romeo.")}),
                        Encoders.row(schema));
        List<String> found = TestSpark.generator(Golden.TINY_V3)
                .setInputCol("chat")
                .setMaxTokens(2)
                .setLogprobs(1)
                .transform(chats)
                .map(
                        (MapFunction<Row, String>) row -> {
                            Row result = row.getAs("generated");
                            Row step = result.<Seq<Row>>getAs("logprobs").apply(0);
                            Row best = step.<Seq<Row>>getAs("top").apply(0);
                            return result.getAs("prompt_tokens") + " "
                                    + best.<Integer>getAs("token_id").equals(step.<Integer>getAs("token_id"));
                        },
                        Encoders.STRING())
                .collectAsList();
        assertEquals(List.of("11 true"), found, "golden.json: 11 tokens");
    }

    @Test
    void aCancelledJobEndsWhatIsInFlight() throws Exception {
        Dataset<Row> input = spark.range(0, 10_000, 1, 2).selectExpr("concat('King ', id) AS prompt");
        Dataset<Row> generated =
                TestSpark.generator(Golden.TINY_V2_LITE).setMaxTokens(500).transform(input);
        CompletableFuture<Void> job = CompletableFuture.runAsync(() -> {
            spark.sparkContext().setJobGroup("slow", "slow", false);
            generated.collectAsList();
        });
        while (spark.sparkContext().statusTracker().getJobIdsForGroup("slow").length == 0) {
            Thread.sleep(50);
        }
        Thread.sleep(2000);
        spark.sparkContext().cancelJobGroup("slow");
        assertThrows(ExecutionException.class, job::get);
        assertEngineBecomesIdle(Golden.TINY_V2_LITE);
    }

    @ParameterizedTest
    @ValueSource(booleans = {false, true})
    void aKilledTaskEndsWhatIsInFlight(boolean interrupt) throws Exception {
        Dataset<Row> input = spark.range(0, 10_000, 1, 1).selectExpr("concat('King ', id) AS prompt");
        Dataset<Row> generated =
                TestSpark.generator(Golden.TINY_V2_LITE).setMaxTokens(500).transform(input);
        CompletableFuture<Long> task = new CompletableFuture<>();
        SparkListener listener = new SparkListener() {
            @Override
            public void onTaskStart(SparkListenerTaskStart start) {
                task.complete(start.taskInfo().taskId());
            }
        };
        spark.sparkContext().addSparkListener(listener);
        CompletableFuture<Void> job = CompletableFuture.runAsync(() -> {
            spark.sparkContext().setJobGroup("killed", "killed", false);
            generated.collectAsList();
        });
        long id = task.get();
        Thread.sleep(2000);
        assertTrue(spark.sparkContext().killTaskAttempt(id, interrupt, "by the test"));
        spark.sparkContext().removeSparkListener(listener);
        spark.sparkContext().cancelJobGroup("killed"); // Spark runs a killed task again
        assertThrows(ExecutionException.class, job::get);
        assertEngineBecomesIdle(Golden.TINY_V2_LITE);
    }

    @Test
    void aLimitEndsWhatIsInFlight() throws Exception {
        Dataset<Row> input = spark.range(0, 10_000, 1, 1).selectExpr("concat('King ', id) AS prompt");
        Dataset<Row> generated =
                TestSpark.generator(Golden.TINY_V2_LITE).setMaxTokens(500).transform(input);
        assertEquals(1, generated.limit(1).collectAsList().size());
        assertEngineBecomesIdle(Golden.TINY_V2_LITE);
    }

    private static void assertEngineBecomesIdle(Golden golden) throws InterruptedException {
        MlaConf conf = MlaConf.of(CollectionConverters.asJava(spark.conf().getAll()));
        Engines.Key key = new Engines.Key(golden.folder(), conf.engineSettings(0));
        try (Engines.Lease lease = Engines.ofThisJvm().lease(key).await(() -> {})) {
            LoadedModel.OnEngine model = (LoadedModel.OnEngine) lease.model();
            long steps;
            int waits = 0;
            do {
                steps = model.engine().steps();
                Thread.sleep(100);
            } while (++waits < 100 && (model.engine().steps() > steps || model.kvInUse() > 0));
            assertEquals(steps, model.engine().steps(), "cancelled requests still run ten seconds later");
            assertEquals(0, model.kvInUse(), "blocks of cancelled requests are still taken");
        }
    }

    private static List<Row> withoutResult(List<Row> rows) {
        List<Row> result = new ArrayList<>();
        for (Row row : rows) {
            Object[] values = new Object[row.size() - 1];
            for (int i = 0; i < values.length; i++) {
                values[i] = row.get(i);
            }
            result.add(RowFactory.create(values));
        }
        return result;
    }
}
