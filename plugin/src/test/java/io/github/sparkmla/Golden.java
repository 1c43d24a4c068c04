package io.github.sparkmla;

import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.ObjectMapper;
import java.io.IOException;
import java.io.UncheckedIOException;
import java.nio.file.Path;
import java.util.stream.StreamSupport;

/** The checkpoints that come with a golden.json, made by HF transformers in float32. */
public enum Golden {
    TINY_V3(Path.of("../examples/models/tiny-mla-v3")),
    TINY_V2_LITE(Path.of("src/test/resources/models/tiny-mla-v2-lite"));

    private final Path folder;

    Golden(Path folder) {
        this.folder = folder.toAbsolutePath().normalize();
    }

    public Path folder() {
        return folder;
    }

    /** The whole golden.json. */
    public JsonNode json() {
        return json(folder);
    }

    public static JsonNode json(Path folder) {
        try {
            return new ObjectMapper().readTree(folder.resolve("golden.json").toFile());
        } catch (IOException e) {
            throw new UncheckedIOException(e);
        }
    }

    public static int[] ints(JsonNode array) {
        return StreamSupport.stream(array.spliterator(), false)
                .mapToInt(JsonNode::asInt)
                .toArray();
    }
}
