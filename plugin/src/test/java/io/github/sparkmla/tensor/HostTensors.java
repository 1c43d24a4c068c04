package io.github.sparkmla.tensor;

import org.bytedeco.javacpp.FloatPointer;
import org.bytedeco.javacpp.IntPointer;
import org.bytedeco.javacpp.LongPointer;
import org.bytedeco.javacpp.ShortPointer;

/** What lies in a tensor of the CPU, row by row, for tests. */
public final class HostTensors {
    private HostTensors() {}

    public static int[] ints(Tensor tensor) {
        int[] values = new int[elements(tensor)];
        new IntPointer(tensor.handle.data()).get(values);
        return values;
    }

    public static void put(Tensor tensor, int[] values) {
        new IntPointer(tensor.handle.data()).put(values);
    }

    public static long[] longs(Tensor tensor) {
        long[] values = new long[elements(tensor)];
        new LongPointer(tensor.handle.data()).get(values);
        return values;
    }

    public static float[] floats(Tensor tensor) {
        float[] values = new float[elements(tensor)];
        if (tensor.dtype() == DType.BF16) {
            short[] upper = new short[values.length];
            new ShortPointer(tensor.handle.data()).get(upper);
            for (int i = 0; i < values.length; i++) {
                values[i] = Float.intBitsToFloat(upper[i] << 16);
            }
        } else {
            new FloatPointer(tensor.handle.data()).get(values);
        }
        return values;
    }

    /** A packed tensor's. */
    private static int elements(Tensor tensor) {
        return (int) (tensor.bytes() / tensor.dtype().bytes());
    }
}
