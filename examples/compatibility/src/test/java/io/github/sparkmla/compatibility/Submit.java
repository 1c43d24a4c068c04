package io.github.sparkmla.compatibility;

import static org.junit.jupiter.api.Assertions.assertEquals;

import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;

/** spark-submit of one Spark or another, in a JVM of its own. Tests run in the folder examples/compatibility. */
enum Submit {
    /** The Spark that the jar was built for. */
    BUILT_FOR(Path.of("../target/spark")),
    /** The one that this module's pom names. */
    OTHER(Path.of("target/spark"));

    static final Path MODEL = Path.of("../models/tiny-mla-v3").toAbsolutePath().normalize();

    private final Path home;

    Submit(Path home) {
        this.home = home.toAbsolutePath().normalize();
    }

    /** Runs to the end, which must be a good one, and gives what it printed to stdout. */
    String run(Path temp, String... args) throws IOException, InterruptedException {
        List<String> command = new ArrayList<>(List.of("java"));
        command.addAll(Arrays.asList(System.getProperty("jvm.options").split(" ")));
        command.addAll(List.of("-cp", home + "/jars/*", "org.apache.spark.deploy.SparkSubmit"));
        command.addAll(Arrays.asList(args));
        Path out = temp.resolve("out.log");
        Path err = temp.resolve("err.log");
        ProcessBuilder builder =
                new ProcessBuilder(command).redirectOutput(out.toFile()).redirectError(err.toFile());
        builder.environment().put("SPARK_HOME", home.toString());
        builder.environment().put("SPARK_SCALA_VERSION", "2.13");
        builder.environment().put("SPARK_LOCAL_IP", "127.0.0.1");
        int code = builder.start().waitFor();
        String printed = Files.readString(out);
        assertEquals(0, code, () -> printed + tail(err));
        return printed;
    }

    private static String tail(Path log) {
        try {
            List<String> lines = Files.readAllLines(log);
            return String.join("\n", lines.subList(Math.max(0, lines.size() - 60), lines.size()));
        } catch (IOException e) {
            return e.toString();
        }
    }
}
