package io.github.sparkmla.spark;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertTrue;
import static org.junit.jupiter.api.Assumptions.assumeTrue;

import io.github.sparkmla.Golden;
import io.github.sparkmla.engine.GpuProbe;
import java.io.ByteArrayOutputStream;
import java.io.IOException;
import java.io.PrintStream;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.Collections;
import java.util.List;
import java.util.Map;
import java.util.stream.IntStream;
import org.apache.spark.sql.Dataset;
import org.apache.spark.sql.Row;
import org.apache.spark.sql.SparkSession;
import org.junit.jupiter.api.AfterAll;
import org.junit.jupiter.api.BeforeAll;
import org.junit.jupiter.api.BeforeEach;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.Timeout;
import org.junit.jupiter.api.io.TempDir;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.CsvSource;

/** The command line, on a local session that is there already. */
@Timeout(300)
class GenerateJobTest {
    private static final String MODEL = Golden.TINY_V2_LITE.folder().toString();
    private static SparkSession spark;

    @TempDir
    private Path temp;

    private Path input;
    private Path output;

    private record Outcome(int code, String out, String err) {}

    @BeforeAll
    static void start() {
        spark = TestSpark.local("local[2]").getOrCreate();
    }

    @AfterAll
    static void stop() {
        spark.stop();
    }

    @BeforeEach
    void writeInput() throws IOException {
        input = temp.resolve("prompts.jsonl");
        output = temp.resolve("out");
        Files.writeString(input, """
                {"id": 1, "prompt": "ROMEO:"}
                {"id": 2, "prompt": null}
                {"id": 3, "prompt": "In the beginning"}
                {"id": 4, "prompt": ""}
                """);
    }

    private static Outcome run(String... args) {
        PrintStream out = System.out;
        PrintStream err = System.err;
        ByteArrayOutputStream capturedOut = new ByteArrayOutputStream();
        ByteArrayOutputStream capturedErr = new ByteArrayOutputStream();
        System.setOut(new PrintStream(capturedOut, true, StandardCharsets.UTF_8));
        System.setErr(new PrintStream(capturedErr, true, StandardCharsets.UTF_8));
        try {
            int code = GenerateJob.run(spark, args);
            return new Outcome(
                    code, capturedOut.toString(StandardCharsets.UTF_8), capturedErr.toString(StandardCharsets.UTF_8));
        } finally {
            System.setOut(out);
            System.setErr(err);
        }
    }

    private Outcome generate(String... more) {
        List<String> args = new ArrayList<>(List.of(more));
        Map<String, String> defaults = Map.of(
                "--model", MODEL, "--input", input.toString(), "--output", output.toString(), "--max-tokens", "4");
        defaults.forEach((option, value) -> {
            if (!args.contains(option)) {
                args.addAll(List.of(option, value));
            }
        });
        return run(args.toArray(String[]::new));
    }

    @Test
    void nothingGeneratedHasNoRateOfGeneration() throws IOException {
        Files.writeString(input, "{\"id\": 1, \"prompt\": \"\"}\n");
        Outcome outcome = generate();
        assertEquals(0, outcome.code, outcome.err);
        assertTrue(outcome.out.lines().anyMatch("output tokens:  0, 0.0 a second"::equals), outcome.out);
    }

    @Test
    void writesEveryRowAndSaysWhatItDid() throws IOException {
        Outcome outcome = generate("--show", "2");
        assertEquals(0, outcome.code, outcome.err);
        List<Row> rows = inFileOrder(output, "parquet");
        assertEquals(
                List.of(1L, 2L, 3L, 4L),
                rows.stream().map(row -> row.<Long>getAs("id")).toList());
        assertEquals(4, rows.get(2).<Row>getAs("generated").getInt(4));
        assertTrue(outcome.out.contains("errors:         2 (1 prompt is null, 1 prompt is empty)"), outcome.out);
        assertTrue(outcome.out.contains("rows:           4"), outcome.out);
        assertTrue(
                outcome.out
                        .lines()
                        .anyMatch(
                                line -> line.matches("output tokens:  8, [0-9.]+ a second; [0-9.]+ while generating")),
                outcome.out);
        assertTrue(
                outcome.out
                        .lines()
                        .anyMatch(
                                line -> line.matches("time: +[0-9.]+ s \\([0-9.]+ s to plan, [0-9.]+ to load the model,"
                                        + " [0-9.]+ to generate, [0-9.]+ to commit\\)")),
                outcome.out);
        assertTrue(outcome.out.contains("output:         " + output), outcome.out);
        assertTrue(outcome.out.contains("only showing") || outcome.out.contains("ROMEO:"), outcome.out);
    }

