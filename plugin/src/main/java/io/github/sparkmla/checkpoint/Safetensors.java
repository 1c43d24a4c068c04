package io.github.sparkmla.checkpoint;

import com.fasterxml.jackson.databind.JsonNode;
import java.nio.file.Files;
import java.nio.file.InvalidPathException;
import java.nio.file.Path;
import java.util.Arrays;
import java.util.Collections;
import java.util.HashMap;
import java.util.Map;
import java.util.TreeMap;

/**
 * The tensors of a checkpoint folder by name: where each lies, not what it holds.
 *
 * <p>Everything about a file is checked when it is opened, so that whoever maps a tensor afterwards may trust its
 * {@link TensorInfo}. Names in the index are names of files in the folder and nothing else; the files themselves may be
 * links, as in the Hugging Face cache.
 */
public final class Safetensors {
    static final String SINGLE_FILE = "model.safetensors";
    static final String INDEX_FILE = "model.safetensors.index.json";

    private final Path folder;
    private final Map<String, TensorInfo> tensors;

    private Safetensors(Path folder, Map<String, TensorInfo> tensors) {
        this.folder = folder;
        this.tensors = Collections.unmodifiableMap(tensors);
    }

    /**
     * Reads the header of model.safetensors, or those of the shards that model.safetensors.index.json names. Throws
     * {@link CheckpointException} on a file that is missing, damaged or hostile.
     */
    public static Safetensors open(Path folder) {
        Path single = folder.resolve(SINGLE_FILE);
        if (Files.exists(single)) {
            return new Safetensors(folder, SafetensorsHeader.read(single));
        }
        Path index = folder.resolve(INDEX_FILE);
        if (Files.exists(index)) {
            return new Safetensors(folder, readShards(folder, JsonObject.read(index)));
        }
        throw new CheckpointException(folder + ": no weights, looked for " + SINGLE_FILE + " and " + INDEX_FILE
                + " (weights in other formats have to be converted to safetensors)");
    }

    /** No tensors at all. */
    static Safetensors none(Path folder) {
        return new Safetensors(folder, Map.of());
    }

    private static Map<String, TensorInfo> readShards(Path folder, JsonObject index) {
        Map<String, TensorInfo> tensors = new TreeMap<>();
        Map<String, Map<String, TensorInfo>> shards = new HashMap<>();
        JsonObject weightMap = index.object("weight_map");
        if (weightMap.node().isEmpty()) {
            throw index.wrong("weight_map", "at least one tensor");
        }
        for (Map.Entry<String, JsonNode> entry : weightMap.node().properties()) {
            String tensor = entry.getKey();
            String shard = weightMap.string(tensor);
            TensorInfo info = shards.computeIfAbsent(shard, name -> readShard(folder, weightMap, tensor, name))
                    .get(tensor);
            if (info == null) {
                throw weightMap.wrong(tensor, "a file that holds this tensor; " + folder.resolve(shard) + " does not");
            }
            tensors.put(tensor, info);
        }
        return tensors;
    }

    private static Map<String, TensorInfo> readShard(Path folder, JsonObject weightMap, String tensor, String shard) {
        if (!isPlainFileName(shard)) {
            throw weightMap.wrong(tensor, "the name of a file in the same folder");
        }
        Path file = folder.resolve(shard);
        if (!Files.exists(file)) {
            throw new CheckpointException(
                    file + ": no such file, but " + weightMap.file() + " names it as the shard of \"" + tensor + "\"");
        }
        return SafetensorsHeader.read(file);
    }

    private static boolean isPlainFileName(String name) {
        try {
            Path path = Path.of(name);
            return path.getNameCount() == 1
                    && !path.isAbsolute()
                    && path.equals(path.getFileName())
                    && !name.isEmpty()
                    && !name.equals(".")
                    && !name.equals("..")
                    && name.indexOf('/') < 0
                    && name.indexOf('\\') < 0;
        } catch (InvalidPathException e) {
            return false;
        }
    }

    /** Every tensor by name, in the order of the names. */
    public Map<String, TensorInfo> tensors() {
        return tensors;
    }

    /** Whether there is such a tensor. */
    public boolean contains(String name) {
        return tensors.containsKey(name);
    }

    /** The tensor of this name; throws {@link CheckpointException} where it is missing or has another shape. */
    public TensorInfo require(String name, long... shape) {
        TensorInfo info = tensors.get(name);
        if (info == null) {
            throw new CheckpointException(folder + ": tensor \"" + name + "\" is missing, expected shape "
                    + Arrays.toString(shape) + " by config.json");
        }
        if (!Arrays.equals(info.shape(), shape)) {
            throw new CheckpointException(info.file() + ": tensor \"" + name + "\" has shape "
                    + Arrays.toString(info.shape()) + ", expected " + Arrays.toString(shape) + " by config.json");
        }
        return info;
    }
}
