package io.github.sparkmla.checkpoint;

import com.fasterxml.jackson.databind.JsonNode;
import java.io.IOException;
import java.nio.ByteBuffer;
import java.nio.ByteOrder;
import java.nio.channels.FileChannel;
import java.nio.file.Files;
import java.nio.file.Path;
import java.nio.file.StandardOpenOption;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.Comparator;
import java.util.List;
import java.util.Map;
import java.util.TreeMap;

/**
 * Reads the header of one safetensors file: 8 bytes little-endian length, that many bytes of JSON, then the tensors'
 * bytes without gaps. What the format's own reader refuses is refused here.
 *
 * <p>Source: the format's description in the safetensors project.
 */
final class SafetensorsHeader {
    /** The longest header that the format's own reader takes. */
    private static final long MAX_HEADER_BYTES = 100_000_000;

    private static final int LENGTH_BYTES = 8;
    private static final String METADATA = "__metadata__";

    private final Path file;

    private SafetensorsHeader(Path file) {
        this.file = file;
    }

    /** The tensors of a file by name; throws {@link CheckpointException}. */
    static Map<String, TensorInfo> read(Path file) {
        return new SafetensorsHeader(file).read();
    }

    private Map<String, TensorInfo> read() {
        if (!Files.isRegularFile(file)) {
            throw wrong("not a regular file");
        }
        try (FileChannel channel = FileChannel.open(file, StandardOpenOption.READ)) {
            long fileBytes = channel.size();
            byte[] header = readHeader(channel, fileBytes);
            long dataStart = (long) LENGTH_BYTES + header.length;
            JsonObject json = JsonObject.parse(file, "the safetensors header", header);
            Map<String, TensorInfo> tensors = new TreeMap<>();
            for (Map.Entry<String, JsonNode> entry : json.node().properties()) {
                if (!entry.getKey().equals(METADATA)) {
                    tensors.put(entry.getKey(), tensor(json.object(entry.getKey()), entry.getKey(), dataStart));
                }
            }
            checkLayout(tensors, dataStart, fileBytes);
            return tensors;
        } catch (IOException e) {
            throw new CheckpointException(file + ": cannot be read (" + e.getMessage() + ")", e);
        }
    }

    private byte[] readHeader(FileChannel channel, long fileBytes) throws IOException {
        if (fileBytes < LENGTH_BYTES) {
            throw wrong("truncated, " + fileBytes + " bytes are too few for a safetensors file");
        }
        long length = readFully(channel, 0, LENGTH_BYTES)
                .order(ByteOrder.LITTLE_ENDIAN)
                .getLong();
        if (length < 2 || length > MAX_HEADER_BYTES) {
            throw wrong("not a safetensors file: header length " + Long.toUnsignedString(length) + ", expected 2 to "
                    + MAX_HEADER_BYTES);
        }
        if (length > fileBytes - LENGTH_BYTES) {
            throw wrong("truncated inside the header: " + (LENGTH_BYTES + length) + " bytes expected, the file has "
                    + fileBytes);
        }
        return readFully(channel, LENGTH_BYTES, (int) length).array();
    }

    private ByteBuffer readFully(FileChannel channel, long position, int bytes) throws IOException {
        ByteBuffer buffer = ByteBuffer.allocate(bytes);
        while (buffer.hasRemaining()) {
            if (channel.read(buffer, position + buffer.position()) < 0) {
                throw wrong("shrank while it was read");
            }
        }
        return buffer.flip();
    }

    private TensorInfo tensor(JsonObject entry, String name, long dataStart) {
        DType dtype = dtype(entry);
        long[] shape = longs(entry, "shape");
        long[] offsets = longs(entry, "data_offsets");
        if (offsets.length != 2 || offsets[1] < offsets[0]) {
            throw entry.wrong("data_offsets", "two integers, begin and end");
        }
        long bytes = offsets[1] - offsets[0];
        if (bytes != byteSize(entry, dtype, shape)) {
            throw entry.wrong(
                    "data_offsets",
                    byteSize(entry, dtype, shape) + " bytes for " + dtype + " " + Arrays.toString(shape) + ", not "
                            + bytes);
        }
        if (offsets[1] > Long.MAX_VALUE - dataStart) {
            throw entry.wrong("data_offsets", "offsets inside the file");
        }
        return new TensorInfo(name, dtype, shape, file, dataStart + offsets[0], bytes);
    }

    private static DType dtype(JsonObject entry) {
        String name = entry.string("dtype");
        for (DType dtype : DType.values()) {
            if (dtype.name().equals(name)) {
                return dtype;
            }
        }
        throw entry.wrong("dtype", "one of " + Arrays.toString(DType.values()));
    }

    private static long[] longs(JsonObject entry, String key) {
        JsonNode array = entry.get(key);
        if (array == null || !array.isArray()) {
            throw entry.wrong(key, "a list of non-negative integers");
        }
        long[] values = new long[array.size()];
        for (int i = 0; i < values.length; i++) {
            JsonNode value = array.get(i);
            if (!value.isIntegralNumber() || !value.canConvertToLong() || value.longValue() < 0) {
                throw entry.wrong(key, "a list of non-negative integers");
            }
            values[i] = value.longValue();
        }
        return values;
    }

    private static long byteSize(JsonObject entry, DType dtype, long[] shape) {
        try {
            long bytes = dtype.bytes();
            for (long dimension : shape) {
                bytes = Math.multiplyExact(bytes, dimension);
            }
            return bytes;
        } catch (ArithmeticException e) {
            throw entry.wrong("shape", "a size that fits 63 bits");
        }
    }

    /** The tensors must fill the rest of the file: neither overlap nor leave holes where something could hide. */
    private void checkLayout(Map<String, TensorInfo> tensors, long dataStart, long fileBytes) {
        List<TensorInfo> inOrder = new ArrayList<>(tensors.values());
        inOrder.sort(Comparator.comparingLong(TensorInfo::offset).thenComparingLong(TensorInfo::bytes));
        long end = dataStart;
        for (TensorInfo tensor : inOrder) {
            if (tensor.offset() != end) {
                String fault = tensor.offset() < end ? "overlaps the tensor before it" : "leaves a hole before it";
                throw wrong("tensor \"" + tensor.name() + "\" " + fault + ": it begins at byte " + tensor.offset()
                        + " of the file, expected " + end);
            }
            end += tensor.bytes();
            if (end > fileBytes) {
                throw wrong("truncated: tensor \"" + tensor.name() + "\" ends at byte " + end + ", the file has "
                        + fileBytes);
            }
        }
        if (end != fileBytes) {
            throw wrong((fileBytes - end) + " bytes after the last tensor, expected none");
        }
    }

    private CheckpointException wrong(String fault) {
        return new CheckpointException(file + ": " + fault);
    }
}