    @ParameterizedTest
    @CsvSource(
            delimiter = '|',
            value = {
                "--modle x | Unknown option|--model",
                "--max-tokens many | Invalid value for option '--max-tokens'|int",
                "--device gpu | Invalid value for option '--device'|cuda",
            })
    void aBadOptionIsExit2AndNamed(String option, String start, String suggestion) {
        Outcome outcome = generate(option.split(" "));
        assertEquals(2, outcome.code);
        assertTrue(outcome.err.startsWith("generate: " + start), outcome.err);
        assertTrue(outcome.err.contains(suggestion), outcome.err);
        assertFalse(Files.exists(output));
    }

    @Test
    void aMissingOptionIsExit2() {
        Outcome outcome = run("--model", MODEL);
        assertEquals(2, outcome.code);
        assertTrue(outcome.err.startsWith("generate: Missing required options: '--input"), outcome.err);
    }

    @ParameterizedTest
    @CsvSource(
            delimiter = '|',
            value = {
                "--input /no/such/file | --input /no/such/file does not exist",
                "--input-col text | inputCol 'text' is not a column of the input, which has: id, prompt",
                "--input-col id | inputCol 'id' is bigint, but must be string",
                "--model /no/such/model | /no/such/model",
                "--top-p 0 | ",
                "--output-col prompt | the output column 'prompt' is in the input already",
            })
    void whatTheUserGotWrongIsOneLineBeforeAnyWork(String option, String message) {
        Outcome outcome = generate(option.split(" "));
        assertEquals(1, outcome.code);
        assertEquals(1, outcome.err.lines().count(), outcome.err);
        assertTrue(outcome.err.contains(message == null ? "topP" : message), outcome.err);
        assertFalse(Files.exists(output));
    }

    @Test
    void anOutputThatExistsIsKeptUnlessToldOtherwise() {
        assertEquals(0, generate().code);
        Outcome refused = generate();
        assertEquals(1, refused.code);
        assertEquals(
                "generate: --output " + output + " exists: choose another, or say --overwrite to replace it",
                refused.err.strip());
        assertEquals(0, generate("--overwrite").code);
        assertEquals(0, generate("--mode", "overwrite").code);
    }

    @Test
    void cudaWithoutAGpuFailsOnTheDriver() {
        assumeTrue(hasNoGpu(), "this machine has a GPU");
        try {
            Outcome outcome = generate("--device", "cuda");
            assertEquals(1, outcome.code);
            assertEquals(1, outcome.err.lines().count(), outcome.err);
            assertTrue(
                    outcome.err.startsWith("generate: spark.mla.device is cuda, but GPU 0 cannot be used: "),
                    outcome.err);
            assertFalse(Files.exists(output));
        } finally {
            spark.conf().set("spark.mla.device", "cpu");
        }
    }

    private static boolean hasNoGpu() {
        try {
            GpuProbe.of(0);
            return false;
        } catch (RuntimeException e) {
            return true;
        }
    }

    @Test
    void aBadRowFailsTheJobWhereAskedTo() {
        Outcome outcome = generate("--fail-on-error", "--partitions", "1");
        assertEquals(1, outcome.code);
        assertTrue(outcome.err.contains("generate: the job failed: row 1 of partition 0: prompt is null"), outcome.err);
    }

