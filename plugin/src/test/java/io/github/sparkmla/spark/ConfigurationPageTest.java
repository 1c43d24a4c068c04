package io.github.sparkmla.spark;

import static org.junit.jupiter.api.Assertions.assertEquals;

import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import org.junit.jupiter.api.Test;

class ConfigurationPageTest {
    @Test
    void theCommittedPageIsWhatTheDeclarationsSay() throws IOException {
        assertEquals(
                ConfigurationPage.render(),
                Files.readString(Path.of("../docs/configuration.md")),
                "docs/configuration.md is out of date: " + ConfigurationPage.COMMAND);
    }
}
