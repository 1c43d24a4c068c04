package io.github.sparkmla.compatibility;

import static org.apache.spark.sql.functions.max;
import static org.apache.spark.sql.functions.sum;

import io.github.sparkmla.spark.MlaGenerator;
import java.lang.reflect.Method;
import org.apache.spark.sql.Dataset;
import org.apache.spark.sql.Row;
import org.apache.spark.sql.SparkSession;

/** Prints how queries around the operator are planned: {@code PlanProbe MODEL FOLDER}. Runs none of them. */
public final class PlanProbe {
    private PlanProbe() {}

    public static void main(String[] args) throws ReflectiveOperationException {
        SparkSession spark = SparkSession.builder().getOrCreate();
        String input = args[1] + "/in.parquet";
        spark.conf().set("spark.rapids.sql.enabled", "false"); // there is no GPU to write it with
        spark.range(10)
                .selectExpr(
                        "id",
                        "id % 3 AS part",
                        "concat('King ', id) AS prompt",
                        "array(named_struct('role', 'user', 'content', 'Speak.')) AS chat")
                .write()
                .parquet(input);
        spark.conf().set("spark.rapids.sql.enabled", "true");
        Dataset<Row> rows = spark.read().parquet(input).where("id > 2");
        MlaGenerator generator = new MlaGenerator().setModel(args[0]).setInputCol("prompt");
        Dataset<Row> prompts = generator.transform(rows);
        print("text", prompts.groupBy("part").agg(sum("generated.completion_tokens"), max("generated.text")));
        print("ungrouped", prompts.where("generated.error IS NULL").agg(sum("generated.prompt_tokens")));
        Dataset<Row> chats = generator.setInputCol("chat").transform(rows);
        print("chat", chats.groupBy("part").agg(max("generated.text")));
        print("nested", prompts.groupBy("part").agg(max("generated.token_ids")));
        findSemaphore();
        spark.stop();
    }

    /** Fails where the GPU semaphore of this RAPIDS is not as the plugin knows it. Does not touch it. */
    private static void findSemaphore() throws ReflectiveOperationException {
        ClassLoader loader = Thread.currentThread().getContextClassLoader();
        Method of = Class.forName("io.github.sparkmla.spark.RapidsSemaphore", true, loader)
                .getDeclaredMethod("of", ClassLoader.class);
        of.setAccessible(true);
        System.out.println("=== semaphore\nfound " + (of.invoke(null, loader) != null));
    }

    private static void print(String name, Dataset<Row> query) {
        System.out.println("=== " + name);
        System.out.println(((org.apache.spark.sql.classic.Dataset<Row>) query)
                .queryExecution()
                .executedPlan());
    }
}
