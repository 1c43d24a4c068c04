package io.github.sparkmla.checkpoint;

import static org.junit.jupiter.api.Assertions.assertArrayEquals;
import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.node.JsonNodeFactory;
import com.fasterxml.jackson.databind.node.ObjectNode;
import java.io.IOException;
import java.io.RandomAccessFile;
import java.nio.ByteBuffer;
import java.nio.ByteOrder;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.security.MessageDigest;
import java.util.HexFormat;
import java.util.List;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.FieldSource;

/** Checkpoints that are good: whole, in shards, behind links, quantized. */
class CheckpointTest {
    static final List<Path> MODELS = Models.ALL;

    @TempDir
    Path folder;

    @ParameterizedTest
    @FieldSource("MODELS")
    void opens(Path model) {
        Checkpoint checkpoint = Checkpoint.open(model);
        assertEquals(model, checkpoint.folder());
        assertEquals(checkpoint.config().maxPositions(), checkpoint.maxPositions());
        assertTrue(checkpoint.chatTemplate().isPresent());
        assertTrue(checkpoint.tensors().contains("model.embed_tokens.weight"));
        try (Tokenizer tokenizer = checkpoint.openTokenizer()) {
            assertTrue(tokenizer.encode("king", false).length > 0);
        }
    }

    @Test
    void tensorsLieWhereTheSafetensorsLibraryFindsThem() throws Exception {
        assertTensors(Safetensors.open(Models.TINY_V3), Models.TINY_V3.resolve("model.safetensors"));
    }

    private static void assertTensors(Safetensors tensors, Path file) throws Exception {
        JsonNode expected = Models.golden("tensors.json");
        assertEquals(expected.size(), tensors.tensors().size());
        try (RandomAccessFile data = new RandomAccessFile(file.toFile(), "r")) {
            for (TensorInfo info : tensors.tensors().values()) {
                JsonNode tensor = expected.path(info.name());
                assertEquals(tensor.path("dtype").asText(), info.dtype().name(), info.name());
                long[] shape = new long[tensor.path("shape").size()];
                for (int i = 0; i < shape.length; i++) {
                    shape[i] = tensor.path("shape").get(i).asLong();
                }
                assertArrayEquals(shape, info.shape(), info.name());
                assertEquals(file, info.file());
                byte[] bytes = new byte[Math.toIntExact(info.bytes())];
                data.seek(info.offset());
                data.readFully(bytes);
                byte[] sha = MessageDigest.getInstance("SHA-256").digest(bytes);
                assertEquals(tensor.path("sha256").asText(), HexFormat.of().formatHex(sha, 0, 8), info.name());
            }
        }
    }

    @Test
    void theIndexSaysWhichShardHoldsATensor() throws Exception {
        Files.copy(Models.TINY_V3.resolve("model.safetensors"), folder.resolve("first.safetensors"));
        Files.copy(Models.TINY_V2_LITE.resolve("model.safetensors"), folder.resolve("second.safetensors"));
        ObjectNode map = JsonNodeFactory.instance.objectNode();
        map.put("lm_head.weight", "first.safetensors").put("model.norm.weight", "second.safetensors");
        index(map);
        Safetensors tensors = Safetensors.open(folder);
        assertEquals(
                List.of("lm_head.weight", "model.norm.weight"),
                List.copyOf(tensors.tensors().keySet()));
        // Both shards hold both tensors; the hidden sizes are 192 and 128.
        assertEquals(
                folder.resolve("first.safetensors"),
                tensors.require("lm_head.weight", 2048, 192).file());
        assertEquals(
                folder.resolve("second.safetensors"),
                tensors.require("model.norm.weight", 128).file());
        assertFalse(tensors.contains("model.embed_tokens.weight"));
    }

    private void index(ObjectNode map) throws IOException {
        ObjectNode index = JsonNodeFactory.instance.objectNode();
        index.putObject("metadata").put("total_size", 1);
        index.set("weight_map", map);
        Files.writeString(folder.resolve("model.safetensors.index.json"), index.toString());
    }

    @Test
    void filesMayBeLinksAsInTheHuggingFaceCache() throws Exception {
        Path blobs = Models.copy(Models.TINY_V3, Files.createDirectory(folder.resolve("blobs")));
        Path snapshot = Files.createDirectories(folder.resolve("snapshots/1"));
        for (String name : List.of("config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json")) {
            Files.createSymbolicLink(snapshot.resolve(name), Path.of("../../blobs", name));
        }
        assertEquals(blobs.getParent(), folder);
        assertTensors(Checkpoint.open(snapshot).tensors(), snapshot.resolve("model.safetensors"));
    }

    @Test
    void fp8WeightsNeedTheirScales() throws IOException {
        fp8Checkpoint("[3,2]");
        assertEquals(
                DType.F8_E4M3,
                Checkpoint.open(folder).tensors().require("a.weight", 257, 130).dtype());
        fp8Checkpoint("[2,3]");
        String message = assertThrows(CheckpointException.class, () -> Checkpoint.open(folder))
                .getMessage();
        assertEquals(
                folder.resolve("model.safetensors")
                        + ": tensor \"a.weight_scale_inv\" has shape [2, 3], expected [3, 2] by config.json",
                message);
    }

    /** 257 x 130 weights: three by two blocks of 128, with ragged edges. */
    private void fp8Checkpoint(String scaleShape) throws IOException {
        for (String name : List.of("config.json", "tokenizer.json")) {
            Files.deleteIfExists(folder.resolve(name));
            Files.copy(Models.TINY_V3.resolve(name), folder.resolve(name));
        }
        ObjectNode changes = JsonNodeFactory.instance.objectNode();
        ObjectNode quantization = changes.putObject("quantization_config").put("quant_method", "fp8");
        quantization.putArray("weight_block_size").add(128).add(128);
        Models.change(folder.resolve("config.json"), changes);
        String header = "{\"a.weight\":{\"dtype\":\"F8_E4M3\",\"shape\":[257,130],\"data_offsets\":[0,33410]},"
                + "\"a.weight_scale_inv\":{\"dtype\":\"F32\",\"shape\":" + scaleShape
                + ",\"data_offsets\":[33410,33434]}}";
        ByteBuffer bytes = ByteBuffer.allocate(8 + header.length() + 33434).order(ByteOrder.LITTLE_ENDIAN);
        bytes.putLong(header.length()).put(header.getBytes(StandardCharsets.UTF_8));
        Files.write(folder.resolve("model.safetensors"), bytes.array());
    }
}
