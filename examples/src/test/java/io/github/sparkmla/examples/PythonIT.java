package io.github.sparkmla.examples;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assumptions.assumeTrue;

import io.github.sparkmla.examples.Repository.Outcome;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import org.junit.jupiter.api.BeforeAll;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.Timeout;

/** PySpark and the notebook, in a virtual environment with packages from PyPI. Skipped where there is no Python. */
@Timeout(1200)
class PythonIT {
    private static final Path VENV = Repository.TARGET.resolve("venv");
    private static final Path PYTHON = VENV.resolve("bin/python");
    private static final Path COMPLETE = VENV.resolve("complete");

    @BeforeAll
    static void install() throws Exception {
        Outcome venv = run("python3", "-c", "import ensurepip, venv");
        boolean ci = "true".equals(System.getenv("CI"));
        assumeTrue(ci || venv.code() == 0, "python3 with venv is not installed: " + venv.output());
        if (Files.exists(COMPLETE)) {
            return;
        }
        succeed("python3", "-m", "venv", "--clear", VENV.toString());
        String pyspark = "pyspark==" + System.getProperty("spark.version");
        succeed(
                PYTHON.toString(),
                "-m",
                "pip",
                "install",
                "-q",
                pyspark,
                "pandas",
                "matplotlib",
                "nbclient",
                "ipykernel");
        Files.createFile(COMPLETE);
    }

    @Test
    void pysparkGeneratesWhatTransformersDoes() {
        succeed(
                PYTHON.toString(),
                "src/test/python/generate.py",
                Repository.PLUGIN_JAR.toString(),
                Repository.TINY_V3.toString());
    }

    @Test
    void theNotebookRuns() {
        succeed(
                PYTHON.toString(),
                "src/test/python/run_notebook.py",
                Repository.EXAMPLES.resolve("notebooks/batch_scoring.ipynb").toString());
    }

    private static void succeed(String... command) {
        Outcome outcome = run(command);
        assertEquals(0, outcome.code(), String.join(" ", command) + "\n" + outcome.output());
    }

    private static Outcome run(String... command) {
        Map<String, String> environment = Map.of("SPARK_LOCAL_IP", "127.0.0.1", "PYSPARK_PYTHON", PYTHON.toString());
        return Repository.run(Repository.EXAMPLES, environment, new ArrayList<>(List.of(command)));
    }
}
