package io.github.sparkmla.examples;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertTrue;

import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.ObjectMapper;
import io.github.sparkmla.examples.Repository.Outcome;
import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.List;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.Timeout;
import org.junit.jupiter.api.io.TempDir;

/** The shell scripts, as a user starts them. */
@Timeout(600)
class ScriptsIT {
    private static final ObjectMapper JSON = new ObjectMapper();

    @TempDir
    private Path temp;

    @Test
    void quickstartShowsWhatItGenerated() {
        Outcome outcome = Repository.script("quickstart.sh");
        assertEquals(0, outcome.code(), outcome.output());
        assertTrue(outcome.output().contains("rows:           100\nerrors:         0\n"), outcome.output());
        assertTrue(outcome.output().contains("ROMEO"), outcome.output());
        assertTrue(outcome.output().contains("output:         " + Repository.TARGET.resolve("quickstart")));
    }

    @Test
    void generateGivesTheTokensOfTransformers() throws IOException {
        JsonNode generations = JSON.readTree(
                        Repository.TINY_V3.resolve("golden.json").toFile())
                .get("generations");
        Path input = temp.resolve("prompts with spaces.jsonl");
        List<String> lines = new ArrayList<>();
        for (JsonNode generation : generations) {
            lines.add(JSON.createObjectNode()
                    .put("prompt", generation.get("prompt").asText())
                    .toString());
        }
        Files.write(input, lines);
        Path output = temp.resolve("out");
        Outcome outcome = Repository.script(
                "generate.sh",
                "--conf",
                "spark.mla.batch.maxSequences=8",
                "--model",
                Repository.TINY_V3.toString(),
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
        assertEquals(0, outcome.code(), outcome.output());
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
    void aBadOptionIsExit2() {
        Outcome outcome = Repository.script("generate.sh", "--modle", "x");
        assertEquals(2, outcome.code(), outcome.output());
        assertTrue(outcome.output().contains("generate: "), outcome.output());
    }

    @Test
    void aBadModelIsExit1WithoutAStackTrace() {
        Outcome outcome = Repository.script(
                "generate.sh",
                "--model",
                temp.toString(),
                "--input",
                Repository.EXAMPLES.resolve("data/prompts.jsonl").toString(),
                "--output",
                temp.resolve("out").toString());
        assertEquals(1, outcome.code(), outcome.output());
        assertTrue(outcome.output().contains("generate: " + temp), outcome.output());
        assertTrue(!outcome.output().contains("\tat "), outcome.output());
    }
}
