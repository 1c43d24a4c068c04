package io.github.sparkmla.tensor;

import static io.github.sparkmla.tensor.NativeException.check;

import io.github.sparkmla.natives.Mla;
import java.nio.ByteBuffer;
import java.nio.ByteOrder;
import java.nio.FloatBuffer;
import java.nio.IntBuffer;
import java.nio.LongBuffer;
import org.bytedeco.javacpp.BytePointer;

/** A device tensor with a host copy beside it, for what crosses between Java and the device at every step. */
public final class Staged implements AutoCloseable {
    private final Device owner;
    private final Tensor tensor;
    private final BytePointer host;
    private final IntBuffer ints;
    private final LongBuffer longs;
    private final FloatBuffer floats;
    private final int rowBytes;

    public Staged(Device device, DType dtype, long... shape) {
        this.owner = device;
        this.tensor = device.allocate(dtype, shape);
        long size = dtype.bytes() * Tensor.elements(shape);
        this.host = new BytePointer(size);
        ByteBuffer bytes = host.asByteBuffer().order(ByteOrder.nativeOrder());
        this.ints = bytes.asIntBuffer();
        this.longs = bytes.asLongBuffer();
        this.floats = bytes.asFloatBuffer();
        this.rowBytes = (int) (size / shape[0]);
    }

    /** The device's copy; its outermost size is that of the last {@link #upload} or {@link #resize}. */
    public Tensor tensor() {
        return tensor;
    }

    /** Sets how many outermost rows count. */
    public void resize(int rows) {
        tensor.resize(rows);
    }

    /** Sends the first rows of the host copy to the device and makes them the tensor's size. */
    public void upload(int rows) {
        tensor.resize(rows);
        if (rows > 0) {
            check(Mla.mla_copy_from_host(owner.context, tensor.handle.data(), host, (long) rows * rowBytes));
        }
    }

    /** Fetches the tensor's rows into the host copy; waits for the device. */
    public void download() {
        if (tensor.size(0) > 0) {
            check(Mla.mla_copy_to_host(owner.context, host, tensor.handle.data(), tensor.size(0) * rowBytes));
        }
    }

    /** The host copy as ints; use absolute indices. */
    public IntBuffer ints() {
        return ints;
    }

    /** The host copy as longs; use absolute indices. */
    public LongBuffer longs() {
        return longs;
    }

    /** The host copy as floats; use absolute indices. */
    public FloatBuffer floats() {
        return floats;
    }

    @Override
    public void close() {
        tensor.close();
        host.close();
    }
}
