package io.github.sparkmla.compatibility;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertTrue;

import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.ObjectMapper;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.List;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.Timeout;
import org.junit.jupiter.api.io.TempDir;

/** The jar that was built for one Spark, unchanged on another. */
@Timeout(600)
class SparkVersionIT {
    private static final ObjectMapper JSON = new ObjectMapper();

    @TempDir
    private Path temp;

    @Test
    void aJobOnAClusterGivesTheTokensOfTransformers() throws Exception {
        JsonNode generations =
                JSON.readTree(Submit.MODEL.resolve("golden.json").toFile()).get("generations");
        Path input = temp.resolve("prompts.jsonl");
        List<String> lines = new ArrayList<>();
        for (JsonNode generation : generations) {
            lines.add(JSON.createObjectNode()
                    .put("prompt", generation.get("prompt").asText())
                    .toString());
        }
        Files.write(input, lines);
        Path output = temp.resolve("out");
        String printed = Submit.OTHER.run(
                temp,
                "--master",
                "local-cluster[1,2,1024]",
                "--conf",
                "spark.plugins=io.github.sparkmla.spark.SparkMlaPlugin",
                "--conf",
                "spark.mla.device=cpu",
                "--conf",
                "spark.ui.enabled=false",
                "--class",
                "io.github.sparkmla.spark.GenerateJob",
                System.getProperty("plugin.jar"),
                "--model",
                Submit.MODEL.toString(),
                "--input",
                input.toString(),
                "--output",
                output.toString(),
                "--output-format",
                "json",
                "--max-tokens",
                "48",
                "--partitions",
                "1");
        assertTrue(printed.contains("rows:           16"), printed);
        List<String> written = new ArrayList<>();
        try (var files = Files.newDirectoryStream(output, "part-*")) {
            for (Path file : files) {
                written.addAll(Files.readAllLines(file));
            }
        }
        assertEquals(16, written.size());
        for (int i = 0; i < 16; i++) {
            JsonNode row = JSON.readTree(written.get(i));
            assertEquals(generations.get(i).get("prompt"), row.get("prompt"));
            assertEquals(
                    generations.get(i).get("output_ids"), row.get("generated").get("token_ids"));
        }
    }

    @Test
    void theTransformerWorksInAPipelineThatWasSaved() throws Exception {
        String printed = Submit.OTHER.run(
                temp,
                "--master",
                "local[2]",
                "--conf",
                "spark.ui.enabled=false",
                "--jars",
                System.getProperty("plugin.jar"),
                "--class",
                PipelineProbe.class.getName(),
                System.getProperty("probes.jar"),
                Submit.MODEL.toString(),
                temp.resolve("pipeline").toString());
        // As the jar's own Spark computes them: golden.json, cut to four tokens.
        JsonNode ids = JSON.readTree(Submit.MODEL.resolve("golden.json").toFile())
                .get("generations")
                .get(0)
                .get("output_ids");
        String expected = "[%d, %d, %d, %d]"
                .formatted(
                        ids.get(0).asInt(),
                        ids.get(1).asInt(),
                        ids.get(2).asInt(),
                        ids.get(3).asInt());
        assertTrue(printed.contains("tokens: " + expected), printed);
        assertTrue(printed.contains("version: " + sparkVersion()), printed);
    }

    private static String sparkVersion() throws Exception {
        try (var jars = Files.newDirectoryStream(Path.of("target/spark/jars"), "spark-sql_*.jar")) {
            return jars.iterator().next().getFileName().toString().replaceFirst("spark-sql_[0-9.]+-(.*)\\.jar", "$1");
        }
    }
}
