package io.github.sparkmla.spark;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import io.github.sparkmla.Golden;
import io.github.sparkmla.checkpoint.CheckpointException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.List;
import java.util.ServiceLoader;
import org.apache.spark.ml.Pipeline;
import org.apache.spark.ml.PipelineModel;
import org.apache.spark.ml.PipelineStage;
import org.apache.spark.ml.Transformer;
import org.apache.spark.ml.param.ParamMap;
import org.apache.spark.sql.Dataset;
import org.apache.spark.sql.Row;
import org.apache.spark.sql.SparkSession;
import org.junit.jupiter.api.AfterAll;
import org.junit.jupiter.api.BeforeAll;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.function.Executable;
import org.junit.jupiter.api.io.TempDir;

/** The transformer as Spark ML and its users meet it, up to the first task. */
class MlaGeneratorParamsTest {
    private static SparkSession spark;

    @TempDir
    private Path temp;

    @BeforeAll
    static void start() {
        spark = TestSpark.local("local[2]").getOrCreate();
    }

    @AfterAll
    static void stop() {
        spark.stop();
    }

    private static MlaGenerator everythingSet() {
        return new MlaGenerator()
                .setModel(Golden.TINY_V2_LITE.folder().toString())
                .setInputCol("prompt")
                .setOutputCol("answer")
                .setMaxTokens(3)
                .setTemperature(0.5)
                .setTopK(10)
                .setTopP(0.9)
                .setSeed(1L << 40)
                .setLogprobs(2)
                .setIgnoreEos(true)
                .setFailOnError(true)
                .setKeyCol("id");
    }

    @Test
    void savedAndLoadedItIsTheSame() throws Exception {
        MlaGenerator saved = everythingSet();
        String path = temp.resolve("generator").toString();
        saved.save(path);
        MlaGenerator loaded = MlaGenerator.load(path);
        assertEquals(saved.uid(), loaded.uid());
        assertEquals(12, saved.extractParamMap().size());
        assertEquals(saved.explainParams(), loaded.explainParams());
        Dataset<Row> input = TestSpark.prompts(spark, List.of("a", "b"));
        assertEquals(
                saved.transform(input).collectAsList(), loaded.transform(input).collectAsList());
    }

    @Test
    void aPipelineHoldsIt() throws Exception {
        Dataset<Row> input = TestSpark.prompts(spark, List.of("a", "b"));
        PipelineModel pipeline =
                new Pipeline().setStages(new PipelineStage[] {everythingSet()}).fit(input);
        String path = temp.resolve("pipeline").toString();
        pipeline.save(path);
        PipelineModel loaded = PipelineModel.load(path);
        assertEquals(pipeline.transformSchema(input.schema()), loaded.transformSchema(input.schema()));
        assertEquals(
                everythingSet().transform(input).collectAsList(),
                loaded.transform(input).collectAsList());
    }

    @Test
    void aCopyTakesExtraParameters() {
        MlaGenerator original = everythingSet();
        MlaGenerator copy =
                original.copy(new ParamMap().put(original.maxTokens().w(9)));
        assertEquals(9, copy.getMaxTokens());
        assertEquals(3, original.getMaxTokens());
        assertEquals(original.uid(), copy.uid());
    }

    @Test
    void sparkConnectFindsIt() {
        assertTrue(ServiceLoader.load(Transformer.class).stream()
                .anyMatch(provider -> provider.type().equals(MlaGenerator.class)));
    }

    @Test
    void whatIsWrongIsSaidOnTheDriver() throws Exception {
        Dataset<Row> input = TestSpark.prompts(spark, List.of("a"));
        Path empty = Files.createDirectory(temp.resolve("empty"));
        MlaGenerator good = everythingSet();
        assertRefuses(
                "model is not set: folder of the checkpoint",
                () -> new MlaGenerator().setInputCol("prompt").transform(input));
        assertRefuses(
                "inputCol 'promt' is not a column of the input, which has: id, prompt",
                () -> good.copy(ParamMap.empty()).setInputCol("promt").transform(input));
        assertRefuses(
                "inputCol 'id' is int, but must be string or array<struct<role: string, content: string>>",
                () -> good.copy(ParamMap.empty()).setInputCol("id").transform(input));
        assertRefuses(
                "the output column 'prompt' is in the input already",
                () -> good.copy(ParamMap.empty()).setOutputCol("prompt").transform(input));
        assertRefuses(
                "keyCol 'amount' is double, but must be string or integral",
                () -> good.copy(ParamMap.empty())
                        .setKeyCol("amount")
                        .transform(input.selectExpr("*", "1.5D AS amount")));
        assertRefuses(
                "MlaGenerator", () -> good.copy(ParamMap.empty()).setTopP(0)); // Spark names uid, parameter and value
        assertThrows(
                CheckpointException.class,
                () -> good.copy(ParamMap.empty()).setModel(empty.toString()).transform(input));
        assertThrows(
                CheckpointException.class,
                () -> good.copy(ParamMap.empty()).setModel("/no/such/folder").transform(input));
    }

    @Test
    void aBadConfigurationIsSaidOnTheDriver() {
        Dataset<Row> input = TestSpark.prompts(spark, List.of("a"));
        spark.conf().set("spark.mla.kv.memroy", "1g");
        try {
            assertRefuses(
                    "there is no configuration key spark.mla.kv.memroy",
                    () -> everythingSet().transform(input));
        } finally {
            spark.conf().unset("spark.mla.kv.memroy");
        }
    }

    private static void assertRefuses(String start, Executable action) {
        String message = assertThrows(IllegalArgumentException.class, action).getMessage();
        assertTrue(message.startsWith(start), message);
    }
}
