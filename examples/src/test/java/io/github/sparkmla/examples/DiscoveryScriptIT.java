package io.github.sparkmla.examples;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertTrue;

import com.fasterxml.jackson.databind.ObjectMapper;
import io.github.sparkmla.examples.Repository.Outcome;
import java.nio.file.Files;
import java.nio.file.Path;
import java.nio.file.attribute.PosixFilePermissions;
import java.util.List;
import java.util.Map;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;

/** conf/getGpusResources.sh on machines that a pretended nvidia-smi describes. */
class DiscoveryScriptIT {
    private static final String SCRIPT =
            Repository.ROOT.resolve("conf/getGpusResources.sh").toString();

    @TempDir
    private Path temp;

    private Outcome discover(String nvidiaSmi) throws Exception {
        Path program = temp.resolve("nvidia-smi");
        Files.writeString(program, "#!/bin/sh\n" + nvidiaSmi + "\n");
        Files.setPosixFilePermissions(program, PosixFilePermissions.fromString("rwxr-xr-x"));
        return Repository.run(temp, Map.of("PATH", temp + ":" + System.getenv("PATH")), List.of(SCRIPT));
    }

    @Test
    void hopperCardsAreListedAndNoOthers() throws Exception {
        Outcome outcome = discover("printf '0, 9.0\\n1, 8.0\\n2, 9.0\\n3, 10.0\\n'");
        assertEquals(0, outcome.code(), outcome.output());
        ObjectMapper json = new ObjectMapper();
        assertEquals(
                json.readTree("{\"name\": \"gpu\", \"addresses\": [\"0\", \"2\"]}"), json.readTree(outcome.output()));
    }

    @Test
    void aMachineWithoutOneHasNone() throws Exception {
        assertTrue(discover("echo '0, 8.9'").output().contains("\"addresses\": []"));
    }

    @Test
    void withoutADriverTheScriptFails() throws Exception {
        assertTrue(discover("echo 'no driver' >&2; exit 9").code() != 0);
    }
}
