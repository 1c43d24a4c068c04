package io.github.sparkmla.compatibility;

import io.github.sparkmla.spark.MlaGenerator;
import java.io.File;
import java.util.List;
import org.apache.spark.ml.Pipeline;
import org.apache.spark.ml.PipelineModel;
import org.apache.spark.ml.PipelineStage;
import org.apache.spark.sql.Dataset;
import org.apache.spark.sql.Encoders;
import org.apache.spark.sql.Row;
import org.apache.spark.sql.SparkSession;

/** Saves, loads and runs a pipeline for the model's first golden prompt: {@code PipelineProbe MODEL FOLDER}. */
public final class PipelineProbe {
    private PipelineProbe() {}

    public static void main(String[] args) throws Exception {
        SparkSession spark = SparkSession.builder().getOrCreate();
        String golden = new File(args[0], "golden.json").toString();
        String prompt = spark.read()
                .option("multiLine", "true")
                .json(golden)
                .selectExpr("generations[0].prompt")
                .first()
                .getString(0);
        Dataset<Row> prompts =
                spark.createDataset(List.of(prompt), Encoders.STRING()).toDF("prompt");
        MlaGenerator generator =
                new MlaGenerator().setModel(args[0]).setInputCol("prompt").setMaxTokens(4);
        new Pipeline().setStages(new PipelineStage[] {generator}).fit(prompts).save(args[1]);
        Row result = PipelineModel.load(args[1])
                .transform(prompts)
                .select("generated")
                .first();
        System.out.println("tokens: " + result.getStruct(0).getList(1));
        System.out.println("version: " + spark.version());
        spark.stop();
    }
}
