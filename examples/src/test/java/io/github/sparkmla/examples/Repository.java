package io.github.sparkmla.examples;

import java.io.IOException;
import java.io.UncheckedIOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;

/** Where things are, and how to run a program among them as a user would. Tests run in the folder examples. */
final class Repository {
    static final Path EXAMPLES = Path.of("").toAbsolutePath();
    static final Path ROOT = EXAMPLES.getParent();
    static final Path TINY_V3 = EXAMPLES.resolve("models/tiny-mla-v3");
    static final Path TINY_V2_LITE = ROOT.resolve("plugin/src/test/resources/models/tiny-mla-v2-lite");
    static final Path PLUGIN_JAR = Path.of(System.getProperty("plugin.jar")).normalize();
    static final Path TARGET = EXAMPLES.resolve("target");

    private Repository() {}

    /** How a program ended, with what it printed on either stream. */
    record Outcome(int code, String output) {}

    /** Runs a program to its end, in a folder, with more environment variables. */
    static Outcome run(Path folder, Map<String, String> environment, List<String> command) {
        try {
            Path log = Files.createTempFile(TARGET, "run", ".log");
            ProcessBuilder builder = new ProcessBuilder(command)
                    .directory(folder.toFile())
                    .redirectErrorStream(true)
                    .redirectOutput(log.toFile());
            // The scripts' own Spark, whatever the tests run on.
            builder.environment().remove("SPARK_HOME");
            builder.environment().remove("SPARK_SCALA_VERSION");
            builder.environment().putAll(environment);
            int code = builder.start().waitFor();
            return new Outcome(code, Files.readString(log));
        } catch (IOException e) {
            throw new UncheckedIOException(e);
        } catch (InterruptedException e) {
            throw new IllegalStateException(e);
        }
    }

    /** Runs a script of the folder examples from another folder, as nobody should have to care. */
    static Outcome script(String name, String... args) {
        List<String> command = new ArrayList<>(List.of(EXAMPLES.resolve(name).toString()));
        command.addAll(List.of(args));
        return run(Path.of("/"), Map.of(), command);
    }
}