    @Test
    void manyFilesKeepTheirOrderInEveryFormat() throws IOException {
        Path folder = Files.createDirectory(temp.resolve("many"));
        List<String> prompts = new ArrayList<>();
        for (int file = 0; file < 5; file++) {
            // Later files are larger: Spark would read the largest first.
            int first = prompts.size();
            IntStream.range(0, 10 * (file + 1)).forEach(i -> prompts.add("  King " + (first + i) + ", \"x\" "));
            Files.write(folder.resolve("part-" + file + ".txt"), prompts.subList(first, prompts.size()));
        }
        for (String format : List.of("parquet", "json", "csv")) {
            Outcome outcome = run(
                    "--model",
                    MODEL,
                    "--input",
                    folder.toString(),
                    "--output",
                    temp.resolve(format).toString(),
                    "--input-format",
                    "text",
                    "--output-format",
                    format,
                    "--partitions",
                    "3",
                    "--max-tokens",
                    "3");
            assertEquals(0, outcome.code, outcome.err);
            assertEquals(
                    prompts,
                    inFileOrder(temp.resolve(format), format).stream()
                            .map(row -> row.<String>getAs("prompt"))
                            .toList());
        }
    }

    @Test
    void everyTaskGetsAsManyRows() {
        Path prompts = temp.resolve("prompts");
        spark.range(0, 4000, 1, 2)
                .selectExpr("concat('King ', id) AS prompt")
                .write()
                .parquet(prompts.toString());
        JobFiles files = new JobFiles(
                spark,
                prompts.toString(),
                JobFiles.InputFormat.parquet,
                output.toString(),
                JobFiles.OutputFormat.parquet,
                false);
        List<Integer> sizes =
                files.read("prompt", 16).javaRDD().glom().map(List::size).collect();
        assertEquals(Collections.nCopies(16, 250), sizes);
    }

    private static List<Row> inFileOrder(Path folder, String format) throws IOException {
        List<Row> rows = new ArrayList<>();
        try (var files = Files.list(folder)) {
            for (Path file : files.filter(f -> f.getFileName().toString().startsWith("part-"))
                    .sorted()
                    .toList()) {
                rows.addAll(read(file, format).collectAsList());
            }
        }
        return rows;
    }

    private static Dataset<Row> read(Path path, String format) {
        return spark.read()
                .options(Map.of("header", "true", "multiLine", "" + format.equals("csv"), "escape", "\""))
                .format(format)
                .load(path.toString());
    }

    @Test
    void csvTakesTheResultApart() {
        assertEquals(0, generate("--output-format", "csv", "--logprobs", "1").code);
        Dataset<Row> rows = read(output, "csv");
        assertEquals(
                List.of(
                        "id",
                        "prompt",
                        "generated_text",
                        "generated_token_ids",
                        "generated_finish_reason",
                        "generated_prompt_tokens",
                        "generated_completion_tokens",
                        "generated_cached_tokens",
                        "generated_logprobs",
                        "generated_error"),
                Arrays.asList(rows.columns()));
        Row third = rows.where("id = 3").first();
        assertTrue(third.<String>getAs("generated_token_ids").matches("\\[\\d+,\\d+,\\d+,\\d+]"), third.toString());
        assertTrue(third.<String>getAs("generated_logprobs").startsWith("[{\"token_id\":"), third.toString());
    }

    @Test
    void csvRefusesNestedInputBeforeAnyWork() throws IOException {
        Files.writeString(input, "{\"prompt\": \"a\", \"tags\": [1, 2]}\n");
        Outcome outcome = generate("--output-format", "csv");
        assertEquals(1, outcome.code);
        assertEquals(
                "generate: --output-format csv cannot hold column 'tags' (array<bigint>): choose json or parquet",
                outcome.err.strip());
        assertFalse(Files.exists(output));
    }

    @Test
    void jsonKeepsColumnsThatAreNull() throws IOException {
        assertEquals(0, generate("--output-format", "json", "--partitions", "1").code);
        try (var files = Files.list(output)) {
            Path part = files.filter(f -> f.getFileName().toString().startsWith("part-"))
                    .findFirst()
                    .orElseThrow();
            assertTrue(Files.readAllLines(part).get(0).endsWith("\"logprobs\":null,\"error\":null}}"));
        }
    }
}
