package io.github.sparkmla.checkpoint;

import java.nio.file.Path;
import java.util.Arrays;

/**
 * Where a tensor lies; nothing of it has been read.
 *
 * @param name its name in the checkpoint
 * @param dtype its element type
 * @param shape its dimensions, row-major, little-endian; empty for a scalar
 * @param file the safetensors file that holds it
 * @param offset its first byte, counted from the start of the file
 * @param bytes its length, {@code dtype.bytes()} times the product of {@code shape}
 */
// An array, for shapes are compared with varargs; two infos are never compared as a whole.
@SuppressWarnings("ArrayRecordComponent")
public record TensorInfo(String name, DType dtype, long[] shape, Path file, long offset, long bytes) {
    @Override
    public String toString() {
        return name + " " + dtype + Arrays.toString(shape) + " in " + file + " at " + offset + ", " + bytes + " bytes";
    }
}
