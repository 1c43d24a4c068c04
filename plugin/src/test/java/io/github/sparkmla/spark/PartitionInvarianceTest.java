package io.github.sparkmla.spark;

import static org.junit.jupiter.api.Assertions.assertEquals;

import io.github.sparkmla.Golden;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import java.util.Random;
import org.apache.spark.sql.Dataset;
import org.apache.spark.sql.Row;
import org.apache.spark.sql.RowFactory;
import org.apache.spark.sql.SparkSession;
import org.apache.spark.sql.types.DataTypes;
import org.apache.spark.sql.types.StructType;
import org.junit.jupiter.api.AfterAll;
import org.junit.jupiter.api.BeforeAll;
import org.junit.jupiter.api.RepeatedTest;
import org.junit.jupiter.api.RepetitionInfo;
import org.junit.jupiter.api.TestInstance;

/**
 * The same rows bit for bit, log-probabilities included, whatever the partitions, the batch size, the prefill chunk and
 * the size of the KV pool: every combination of them, with seeded budgets.
 */
@TestInstance(TestInstance.Lifecycle.PER_CLASS)
class PartitionInvarianceTest {
    private static final int ROWS = 20;
    private static final int[] BATCHES = {1, 7, 64};
    private static final int[] CHUNKS = {16, 64, 0};
    private static final int[] PARTITIONS = {1, 4};
    private static final long BLOCK_BYTES = 64L * 576 * 4 * 5; // tokens, latent and rope, float32, layers

    private SparkSession spark;
    private Dataset<Row> prompts;
    private List<Row> reference;

    @BeforeAll
    void start() {
        spark = TestSpark.local("local[2]").getOrCreate();
        Random random = new Random(20261121);
        List<Row> rows = new ArrayList<>();
        List<String> words = List.of("king", "lord", "thou", "hast", "the", "nation", "people", "God", "war", "love");
        for (int i = 0; i < ROWS; i++) {
            StringBuilder prompt = new StringBuilder();
            int length = 1 + random.nextInt(i % 5 == 0 ? 150 : 12);
            for (int w = 0; w < length; w++) {
                prompt.append(words.get(random.nextInt(words.size()))).append(' ');
            }
            rows.add(RowFactory.create(i, prompt.toString()));
        }
        prompts = spark.createDataFrame(
                rows, new StructType().add("id", DataTypes.IntegerType).add("prompt", DataTypes.StringType));
        reference = generate(1, Map.of("batch.maxSequences", "1"));
        assertEquals(ROWS, reference.size());
    }

    @AfterAll
    void stop() {
        spark.stop();
    }

    private List<Row> generate(int partitions, Map<String, String> conf) {
        SparkSession session = spark.newSession();
        conf.forEach((key, value) -> session.conf().set("spark.mla." + key, value));
        Dataset<Row> input = session.createDataFrame(prompts.collectAsList(), prompts.schema());
        return new MlaGenerator()
                .setModel(Golden.TINY_V3.folder().toString())
                .setInputCol("prompt")
                .setMaxTokens(24)
                .setTemperature(0.7)
                .setTopP(0.9)
                .setSeed(5)
                .setLogprobs(2)
                .transform(input.repartition(partitions))
                .sort("id")
                .collectAsList();
    }

    @RepeatedTest(54)
    void rowsAreTheSame(RepetitionInfo info) {
        int n = info.getCurrentRepetition() - 1;
        Random random = new Random(n * 0x9E3779B97F4A7C15L);
        int batch = BATCHES[n % 3];
        int chunk = CHUNKS[n / 3 % 3];
        boolean scarce = n / 9 % 2 == 0;
        int partitions = PARTITIONS[n / 18 % 2];
        int blocks = scarce ? 6 + random.nextInt(4) : 300; // the longest row alone needs up to 6
        int tokens = Math.max(batch, 16 + random.nextInt(400));
        System.out.printf(
                "combination %d: batch %d, chunk %d, %d partitions, %d blocks, %d tokens a step%n",
                n, batch, chunk, partitions, blocks, tokens);
        List<Row> rows = generate(
                partitions,
                Map.of(
                        "batch.maxSequences", "" + batch,
                        "batch.maxTokens", "" + tokens,
                        "prefill.chunk", "" + chunk,
                        "kv.memory", blocks * BLOCK_BYTES + "b"));
        for (int i = 0; i < ROWS; i++) {
            assertEquals(reference.get(i), rows.get(i), "row " + i);
        }
    }
}
