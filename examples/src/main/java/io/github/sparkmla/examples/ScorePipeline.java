package io.github.sparkmla.examples;

import static org.apache.spark.sql.functions.avg;
import static org.apache.spark.sql.functions.col;
import static org.apache.spark.sql.functions.count;
import static org.apache.spark.sql.functions.lit;
import static org.apache.spark.sql.functions.max;
import static org.apache.spark.sql.functions.md5;
import static org.apache.spark.sql.functions.sum;

import io.github.sparkmla.spark.MlaGenerator;
import org.apache.spark.sql.Dataset;
import org.apache.spark.sql.Row;
import org.apache.spark.sql.SaveMode;
import org.apache.spark.sql.SparkSession;

/**
 * Generation between a filter and an aggregation, Parquet to Parquet: beside the RAPIDS Accelerator both run on the GPU that
 * also decodes. Prints the plan and the result; the same with and without RAPIDS.
 *
 * <p>{@code ScorePipeline INPUT OUTPUT MODEL MAX_TOKENS}; INPUT has the columns {@code id} (bigint) and {@code prompt}.
 */
public final class ScorePipeline {
    private static final int GROUPS = 10;

    private ScorePipeline() {}

    public static void main(String[] args) {
        String input = args[0];
        String output = args[1];
        MlaGenerator generator = new MlaGenerator()
                .setModel(args[2])
                .setInputCol("prompt")
                .setOutputCol("generated")
                .setMaxTokens(Integer.parseInt(args[3]));
        SparkSession spark = SparkSession.builder().appName("score pipeline").getOrCreate();

        Dataset<Row> prompts = spark.read().parquet(input).where("id % 4 <> 0 AND length(prompt) > 10");
        Dataset<Row> scores = generator
                .transform(prompts)
                .select(
                        col("id").mod(GROUPS).as("part"),
                        col("generated.text").as("text"),
                        col("generated.completion_tokens").as("tokens"),
                        col("generated.error").as("error"))
                .groupBy("part")
                .agg(
                        count(lit(1)).as("rows"),
                        count(col("error")).as("errors"),
                        sum("tokens").as("tokens"),
                        avg("tokens").as("mean_tokens"),
                        max(md5(col("text").cast("binary"))).as("digest"));
        scores.write().mode(SaveMode.Overwrite).parquet(output);

        scores.explain();
        for (Row row : spark.read().parquet(output).orderBy("part").collectAsList()) {
            System.out.println("result " + row);
        }
        spark.stop();
    }
}
