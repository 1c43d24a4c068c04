package io.github.sparkmla.compatibility;

import static org.apache.spark.sql.functions.count;
import static org.apache.spark.sql.functions.lit;
import static org.apache.spark.sql.functions.max;
import static org.apache.spark.sql.functions.min;
import static org.apache.spark.sql.functions.sum;

import io.github.sparkmla.spark.MlaGenerator;
import java.util.List;
import org.apache.spark.sql.Dataset;
import org.apache.spark.sql.Row;
import org.apache.spark.sql.SparkSession;

/**
 * For a machine with a GPU and the RAPIDS Accelerator: Parquet, filter, generation, aggregation, Parquet, once with RAPIDS
 * and once without; prints both plans and fails where the results differ. {@code RapidsQuery MODEL FOLDER [ROWS]}. Set
 * {@code spark.mla.deterministic}, or batches that happen to differ may change a token.
 */
public final class RapidsQuery {
    private static final int PARTS = 7;

    private RapidsQuery() {}

    public static void main(String[] args) {
        SparkSession spark = SparkSession.builder().getOrCreate();
        spark.conf().set("spark.sql.adaptive.enabled", "false"); // so that the plan shown is the one that ran
        long rows = args.length > 2 ? Long.parseLong(args[2]) : 200;
        String input = args[1] + "/in.parquet";
        spark.range(0, rows, 1, 4)
                .selectExpr("id", "id % " + PARTS + " AS part", "concat('King ', id, ':') AS prompt")
                .write()
                .mode("overwrite")
                .parquet(input);
        List<Row> with = run(spark, args[0], input, args[1] + "/with", true);
        List<Row> without = run(spark, args[0], input, args[1] + "/without", false);
        if (!with.equals(without)) {
            throw new IllegalStateException("with RAPIDS: " + with + "\nwithout: " + without);
        }
        System.out.println("EQUAL: " + with.size() + " groups");
        spark.stop();
    }

    private static List<Row> run(SparkSession spark, String model, String input, String output, boolean rapids) {
        spark.conf().set("spark.rapids.sql.enabled", "" + rapids);
        Dataset<Row> prompts = spark.read().parquet(input).where("id % 5 <> 0");
        Dataset<Row> groups = new MlaGenerator()
                .setModel(model)
                .setInputCol("prompt")
                .setMaxTokens(32)
                .transform(prompts)
                .groupBy("part")
                .agg(
                        count(lit(1)).as("rows"),
                        sum("generated.completion_tokens").as("tokens"),
                        min("generated.text").as("first"),
                        max("generated.text").as("last"),
                        count("generated.error").as("errors"));
        long start = System.nanoTime();
        groups.write().mode("overwrite").parquet(output);
        System.out.printf("rapids %s: %.1f s%n", rapids, (System.nanoTime() - start) / 1e9);
        System.out.println(((org.apache.spark.sql.classic.Dataset<Row>) groups)
                .queryExecution()
                .executedPlan());
        return spark.read().parquet(output).orderBy("part").collectAsList();
    }
}
