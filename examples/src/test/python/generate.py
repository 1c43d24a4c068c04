"""PySpark against golden.json, alone and through a saved pipeline. Arguments: the plugin's jar, the model."""

import json
import sys
import tempfile
from pathlib import Path

from pyspark.ml import Pipeline, PipelineModel
from pyspark.sql import SparkSession

jar, model = sys.argv[1:]
spark = SparkSession.builder.master("local[2]").config("spark.jars", jar).getOrCreate()
spark.sparkContext.addPyFile(jar)

from sparkmla import MlaGenerator

golden = json.loads(Path(model, "golden.json").read_text())["generations"]
prompts = spark.createDataFrame([(g["prompt"],) for g in golden], "prompt string").coalesce(1)
expected = [g["output_ids"] for g in golden]

generator = MlaGenerator(model=model, inputCol="prompt", maxTokens=48)
rows = generator.transform(prompts).collect()
assert [row.generated.token_ids for row in rows] == expected
assert [row.generated.text for row in rows] == [g["text"] for g in golden]

generator.setOutputCol("answer").setMaxTokens(8)
assert generator.getMaxTokens() == 8 and generator.getTemperature() == 0.0
with tempfile.TemporaryDirectory() as folder:
    generator.save(folder + "/generator")
    loaded = MlaGenerator.load(folder + "/generator")
    assert loaded.getOutputCol() == "answer" and loaded.uid == generator.uid
    Pipeline(stages=[loaded]).fit(prompts).save(folder + "/pipeline")
    rows = PipelineModel.load(folder + "/pipeline").transform(prompts).collect()
    assert [row.answer.token_ids for row in rows] == [ids[:8] for ids in expected]

spark.stop()
