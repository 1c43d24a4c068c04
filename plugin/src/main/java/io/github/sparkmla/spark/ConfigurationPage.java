package io.github.sparkmla.spark;

import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;

/** Writes docs/configuration.md from the declarations in {@link MlaConf}. */
final class ConfigurationPage {
    static final String COMMAND =
            "java -cp plugin/target/classes io.github.sparkmla.spark.ConfigurationPage docs/configuration.md";

    private ConfigurationPage() {}

    /** The page, in Markdown. */
    static String render() {
        StringBuilder page = new StringBuilder("""
                # Configuration

                Set these in `spark-defaults.conf`, with `--conf` or on the session. They are read on the driver when
                `transform` is called. A key that does not exist and a value that is not allowed fail there.

                This page is generated from `MlaConf.java`; edit that, build, and run

                    %s

                | key | default | allowed | meaning |
                |---|---|---|---|
                """.formatted(COMMAND));
        for (MlaConf.Key key : MlaConf.Key.values()) {
            page.append(
                    "| `%s` | `%s` | %s | %s |\n".formatted(key.key, key.defaultValue, key.type.allowed(), key.doc));
        }
        return page.toString();
    }

    /** The only argument is the file to write. */
    public static void main(String[] args) throws IOException {
        Files.writeString(Path.of(args[0]), render());
    }
}
