package io.github.sparkmla.spark;

import io.github.sparkmla.Golden;
import java.util.ArrayList;
import java.util.List;
import java.util.stream.StreamSupport;
import org.apache.spark.sql.Dataset;
import org.apache.spark.sql.Row;
import org.apache.spark.sql.RowFactory;
import org.apache.spark.sql.SparkSession;
import org.apache.spark.sql.types.DataTypes;
import org.apache.spark.sql.types.StructType;

/** Local sessions with the plugin, and data for them. */
final class TestSpark {
    private TestSpark() {}

    static SparkSession.Builder local(String master) {
        return SparkSession.builder()
                .master(master)
                .appName("test")
                .config("spark.ui.enabled", "false")
                .config("spark.driver.host", "127.0.0.1")
                .config("spark.driver.bindAddress", "127.0.0.1")
                .config("spark.sql.shuffle.partitions", "2")
                .config("spark.plugins", SparkMlaPlugin.class.getName())
                .config("spark.mla.device", "cpu")
                .config("spark.mla.kv.memory", "64m")
                .config("spark.mla.batch.maxSequences", "16")
                .config("spark.mla.batch.maxTokens", "256");
    }

    /** Columns id (int), prompt (string). */
    static Dataset<Row> prompts(SparkSession spark, List<String> prompts) {
        List<Row> rows = new ArrayList<>();
        prompts.forEach(prompt -> rows.add(RowFactory.create(rows.size(), prompt)));
        StructType schema = new StructType().add("id", DataTypes.IntegerType).add("prompt", DataTypes.StringType);
        return spark.createDataFrame(rows, schema);
    }

    static List<String> goldenPrompts(Golden golden) {
        return StreamSupport.stream(golden.json().get("generations").spliterator(), false)
                .map(g -> g.get("prompt").asText())
                .toList();
    }

    static MlaGenerator generator(Golden golden) {
        return new MlaGenerator().setModel(golden.folder().toString()).setInputCol("prompt");
    }
}
