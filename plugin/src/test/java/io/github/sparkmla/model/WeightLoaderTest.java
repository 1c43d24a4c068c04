package io.github.sparkmla.model;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import io.github.sparkmla.checkpoint.Checkpoint;
import io.github.sparkmla.checkpoint.CheckpointException;
import io.github.sparkmla.checkpoint.Models;
import java.io.IOException;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.Map;
import org.junit.jupiter.api.BeforeEach;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.CsvSource;

/** What a checkpoint must hold is checked from its headers alone, on any machine. */
class WeightLoaderTest {
    private static final Path SOURCE = Path.of("src/test/resources/models/tiny-k2");

    @TempDir
    Path folder;

    @BeforeEach
    void copy() throws IOException {
        Models.copy(SOURCE, folder);
    }

    /** Renames a tensor in the header, or changes its shape, keeping the length of the file. */
    private void replaceInHeader(String old, String with) throws IOException {
        assertEquals(old.length(), with.length());
        Path file = folder.resolve("model.safetensors");
        byte[] bytes = Files.readAllBytes(file);
        String text = new String(bytes, StandardCharsets.ISO_8859_1);
        assertTrue(text.contains(old), old);
        Files.write(file, text.replace(old, with).getBytes(StandardCharsets.ISO_8859_1));
    }

    private String refusal() {
        return assertThrows(CheckpointException.class, () -> MlaModel.check(Checkpoint.open(folder)))
                .getMessage();
    }

    @Test
    void aGoodCheckpointPassesAndItsUnusedTensorsAreNamedByModule() {
        Checkpoint checkpoint = Checkpoint.open(folder);
        WeightLoader loader = WeightLoader.checking(checkpoint);
        Weights unused = Weights.of(checkpoint.config(), loader);
        assertEquals(Map.of("model.layers.3.*", 2), loader.unused());
    }

    @ParameterizedTest
    @CsvSource({
        "model.norm.weight, model.nurm.weight, 'tensor \"model.norm.weight\" is missing, expected shape [48]'",
        "layers.1.mlp.experts.7.up_proj.weight, layers.1.mlp.experts.x.up_proj.weight, "
                + "'\"model.layers.1.mlp.experts.7.up_proj.weight\" is missing, expected shape [24, 48]'",
        "layers.2.mlp.gate.e_score_correction_bias, layers.2.mlp.gate.e_score_correction_bios, "
                + "'\"model.layers.2.mlp.gate.e_score_correction_bias\" is missing, expected shape [12]'",
        "'\"shape\":[128,48]', '\"shape\":[48,128]', 'has shape [48, 128], expected [128, 48]'",
    })
    void whatIsMissingOrMisshapenIsNamed(String old, String with, String message) throws IOException {
        replaceInHeader(old, with);
        String refusal = refusal();
        assertTrue(refusal.contains(message), refusal);
        assertTrue(refusal.startsWith(folder.toString()), refusal);
    }
}
