package io.github.sparkmla.checkpoint;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertTrue;

import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.ObjectMapper;
import com.fasterxml.jackson.databind.node.ArrayNode;
import com.fasterxml.jackson.databind.node.ContainerNode;
import com.fasterxml.jackson.databind.node.ObjectNode;
import java.io.IOException;
import java.nio.ByteBuffer;
import java.nio.ByteOrder;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import java.util.Random;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;

/** Whatever is done to the files, they load or a {@link CheckpointException} says why not; nothing else is thrown. */
class HostileCheckpointTest {
    private static final long SEED = 20261121;
    private static final ObjectMapper MAPPER = new ObjectMapper();

    private static final List<String> VALUES = List.of(
            "null",
            "true",
            "0",
            "-1",
            "1",
            "2147483647",
            "2147483648",
            "9223372036854775808",
            "1e-320",
            "1.5",
            "1e308",
            "1e999",
            "\"\"",
            "\"x\\u0000\\ud800\"",
            "[]",
            "[null]",
            "[3, \"a\", {}]",
            "{}",
            "{\"a\": [1]}");

    @TempDir
    Path folder;

    private int refused;

    /** Runs what loads a file, and counts whether it was refused. */
    private void attempt(Runnable load, String what) {
        try {
            load.run();
        } catch (CheckpointException e) {
            refused++;
            assertTrue(e.getMessage().startsWith(folder.toString()), what + ": " + e.getMessage());
        } catch (RuntimeException | Error e) {
            throw new AssertionError("seed " + SEED + ", " + what, e);
        }
    }

    @Test
    void everyKeyOfAConfigurationWithEveryKindOfValue() throws IOException {
        List<JsonNode> configs = new ArrayList<>();
        configs.add(Models.json(Models.TINY_V3.resolve("config.json")));
        for (JsonNode entry : Models.golden("configs.json").get("cases")) {
            configs.add(entry.get("config"));
        }
        int loads = 0;
        for (JsonNode config : configs) {
            loads += everyKey((ObjectNode) config, (ObjectNode) config);
        }
        System.out.println("hostile configurations: " + loads + ", refused " + refused);
        assertTrue(loads > 5000 && refused > loads / 2);
    }

    private int everyKey(ObjectNode config, ObjectNode part) throws IOException {
        int loads = 0;
        for (Map.Entry<String, JsonNode> entry : List.copyOf(part.properties())) {
            // The entry is a view: its value changes with the part.
            JsonNode original = entry.getValue();
            if (original instanceof ObjectNode inner) {
                loads += everyKey(config, inner);
            }
            for (String value : VALUES) {
                part.set(entry.getKey(), MAPPER.readTree(value));
                Files.write(folder.resolve("config.json"), MAPPER.writeValueAsBytes(config));
                attempt(() -> ModelConfig.load(folder), config.toString());
                loads++;
            }
            part.set(entry.getKey(), original);
        }
        return loads;
    }

    @Test
    void flippedBytesOfASafetensorsHeader() throws IOException {
        String header = "{\"__metadata__\":{\"format\":\"pt\"},"
                + "\"a\":{\"dtype\":\"BF16\",\"shape\":[2,3],\"data_offsets\":[0,12]},"
                + "\"b\":{\"dtype\":\"F32\",\"shape\":[],\"data_offsets\":[12,16]},"
                + "\"c\":{\"dtype\":\"F8_E4M3\",\"shape\":[0,7],\"data_offsets\":[16,16]}}";
        ByteBuffer good = ByteBuffer.allocate(8 + header.length() + 16).order(ByteOrder.LITTLE_ENDIAN);
        good.putLong(header.length()).put(header.getBytes(StandardCharsets.US_ASCII));
        Path file = folder.resolve("model.safetensors");
        Files.write(file, good.array());
        assertEquals(3, Safetensors.open(folder).tensors().size());
        Random random = new Random(SEED);
        for (int i = 0; i < 5_000; i++) {
            byte[] bad = good.array().clone();
            for (int flips = 1 + random.nextInt(3); flips > 0; flips--) {
                int at = random.nextInt(8 + header.length());
                bad[at] = random.nextBoolean()
                        ? (byte) "0123456789[]{},\":-e".charAt(random.nextInt(19))
                        : (byte) random.nextInt();
            }
            Files.write(file, bad);
            attempt(
                    () -> assertInside(Safetensors.open(folder), bad.length),
                    new String(bad, StandardCharsets.ISO_8859_1));
        }
        System.out.println("hostile headers: 5000, refused " + refused);
        assertTrue(refused > 2_500);
    }

    private static void assertInside(Safetensors tensors, long fileBytes) {
        for (TensorInfo info : tensors.tensors().values()) {
            assertTrue(info.offset() >= 8 && info.bytes() >= 0 && info.bytes() <= fileBytes - info.offset());
        }
    }

    @Test
    void mutatedTokenizers() throws IOException {
        Random random = new Random(SEED);
        for (int i = 0; i < 150; i++) {
            ObjectNode json = (ObjectNode) Models.json(Models.TINY_V3.resolve("tokenizer.json"));
            String mutation = mutate(json, random);
            Files.write(folder.resolve("tokenizer.json"), MAPPER.writeValueAsBytes(json));
            attempt(
                    () -> {
                        try (Tokenizer tokenizer = Tokenizer.open(folder)) {
                            tokenizer.decode(tokenizer.encode("The king <｜User｜> 12 é", true), true);
                        }
                    },
                    "mutation " + i + ": " + mutation);
        }
        System.out.println("hostile tokenizers: 150, refused " + refused);
        assertTrue(refused > 50);
    }

    /** Replaces or removes a value somewhere in the tree, seldom in the long lists of vocabulary and merges. */
    private static String mutate(ObjectNode json, Random random) throws IOException {
        List<ContainerNode<?>> nodes = new ArrayList<>();
        collect(json, nodes);
        ContainerNode<?> node = nodes.get(random.nextInt(nodes.size()));
        JsonNode value = MAPPER.readTree(VALUES.get(random.nextInt(VALUES.size())));
        if (node instanceof ArrayNode array) {
            int at = random.nextInt(array.size());
            array.set(at, value);
            return "[" + at + "] = " + value;
        }
        List<String> keys = new ArrayList<>();
        node.fieldNames().forEachRemaining(keys::add);
        String key = keys.get(random.nextInt(keys.size()));
        if (random.nextInt(5) == 0) {
            ((ObjectNode) node).remove(key);
            return key + " removed";
        }
        ((ObjectNode) node).set(key, value);
        return key + " = " + value;
    }

    private static void collect(JsonNode node, List<ContainerNode<?>> nodes) {
        if (node instanceof ContainerNode<?> container && !container.isEmpty()) {
            nodes.add(container);
            // The merges are two thousand lists of the same kind.
            for (int i = 0; node.isArray() && i < Math.min(node.size(), 5); i++) {
                collect(node.get(i), nodes);
            }
            node.properties().forEach(entry -> collect(entry.getValue(), nodes));
        }
    }
}
