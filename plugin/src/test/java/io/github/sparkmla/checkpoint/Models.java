package io.github.sparkmla.checkpoint;

import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.ObjectMapper;
import com.fasterxml.jackson.databind.node.ObjectNode;
import java.io.IOException;
import java.io.UncheckedIOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.List;
import java.util.stream.Stream;

/** The two small checkpoints, and the golden files beside these tests. */
public final class Models {
    static final Path TINY_V3 = Path.of("../examples/models/tiny-mla-v3");
    static final Path TINY_V2_LITE = Path.of("src/test/resources/models/tiny-mla-v2-lite");
    static final List<Path> ALL = List.of(TINY_V3, TINY_V2_LITE);

    private static final Path GOLDENS = Path.of("src/test/resources/checkpoint");
    private static final ObjectMapper MAPPER = new ObjectMapper();

    private Models() {}

    static JsonNode golden(String name) {
        return json(GOLDENS.resolve(name));
    }

    static JsonNode json(Path file) {
        try {
            return MAPPER.readTree(file.toFile());
        } catch (IOException e) {
            throw new UncheckedIOException(e);
        }
    }

    /** A copy of a checkpoint that a test may damage. */
    public static Path copy(Path model, Path folder) throws IOException {
        try (Stream<Path> files = Files.list(model)) {
            for (Path file : files.toList()) {
                Files.copy(file, folder.resolve(file.getFileName().toString()));
            }
        }
        return folder;
    }

    /** Sets the keys of {@code changes} in a JSON file of a copied checkpoint. */
    static void change(Path file, JsonNode changes) throws IOException {
        ObjectNode json = (ObjectNode) json(file);
        json.setAll((ObjectNode) changes);
        MAPPER.writeValue(file.toFile(), json);
    }

    static int[] ints(JsonNode array) {
        int[] values = new int[array.size()];
        for (int i = 0; i < values.length; i++) {
            values[i] = array.get(i).intValue();
        }
        return values;
    }
}
