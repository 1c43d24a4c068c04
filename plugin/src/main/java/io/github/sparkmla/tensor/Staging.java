package io.github.sparkmla.tensor;

import static io.github.sparkmla.tensor.NativeException.check;

import io.github.sparkmla.natives.Mla;
import java.nio.ByteBuffer;
import java.nio.ByteOrder;
import java.nio.FloatBuffer;
import java.nio.IntBuffer;
import java.nio.LongBuffer;
import java.util.ArrayList;
import java.util.List;
import org.bytedeco.javacpp.BytePointer;

/**
 * What crosses between Java and the device at every step: sections side by side in one host buffer that the device copies
 * directly, and the same in device memory, so that any number of small tensors crosses in one copy. Sections are declared
 * first, then {@link #allocate} gives them memory. Their addresses stay the same, whatever is copied.
 */
public final class Staging implements AutoCloseable {
    /** Sections begin at multiples of this, as kernels like them. */
    private static final int ALIGNMENT = 256;

    private final Device device;
    private final List<Section> sections = new ArrayList<>();
    private long bytes;
    private Mla.mla_buffer host;
    private Tensor memory;

    public Staging(Device device) {
        this.device = device;
    }

    /** Declares the next section. */
    public Section section(DType dtype, long... shape) {
        Section section = new Section(dtype, shape, bytes);
        sections.add(section);
        bytes = (section.end() + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT;
        return section;
    }

    /** Gives all sections their memory. */
    public void allocate() {
        memory = device.allocate(DType.I32, bytes / DType.I32.bytes());
        host = device.hostBuffer(bytes);
        ByteBuffer whole = new BytePointer(Mla.mla_buffer_data(host))
                .capacity(bytes)
                .asByteBuffer()
                .order(ByteOrder.nativeOrder());
        sections.forEach(section -> section.place(memory, whole));
    }

    /**
     * Sends everything up to the end of the first {@code rows} of {@code last}, ordered on the stream. The host memory
     * must stay as it is until the device has done it.
     */
    public void upload(Section last, long rows) {
        long part = last.end(rows);
        check(Mla.mla_copy_from_host_async(device.context, memory.handle.data(), Mla.mla_buffer_data(host), part));
    }

    /** Fetches everything up to the end of the first {@code rows} of {@code last}; there once the device is done. */
    public void download(Section last, long rows) {
        long part = last.end(rows);
        check(Mla.mla_copy_to_host_async(device.context, Mla.mla_buffer_data(host), memory.handle.data(), part));
    }

    @Override
    public void close() {
        if (memory != null) {
            memory.close();
            device.release(host);
            memory = null;
        }
    }

    /** One tensor with its host copy. */
    public static final class Section {
        private final DType dtype;
        private final long[] shape;
        private final long offset;
        private Tensor tensor;
        private IntBuffer ints;
        private LongBuffer longs;
        private FloatBuffer floats;

        private Section(DType dtype, long[] shape, long offset) {
            this.dtype = dtype;
            this.shape = shape;
            this.offset = offset;
        }

        private long end() {
            return end(shape[0]);
        }

        private long end(long rows) {
            return offset + Tensor.elements(shape) / shape[0] * rows * dtype.bytes();
        }

        private void place(Tensor memory, ByteBuffer whole) {
            tensor = memory.at(offset, dtype, shape);
            ByteBuffer part = whole.duplicate()
                    .order(ByteOrder.nativeOrder())
                    .position((int) offset)
                    .limit((int) end());
            ints = part.slice().order(ByteOrder.nativeOrder()).asIntBuffer();
            longs = part.slice().order(ByteOrder.nativeOrder()).asLongBuffer();
            floats = part.slice().order(ByteOrder.nativeOrder()).asFloatBuffer();
        }

        /** The device's copy. */
        public Tensor tensor() {
            return tensor;
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
    }
}
